#define _GNU_SOURCE
#include "os/posix/quiet.h"

#include <errno.h>
#include <time.h>

static const int quiet_signals[] = {SIGPIPE, SIGXFSZ};

/* Only what was blocked before can have been pending: most starts get away with one system call. */
void mpx_quiet_begin(mpx_quiet *quiet) {
  sigset_t set;
  (void)sigemptyset(&set);
  for (size_t i = 0; i < 2; i++)
    (void)sigaddset(&set, quiet_signals[i]);
  (void)sigemptyset(&quiet->pending);
  (void)pthread_sigmask(SIG_BLOCK, &set, &quiet->mask);
  if (sigismember(&quiet->mask, SIGPIPE) == 1 || sigismember(&quiet->mask, SIGXFSZ) == 1)
    (void)sigpending(&quiet->pending);
}

/* The kernel sends both signals to the thread that made the call, so no other thread can have taken
 * it and nobody else's is taken here. */
void mpx_quiet_end(const mpx_quiet *quiet, bool failed) {
  int saved_errno = errno;
  for (size_t i = 0; failed && i < 2; i++) {
    const struct timespec at_once = {0, 0};
    sigset_t set;
    (void)sigemptyset(&set);
    (void)sigaddset(&set, quiet_signals[i]);
    if (sigismember(&quiet->pending, quiet_signals[i]) == 1)
      continue;
    while (sigtimedwait(&set, NULL, &at_once) < 0 && errno == EINTR)
      continue;
  }
  (void)pthread_sigmask(SIG_SETMASK, &quiet->mask, NULL);
  errno = saved_errno;
}
