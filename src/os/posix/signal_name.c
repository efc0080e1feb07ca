#define _GNU_SOURCE
#include "os/os.h"

#include <signal.h>
#include <stdio.h>

#define NAME(signal)                                                                               \
  { signal, #signal }

static const struct {
  int number;
  const char *name;
} names[] = {
    NAME(SIGABRT),   NAME(SIGALRM), NAME(SIGBUS),    NAME(SIGCHLD), NAME(SIGCONT), NAME(SIGFPE),
    NAME(SIGHUP),    NAME(SIGILL),  NAME(SIGINT),    NAME(SIGKILL), NAME(SIGPIPE), NAME(SIGQUIT),
    NAME(SIGSEGV),   NAME(SIGSTOP), NAME(SIGTERM),   NAME(SIGTRAP), NAME(SIGTSTP), NAME(SIGTTIN),
    NAME(SIGTTOU),   NAME(SIGURG),  NAME(SIGUSR1),   NAME(SIGUSR2), NAME(SIGXCPU), NAME(SIGXFSZ),
    NAME(SIGSYS),    NAME(SIGPROF), NAME(SIGVTALRM),
#ifdef SIGWINCH
    NAME(SIGWINCH),
#endif
#ifdef SIGIO
    NAME(SIGIO),
#endif
#ifdef SIGPWR
    NAME(SIGPWR),
#endif
#ifdef SIGSTKFLT
    NAME(SIGSTKFLT),
#endif
};

const char *mpx_os_signal_name(int number, char *buffer, size_t size) {
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
    if (names[i].number == number) {
      (void)snprintf(buffer, size, "%s", names[i].name);
      return buffer;
    }
  }
#ifdef SIGRTMIN
  if (number >= SIGRTMIN && number <= SIGRTMAX) {
    (void)snprintf(buffer, size, "SIGRTMIN+%d", number - SIGRTMIN);
    return buffer;
  }
#endif
  (void)snprintf(buffer, size, "signal %d", number);
  return buffer;
}
