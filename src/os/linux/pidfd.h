/* pidfds: descriptors that name one process for ever. Linux 5.3; status of a stolen child: 6.15. */
#ifndef MPX_OS_LINUX_PIDFD_H
#define MPX_OS_LINUX_PIDFD_H

#include <stdbool.h>
#include <sys/types.h>

/* Whether pidfds work here; asks the kernel once. */
bool mpx_pidfd_available(void);
/* A close-on-exec pidfd, or -errno. */
int mpx_pidfd_open(pid_t pid);
/* The same for a child of ours; -ESRCH also when the pid is no longer one. */
int mpx_pidfd_of_child(pid_t pid);
int mpx_pidfd_send_signal(int pidfd, int signal_number);
/* The wait status of a process that was reaped by somebody else: 1 and *ret_status, or -errno
 * (-ENOSYS before 6.15, -EAGAIN while it is not reaped yet). */
int mpx_pidfd_exit_status(int pidfd, int *ret_status);

#endif
