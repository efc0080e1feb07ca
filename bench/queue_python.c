/* CPython's multiprocessing.Queue, for bench_queue: queue_python.py measures a round itself. */
#define _GNU_SOURCE
#include "queue_peers.h"

#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS = 5, DIGITS = 24 };

/* `python3 queue_python.py WHAT SIZE PLACES PAIRS WARM COUNT`; it prints a figure, and `sums` times
 * three numbers. */
static bool ask(const char *what, const uint64_t *numbers, double *ret_figure, queue_sum *ret_sums,
                int sums) {
  static char python3[] = "python3", script[] = BENCH_QUEUE_PYTHON;
  char texts[ARGUMENTS][DIGITS];
  char *argv[3 + ARGUMENTS + 1] = {python3, script, (char *)(uintptr_t)what};
  posix_spawn_file_actions_t actions;
  int ends[2], status;
  pid_t pid;
  for (int i = 0; i < ARGUMENTS; i++) {
    (void)snprintf(texts[i], sizeof texts[i], "%" PRIu64, numbers[i]);
    argv[3 + i] = texts[i];
  }
  if (pipe2(ends, O_CLOEXEC) < 0)
    queue_die("pipe");
  (void)posix_spawn_file_actions_init(&actions);
  (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  int failed = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
  (void)posix_spawn_file_actions_destroy(&actions);
  (void)close(ends[1]);
  FILE *answer = fdopen(ends[0], "r");
  if (!answer)
    queue_die("fdopen");
  bool good = !failed && fscanf(answer, "%lf", ret_figure) == 1;
  for (int i = 0; i < sums; i++)
    good = good && fscanf(answer, "%" SCNu64 "%" SCNu64 "%" SCNu64, &ret_sums[i].count,
                          &ret_sums[i].heads, &ret_sums[i].tails) == 3;
  (void)fclose(answer);
  return !failed && waitpid(pid, &status, 0) == pid && status == 0 && good;
}

static const char *refuses(const queue_setup *setup) {
  static enum { UNKNOWN, GOOD, BAD } python;
  (void)setup;
  if (python == UNKNOWN) {
    const uint64_t nothing[ARGUMENTS] = {0};
    double one;
    python = ask("check", nothing, &one, NULL, 0) ? GOOD : BAD;
  }
  return python == GOOD ? NULL : "python3 with multiprocessing is not installed";
}

static double measure(const char *what, const queue_setup *setup, uint64_t warm, uint64_t count,
                      queue_sum *ret_sums, int sums) {
  const uint64_t numbers[ARGUMENTS] = {setup->size, setup->capacity, (uint64_t)setup->pairs, warm,
                                       count};
  double figure;
  if (!ask(what, numbers, &figure, ret_sums, sums))
    queue_die("python3");
  return figure;
}

static double rate(const queue_setup *setup, uint64_t warm, uint64_t count, queue_sum *ret_sum) {
  return measure("rate", setup, warm, count, ret_sum, 1);
}

static double trip(const queue_setup *setup, uint64_t warm, uint64_t count, queue_sum ret_sums[2]) {
  return measure("trip", setup, warm, count, ret_sums, 2);
}

static const queue_program program = {.rate = rate, .trip = trip};

const queue_peer queue_peer_python = {
    .name = "CPython Queue", .refuses = refuses, .program = &program};
