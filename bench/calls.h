/* What programs ask of the system: their calls, counted by strace, and their memory. */
#ifndef BENCH_CALLS_H
#define BENCH_CALLS_H

#include <stdbool.h>

/* Of a program, of the server that it named, and of all other processes that it made. */
typedef struct bench_calls {
  double client, server, others;
} bench_calls;

/* The programs here print their pid and that of their server, or 0, in one line, when they have
 * done their work, and end when they have read to the end of their standard input.
 *
 * Runs one under strace and counts. Returns NULL, or what is missing. */
const char *bench_count_calls(char *const *argv, bench_calls *ret_calls);

/* Runs one and looks at its server's memory: KB of PSS. Returns NULL, or what is missing. */
const char *bench_server_memory(char *const *argv, long *ret_kilobytes);

/* Whether a program can be executed, with --version. */
bool bench_has_program(const char *name);

#endif
