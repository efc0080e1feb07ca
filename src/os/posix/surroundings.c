/* What fork and spawn give a child by themselves, and a forkserver's worker is told. */
#define _GNU_SOURCE
#include "base/assert.h"
#include "os/os.h"
#include "os/posix/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>
#ifdef __GLIBC__
#include <sys/single_threaded.h>
#endif

enum { LIMITS = 16, CPU_WORDS = 16 };

typedef struct state {
  uint64_t cwd_device, cwd_inode;
  int64_t group;
  uint32_t umask;
  int32_t nice;
  uint64_t mask[2];
  uint64_t cpus[CPU_WORDS]; /* all zeros: more CPUs than fit, or nobody can tell */
  uint64_t limits[LIMITS][2];
} state;

MPX_STATIC_ASSERT(sizeof(state) <= sizeof(mpx_surroundings), "the surroundings fit");

#ifdef __GLIBC__
typedef __rlimit_resource_t resource;
#else
typedef int resource;
#define __libc_single_threaded 0
#endif

/* umask() cannot be read without being set, which another thread that makes a file would feel. */
static mode_t current_umask(void) {
  char text[512];
  const char *line = NULL;
  if (!__libc_single_threaded &&
      mpx_os_read_file("/proc/thread-self/status", text, sizeof text) > 0)
    line = strstr(text, "\nUmask:");
  if (line)
    return (mode_t)strtoul(line + sizeof "\nUmask:", NULL, 8);
  mode_t mask = umask(077);
  (void)umask(mask);
  return mask;
}

int mpx_os_surroundings_get(mpx_surroundings *ret_surroundings) {
  state now;
  struct stat cwd;
  struct rlimit limit;
  sigset_t mask;
  memset(&now, 0, sizeof now);
  if (stat(".", &cwd) == 0) {
    now.cwd_device = cwd.st_dev;
    now.cwd_inode = cwd.st_ino;
  }
  now.group = getpgrp();
  now.umask = current_umask();
  now.nice = getpriority(PRIO_PROCESS, 0);
  memset(&mask, 0, sizeof mask); /* the kernel and sigemptyset write less than it holds */
  (void)pthread_sigmask(SIG_BLOCK, NULL, &mask);
  memcpy(now.mask, &mask, sizeof now.mask < sizeof mask ? sizeof now.mask : sizeof mask);
#ifdef __linux__
  if (sched_getaffinity(0, sizeof now.cpus, (cpu_set_t *)(void *)now.cpus) < 0)
    memset(now.cpus, 0, sizeof now.cpus);
#endif
  for (int i = 0; i < LIMITS; i++)
    if (getrlimit((resource)i, &limit) == 0) {
      now.limits[i][0] = limit.rlim_cur;
      now.limits[i][1] = limit.rlim_max;
    }
  memset(ret_surroundings, 0, sizeof *ret_surroundings);
  memcpy(ret_surroundings, &now, sizeof now);
  return 0;
}

bool mpx_os_surroundings_same_cwd(const mpx_surroundings *a, const mpx_surroundings *b) {
  return memcmp(a->words, b->words, 2 * sizeof a->words[0]) == 0;
}

int mpx_os_cwd_open(mproc_handle *ret_handle) {
#ifdef O_PATH
  int fd = open(".", O_PATH | O_DIRECTORY | O_CLOEXEC);
#else
  int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
#endif
  fd = mpx_above_streams(fd < 0 ? -errno : fd);
  if (fd < 0)
    return fd;
  *ret_handle = fd;
  return 0;
}

static int apply_limits(const state *wanted, const state *now) {
  for (int i = 0; i < LIMITS; i++) {
    struct rlimit limit = {.rlim_cur = (rlim_t)wanted->limits[i][0],
                           .rlim_max = (rlim_t)wanted->limits[i][1]};
    if (memcmp(wanted->limits[i], now->limits[i], sizeof now->limits[i]) != 0 &&
        setrlimit((resource)i, &limit) < 0)
      return -errno;
  }
  return 0;
}

static int apply_affinity(const state *wanted, const state *now) {
  static const uint64_t unknown[CPU_WORDS];
  if (memcmp(wanted->cpus, now->cpus, sizeof now->cpus) == 0 ||
      memcmp(wanted->cpus, unknown, sizeof unknown) == 0)
    return 0;
#ifdef __linux__
  if (sched_setaffinity(0, sizeof wanted->cpus, (const cpu_set_t *)(const void *)wanted->cpus) < 0)
    return -errno;
#endif
  return 0;
}

/* The limits come before the mask and after all else, which they could hinder. */
int mpx_os_surroundings_apply(const mpx_surroundings *wanted_words,
                              const mpx_surroundings *now_words, mproc_handle cwd,
                              mpx_stage *ret_stage) {
  state wanted, now;
  sigset_t mask;
  memcpy(&wanted, wanted_words, sizeof wanted);
  memcpy(&now, now_words, sizeof now);
  int r = 0;
#define APPLY(stage, condition, action)                                                            \
  if (r == 0 && (condition) && (r = (action)) < 0)                                                 \
  *ret_stage = (stage)
  APPLY(MPX_STAGE_CWD, cwd != MPX_NO_HANDLE, fchdir(mpx_descriptor(cwd)) < 0 ? -errno : 0);
  APPLY(MPX_STAGE_GROUP, wanted.group != now.group,
        setpgid(0, (pid_t)wanted.group) < 0 ? -errno : 0);
  APPLY(MPX_STAGE_AFFINITY, true, apply_affinity(&wanted, &now));
  APPLY(MPX_STAGE_NICE, wanted.nice != now.nice,
        setpriority(PRIO_PROCESS, 0, wanted.nice) < 0 ? -errno : 0);
  APPLY(MPX_STAGE_LIMITS, true, apply_limits(&wanted, &now));
#undef APPLY
  if (r < 0)
    return r;
  (void)umask((mode_t)wanted.umask);
  (void)sigemptyset(&mask);
  memcpy(&mask, wanted.mask, sizeof wanted.mask < sizeof mask ? sizeof wanted.mask : sizeof mask);
  (void)sigprocmask(SIG_SETMASK, &mask, NULL);
  return 0;
}

int mpx_os_streams_install(const mproc_handle handles[3]) {
  for (int i = 0; i < 3; i++) {
    int fd = mpx_descriptor(handles[i]);
    if (fd < 0)
      (void)close(i);
    else if (dup2(fd, i) < 0)
      return -errno;
  }
  for (int i = 0; i < 3; i++)
    mpx_os_close(handles[i]);
  return 0;
}

int mpx_os_streams_to_null(void) {
  int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd < 0)
    return -errno;
  int r = 0;
  for (int i = STDIN_FILENO; i <= STDERR_FILENO && r == 0; i++)
    r = dup2(fd, i) < 0 ? -errno : 0;
  if (fd > STDERR_FILENO)
    (void)close(fd);
  return r;
}
