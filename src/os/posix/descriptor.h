/* Handles are descriptors here. */
#ifndef MPX_OS_POSIX_DESCRIPTOR_H
#define MPX_OS_POSIX_DESCRIPTOR_H

#include "mproc/wait.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <unistd.h>

/* The descriptor, or -1, which every system call refuses with EBADF. */
static inline int mpx_descriptor(mproc_handle handle) {
  return handle >= 0 && handle <= INT_MAX ? (int)handle : -1;
}

/* A new descriptor, moved above the standard streams: where one of these is closed, the lowest free
 * number is its own, and what the host prints would go into the shared heap. Takes and gives -errno
 * too. */
static inline int mpx_above_streams(int fd) {
  if (fd < 0 || fd > STDERR_FILENO)
    return fd;
  int lifted = fcntl(fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
  int r = lifted < 0 ? -errno : lifted;
  (void)close(fd);
  return r;
}

#endif
