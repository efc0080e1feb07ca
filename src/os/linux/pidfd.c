#define _GNU_SOURCE
#include "os/linux/pidfd.h"

#include "os/posix/descriptor.h"

#include <errno.h>
#include <limits.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#if MPX_PORTABLE
bool mpx_pidfd_available(void) {
  return false;
}

int mpx_pidfd_open(pid_t pid) {
  (void)pid;
  return -ENOSYS;
}

int mpx_pidfd_of_child(pid_t pid) {
  (void)pid;
  return -ENOSYS;
}

int mpx_pidfd_send_signal(int pidfd, int signal_number) {
  (void)pidfd;
  (void)signal_number;
  return -ENOSYS;
}

int mpx_pidfd_exit_status(int pidfd, int *ret_status) {
  (void)pidfd;
  (void)ret_status;
  return -ENOSYS;
}
#else
/* The numbers are the same on every architecture; libc's headers may be older than the kernel. */
enum { NR_PIDFD_SEND_SIGNAL = 424, NR_PIDFD_OPEN = 434 };

/* struct pidfd_info and PIDFD_GET_INFO of linux/pidfd.h. */
struct pidfd_info_v1 {
  uint64_t mask;
  uint64_t cgroupid;
  uint32_t pid, tgid, ppid;
  uint32_t ruid, rgid, euid, egid, suid, sgid, fsuid, fsgid;
  int32_t exit_code;
  uint32_t coredump_mask, spare;
};
#define GET_INFO _IOWR(0xFF, 11, struct pidfd_info_v1)
#define INFO_EXIT (1u << 3)

/* Asked before each start, by calls that cannot succeed: a filter may come at any time, and for one
 * thread only. */
bool mpx_pidfd_available(void) {
  siginfo_t info; /* Linux 5.3 has pidfds and cannot wait for them */
  return mpx_pidfd_open(-1) == -EINVAL && mpx_pidfd_send_signal(-1, 0) == -EBADF &&
         waitid(P_PIDFD, INT_MAX, &info, WEXITED | WNOHANG) < 0 && errno == EBADF;
}

int mpx_pidfd_open(pid_t pid) {
  long fd = syscall(NR_PIDFD_OPEN, pid, 0);
  return mpx_above_streams(fd < 0 ? -errno : (int)fd);
}

/* Between the birth of a child and this call it may have died, been reaped by the host's own
 * SIGCHLD loop, and its pid been given to a stranger. A pidfd counts only if the kernel agrees that
 * it is our child. */
int mpx_pidfd_of_child(pid_t pid) {
  int fd = mpx_pidfd_open(pid);
  siginfo_t info;
  if (fd >= 0 && waitid(P_PIDFD, (id_t)fd, &info, WEXITED | WNOHANG | WNOWAIT) < 0 &&
      errno == ECHILD) {
    (void)close(fd);
    return -ESRCH;
  }
  return fd;
}

int mpx_pidfd_send_signal(int pidfd, int signal_number) {
  return syscall(NR_PIDFD_SEND_SIGNAL, pidfd, signal_number, NULL, 0) < 0 ? -errno : 0;
}

int mpx_pidfd_exit_status(int pidfd, int *ret_status) {
  struct pidfd_info_v1 info = {.mask = INFO_EXIT};
  /* not ioctl(): what type its second parameter has differs between libcs */
  if (syscall(SYS_ioctl, pidfd, GET_INFO, &info) < 0)
    return errno == ESRCH ? -EAGAIN : -ENOSYS;
  if (!(info.mask & INFO_EXIT))
    return -EAGAIN;
  *ret_status = info.exit_code;
  return 1;
}
#endif
