/* What kernels offer and older headers lack, the switch that compiles it out, and how a fall-back
 * is made known. A system call may be missing (ENOSYS) or forbidden by a filter (EPERM, or any code
 * that the filter's author liked better): both mean the fall-back. */
#ifndef MPX_OS_LINUX_KERNEL_H
#define MPX_OS_LINUX_KERNEL_H

#include "base/log.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>

/* 1: use nothing that an old kernel or another POSIX system lacks. */
#ifndef MPX_PORTABLE
#define MPX_PORTABLE 0
#endif

/* 1: the program has no dynamic loader. */
#ifndef MPX_STATIC
#define MPX_STATIC 0
#endif

#define MPX_MFD_CLOEXEC 0x1U       /* 3.17 */
#define MPX_MFD_ALLOW_SEALING 0x2U /* 3.17 */
#define MPX_MFD_NOEXEC_SEAL 0x8U   /* 6.3 */

#define MPX_F_ADD_SEALS 1033
#define MPX_F_GET_SEALS 1034
#define MPX_F_SEAL_SEAL 0x1
#define MPX_F_SEAL_SHRINK 0x2
#define MPX_F_SEAL_GROW 0x4
#define MPX_F_SEAL_WRITE 0x8

#define MPX_MAP_FIXED_NOREPLACE 0x100000 /* 4.17; a hint before */
#define MPX_MADV_REMOVE 9
#define MPX_MADV_DONTDUMP 16
#define MPX_MADV_WIPEONFORK 18     /* 4.14 */
#define MPX_MADV_POPULATE_READ 22  /* 5.14 */
#define MPX_MADV_POPULATE_WRITE 23 /* 5.14 */

/* Whether errno `code` says that a facility is absent or forbidden, rather than that it failed. */
static inline bool mpx_is_absent(int code) {
  return code == ENOSYS || code == EPERM || code == EACCES || code == EINVAL || code == EOPNOTSUPP;
}

/* Logs a fall-back, the first time only. */
#define MPX_SAY_ONCE(...)                                                                          \
  do {                                                                                             \
    static atomic_flag said = ATOMIC_FLAG_INIT;                                                    \
    if (!atomic_flag_test_and_set_explicit(&said, memory_order_relaxed))                           \
      mpx_log(MPROC_LOG_INFO, __VA_ARGS__);                                                        \
  } while (0)

#endif
