/* Warm spares: workers that were forked before they were asked for. */
#include "os/crash_point.h"
#include "process/serve.h"

void mpx_spares_want(void) {
  if (mpx_serve.spare_count > 0 && mpx_serve.refill_at == MPX_NEVER)
    mpx_serve.refill_at = mpx_os_now() + MPX_SERVE_REFILL_DELAY_NS;
}

void mpx_spare_gone(const mpx_worker *one) {
  if (one->spare < 0)
    return;
  atomic_store(&mpx_serve.open->spares[one->spare], 0);
  mpx_spares_want();
}

/* A worker that was forked before it was asked for: it waits where the requests for spares come in,
 * and whoever of them is there takes the next. */
static _Noreturn void run_spare(int place) {
  mpx_worker_call call = mpx_worker_call_for(true);
  const mpx_request *request = call.message;
  _Atomic mpx_member *self = &mpx_serve.open->spares[place];
  mpx_worker_leave_server();
  (void)mpx_os_die_with_parent(mpx_serve.pid, true);
  mpx_os_set_process_name("mproc:spare");
  mpx_worker_rehearse(&mpx_serve.surroundings);
  mpx_idle_add(mpx_serve.open, mpx_serve.member, 1);
  for (;;) {
    int r = mpx_os_channel_take(mpx_serve.spares, mpx_serve.message, sizeof mpx_serve.message, true,
                                &mpx_serve.received);
    if (r <= 0)
      mpx_os_exit_now(0);
    MPROC_CRASH_POINT("spare.taken");
    if (!mpx_serve.received.is_ours || mpx_serve.received.cut ||
        !mpx_request_is_sound(request, &mpx_serve.received) || request->kind != MPX_REQUEST_START) {
      mpx_serve_close_received();
      mpx_idle_add(mpx_serve.open, mpx_serve.member, 1);
      continue;
    }
    atomic_store_explicit(self, request->member, memory_order_release);
    mpx_worker_run(&call); /* returns from one that was called off */
    /* The server may have replaced us already: one that waited again would be one too many. */
    mpx_os_exit_now(0);
  }
}

static int free_place(void) {
  bool used[MPX_SPARES_MAX] = {false};
  for (size_t i = 0; i < mpx_serve.worker_count; i++)
    if (mpx_serve.workers[i].spare >= 0)
      used[mpx_serve.workers[i].spare] = true;
  for (int i = 0; i < MPX_SPARES_MAX; i++)
    if (!used[i])
      return i;
  return -1;
}

int mpx_spares_waiting(void) {
  int count = 0;
  for (size_t i = 0; i < mpx_serve.worker_count; i++)
    count += mpx_serve.workers[i].spare >= 0 && mpx_worker_member(&mpx_serve.workers[i]) == 0;
  return count;
}

static bool add_spare(void) {
  mpx_worker one = {.spare = free_place()};
  if (one.spare < 0 || !mpx_worker_remember(one))
    return false;
  atomic_store(&mpx_serve.open->spares[one.spare], 0);
  int64_t pid = mpx_os_fork();
  if (pid == 0)
    run_spare(one.spare);
  if (pid < 0) {
    mpx_serve.worker_count--;
    return false;
  }
  mpx_serve.workers[mpx_serve.worker_count - 1].pid = pid;
  return true;
}

/* The count is a hint that a killed spare or starter leaves wrong. Set right while no request is
 * under way; upwards only if it was too low before, for a spare counts itself. */
void mpx_spares_count(void) {
  mpx_poll_item queue = {.handle = mpx_serve.spares};
  int waiting = mpx_spares_waiting();
  int idle = (int)(uint32_t)atomic_load(&mpx_serve.open->idle);
  bool quiet = mpx_os_poll(&queue, 1, 0) == 0, low = idle < waiting;
  if (quiet && (idle > waiting || (low && mpx_serve.was_low)))
    mpx_idle_add(mpx_serve.open, mpx_serve.member, waiting - idle);
  mpx_serve.was_low = quiet && low;
}

/* Spares that took a request: who asked must be watched. */
void mpx_spares_notice(void) {
  for (size_t i = 0; i < mpx_serve.worker_count; i++) {
    mpx_worker *one = &mpx_serve.workers[i];
    mpx_member member = one->member ? 0 : mpx_worker_member(one);
    mpx_slot *slot = mpx_table_slot(mpx_serve.header, member);
    if (!slot || atomic_load_explicit(&slot->birth, memory_order_acquire) == MPX_BIRTH_AWAITED ||
        mpx_slot_pid(slot) != one->pid)
      continue;
    one->member = member;
    atomic_store(&mpx_serve.open->spares[one->spare], 0); /* its place is for another */
    one->spare = -1;
    mpx_spares_want();
    if (mpx_member_is_dead(mpx_serve.header, slot->parent))
      mpx_workers_kill_daemons_of(slot->parent);
    else
      (void)mpx_client_know(slot->parent);
  }
}

/* One at a time: requests and ended workers come in between. */
void mpx_spares_refill(void) {
  int64_t now = mpx_os_now();
  if (mpx_serve.refill_at > now)
    return;
  int missing = mpx_serve.spare_count - mpx_spares_waiting();
  if (missing > 0 && !add_spare())
    mpx_serve.refill_at = now + MPX_SERVE_LOOK_NS;
  else
    mpx_serve.refill_at = missing > 1 ? now : MPX_NEVER;
}
