/* The forkserver method: a server's fresh child becomes the process that was asked for.
 *
 *   asker                          server                    worker
 *   slot claimed, gate closed
 *   request through the door ----> fork -------------------> takes the slot, writes its pid, takes
 *   privileges compared, gate                                 over the asker's surroundings
 *   opened -------------------------------------------------> waits at the gate, applies options
 *   birth: names it by that pid <---------------------------- birth announced, entry
 *                                   waits for it, writes its
 *   joins: reads the slot <-------  status into the slot
 */
#include "base/error.h"
#include "base/log.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "process/executable.h"
#include "process/request.h"
#include "process/server.h"
#include "process/start.h"

#include <errno.h>

/* A server may be killed at any time, but hardly at each start. */
enum { SERVER_TRIES = 5 };
#define LOOK_NS (100 * MPX_NS_PER_MS)
/* A spare that has not taken the slot by then was killed or stopped with the request. */
#define SPARE_PATIENCE_NS (100 * MPX_NS_PER_MS)

/* Takes the slot back, unless a worker has it already. */
static bool call_off(mproc_process *process) {
  mpx_header *header = mpx_family_header();
  mpx_slot *slot = mpx_table_slot(header, process->member);
  if (!mpx_table_retract(header, process->member))
    return false;
  mpx_os_word_wake_all(&slot->gate);
  process->member = 0;
  return true;
}

/* While the server forks: whether it is still like us; -ESTALE: no; -EPIPE: it is dead. The worker
 * waits for that at the gate before it does anything that others could notice. */
static int compare_privileges(mproc_process *process, const mpx_server_view *server) {
  mpx_privilege now;
  int r = mpx_os_privilege_get(&now);
  if (r < 0)
    return mpx_fail(r, "'%s': cannot compare privileges with the forkserver: %s%s", process->name,
                    mproc_strerror(r), mpx_os_limit_text(r));
  bool same = true;
  for (size_t i = 0; i < sizeof now.words / sizeof now.words[0]; i++)
    same = same && now.words[i] == server->open->privilege.words[i];
  /* what was read is this server's, and not that of one which took the page of a dead one */
  if (atomic_load(&server->open->owner) != server->member)
    return -EPIPE;
  if (same)
    return 0;
  mpx_log(MPROC_LOG_INFO,
          "'%s': the forkserver has other privileges (ids, groups, capabilities, filters, "
          "namespaces, cgroup or session) than this process, which gets its own",
          process->name);
  return -ESTALE;
}

static int64_t earlier(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* Both requests are good for the slot, which only one worker can take. */
static int ask_again(mproc_process *process, const mpx_server_view *server, int64_t deadline) {
  if (!mpx_table_is_claimed(mpx_family_header(), process->member))
    return 0;
  mpx_log(MPROC_LOG_INFO, "'%s': no spare begins; the forkserver itself is asked", process->name);
  return mpx_request_send(process, server, false, deadline);
}

static int say_birth_failed(const mproc_process *process, const mpx_report *report) {
  return report && report->code < 0
             ? mpx_fail(report->code, "'%s': %.*s", process->name, (int)sizeof report->text - 1,
                        report->text)
             : mpx_fail_code(-ENOMEM, "starting a process by the forkserver");
}

/* 0: the entry is about to run. -EPIPE: the server died before. */
static int await_birth(mproc_process *process, const mpx_server_view *server, int64_t deadline) {
  mpx_header *header = mpx_family_header();
  mpx_slot *slot = mpx_table_slot(header, process->member);
  int64_t again = MPX_NEVER;
  if (server->open->spare_count > 0) {
    again = mpx_os_now() + SPARE_PATIENCE_NS;
    mpx_os_word_spin(&slot->birth, MPX_BIRTH_AWAITED, MPX_OS_SPIN_NS);
  }
  for (;;) {
    uint32_t birth = atomic_load_explicit(&slot->birth, memory_order_acquire);
    if (birth == MPX_BIRTH_DONE)
      return 0;
    if (birth == MPX_BIRTH_FAILED)
      return say_birth_failed(process, mpx_table_report(header, process->member));
    int64_t now = mpx_os_now();
    bool dead = mpx_member_is_dead(header, server->member);
    /* One word decides: a worker that has not said by now that it runs will not. */
    if ((dead || now >= deadline) &&
        !atomic_compare_exchange_strong(&slot->birth, &birth, MPX_BIRTH_CALLED_OFF))
      continue;
    if (dead)
      return -EPIPE;
    if (now >= deadline)
      return mpx_fail(-ETIMEDOUT,
                      "'%s' did not reach its entry in time; is the forkserver stopped?",
                      process->name);
    if (now >= again) {
      int r = ask_again(process, server, deadline);
      if (r < 0)
        return r;
      again = MPX_NEVER;
    }
    mpx_os_word_wait(&slot->birth, MPX_BIRTH_AWAITED,
                     earlier(again, earlier(deadline, now + LOOK_NS)));
  }
}

/* Whether the pid was the worker's just now: a living server had not taken its end yet, or it
 * lives. When a server is dead, whoever inherited its workers takes their ends. */
static bool still_had_pid(mproc_process *process, const mpx_slot *slot) {
  mpx_header *header = mpx_family_header();
  return atomic_load_explicit(&slot->relay, memory_order_acquire) == MPX_RELAY_NONE &&
         (!mpx_member_is_dead(header, process->server) ||
          !mpx_member_is_dead(header, process->member));
}

static int open_sentinel(mproc_process *process, mpx_slot *slot) {
  mpx_child *child = &process->child;
  int r = mpx_os_process_open(child->pid, &child->sentinel);
  child->pidfd = r == 0;
  if (r != -ESRCH && still_had_pid(process, slot))
    return r;
  mpx_os_child_close(child);
  child->pid = mpx_slot_pid(slot);
  return mpx_os_ended_sentinel(&child->sentinel);
}

static int name_child(mproc_process *process) {
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), process->member);
  mpx_child *child = &process->child;
  child->pid = mpx_slot_pid(slot);
  if (child->sentinel != MPX_NO_HANDLE) { /* a pipe, where there are no pidfds */
    process->server_start_time = mpx_os_start_time(child->pid);
    return 0;
  }
  mpx_registry_lock();
  int r = open_sentinel(process, slot);
  mpx_registry_unlock();
  return r < 0 ? mpx_fail(r, "cannot name '%s': %s%s", process->name, mproc_strerror(r),
                          mpx_os_limit_text(r))
               : 0;
}

/* The worker of a start that failed: it gets no further, and whoever comes by buries it. */
static void abandon(mproc_process *process) {
  mpx_header *header = mpx_family_header();
  if (process->member == 0 || call_off(process))
    return;
  mpx_slot *slot = mpx_table_slot(header, process->member);
  uint32_t awaited = MPX_BIRTH_AWAITED;
  if (!slot) /* ended, and buried by a sweep */
    return;
  if (atomic_compare_exchange_strong(&slot->birth, &awaited, MPX_BIRTH_CALLED_OFF)) {
    mpx_gate_open(slot); /* it finds that it was called off */
    slot->parent = 0;    /* and is buried when it has ended, not before */
    process->member = 0;
    return;
  }
  int64_t pid = mpx_slot_pid(slot);
  if (pid && !mpx_member_is_dead(header, process->member))
    mpx_os_process_kill(pid, mpx_os_start_time(pid), MPX_NO_HANDLE);
  mpx_relay_forget(process);
}

static int start_once(mproc_process *process, const mpx_server_view *server, int64_t deadline) {
  int r = mpx_start_begin(process, MPX_METHOD_FORKSERVER, false);
  if (r < 0)
    return r;
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), process->member);
  slot->server = server->member;
  process->server = server->member;
  r = mpx_request_send(process, server, true, deadline);
  MPROC_CRASH_POINT("forkserver.asked");
  if (r == 0)
    r = compare_privileges(process, server);
  if (r == 0) {
    mpx_gate_open(slot);
    MPROC_CRASH_POINT("forkserver.gate_open");
    r = await_birth(process, server, deadline);
  }
  if (r == 0)
    r = name_child(process);
  if (r < 0)
    abandon(process);
  return mpx_start_finish(process, r);
}

static int say_unlike_us(const mproc_process *process) {
  return mpx_fail(MPROC_ESECURE,
                  "no forkserver can have the privileges of this process for '%s': executing a "
                  "program changes them (capabilities, saved ids); use fork",
                  process->name);
}

static int start_by(mproc_process *process, mpx_server *server, int64_t deadline) {
  mpx_server_view view;
  int r = mpx_server_use(server, deadline, &view);
  if (r < 0)
    return r;
  r = start_once(process, &view, deadline);
  if (r == 0 && view.open->spare_count > 0)
    mpx_request_tell(view.door, MPX_REQUEST_REFILL, mpx_family_self());
  if (r == -EPIPE || r == -ESTALE) {
    mpx_log(MPROC_LOG_INFO, "the forkserver of '%s' is gone or not for us; starting another",
            process->name);
    mpx_server_drop(server, &view);
  }
  mpx_server_release(&view);
  /* If the one that this very call has started is unlike us, so would be all others. */
  return r == -ESTALE && view.is_new ? say_unlike_us(process) : r;
}

int mpx_start_forkserver(mproc_process *process) {
  int64_t deadline = mpx_start_deadline(process);
  int r = mpx_executable_check(process);
  if (r < 0)
    return r;
  mpx_server *server = process->settings ? process->settings : mpx_server_default();
  if (!server)
    return mpx_fail_code(-ENOMEM, "the forkserver");
  for (int deaths = 0; deaths < SERVER_TRIES; deaths += r == -EPIPE) {
    r = start_by(process, server, deadline);
    if (r != -EPIPE && r != -ESTALE)
      return r;
    if (r == -ESTALE && mpx_os_now() >= deadline)
      return mpx_fail(
          -ETIMEDOUT,
          "'%s' got no forkserver in time: threads with different privileges replace it "
          "again and again",
          process->name);
  }
  return mpx_fail(MPROC_ESERVER,
                  "the forkserver died %d times in a row while it started '%s'; is something "
                  "killing it (the log says more: MPROC_LOG=info)?",
                  SERVER_TRIES, process->name);
}
