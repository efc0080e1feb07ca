/* Waiting for many children in a process of our own. A handler for SIGCHLD that does nothing
 * interrupts ppoll, and only ppoll; which child it was is looked up, not counted. Children that the
 * user's own code started are left to it. */
#define _GNU_SOURCE
#include "os/os.h"
#include "os/posix/descriptor.h"
#include "os/posix/wait_status.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static void interrupt(int number) {
  (void)number;
}

/* Handlers of preload functions are not the workers'; all is blocked before they go. */
static void reset_signals(void) {
  struct sigaction action, unset;
  memset(&unset, 0, sizeof unset);
  unset.sa_handler = SIG_DFL;
  for (int number = 1; number <= SIGRTMAX; number++)
    if (sigaction(number, NULL, &action) == 0 && action.sa_handler != SIG_DFL)
      (void)sigaction(number, &unset, NULL);
}

int mpx_os_reaper_begin(void) {
  struct sigaction action;
  sigset_t all;
  memset(&action, 0, sizeof action);
  action.sa_handler = interrupt;
  (void)sigfillset(&all);
  if (sigprocmask(SIG_BLOCK, &all, NULL) < 0)
    return -errno;
  reset_signals();
  return sigaction(SIGCHLD, &action, NULL) < 0 ? -errno : 0;
}

void mpx_os_reaper_leave(void) {
  struct sigaction unset;
  memset(&unset, 0, sizeof unset);
  unset.sa_handler = SIG_DFL;
  (void)sigaction(SIGCHLD, &unset, NULL);
}

void mpx_os_reaper_forget_signals(void) {
  const struct timespec at_once = {0};
  sigset_t all;
  (void)sigfillset(&all);
  while (sigtimedwait(&all, NULL, &at_once) > 0)
    ;
}

int mpx_os_reaper_poll(mpx_poll_item *items, size_t count, int64_t deadline_ns) {
  struct pollfd *fds = calloc(count, sizeof *fds);
  sigset_t but_children;
  if (!fds)
    return -ENOMEM;
  for (size_t i = 0; i < count; i++)
    fds[i] = (struct pollfd){.fd = mpx_descriptor(items[i].handle), .events = POLLIN};
  (void)sigfillset(&but_children);
  (void)sigdelset(&but_children, SIGCHLD);
  int64_t left = mpx_remaining(deadline_ns, mpx_os_now());
  struct timespec time = {.tv_sec = left / MPX_NS_PER_S, .tv_nsec = left % MPX_NS_PER_S};
  int r = ppoll(fds, (nfds_t)count, deadline_ns == MPX_NEVER ? NULL : &time, &but_children);
  if (r < 0)
    r = errno == EINTR ? 0 : -errno;
  for (size_t i = 0; i < count; i++)
    items[i].ready = r > 0 && fds[i].revents != 0;
  free(fds);
  return r;
}

int64_t mpx_os_reaper_peek(void) {
  siginfo_t info = {.si_pid = 0};
  if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT) < 0)
    return 0;
  return info.si_pid;
}

int mpx_os_reaper_take(int64_t pid, mpx_exit *ret_exit) {
  struct rusage usage;
  int status;
  pid_t r;
  do
    r = wait4((pid_t)pid, &status, WNOHANG, &usage);
  while (r < 0 && errno == EINTR);
  if (r <= 0)
    return r < 0 ? -errno : 0;
  mpx_exit result = {.code = -1};
  mpx_take_wait_status(status, &result);
  mpx_take_rusage(&usage, &result);
  *ret_exit = result;
  return 1;
}

bool mpx_os_reaper_has_ended(int64_t pid) {
  siginfo_t info = {.si_pid = 0};
  return waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) < 0 || info.si_pid != 0;
}

void mpx_os_reaper_kill(int64_t pid) {
  (void)kill((pid_t)pid, SIGKILL);
}
