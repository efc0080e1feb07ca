/* fork: glibc's own, never a raw clone, so that atfork handlers run and malloc's locks are
 * whole. */
#define _GNU_SOURCE
#include "os/linux/pidfd.h"
#include "os/os.h"
#include "os/posix/child.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

/* A child that is gone before we could name it has a sentinel all the same. */
static int sentinel_of_the_gone(mpx_child *child) {
  child->pidfd = false;
  return mpx_os_ended_sentinel(&child->sentinel);
}

int mpx_child_name(mpx_child *child) {
  int fd = mpx_pidfd_of_child((pid_t)child->pid);
  if (fd == -ESRCH)
    return sentinel_of_the_gone(child);
  if (fd < 0)
    return fd;
  child->sentinel = fd;
  child->pidfd = true;
  return 0;
}

void mpx_child_discard(mpx_child *child) {
  (void)kill((pid_t)child->pid, SIGKILL);
  while (waitpid((pid_t)child->pid, NULL, 0) < 0 && errno == EINTR)
    continue;
  mpx_os_close(child->sentinel);
  child->sentinel = MPX_NO_HANDLE;
  child->pidfd = false;
}

bool mpx_os_has_fork(void) {
  return true;
}

void mpx_os_at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void)) {
  (void)pthread_atfork(before, in_parent, in_child);
}

int mpx_os_fork(mpx_child *child) {
  pid_t pid = fork();
  if (pid < 0)
    return -errno;
  if (pid == 0) /* writes nothing: every page that a child writes to is copied for it */
    return 1;
  child->pid = pid;
  if (child->sentinel != MPX_NO_HANDLE) /* the pipe of mpx_os_child_prepare */
    return 0;
  int r = mpx_child_name(child);
  if (r < 0) /* out of descriptors: a child that cannot be named must not run */
    mpx_child_discard(child);
  return r;
}
