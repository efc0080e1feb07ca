/* What tests of pools share: pools, tasks, and a board in the heap that tasks are held and counted
 * by. */
#ifndef MPROC_TEST_POOLS_H
#define MPROC_TEST_POOLS_H

#include "harness.h"
#include "methods.h"
#include "processes.h"

#include <mproc/pool.h>

#include <stdatomic.h>

enum { GATES = 4, PLACES = 2048, PIDS = 64 };

/* In the shared heap. */
typedef struct board {
  mproc_event *gates[GATES];
  _Atomic int64_t begun, over;            /* tasks */
  _Atomic int64_t inside, most_inside;    /* of these at a time */
  _Atomic int64_t initialized, has_ended; /* workers, by initializer and worker_exit */
  _Atomic int64_t numbers[PLACES];        /* of the tasks, in the order in which they began */
  _Atomic int64_t pids[PIDS];             /* of their workers, in the same order */
} board;

/* The input of a task that uses a board. */
typedef struct job {
  board *b;
  int64_t number, gate;
} job;

static inline board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  for (int i = 0; i < GATES; i++)
    CHECK_EQ(mproc_event_create(&b->gates[i]), 0);
  return b;
}

/* Those who waited at a gate may just have been killed. */
static inline void free_board(board *b) {
  for (int i = 0; i < GATES; i++)
    AWAIT(mproc_event_destroy(b->gates[i]) == 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static inline void open_gate(board *b, int gate) {
  CHECK_EQ(mproc_event_set(b->gates[gate]), 0);
}

/* ---- pools ----------------------------------------------------------------------------------- */

static inline mproc_pool *pool_with(const mproc_pool_options *options) {
  mproc_pool *pool = NULL;
  CHECK_EQ(mproc_pool_create(&pool, options), 0);
  CHECK(pool != NULL);
  return pool;
}

static inline mproc_pool *pool_of(const char *method, int workers) {
  return pool_with(&(mproc_pool_options){.method = method, .workers = workers});
}

/* It ends by itself, with all its tasks done. */
static inline void end_pool(mproc_pool *pool) {
  CHECK_EQ(mproc_pool_close(pool), 0);
  CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  CHECK_EQ(mproc_pool_destroy(pool), 0);
}

static inline mproc_pool_statistics stats_of(mproc_pool *pool) {
  mproc_pool_statistics statistics;
  CHECK_EQ(mproc_pool_stats(pool, &statistics), 0);
  return statistics;
}

static inline mproc_worker_statistics worker_of(mproc_pool *pool, int number) {
  mproc_worker_statistics statistics;
  CHECK_EQ(mproc_pool_worker_stats(pool, number, &statistics), 0);
  return statistics;
}

/* 0: none right now, or there was never one. */
static inline int64_t pid_of(mproc_pool *pool, int number) {
  mproc_worker_statistics statistics;
  int r = mproc_pool_worker_stats(pool, number, &statistics);
  CHECK(r == 0 || r == -ENOENT);
  return r == 0 ? statistics.pid : 0;
}

/* ---- tasks ----------------------------------------------------------------------------------- */

static inline int echo(mproc_task *task, const void *input, size_t size) {
  return mproc_task_result(task, input, size);
}

static inline int do_nothing(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  return 0;
}

/* Fails with the code that is its input. */
static inline int fail_with(mproc_task *task, const void *input, size_t size) {
  CHECK_EQ(size, sizeof(int));
  return mproc_task_fail(task, *(const int *)input, "row %d of %s", 7, "the table");
}

static inline int return_pid(mproc_task *task, const void *input, size_t size) {
  const int64_t pid = getpid();
  (void)input, (void)size;
  return mproc_task_result(task, &pid, sizeof pid);
}

static inline void enter(board *b, int64_t number) {
  int64_t place = b->begun++, inside = ++b->inside, most = b->most_inside;
  while (inside > most && !atomic_compare_exchange_weak(&b->most_inside, &most, inside))
    continue;
  if (place < PLACES)
    b->numbers[place] = number;
  if (place < PIDS)
    b->pids[place] = getpid();
}

static inline void leave(board *b) {
  b->inside--;
  b->over++;
}

/* Waits for its gate; its number is its result. */
static inline int hold(mproc_task *task, const void *input, size_t size) {
  const job *own = input;
  CHECK_EQ(size, sizeof *own);
  enter(own->b, own->number);
  CHECK_EQ(mproc_event_wait(own->b->gates[own->gate], 4 * JOIN_MS), 0);
  leave(own->b);
  return mproc_task_output_size(task) ? 0
                                      : mproc_task_result(task, &own->number, sizeof own->number);
}

/* ---- submitting ------------------------------------------------------------------------------ */

static inline mproc_future *submit(mproc_pool *pool, mproc_task_function *function,
                                   const void *input, size_t size,
                                   const mproc_submit_options *options) {
  mproc_future *future = NULL;
  CHECK_EQ(mproc_pool_apply_async(pool, function, input, size, &future, options), 0);
  CHECK(future != NULL);
  return future;
}

static inline mproc_future *submit_hold(mproc_pool *pool, board *b, int64_t number, int gate) {
  const job own = {b, number, gate};
  return submit(pool, hold, &own, sizeof own, NULL);
}

/* The result is a number, or what else has this size. */
static inline int64_t number_of(mproc_future *future) {
  int64_t number;
  mproc_bytes result;
  CHECK_EQ(mproc_future_result(future, &result), 0);
  CHECK_EQ(result.size, sizeof number);
  memcpy(&number, result.data, sizeof number);
  return number;
}

static inline int64_t number_when_done(mproc_future *future) {
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  int64_t number = number_of(future);
  mproc_future_destroy(future);
  return number;
}

/* Of a future that is over and has one failure. */
static inline mproc_failure failure_of(mproc_future *future) {
  mproc_failure failure;
  CHECK_EQ(mproc_future_failures(future), 1);
  CHECK_EQ(mproc_future_failure(future, 0, &failure), 0);
  CHECK_EQ(mproc_future_failure(future, 1, &failure), -ENOENT);
  CHECK_EQ(mproc_future_failure(future, 0, &failure), 0);
  return failure;
}

static inline void check_cancelled(mproc_future *future) {
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  CHECK_EQ(failure_of(future).cause, MPROC_CAUSE_CANCELLED);
  mproc_future_destroy(future);
}

/* The pool does its work. */
static inline void check_works(mproc_pool *pool) {
  char result[8] = "";
  size_t size = 99;
  CHECK_EQ(mproc_pool_apply(pool, echo, "hello", 6, result, sizeof result, &size, NULL), 0);
  CHECK_EQ(size, 6);
  CHECK_STR(result, "hello");
}

static inline int64_t pid_of_worker(mproc_pool *pool) {
  int64_t pid = 0;
  CHECK_EQ(mproc_pool_apply(pool, return_pid, NULL, 0, &pid, sizeof pid, NULL, NULL), 0);
  CHECK(pid > 0 && pid != getpid());
  return pid;
}

#endif
