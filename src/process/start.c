#include "process/start.h"

#include "base/error.h"
#include "base/log.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "process/child.h"
#include "process/guardian.h"

#include <errno.h>
#include <string.h>

enum { DEFAULT_START_TIMEOUT_MS = 60000 };

void mpx_transient_close(mpx_transient *transient) {
  mproc_handle *handles[] = {&transient->report[0], &transient->report[1], &transient->record,
                             &transient->held, &transient->cwd};
  for (size_t i = 0; i < sizeof handles / sizeof handles[0]; i++)
    if (*handles[i] != MPX_NO_HANDLE) {
      mpx_os_close(*handles[i]);
      *handles[i] = MPX_NO_HANDLE;
    }
}

int mpx_start_claim(const char name[MPX_NAME_SIZE], mpx_method method, bool daemon,
                    mpx_member *ret_member) {
  uint32_t cell;
  int r = mpx_family_enter(&cell);
  if (r < 0)
    return r;
  mpx_header *header = mpx_family_header();
  mpx_family_sweep(false);
  r = mpx_table_claim(header, mpx_family_self(), ret_member);
  if (r < 0)
    return r;
  mpx_slot *slot = mpx_table_slot(header, *ret_member);
  slot->daemon = daemon;
  slot->method = (uint32_t)method;
  memcpy(slot->name, name, sizeof slot->name);
  return 0;
}

static int make_handles(mproc_process *process, bool report) {
  mpx_registry_lock(); /* a fork by another thread sees all of them or none */
  int r = mpx_os_child_prepare(&process->child, &process->transient.held);
  if (r == 0 && report)
    r = mpx_os_pipe(process->transient.report);
  mpx_registry_unlock();
  return r < 0 ? mpx_fail(r, "cannot start '%s': no descriptors: %s%s", process->name,
                          mproc_strerror(r), mpx_os_limit_text(r))
               : 0;
}

static void forget_child(mproc_process *process) {
  mpx_registry_forget_child(process);
  if (process->member)
    mpx_family_bury(process->member);
  process->member = 0;
}

int mpx_start_begin(mproc_process *process, mpx_method method, bool report) {
  int r = mpx_start_claim(process->name, method, process->options.daemon != 0, &process->member);
  if (r < 0)
    return r;
  process->server = 0;
  if (method != MPX_METHOD_FORKSERVER) /* which sees to its workers itself */
    r = mpx_guardian_tie(process);
  if (r == 0)
    r = make_handles(process, report);
  if (r < 0)
    return mpx_start_end(process, r);
  mpx_log(MPROC_LOG_TRACE, "'%s': slot %u claimed, handles made", process->name,
          mpx_member_slot(process->member));
  MPROC_CRASH_POINT("start.prepared");
  return 0;
}

static void open_gate(mproc_process *process) {
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), process->member);
  if (!slot)
    return;
  atomic_store_explicit(&slot->pid, process->child.pid, memory_order_relaxed);
  mpx_gate_open(slot);
}

int mpx_start_name_child(mproc_process *process) {
  mpx_registry_lock();
  int r = mpx_os_child_name(&process->child);
  mpx_registry_unlock();
  if (r < 0) /* out of descriptors: a child that cannot be named must not run */
    mpx_os_child_discard(&process->child);
  return r;
}

static void remove_child(mproc_process *process, mpx_exit *ret_status) {
  mpx_poll_item item = {.handle = process->child.sentinel};
  process->watched = false;
  (void)mpx_os_child_signal(&process->child, MPX_SIGNAL_KILL);
  *ret_status = (mpx_exit){.state = MPROC_STATE_UNKNOWN};
  while (mpx_os_child_poll(&process->child, ret_status) == 0) {
    if (item.ready) /* and yet not ended: a tracer has the zombie */
      mpx_os_sleep(MPX_NS_PER_MS);
    (void)mpx_os_poll(&item, 1, mpx_os_now() + 100 * MPX_NS_PER_MS);
  }
}

void mpx_start_remove_child(mproc_process *process) {
  mpx_exit status;
  remove_child(process, &status);
}

/* Its status is all that a child without a report tells. */
static int remove_silent_child(mproc_process *process) {
  char how[64];
  mpx_exit status;
  mpx_poll_item item = {.handle = process->child.sentinel};
  /* the report's end comes a moment before the child's: our signal must not become its cause */
  (void)mpx_os_poll(&item, 1, mpx_os_now() + 100 * MPX_NS_PER_MS);
  remove_child(process, &status);
  (void)mpx_exit_say(&status, how, sizeof how);
  return mpx_fail(MPROC_EBOOT,
                  "'%s' (process %lld) ended before its entry ran (%s); does its program call "
                  "mproc_init() first in main()%s?",
                  process->name, (long long)process->child.pid, how,
                  process->options.limit_count ? ", and do options.limits leave it enough" : "");
}

int64_t mpx_start_deadline(const mproc_process *process) {
  int timeout_ms = process->options.start_timeout_ms;
  return mpx_deadline(mpx_os_now(), timeout_ms ? timeout_ms : DEFAULT_START_TIMEOUT_MS);
}

/* 1: the child ended without a word. */
static int await_report(mproc_process *process) {
  int64_t deadline = mpx_start_deadline(process);
  mpx_registry_lock();
  mpx_os_close(process->transient.report[1]); /* the child's end */
  process->transient.report[1] = MPX_NO_HANDLE;
  mpx_registry_unlock();
  return mpx_report_receive(process->transient.report[0], &process->child, deadline, process->name);
}

int mpx_start_end(mproc_process *process, int r) {
  bool has_child = r == 0;
  if (has_child)
    mpx_log(MPROC_LOG_TRACE, "'%s': process %lld made%s", process->name,
            (long long)process->child.pid, process->guarded ? ", to be guarded" : "");
  MPROC_CRASH_POINT("start.cloned");
  if (has_child && process->guarded)
    r = mpx_guardian_watch(process);
  MPROC_CRASH_POINT("start.watched");
  if (r == 0) /* one that cannot be guarded never gets to its entry */
    open_gate(process);
  if (r == 0 && process->transient.report[0] != MPX_NO_HANDLE)
    r = await_report(process);
  if (r > 0)
    r = remove_silent_child(process);
  else if (r < 0 && has_child)
    mpx_start_remove_child(process);
  return mpx_start_finish(process, r);
}

int mpx_start_finish(mproc_process *process, int r) {
  mpx_registry_lock();
  mpx_transient_close(&process->transient);
  mpx_registry_unlock();
  if (r < 0)
    forget_child(process);
  return r;
}
