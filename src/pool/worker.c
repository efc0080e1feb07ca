/* A worker's life: comes up, takes what there is, leaves when it is told to. */
#include "pool/worker.h"

#include "base/error.h"
#include "os/crash_point.h"
#include "process/child.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mpx_worker_halt(mpx_worker *worker) {
  _Atomic uint32_t *condemned = &worker->line->condemned;
  for (uint32_t cause; (cause = atomic_load(condemned)) != 0;)
    mpx_os_word_wait(condemned, cause, mpx_os_now() + 50 * MPX_NS_PER_MS);
}

bool mpx_worker_must_go(const mpx_worker *worker) {
  return atomic_load_explicit(&worker->line->order, memory_order_relaxed) != MPX_ORDER_WORK ||
         worker->tasks_left == 0;
}

int mpx_worker_function(mpx_worker *worker, uint32_t number, mproc_task_function **ret_function) {
  if (!worker->functions[number]) {
    uintptr_t address;
    const mpx_function *function =
        atomic_load_explicit(&worker->board->functions[number], memory_order_acquire);
    int r = mpx_function_resolve(function, &address);
    if (r < 0)
      return r;
    worker->functions[number] = (mproc_task_function *)address;
  }
  *ret_function = worker->functions[number];
  return 0;
}

void mpx_worker_mark_errors(mpx_worker *worker) {
  enum { MOST = 1 << 20 };
  if (!worker->board->settings.keep_errors)
    return;
  fflush(stderr);
  int64_t size = mpx_os_spool_size(mpx_os_stderr());
  if (size > MOST && mpx_os_spool_clear(mpx_os_stderr()) == 0)
    size = 0;
  atomic_store_explicit(&worker->line->errors_from, size, memory_order_relaxed);
}

/* ---- one task -------------------------------------------------------------------------------- */

static int run_once(mpx_worker *worker, mproc_task *task, mproc_task_function *function,
                    const mpx_job *job) {
  mpx_worker_mark_errors(worker);
  return job->kind == MPX_JOB_ITEM ? mpx_worker_run_item(worker, task, function, job)
                                   : mpx_task_run(task, function, job->input, job->size);
}

/* Errors that a task returns are tried again on the spot, unless that is to take a while. */
static int run_in_place(mpx_worker *worker, mproc_task *task, const mpx_job *job) {
  mproc_task_function *function;
  int r = mpx_worker_function(worker, job->function, &function);
  if (r < 0)
    return mproc_task_fail(task, r, "%s", mproc_error_detail());
  for (;; task->attempt++) {
    atomic_store_explicit(&worker->line->attempt, task->attempt, memory_order_relaxed);
    r = run_once(worker, task, function, job);
    if (r == 0 || task->attempt > job->retries || job->retry_delay_ms > 0)
      return r;
    atomic_fetch_add_explicit(&worker->board->retried, 1, memory_order_relaxed);
    /* another attempt is another run: the time begins anew, and a verdict on the last is void */
    atomic_fetch_add(&worker->line->runs, 1);
    mpx_worker_heed(worker);
  }
}

static void end_failed(mpx_worker *worker, mproc_task *task, mpx_job *job, uint64_t word, int code,
                       int64_t run_time) {
  mpx_board *board = worker->board;
  if (task->attempt <= job->retries) {
    job->attempts = task->attempt;
    atomic_fetch_add_explicit(&board->retried, 1, memory_order_relaxed);
    mpx_job_again(board, job, word, mpx_retry_at(job, task->attempt));
    return;
  }
  mpx_failure *failure = mpx_task_failure(task, code, run_time);
  mpx_count(&worker->line->failed, 1);
  if (job->kind == MPX_JOB_SINGLE) {
    (void)mpx_job_end(board, job, word, failure ? failure : &board->nameless, worker->number);
    return;
  }
  mpx_map_drop_result(job->map, job->index);
  mpx_map_add_failure(job->map, failure);
  (void)mpx_job_end(board, job, word, NULL, worker->number);
}

/* The job is ours: its word names us. */
static void run_job(mpx_worker *worker, mpx_job *job, uint64_t word) {
  mpx_line *line = worker->line;
  int64_t began = worker->now;
  mproc_task task = {.worker = worker,
                     .job = job,
                     .index = job->kind == MPX_JOB_ITEM ? job->index + job->map->base : job->index,
                     .attempt = job->attempts + 1,
                     .answer = job->kind == MPX_JOB_SINGLE ? job->answer : NULL};
  atomic_store_explicit(&line->began_at, began, memory_order_relaxed);
  int code = run_in_place(worker, &task, job);
  worker->now = mpx_os_now();
  int64_t run_time = worker->now - began;
  mpx_count(&line->run_time[mpx_histogram_bucket(run_time)], 1);
  mpx_count_ns(&line->busy_ns, run_time);
  if (code != 0) {
    end_failed(worker, &task, job, word, code, run_time);
  } else {
    job->result = task.result;
    job->result_size = task.result_size;
    mpx_count(&line->done, 1);
    (void)mpx_job_end(worker->board, job, word, NULL, worker->number);
  }
  if (job->kind == MPX_JOB_ITEM)
    mpx_map_check(worker->board, job->map, worker->number);
  if (worker->tasks_left != UINT64_MAX)
    worker->tasks_left--;
}

/* ---- taking ---------------------------------------------------------------------------------- */

/* In this order: the line names the job and another run; the job names us; are we condemned? Who
 * condemns says so first and then looks at the line. */
static bool claim(mpx_worker *worker, mpx_job *job, uint64_t *word) {
  atomic_store_explicit(&worker->line->attempt, 0, memory_order_relaxed); /* none of this job */
  mpx_count(&worker->line->runs, 1);
  uint64_t mine = mpx_word_with(*word, MPX_JOB_RUNNING, worker->number);
  if (!atomic_compare_exchange_strong(&job->word, word, mine))
    return false;
  *word = mine;
  MPROC_CRASH_POINT("pool.job.claimed");
  mpx_worker_heed(worker);
  return true;
}

static void run_claimed(mpx_worker *worker, mpx_job *job, uint64_t word) {
  if (mpx_job_is_cancelled(job)) {
    if (job->kind == MPX_JOB_SINGLE) /* of an input, the map ends as a whole */
      mpx_job_cancel(worker->board, job, word, worker->number);
    return;
  }
  mpx_worker_wake_up(worker);
  if (worker->now == 0)
    worker->now = mpx_os_now();
  if (job->kind == MPX_JOB_SINGLE && job->attempts == 0)
    mpx_count(&worker->line->wait_time[mpx_histogram_bucket(worker->now - job->submitted_at)], 1);
  run_job(worker, job, word);
}

/* Whether there was something. `job` is in the lane's slot at `head`. */
static bool try_job(mpx_worker *worker, mpx_lane *lane, uint64_t head, mpx_job *job) {
  uint64_t word = atomic_load_explicit(&job->word, memory_order_acquire);
  bool is_queued = mpx_word_state(word) == MPX_JOB_QUEUED;
  if (is_queued && job->kind == MPX_JOB_MAP) {
    mpx_count(&worker->line->runs, 1);
    if (mpx_worker_run_map(worker, job) || mpx_worker_must_go(worker))
      return true;
    if (!mpx_map_is_taken(job->map))
      return false; /* cancelled: the supervisor takes it away */
  }
  bool is_mine = is_queued && job->kind != MPX_JOB_MAP && claim(worker, job, &word);
  (void)atomic_compare_exchange_strong(&lane->head, &head, head + 1);
  if (is_mine)
    run_claimed(worker, job, word);
  return true;
}

static bool take_from(mpx_worker *worker, mpx_lane *lane) {
  uint64_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
  if (head == atomic_load_explicit(&lane->tail, memory_order_acquire))
    return false;
  mpx_job *job = atomic_load_explicit(&lane->slots[head & lane->mask], memory_order_relaxed);
  mpx_line *line = worker->line;
  /* Who looks at a job keeps it and its map from being freed; what has left its slot by then may be
   * free already. seq_cst: pairs with the host's look in retire.c */
  atomic_store(&line->looks, job);
  bool found = true;
  if (atomic_load(&lane->head) == head) {
    atomic_store_explicit(&line->job, job, memory_order_release);
    found = try_job(worker, lane, head, job);
    atomic_store_explicit(&line->job, NULL, memory_order_release);
  }
  atomic_store_explicit(&line->looks, NULL, memory_order_release);
  return found;
}

static bool take(mpx_worker *worker) {
  for (unsigned i = 0; i < MPX_LANES; i++)
    if (take_from(worker, &worker->board->lanes[i]))
      return true;
  return false;
}

/* ---- being idle ------------------------------------------------------------------------------ */

static bool take_soon(mpx_worker *worker) {
  if (!mpx_os_may_spin())
    return false;
  for (int64_t end = mpx_os_now() + MPX_OS_SPIN_NS; mpx_os_now() < end;)
    for (int i = 0; i < 32; i++) {
      if (take(worker) || mpx_worker_must_go(worker))
        return true;
      mpx_os_pause();
    }
  return false;
}

static void idle(mpx_worker *worker) {
  mpx_board *board = worker->board;
  worker->now = 0;
  if (take_soon(worker))
    return;
  uint32_t seen = mpx_turn_prepare(&board->work);
  if (take(worker) || mpx_worker_must_go(worker))
    return;
  if (atomic_load_explicit(&worker->line->idle_since, memory_order_relaxed) == 0)
    atomic_store_explicit(&worker->line->idle_since, mpx_os_now(), memory_order_relaxed);
  if (atomic_load(&board->state) == MPX_POOL_CLOSING)
    mpx_board_call_supervisor(board); /* it may have been the last */
  (void)mpx_turn_sleep(&board->work, seen, MPX_NEVER);
}

/* A spare sleeps until it is told to work. */
static void wait_for_orders(mpx_worker *worker) {
  _Atomic uint32_t *order = &worker->line->order;
  while (atomic_load(order) == MPX_ORDER_WAIT)
    mpx_os_word_wait(order, MPX_ORDER_WAIT, mpx_os_now() + 100 * MPX_NS_PER_MS);
}

static void work(mpx_worker *worker) {
  wait_for_orders(worker);
  while (!mpx_worker_must_go(worker)) {
    mpx_worker_heed(worker);
    if (!take(worker))
      idle(worker);
  }
}

/* ---- coming and going ------------------------------------------------------------------------ */

static int resolve(mpx_worker *worker, uint32_t number, uintptr_t *ret_address) {
  return mpx_function_resolve(
      atomic_load_explicit(&worker->board->functions[number - 1], memory_order_acquire),
      ret_address);
}

static int initialize(mpx_worker *worker) {
  const mpx_pool_settings *settings = &worker->board->settings;
  uintptr_t address;
  if (!settings->initializer)
    return 0;
  int r = resolve(worker, settings->initializer, &address);
  if (r < 0)
    return r;
  void *arg = NULL;
  if (settings->initializer_size) {
    size_t size = (settings->initializer_size + 63) / 64 * 64;
    arg = aligned_alloc(64, size); /* the worker's for good */
    if (!arg)
      return mpx_fail_code(-ENOMEM, "the initializer's argument");
    memcpy(arg, settings->initializer_arg, settings->initializer_size);
  }
  return ((mproc_worker_initializer *)address)(arg, settings->initializer_size, &worker->state);
}

static void finish(mpx_worker *worker) {
  uintptr_t address;
  if (worker->board->settings.worker_exit &&
      resolve(worker, worker->board->settings.worker_exit, &address) == 0)
    ((mproc_worker_exit *)address)(worker->state);
}

static void limit_memory(const mpx_board *board, mpx_line *line) {
  uint64_t limit = board->settings.memory_limit, used = 0;
  if (limit && mpx_os_memory_use(mpx_os_pid(), &used) == 0)
    atomic_store(&line->memory_at_birth, used ? used : 1);
  /* the supervisor looks from time to time; this is for who grows faster than that */
  if (limit)
    (void)mpx_os_limit_memory(limit + limit / 4 + ((uint64_t)64 << 20));
}

int mpx_worker_main(void *arg, size_t size) {
  const mpx_worker_arg *given = arg;
  (void)size;
  mpx_supervisor_release_signals();
  mpx_line *line = &given->board->lines[given->number];
  mpx_member ticket = given->ticket;
  mpx_worker *worker = calloc(1, sizeof *worker);
  if (!worker || !atomic_compare_exchange_strong(&line->member, &ticket, mpx_family_self()))
    return 1; /* the second: who started us is dead, and the number is somebody else's */
  *worker = (mpx_worker){.board = given->board, .line = line, .number = given->number};
  worker->tasks_left = given->board->settings.tasks_per_worker > 0
                           ? (uint64_t)given->board->settings.tasks_per_worker
                           : UINT64_MAX;
  atomic_store(&line->pid, mpx_os_pid());
  atomic_store(&line->stage, MPX_WORKER_STARTED);
  MPROC_CRASH_POINT("pool.worker.started");
  limit_memory(given->board, line);
  int r = initialize(worker);
  if (r != 0) {
    atomic_store(&line->code, r);
    atomic_store(&line->stage, MPX_WORKER_FAILED);
    return 1;
  }
  atomic_store(&line->stage, MPX_WORKER_READY);
  MPROC_CRASH_POINT("pool.worker.ready");
  mpx_board_call_supervisor(given->board);
  work(worker);
  MPROC_CRASH_POINT("pool.worker.leaves");
  finish(worker);
  atomic_store(&line->stage, MPX_WORKER_LEFT);
  return 0;
}
