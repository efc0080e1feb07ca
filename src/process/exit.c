#include "process/process.h"

#include <errno.h>

static void terminate_daemon(mproc_process *process, void *user) {
  (void)user;
  if (process->creator == mpx_os_pid() && process->options.daemon &&
      mproc_process_is_alive(process) == 1)
    (void)mproc_process_terminate(process);
}

/* A daemon that ignores the request dies with us: kernel or guardian see to it. Python waits for it
 * for ever; a second is enough for one that wants to tidy up. */
static void join_child(mproc_process *process, void *user) {
  (void)user;
  if (process->creator != mpx_os_pid() || mproc_process_is_alive(process) != 1)
    return;
  int r = mproc_process_join(process, process->options.daemon ? 1000 : MPROC_FOREVER);
  if (r == -ETIMEDOUT) {
    (void)mproc_process_kill(process);
    (void)mproc_process_join(process, MPROC_FOREVER);
  }
}

void mpx_exit_children(void) {
  mpx_registry_visit(terminate_daemon, NULL);
  mpx_registry_visit(join_child, NULL);
}
