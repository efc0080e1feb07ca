#define _GNU_SOURCE
#include "measure.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

double bench_now_us(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b) {
  double x = *(const double *)a, y = *(const double *)b;
  return (x > y) - (x < y);
}

double bench_median(double *values, size_t count) {
  qsort(values, count, sizeof *values, compare);
  return count ? values[count / 2] : 0;
}

void bench_shuffle(int *order, int count) {
  static uint32_t state = 1;
  for (int i = count - 1; i > 0; i--) {
    state = state * 1664525u + 1013904223u;
    int other = (int)((state >> 8) % (uint32_t)(i + 1)), kept = order[i];
    order[i] = order[other];
    order[other] = kept;
  }
}

bench_pair bench_compare(bench_time *first, bench_time *second, int rounds) {
  size_t count = (size_t)rounds;
  double *values = calloc(3 * count, sizeof *values);
  if (!values)
    exit(1);
  double *firsts = values, *seconds = values + count, *ratios = values + 2 * count;
  for (int round = -1; round < rounds; round++) {
    bool swapped = round % 2 == 0;
    double a = swapped ? second() : first(), b = swapped ? first() : second();
    if (round < 0)
      continue;
    firsts[round] = swapped ? b : a;
    seconds[round] = swapped ? a : b;
    ratios[round] = firsts[round] / seconds[round];
  }
  bench_pair pair = {bench_median(firsts, count), bench_median(seconds, count),
                     bench_median(ratios, count)};
  free(values);
  return pair;
}

void bench_json(FILE *file, const char *bench, const char *name, const char *fields) {
  if (file)
    (void)fprintf(file, "{\"bench\":\"%s\",\"case\":\"%s\",%s}\n", bench, name, fields);
}

void bench_machine(char *line, size_t size) {
  struct utsname kernel;
  char libc[64] = "another libc";
#ifdef _CS_GNU_LIBC_VERSION
  (void)confstr(_CS_GNU_LIBC_VERSION, libc, sizeof libc);
#endif
  (void)uname(&kernel);
  (void)snprintf(line, size, "%ld CPUs, %s %s, %s", sysconf(_SC_NPROCESSORS_ONLN), kernel.sysname,
                 kernel.release, libc);
}

FILE *bench_open_json(int argc, char **argv) {
  if (argc == 1)
    return NULL;
  if (argc == 3 && strcmp(argv[1], "--json") == 0) {
    FILE *file = fopen(argv[2], "ae");
    if (file)
      return file;
    perror(argv[2]);
  } else {
    (void)fprintf(stderr, "usage: %s [--json FILE]\n", argv[0]);
  }
  exit(2);
}
