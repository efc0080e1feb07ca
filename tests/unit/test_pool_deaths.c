/* Pools: a task kills its worker, in every way there is. It alone fails, and says how; the others
 * are right, and the pool goes on. */
#include "harness.h"
#include "methods.h"
#include "pool_tasks.h"

#include <sys/resource.h>
#include <sys/time.h>

enum { WORKERS = 2, CANCEL_MS = 1000 };

/* So that its limit can be reached. */
const mproc_init_options *test_init_options(void) {
  static const mproc_init_options options = {.heap_size = (size_t)128 << 20};
  static const mproc_init_options small = {.heap_size = (size_t)64 << 20};
  return test_under_valgrind() ? &small : &options;
}

static mproc_pool *pool_by(const char *method) {
  return new_pool(&(mproc_pool_options){
      .name = "t", .workers = WORKERS, .method = method, .memory_limit = MEMORY_LIMIT});
}

static mproc_pool *small_pool(void) {
  return new_pool(&(mproc_pool_options){.name = "t", .workers = 1, .method = "fork"});
}

/* ---- one of ten dies ------------------------------------------------------------------------- */

static void one_of_ten_dies(const char *method, run_function *run) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  FOR_ALL_DEATHS(d) {
    const mproc_submit_options options = limited(d, 0);
    char words[256];
    say(d);
    outcome o = run_ten(pool, b, run, d->how, NOTES_MAX, &options);
    check_failure(b, &o, d->cause, d->code, 1);
    CHECK_EQ(o.failure.code, d->cause == MPROC_CAUSE_EXITED ? d->code : o.failure.code);
    CHECK_CONTAINS(mproc_strfailure(&o.failure, words, sizeof words), d->words);
    CHECK(gone_within(o.failure.pid, JOIN_MS)); /* also what was executed */
  }
  check_figures(pool, (mproc_pool_statistics){.workers = WORKERS,
                                              .died = DEATHS,
                                              .failed = DEATHS,
                                              .done = DEATHS * (TASKS - 1),
                                              .timed_out = 1,
                                              .out_of_memory = 1});
  check_works(pool, b);
  end_all(pool, b);
}

EACH_METHOD_LIMIT(one_of_ten_dies_in_apply_async, 40) {
  one_of_ten_dies(method, by_apply);
}

EACH_METHOD_LIMIT(one_of_ten_dies_in_map, 40) {
  one_of_ten_dies(method, by_map);
}

EACH_METHOD_LIMIT(one_of_ten_dies_in_imap, 40) {
  one_of_ten_dies(method, by_imap);
}

TEST_LIMIT(one_of_ten_dies_in_map_bytes, 40) {
  one_of_ten_dies("fork", by_map_bytes);
}

TEST_LIMIT(one_of_ten_dies_in_unordered_imap, 40) {
  one_of_ten_dies("fork", by_unordered_imap);
}

TEST_LIMIT(one_of_ten_dies_in_its_group, 40) {
  one_of_ten_dies("fork", by_one_group);
}

TEST(calls_that_wait_tell_of_a_death) {
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  order orders[TASKS];
  int64_t answers[TASKS];
  size_t size = 99;
  FOR_ALL_DEATHS(d) {
    const mproc_submit_options options = limited(d, 0);
    say(d);
    for (int i = 0; i < TASKS; i++)
      orders[i] = (order){b, i, i == VICTIM ? d->how : WELL, i == VICTIM ? NOTES_MAX : 0};
    CHECK_EQ(mproc_pool_apply(pool, do_as_told, &orders[VICTIM], sizeof orders[0], answers,
                              sizeof answers, &size, &options),
             MPROC_ETASK);
    CHECK_CONTAINS(mproc_error_detail(), d->words);
    CHECK_EQ(mproc_pool_map(pool, do_as_told, orders, sizeof orders[0], answers, sizeof answers[0],
                            TASKS, &options),
             MPROC_ETASK);
    CHECK_CONTAINS(mproc_error_detail(), d->words);
  }
  CHECK_EQ(size, 99);
  check_works(pool, b);
  end_all(pool, b);
}

TEST(signals_from_outside_are_told) {
  static const int signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR1, SIGPIPE, SIGALRM};
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
    const order o = {b, 0, HELD, 0};
    b->go = 0;
    memset(b->notes, 0, sizeof b->notes);
    mproc_future *future = submit(pool, &o, NULL);
    AWAIT(b->notes[0].runs == 1);
    CHECK_EQ(kill((pid_t)b->notes[0].pid, signals[i]), 0);
    sleep_ms(1);
    b->go = 1; /* a worker may be deaf to polite ones: then it is right */
    int r = mproc_future_wait(future, JOIN_MS);
    CHECK(r == 0 || r == MPROC_ETASK);
    if (r == MPROC_ETASK) {
      CHECK_EQ(failure_of(future, 0).cause, MPROC_CAUSE_SIGNALED);
      CHECK_EQ(failure_of(future, 0).code, signals[i]);
    }
    mproc_future_destroy(future);
  }
  check_works(pool, b);
  end_all(pool, b);
}

/* ---- further attempts ------------------------------------------------------------------------ */

TEST_LIMIT(second_attempt_succeeds, 60) {
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  for (int run = 0; run < RUNS; run++)
    FOR_ALL_DEATHS(d) {
      const mproc_submit_options options = limited(d, 1);
      say(d);
      outcome o = run_ten(pool, b, all_runs[run], d->how, 1, &options);
      CHECK_EQ(o.failures, 0);
      CHECK_EQ(b->notes[VICTIM].runs, 2);
      CHECK_EQ(b->notes[VICTIM].attempt, 2);
    }
  check_figures(pool, (mproc_pool_statistics){.workers = WORKERS,
                                              .died = RUNS * DEATHS,
                                              .done = RUNS * DEATHS * TASKS,
                                              .retried = RUNS * DEATHS,
                                              .timed_out = RUNS,
                                              .out_of_memory = RUNS});
  end_all(pool, b);
}

TEST_LIMIT(attempts_are_used_up, 60) {
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  for (int run = 0; run < RUNS; run++)
    FOR_ALL_DEATHS(d) {
      const mproc_submit_options options = limited(d, 1);
      say(d);
      outcome o = run_ten(pool, b, all_runs[run], d->how, NOTES_MAX, &options);
      check_failure(b, &o, d->cause, d->code, 2);
    }
  CHECK_EQ(figures(pool).retried, RUNS * DEATHS);
  CHECK_EQ(figures(pool).failed, RUNS * DEATHS);
  end_all(pool, b);
}

/* It is no death: there may be any number. */
TEST(errors_are_tried_again_too) {
  const mproc_submit_options options = {.retries = 8};
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  for (int run = 0; run < RUNS; run++) {
    outcome o = run_ten(pool, b, all_runs[run], BY_ERROR, 8, &options);
    CHECK_EQ(o.failures, 0);
    o = run_ten(pool, b, all_runs[run], BY_ERROR, 9, &options);
    check_failure(b, &o, MPROC_CAUSE_ERROR, ERROR_CODE, 9);
  }
  check_figures(pool, (mproc_pool_statistics){.workers = WORKERS,
                                              .failed = RUNS,
                                              .done = RUNS * (2 * TASKS - 1),
                                              .retried = RUNS * 16});
  end_all(pool, b);
}

TEST(poisonous_task_is_not_tried_again) {
  const mproc_submit_options options = {.retries = 100};
  for (int limit = 0; limit <= 5; limit += 5) {
    const mproc_pool_options wanted = {
        .name = "t", .workers = WORKERS, .method = "fork", .poison_limit = limit};
    const int attempts = limit ? limit : 3;
    board *b = new_board();
    mproc_pool *pool = new_pool(&wanted);
    for (int run = 0; run < RUNS; run++) {
      outcome o = run_ten(pool, b, all_runs[run], BY_FAULT, NOTES_MAX, &options);
      check_failure(b, &o, MPROC_CAUSE_POISONED, SIGSEGV, attempts);
      o = run_ten(pool, b, all_runs[run], BY_FAULT, attempts - 1, &options);
      CHECK_EQ(o.failures, 0);
    }
    check_works(pool, b);
    end_all(pool, b);
  }
}

/* Of a group too, in which the one before has used up all of its own. */
TEST(attempts_are_of_each_input) {
  const mproc_submit_options options = {.retries = 2, .group = TASKS};
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  order orders[TASKS];
  int64_t answers[TASKS];
  for (int i = 0; i < TASKS; i++)
    orders[i] = (order){b, i, i % 2 ? BY_KILL : BY_ERROR, 2};
  CHECK_EQ(mproc_pool_map(pool, do_as_told, orders, sizeof orders[0], answers, sizeof answers[0],
                          TASKS, &options),
           0);
  for (int i = 0; i < TASKS; i++) {
    CHECK_EQ(answers[i], answer_of(i));
    CHECK_EQ(b->notes[i].runs, 3);
    CHECK_EQ(b->notes[i].attempt, 3);
  }
  end_all(pool, b);
}

TEST(submitting_overrides_the_pool) {
  const mproc_submit_options none = {.retries = -1}, same = {0}, one = {.retries = 1};
  const mproc_pool_options wanted = {
      .name = "t", .workers = WORKERS, .method = "fork", .task = {.retries = 3}};
  board *b = new_board();
  mproc_pool *pool = new_pool(&wanted);
  for (int run = 0; run < RUNS; run++) {
    outcome o = run_ten(pool, b, all_runs[run], BY_ERROR, NOTES_MAX, &none);
    check_failure(b, &o, MPROC_CAUSE_ERROR, ERROR_CODE, 1);
    o = run_ten(pool, b, all_runs[run], BY_ERROR, NOTES_MAX, &one);
    check_failure(b, &o, MPROC_CAUSE_ERROR, ERROR_CODE, 2);
    o = run_ten(pool, b, all_runs[run], BY_ERROR, NOTES_MAX, &same);
    check_failure(b, &o, MPROC_CAUSE_ERROR, ERROR_CODE, 4);
    o = run_ten(pool, b, all_runs[run], BY_ERROR, NOTES_MAX, NULL);
    check_failure(b, &o, MPROC_CAUSE_ERROR, ERROR_CODE, 4);
  }
  end_all(pool, b);
}

static void check_delays(const note *n, int first_ms, int attempts) {
  for (int i = 2, delay_ms = first_ms; i <= attempts; i++, delay_ms *= 2) {
    int64_t took = (n->begin_ns[i] - n->begin_ns[i - 1]) / 1000;
    printf("# before attempt %d: %lld us\n", i, (long long)took);
    CHECK(took >= delay_ms * 1000LL);
    if (!UNDER_SANITIZER && !test_under_valgrind())
      CHECK(took < (delay_ms + 500) * 1000LL);
  }
}

TEST(delay_doubles) {
  enum { DELAY_MS = 30, ATTEMPTS = 5 };
  const mproc_submit_options options = {.retries = ATTEMPTS - 1, .retry_delay_ms = DELAY_MS};
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  for (int run = 0; run < RUNS; run++) {
    outcome o = run_ten(pool, b, all_runs[run], BY_ERROR, NOTES_MAX, &options);
    check_failure(b, &o, MPROC_CAUSE_ERROR, ERROR_CODE, ATTEMPTS);
    check_delays(&b->notes[VICTIM], DELAY_MS, ATTEMPTS);
    o = run_ten(pool, b, all_runs[run], BY_KILL, 2, &options);
    CHECK_EQ(o.failures, 0);
    check_delays(&b->notes[VICTIM], DELAY_MS, 3);
  }
  end_all(pool, b);
}

/* Others take the worker while one waits for its next attempt. */
TEST(who_waits_for_its_next_attempt_keeps_nobody) {
  const mproc_submit_options later = {.retries = 1, .retry_delay_ms = 1000};
  board *b = new_board();
  mproc_pool *pool = small_pool();
  const order failing = {b, 500, BY_ERROR, 1};
  mproc_future *future = submit(pool, &failing, &later);
  AWAIT(b->notes[500].runs == 1);
  int64_t since = now_ms();
  check_works(pool, b);
  check_took(since, 700, "others meanwhile");
  check_answer(future, 500);
  CHECK_EQ(b->notes[500].runs, 2);
  mproc_future_destroy(future);
  end_all(pool, b);
}

/* ---- limits of time -------------------------------------------------------------------------- */

/* Fifty milliseconds after the limit, where the machine is idle: once in five is enough to tell. */
static void check_timeouts(mproc_pool *pool, board *b, way how, const mproc_submit_options *options,
                           int limit_ms) {
  enum { TIMES = 5, LATE_MS = 50, MOST_MS = 3000 };
  int64_t best = INT64_MAX;
  for (int i = 0; i < TIMES; i++) {
    const order o = {b, i, how, NOTES_MAX};
    const int64_t since = now_ns();
    mproc_failure f = end_of_future(submit(pool, &o, options));
    int64_t now = now_ns(), took = (now - b->notes[i].begin_ns[1]) / 1000;
    printf("# limit %d ms: over after %lld us\n", limit_ms, (long long)took);
    fflush(stdout);
    CHECK_EQ(f.cause, MPROC_CAUSE_TIMED_OUT);
    CHECK_EQ(f.attempts, 1);
    CHECK(now - since >= limit_ms * 1000000LL);
    CHECK(f.run_time_ns == -1 || f.run_time_ns >= (limit_ms - 1) * 1000000LL);
    CHECK(gone_within(f.pid, JOIN_MS));
    best = took < best ? took : best;
  }
  if (UNDER_SANITIZER || test_under_valgrind())
    return;
  CHECK(best <= (limit_ms + MOST_MS) * 1000LL);
  if (best > (limit_ms + LATE_MS) * 1000LL)
    test_fail(__FILE__, __LINE__, "within 50 ms", "at best %lld us", (long long)best);
}

EACH_METHOD_LIMIT(timeout_is_kept, 40) {
  const mproc_submit_options options = {.timeout_ms = 200};
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  check_works(pool, b); /* they have been started */
  check_timeouts(pool, b, BY_LOOP, &options, 200);
  check_works(pool, b);
  end_all(pool, b);
}

/* Nothing but SIGKILL ends these. */
TEST_LIMIT(timeout_ends_the_stubborn_too, 40) {
  const mproc_submit_options options = {.timeout_ms = 100};
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  check_works(pool, b);
  check_timeouts(pool, b, BY_LOOP_DEAF, &options, 100);
  check_timeouts(pool, b, BY_STOP, &options, 100);
  check_timeouts(pool, b, HELD, &options, 100);
  check_works(pool, b);
  end_all(pool, b);
}

TEST(others_wait_as_long_as_they_like) {
  const mproc_submit_options none = {.timeout_ms = -1};
  const mproc_pool_options wanted = {
      .name = "t", .workers = WORKERS, .method = "fork", .task = {.timeout_ms = 100}};
  board *b = new_board();
  mproc_pool *pool = new_pool(&wanted);
  const order o = {b, 0, HELD, 0};
  CHECK_EQ(end_of_future(submit(pool, &o, NULL)).cause, MPROC_CAUSE_TIMED_OUT);
  mproc_future *future = submit(pool, &o, &none);
  CHECK_EQ(mproc_future_wait(future, 400), -ETIMEDOUT);
  b->go = 1;
  check_answer(future, 0);
  mproc_future_destroy(future);
  end_all(pool, b);
}

static int sleep_a_little(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  sleep_ms(60);
  return 0;
}

/* Neither to its group, nor to the map. */
TEST(timeout_belongs_to_each_task) {
  const mproc_submit_options options = {.timeout_ms = LOOP_MS, .group = 10};
  mproc_pool *pool = small_pool();
  CHECK_EQ(mproc_pool_map(pool, sleep_a_little, NULL, 0, NULL, 0, 10, &options), 0);
  CHECK_EQ(figures(pool).timed_out, 0);
  end_pool(pool);
}

/* ---- cancelling ------------------------------------------------------------------------------ */

static void check_cancelled(mproc_future *future, uint64_t number, int attempts) {
  mproc_failure f = failure_of(future, number);
  CHECK_EQ(f.cause, MPROC_CAUSE_CANCELLED);
  CHECK_EQ(f.attempts, attempts);
  if (attempts == 0) {
    CHECK_EQ(f.worker, -1);
    CHECK_EQ(f.pid, 0);
  }
}

TEST(cancelled_before_it_begins) {
  board *b = new_board();
  mproc_pool *pool = small_pool();
  const order holder = {b, 0, HELD, 0}, other = {b, 1, WELL, 0};
  mproc_future *held = submit(pool, &holder, NULL);
  AWAIT(b->notes[0].runs == 1);
  mproc_future *queued = submit(pool, &other, NULL);
  CHECK_EQ(mproc_future_cancel(queued), 0);
  CHECK_EQ(mproc_future_wait(queued, CANCEL_MS), MPROC_ETASK); /* the worker is not free yet */
  check_cancelled(queued, 0, 0);
  CHECK_EQ(mproc_future_cancel(queued), 0);
  b->go = 1;
  check_answer(held, 0);
  CHECK_EQ(mproc_future_cancel(held), 0); /* too late */
  check_answer(held, 0);
  check_works(pool, b);
  CHECK_EQ(b->notes[1].runs, 0);
  CHECK_EQ(figures(pool).cancelled, 1);
  CHECK_EQ(figures(pool).died, 0);
  mproc_future_destroy(held);
  mproc_future_destroy(queued);
  end_all(pool, b);
}

EACH_METHOD(cancelled_while_it_runs) {
  const mproc_submit_options options = {.retries = 5};
  static const way ways[] = {BY_LOOP, BY_LOOP_DEAF, BY_STOP, HELD};
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  for (int i = 0; i < 4; i++) {
    const order o = {b, i, ways[i], NOTES_MAX};
    mproc_future *future = submit(pool, &o, &options);
    AWAIT(b->notes[i].runs == 1);
    int64_t since = now_ms();
    CHECK_EQ(mproc_future_cancel(future), 0);
    CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
    check_took(since, CANCEL_MS, "cancel");
    check_cancelled(future, 0, 1);
    CHECK_EQ(failure_of(future, 0).pid, b->notes[i].pid);
    CHECK(gone_within(b->notes[i].pid, JOIN_MS));
    CHECK_EQ(b->notes[i].runs, 1);
    mproc_future_destroy(future);
  }
  CHECK_EQ(figures(pool).cancelled, 4);
  check_works(pool, b);
  end_all(pool, b);
}

/* Destroying is cancelling. */
TEST(future_is_destroyed_while_its_task_runs) {
  board *b = new_board();
  mproc_pool *pool = small_pool();
  const order o = {b, 0, BY_LOOP, NOTES_MAX}, other = {b, 1, WELL, 0};
  mproc_future *future = submit(pool, &o, NULL), *queued = submit(pool, &other, NULL);
  AWAIT(b->notes[0].runs == 1);
  mproc_future_destroy(queued);
  mproc_future_destroy(future);
  AWAIT(is_gone(b->notes[0].pid));
  AWAIT(figures(pool).cancelled == 2);
  check_works(pool, b);
  CHECK_EQ(b->notes[1].runs, 0);
  end_all(pool, b);
}

/* It is told, and may put things in order: its worker goes on. */
TEST(polite_task_sees_that_it_is_cancelled) {
  board *b = new_board();
  mproc_pool *pool = small_pool();
  const order o = {b, 0, POLITE, 0}, next = {b, 1, WELL, 0};
  mproc_future *future = submit(pool, &o, NULL);
  AWAIT(b->notes[0].runs == 1);
  CHECK_EQ(mproc_future_is_done(future), 0);
  CHECK_EQ(mproc_future_cancel(future), 0);
  int r = mproc_future_wait(future, JOIN_MS);
  CHECK(r == 0 || r == MPROC_ETASK);
  if (r == MPROC_ETASK)
    check_cancelled(future, 0, 1);
  mproc_future_destroy(future);
  future = submit(pool, &next, NULL);
  check_answer(future, 1);
  CHECK_EQ(b->notes[1].pid, b->notes[0].pid);
  mproc_future_destroy(future);
  end_all(pool, b);
}

TEST(map_is_cancelled) {
  enum { COUNT = 100, WELL_ONES = 20 };
  order orders[COUNT];
  int64_t answers[COUNT];
  uint64_t finished, count;
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  mproc_future *future;
  const mproc_submit_options options = {.group = 1, .retries = 5};
  for (int i = 0; i < COUNT; i++)
    orders[i] = (order){b, i, i < WELL_ONES ? WELL : BY_LOOP, NOTES_MAX};
  CHECK_EQ(mproc_pool_map_async(pool, do_as_told, orders, sizeof orders[0], answers,
                                sizeof answers[0], COUNT, &future, &options),
           0);
  AWAIT(figures(pool).running == WORKERS && figures(pool).done == WELL_ONES);
  int64_t since = now_ms();
  CHECK_EQ(mproc_future_cancel(future), 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  check_took(since, CANCEL_MS, "cancel");
  CHECK_EQ(mproc_future_progress(future, &finished, &count), 0);
  CHECK_EQ(finished, COUNT);
  CHECK_EQ(mproc_future_failures(future), COUNT - WELL_ONES);
  for (uint64_t i = 0; i < COUNT - WELL_ONES; i++)
    CHECK_EQ(failure_of(future, i).cause, MPROC_CAUSE_CANCELLED);
  int runs = 0;
  for (int i = 0; i < COUNT; i++)
    runs += b->notes[i].runs;
  CHECK_EQ(runs, WELL_ONES + WORKERS);
  for (int i = 0; i < WELL_ONES; i++)
    CHECK_EQ(answers[i], answer_of(i));
  CHECK_EQ(figures(pool).cancelled, COUNT - WELL_ONES);
  mproc_future_destroy(future);
  check_works(pool, b);
  end_all(pool, b);
}

TEST(imap_is_destroyed_while_it_runs) {
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  order orders[TASKS];
  feed source = {orders, 0};
  mproc_imap *imap;
  mproc_bytes result;
  for (int i = 0; i < TASKS; i++)
    orders[i] = (order){b, i, i < 2 ? WELL : BY_LOOP, NOTES_MAX};
  CHECK_EQ(mproc_pool_imap(pool, do_as_told, feed_next, &source, &imap, NULL), 0);
  CHECK_EQ(mproc_imap_next(imap, &result, NULL, JOIN_MS), 1);
  AWAIT(figures(pool).running == WORKERS);
  int64_t since = now_ms();
  mproc_imap_destroy(imap);
  AWAIT(figures(pool).running == 0 && figures(pool).idle == WORKERS);
  check_took(since, CANCEL_MS, "cancel");
  check_works(pool, b);
  end_all(pool, b);
}

/* ---- standard error -------------------------------------------------------------------------- */

enum { KEPT = 4096, LINE = 16 };

/* Writes `number` lines, and ends as told. */
static int write_errors(mproc_task *task, const void *input, size_t size) {
  order o;
  CHECK_EQ(size, sizeof o);
  memcpy(&o, input, sizeof o);
  note_run(task, &o);
  for (int i = 1; i <= o.number; i++)
    fprintf(stderr, "%6d of %5d\n", i, (int)o.number);
  return o.how == WELL ? 0 : end_this_way(task, &o);
}

static void check_errors(mproc_pool *pool, board *b, way how, int lines) {
  const mproc_submit_options options = {.timeout_ms = how == BY_LOOP ? LOOP_MS : 0};
  const order o = {b, lines, how, NOTES_MAX};
  char last[LINE + 1] = "", first[LINE + 1];
  mproc_future *future;
  CHECK_EQ(mproc_pool_apply_async(pool, write_errors, &o, sizeof o, &future, &options), 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), how == WELL ? 0 : MPROC_ETASK);
  if (how != WELL) {
    const char *errors = failure_of(future, 0).errors;
    const size_t length = strlen(errors), all = (size_t)lines * LINE;
    snprintf(first, sizeof first, "%6d of %5d\n", 1, lines);
    snprintf(last, sizeof last, "%6d of %5d\n", lines, lines);
    CHECK(length <= KEPT);
    CHECK_EQ(length, all < KEPT ? all : length);
    CHECK(length >= (all < KEPT ? all : KEPT - LINE)); /* it may begin with a whole line */
    if (lines)
      CHECK_STR(errors + length - strlen(last), last);
    if (lines && all < KEPT)
      CHECK(strncmp(errors, first, strlen(first)) == 0);
  }
  mproc_future_destroy(future);
}

TEST(errors_of_the_failed_are_kept) {
  static const way ways[] = {BY_ERROR, BY_KILL, BY_FAULT, BY_EXIT, BY_LOOP};
  const mproc_pool_options wanted = {.name = "t", .workers = 1, .method = "fork", .keep_errors = 1};
  const char *path = test_tmp_path("errors");
  board *b = new_board();
  char text[256];
  fflush(stderr);
  int own = dup(STDERR_FILENO), file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(own >= 0 && file >= 0);
  CHECK(dup2(file, STDERR_FILENO) >= 0);
  mproc_pool *pool = new_pool(&wanted);
  CHECK(dup2(own, STDERR_FILENO) >= 0);
  CHECK_EQ(close(own), 0);
  for (int i = 0; i < 5; i++) {
    check_errors(pool, b, WELL, 40); /* which are nobody's */
    check_errors(pool, b, ways[i], 3);
    check_errors(pool, b, BY_ERROR, 0);
    check_errors(pool, b, WELL, 1000);
    check_errors(pool, b, ways[i], 2000);
    check_errors(pool, b, ways[i], 1);
  }
  end_all(pool, b);
  CHECK_EQ(lseek(file, 0, SEEK_SET), 0);
  CHECK_STR(read_all(file, text, sizeof text), ""); /* they are not shown */
  CHECK_EQ(unlink(path), 0);
}

/* ---- what no task should do ------------------------------------------------------------------ */

/* What it is given is a pointer to the board. Whether it succeeds is its own affair, all others do;
 * with several in turn it is in each worker for a while. */
static void check_hostile(const char *method, mproc_task_function *task, bool must_succeed) {
  const mproc_submit_options options = {.timeout_ms = 20 * LOOP_MS};
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  for (int i = 0; i < 3; i++) {
    int r = mproc_pool_apply(pool, task, &b, sizeof b, NULL, 0, NULL, &options);
    CHECK(r == 0 || r == MPROC_ETASK);
    if (must_succeed)
      CHECK_EQ(r, 0);
    check_works(pool, b);
    check_works(pool, b);
  }
  CHECK_EQ(figures(pool).supervisors_died, 0);
  if (must_succeed)
    CHECK_EQ(figures(pool).died, 0);
  end_all(pool, b);
}

static int close_all(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  for (int fd = 0; fd < 1024; fd++)
    (void)close(fd);
  return 0;
}

EACH_METHOD(task_that_closes_all_descriptors) {
  check_hostile(method, close_all, false);
}

static void *last_for_long(void *argument) {
  (void)argument;
  sleep_ms(30000);
  return NULL;
}

static int leave_threads(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  for (int i = 0; i < 3; i++) {
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, last_for_long, NULL), 0);
    CHECK_EQ(pthread_detach(thread), 0);
  }
  return 0;
}

EACH_METHOD(task_that_leaves_threads_behind) {
  check_hostile(method, leave_threads, true);
}

static void ignore_signal(int number) {
  (void)number;
}

/* Interrupts all that its worker does from then on. */
static int leave_a_timer(mproc_task *task, const void *input, size_t size) {
  const struct itimerval timer = {{0, 1000}, {0, 1000}};
  const struct sigaction action = {.sa_handler = ignore_signal};
  (void)task, (void)input, (void)size;
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
  return raise(SIGUSR1);
}

EACH_METHOD(task_that_leaves_handlers_and_a_timer) {
  check_hostile(method, leave_a_timer, true);
}

static int leave_signals_blocked(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  hold_back_signals();
  signal(SIGCHLD, SIG_IGN);
  return 0;
}

TEST(task_that_leaves_signals_blocked) {
  check_hostile("fork", leave_signals_blocked, true);
}

static int end_thread(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  pthread_exit(NULL);
}

TEST(task_that_ends_its_thread) {
  if (TEST_HAS_TSAN)
    SKIP("its own thread keeps the process alive");
  check_hostile("fork", end_thread, false);
}

static int change_user(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  CHECK_EQ(setgid(65534), 0);
  CHECK_EQ(setuid(65534), 0);
  CHECK_EQ(chdir("/"), 0);
  return 0;
}

TEST(task_that_changes_its_user) {
  if (geteuid() != 0)
    SKIP("only root can become somebody else");
  check_hostile("fork", change_user, true);
}

/* It has all that its parent had. */
static int leave_a_child(mproc_task *task, const void *input, size_t size) {
  order o;
  CHECK_EQ(size, sizeof o);
  memcpy(&o, input, sizeof o);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    sleep_ms(30000);
    _exit(0);
  }
  o.b->stray = pid;
  return o.how == WELL ? 0 : end_this_way(task, &o);
}

EACH_METHOD(task_that_leaves_a_child_behind) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  for (int how = WELL; how <= BY_KILL; how += BY_KILL) {
    const order o = {b, 0, how, NOTES_MAX};
    int64_t since = now_ms();
    CHECK_EQ(mproc_pool_apply(pool, leave_a_child, &o, sizeof o, NULL, 0, NULL, NULL),
             how == WELL ? 0 : MPROC_ETASK);
    check_took(since, 2000, "its own end");
    check_works(pool, b);
    if (how != WELL)
      end_pool(pool);
    (void)kill((pid_t)b->stray, SIGKILL);
    CHECK(gone_within(b->stray, JOIN_MS));
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* The size is the number; filled with what is right of it. */
static int return_much(mproc_task *task, const void *input, size_t size) {
  order o;
  CHECK_EQ(size, sizeof o);
  memcpy(&o, input, sizeof o);
  char *much = malloc((size_t)o.number);
  if (!much)
    return -ENOMEM;
  memset(much, (char)answer_of(o.number), (size_t)o.number);
  int r = mproc_task_result(task, much, (size_t)o.number);
  free(much);
  return r;
}

static int return_size(mproc_pool *pool, size_t size) {
  const order o = {NULL, (int64_t)size, WELL, 0};
  mproc_bytes result;
  mproc_future *future;
  CHECK_EQ(mproc_pool_apply_async(pool, return_much, &o, sizeof o, &future, NULL), 0);
  int r = mproc_future_wait(future, JOIN_MS);
  if (r == 0) {
    CHECK_EQ(mproc_future_result(future, &result), 0);
    CHECK_EQ(result.size, size);
    for (size_t i = 0; i < size; i += 997)
      CHECK_EQ(((const char *)result.data)[i], (char)answer_of((int64_t)size));
  } else {
    CHECK_EQ(r, MPROC_ETASK);
    r = failure_of(future, 0).code;
    CHECK_EQ(failure_of(future, 0).cause, MPROC_CAUSE_ERROR);
  }
  mproc_future_destroy(future);
  return r;
}

/* Half of the heap comes through, twice of it is refused, and nothing is left of either. */
TEST(task_that_returns_too_much) {
  const size_t heap = test_init_options()->heap_size;
  board *b = new_board();
  mproc_pool *pool = small_pool();
  check_works(pool, b);
  CHECK_EQ(return_size(pool, 1), 0);
  uint64_t used = heap_used();
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(return_size(pool, heap / 2), 0);
    CHECK_EQ(return_size(pool, heap * 2), MPROC_EHEAPFULL);
    check_works(pool, b);
  }
  CHECK(heap_used() < used + heap / 8); /* what was used last may be kept for a while */
  CHECK_EQ(figures(pool).died, 0);
  end_all(pool, b);
}
