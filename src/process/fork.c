/* The fork method: the child is a copy of the caller. */
#include "base/error.h"
#include "base/log.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "process/child.h"
#include "process/guardian.h"
#include "process/process.h"
#include "process/start.h"

#include <errno.h>

static void log_hazard(const mproc_process *process) {
  if (mpx_log_threshold < MPROC_LOG_INFO)
    return;
  int threads = mpx_os_thread_count();
  if (threads > 1)
    mpx_log(MPROC_LOG_INFO,
            "fork of '%s' while %d threads run: locks that the others hold stay locked "
            "in the child; spawn is safe",
            process->name, threads);
}

/* Everything that the copy must undo or do before it is the child that was asked for. */
static _Noreturn void become_child(mproc_process *process, int64_t parent_pid) {
  mproc_handle report = process->transient.report[1];
  mpx_launch launch;
  mpx_stage stage = MPX_STAGE_NONE;
  char text[MPX_STAGE_TEXT_SIZE];
  mpx_os_cancel_reset(); /* the entry is not inside start */
  mpx_options_launch(process, &launch);
  if (report != MPX_NO_HANDLE || process->transient.held != MPX_NO_HANDLE)
    process->transient.report[1] = process->transient.held = MPX_NO_HANDLE; /* ours: not closed */
  MPROC_CRASH_POINT("fork.child.born");
  mpx_child_leave_parent();
  mpx_os_stdio_drop();
  int r = mpx_os_apply(&launch, parent_pid, &stage);
  if (r < 0)
    (void)mpx_fail(r, "'%s': %s failed: %s", process->name, mpx_launch_say(&launch, stage, text),
                   mproc_strerror(r));
  else
    r = mpx_family_adopt(process->member);
  if (report != MPX_NO_HANDLE) {
    mpx_report_send(report, r, mproc_error_detail());
    mpx_os_close(report);
  }
  if (r < 0)
    mpx_os_exit_now(127);
  MPROC_CRASH_POINT("fork.child.member");
  if (process->options.environment)
    mpx_os_set_environment((char **)(uintptr_t)process->options.environment);
  mpx_self_set(process->member);
  mpx_inherited_set(process->options.inherit, process->options.inherit_count);
  mpx_os_set_process_name(process->name);
  mpx_child_set_barrier();
  mpx_after_fork_run();
  /* Not before our parent can name us: of a child that crashes at once, whom the host's own wait
   * took, only a pidfd opened in time tells how it ended. */
  mpx_child_run(process->entry, process->arg, process->arg_size, true);
}

static int fork_child(mproc_process *process) {
  int64_t parent_pid = mpx_os_pid();
  mpx_os_stdio_flush();
  int64_t pid = mpx_os_fork();
  if (pid == 0)
    become_child(process, parent_pid);
  int r = pid < 0 ? (int)pid : 0;
  if (r == 0) {
    process->child.pid = pid;
    r = mpx_start_name_child(process);
  }
  if (r < 0)
    return mpx_fail(r, "cannot fork '%s': %s%s", process->name, mproc_strerror(r),
                    mpx_os_limit_text(r));
  return 0;
}

int mpx_start_fork(mproc_process *process) {
  log_hazard(process);
  int r = mpx_start_begin(process, MPX_METHOD_FORK, mpx_options_need_report(&process->options));
  if (r < 0)
    return r;
  r = fork_child(process);
  return mpx_start_end(process, r);
}
