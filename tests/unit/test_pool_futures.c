/* Futures of a pool, waited for, cancelled and destroyed at any time; and imap, whose inputs are
 * asked for one by one. */
#include "each_method.h"
#include "harness.h"
#include "pools.h"

/* ---- waiting --------------------------------------------------------------------------------- */

EACH_METHOD(wait_any_and_all) {
  mproc_future *futures[3];
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 3);
  for (int i = 0; i < 3; i++)
    futures[i] = submit_hold(pool, b, 10 + i, i);
  CHECK_EQ(mproc_future_wait_any(futures, 3, 0), -EAGAIN);
  CHECK_EQ(mproc_future_wait_all(futures, 3, 0), -EAGAIN);
  CHECK_EQ(mproc_future_wait(futures[0], 0), -EAGAIN);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_future_wait_any(futures, 3, 40), -ETIMEDOUT);
  CHECK(now_ms() - begin >= 39);
  open_gate(b, 1);
  CHECK_EQ(mproc_future_wait_any(futures, 3, JOIN_MS), 1);
  CHECK_EQ(mproc_future_is_done(futures[1]), 1);
  CHECK_EQ(mproc_future_is_done(futures[0]) + mproc_future_is_done(futures[2]), 0);
  CHECK_EQ(mproc_future_wait_any(futures, 3, 0), 1);
  begin = now_ms();
  CHECK_EQ(mproc_future_wait_all(futures, 3, 40), -ETIMEDOUT);
  CHECK_EQ(mproc_future_wait(futures[2], 40), -ETIMEDOUT);
  CHECK(now_ms() - begin >= 79);
  open_gate(b, 2);
  CHECK_EQ(mproc_future_wait_any(futures + 2, 1, JOIN_MS), 0);
  CHECK_EQ(mproc_future_wait_all(futures + 1, 2, 0), 0);
  open_gate(b, 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_future_wait_all(futures, 3, JOIN_MS), 0);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(number_when_done(futures[i]), 10 + i);
  end_pool(pool);
  free_board(b);
}

TEST(waits_do_not_ask_for_success) {
  const int code = 1;
  uint64_t finished = 9, count = 9;
  mproc_pool *pool = pool_of("fork", 1);
  mproc_future *futures[2] = {submit(pool, fail_with, &code, sizeof code, NULL),
                              submit(pool, echo, "12345678", 8, NULL)};
  CHECK_EQ(mproc_future_wait_all(futures, 2, JOIN_MS), 0);
  CHECK_EQ(mproc_future_wait_any(futures, 1, 0), 0);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(mproc_future_wait(futures[i], 0), i ? 0 : MPROC_ETASK);
    CHECK_EQ(mproc_future_progress(futures[i], &finished, &count), 0);
    CHECK_EQ(finished, 1);
    CHECK_EQ(count, 1);
    CHECK_EQ(mproc_future_failures(futures[i]), 1 - i);
    CHECK_EQ(mproc_future_result(futures[i], &(mproc_bytes){0}), i ? 0 : MPROC_ETASK);
    mproc_future_destroy(futures[i]);
  }
  end_pool(pool);
}

TEST(bad_arguments) {
  mproc_pool *pool = pool_of("fork", 1);
  mproc_future *none[2] = {NULL, NULL}, *future = submit(pool, echo, "x", 1, NULL);
  mproc_bytes result;
  mproc_failure failure;
  CHECK_EQ(mproc_future_wait(NULL, 0), -EINVAL);
  CHECK_EQ(mproc_future_is_done(NULL), -EINVAL);
  CHECK_EQ(mproc_future_cancel(NULL), -EINVAL);
  CHECK_EQ(mproc_future_result(NULL, &result), -EINVAL);
  CHECK_EQ(mproc_future_result_at(NULL, 0, &result), -EINVAL);
  CHECK_EQ(mproc_future_failure(NULL, 0, &failure), -EINVAL);
  CHECK_EQ(mproc_future_failures(NULL), -EINVAL);
  CHECK_EQ(mproc_future_wait_any(none, 2, 0), -EINVAL);
  CHECK_EQ(mproc_future_wait_any(NULL, 1, 0), -EINVAL);
  CHECK_EQ(mproc_future_wait_any(&future, 0, 0), -EINVAL);
  CHECK_EQ(mproc_future_wait_all(&future, 0, 0), -EINVAL);
  CHECK_EQ(mproc_future_wait(future, -2), -EINVAL);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  CHECK_EQ(mproc_future_result(future, NULL), -EINVAL);
  CHECK_EQ(mproc_future_failure(future, 0, NULL), -EINVAL);
  CHECK_EQ(mproc_imap_next(NULL, &result, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_imap_failure(NULL, &failure), -EINVAL);
  mproc_future_destroy(NULL);
  mproc_imap_destroy(NULL);
  mproc_future_destroy(future);
  end_pool(pool);
}

TEST(not_over_yet) {
  uint64_t finished = 9, count = 9;
  mproc_bytes result;
  mproc_failure failure;
  board *b = new_board();
  mproc_pool *pool = pool_of("fork", 1);
  mproc_future *future = submit_hold(pool, b, 1, 0);
  AWAIT(b->begun == 1);
  CHECK_EQ(mproc_future_is_done(future), 0);
  CHECK_EQ(mproc_future_result(future, &result), -EAGAIN);
  CHECK_EQ(mproc_future_failure(future, 0, &failure), -EAGAIN);
  CHECK_EQ(mproc_future_progress(future, &finished, &count), 0);
  CHECK_EQ(finished, 0);
  CHECK_EQ(count, 1);
  open_gate(b, 0);
  CHECK_EQ(number_when_done(future), 1);
  end_pool(pool);
  free_board(b);
}

EACH_METHOD(results_stay_until_the_future_is_destroyed) {
  enum { KEPT = 40 };
  mproc_future *futures[KEPT];
  mproc_bytes results[KEPT];
  unsigned char bytes[KEPT * 50];
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < KEPT; i++) {
    memset(bytes, i, sizeof bytes);
    futures[i] = submit(pool, echo, bytes, (size_t)i * 50, NULL);
  }
  CHECK_EQ(mproc_future_wait_all(futures, KEPT, JOIN_MS), 0);
  for (int i = 0; i < KEPT; i++)
    CHECK_EQ(mproc_future_result(futures[i], &results[i]), 0);
  memset(bytes, 0xee, sizeof bytes);
  for (int i = 0; i < 5 * KEPT; i++)
    CHECK_EQ(mproc_pool_apply(pool, echo, bytes, (size_t)(i % KEPT) * 50, NULL, 0, NULL, NULL), 0);
  CHECK_EQ(mproc_pool_close(pool), 0);
  CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  for (int i = 0; i < KEPT; i++) {
    CHECK_EQ(results[i].size, i * 50);
    CHECK((results[i].data == NULL) == (i == 0));
    for (int k = 0; k < i * 50; k++)
      CHECK_EQ(((const unsigned char *)results[i].data)[k], i);
    mproc_future_destroy(futures[i]);
  }
  CHECK_EQ(mproc_pool_destroy(pool), 0);
}

/* ---- cancelled and destroyed ----------------------------------------------------------------- */

EACH_METHOD(cancelled_tasks) {
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 1);
  mproc_future *running = submit_hold(pool, b, 1, 0), *waiting = submit_hold(pool, b, 2, 0),
               *last = submit_hold(pool, b, 3, 1);
  AWAIT(b->begun == 1);
  int64_t pid = b->pids[0];
  CHECK_EQ(mproc_future_cancel(waiting), 0);
  check_cancelled(waiting);
  CHECK_EQ(mproc_future_is_done(running), 0);
  CHECK_EQ(mproc_future_cancel(running), 0);
  check_cancelled(running);
  AWAIT(b->begun == 2); /* another worker takes the last one */
  CHECK_EQ(b->numbers[1], 3);
  CHECK(b->pids[1] != pid);
  CHECK(gone_within(pid, 1000));
  open_gate(b, 1);
  CHECK_EQ(mproc_future_wait(last, JOIN_MS), 0);
  CHECK_EQ(mproc_future_cancel(last), 0); /* too late: it keeps its result */
  CHECK_EQ(number_when_done(last), 3);
  CHECK_EQ(stats_of(pool).cancelled, 2);
  CHECK_EQ(stats_of(pool).done, 1);
  end_pool(pool);
  free_board(b);
}

/* Looks by itself whether it is to end. */
static int end_when_cancelled(mproc_task *task, const void *input, size_t size) {
  const job *own = input;
  CHECK_EQ(size, sizeof *own);
  own->b->begun++;
  while (!mproc_task_is_cancelled(task))
    sleep_ms(1);
  own->b->over++;
  return 0;
}

/* It may be over by then. */
TEST(task_sees_that_it_is_cancelled) {
  board *b = new_board();
  const job own = {b, 0, 0};
  mproc_pool *pool = pool_of("fork", 1);
  mproc_future *future = submit(pool, end_when_cancelled, &own, sizeof own, NULL);
  AWAIT(b->begun == 1);
  CHECK_EQ(mproc_future_cancel(future), 0);
  int r = mproc_future_wait(future, JOIN_MS);
  CHECK(r == 0 || r == MPROC_ETASK);
  if (r == MPROC_ETASK)
    CHECK_EQ(failure_of(future).cause, MPROC_CAUSE_CANCELLED);
  mproc_future_destroy(future);
  CHECK_EQ(b->over, 1);
  check_works(pool);
  end_pool(pool);
  free_board(b);
}

static void on_never(mproc_future *future, void *user) {
  (void)future, (void)user;
  test_fail(__FILE__, __LINE__, "callback", "of a future that is gone");
}

EACH_METHOD(destroyed_before_it_is_over) {
  const mproc_submit_options silent = {.done = on_never, .error = on_never};
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 2);
  const job own = {b, 1, 0};
  const mproc_bytes inputs[20] = {{&own, sizeof own}, {&own, sizeof own}};
  mproc_future *map = NULL, *future = submit(pool, hold, &own, sizeof own, &silent);
  AWAIT(b->begun == 1);
  mproc_future_destroy(future);
  CHECK_EQ(mproc_pool_map_bytes(pool, hold, inputs, 2, &map, &silent), 0);
  AWAIT(b->begun >= 2);
  mproc_future_destroy(map);
  for (int i = 0; i < 20; i++)
    mproc_future_destroy(submit_hold(pool, b, 2, 0));
  check_works(pool);
  AWAIT(stats_of(pool).cancelled == 23 && stats_of(pool).running + stats_of(pool).queued == 0);
  CHECK_EQ(b->over, 0);
  CHECK_EQ(mproc_pool_dispatch(pool), 0);
  uint64_t used = heap_used();
  for (int i = 0; i < 200; i++)
    mproc_future_destroy(submit_hold(pool, b, 2, 0));
  AWAIT(stats_of(pool).cancelled == 223 && heap_used() <= used + 65536);
  end_pool(pool);
  free_board(b);
}

TEST(a_map_is_over_when_its_outputs_may_go) {
  enum { COUNT = 200 };
  board *b = new_board();
  mproc_pool *pool = pool_of("fork", 2);
  for (int round = 0; round < 10; round++) {
    job *inputs = malloc(COUNT * sizeof *inputs);
    int64_t *outputs = malloc(COUNT * sizeof *outputs);
    mproc_future *future = NULL;
    int64_t begun = b->begun;
    for (int i = 0; i < COUNT; i++)
      inputs[i] = (job){b, i, 0};
    CHECK_EQ(mproc_pool_map_async(pool, hold, inputs, sizeof *inputs, outputs, sizeof *outputs,
                                  COUNT, &future, NULL),
             0);
    free(inputs); /* was copied */
    if (round % 2)
      AWAIT(b->begun > begun);
    mproc_future_destroy(future);
    free(outputs);
    AWAIT(stats_of(pool).cancelled == (uint64_t)COUNT * (uint64_t)(round + 1));
  }
  check_works(pool);
  end_pool(pool);
  free_board(b);
}

/* ---- imap ------------------------------------------------------------------------------------ */

typedef struct source {
  int64_t asked, count; /* inputs */
  int64_t taken, ahead; /* results; how far the source may be ahead of them, 0: not looked at */
  int error;            /* that comes at last */
  pthread_t thread;
  board *b;
  job current; /* what is in it is copied before the next is asked for */
} source;

static int next_job(void *user, mproc_bytes *ret_input) {
  source *s = user;
  CHECK(pthread_equal(pthread_self(), s->thread));
  if (s->asked == s->count)
    return s->error;
  s->current = (job){s->b, s->asked++, 0};
  CHECK(s->ahead == 0 || s->asked <= s->taken + s->ahead + 1);
  *ret_input = (mproc_bytes){&s->current, sizeof s->current};
  return 1;
}

/* Results of all sizes. */
static int repeat_number(mproc_task *task, const void *input, size_t size) {
  const job *own = input;
  char bytes[4000];
  CHECK_EQ(size, sizeof *own);
  CHECK_EQ(mproc_task_index(task), own->number);
  memset(bytes, (int)own->number, sizeof bytes);
  return mproc_task_result(task, bytes, (size_t)own->number * 13 % sizeof bytes);
}

static mproc_imap *start_imap(mproc_pool *pool, mproc_task_function *function, source *s,
                              const mproc_submit_options *options) {
  mproc_imap *imap = NULL;
  s->thread = pthread_self();
  CHECK_EQ(mproc_pool_imap(pool, function, next_job, s, &imap, options), 0);
  CHECK(imap != NULL);
  CHECK_EQ(s->asked, 0); /* only in threads that call next */
  return imap;
}

static void check_repeated(mproc_bytes result, uint64_t index) {
  CHECK_EQ(result.size, index * 13 % 4000);
  CHECK((result.data == NULL) == (result.size == 0));
  for (size_t i = 0; i < result.size; i++)
    CHECK_EQ(((const unsigned char *)result.data)[i], index & 255);
}

EACH_METHOD(imap_in_order) {
  source s = {.count = 700, .ahead = 8}; /* four times the workers */
  mproc_bytes result;
  uint64_t index;
  mproc_pool *pool = pool_of(method, 2);
  mproc_imap *imap = start_imap(pool, repeat_number, &s, NULL);
  for (; s.taken < s.count; s.taken++) {
    CHECK_EQ(mproc_imap_next(imap, &result, s.taken % 2 ? &index : NULL, JOIN_MS), 1);
    check_repeated(result, (uint64_t)s.taken);
    CHECK(s.taken % 2 == 0 || index == (uint64_t)s.taken);
  }
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_imap_next(imap, &result, NULL, i ? 0 : JOIN_MS), 0);
  mproc_imap_destroy(imap);
  end_pool(pool);
}

EACH_METHOD(imap_as_they_come) {
  enum { COUNT = 500 };
  const mproc_submit_options options = {.unordered = 1, .look_ahead = 20};
  bool came[COUNT] = {false};
  source s = {.count = COUNT, .ahead = 20};
  mproc_bytes result;
  uint64_t index;
  mproc_pool *pool = pool_of(method, 2);
  mproc_imap *imap = start_imap(pool, repeat_number, &s, &options);
  for (; s.taken < COUNT; s.taken++) {
    CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 1);
    CHECK(index < COUNT && !came[index]);
    came[index] = true;
    check_repeated(result, index);
  }
  CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 0);
  mproc_imap_destroy(imap);
  end_pool(pool);
}

/* The first one is held. */
static int hold_number_0(mproc_task *task, const void *input, size_t size) {
  const job *own = input;
  if (own->number == 0)
    return hold(task, input, size);
  return mproc_task_result(task, &own->number, sizeof own->number);
}

static int64_t number_in(mproc_bytes result) {
  int64_t number;
  CHECK_EQ(result.size, sizeof number);
  memcpy(&number, result.data, sizeof number);
  return number;
}

TEST(unordered_imap_passes_by_who_is_slow) {
  const mproc_submit_options options = {.unordered = 1, .look_ahead = 4};
  board *b = new_board();
  source s = {.count = 50, .ahead = 4, .b = b};
  mproc_bytes result;
  uint64_t index = 99;
  mproc_pool *pool = pool_of("fork", 2);
  mproc_imap *imap = start_imap(pool, hold_number_0, &s, &options);
  for (; s.taken < 49; s.taken++) {
    CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 1);
    CHECK_EQ(number_in(result), index);
    CHECK(index != 0);
  }
  CHECK_EQ(mproc_imap_next(imap, &result, &index, 0), -EAGAIN);
  CHECK_EQ(mproc_imap_next(imap, &result, &index, 30), -ETIMEDOUT);
  open_gate(b, 0);
  CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 1);
  CHECK_EQ(index, 0);
  CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 0);
  mproc_imap_destroy(imap);
  end_pool(pool);
  free_board(b);
}

TEST(ordered_imap_waits_for_the_first) {
  const mproc_submit_options options = {.look_ahead = 5};
  board *b = new_board();
  source s = {.count = 50, .ahead = 5, .b = b};
  mproc_bytes result;
  uint64_t index = 99;
  mproc_pool *pool = pool_of("fork", 2);
  mproc_imap *imap = start_imap(pool, hold_number_0, &s, &options);
  CHECK_EQ(mproc_imap_next(imap, &result, &index, 0), -EAGAIN);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_imap_next(imap, &result, &index, 60), -ETIMEDOUT);
  CHECK(now_ms() - begin >= 59);
  AWAIT(stats_of(pool).done + 1 == (uint64_t)s.asked); /* the others of the look-ahead run */
  CHECK(s.asked >= 5 && s.asked <= 6);
  open_gate(b, 0);
  for (; s.taken < 50; s.taken++) {
    CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 1);
    CHECK_EQ(index, s.taken);
    CHECK_EQ(number_in(result), s.taken);
  }
  CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 0);
  mproc_imap_destroy(imap);
  end_pool(pool);
  free_board(b);
}

TEST(imap_source_fails) {
  for (int unordered = 0; unordered < 2; unordered++) {
    const mproc_submit_options options = {.unordered = unordered};
    source s = {.count = 5, .error = -EIO};
    mproc_bytes result;
    mproc_pool *pool = pool_of("fork", 2);
    mproc_imap *imap = start_imap(pool, repeat_number, &s, &options);
    for (int i = 0; i < 5; i++)
      CHECK_EQ(mproc_imap_next(imap, &result, NULL, JOIN_MS), 1);
    CHECK_EQ(mproc_imap_next(imap, &result, NULL, JOIN_MS), -EIO);
    mproc_imap_destroy(imap);
    check_works(pool);
    end_pool(pool);
  }
}

TEST(imap_without_inputs) {
  source s = {.count = 0};
  mproc_bytes result;
  mproc_pool *pool = pool_of("fork", 1);
  mproc_imap *imap = start_imap(pool, repeat_number, &s, NULL);
  CHECK_EQ(mproc_imap_next(imap, &result, NULL, 0), 0);
  mproc_imap_destroy(imap);
  mproc_imap_destroy(start_imap(pool, repeat_number, &s, NULL)); /* was never asked */
  end_pool(pool);
}

static int fail_thirds(mproc_task *task, const void *input, size_t size) {
  const job *own = input;
  if (own->number % 3 == 1)
    return mproc_task_fail(task, 5, "number %d", (int)own->number);
  return repeat_number(task, input, size);
}

EACH_METHOD(imap_inputs_fail) {
  for (int unordered = 0; unordered < 2; unordered++) {
    const mproc_submit_options options = {.unordered = unordered};
    source s = {.count = 60};
    bool came[60] = {false};
    mproc_pool *pool = pool_of(method, 2);
    mproc_imap *imap = start_imap(pool, fail_thirds, &s, &options);
    for (; s.taken < 60; s.taken++) {
      mproc_bytes result;
      mproc_failure failure;
      char text[20];
      uint64_t index = 99;
      int r = mproc_imap_next(imap, &result, &index, JOIN_MS);
      CHECK(index < 60 && !came[index] && (unordered || index == (uint64_t)s.taken));
      came[index] = true;
      CHECK_EQ(r, index % 3 == 1 ? MPROC_ETASK : 1);
      if (r == 1) {
        check_repeated(result, index);
        continue;
      }
      snprintf(text, sizeof text, "number %d", (int)index);
      CHECK_CONTAINS(mproc_error_detail(), text);
      CHECK_EQ(mproc_imap_failure(imap, &failure), 0);
      CHECK_EQ(failure.cause, MPROC_CAUSE_ERROR);
      CHECK_EQ(failure.code, 5);
      CHECK_EQ(failure.index, index);
      CHECK_STR(failure.text, text);
    }
    CHECK_EQ(mproc_imap_next(imap, &(mproc_bytes){0}, NULL, JOIN_MS), 0);
    mproc_imap_destroy(imap);
    end_pool(pool);
  }
}

EACH_METHOD(imap_destroyed_early) {
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 2);
  mproc_bytes result;
  open_gate(b, 1);
  for (int round = 0; round < 4; round++) {
    source s = {.count = 1000, .b = b};
    int64_t before = b->begun;
    mproc_imap *imap = start_imap(pool, round % 2 ? repeat_number : hold, &s, NULL);
    for (int i = 0; i < 3; i++)
      CHECK_EQ(mproc_imap_next(imap, &result, NULL, round % 2 ? JOIN_MS : 0),
               round % 2 ? 1 : -EAGAIN);
    if (round == 2)
      AWAIT(b->begun > before);
    int64_t begin = now_ms();
    mproc_imap_destroy(imap);
    CHECK(now_ms() - begin < JOIN_MS);
    check_works(pool);
  }
  CHECK_EQ(b->over, 0);
  AWAIT(stats_of(pool).queued + stats_of(pool).running == 0);
  end_pool(pool);
  free_board(b);
}

TEST(imaps_at_once) {
  enum { IMAPS = 3 };
  source sources[IMAPS];
  mproc_imap *imaps[IMAPS];
  mproc_bytes result;
  mproc_pool *pool = pool_of("fork", 2);
  for (int i = 0; i < IMAPS; i++) {
    sources[i] = (source){.count = 100 + 50 * i, .ahead = 8};
    imaps[i] = start_imap(pool, repeat_number, &sources[i], NULL);
  }
  for (int round = 0; round < 100 + 50 * IMAPS; round++)
    for (int i = 0; i < IMAPS; i++) {
      source *s = &sources[i];
      CHECK_EQ(mproc_imap_next(imaps[i], &result, NULL, JOIN_MS), s->taken < s->count);
      if (s->taken == s->count)
        continue;
      check_repeated(result, (uint64_t)s->taken++);
      if (round % 20 == 0)
        check_works(pool);
    }
  for (int i = 0; i < IMAPS; i++) {
    CHECK_EQ(sources[i].taken, sources[i].count);
    mproc_imap_destroy(imaps[i]);
  }
  end_pool(pool);
}
