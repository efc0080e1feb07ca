/* Handles are descriptors here. */
#ifndef MPX_OS_POSIX_DESCRIPTOR_H
#define MPX_OS_POSIX_DESCRIPTOR_H

#include "mproc/wait.h"

#include <limits.h>

/* The descriptor, or -1, which every system call refuses with EBADF. */
static inline int mpx_descriptor(mproc_handle handle) {
  return handle >= 0 && handle <= INT_MAX ? (int)handle : -1;
}

#endif
