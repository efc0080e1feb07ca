/* Pools: queues that are full, callbacks that go on and on, what is cancelled or goes away in
 * between. */
#include "pools.h"

#include <errno.h>
#include <pthread.h>

enum { SHORT_MS = 100 };

static mproc_pool *full_pool(size_t limit, mproc_overflow overflow) {
  return pool_with(&(mproc_pool_options){
      .method = "fork", .workers = 1, .queue_limit = limit, .overflow = overflow});
}

/* ---- queues ---------------------------------------------------------------------------------- */

/* What was cancelled is in the queue until its turn comes; who must not wait is told so. */
TEST(queue_full_of_the_cancelled) {
  enum { LIMIT = 64 };
  board *b = new_board();
  mproc_pool *pool = full_pool(LIMIT, MPROC_OVERFLOW_FAIL);
  mproc_future *running = submit_hold(pool, b, 1, 0), *waiting, *late;
  AWAIT(b->begun == 1);
  waiting = submit_hold(pool, b, 2, 0);
  for (int i = 0; i < LIMIT - 1; i++) {
    mproc_future *future = submit(pool, do_nothing, NULL, 0, NULL);
    CHECK_EQ(mproc_future_cancel(future), 0);
    check_cancelled(future);
  }
  CHECK_EQ(mproc_pool_apply_async(pool, do_nothing, NULL, 0, &late, NULL), -EAGAIN);
  open_gate(b, 0);
  CHECK_EQ(number_when_done(running), 1);
  CHECK_EQ(number_when_done(waiting), 2);
  AWAIT(mproc_pool_apply_async(pool, do_nothing, NULL, 0, &late, NULL) == 0);
  CHECK_EQ(mproc_future_wait(late, JOIN_MS), 0);
  mproc_future_destroy(late);
  end_pool(pool);
  free_board(b);
}

/* The only worker is in another task: what waits for its second attempt behind that is over when it
 * is cancelled, and not when its turn would have come. */
TEST(retry_that_waits_for_a_worker_is_cancelled) {
  static const int code = -7;
  const mproc_submit_options again = {.retries = 5, .retry_delay_ms = 50};
  board *b = new_board();
  mproc_pool *pool = pool_of("fork", 1);
  mproc_future *failing = submit(pool, fail_with, &code, sizeof code, &again);
  AWAIT(stats_of(pool).retried == 1);
  mproc_future *running = submit_hold(pool, b, 1, 0);
  AWAIT(b->begun == 1);
  int64_t since = now_ms();
  AWAIT(now_ms() - since > 200); /* its time has come */
  CHECK_EQ(mproc_future_cancel(failing), 0);
  check_cancelled(failing);
  CHECK_EQ(b->over, 0);
  open_gate(b, 0);
  CHECK_EQ(number_when_done(running), 1);
  CHECK_EQ(stats_of(pool).cancelled, 1);
  end_pool(pool);
  free_board(b);
}

static int pause_ms(mproc_task *task, const void *input, size_t size) {
  CHECK_EQ(size, sizeof(int));
  sleep_ms(*(const int *)input);
  return return_pid(task, NULL, 0);
}

/* It was idle before, and for less than that. */
TEST(busy_worker_is_not_idle_for_long) {
  const int while_ms = 900;
  int64_t pid;
  mproc_pool *pool =
      pool_with(&(mproc_pool_options){.method = "fork", .workers = 1, .idle_timeout_ms = 600});
  int64_t first = pid_of_worker(pool);
  sleep_ms(100);
  CHECK_EQ(
      mproc_pool_apply(pool, pause_ms, &while_ms, sizeof while_ms, &pid, sizeof pid, NULL, NULL),
      0);
  CHECK_EQ(pid, first);
  CHECK_EQ(pid_of_worker(pool), first);
  end_pool(pool);
}

/* ---- imap ------------------------------------------------------------------------------------ */

typedef struct row {
  int64_t next, count;
  board *b;
  job current;
} row;

static int next_of_row(void *user, mproc_bytes *ret_input) {
  row *r = user;
  if (r->next == r->count)
    return 0;
  r->current = (job){r->b, r->next++, 0};
  *ret_input = (mproc_bytes){.data = &r->current, .size = sizeof r->current};
  return 1;
}

static int tell_number(mproc_task *task, const void *input, size_t size) {
  const job *own = input;
  CHECK_EQ(size, sizeof *own);
  return mproc_task_result(task, &own->number, sizeof own->number);
}

/* There is less room than it would like to look ahead. */
static void check_all_come(mproc_overflow overflow) {
  enum { COUNT = 40 };
  const mproc_submit_options ahead = {.look_ahead = 16};
  row r = {.count = COUNT};
  mproc_imap *imap;
  mproc_bytes result;
  uint64_t index = 0;
  mproc_pool *pool = full_pool(3, overflow);
  CHECK_EQ(mproc_pool_imap(pool, tell_number, next_of_row, &r, &imap, &ahead), 0);
  for (int64_t i = 0; i < COUNT; i++) {
    CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 1);
    CHECK_EQ(index, i);
    CHECK_EQ(memcmp(result.data, &i, sizeof i), 0);
  }
  CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 0);
  mproc_imap_destroy(imap);
  end_pool(pool);
}

TEST(imap_loses_no_input_in_a_small_pool) {
  check_all_come(MPROC_OVERFLOW_FAIL);
  check_all_come(MPROC_OVERFLOW_BLOCK);
}

/* Others have all the room. */
TEST(imap_waits_for_room_as_long_as_it_may) {
  row r = {.count = 2};
  mproc_imap *imap;
  mproc_bytes result;
  uint64_t index;
  board *b = new_board();
  mproc_pool *pool = full_pool(1, MPROC_OVERFLOW_BLOCK);
  CHECK_EQ(mproc_pool_imap(pool, tell_number, next_of_row, &r, &imap, NULL), 0);
  mproc_future *running = submit_hold(pool, b, 1, 0);
  AWAIT(b->begun == 1);
  CHECK_EQ(mproc_imap_next(imap, &result, &index, 0), -EAGAIN);
  CHECK_EQ(mproc_imap_next(imap, &result, &index, SHORT_MS), -ETIMEDOUT);
  open_gate(b, 0);
  CHECK_EQ(number_when_done(running), 1);
  for (uint64_t i = 0; i < 2; i++) {
    CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 1);
    CHECK_EQ(index, i);
  }
  CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 0);
  mproc_imap_destroy(imap);
  end_pool(pool);
  free_board(b);
}

/* What it gave to the pool before is told first. */
TEST(imap_of_a_closed_pool) {
  const mproc_submit_options ahead = {.look_ahead = 2};
  row r = {.count = 9};
  mproc_imap *imap;
  mproc_bytes result;
  mproc_pool *pool = pool_of("fork", 1);
  CHECK_EQ(mproc_pool_imap(pool, tell_number, next_of_row, &r, &imap, &ahead), 0);
  CHECK_EQ(mproc_imap_next(imap, &result, NULL, JOIN_MS), 1);
  CHECK_EQ(mproc_pool_close(pool), 0);
  CHECK_EQ(mproc_imap_next(imap, &result, NULL, JOIN_MS), 1);
  CHECK_EQ(mproc_imap_next(imap, &result, NULL, JOIN_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_pool_destroy(pool), 0);
  CHECK_EQ(mproc_imap_next(imap, &result, NULL, JOIN_MS), MPROC_ECLOSED);
  mproc_imap_destroy(imap);
}

/* ---- callbacks ------------------------------------------------------------------------------- */

typedef struct wheel {
  mproc_pool *pool;
  _Atomic int turns;
  _Atomic bool stops;
} wheel;

static void turn(mproc_future *future, void *user) {
  wheel *w = user;
  const mproc_submit_options again = {.done = turn, .user = w};
  (void)future;
  w->turns++;
  if (!w->stops)
    CHECK_EQ(mproc_pool_apply_async(w->pool, do_nothing, NULL, 0, NULL, &again), 0);
}

/* Each brings the next one, which is over by the time it is looked for. */
TEST(callbacks_that_submit_keep_nobody) {
  board *b = new_board();
  wheel w = {.pool = pool_of("fork", 2)};
  mproc_future *held = submit_hold(w.pool, b, 1, 0);
  for (int i = 0; i < 8; i++)
    turn(NULL, &w);
  CHECK_EQ(mproc_future_wait(held, SHORT_MS), -ETIMEDOUT);
  CHECK(w.turns > 8);
  int64_t since = now_ms();
  while (now_ms() - since < SHORT_MS)
    CHECK(mproc_pool_dispatch(w.pool) <= 8);
  w.stops = true;
  open_gate(b, 0);
  CHECK_EQ(number_when_done(held), 1);
  end_pool(w.pool);
  free_board(b);
}

typedef struct watcher {
  mproc_future *future;
  _Atomic bool is_in, is_out;
} watcher;

static void linger(mproc_future *future, void *user) {
  watcher *w = user;
  (void)future;
  w->is_in = true;
  sleep_ms(200);
  w->is_out = true;
}

static void *wait_for_it(void *arg) {
  watcher *w = arg;
  CHECK_EQ(mproc_future_wait(w->future, JOIN_MS), 0);
  AWAIT(false); /* here it ends */
  return NULL;
}

TEST(thread_is_not_cancelled_in_a_callback) {
  if (UNDER_SANITIZER && !TEST_HAS_TSAN)
    SKIP("AddressSanitizer takes the stack of a cancelled thread for that of a scope it left");
  watcher w = {0}, other = {0};
  pthread_t thread;
  void *result;
  mproc_pool *pool = pool_of("fork", 1);
  w.future = submit(pool, do_nothing, NULL, 0, &(mproc_submit_options){.done = linger, .user = &w});
  CHECK_EQ(pthread_create(&thread, NULL, wait_for_it, &w), 0);
  AWAIT(w.is_in);
  CHECK_EQ(pthread_cancel(thread), 0);
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK(result == PTHREAD_CANCELED);
  CHECK(w.is_out);
  other.future =
      submit(pool, do_nothing, NULL, 0, &(mproc_submit_options){.done = linger, .user = &other});
  CHECK_EQ(mproc_future_wait(other.future, JOIN_MS), 0);
  CHECK(other.is_out);
  mproc_future_destroy(w.future);
  mproc_future_destroy(other.future);
  end_pool(pool);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void *wait_and_wait(void *arg) {
  mproc_pool *pool = arg;
  while (mproc_pool_apply(pool, do_nothing, NULL, 0, NULL, 0, NULL, NULL) == 0)
    continue;
  return NULL;
}

/* Other threads are in it all the time, and nobody destroys it. */
EACH_METHOD(program_ends_while_threads_wait) {
  enum { THREADS = 3 };
  pthread_t thread;
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < THREADS; i++) {
    CHECK_EQ(pthread_create(&thread, NULL, wait_and_wait, pool), 0);
    CHECK_EQ(pthread_detach(thread), 0);
  }
  AWAIT(stats_of(pool).done > 100);
  exit(EXIT_SUCCESS);
}
