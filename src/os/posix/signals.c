#define _POSIX_C_SOURCE 200809L
#include "base/assert.h"
#include "os/os.h"

#include <signal.h>
#include <string.h>

MPX_STATIC_ASSERT(sizeof(sigset_t) <= sizeof(mpx_signal_mask), "grow mpx_signal_mask");

void mpx_os_signals_hold(mpx_signal_mask *ret_mask) {
  sigset_t all, before;
  (void)sigfillset(&all);
  (void)sigemptyset(&before);
  (void)pthread_sigmask(SIG_SETMASK, &all, &before);
  memset(ret_mask, 0, sizeof *ret_mask);
  memcpy(ret_mask, &before, sizeof before);
}

void mpx_os_signals_restore(const mpx_signal_mask *mask) {
  sigset_t before;
  memcpy(&before, mask, sizeof before);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}
