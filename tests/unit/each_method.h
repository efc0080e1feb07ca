/* Cases that run once under every start method, and short ways to start and end children. */
#ifndef MPROC_TEST_EACH_METHOD_H
#define MPROC_TEST_EACH_METHOD_H

#include "facilities.h"
#include "harness.h"

#include <mproc/mproc.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* EACH_METHOD(joins) { ... method ... } makes joins_fork, joins_spawn and joins_forkserver. */
#define EACH_METHOD(name) EACH_METHOD_LIMIT(name, 20)

#define EACH_METHOD_LIMIT(name, seconds)                                                           \
  static void each_##name(const char *method);                                                     \
  TEST_LIMIT(name##_fork, seconds) {                                                               \
    each_##name("fork");                                                                           \
  }                                                                                                \
  TEST_LIMIT(name##_spawn, seconds) {                                                              \
    each_##name("spawn");                                                                          \
  }                                                                                                \
  TEST_LIMIT(name##_forkserver, seconds) {                                                         \
    each_##name("forkserver");                                                                     \
  }                                                                                                \
  static void each_##name(const char *method)

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#else
#define SANITIZED 0
#endif

/* ---- children -------------------------------------------------------------------------------- */

static inline mproc_process *create_child(const char *method, mproc_entry *entry, const void *arg,
                                          size_t size, const mproc_process_options *options) {
  mproc_process_options with_method = options ? *options : (mproc_process_options){0};
  mproc_process *process = NULL;
  with_method.method = method;
  CHECK_OK(mproc_process_create(&process, entry, arg, size, &with_method));
  return process;
}

static inline mproc_process *start_child(const char *method, mproc_entry *entry, const void *arg,
                                         size_t size, const mproc_process_options *options) {
  mproc_process *process = create_child(method, entry, arg, size, options);
  CHECK_OK(mproc_process_start(process));
  return process;
}

static inline mproc_status end_of_child(mproc_process *process) {
  mproc_status status;
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  CHECK_OK(mproc_process_status(process, &status));
  CHECK_OK(mproc_process_close(process));
  return status;
}

/* The exit code; a child that ended in any other way fails the case. */
static inline int code_of_child(mproc_process *process) {
  mproc_status status = end_of_child(process);
  char text[128];
  if (status.state != MPROC_STATE_EXITED)
    test_fail(__FILE__, __LINE__, "the child exits", "%s",
              mproc_strstatus(&status, text, sizeof text));
  return status.code;
}

static inline int run_child(const char *method, mproc_entry *entry, const void *arg, size_t size) {
  return code_of_child(start_child(method, entry, arg, size, NULL));
}

static inline void kill_child(mproc_process *process) {
  CHECK_OK(mproc_process_kill(process));
  mproc_status status = end_of_child(process);
  CHECK_EQ(status.state, MPROC_STATE_SIGNALED);
}

static inline int sleep_for_ever(void *arg, size_t size) {
  (void)arg, (void)size;
  for (;;)
    (void)pause();
  return 0;
}

static inline int return_zero(void *arg, size_t size) {
  (void)arg, (void)size;
  return 0;
}

/* ---- time and files -------------------------------------------------------------------------- */

static inline int64_t now_ms(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static inline void sleep_ms(int ms) {
  struct timespec duration = {ms / 1000, ms % 1000 * 1000000L};
  (void)nanosleep(&duration, NULL);
}

/* Polls for a condition of another process; fails the case after 10 s, under valgrind later. */
#define AWAIT(condition)                                                                           \
  do {                                                                                             \
    int64_t await_end = now_ms() + (test_under_valgrind() ? 200000 : 10000);                       \
    while (!(condition)) {                                                                         \
      CHECK(now_ms() < await_end && #condition);                                                   \
      sleep_ms(2);                                                                                 \
    }                                                                                              \
  } while (0)

static inline bool is_readable(mproc_handle handle) {
  struct pollfd item = {.fd = (int)handle, .events = POLLIN};
  return poll(&item, 1, 0) == 1;
}

/* Reads to the end of the file, closes it and returns the text. */
static inline const char *read_all(int fd, char *text, size_t size) {
  size_t used = 0;
  ssize_t count;
  while (used < size - 1 && (count = read(fd, text + used, size - 1 - used)) > 0)
    used += (size_t)count;
  text[used] = '\0';
  CHECK_EQ(close(fd), 0);
  return text;
}

static inline void make_pipe(int ends[2]) {
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
}

#endif
