#define _POSIX_C_SOURCE 200809L

#include "digest.h"

#include <ctype.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>

double now_s(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

void print_error(const char *text, ...) {
  va_list arguments;
  va_start(arguments, text);
  progress_clear();
  fflush(stdout);
  fputs("mproc-digest: ", stderr);
  vfprintf(stderr, text, arguments);
  fputc('\n', stderr);
  va_end(arguments);
}

void print_mproc_error(const char *what) {
  print_error("%s: %s", what, mproc_error_detail());
}

void print_methods(void) {
  const char *const *names;
  const char *in_use = NULL;
  if (mproc_get_all_start_methods(&names) < 0 || mproc_get_start_method(&in_use) < 0)
    return;
  fputs("start methods:", stdout);
  for (size_t i = 0; names[i]; i++)
    printf("%s %s%s", i ? "," : "", names[i], strcmp(names[i], in_use) ? "" : " (default)");
  putchar('\n');
}

void print_table_head(void) {
  printf("%-10s %7s %13s %9s %8s %9s %9s %8s\n", "method", "workers", "first worker", "total",
         "files", "MB", "files/s", "MB/s");
}

void print_table_row(const digest_pass *pass) {
  char first[32] = "-";
  if (pass->first_worker_s > 0)
    snprintf(first, sizeof first, "%.2f ms", pass->first_worker_s * 1e3);
  double seconds = pass->total_s > 0 ? pass->total_s : 1e-9;
  double megabytes = (double)pass->byte_count / 1e6;
  printf("%-10s %7zu %13s %7.3f s %8llu %9.1f %9.0f %8.0f\n", pass->method, pass->worker_count,
         first, pass->total_s, (unsigned long long)pass->file_count, megabytes,
         (double)pass->file_count / seconds, megabytes / seconds);
  fflush(stdout);
}

const char *printable(const char *path, char *buffer, size_t size) {
  size_t used = 0;
  for (const unsigned char *c = (const unsigned char *)path; *c; c++) {
    int plain = *c >= 0x80 || (isprint(*c) && *c != '\\');
    if (used + (plain ? 1 : 4) >= size)
      break;
    if (plain)
      buffer[used++] = (char)*c;
    else
      used += (size_t)snprintf(buffer + used, size - used, "\\%03o", *c);
  }
  buffer[used] = '\0';
  return buffer;
}
