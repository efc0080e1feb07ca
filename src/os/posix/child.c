/* Children by their sentinels: status, signals. Never waitpid(-1), never SIGCHLD. */
#define _GNU_SOURCE
#include "os/linux/pidfd.h"
#include "os/linux/proc.h"
#include "os/os.h"
#include "os/posix/wait_status.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

int mpx_os_child_prepare(mpx_child *child, mproc_handle *ret_held) {
  *child = (mpx_child)MPX_NO_CHILD;
  if (mpx_pidfd_available()) {
    *ret_held = MPX_NO_HANDLE;
    return 0;
  }
  mproc_handle ends[2];
  int r = mpx_os_pipe(ends);
  if (r < 0)
    return r;
  child->sentinel = ends[0];
  *ret_held = ends[1];
  return 0;
}

static int64_t nanoseconds(struct timeval time) {
  return (int64_t)time.tv_sec * MPX_NS_PER_S + (int64_t)time.tv_usec * 1000;
}

void mpx_take_rusage(const struct rusage *usage, mpx_exit *ret_exit) {
  ret_exit->has_rusage = true;
  ret_exit->rusage = (mpx_rusage){.user_time_ns = nanoseconds(usage->ru_utime),
                                  .system_time_ns = nanoseconds(usage->ru_stime),
                                  .max_rss_bytes = (int64_t)usage->ru_maxrss * 1024,
                                  .minor_faults = usage->ru_minflt,
                                  .major_faults = usage->ru_majflt,
                                  .voluntary_switches = usage->ru_nvcsw,
                                  .involuntary_switches = usage->ru_nivcsw};
}

int64_t mpx_os_peak_rss(void) {
  struct rusage usage;
  return getrusage(RUSAGE_SELF, &usage) < 0 ? 0 : (int64_t)usage.ru_maxrss * 1024;
}

void mpx_take_wait_status(int status, mpx_exit *ret_exit) {
  if (WIFSIGNALED(status)) {
    ret_exit->state = MPROC_STATE_SIGNALED;
    ret_exit->signal = WTERMSIG(status);
    ret_exit->core_dumped = WCOREDUMP(status);
  } else {
    ret_exit->state = MPROC_STATE_EXITED;
    ret_exit->code = WEXITSTATUS(status);
  }
}

static bool is_ready(mproc_handle sentinel) {
  struct pollfd item = {.fd = (int)sentinel, .events = POLLIN};
  return poll(&item, 1, 0) == 1;
}

/* Another part of the program reaped it, or SIGCHLD is ignored. From 6.15 on the kernel still
 * knows. The thief may be in the middle of its wait: the child is gone for us and not yet reaped
 * for the kernel. */
static int poll_stolen(const mpx_child *child, mpx_exit *ret_exit) {
  int status = 0;
  int r = -ENOSYS;
  for (int tries = 0; child->pidfd && tries < 100; tries++) {
    r = mpx_pidfd_exit_status((int)child->sentinel, &status);
    if (r != -EAGAIN)
      break;
    if (!is_ready(child->sentinel))
      return 0;
    mpx_os_sleep(100 * 1000);
  }
  if (r == 1)
    mpx_take_wait_status(status, ret_exit);
  else if (is_ready(child->sentinel) || kill((pid_t)child->pid, 0) < 0)
    ret_exit->state = MPROC_STATE_UNKNOWN;
  else
    return 0;
  return 1;
}

/* The system call rather than libc's waitid: only it gives the resource usage. */
static int wait_for(const mpx_child *child, siginfo_t *info, struct rusage *usage, int options) {
  idtype_t type = child->pidfd ? P_PIDFD : P_PID;
  id_t id = child->pidfd ? (id_t)child->sentinel : (id_t)child->pid;
  long r;
  memset(info, 0, sizeof *info);
  do
    r = syscall(SYS_waitid, type, id, info, options | WEXITED | WNOHANG, usage);
  while (r < 0 && errno == EINTR);
  return r < 0 ? -errno : info->si_pid != 0;
}

int mpx_os_child_poll(const mpx_child *child, mpx_exit *ret_exit) {
  siginfo_t info;
  struct rusage usage;
  memset(&usage, 0, sizeof usage);
  int r = wait_for(child, &info, &usage, 0);
  /* A pipe ends a moment before its process does: who saw the sentinel wants the status. A child
   * that closed the pipe itself is waited for in vain, but not for long. */
  for (int tries = 0; r == 0 && !child->pidfd && tries < 20 && is_ready(child->sentinel); tries++) {
    mpx_os_sleep(100 * 1000);
    r = wait_for(child, &info, &usage, 0);
  }
  if (r == 0)
    return 0;
  mpx_exit result = {.state = MPROC_STATE_UNKNOWN, .code = -1};
  if (r < 0) {
    r = poll_stolen(child, &result);
    if (r > 0)
      *ret_exit = result;
    return r;
  }
  mpx_take_rusage(&usage, &result);
  if (info.si_code == CLD_EXITED) {
    result.state = MPROC_STATE_EXITED;
    result.code = info.si_status & 0xff;
  } else {
    result.state = MPROC_STATE_SIGNALED;
    result.signal = info.si_status;
    result.core_dumped = info.si_code == CLD_DUMPED;
  }
  *ret_exit = result;
  return 1;
}

static const int numbers[] = {
    [MPX_SIGNAL_TERMINATE] = SIGTERM, [MPX_SIGNAL_KILL] = SIGKILL, [MPX_SIGNAL_INTERRUPT] = SIGINT};

int mpx_os_child_signal(const mpx_child *child, mpx_signal signal) {
  if (child->pidfd) {
    int r = mpx_pidfd_send_signal((int)child->sentinel, numbers[signal]);
    if (r == 0 || r == -ESRCH)
      return 0; /* else perhaps a filter that came later */
  }
  /* By pid, but only while it is an unreaped child of ours: then the pid cannot be another's. */
  siginfo_t info;
  int r = wait_for(child, &info, NULL, WNOWAIT);
  if (r != 0)
    return 0;
  return kill((pid_t)child->pid, numbers[signal]) < 0 && errno != ESRCH ? -errno : 0;
}

int mpx_os_process_signal(int64_t pid, int64_t start_time, mproc_handle pidfd, mpx_signal signal) {
  int r = pidfd == MPX_NO_HANDLE ? -ENOSYS : mpx_pidfd_send_signal((int)pidfd, numbers[signal]);
  if (r == 0 || r == -ESRCH || !mpx_os_process_is_alive(pid, start_time))
    return 0;
  return kill((pid_t)pid, numbers[signal]) < 0 && errno != ESRCH ? -errno : 0;
}

/* A zombie's status stands in /proc, for its own user; of one that is gone the kernel knows it as
 * long as a pidfd is open. */
int mpx_os_exit_of_stranger(int64_t pid, mproc_handle pidfd, mpx_exit *ret_exit) {
  int status = 0;
  int r = pidfd == MPX_NO_HANDLE ? 0 : mpx_pidfd_exit_status((int)pidfd, &status);
  if (r != 1) {
    r = mpx_proc_zombie_status(pid, &status);
    /* while the pidfd finds it, the pid is still its own */
    if (r == 1 && pidfd != MPX_NO_HANDLE && mpx_pidfd_send_signal((int)pidfd, 0) == -ESRCH)
      r = 0;
  }
  if (r == 1) {
    mpx_exit result = {.code = -1};
    mpx_take_wait_status(status, &result);
    *ret_exit = result;
  }
  return r == 1;
}

int mpx_os_process_open(int64_t pid, mproc_handle *ret_sentinel) {
  int fd = mpx_pidfd_open((pid_t)pid);
  if (fd == -EPERM || fd == -EACCES) /* by a filter: the kernel asks for no permission */
    return -ENOSYS;
  if (fd < 0)
    return fd;
  *ret_sentinel = fd;
  return 0;
}

int mpx_os_ended_sentinel(mproc_handle *ret_sentinel) {
  mproc_handle ends[2];
  int r = mpx_os_pipe(ends);
  if (r < 0)
    return r;
  mpx_os_close(ends[1]);
  *ret_sentinel = ends[0];
  return 0;
}
