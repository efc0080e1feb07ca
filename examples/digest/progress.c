#define _POSIX_C_SOURCE 200809L

#include "digest.h"

#include <unistd.h>

static int shown;

void progress_show(const char *method, const digest_job *job, size_t worker_count) {
  if (!isatty(STDERR_FILENO))
    return;
  uint64_t files = 0;
  uint64_t bytes = 0;
  for (size_t i = 0; i < worker_count; i++) {
    files += atomic_load_explicit(&job->workers[i].file_count, memory_order_relaxed);
    bytes += atomic_load_explicit(&job->workers[i].byte_count, memory_order_relaxed);
  }
  char line[80];
  snprintf(line, sizeof line, "%s: %llu of %zu files, %.1f MB", method, (unsigned long long)files,
           job->file_count, (double)bytes / 1e6);
  fprintf(stderr, "\r%-78s", line);
  fflush(stderr);
  shown = 1;
}

void progress_clear(void) {
  if (shown)
    fprintf(stderr, "\r%78s\r", "");
  shown = 0;
}
