/* What tests of processes need again and again. Every wait here has an end. */
#ifndef MPROC_TEST_PROCESSES_H
#define MPROC_TEST_PROCESSES_H

#include "files.h"
#include "harness.h"
#include "proc.h"

#include <mproc/mproc.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* Far more than any child of a test needs. */
#define JOIN_MS (test_under_valgrind() || TEST_HAS_TSAN ? 200000 : 15000)

static const char *const all_methods[] = {"fork", "spawn", "forkserver"};
enum { METHODS = sizeof all_methods / sizeof all_methods[0] };
#define FOR_ALL_METHODS(method)                                                                    \
  for (const char *const *at_method = all_methods, *method = *at_method;                           \
       at_method < all_methods + METHODS && ((method = *at_method), true); at_method++)

static inline int64_t now_ms(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

static inline void sleep_ms(int ms) {
  struct timespec left = {ms / 1000, ms % 1000 * 1000000L};
  while (nanosleep(&left, &left) < 0 && errno == EINTR)
    continue;
}

/* Waits for a condition of another thread or process; the case fails after JOIN_MS. */
#define AWAIT(condition)                                                                           \
  do {                                                                                             \
    int64_t await_end = now_ms() + JOIN_MS;                                                        \
    for (; !(condition); sleep_ms(1))                                                              \
      CHECK(now_ms() < await_end && #condition);                                                   \
  } while (0)

/* ---- processes of mproc ---------------------------------------------------------------------- */

static inline mproc_process *create_with(const mproc_process_options *options, mproc_entry *entry,
                                         const void *arg, size_t size) {
  mproc_process *process = NULL;
  CHECK_EQ(mproc_process_create(&process, entry, arg, size, options), 0);
  return process;
}

static inline mproc_process *start_with(const mproc_process_options *options, mproc_entry *entry,
                                        const void *arg, size_t size) {
  mproc_process *process = create_with(options, entry, arg, size);
  CHECK_EQ(mproc_process_start(process), 0);
  return process;
}

static inline mproc_process *start_by(const char *method, mproc_entry *entry, const void *arg,
                                      size_t size) {
  const mproc_process_options options = {.method = method};
  return start_with(&options, entry, arg, size);
}

#define COMMAND(...) ((const char *const[]){__VA_ARGS__, NULL})

static inline mproc_process *create_command(const char *const *argv,
                                            const mproc_process_options *options) {
  mproc_process *process = NULL;
  CHECK_EQ(mproc_process_create_command(&process, argv, options), 0);
  return process;
}

static inline mproc_process *start_command(const char *const *argv,
                                           const mproc_process_options *options) {
  mproc_process *process = create_command(argv, options);
  CHECK_EQ(mproc_process_start(process), 0);
  return process;
}

/* Joins, takes the status and closes. */
static inline mproc_status end_of(mproc_process *process) {
  mproc_status status;
  CHECK_EQ(mproc_process_join(process, JOIN_MS), 0);
  CHECK_EQ(mproc_process_status(process, &status), 0);
  CHECK_EQ(mproc_process_close(process), 0);
  return status;
}

static inline void check_exited(mproc_process *process, int code) {
  mproc_status status = end_of(process);
  CHECK_EQ(status.state, MPROC_STATE_EXITED);
  CHECK_EQ(status.code, code);
}

static inline void check_killed(mproc_process *process, int signal_number) {
  mproc_status status = end_of(process);
  CHECK_EQ(status.state, MPROC_STATE_SIGNALED);
  CHECK_EQ(status.signal, signal_number);
}

static inline void kill_child(mproc_process *process) {
  CHECK_EQ(mproc_process_kill(process), 0);
  check_killed(process, SIGKILL);
}

static inline int return_code(void *arg, size_t size) {
  return size == sizeof(int) ? *(int *)arg : 255;
}

static inline int sleep_for_long(void *arg, size_t size) {
  (void)arg, (void)size;
  sleep_ms(30000);
  return 0;
}

/* What an entry does that takes something and goes on without letting go of it: its thread ends, or
 * when *release says so it becomes another program. */
static inline int take_and_go_on(void *(*take)(void *), void *arg, bool in_thread, _Atomic int *go,
                                 const _Atomic int *release) {
  pthread_t thread;
  if (in_thread) {
    CHECK_EQ(pthread_create(&thread, NULL, take, arg), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    *go = 1;
    return sleep_for_long(NULL, 0);
  }
  (void)take(arg);
  *go = 1;
  AWAIT(*release); /* others may look before the exec as well */
  execl("/bin/sleep", "sleep", "20", (char *)NULL);
  return 1;
}

/* All methods still work. */
static inline void check_family_works(void) {
  const int code = 42;
  FOR_ALL_METHODS(method)
  check_exited(start_by(method, return_code, &code, sizeof code), code);
}

/* ---- any process ----------------------------------------------------------------------------- */

/* Processes under valgrind, many at a time, are slow to end. */
static inline int64_t end_of_wait(int ms) {
  return now_ms() + (test_under_valgrind() ? 20 : 1) * (int64_t)ms;
}

static inline bool gone_before(int64_t pid, int64_t end) {
  for (; !is_gone(pid); sleep_ms(2))
    if (now_ms() > end)
      return false;
  return true;
}

static inline bool gone_within(int64_t pid, int ms) {
  return gone_before(pid, end_of_wait(ms));
}

static inline bool stopped_within(int64_t pid, int ms) {
  for (int64_t end = end_of_wait(ms); state_of(pid) != 'T'; sleep_ms(2))
    if (now_ms() > end)
      return false;
  return true;
}

/* The descriptor of the family's heap: the one that the first use of the heap opened. Call it
 * before that use. */
static inline int heap_descriptor(void) {
  bool open_before[256], found = false;
  int heap = -1;
  for (int fd = 0; fd < 256; fd++)
    open_before[fd] = fcntl(fd, F_GETFD) >= 0;
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
  for (int fd = 0; fd < 256; fd++)
    if (!open_before[fd] && fcntl(fd, F_GETFD) >= 0) {
      CHECK(!found);
      found = true;
      heap = fd;
    }
  CHECK(found);
  return heap;
}

static inline uint64_t heap_used(void) {
  mproc_heap_statistics statistics;
  CHECK_EQ(mproc_heap_stats(&statistics), 0);
  return statistics.used_bytes;
}

#endif
