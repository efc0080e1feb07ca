#include "process/process.h"

#include "base/error.h"
#include "base/log.h"
#include "heap/family.h"
#include "process/debug.h"
#include "process/settings.h"

#include <errno.h>
#include <stdlib.h>

/* ---- checks ---------------------------------------------------------------------------------- */

static int fail_closed(void) {
  return mpx_fail(MPROC_ECLOSED, "the process object was closed; create another one");
}

/* Locks the object for a call, or says why the call is out of order. */
static int lock_usable(mproc_process *process) {
  if (!process)
    return mpx_fail(-EINVAL, "the process is NULL");
  if (process->creator != mpx_os_pid())
    return mpx_fail(MPROC_ENOTCREATOR,
                    "process '%s' was created by process %lld, and only that one may "
                    "use the object; create another one here",
                    process->name, (long long)process->creator);
  mpx_os_mutex_lock(&process->lock);
  if (process->phase != MPX_PHASE_CLOSED)
    return 0;
  mpx_os_mutex_unlock(&process->lock);
  return fail_closed();
}

static int lock_started(mproc_process *process) {
  int r = lock_usable(process);
  if (r < 0)
    return r;
  if (process->phase >= MPX_PHASE_RUNNING)
    return 0;
  mpx_os_mutex_unlock(&process->lock);
  return mpx_fail(MPROC_ENOTSTARTED,
                  "process '%s' has not been started; call mproc_process_start() first",
                  process->name);
}

static void unlock(mproc_process *process) {
  mpx_os_mutex_unlock(&process->lock);
}

/* ---- making and starting --------------------------------------------------------------------- */

static int poll_waitable(mpx_waitable *self, mproc_handle *ret_handle, bool *ret_recheck) {
  mproc_process *process = (mproc_process *)self;
  int r = lock_started(process);
  if (r < 0)
    return r;
  *ret_handle = process->child.sentinel;
  *ret_recheck = !process->child.pidfd;
  r = mpx_process_reap(process);
  unlock(process);
  return r;
}

static int make(mproc_process **ret_process, mproc_entry *entry, const void *arg, size_t size,
                const char *const *argv, const mproc_process_options *options) {
  int r = mpx_check_not_null(ret_process, "ret_process");
  if (r == 0)
    r = mpx_log_from_environment();
  if (r == 0)
    r = mpx_debug_from_environment();
  if (r < 0)
    return r;
  mproc_process *process = mpx_registry_new();
  if (!process)
    return mpx_fail_code(-ENOMEM, "mproc_process_create");
  process->creator = mpx_os_pid();
  process->waitable = (mpx_waitable){.kind = MPROC_WAIT_PROCESS, .poll = poll_waitable};
  process->entry = entry;
  r = mpx_options_take(process, options, arg, size, argv);
  if (r < 0)
    (void)mproc_process_close(process);
  else
    *ret_process = process;
  return r;
}

static int create(mproc_process **ret_process, mproc_entry *entry, const void *arg, size_t size,
                  const char *const *argv, const mproc_process_options *options) {
  mpx_os_cancel_hold();
  int r = make(ret_process, entry, arg, size, argv, options);
  mpx_os_cancel_release();
  return r;
}

int mproc_process_create(mproc_process **ret_process, mproc_entry *entry, const void *arg,
                         size_t size, const mproc_process_options *options) {
  if (!entry)
    return mpx_fail(-EINVAL, "the entry is NULL");
  if (!arg && size)
    return mpx_fail(-EINVAL, "the argument block is NULL, but its size is %zu", size);
  return create(ret_process, entry, arg, size, NULL, options);
}

int mproc_process_create_command(mproc_process **ret_process, const char *const *argv,
                                 const mproc_process_options *options) {
  if (!argv || !argv[0] || !argv[0][0])
    return mpx_fail(-EINVAL, "the command is empty: argv[0] names no program");
  return create(ret_process, NULL, NULL, 0, argv, options);
}

static int start_by(mproc_process *process, mpx_method method) {
  if (mpx_debug_args && method != MPX_METHOD_FORK)
    mpx_debug_check_args(process, method);
  switch (method) {
  case MPX_METHOD_FORK:
    return mpx_start_fork(process);
  case MPX_METHOD_FORKSERVER:
    return mpx_start_forkserver(process);
  default:
    return mpx_start_spawn(process);
  }
}

static void log_start(const mproc_process *process, const char *how, const char *why) {
  mpx_log(MPROC_LOG_DEBUG, "started '%s' as process %lld: %s (%s)", process->name,
          (long long)process->child.pid, how, why);
}

static int start_by_method(mproc_process *process) {
  mpx_method method = process->method;
  int r = 0;
  if (!process->entry) {
    r = mpx_start_command(process);
    if (r == 0)
      log_start(process, "command", process->argv[0]);
    return r;
  }
  if (method == MPX_METHOD_UNSET)
    r = mpx_method_in_use(&method);
  if (r == 0)
    r = start_by(process, method);
  if (r == 0)
    log_start(process, mpx_method_name(method),
              process->method == MPX_METHOD_UNSET ? "the choice of the process" : "asked for");
  return r;
}

static int start(mproc_process *process) {
  int r = lock_usable(process);
  if (r < 0)
    return r;
  bool first = process->phase == MPX_PHASE_CREATED;
  if (first)
    process->phase = MPX_PHASE_STARTING;
  unlock(process);
  if (!first)
    return mpx_fail(MPROC_ESTARTED,
                    "process '%s' was started before; create another one to run its "
                    "entry again",
                    process->name);
  process->started_at = mpx_os_now();
  r = mpx_options_recheck(process);
  if (r == 0) {
    mpx_os_stdio_ensure(); /* else a pipe of ours becomes the child's standard input */
    r = start_by_method(process);
  }
  mpx_os_mutex_lock(&process->lock);
  process->phase = r < 0 ? MPX_PHASE_CREATED : MPX_PHASE_RUNNING;
  unlock(process);
  return r;
}

int mproc_process_start(mproc_process *process) {
  mpx_os_cancel_hold();
  int r = start(process);
  mpx_os_cancel_release();
  return r;
}

/* ---- the end --------------------------------------------------------------------------------- */

/* The kernel's word first; where somebody else took it, the record that the child left in the
 * table. */
static void complete_from_record(mproc_process *process) {
  mpx_header *header = mpx_family_header();
  mpx_slot *slot = header && process->member ? mpx_table_slot(header, process->member) : NULL;
  if (process->exit.state != MPROC_STATE_UNKNOWN || !slot)
    return;
  /* acquire: pairs with the release of the child that wrote it last of all */
  uint32_t record = atomic_load_explicit(&slot->record, memory_order_acquire);
  if (record == 0)
    return;
  process->exit.state = MPROC_STATE_EXITED;
  process->exit.code = (int)(record & 0xff);
}

/* Under the lock. */
static mproc_status status_of(const mproc_process *process) {
  const mpx_exit *end = &process->exit;
  mproc_status status = {.state = MPROC_STATE_CREATED, .code = -1, .max_rss_bytes = -1};
  if (process->phase == MPX_PHASE_RUNNING) {
    status.state = MPROC_STATE_RUNNING;
    status.run_time_ns = mpx_os_now() - process->started_at;
  } else if (process->phase == MPX_PHASE_ENDED) {
    status.state = end->state;
    status.code = end->state == MPROC_STATE_EXITED ? end->code : -1;
    status.signal = end->signal;
    status.core_dumped = end->core_dumped;
    status.run_time_ns = process->ended_at - process->started_at;
    if (end->has_rusage)
      status.max_rss_bytes = end->rusage.max_rss_bytes;
  }
  return status;
}

static void log_end(const mproc_process *process) {
  const mproc_status status = status_of(process);
  char text[128];
  mpx_log(MPROC_LOG_DEBUG, "'%s' (process %lld) %s", process->name, (long long)process->child.pid,
          mproc_strstatus(&status, text, sizeof text));
}

int mpx_process_reap(mproc_process *process) {
  if (process->phase != MPX_PHASE_RUNNING)
    return process->phase == MPX_PHASE_ENDED;
  int r = process->server ? mpx_relay_poll(process)
                          : mpx_os_child_poll(&process->child, &process->exit);
  if (r <= 0)
    return r < 0 ? mpx_fail_code(r, "cannot ask for the status of the process") : 0;
  process->ended_at = mpx_os_now();
  process->phase = MPX_PHASE_ENDED;
  /* At an exec the kernel counts the memory before it as the child's own, and that was ours. */
  if (process->exit.has_rusage && process->exit.rusage.max_rss_bytes <= process->parent_peak)
    process->exit.rusage.max_rss_bytes = -1;
  complete_from_record(process);
  if (process->server)
    mpx_relay_forget(process);
  else if (process->member)
    mpx_family_bury(process->member);
  log_end(process);
  return 1;
}

int mproc_process_join(mproc_process *process, int timeout_ms) {
  int r = lock_started(process); /* says what is wrong with the object, if anything */
  if (r < 0)
    return r;
  mpx_os_cancel_hold(); /* a joiner that never leaves would keep the object from being closed */
  process->joiners++;
  unlock(process);
  mproc_wait_item item = {.kind = MPROC_WAIT_PROCESS, .object = process};
  r = mproc_wait(&item, 1, 1, timeout_ms); /* which reaps */
  mpx_os_mutex_lock(&process->lock);
  process->joiners--;
  unlock(process);
  mpx_os_cancel_release();
  if (r == -EAGAIN)
    return mpx_fail(-EAGAIN, "process '%s' still runs", process->name);
  if (r == -ETIMEDOUT)
    return mpx_fail(-ETIMEDOUT, "process '%s' still runs after %d ms", process->name, timeout_ms);
  return r < 0 ? r : 0;
}

int mproc_process_is_alive(mproc_process *process) {
  int r = lock_usable(process);
  if (r < 0)
    return r;
  r = mpx_process_reap(process);
  if (r >= 0)
    r = process->phase == MPX_PHASE_RUNNING;
  unlock(process);
  return r;
}

static int signal_child(mproc_process *process, mpx_signal number) {
  const mpx_child *child = &process->child;
  if (!process->server)
    return mpx_os_child_signal(child, number);
  return mpx_os_process_signal(child->pid, process->server_start_time,
                               child->pidfd ? child->sentinel : MPX_NO_HANDLE, number);
}

static int send_signal(mproc_process *process, mpx_signal number) {
  int r = lock_started(process);
  if (r < 0)
    return r;
  if (process->phase == MPX_PHASE_RUNNING)
    r = signal_child(process, number);
  unlock(process);
  return r < 0 ? mpx_fail_code(r, "cannot send the signal") : 0;
}

int mproc_process_terminate(mproc_process *process) {
  return send_signal(process, MPX_SIGNAL_TERMINATE);
}

int mproc_process_kill(mproc_process *process) {
  return send_signal(process, MPX_SIGNAL_KILL);
}

int mproc_process_interrupt(mproc_process *process) {
  return send_signal(process, MPX_SIGNAL_INTERRUPT);
}

static int close_process(mproc_process *process) {
  int r = lock_usable(process);
  if (r < 0)
    return r;
  (void)mpx_process_reap(process);
  bool runs = process->phase == MPX_PHASE_RUNNING || process->phase == MPX_PHASE_STARTING;
  bool joined = process->joiners > 0;
  if (!runs && !joined) {
    process->phase = MPX_PHASE_CLOSED;
    process->waitable.kind = 0;
    mpx_registry_forget_child(process);
    free(process->copy);
    process->copy = NULL;
  }
  unlock(process);
  if (runs || joined)
    return mpx_fail(-EBUSY, "process '%s' %s before closing it", process->name,
                    runs ? "still runs; join or kill it" : "is being joined; let that return");
  mpx_registry_retire(process);
  return 0;
}

int mproc_process_close(mproc_process *process) {
  if (!process)
    return 0;
  mpx_os_cancel_hold();
  int r = close_process(process);
  mpx_os_cancel_release();
  return r;
}

/* ---- what is known about it ------------------------------------------------------------------ */

int64_t mproc_process_pid(mproc_process *process) {
  int r = lock_started(process);
  if (r < 0)
    return r;
  int64_t pid = process->child.pid;
  unlock(process);
  return pid;
}

const char *mproc_process_name(mproc_process *process) {
  return process ? process->name : NULL;
}

int mproc_process_status(mproc_process *process, mproc_status *ret_status) {
  int r = mpx_check_not_null(ret_status, "ret_status");
  if (r == 0)
    r = lock_usable(process);
  if (r < 0)
    return r;
  r = mpx_process_reap(process);
  if (r < 0)
    goto finish;
  *ret_status = status_of(process);
  r = 0;
finish:
  unlock(process);
  return r;
}

static int fail_unknown_rusage(const mproc_process *process) {
  return process->server
             ? mpx_fail(MPROC_ESTATUS_UNKNOWN,
                        "the forkserver that waited for '%s' was killed, and the figures went with "
                        "it; keep it running until its workers are joined",
                        process->name)
             : mpx_fail(MPROC_ESTATUS_UNKNOWN,
                        "another part of the program reaped process '%s', and the kernel gave the "
                        "figures to it; keep its waits off this pid",
                        process->name);
}

int mproc_process_rusage(mproc_process *process, mproc_rusage *ret_rusage) {
  int r = mpx_check_not_null(ret_rusage, "ret_rusage");
  if (r == 0)
    r = lock_started(process);
  if (r < 0)
    return r;
  r = mpx_process_reap(process);
  if (r == 1 && process->exit.has_rusage) {
    const mpx_rusage *used = &process->exit.rusage;
    *ret_rusage = (mproc_rusage){.user_time_ns = used->user_time_ns,
                                 .system_time_ns = used->system_time_ns,
                                 .max_rss_bytes = used->max_rss_bytes,
                                 .minor_faults = used->minor_faults,
                                 .major_faults = used->major_faults,
                                 .voluntary_switches = used->voluntary_switches,
                                 .involuntary_switches = used->involuntary_switches};
    r = 0;
  } else if (r == 1) {
    r = fail_unknown_rusage(process);
  } else if (r == 0) {
    r = mpx_fail(-EAGAIN, "process '%s' still runs", process->name);
  }
  unlock(process);
  return r;
}

int mproc_process_sentinel(mproc_process *process, mproc_handle *ret_handle) {
  int r = mpx_check_not_null(ret_handle, "ret_handle");
  if (r == 0)
    r = lock_started(process);
  if (r < 0)
    return r;
  *ret_handle = process->child.sentinel;
  unlock(process);
  return 0;
}
