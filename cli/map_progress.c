/* The line on the terminal, the figures at the end, and messages, which must not run into it. */
#define _DEFAULT_SOURCE /* struct winsize */

#include "map.h"

#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { INTERVAL_MS = 100, BAR_CELLS = 30, BAR_CELLS_MIN = 5 };

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

static size_t columns(void) {
  struct winsize size;
  return ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col ? size.ws_col : 80;
}

static void append_bar(map_buffer *line, double fraction, size_t cells) {
  size_t full = (size_t)((fraction > 1 ? 1 : fraction) * (double)cells);
  map_append(line, "[", 1);
  for (size_t i = 0; i < cells; i++)
    map_append(line, i < full ? "#" : ".", 1);
  map_append_text(line, "] ");
}

/* Without the bar, which has the room that is left. */
static void append_figures(map_buffer *line, const map_tally *tally, const map_source *source,
                           double fraction) {
  char left[32];
  double seconds = (double)(map_now_ns() - tally->started_ns) / 1e9;
  double rate = seconds > 0 ? (double)tally->done / seconds : 0;
  if (fraction >= 0)
    map_append_format(line, "%3.0f%%  ", fraction * 100);
  unsigned long long done = tally->done + tally->skipped;
  map_append_format(line, "%llu done", done);
  if (source->arguments)
    map_append_format(line, " of %llu", (unsigned long long)source->total);
  if (tally->failed)
    map_append_format(line, ", %llu failed", (unsigned long long)tally->failed);
  map_append_format(line, rate < 10 ? ", %.1f/s" : ", %.0f/s", rate);
  /* of what was left at the beginning: what the log had took no time */
  double began = done > 0 && fraction > 0 ? fraction * (double)tally->skipped / (double)done : 0;
  if (fraction > began)
    map_append_format(line, ", ETA %s",
                      duration(seconds * (1 - fraction) / (fraction - began), left, sizeof left));
}

void map_progress_show(const map_tally *tally, const map_source *source) {
  int64_t now_ns = map_now_ns();
  if (!wanted || now_ns < next_ns)
    return;
  next_ns = now_ns + (int64_t)INTERVAL_MS * 1000000;
  /* of a file it is known how much was read: the inputs in hand are not done */
  double fraction = map_source_fraction(source, tally->done + tally->skipped);
  if (fraction >= 0 && !source->arguments && tally->submitted)
    fraction *=
        (double)(tally->done + tally->skipped) / (double)(tally->submitted + tally->skipped);

  /* one that runs on into the next line of the terminal could not be wiped off */
  map_buffer line = {0};
  map_buffer bar = {0};
  size_t width = columns() - 1;
  append_figures(&line, tally, source, fraction);
  if (fraction >= 0 && line.size + BAR_CELLS_MIN + 3 <= width) {
    size_t cells = width - line.size - 3;
    append_bar(&bar, fraction, cells < BAR_CELLS ? cells : BAR_CELLS);
  }
  fprintf(stderr, "\r\033[K%.*s%.*s", (int)bar.size, bar.size ? bar.data : "",
          (int)(line.size < width ? line.size : width), line.data);
  fflush(stderr);
  shown = true;
  map_release(&line);
  map_release(&bar);
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
