#include "base/error.h"
#include "pool/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int enter(mproc_future *future) {
  int r = mpx_check_not_null(future, "future");
  if (r < 0)
    return r;
  return future->pool ? mpx_pool_enter(future->pool)
                      : mpx_fail(MPROC_ECLOSED, "the future's pool was destroyed");
}

static int fail_not_over(void) {
  return mpx_fail(-EAGAIN, "the task is not over; wait for it first");
}

/* ---- failures -------------------------------------------------------------------------------- */

static const mpx_failure *find_failure(mproc_future *future, uint64_t number, uint64_t *ret_at) {
  const mpx_failure *whole = atomic_load(&future->job->failure);
  *ret_at = 0;
  if (!future->map)
    return number == 0 ? whole : NULL;
  const mpx_failure *failure = atomic_load(&future->map->failures);
  uint64_t at = 0;
  if (future->told && future->told_number <= number) {
    failure = future->told;
    at = future->told_number;
  }
  for (; failure && at < number; at++)
    failure = failure->next;
  if (failure) {
    future->told = failure;
    future->told_number = number;
    return failure;
  }
  *ret_at = number - at;
  return whole ? whole : &future->pool->board->nameless;
}

/* Those of the inputs, in order; then what is wrong with the whole, for each that was not run. */
static void show_failure(mproc_future *future, uint64_t number, mproc_failure *ret_failure) {
  uint64_t at, index;
  const mpx_failure *failure = find_failure(future, number, &at);
  mpx_failure_show(failure, ret_failure);
  if (future->map && failure == atomic_load(&future->job->failure) &&
      mpx_map_unfinished(future->pool->board, future->map, at, &index) > at)
    ret_failure->index = index + future->map->base;
}

int mproc_future_failure(mproc_future *future, uint64_t number, mproc_failure *ret_failure) {
  int r = mpx_check_not_null(ret_failure, "ret_failure");
  if (r < 0 || (r = enter(future)) < 0)
    return r;
  if (!future->is_over)
    r = fail_not_over();
  else if (number >= future->failure_count)
    r = mpx_fail(-ENOENT, "%llu failures, and none of number %llu",
                 (unsigned long long)future->failure_count, (unsigned long long)number);
  else
    show_failure(future, number, ret_failure);
  mpx_pool_leave(future->pool);
  return r;
}

int64_t mproc_future_failures(mproc_future *future) {
  int r = enter(future);
  if (r < 0)
    return r;
  int64_t count = future->is_over ? (int64_t)future->failure_count : fail_not_over();
  mpx_pool_leave(future->pool);
  return count;
}

/* Locked. */
static int say_failed(mproc_future *future) {
  char how[MPX_POOL_TEXT];
  mproc_failure failure;
  show_failure(future, 0, &failure);
  (void)mproc_strfailure(&failure, how, sizeof how);
  if (!future->map)
    return mpx_fail(MPROC_ETASK, "the task failed: %s", how);
  return mpx_fail(MPROC_ETASK, "%llu of %llu inputs failed; number %llu: %s",
                  (unsigned long long)future->failure_count, (unsigned long long)future->map->count,
                  (unsigned long long)failure.index, how);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static bool is_over(mproc_pool *pool, void *user) {
  const mproc_future *future = user;
  (void)pool;
  return future->is_over;
}

/* In steps, so that progress is told in between. */
static int await(mproc_future *future, int timeout_ms) {
  enum { STEP_MS = 100 };
  int64_t deadline = mpx_deadline(mpx_os_now(), timeout_ms);
  for (;;) {
    int left = mpx_poll_ms(mpx_remaining(deadline, mpx_os_now()));
    bool is_step = future->options.progress && (left < 0 || left > STEP_MS);
    int r =
        mpx_pool_await(future->pool, is_over, future, is_step ? STEP_MS : left, "the task to end");
    mpx_progress_tell(future, r == 0);
    if (r == 0 || !is_step)
      return r == -EAGAIN && timeout_ms != 0 ? mpx_timeout_fail(timeout_ms, "the task to end") : r;
    if (r != -ETIMEDOUT)
      return r;
  }
}

int mproc_future_wait(mproc_future *future, int timeout_ms) {
  int r = mpx_timeout_check(timeout_ms);
  if (r < 0 || (r = enter(future)) < 0)
    return r;
  mpx_pool_leave(future->pool);
  r = await(future, timeout_ms);
  if (r < 0 || (r = enter(future)) < 0)
    return r;
  if (future->has_failed)
    r = say_failed(future);
  mpx_pool_leave(future->pool);
  return r;
}

typedef struct several {
  mproc_future *const *futures;
  size_t count, found;
} several;

static bool any_is_over(mproc_pool *pool, void *user) {
  several *set = user;
  (void)pool;
  for (size_t i = 0; i < set->count; i++)
    if (set->futures[i]->is_over) {
      set->found = i;
      return true;
    }
  return false;
}

static bool all_are_over(mproc_pool *pool, void *user) {
  several *set = user;
  (void)pool;
  for (; set->found < set->count; set->found++)
    if (!set->futures[set->found]->is_over)
      return false;
  return true;
}

static int await_several(mproc_future *const *futures, size_t count, int timeout_ms,
                         mpx_pool_condition *holds, several *set) {
  int r = mpx_check_not_null(futures, "futures");
  if (r == 0 && count == 0)
    r = mpx_fail(-EINVAL, "no futures to wait for");
  for (size_t i = 0; r == 0 && i < count; i++) {
    r = mpx_check_not_null(futures[i], "futures[i]");
    if (r == 0 && !futures[i]->pool)
      r = mpx_fail(MPROC_ECLOSED, "the pool of futures[%zu] was destroyed", i);
    if (r == 0 && futures[i]->pool != futures[0]->pool)
      r = mpx_fail(-EINVAL, "futures[%zu] is of another pool than the first", i);
  }
  if (r < 0)
    return r;
  *set = (several){.futures = futures, .count = count};
  return mpx_pool_await(futures[0]->pool, holds, set, timeout_ms, "the tasks to end");
}

int mproc_future_wait_any(mproc_future *const *futures, size_t count, int timeout_ms) {
  several set;
  int r = await_several(futures, count, timeout_ms, any_is_over, &set);
  return r < 0 ? r : (int)set.found;
}

int mproc_future_wait_all(mproc_future *const *futures, size_t count, int timeout_ms) {
  several set;
  return await_several(futures, count, timeout_ms, all_are_over, &set);
}

int mproc_future_is_done(mproc_future *future) {
  int r = enter(future);
  if (r < 0)
    return r;
  mpx_pool_revive(future->pool);
  mpx_pool_settle(future->pool);
  r = future->is_over;
  mpx_pool_leave(future->pool);
  return r;
}

/* ---- results --------------------------------------------------------------------------------- */

static int check_over(mproc_future *future) {
  mpx_pool_settle(future->pool);
  if (!future->is_over)
    return fail_not_over();
  return 0;
}

int mproc_future_result(mproc_future *future, mproc_bytes *ret_result) {
  int r = mpx_check_not_null(ret_result, "ret_result");
  if (r < 0 || (r = enter(future)) < 0)
    return r;
  const mpx_job *job = future->job;
  r = check_over(future);
  if (r == 0 && future->map)
    r = mpx_fail(-EINVAL, "the future is a map's: its results are the outputs, or those of "
                          "mproc_future_result_at()");
  else if (r == 0 && future->has_failed)
    r = say_failed(future);
  else if (r == 0)
    *ret_result =
        (mproc_bytes){.data = job->result_size ? job->result : NULL, .size = job->result_size};
  mpx_pool_leave(future->pool);
  return r;
}

static int fail_input(mproc_future *future, uint64_t index) {
  char how[MPX_POOL_TEXT];
  mproc_failure shown;
  const mpx_failure *failure = atomic_load(&future->map->failures);
  while (failure && failure->index != index)
    failure = failure->next;
  if (!failure && !(failure = atomic_load(&future->job->failure)))
    return 0;
  mpx_failure_show(failure, &shown);
  return mpx_fail(MPROC_ETASK, "input %llu failed: %s", (unsigned long long)index,
                  mproc_strfailure(&shown, how, sizeof how));
}

int mproc_future_result_at(mproc_future *future, uint64_t index, mproc_bytes *ret_result) {
  int r = mpx_check_not_null(ret_result, "ret_result");
  if (r < 0 || (r = enter(future)) < 0)
    return r;
  const mpx_map *map = future->map;
  r = check_over(future);
  if (r == 0 && (!map || !map->results || index >= map->count))
    r = mpx_fail(-EINVAL, "there is no result %llu", (unsigned long long)index);
  if (r == 0 && future->has_failed && !map->results[index].data)
    r = fail_input(future, index);
  if (r == 0)
    *ret_result = (mproc_bytes){.data = map->results[index].size ? map->results[index].data : NULL,
                                .size = map->results[index].size};
  mpx_pool_leave(future->pool);
  return r;
}

int mproc_future_progress(mproc_future *future, uint64_t *ret_finished, uint64_t *ret_count) {
  int r = enter(future);
  if (r < 0)
    return r;
  uint64_t count = future->map ? future->map->count : 1;
  uint64_t finished = future->is_over ? count : 0;
  if (!future->is_over && future->map)
    finished = mpx_map_finished(future->pool->board, future->map);
  if (ret_finished)
    *ret_finished = finished;
  if (ret_count)
    *ret_count = count;
  mpx_pool_leave(future->pool);
  return 0;
}

/* ---- cancelling ------------------------------------------------------------------------------ */

/* What waits in a lane is over at once; the rest is its worker's, or the supervisor's, who may have
 * it in a list. */
void mpx_future_cancel_locked(mproc_pool *pool, mproc_future *future) {
  mpx_board *board = pool->board;
  mpx_job *job = future->job;
  uint64_t word = atomic_load(&job->word);
  if (future->is_over || mpx_word_is_over(word))
    return;
  atomic_store(&job->cancelled, 1);
  if (!future->map && mpx_word_state(word) == MPX_JOB_QUEUED) {
    uint64_t ours = mpx_word_with(word, MPX_JOB_RUNNING, MPX_NOBODY); /* no worker takes it now */
    if (atomic_compare_exchange_strong(&job->word, &word, ours)) {
      mpx_job_cancel(board, job, ours, MPX_NOBODY);
      return;
    }
  }
  atomic_fetch_add(&board->maps_changed, 1);
  mpx_board_call_supervisor(board);
}

int mproc_future_cancel(mproc_future *future) {
  int r = enter(future);
  if (r < 0)
    return r;
  mpx_future_cancel_locked(future->pool, future);
  mpx_pool_settle(future->pool);
  mpx_pool_leave(future->pool);
  return 0;
}

/* What is over goes now; else when it is, and its callbacks, which are not for it any more. */
static void drop(mproc_pool *pool, mproc_future *future) {
  mpx_pool_settle(pool);
  if (future->is_over && !future->in_callback) {
    mpx_future_release(pool, future);
    return;
  }
  future->is_abandoned = true;
  if (!future->is_over)
    future->options = (mproc_submit_options){0};
  mpx_future_cancel_locked(pool, future);
}

void mproc_future_destroy(mproc_future *future) {
  if (!future)
    return;
  mproc_pool *pool = future->pool;
  if (!pool || mpx_pool_enter(pool) < 0) {
    if (!pool)
      free(future);
    return;
  }
  drop(pool, future);
  mpx_pool_leave(pool);
}

/* Of an imap that goes: nobody waits for it any more. */
void mpx_future_leave_imap(mproc_future *future) {
  if (future && future->pool && mpx_pool_enter(future->pool) == 0) {
    mproc_pool *pool = future->pool;
    future->arrivals = NULL;
    mpx_list_remove(&future->arrival);
    mpx_pool_leave(pool);
  }
  mproc_future_destroy(future);
}
