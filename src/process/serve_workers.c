/* What the forkserver forked, and waits for. */
#include "base/error.h"
#include "os/crash_point.h"
#include "process/child.h"
#include "process/serve.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

static mpx_worker *find_worker(int64_t pid) {
  for (size_t i = 0; i < mpx_serve.worker_count; i++)
    if (mpx_serve.workers[i].pid == pid)
      return &mpx_serve.workers[i];
  return NULL;
}

/* What a spare became, once it says so. */
mpx_member mpx_worker_member(const mpx_worker *one) {
  if (one->member || one->spare < 0)
    return one->member;
  return atomic_load_explicit(&mpx_serve.open->spares[one->spare], memory_order_acquire);
}

void mpx_workers_kill_daemons_of(mpx_member dead) {
  for (size_t i = 0; i < mpx_serve.worker_count; i++) {
    mpx_slot *slot = mpx_table_slot(mpx_serve.header, mpx_worker_member(&mpx_serve.workers[i]));
    if (slot && slot->daemon && slot->parent == dead)
      mpx_os_reaper_kill(mpx_serve.workers[i].pid);
  }
}

bool mpx_worker_remember(mpx_worker one) {
  void *items = mpx_serve.workers;
  if (!mpx_serve_make_room(&items, &mpx_serve.worker_capacity, mpx_serve.worker_count, sizeof one))
    return false;
  mpx_serve.workers = items;
  mpx_serve.workers[mpx_serve.worker_count++] = one;
  return true;
}

/* Closes what is the server's alone; the doors for asking stay, they are the worker's too. */
void mpx_worker_leave_server(void) {
  mpx_os_close(mpx_serve.door);
  for (size_t i = 0; i < mpx_serve.client_count; i++)
    mpx_os_close(mpx_serve.clients[i].sentinel);
  mpx_os_reaper_leave();
  mpx_child_leave_parent();
}

mpx_worker_call mpx_worker_call_for(bool is_spare) {
  return (mpx_worker_call){.message = mpx_serve.message,
                           .received = &mpx_serve.received,
                           .header = mpx_serve.header,
                           .now = &mpx_serve.surroundings,
                           .server_pid = mpx_serve.pid,
                           .not_ours = mpx_serve.spares,
                           .is_spare = is_spare};
}

void mpx_worker_refuse(int code) {
  char text[256];
  (void)snprintf(text, sizeof text, "the forkserver cannot make a worker: %s%s",
                 mproc_strerror(code), mpx_os_limit_text(code));
  (void)mpx_birth_fail(((const mpx_request *)(void *)mpx_serve.message)->member, code, text);
}

void mpx_worker_start(const mpx_request *request) {
  mpx_worker one = {.member = request->member, .spare = -1};
  if (!mpx_worker_remember(one)) {
    mpx_worker_refuse(-ENOMEM);
    return;
  }
  int64_t pid = mpx_os_fork();
  if (pid == 0) {
    mpx_worker_call call = mpx_worker_call_for(false);
    mpx_worker_leave_server();
    mpx_worker_run(&call);
    mpx_os_exit_now(0); /* called off */
  }
  MPROC_CRASH_POINT("server.forked");
  if (pid < 0) {
    mpx_serve.worker_count--;
    mpx_worker_refuse((int)pid);
    return;
  }
  mpx_serve.workers[mpx_serve.worker_count - 1].pid = pid;
}

/* Python would give the status to whoever asks; here the asker reads it in the slot. */
static void relay(mpx_member member, const mpx_exit *status) {
  mpx_slot *slot = mpx_table_slot(mpx_serve.header, member);
  if (!slot || slot->server != mpx_family_self())
    return;
  slot->exit = *status;
  /* release: pairs with the acquire of the asker, who reads `exit` */
  atomic_store_explicit(&slot->relay, MPX_RELAY_DONE, memory_order_release);
  MPROC_CRASH_POINT("server.relayed");
  mpx_os_word_wake_all(&slot->relay);
  if (slot->parent == 0 || mpx_member_is_dead(mpx_serve.header, slot->parent))
    mpx_family_bury(member);
}

static void end_member(mpx_member member, const mpx_exit *status) {
  char text[256], how[64];
  (void)mpx_exit_say(status, how, sizeof how);
  (void)snprintf(text, sizeof text,
                 "the worker ended before its entry ran (%s); do its options leave it enough, "
                 "and does a hook of mproc_after_fork end it?",
                 how);
  if (!mpx_birth_fail(member, MPROC_EBOOT, text))
    relay(member, status);
}

/* Of two workers that were asked for the same slot the slower was called off: it ends by itself,
 * and its end is not that of the member. */
static void bury_worker(mpx_worker *one) {
  /* stays so when somebody else has waited for it: a thread of the user's */
  mpx_exit status = {.state = MPROC_STATE_UNKNOWN, .code = -1};
  mpx_member member = mpx_worker_member(one);
  mpx_slot *slot = mpx_table_slot(mpx_serve.header, member);
  int64_t owner = slot && slot->server == mpx_family_self() ? mpx_slot_pid(slot) : -1;
  if (owner == one->pid)
    atomic_store_explicit(&slot->relay, MPX_RELAY_REAPING, memory_order_release);
  if (mpx_os_reaper_take(one->pid, &status) == 0)
    return;
  bool called_off = status.state == MPROC_STATE_EXITED && status.code == 0;
  if (owner == one->pid || (owner == 0 && !called_off))
    end_member(member, &status);
  mpx_spare_gone(one);
  *one = mpx_serve.workers[--mpx_serve.worker_count];
}

void mpx_workers_reap_each(void) {
  for (size_t i = mpx_serve.worker_count; i-- > 0;)
    if (mpx_os_reaper_has_ended(mpx_serve.workers[i].pid))
      bury_worker(&mpx_serve.workers[i]);
}

void mpx_workers_reap(void) {
  int64_t pid;
  while ((pid = mpx_os_reaper_peek()) != 0) {
    mpx_worker *one = find_worker(pid);
    if (!one) { /* a child of the user's own code hides the others: ask for each */
      mpx_workers_reap_each();
      return;
    }
    bury_worker(one);
  }
}
