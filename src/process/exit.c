#include "process/process.h"

#include "process/exit_hook.h"

#include <errno.h>

/* How long the daemon children, all together, may take to tidy up after the polite request. Python
 * waits for ever for one that ignores it. */
enum { GRACE_MS = 1000 };

static bool runs(mproc_process *process) {
  return process->creator == mpx_os_pid() && mproc_process_is_alive(process) == 1;
}

static void terminate_daemon(mproc_process *process, void *user) {
  (void)user;
  if (process->options.daemon && runs(process))
    (void)mproc_process_terminate(process);
}

static void end_daemon(mproc_process *process, void *deadline) {
  if (!process->options.daemon || !runs(process))
    return;
  int64_t left = mpx_remaining(*(int64_t *)deadline, mpx_os_now());
  if (mproc_process_join(process, mpx_poll_ms(left)) < 0) {
    (void)mproc_process_kill(process);
    (void)mproc_process_join(process, MPROC_FOREVER);
  }
}

static void join_child(mproc_process *process, void *user) {
  (void)user;
  if (runs(process))
    (void)mproc_process_join(process, MPROC_FOREVER);
}

static void (*_Atomic pools_hook)(void);

void mpx_exit_set_pools_hook(void (*hook)(void)) {
  pools_hook = hook;
}

void mpx_exit_children(void) {
  if (pools_hook)
    pools_hook();
  int64_t deadline = mpx_deadline(mpx_os_now(), GRACE_MS);
  (void)mpx_registry_visit(terminate_daemon, NULL);
  (void)mpx_registry_visit(end_daemon, &deadline);
  (void)mpx_registry_visit(join_child, NULL);
}
