/* Giving tasks to the pool. */
#include "base/assert.h"
#include "base/error.h"
#include "os/crash_point.h"
#include "pool/host.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* ---- options --------------------------------------------------------------------------------- */

static int choose(int given, int usual) {
  return given == 0 ? usual : given < 0 ? 0 : given;
}

static int check_fields(const mproc_submit_options *options) {
  if (options->timeout_ms < -1 || options->retries < -1 || options->retry_delay_ms < -1)
    return mpx_fail(-EINVAL, "mproc_submit_options.%s is below -1",
                    options->timeout_ms < -1 ? "timeout_ms"
                    : options->retries < -1  ? "retries"
                                             : "retry_delay_ms");
  if (options->priority < -1 || options->priority > 1)
    return mpx_fail(-EINVAL, "mproc_submit_options.priority is %d; -1, 0 and 1 are possible",
                    options->priority);
  return mpx_check_reserved(options->reserved, "mproc_submit_options");
}

int mpx_submit_take_options(const mproc_pool *pool, const mproc_submit_options *options,
                            mproc_submit_options *ret_options) {
  static const mproc_submit_options none;
  const mproc_submit_options *usual = pool ? &pool->defaults : &none;
  if (!options)
    options = &none;
  int r = check_fields(options);
  if (r < 0)
    return r;
  mproc_submit_options taken = *options;
  taken.timeout_ms = choose(options->timeout_ms, usual->timeout_ms);
  taken.retries = choose(options->retries, usual->retries);
  taken.retry_delay_ms = choose(options->retry_delay_ms, usual->retry_delay_ms);
  taken.priority = options->priority ? options->priority : usual->priority;
  taken.group = options->group ? options->group : usual->group;
  taken.guarded = options->guarded ? options->guarded > 0 : usual->guarded;
  *ret_options = taken;
  return 0;
}

/* ---- jobs ------------------------------------------------------------------------------------ */

static int add_chunk(mproc_pool *pool) {
  void *block;
  mproc_future **bigger =
      realloc(pool->by_number, (pool->job_count + MPX_POOL_CHUNK) * sizeof(mproc_future *));
  if (!bigger)
    return mpx_fail_code(-ENOMEM, "submitting");
  pool->by_number = bigger;
  int r = mpx_board_alloc(pool->board, sizeof(mpx_job_chunk), &block);
  if (r < 0)
    return r;
  mpx_job_chunk *chunk = memset(block, 0, sizeof *chunk);
  for (int i = MPX_POOL_CHUNK - 1; i >= 0; i--) {
    mpx_job *job = &chunk->jobs[i];
    job->number = pool->job_count + (uint32_t)i;
    pool->by_number[job->number] = NULL;
    atomic_store_explicit(&job->next, pool->free_jobs, memory_order_relaxed);
    pool->free_jobs = job;
  }
  pool->job_count += MPX_POOL_CHUNK;
  chunk->next = atomic_load(&pool->board->chunks);
  atomic_store(&pool->board->chunks, chunk);
  return 0;
}

static int take_job(mproc_pool *pool, mpx_job **ret_job) {
  int r = pool->free_jobs ? 0 : add_chunk(pool);
  if (r < 0)
    return r;
  mpx_job *job = pool->free_jobs;
  pool->free_jobs = atomic_load_explicit(&job->next, memory_order_relaxed);
  *ret_job = job;
  return 0;
}

/* What was cancelled is in its lane until its turn comes, in the worst case. */
bool mpx_submit_has_room(mproc_pool *pool, const mproc_submit_options *options) {
  return pool->under_way < pool->queue_limit &&
         mpx_lane_has_room(&pool->board->lanes[mpx_lane_of(options->priority)]);
}

bool mpx_submit_is_time(mproc_pool *pool, void *user) {
  return mpx_submit_has_room(pool, user) || pool->is_closed ||
         atomic_load(&pool->board->state) != MPX_POOL_OPEN;
}

int mpx_submit_check_open(const mproc_pool *pool) {
  if (atomic_load(&pool->board->state) == MPX_POOL_BROKEN)
    return mpx_pool_say_broken(pool->board);
  return pool->is_closed
             ? mpx_fail(MPROC_ECLOSED, "pool '%s' was closed: it takes no more tasks", pool->name)
             : 0;
}

/* 1: the task is to be dropped. */
static int make_room(mproc_pool *pool, mproc_submit_options *options) {
  int r = mpx_submit_check_open(pool);
  if (r < 0 || mpx_submit_has_room(pool, options))
    return r;
  mpx_pool_settle(pool);
  if (mpx_submit_has_room(pool, options))
    return 0;
  if (pool->overflow == MPROC_OVERFLOW_FAIL)
    return mpx_fail(-EAGAIN, "%zu tasks are under way, the limit of pool '%s'", pool->under_way,
                    pool->name);
  if (pool->overflow == MPROC_OVERFLOW_DROP)
    return 1;
  while (r == 0 && !mpx_submit_has_room(pool, options)) {
    mpx_pool_leave(pool);
    r = mpx_pool_await(pool, mpx_submit_is_time, options, MPROC_FOREVER, "room");
    int entered = mpx_pool_enter(pool);
    r = entered < 0 ? entered : r < 0 ? r : mpx_submit_check_open(pool);
  }
  return r;
}

static void fill(mpx_job *job, const mproc_submit_options *options, uint32_t function) {
  job->function = function;
  job->kind = MPX_JOB_SINGLE;
  job->priority = (int16_t)options->priority;
  job->timeout_ms = options->timeout_ms;
  job->retries = options->retries;
  job->retry_delay_ms = options->retry_delay_ms;
  job->attempts = job->deaths = 0;
  job->was_again = 0;
  job->index = 0;
  job->map = NULL;
  job->input = NULL;
  job->size = 0;
  job->result = NULL;
  job->result_size = 0;
  atomic_store_explicit(&job->cancelled, 0, memory_order_relaxed);
  atomic_store_explicit(&job->failure, NULL, memory_order_relaxed);
}

static int make_future(mproc_pool *pool, const mproc_submit_options *options, uint32_t function,
                       mproc_future **ret_future) {
  mproc_future *future = calloc(1, sizeof *future);
  if (!future)
    return mpx_fail_code(-ENOMEM, "submitting");
  int r = take_job(pool, &future->job);
  if (r < 0) {
    free(future);
    return r;
  }
  future->pool = pool;
  future->options = *options;
  mpx_list_init(&future->ready);
  mpx_list_init(&future->arrival);
  mpx_list_append(&pool->futures, &future->link);
  pool->by_number[future->job->number] = future;
  fill(future->job, options, function);
  *ret_future = future;
  return 0;
}

static void drop(mproc_pool *pool, mproc_future *future) {
  const mpx_failure filled = {.cause = MPROC_CAUSE_CANCELLED,
                              .worker = -1,
                              .run_time_ns = -1,
                              .max_rss_bytes = -1,
                              .text = "dropped: too many tasks are under way"};
  mpx_board *board = pool->board;
  mpx_failure *failure = mpx_failure_make(board, &filled, NULL, 0);
  (void)mpx_job_end(board, future->job, atomic_load(&future->job->word),
                    failure ? failure : &board->nameless, MPX_NOBODY);
}

int mpx_submit_begin(mproc_pool *pool, uintptr_t function, mproc_submit_options *options,
                     mproc_future **ret_future) {
  uint32_t number;
  int r = make_room(pool, options);
  if (r < 0)
    return r;
  bool is_dropped = r > 0;
  mpx_pool_settle(pool); /* what is over makes room in the heap, too */
  r = mpx_pool_function(pool, function, &number);
  if (r == 0)
    r = make_future(pool, options, number, ret_future);
  if (r < 0)
    return r;
  pool->under_way++;
  if (is_dropped)
    drop(pool, *ret_future);
  return is_dropped;
}

void mpx_submit_undo(mproc_pool *pool, mproc_future *future) {
  pool->under_way--;
  mpx_future_release(pool, future);
}

void mpx_submit_end(mproc_pool *pool, mproc_future *future) {
  mpx_board *board = pool->board;
  mpx_job *job = future->job;
  uint64_t word = atomic_load_explicit(&job->word, memory_order_relaxed);
  job->submitted_at = mpx_os_now();
  if (job->timeout_ms > 0) {
    future->has_timeout = true;
    if (atomic_fetch_add(&board->timed, 1) == 0)
      mpx_board_call_supervisor(board);
  }
  /* release: what is in the job is written; a new sequence number */
  atomic_store_explicit(&job->word,
                        mpx_word_with(word + ((uint64_t)1 << 32), MPX_JOB_QUEUED, MPX_NOBODY),
                        memory_order_release);
  MPROC_CRASH_POINT("pool.submit.queued");
  int r = mpx_lane_put(board, mpx_lane_of(job->priority), job);
  mpx_assert(r == 0); /* there was room, and nobody but us puts there */
  (void)r;
  if (atomic_load(&board->is_short))
    mpx_board_call_supervisor(board);
}

void mpx_submit_hand_over(mproc_future *future, mproc_future **ret_future) {
  future->is_abandoned = !ret_future;
  if (ret_future)
    *ret_future = future;
}

/* ---- one task -------------------------------------------------------------------------------- */

bool mpx_is_in_heap(const void *memory) {
  const mpx_header *header = mpx_family_header();
  return memory && header && (uintptr_t)memory - (uintptr_t)header < header->size;
}

/* A NUL follows it. */
static int copy_input(mproc_pool *pool, mpx_job *job, const void *input, size_t size) {
  void *block = job->inside;
  int r = 0;
  if (size == 0)
    return 0;
  if (size > MPX_POOL_INSIDE)
    r = mpx_board_alloc(pool->board, size + 1, &block);
  if (r < 0)
    return r;
  memcpy(block, input, size);
  ((char *)block)[size] = '\0';
  job->input = block;
  job->size = size;
  return 0;
}

static int check_call(mproc_task_function *function, const void *input, size_t size) {
  if (!function)
    return mpx_fail(-EINVAL, "the function is NULL");
  return size && !input ? mpx_fail(-EINVAL, "the input is NULL, but its size is %zu", size) : 0;
}

int mpx_submit_one(mproc_pool *pool, mproc_task_function *function, const void *input, size_t size,
                   uint64_t index, mproc_submit_options *options, mproc_future **ret_future) {
  mproc_future *future;
  int r = mpx_submit_begin(pool, (uintptr_t)function, options, &future);
  if (r < 0)
    return r;
  future->job->index = index;
  bool is_dropped = r > 0;
  r = is_dropped ? 0 : copy_input(pool, future->job, input, size);
  if (r < 0) {
    mpx_submit_undo(pool, future);
    return r;
  }
  mpx_submit_hand_over(future, ret_future);
  if (!is_dropped)
    mpx_submit_end(pool, future);
  return 0;
}

int mproc_pool_apply_async(mproc_pool *pool, mproc_task_function *function, const void *input,
                           size_t size, mproc_future **ret_future,
                           const mproc_submit_options *options) {
  mproc_submit_options taken;
  int r = check_call(function, input, size);
  if (r < 0 || (r = mpx_pool_enter(pool)) < 0)
    return r;
  r = mpx_submit_take_options(pool, options, &taken);
  if (r == 0)
    r = mpx_submit_one(pool, function, input, size, 0, &taken, ret_future);
  mpx_pool_leave(pool);
  return r;
}

static int copy_result(mproc_future *future, void *result, size_t capacity, size_t *ret_size) {
  mproc_bytes bytes;
  int r = mproc_future_result(future, &bytes);
  if (r < 0)
    return r;
  if (ret_size)
    *ret_size = bytes.size;
  if (!result)
    return 0;
  if (bytes.size > capacity)
    return mpx_fail(-ENOBUFS, "the result has %zu bytes, there is room for %zu", bytes.size,
                    capacity);
  if (bytes.size)
    memcpy(result, bytes.data, bytes.size);
  return 0;
}

int mproc_pool_apply(mproc_pool *pool, mproc_task_function *function, const void *input,
                     size_t size, void *result, size_t capacity, size_t *ret_size,
                     const mproc_submit_options *options) {
  mproc_future *future;
  if (!result && capacity)
    return mpx_fail(-EINVAL, "result is NULL, but its capacity is %zu", capacity);
  int r = mproc_pool_apply_async(pool, function, input, size, &future, options);
  if (r < 0)
    return r;
  r = mproc_future_wait(future, MPROC_FOREVER);
  if (r == 0)
    r = copy_result(future, result, capacity, ret_size);
  mproc_future_destroy(future);
  return r;
}
