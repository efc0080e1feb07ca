#define _GNU_SOURCE
#include "os/posix/quiet.h"

#include <errno.h>
#include <time.h>

void mpx_quiet_begin(mpx_quiet *quiet, int signal_number) {
  sigset_t set, pending;
  quiet->signal = signal_number;
  sigemptyset(&set);
  sigaddset(&set, signal_number);
  sigemptyset(&pending);
  (void)sigpending(&pending);
  quiet->was_pending = sigismember(&pending, signal_number) == 1;
  (void)pthread_sigmask(SIG_BLOCK, &set, &quiet->mask);
}

/* The kernel sends both signals to the thread that made the call, so no other thread can have taken
 * it and nobody else's is taken here. */
void mpx_quiet_end(const mpx_quiet *quiet) {
  int saved_errno = errno;
  if (!quiet->was_pending) {
    const struct timespec at_once = {0, 0};
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, quiet->signal);
    while (sigtimedwait(&set, NULL, &at_once) < 0 && errno == EINTR)
      continue;
  }
  (void)pthread_sigmask(SIG_SETMASK, &quiet->mask, NULL);
  errno = saved_errno;
}
