/* Workers as processes: who is to be there, who is not, and how each of them ended. */
#include "pool/supervisor.h"

#include "base/error.h"
#include "base/log.h"
#include "os/crash_point.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

enum { BARREN_MOST = 5 };

/* ---- starting -------------------------------------------------------------------------------- */

static int make_process(mpx_supervisor *supervisor, unsigned number, mpx_ward *ward) {
  const mpx_pool_settings *settings = &supervisor->board->settings;
  const mpx_worker_arg arg = {
      .board = supervisor->board,
      .ticket = atomic_load(&supervisor->board->lines[number].member),
      .number = number,
  };
  char name[40];
  int cpu = settings->cpu_count ? settings->cpus[number % settings->cpu_count] : 0;
  (void)snprintf(name, sizeof name, "%.23s:%u", settings->name, number);
  mproc_process_options options = {.name = name,
                                   .daemon = 1,
                                   .context = supervisor->context,
                                   .cpus = settings->cpu_count ? &cpu : NULL,
                                   .cpu_count = settings->cpu_count ? 1 : 0};
  if (ward->spool != MPX_NO_HANDLE)
    options.streams[2] = (mproc_stream){.kind = MPROC_STREAM_HANDLE, .handle = ward->spool};
  int r = mproc_process_create(&ward->process, mpx_worker_main, &arg, sizeof arg, &options);
  if (r < 0)
    return r;
  r = mproc_process_start(ward->process);
  if (r < 0) {
    (void)mproc_process_close(ward->process);
    ward->process = NULL;
  }
  return r;
}

static int start(mpx_supervisor *supervisor, unsigned number, mpx_order order) {
  mpx_board *board = supervisor->board;
  mpx_ward *ward = &supervisor->wards[number];
  mpx_line *line = &board->lines[number];
  int r = 0;
  if (board->settings.keep_errors && ward->spool == MPX_NO_HANDLE)
    r = mpx_os_spool_create(&ward->spool);
  atomic_store(&line->order, order);
  atomic_store(&line->memory_at_birth, 0);
  atomic_store(&line->is_spare, order == MPX_ORDER_WAIT);
  if ((int)number >= atomic_load(&board->lines_used))
    atomic_store(&board->lines_used, (int)number + 1);
  mpx_count(&line->started, 1); /* before it shows that it is there */
  atomic_store(&line->member, mpx_ticket_make(atomic_load(&line->started)));
  if (r == 0)
    r = make_process(supervisor, number, ward);
  if (r < 0) {
    atomic_store(&line->member, 0);
    mpx_count(&line->started, UINT64_MAX);
    return r;
  }
  ward->started_at = mpx_os_now();
  ward->seen = ward->unwanted = (mpx_work){.runs = UINT64_MAX};
  if (mproc_process_sentinel(ward->process, &ward->sentinel) < 0)
    ward->sentinel = MPX_NO_HANDLE; /* its end is noticed at the next look */
  return 0;
}

void mpx_supervisor_break(mpx_supervisor *supervisor, int code, const char *text) {
  mpx_board *board = supervisor->board;
  board->broken_code = code;
  (void)snprintf(board->broken_text, sizeof board->broken_text, "%s", text);
  uint32_t state = atomic_load(&board->state);
  while (state < MPX_POOL_ENDING &&
         !atomic_compare_exchange_weak(&board->state, &state, MPX_POOL_BROKEN))
    ;
  mpx_log(MPROC_LOG_ERROR, "pool '%s': %s", board->settings.name, text);
}

/* The first is started again at once, others ever later. */
static void count_barren(mpx_supervisor *supervisor, int code, const char *text) {
  int64_t delay = supervisor->barren == 0 ? 0 : 5 * MPX_NS_PER_MS << supervisor->barren;
  supervisor->not_before = mpx_os_now() + delay;
  if (++supervisor->barren >= BARREN_MOST)
    mpx_supervisor_break(supervisor, code, text);
}

/* The lowest number without a process. */
static int find_free(const mpx_supervisor *supervisor) {
  for (int i = 0; i < MPROC_POOL_WORKERS_MAX; i++)
    if (!supervisor->wards[i].process)
      return i;
  return -1;
}

static int count_orders(const mpx_supervisor *supervisor, mpx_order order) {
  int count = 0;
  for (int i = 0; i < MPROC_POOL_WORKERS_MAX; i++)
    count += supervisor->wards[i].process &&
             atomic_load(&supervisor->board->lines[i].order) == (uint32_t)order;
  return count;
}

static void order(mpx_line *line, mpx_order what) {
  atomic_store(&line->order, what);
  mpx_os_word_wake_all(&line->order);
}

static bool promote(mpx_supervisor *supervisor) {
  for (int i = 0; i < MPROC_POOL_WORKERS_MAX; i++) {
    mpx_line *line = &supervisor->board->lines[i];
    if (!supervisor->wards[i].process || atomic_load(&line->order) != MPX_ORDER_WAIT ||
        atomic_load(&line->stage) != MPX_WORKER_READY)
      continue;
    atomic_store(&line->is_spare, 0);
    order(line, MPX_ORDER_WORK);
    return true;
  }
  return false;
}

static void send_away(mpx_supervisor *supervisor, int surplus) {
  for (int i = MPROC_POOL_WORKERS_MAX - 1; i >= 0 && surplus > 0; i--)
    if (supervisor->wards[i].process &&
        atomic_load(&supervisor->board->lines[i].order) == MPX_ORDER_WORK) {
      order(&supervisor->board->lines[i], MPX_ORDER_LEAVE);
      surplus--;
    }
  mpx_turn_next(&supervisor->board->work, MPX_TURN_ALL);
}

static bool start_one(mpx_supervisor *supervisor, mpx_order what) {
  int number = find_free(supervisor);
  if (number < 0 || mpx_os_now() < supervisor->not_before)
    return false;
  int r = start(supervisor, (unsigned)number, what);
  if (r < 0)
    count_barren(supervisor, r, mproc_error_detail());
  return r == 0;
}

static bool has_work(const mpx_board *board) {
  for (int i = 0; i < MPX_LANES; i++)
    if (atomic_load(&board->lanes[i].head) != atomic_load(&board->lanes[i].tail))
      return true;
  return false;
}

static void send_idle_away(mpx_supervisor *supervisor, int64_t now) {
  mpx_board *board = supervisor->board;
  int64_t limit = board->settings.idle_timeout_ms * MPX_NS_PER_MS;
  for (int i = 0; limit > 0 && i < MPROC_POOL_WORKERS_MAX; i++) {
    mpx_line *line = &board->lines[i];
    int64_t since = atomic_load(&line->idle_since);
    if (!supervisor->wards[i].process || atomic_load(&line->order) != MPX_ORDER_WORK ||
        since == 0 || now - since < limit)
      continue;
    supervisor->sleeps = true;
    atomic_store(&board->is_short, 1); /* seq_cst: who submits after our look calls us */
    order(line, MPX_ORDER_LEAVE);
    mpx_turn_next(&board->work, MPX_TURN_ALL);
  }
  if (supervisor->sleeps && has_work(board)) {
    supervisor->sleeps = false;
    atomic_store(&board->is_short, 0);
  }
}

void mpx_crew_start(mpx_supervisor *supervisor) {
  mpx_board *board = supervisor->board;
  send_idle_away(supervisor, mpx_os_now());
  int wanted = supervisor->sleeps ? 0 : atomic_load(&board->wanted);
  int working = count_orders(supervisor, MPX_ORDER_WORK);
  if (!supervisor->sleeps && working > wanted)
    send_away(supervisor, working - wanted);
  for (; working < wanted; working++)
    if (!promote(supervisor) && !start_one(supervisor, MPX_ORDER_WORK))
      break;
  if (supervisor->sleeps || working < wanted)
    return;
  for (int spares = count_orders(supervisor, MPX_ORDER_WAIT); spares < board->settings.spares;
       spares++)
    if (!start_one(supervisor, MPX_ORDER_WAIT))
      break;
}

/* ---- ending ---------------------------------------------------------------------------------- */

static void tell_cause(mpx_supervisor *supervisor, unsigned number, const mproc_status *status,
                       mpx_worker_end *end) {
  mpx_line *line = &supervisor->board->lines[number];
  mproc_cause cause = (mproc_cause)atomic_load(&line->condemned);
  mpx_work work = mpx_work_of(line);
  int64_t oom_kills = mpx_os_oom_kills();
  end->is_blamed = true;
  end->code = status->state == MPROC_STATE_SIGNALED ? status->signal : status->code;
  if (cause != MPROC_CAUSE_NONE) {
    end->is_blamed = mpx_work_is_same(&work, &line->doomed);
    end->cause = cause;
  } else if (status->state == MPROC_STATE_EXITED) {
    end->cause = MPROC_CAUSE_EXITED;
  } else if (status->signal == 9 && oom_kills > supervisor->oom_kills) {
    end->cause = MPROC_CAUSE_OUT_OF_MEMORY;
  } else {
    end->cause = MPROC_CAUSE_SIGNALED;
  }
  supervisor->oom_kills = oom_kills;
}

static void judge_early_end(mpx_supervisor *supervisor, unsigned number,
                            const mproc_status *status) {
  mpx_line *line = &supervisor->board->lines[number];
  char how[128], text[MPX_POOL_TEXT];
  uint32_t stage = atomic_load(&line->stage);
  if (stage == MPX_WORKER_READY || stage == MPX_WORKER_LEFT ||
      atomic_load(&line->order) == MPX_ORDER_LEAVE) {
    supervisor->barren = 0;
    return;
  }
  int code = stage == MPX_WORKER_FAILED ? atomic_load(&line->code) : MPROC_EPOOL;
  if (stage == MPX_WORKER_FAILED)
    (void)snprintf(text, sizeof text,
                   "the initializer failed in %d workers one after the other, at last with %d (%s)",
                   BARREN_MOST, code, code < 0 ? mproc_strerror(code) : "a code of its own");
  else
    (void)snprintf(
        text, sizeof text,
        "%d workers one after the other ended before they could do anything; the last %s",
        BARREN_MOST, mproc_strstatus(status, how, sizeof how));
  count_barren(supervisor, code, text);
}

static void bury(mpx_supervisor *supervisor, unsigned number, bool is_replaced) {
  mpx_ward *ward = &supervisor->wards[number];
  mpx_line *line = &supervisor->board->lines[number];
  mproc_status status = {0};
  mpx_worker_end end = {0};
  (void)mproc_process_join(ward->process, MPROC_FOREVER);
  (void)mproc_process_status(ward->process, &status);
  tell_cause(supervisor, number, &status, &end);
  if (is_replaced)
    end.cause = MPROC_CAUSE_REPLACED;
  end.max_rss_bytes = status.max_rss_bytes;
  end.run_time_ns = mpx_os_now() - atomic_load(&line->began_at);
  judge_early_end(supervisor, number, &status);
  mpx_count(atomic_load(&line->stage) == MPX_WORKER_LEFT ? &line->leaves : &line->died, 1);
  mpx_repair(supervisor, number, &end);
  (void)mproc_process_close(ward->process);
  ward->process = NULL;
}

/* A program that was executed in the worker's place has its pid, and none of its threads. */
static bool is_replaced(const mpx_line *line) {
  mpx_member member = atomic_load(&line->member);
  return member && !mpx_is_ticket(member) && mpx_member_is_dead(mpx_family_header(), member) &&
         !mpx_os_process_is_ending(atomic_load(&line->pid));
}

void mpx_crew_collect(mpx_supervisor *supervisor) {
  int used = atomic_load(&supervisor->board->lines_used);
  for (int i = 0; i < used; i++) {
    mpx_ward *ward = &supervisor->wards[i];
    if (!ward->process)
      continue;
    bool replaced = false;
    if (mproc_process_is_alive(ward->process) == 1) {
      if (!is_replaced(&supervisor->board->lines[i]) || mproc_process_is_alive(ward->process) != 1)
        continue;
      replaced = atomic_load(&supervisor->board->lines[i].stage) != MPX_WORKER_LEFT;
      (void)mproc_process_kill(ward->process);
    }
    bury(supervisor, (unsigned)i, replaced);
  }
}

void mpx_crew_kill(mpx_supervisor *supervisor) {
  for (int i = 0; i < MPROC_POOL_WORKERS_MAX; i++)
    if (supervisor->wards[i].process)
      (void)mproc_process_kill(supervisor->wards[i].process);
  for (int i = 0; i < MPROC_POOL_WORKERS_MAX; i++) {
    mpx_ward *ward = &supervisor->wards[i];
    if (!ward->process)
      continue;
    (void)mproc_process_join(ward->process, MPROC_FOREVER);
    (void)mproc_process_close(ward->process);
    ward->process = NULL;
    mpx_count(&supervisor->board->lines[i].died, 1);
  }
}

/* Who has not come up yet will not; who has, the kernel, or the guardian, is at. Whether there was
 * somebody. */
static bool await_death(mpx_line *line) {
  mpx_member member = atomic_load(&line->member);
  while (mpx_is_ticket(member) && !atomic_compare_exchange_weak(&line->member, &member, 0))
    ;
  if (member == 0 || mpx_is_ticket(member))
    return atomic_load(&line->stage) != MPX_WORKER_NONE;
  while (!mpx_member_is_dead(mpx_family_header(), member))
    mpx_os_sleep(MPX_NS_PER_MS);
  return true;
}

void mpx_supervisor_of_last_resort(mpx_board *board) {
  int used = atomic_load(&board->lines_used);
  for (int i = 0; i < used; i++)
    (void)await_death(&board->lines[i]);
  mpx_jobs_fail_all(board);
}

void mpx_crew_take_over(mpx_supervisor *supervisor) {
  const mpx_worker_end end = {.cause = MPROC_CAUSE_SIGNALED,
                              .code = 9,
                              .has_deserted = true,
                              .run_time_ns = -1,
                              .max_rss_bytes = -1};
  int used = atomic_load(&supervisor->board->lines_used);
  for (int i = 0; i < used; i++) {
    mpx_line *line = &supervisor->board->lines[i];
    if (!await_death(line))
      continue;
    mpx_count(&line->died, 1);
    mpx_repair(supervisor, (unsigned)i, &end);
  }
}

bool mpx_crew_dismiss(mpx_supervisor *supervisor) {
  bool is_left = false;
  for (int i = 0; i < MPROC_POOL_WORKERS_MAX; i++)
    if (supervisor->wards[i].process) {
      order(&supervisor->board->lines[i], MPX_ORDER_LEAVE);
      is_left = true;
    }
  mpx_turn_next(&supervisor->board->work, MPX_TURN_ALL);
  return is_left;
}
