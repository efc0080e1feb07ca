/* fork: glibc's own, never a raw clone, so that atfork handlers run and malloc's locks are
 * whole. */
#define _GNU_SOURCE
#include "os/linux/pidfd.h"
#include "os/os.h"

#include <errno.h>
#include <pthread.h>
#include <sys/wait.h>
#include <unistd.h>

int mpx_os_child_name(mpx_child *child) {
  if (child->newborn >= 0) {
    child->sentinel = child->newborn;
    child->newborn = -1;
    child->pidfd = true;
  }
  if (child->sentinel != MPX_NO_HANDLE) /* else the pipe of mpx_os_child_prepare */
    return 0;
  int fd = mpx_pidfd_of_child((pid_t)child->pid);
  if (fd == -ESRCH) /* gone before we could name it: it has a sentinel all the same */
    return mpx_os_ended_sentinel(&child->sentinel);
  if (fd < 0)
    return fd;
  child->sentinel = fd;
  child->pidfd = true;
  return 0;
}

/* By mpx_os_child_signal, which asks first: the child may be dead and reaped by the host, and its
 * pid be another's. */
void mpx_os_child_discard(const mpx_child *child) {
  (void)mpx_os_child_signal(child, MPX_SIGNAL_KILL);
  while (waitpid((pid_t)child->pid, NULL, 0) < 0 && errno == EINTR)
    continue;
}

void mpx_os_child_close(mpx_child *child) {
  mpx_child old = *child;
  *child = (mpx_child)MPX_NO_CHILD;
  mpx_os_close(old.sentinel);
  mpx_os_close(old.newborn);
}

bool mpx_os_has_fork(void) {
  return true;
}

void mpx_os_at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void)) {
  (void)pthread_atfork(before, in_parent, in_child);
}

int64_t mpx_os_fork(void) {
  pid_t pid = fork(); /* in the child nothing is written: each page that it writes is copied */
  return pid < 0 ? -errno : pid;
}
