/* Waiting for the pool, and taking note of what is over. */
#include "base/error.h"
#include "pool/host.h"

#include <errno.h>
#include <string.h>

/* ---- what is over ---------------------------------------------------------------------------- */

static void reverse_failures(mproc_future *future) {
  mpx_failure *reversed = NULL;
  for (mpx_failure *failure = atomic_load(&future->map->failures); failure;) {
    mpx_failure *next = failure->next;
    failure->next = reversed;
    reversed = failure;
    failure = next;
    future->failure_count++;
  }
  atomic_store(&future->map->failures, reversed);
}

/* By what the future has to say, so that no death counts twice. */
static void count(mproc_pool *pool, mproc_future *future, bool has_failed) {
  uint64_t left = 0;
  if (has_failed) /* a map as a whole: none of the rest was run */
    left = future->map ? mpx_map_unfinished(pool->board, future->map, 0, NULL) : 1;
  const mpx_failure *whole = atomic_load(&future->job->failure);
  bool is_cancelled = left && whole && whole->cause == MPROC_CAUSE_CANCELLED;
  pool->cancelled += is_cancelled ? left : 0;
  pool->failed += future->failure_count + (is_cancelled ? 0 : left);
  future->failure_count += left;
  pool->done += (future->map ? future->map->count : 1) - future->failure_count;
}

static void settle_map(mproc_future *future) {
  reverse_failures(future);
  future->failure_count += atomic_load(&future->map->nameless);
  if (future->copy_to && future->copy_size && !future->is_abandoned)
    memcpy(future->copy_to, future->map->outputs, future->copy_size);
}

static void settle(mproc_pool *pool, mpx_job *job) {
  mproc_future *future = pool->by_number[job->number];
  if (!future || future->is_over)
    return;
  uint64_t word = atomic_load_explicit(&job->word, memory_order_acquire);
  if (!mpx_word_is_over(word))
    return;
  if (future->map)
    settle_map(future);
  count(pool, future, mpx_word_state(word) == MPX_JOB_FAILED);
  future->has_failed = future->failure_count > 0;
  future->is_over = true;
  pool->under_way--;
  if (future->has_timeout)
    atomic_fetch_sub(&pool->board->timed, 1);
  if (future->arrivals)
    mpx_list_append(future->arrivals, &future->arrival);
  if (future->options.done || (future->has_failed && future->options.error)) {
    future->in_callback = true;
    mpx_list_append(&pool->ready, &future->ready);
  } else if (future->is_abandoned) {
    mpx_future_release(pool, future);
  }
}

static void settle_done(mproc_pool *pool) {
  mpx_job *job = atomic_exchange(&pool->board->done, NULL), *first = NULL;
  while (job) { /* the other way round: as they came */
    mpx_job *next = atomic_load_explicit(&job->next, memory_order_relaxed);
    atomic_store_explicit(&job->next, first, memory_order_relaxed);
    first = job;
    job = next;
  }
  while (first) {
    mpx_job *next = atomic_load_explicit(&first->next, memory_order_relaxed);
    settle(pool, first);
    first = next;
  }
}

static bool is_unsettled(const mproc_pool *pool, const mpx_job *job) {
  const mproc_future *future = pool->by_number[job->number];
  return future && !future->is_over && mpx_word_is_over(atomic_load(&job->word));
}

/* Who died between a job's end and the stack has left it in none. What is over and in nobody's
 * hands is on the stack, if ever: so what is still unsettled when the stack was emptied after that
 * is lost. */
static void look_for_lost(mproc_pool *pool) {
  bool is_left = false;
  for (mpx_job_chunk *chunk = atomic_load(&pool->board->chunks); chunk; chunk = chunk->next)
    for (int i = 0; i < MPX_POOL_CHUNK; i++) {
      mpx_job *job = &chunk->jobs[i];
      mproc_future *future = pool->by_number[job->number];
      if (future)
        future->is_suspect = is_unsettled(pool, job) && !mpx_future_is_in_line(pool, future);
      is_left = is_left || (future && is_unsettled(pool, job) && !future->is_suspect);
    }
  settle_done(pool);
  for (mpx_job_chunk *chunk = atomic_load(&pool->board->chunks); chunk; chunk = chunk->next)
    for (int i = 0; i < MPX_POOL_CHUNK; i++) {
      mpx_job *job = &chunk->jobs[i];
      if (is_unsettled(pool, job) && pool->by_number[job->number]->is_suspect)
        settle(pool, job);
    }
  if (is_left) /* the next time again */
    pool->deaths_seen--;
}

void mpx_pool_settle(mproc_pool *pool) {
  uint64_t deaths = atomic_load(&pool->board->deaths);
  if (atomic_load_explicit(&pool->board->done, memory_order_relaxed))
    settle_done(pool);
  if (deaths != pool->deaths_seen) {
    pool->deaths_seen = deaths;
    look_for_lost(pool);
  }
  if (pool->retired.next != &pool->retired)
    mpx_pool_retire(pool);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static bool has_news(const mproc_pool *pool) {
  return atomic_load_explicit(&pool->board->done, memory_order_relaxed) != NULL;
}

static bool spin(const mproc_pool *pool) {
  if (!mpx_os_may_spin())
    return false;
  for (int64_t end = mpx_os_now() + MPX_OS_SPIN_NS; mpx_os_now() < end;)
    for (int i = 0; i < 32; i++) {
      if (has_news(pool))
        return true;
      mpx_os_pause();
    }
  return false;
}

/* 1: it holds. */
static int look(mproc_pool *pool, mpx_pool_condition *holds, void *user, bool is_time_to_look) {
  int r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  int64_t now = mpx_os_now_coarse();
  if (is_time_to_look || now - pool->looked_at >= MPX_LOOK_NS) {
    pool->looked_at = now; /* many short waits are as good as a long one */
    mpx_pool_revive(pool);
  }
  mpx_pool_settle(pool);
  bool has_callbacks = pool->ready.next != &pool->ready;
  r = holds(pool, user);
  mpx_pool_leave(pool);
  if (!has_callbacks || mpx_pool_run_callbacks(pool) == 0 || r != 0 || mpx_pool_enter(pool) < 0)
    return r;
  r = holds(pool, user); /* by what they did */
  mpx_pool_leave(pool);
  return r;
}

int mpx_pool_await(mproc_pool *pool, mpx_pool_condition *holds, void *user, int timeout_ms,
                   const char *what) {
  int r = mpx_timeout_check(timeout_ms);
  if (r < 0)
    return r;
  int64_t deadline = mpx_deadline_or_try(timeout_ms);
  for (;;) {
    mpx_turn *turn = &pool->board->results.turn;
    r = look(pool, holds, user, deadline == 0);
    if (r != 0)
      return r < 0 ? r : 0;
    if (deadline == 0 || mpx_remaining(deadline, mpx_os_now()) == 0)
      return mpx_timeout_fail(timeout_ms, what);
    if (spin(pool))
      continue;
    uint32_t seen = mpx_turn_prepare(turn);
    r = look(pool, holds, user, false);
    if (r != 0)
      return r < 0 ? r : 0;
    if (!mpx_turn_sleep(turn, seen, deadline))
      return mpx_timeout_fail(timeout_ms, what);
  }
}

int mproc_pool_dispatch(mproc_pool *pool) {
  int r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  if (pool->bell_entry) { /* what comes from here on rings again */
    mpx_os_bell_hush(&pool->bell.os);
    mpx_notice_prepare(&pool->board->results);
  }
  mpx_pool_revive(pool);
  mpx_pool_settle(pool);
  mpx_pool_leave(pool);
  return mpx_pool_run_callbacks(pool);
}

int mproc_pool_handle(mproc_pool *pool, mproc_handle *ret_handle) {
  enum { LOOK_NS = 100 * MPX_NS_PER_MS };
  mpx_thread self;
  int r = mpx_check_not_null(ret_handle, "ret_handle");
  if (r < 0 || (r = mpx_pool_enter(pool)) < 0)
    return r;
  if (!pool->bell_entry) {
    r = mpx_bell_open(&pool->bell, LOOK_NS);
    if (r < 0)
      r = mpx_fail(r, "no handle for pool '%s': %s%s", pool->name, mproc_strerror(r),
                   mpx_os_limit_text(r));
    else if ((r = mpx_family_thread(&self)) < 0 ||
             (r = mpx_notice_listen(&pool->board->results, self,
                                    mpx_notice_process(mpx_family_self()), pool->bell.os.name,
                                    &pool->bell_entry)) < 0)
      mpx_bell_close(&pool->bell);
    mpx_notice_prepare(&pool->board->results);
  }
  if (r == 0)
    *ret_handle = pool->bell.os.handle;
  mpx_pool_leave(pool);
  return r;
}
