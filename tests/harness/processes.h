/* What tests of processes need again and again. Every wait here has an end. */
#ifndef MPROC_TEST_PROCESSES_H
#define MPROC_TEST_PROCESSES_H

#include "harness.h"

#include <mproc/mproc.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

static inline int return_code(void *arg, size_t size) {
  return size == sizeof(int) ? *(int *)arg : 255;
}

/* Both methods still work. */
static inline void check_family_works(void) {
  const int code = 42;
  FOR_ALL_METHODS(method)
  check_exited(start_by(method, return_code, &code, sizeof code), code);
}

/* ---- any process ----------------------------------------------------------------------------- */

/* The state letter of /proc/PID/stat; 0 when there is no such process. */
static inline char state_of(int64_t pid) {
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0)
    return 0;
  ssize_t length = read(fd, text, sizeof text - 1);
  close(fd);
  text[length < 0 ? 0 : length] = '\0';
  const char *name_end = strrchr(text, ')');
  return name_end && name_end[1] ? name_end[2] : 0;
}

/* A zombie is gone: it runs no more, and when it disappears is its parent's business. */
static inline bool is_gone(int64_t pid) {
  char state = state_of(pid);
  return state == 0 || state == 'Z' || state == 'X';
}

/* Processes under valgrind, many at a time, are slow to end. */
static inline int64_t end_of_wait(int ms) {
  return now_ms() + (test_under_valgrind() ? 20 : 1) * (int64_t)ms;
}

static inline bool gone_within(int64_t pid, int ms) {
  for (int64_t end = end_of_wait(ms); !is_gone(pid); sleep_ms(2))
    if (now_ms() > end)
      return false;
  return true;
}

static inline bool stopped_within(int64_t pid, int ms) {
  for (int64_t end = end_of_wait(ms); state_of(pid) != 'T'; sleep_ms(2))
    if (now_ms() > end)
      return false;
  return true;
}

/* The open descriptors of this process; the one that lists them is not counted. */
static inline int descriptor_count(void) {
  DIR *folder = opendir("/proc/self/fd");
  int count = -1;
  CHECK(folder != NULL);
  for (struct dirent *entry; (entry = readdir(folder));)
    count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
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

/* Runs a program, waits for it and returns its status; stores what it wrote to standard output. */
static inline int run_program(const char *const *argv, char *output, size_t size) {
  int ends[2], status;
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    execv(argv[0], (char *const *)(uintptr_t)argv);
    fprintf(stderr, "# cannot execute %s: %s\n", argv[0], strerror(errno));
    _exit(127);
  }
  close(ends[1]);
  size_t used = 0;
  for (ssize_t r; used + 1 < size && (r = read(ends[0], output + used, size - 1 - used)) > 0;)
    used += (size_t)r;
  output[used] = '\0';
  close(ends[0]);
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

/* Copies a file; false when it cannot. */
static inline bool copy_file(const char *from, const char *to, mode_t mode) {
  char buffer[65536];
  int source = open(from, O_RDONLY | O_CLOEXEC);
  int target = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  bool good = source >= 0 && target >= 0;
  for (ssize_t size; good && (size = read(source, buffer, sizeof buffer)) > 0;)
    good = write(target, buffer, (size_t)size) == size;
  good = good && fchmod(target, mode) == 0;
  close(source);
  close(target);
  return good;
}

#endif
