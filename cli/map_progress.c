/* The line on the terminal, the figures at the end, and messages, which must not run into it. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <stdarg.h>
#include <string.h>
#include <unistd.h>

enum { INTERVAL_MS = 100, BAR_CELLS = 30 };

static bool wanted, shown;
static int64_t next_ns;

void map_progress_begin(void) {
  wanted = isatty(STDERR_FILENO) == 1;
}

void map_progress_clear(void) {
  if (shown)
    fputs("\r\033[K", stderr);
  shown = false;
}

int map_error(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  map_progress_clear();
  fputs("mproc: ", stderr);
  vfprintf(stderr, format, arguments);
  fputc('\n', stderr);
  va_end(arguments);
  return MAP_ERROR;
}

static const char *duration(double seconds, char *buffer, size_t size) {
  unsigned long whole = (unsigned long)seconds;
  if (seconds >= 3600 * 100.0)
    snprintf(buffer, size, "%lu days", whole / 86400);
  else if (whole >= 3600)
    snprintf(buffer, size, "%lu:%02lu:%02lu", whole / 3600, whole / 60 % 60, whole % 60);
  else
    snprintf(buffer, size, "%lu:%02lu", whole / 60, whole % 60);
  return buffer;
}

void map_progress_show(const map_tally *tally, const map_source *source) {
  int64_t now_ns = map_now_ns();
  if (!wanted || now_ns < next_ns)
    return;
  next_ns = now_ns + (int64_t)INTERVAL_MS * 1000000;
  double seconds = (double)(now_ns - tally->started_ns) / 1e9;
  double rate = seconds > 0 ? (double)tally->done / seconds : 0;
  /* of a file it is known how much was read: the inputs in hand are not done */
  double fraction = map_source_fraction(source, tally->done);
  if (fraction >= 0 && !source->arguments && tally->submitted)
    fraction *= (double)tally->done / (double)tally->submitted;

  fputs("\r\033[K", stderr);
  shown = true;
  if (fraction >= 0) {
    char bar[BAR_CELLS + 1];
    int full = (int)((fraction > 1 ? 1 : fraction) * BAR_CELLS);
    memset(bar, '.', BAR_CELLS);
    memset(bar, '#', (size_t)full);
    bar[BAR_CELLS] = '\0';
    fprintf(stderr, "[%s] %3.0f%%  ", bar, fraction * 100);
  }
  fprintf(stderr, "%llu done", (unsigned long long)tally->done);
  if (source->arguments)
    fprintf(stderr, " of %llu", (unsigned long long)source->total);
  if (tally->failed)
    fprintf(stderr, ", %llu failed", (unsigned long long)tally->failed);
  fprintf(stderr, rate < 10 ? ", %.1f/s" : ", %.0f/s", rate);
  char left[32];
  if (fraction > 0)
    fprintf(stderr, ", ETA %s", duration(seconds / fraction - seconds, left, sizeof left));
  fflush(stderr);
}

/* The upper bound of the bucket in which the quantile lies. */
static void print_times(const char *what, const uint64_t *histogram) {
  static const int quantiles[] = {50, 90, 99};
  uint64_t count = 0;
  for (int i = 0; i < MPROC_HISTOGRAM_BUCKETS; i++)
    count += histogram[i];
  if (count == 0)
    return;
  fprintf(stderr, "mproc: %s", what);
  for (size_t q = 0; q < sizeof quantiles / sizeof quantiles[0]; q++) {
    uint64_t seen = 0;
    int bucket = 0;
    while (bucket < MPROC_HISTOGRAM_BUCKETS - 1 &&
           (seen += histogram[bucket]) * 100 < count * (uint64_t)quantiles[q])
      bucket++;
    double us = (double)((uint64_t)1 << bucket);
    fprintf(stderr,
            us < 1e3   ? "%s %d%% below %.0f us"
            : us < 1e6 ? "%s %d%% below %.1f ms"
                       : "%s %d%% below %.1f s",
            q ? "," : "", quantiles[q],
            us < 1e3   ? us
            : us < 1e6 ? us / 1e3
                       : us / 1e6);
  }
  fputc('\n', stderr);
}

void map_print_stats(const map_tally *tally, mproc_pool *pool) {
  double seconds = (double)(map_now_ns() - tally->started_ns) / 1e9;
  map_progress_clear();
  fprintf(stderr, "mproc: %llu inputs in %.3f s, %.0f/s; %llu failed\n",
          (unsigned long long)tally->done, seconds, seconds > 0 ? (double)tally->done / seconds : 0,
          (unsigned long long)tally->failed);
  mproc_pool_statistics statistics;
  if (mproc_pool_stats(pool, &statistics) < 0)
    return;
  fprintf(stderr,
          "mproc: %d workers; %llu processes were started, %llu died; %llu attempts more than one, "
          "%llu timed out, %llu out of memory\n",
          statistics.workers, (unsigned long long)statistics.started,
          (unsigned long long)statistics.died, (unsigned long long)statistics.retried,
          (unsigned long long)statistics.timed_out, (unsigned long long)statistics.out_of_memory);
  print_times("wait:", statistics.wait_time);
  print_times("run:", statistics.run_time);
}
