#define _GNU_SOURCE
#include "os/linux/pidfd.h"
#include "os/os.h"
#include "os/posix/descriptor.h"

#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

void mpx_os_detach(void) {
  static const int polite[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGPIPE, SIGTSTP};
  for (size_t i = 0; i < sizeof polite / sizeof polite[0]; i++)
    (void)signal(polite[i], SIG_IGN);
  (void)setsid();
  (void)!chdir("/");
  mpx_os_raise_handle_limit();
}

void mpx_os_raise_handle_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    (void)setrlimit(RLIMIT_NOFILE, &limit);
  }
}

void mpx_os_process_kill(int64_t pid, int64_t start_time, mproc_handle sentinel) {
  if (sentinel != MPX_NO_HANDLE)
    (void)mpx_pidfd_send_signal(mpx_descriptor(sentinel), SIGKILL);
  else if (mpx_os_process_is_alive(pid, start_time))
    (void)kill((pid_t)pid, SIGKILL);
}
