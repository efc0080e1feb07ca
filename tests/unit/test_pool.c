/* Pool: from create to destroy, single tasks, and who may have a pool. */
#include "each_method.h"
#include "harness.h"
#include "in_child.h"
#include "pools.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>

#define END_MS (UNDER_SANITIZER || test_under_valgrind() ? 60000 : 5000)

/* ---- options and arguments ------------------------------------------------------------------- */

TEST(default_options) {
  mproc_pool *pool = pool_with(NULL);
  CHECK_EQ(stats_of(pool).workers, mproc_cpu_count());
  check_works(pool);
  CHECK_EQ(mproc_pool_destroy(pool), 0);
  CHECK_EQ(mproc_pool_destroy(NULL), 0);
}

typedef struct wrong_pool {
  mproc_pool_options options;
  const char *field;
} wrong_pool;

TEST(bad_options_are_named) {
  static const wrong_pool wrong[] = {
      {{.name = "123456789012345678901234"}, "name"},
      {{.workers = -1}, "workers"},
      {{.workers = MPROC_POOL_WORKERS_MAX + 1}, "workers"},
      {{.initializer_size = 4}, "initializer"},
      {{.tasks_per_worker = -1}, "tasks_per_worker"},
      {{.spares = -1}, "spares"},
      {{.idle_timeout_ms = -1}, "idle_timeout_ms"},
      {{.cpu_count = 2}, "cpu"},
      {{.overflow = (mproc_overflow)3}, "overflow"},
      {{.poison_limit = -1}, "poison_limit"},
      {{.task = {.timeout_ms = -2}}, "timeout_ms"},
      {{.task = {.retries = -2}}, "retries"},
      {{.task = {.retry_delay_ms = -2}}, "retry_delay_ms"},
      {{.task = {.priority = 2}}, "priority"},
      {{.task = {.reserved = {1}}}, "reserved"},
      {{.reserved = {[7] = 1}}, "reserved"},
  };
  mproc_pool *pool = NULL;
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    CHECK_EQ(mproc_pool_create(&pool, &wrong[i].options), -EINVAL);
    CHECK_CONTAINS(mproc_error_detail(), wrong[i].field);
    CHECK(pool == NULL);
  }
  CHECK_EQ(mproc_pool_create(NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_create(&pool, &(mproc_pool_options){.method = "thread"}), MPROC_EMETHOD);
  CHECK(pool == NULL);
}

static int no_input(void *user, mproc_bytes *ret_input) {
  (void)user, (void)ret_input;
  return 0;
}

/* Each function that submits returns `code`. */
static void check_refused(mproc_pool *pool, mproc_task_function *function,
                          const mproc_submit_options *options, int code) {
  mproc_future *future = NULL;
  mproc_imap *imap = NULL;
  const mproc_bytes input = {"x", 1};
  char result[1];
  CHECK_EQ(mproc_pool_apply(pool, function, "x", 1, NULL, 0, NULL, options), code);
  CHECK_EQ(mproc_pool_apply_async(pool, function, "x", 1, &future, options), code);
  CHECK_EQ(mproc_pool_map(pool, function, "x", 1, result, 1, 1, options), code);
  CHECK_EQ(mproc_pool_map_async(pool, function, "x", 1, result, 1, 1, &future, options), code);
  CHECK_EQ(mproc_pool_map_bytes(pool, function, &input, 1, &future, options), code);
  CHECK_EQ(mproc_pool_imap(pool, function, no_input, NULL, &imap, options), code);
  CHECK(future == NULL && imap == NULL);
}

/* So does each of the others, but for destroy. */
static void check_all_refused(mproc_pool *pool, int code) {
  mproc_pool_statistics statistics;
  mproc_worker_statistics of_worker;
  mproc_handle handle;
  check_refused(pool, echo, NULL, code);
  CHECK_EQ(mproc_pool_resize(pool, 1), code);
  CHECK_EQ(mproc_pool_dispatch(pool), code);
  CHECK_EQ(mproc_pool_handle(pool, &handle), code);
  CHECK_EQ(mproc_pool_stats(pool, &statistics), code);
  CHECK_EQ(mproc_pool_worker_stats(pool, 0, &of_worker), code);
  CHECK_EQ(mproc_pool_close(pool), code);
  CHECK_EQ(mproc_pool_terminate(pool), code);
  CHECK_EQ(mproc_pool_join(pool, 0), code);
}

typedef struct wrong_submit {
  mproc_submit_options options;
  const char *field;
} wrong_submit;

TEST(bad_submit_options_are_named) {
  static const wrong_submit wrong[] = {
      {{.timeout_ms = -2}, "timeout_ms"},
      {{.retries = -2}, "retries"},
      {{.retry_delay_ms = -2}, "retry_delay_ms"},
      {{.priority = 2}, "priority"},
      {{.priority = -2}, "priority"},
      {{.reserved = {[7] = 1}}, "reserved"},
  };
  mproc_pool *pool = pool_of("fork", 1);
  for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
    check_refused(pool, echo, &wrong[i].options, -EINVAL);
    CHECK_CONTAINS(mproc_error_detail(), wrong[i].field);
  }
  end_pool(pool);
}

TEST(bad_arguments) {
  mproc_worker_statistics of_worker;
  mproc_imap *imap = NULL;
  char result[8];
  mproc_pool *pool = pool_of("fork", 2);
  check_all_refused(NULL, -EINVAL);
  check_refused(pool, NULL, NULL, -EINVAL);
  CHECK_EQ(mproc_pool_apply(pool, echo, NULL, 1, NULL, 0, NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_apply(pool, echo, "x", 1, NULL, 1, NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_map(pool, echo, NULL, 8, result, 8, 1, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_imap(pool, echo, NULL, NULL, &imap, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_imap(pool, echo, no_input, NULL, NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_stats(pool, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_worker_stats(pool, 0, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_worker_stats(pool, 2, &of_worker), -ENOENT);
  CHECK(mproc_pool_worker_stats(pool, -1, &of_worker) < 0);
  CHECK_EQ(mproc_pool_handle(pool, NULL), -EINVAL);
  CHECK_EQ(mproc_pool_resize(pool, 0), -EINVAL);
  CHECK_EQ(mproc_pool_resize(pool, MPROC_POOL_WORKERS_MAX + 1), -EINVAL);
  CHECK_EQ(mproc_pool_join(pool, MPROC_FOREVER), -EINVAL); /* neither closed nor terminated */
  check_works(pool);
  CHECK_EQ(mproc_pool_close(pool), 0);
  CHECK_EQ(mproc_pool_join(pool, -2), -EINVAL);
  end_pool(pool);
}

/* ---- the end --------------------------------------------------------------------------------- */

EACH_METHOD(closed_pool_finishes_its_work) {
  mproc_future *futures[20];
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < 20; i++)
    futures[i] = submit_hold(pool, b, i, 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_pool_close(pool), 0);
  check_refused(pool, echo, NULL, MPROC_ECLOSED);
  CHECK_EQ(mproc_pool_join(pool, 0), -EAGAIN);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_pool_join(pool, 60), -ETIMEDOUT);
  CHECK(now_ms() - begin >= 59);
  open_gate(b, 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(mproc_future_is_done(futures[i]), 1);
    CHECK_EQ(number_when_done(futures[i]), i);
  }
  CHECK_EQ(mproc_pool_terminate(pool), 0);
  CHECK_EQ(mproc_pool_destroy(pool), 0);
  free_board(b);
}

EACH_METHOD(terminated_pool_cancels_its_tasks) {
  mproc_future *futures[6];
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 2);
  open_gate(b, 1);
  mproc_future *done = submit_hold(pool, b, 42, 1);
  CHECK_EQ(mproc_future_wait(done, JOIN_MS), 0);
  for (int i = 0; i < 6; i++)
    futures[i] = submit_hold(pool, b, i, 0);
  AWAIT(b->begun == 3);
  int64_t begin = now_ms();
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_pool_terminate(pool), 0);
  CHECK_EQ(mproc_pool_close(pool), 0);
  check_refused(pool, echo, NULL, MPROC_ECLOSED);
  CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  CHECK(now_ms() - begin < END_MS);
  CHECK_EQ(number_when_done(done), 42);
  for (int i = 0; i < 6; i++)
    check_cancelled(futures[i]);
  CHECK_EQ(b->begun, 3);
  CHECK_EQ(stats_of(pool).cancelled, 6);
  CHECK_EQ(mproc_pool_destroy(pool), 0);
  free_board(b);
}

EACH_METHOD(destroyed_pool_leaves_futures_that_are_closed) {
  mproc_future *futures[4];
  mproc_bytes result;
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < 4; i++)
    futures[i] = submit_hold(pool, b, i, i > 0);
  open_gate(b, 0);
  CHECK_EQ(mproc_future_wait(futures[0], JOIN_MS), 0);
  AWAIT(b->begun == 3);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_pool_destroy(pool), 0);
  CHECK(now_ms() - begin < END_MS);
  for (int i = 0; i < 4; i++) {
    CHECK_EQ(mproc_future_wait(futures[i], 0), MPROC_ECLOSED);
    CHECK_EQ(mproc_future_result(futures[i], &result), MPROC_ECLOSED);
    mproc_future_destroy(futures[i]);
  }
  free_board(b);
}

EACH_METHOD(destroyed_at_once) {
  for (int i = 0; i < 5; i++) {
    mproc_pool *pool = pool_of(method, 3);
    if (i % 2)
      mproc_future_destroy(submit(pool, echo, "x", 1, NULL));
    if (i == 3)
      CHECK_EQ(mproc_pool_close(pool), 0);
    if (i == 4)
      CHECK_EQ(mproc_pool_terminate(pool), 0);
    CHECK_EQ(mproc_pool_destroy(pool), 0);
  }
}

TEST(pools_leave_nothing_in_the_heap) {
  uint64_t used = 0;
  for (int round = 0; round < 12; round++) {
    mproc_future *futures[30];
    mproc_pool *pool = pool_of("fork", 2);
    char *bytes = calloc(1, 20000);
    for (int i = 0; i < 30; i++)
      futures[i] = submit(pool, echo, bytes, (size_t)i * 600, NULL);
    for (int i = 0; i < 30; i += 2)
      CHECK_EQ(mproc_future_wait(futures[i], JOIN_MS), 0);
    if (round % 2)
      for (int i = 0; i < 30; i++)
        mproc_future_destroy(futures[i]);
    CHECK_EQ(mproc_pool_destroy(pool), 0);
    if (round % 2 == 0)
      for (int i = 0; i < 30; i++)
        mproc_future_destroy(futures[i]);
    free(bytes);
    if (round == 3)
      used = heap_used();
  }
  AWAIT(heap_used() <= used + 64 * 512); /* objects that were destroyed last are kept for a while */
}

static int use_pool_of_parent(void *arg, size_t size) {
  mproc_pool *pool = *(mproc_pool **)arg;
  CHECK_EQ(size, sizeof pool);
  check_all_refused(pool, MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_pool_destroy(pool), MPROC_ENOTCREATOR);
  return 0;
}

static mproc_pool *of_parent;

static void use_pool_as_a_stranger(void) {
  CHECK(mproc_pool_apply(of_parent, echo, "x", 1, NULL, 0, NULL, NULL) < 0);
  CHECK(mproc_pool_destroy(of_parent) < 0);
}

TEST(child_must_not_use_its_parents_pool) {
  mproc_pool *pool = of_parent = pool_of("fork", 2);
  check_works(pool);
  CHECK_EQ(run_child("fork", use_pool_of_parent, &pool, sizeof pool), 0);
  check_works(pool);
  in_child(use_pool_as_a_stranger);
  check_works(pool);
  end_pool(pool);
}

/* ---- one task -------------------------------------------------------------------------------- */

/* Adds 1 to each byte. */
static int shift(mproc_task *task, const void *input, size_t size) {
  const unsigned char *from = input;
  unsigned char *bytes = malloc(size + 1);
  CHECK((from == NULL) == (size == 0));
  CHECK_EQ((uintptr_t)from % 16, 0);
  CHECK(size == 0 || from[size] == '\0');
  CHECK(mproc_task_output(task) == NULL);
  CHECK_EQ(mproc_task_output_size(task), 0);
  for (size_t i = 0; i < size; i++)
    bytes[i] = (unsigned char)(from[i] + 1);
  if (size % 2)
    CHECK_EQ(mproc_task_result(task, "another one", 11), 0); /* is replaced */
  int r = mproc_task_result(task, bytes, size);
  free(bytes);
  return r;
}

static const size_t sizes[] = {0, 1, 31, 32, 33, 4096, 1 << 20};

EACH_METHOD(inputs_and_results_of_every_size) {
  unsigned char *bytes = malloc(1 << 20), *back = malloc(1 << 20);
  mproc_pool *pool = pool_of(method, 2);
  for (size_t i = 0; i < 2 * sizeof sizes / sizeof sizes[0]; i++) {
    size_t size = sizes[i / 2], ret_size = 99;
    for (size_t k = 0; k < size; k++)
      bytes[k] = (unsigned char)(k * 7 + k / 251 + i);
    memset(back, 0xee, 1 << 20);
    CHECK_EQ(mproc_pool_apply(pool, shift, bytes, size, back, size, &ret_size, NULL), 0);
    CHECK_EQ(ret_size, size);
    for (size_t k = 0; k < size; k++)
      if (back[k] != (unsigned char)(bytes[k] + 1))
        test_fail(__FILE__, __LINE__, "result", "byte %zu of %zu", k, size);
    CHECK(size == 1 << 20 || back[size] == 0xee);
    ret_size = 99;
    CHECK_EQ(mproc_pool_apply(pool, shift, bytes, size, NULL, 0, &ret_size, NULL), 0);
    CHECK_EQ(ret_size, size);
    if (size < 2)
      continue;
    memset(back, 0xee, size);
    CHECK_EQ(mproc_pool_apply(pool, shift, bytes, size, back, size - 1, &ret_size, NULL), -ENOBUFS);
    CHECK_EQ(ret_size, size);
    CHECK(back[0] == 0xee && back[size - 2] == 0xee);
  }
  size_t none = 99;
  CHECK_EQ(mproc_pool_apply(pool, do_nothing, "x", 1, back, 8, &none, NULL), 0);
  CHECK_EQ(none, 0);
  free(bytes);
  free(back);
  end_pool(pool);
}

static int fail_silently(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  return -EIO;
}

static int fail_at_length(mproc_task *task, const void *input, size_t size) {
  char text[2000];
  (void)input, (void)size;
  memset(text, 'x', sizeof text);
  return mproc_task_fail(task, 3, "%.*s", (int)sizeof text, text);
}

static int fail_and_succeed(mproc_task *task, const void *input, size_t size) {
  CHECK_EQ(mproc_task_fail(task, 5, "no more than a word"), 5);
  return mproc_task_result(task, input, size);
}

EACH_METHOD(failures_say_how) {
  const int code = 42;
  char text[512];
  mproc_pool *pool = pool_of(method, 1);
  CHECK_EQ(mproc_pool_apply(pool, fail_with, &code, sizeof code, NULL, 0, NULL, NULL), MPROC_ETASK);
  CHECK_CONTAINS(mproc_error_detail(), "row 7 of the table");
  mproc_future *future = submit(pool, fail_with, &code, sizeof code, NULL);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  CHECK_CONTAINS(mproc_error_detail(), "row 7 of the table");
  mproc_failure failure = failure_of(future);
  CHECK_EQ(failure.cause, MPROC_CAUSE_ERROR);
  CHECK_EQ(failure.code, 42);
  CHECK_EQ(failure.index, 0);
  CHECK_EQ(failure.attempts, 1);
  CHECK_EQ(failure.worker, 0);
  CHECK_EQ(failure.pid, worker_of(pool, 0).pid);
  CHECK(failure.run_time_ns >= -1 && failure.run_time_ns < JOIN_MS * 1000000LL);
  CHECK_STR(failure.text, "row 7 of the table");
  CHECK_STR(failure.errors, "");
  CHECK_CONTAINS(mproc_strfailure(&failure, text, sizeof text), "42");
  CHECK_STR(mproc_strfailure(&failure, text, 1), "");
  CHECK_STR(mproc_strfailure(&failure, NULL, 0), "");
  mproc_future_destroy(future);

  future = submit(pool, fail_silently, NULL, 0, NULL);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  failure = failure_of(future);
  CHECK_EQ(failure.code, -EIO);
  CHECK_STR(failure.text, "");
  mproc_future_destroy(future);

  future = submit(pool, fail_at_length, NULL, 0, NULL);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  CHECK_EQ(strlen(failure_of(future).text), 511);
  mproc_future_destroy(future);
  future = submit(pool, fail_and_succeed, "12345678", 8, NULL);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  CHECK_EQ(mproc_future_failures(future), 0);
  CHECK_EQ(mproc_future_failure(future, 0, &failure), -ENOENT);
  mproc_future_destroy(future);
  end_pool(pool);
}

/* Succeeds at the attempt that is its input, which is its result too. */
static int succeed_at(mproc_task *task, const void *input, size_t size) {
  CHECK_EQ(size, sizeof(int64_t));
  if (mproc_task_attempt(task) < *(const int64_t *)input)
    return mproc_task_fail(task, 1, "attempt %d", mproc_task_attempt(task));
  int64_t attempt = mproc_task_attempt(task);
  return mproc_task_result(task, &attempt, sizeof attempt);
}

TEST(retries) {
  const mproc_pool_options options = {.workers = 1, .method = "fork", .task = {.retries = 1}};
  const mproc_submit_options twice = {.retries = 2, .retry_delay_ms = 30}, never = {.retries = -1};
  mproc_pool *pool = pool_with(&options);
  int64_t want = 3, begin = now_ms();
  CHECK_EQ(number_when_done(submit(pool, succeed_at, &want, sizeof want, &twice)), 3);
  CHECK(now_ms() - begin >= 89);
  CHECK_EQ(stats_of(pool).retried, 2);
  static const int attempts[] = {2, 1};
  for (int i = 0; i < 2; i++) {
    mproc_future *future = submit(pool, succeed_at, &want, sizeof want, i ? &never : NULL);
    CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
    mproc_failure failure = failure_of(future);
    CHECK_EQ(failure.attempts, attempts[i]);
    CHECK_STR(failure.text, i ? "attempt 1" : "attempt 2");
    mproc_future_destroy(future);
  }
  want = 2;
  CHECK_EQ(number_when_done(submit(pool, succeed_at, &want, sizeof want, NULL)), 2);
  CHECK_EQ(stats_of(pool).retried, 4);
  CHECK_EQ(stats_of(pool).failed, 2);
  CHECK_EQ(stats_of(pool).done, 2);
  end_pool(pool);
}

typedef struct whereabouts {
  uint64_t index;
  int attempt, worker, is_cancelled, cpus;
  const void *state;
  int64_t pid;
  char name[32];
} whereabouts;

static int tell_whereabouts(mproc_task *task, const void *input, size_t size) {
  mproc_process_info info;
  cpu_set_t cpus;
  (void)input, (void)size;
  CHECK_EQ(mproc_current_process(&info), 0);
  CHECK_EQ(sched_getaffinity(0, sizeof cpus, &cpus), 0);
  whereabouts here = {.index = mproc_task_index(task),
                      .attempt = mproc_task_attempt(task),
                      .worker = mproc_task_worker(task),
                      .is_cancelled = mproc_task_is_cancelled(task),
                      .cpus = CPU_COUNT(&cpus),
                      .state = mproc_task_state(task),
                      .pid = info.pid};
  memcpy(here.name, info.name, sizeof here.name);
  return mproc_task_result(task, &here, sizeof here);
}

EACH_METHOD(task_knows_where_it_is) {
  const int cpu = sched_getcpu();
  mproc_pool_options options = {.method = method, .workers = 2, .cpus = &cpu, .cpu_count = 1};
  char name[32] = "12345678901234567890123", wanted[40];
  whereabouts here;
  options.name = name;
  mproc_pool *pool = pool_with(&options);
  memset(name, '?', 23); /* it was copied */
  for (int i = 0; i < 20; i++) {
    size_t size;
    CHECK_EQ(mproc_pool_apply(pool, tell_whereabouts, NULL, 0, &here, sizeof here, &size, NULL), 0);
    CHECK_EQ(size, sizeof here);
    CHECK_EQ(here.index, 0);
    CHECK_EQ(here.attempt, 1);
    CHECK_EQ(here.is_cancelled, 0);
    CHECK(here.state == NULL);
    CHECK_EQ(here.cpus, 1);
    CHECK(here.worker == 0 || here.worker == 1);
    CHECK_EQ(here.pid, worker_of(pool, here.worker).pid);
    snprintf(wanted, sizeof wanted, "12345678901234567890123:%d", here.worker);
    CHECK_STR(here.name, wanted);
  }
  end_pool(pool);
}

/* ---- initializers ---------------------------------------------------------------------------- */

typedef struct worker_arg {
  board *b;
  int64_t number;
  char text[100];
} worker_arg;

static int begin_work(void *arg, size_t size, void **ret_state) {
  worker_arg *own = arg;
  CHECK_EQ(size, sizeof *own);
  CHECK_EQ((uintptr_t)arg % 64, 0);
  CHECK_STR(own->text, "of all workers");
  CHECK_EQ(own->number, 40); /* what others wrote is not seen */
  own->number++;
  own->b->initialized++;
  *ret_state = own;
  return 0;
}

static void end_work(void *state) {
  worker_arg *own = state;
  CHECK_EQ(own->number % 10, 1);
  own->b->has_ended++;
}

static int tell_state(mproc_task *task, const void *input, size_t size) {
  worker_arg *own = mproc_task_state(task);
  (void)input, (void)size;
  own->number += 10;
  return mproc_task_result(task, &own->number, sizeof own->number);
}

static mproc_pool *pool_that_begins(const char *method, board *b, int workers) {
  worker_arg arg = {b, 40, "of all workers"};
  mproc_pool_options options = {.method = method,
                                .workers = workers,
                                .initializer = begin_work,
                                .initializer_arg = &arg,
                                .initializer_size = sizeof arg,
                                .worker_exit = end_work};
  mproc_pool *pool = pool_with(&options);
  memset(&arg, 0, sizeof arg); /* they were copied */
  memset(&options, 0, sizeof options);
  return pool;
}

EACH_METHOD(initializer_and_worker_exit) {
  board *b = new_board();
  mproc_pool *pool = pool_that_begins(method, b, 1);
  for (int i = 1; i <= 5; i++)
    CHECK_EQ(number_when_done(submit(pool, tell_state, NULL, 0, NULL)), 41 + 10 * i);
  CHECK_EQ(b->initialized, 1);
  CHECK_EQ(b->has_ended, 0);
  end_pool(pool);
  CHECK_EQ(b->has_ended, 1);

  pool = pool_that_begins(method, b, 3);
  AWAIT(b->initialized == 4);
  end_pool(pool);
  CHECK_EQ(b->has_ended, 4);

  pool = pool_that_begins(method, b, 3);
  AWAIT(b->initialized == 7);
  CHECK_EQ(mproc_pool_terminate(pool), 0);
  CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  CHECK_EQ(mproc_pool_destroy(pool), 0);
  CHECK_EQ(b->has_ended, 4); /* who is killed runs nothing */
  free_board(b);
}

static int refuse_to_work(void *arg, size_t size, void **ret_state) {
  (void)arg, (void)size, (void)ret_state;
  return 7;
}

EACH_METHOD(initializer_that_fails) {
  mproc_pool_options options = {.method = method, .workers = 2, .initializer = refuse_to_work};
  mproc_pool *pool = pool_with(&options);
  mproc_future *future = NULL;
  int r = mproc_pool_apply_async(pool, echo, "x", 1, &future, NULL);
  if (r == 0)
    r = mproc_future_wait(future, JOIN_MS);
  CHECK(r == MPROC_ETASK || r == MPROC_EPOOL);
  CHECK_CONTAINS(mproc_error_detail(), "initializer");
  if (r == MPROC_ETASK)
    CHECK_EQ(failure_of(future).cause, MPROC_CAUSE_INITIALIZER);
  mproc_future_destroy(future);
  AWAIT(mproc_pool_apply(pool, echo, "x", 1, NULL, 0, NULL, NULL) == MPROC_EPOOL);
  CHECK_CONTAINS(mproc_error_detail(), "initializer");
  CHECK_EQ(mproc_pool_destroy(pool), 0);
}

/* ---- who may have pools, and how many -------------------------------------------------------- */

enum { THREADS = 4, ROUNDS = 150 }; /* a multiple of three */

static void *use_pool_in_thread(void *arg) {
  mproc_pool *pool = arg;
  for (int64_t i = 0; i < ROUNDS; i++) {
    int64_t back = -1;
    if (i % 3 == 0) {
      CHECK_EQ(mproc_pool_apply(pool, echo, &i, sizeof i, &back, sizeof back, NULL, NULL), 0);
      CHECK_EQ(back, i);
    } else {
      mproc_future *first = submit(pool, echo, &i, sizeof i, NULL);
      mproc_future *second = submit(pool, echo, &back, sizeof back, NULL);
      CHECK_EQ(number_when_done(second), -1);
      CHECK_EQ(number_when_done(first), i);
    }
    if (i % 16 == 0)
      CHECK_OK(mproc_pool_dispatch(pool));
  }
  return NULL;
}

EACH_METHOD(threads_submit_at_once) {
  pthread_t threads[THREADS];
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < THREADS; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, use_pool_in_thread, pool), 0);
  for (int i = 0; i < THREADS; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(stats_of(pool).done, THREADS * (ROUNDS / 3 + 2 * (ROUNDS - ROUNDS / 3)));
  end_pool(pool);
}

TEST(two_pools_at_once) {
  mproc_future *futures[40];
  mproc_pool *first = pool_of("fork", 2), *second = pool_of("spawn", 1);
  for (int64_t i = 0; i < 40; i++)
    futures[i] = submit(i % 2 ? first : second, echo, &i, sizeof i, NULL);
  CHECK_EQ(mproc_future_wait_any(futures, 2, JOIN_MS), -EINVAL);
  CHECK_EQ(mproc_future_wait_all(futures, 2, JOIN_MS), -EINVAL);
  for (int i = 0; i < 40; i++)
    CHECK_EQ(number_when_done(futures[i]), i);
  CHECK(pid_of_worker(first) != pid_of_worker(second));
  end_pool(first);
  check_works(second);
  first = pool_of("forkserver", 1);
  check_works(first);
  end_pool(second);
  check_works(first);
  end_pool(first);
}

static int use_pool_in_task(mproc_task *task, const void *input, size_t size) {
  int64_t numbers[10];
  mproc_pool *pool = pool_of(input, 1);
  CHECK(size > 0);
  CHECK_EQ(mproc_pool_map(pool, echo, "1234567890", 1, numbers, 1, 8, NULL), 0);
  CHECK(memcmp(numbers, "12345678", 8) == 0);
  check_works(pool);
  end_pool(pool);
  return return_pid(task, NULL, 0);
}

EACH_METHOD(pools_in_workers) {
  mproc_future *futures[4];
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < 4; i++)
    futures[i] = submit(pool, use_pool_in_task, method, strlen(method) + 1, NULL);
  for (int i = 0; i < 4; i++)
    CHECK(number_when_done(futures[i]) > 0);
  end_pool(pool);
}

static int use_pool_in_child(void *arg, size_t size) {
  CHECK(size > 0);
  mproc_pool *pool = pool_of(arg, 2);
  check_works(pool);
  end_pool(pool);
  return 17;
}

EACH_METHOD(pool_of_a_child) {
  CHECK_EQ(run_child(method, use_pool_in_child, method, strlen(method) + 1), 17);
}

static mproc_pool *left;

static void leave_pool_behind(board *b) {
  left = pool_of(NULL, 2);
  for (int i = 0; i < 6; i++) {
    const job own = {b, i, 0};
    CHECK_EQ(mproc_pool_apply_async(left, hold, &own, sizeof own, NULL, NULL), 0);
  }
  AWAIT(b->begun == 2);
}

static int leave_pool(void *arg, size_t size) {
  CHECK_EQ(size, sizeof(board *));
  leave_pool_behind(*(board **)arg);
  return 23;
}

EACH_METHOD(child_ends_without_destroying_its_pool) {
  board *b = new_board();
  CHECK_EQ(mproc_set_start_method(method, 0), 0);
  int64_t begin = now_ms();
  CHECK_EQ(run_child(method, leave_pool, &b, sizeof b), 23);
  CHECK(now_ms() - begin < END_MS);
  for (int i = 0; i < 2; i++)
    CHECK(gone_within(b->pids[i], 1000));
  CHECK_EQ(b->begun, 2);
  free_board(b);
}

/* The limit and the runner's audit say what must not be. */
EACH_METHOD_LIMIT(program_ends_without_destroying_its_pool, 6) {
  CHECK_EQ(mproc_set_start_method(method, 0), 0);
  leave_pool_behind(new_board());
  exit(EXIT_SUCCESS);
}

/* ---- tasks of libraries ---------------------------------------------------------------------- */

#if MPX_STATIC_TESTS
#define SKIP_WITHOUT_LIBRARIES() SKIP("a static program cannot load libraries")
#else
#define SKIP_WITHOUT_LIBRARIES() ((void)0)
#endif

EACH_METHOD(library_loaded_when_the_pool_is_there) {
  SKIP_WITHOUT_LIBRARIES();
  const mproc_task_descriptor *triple;
  mproc_task_function *quadruple;
  int64_t inputs[50], outputs[50];
  mproc_pool *pool = pool_of(method, 2);
  check_works(pool);
  void *library = dlopen(test_child_path("pool_library.so"), RTLD_NOW);
  if (!library)
    test_fail(__FILE__, __LINE__, "dlopen", "%s", dlerror());
  *(const void **)&triple = dlsym(library, "mproc_task_triple");
  *(void **)&quadruple = dlsym(library, "quadruple");
  CHECK(triple && quadruple);
  CHECK_EQ(triple->magic, MPROC_TASK_MAGIC);
  for (int64_t i = 0; i < 50; i++)
    inputs[i] = i;
  for (int64_t i = 0; i < 10; i++) {
    CHECK_EQ(number_when_done(submit(pool, triple->function, &i, sizeof i, NULL)), 3 * i);
    CHECK_EQ(number_when_done(submit(pool, quadruple, &i, sizeof i, NULL)), 4 * i);
  }
  CHECK_EQ(mproc_pool_map(pool, triple->function, inputs, 8, outputs, 8, 50, NULL), 0);
  for (int i = 0; i < 50; i++)
    CHECK_EQ(outputs[i], 3 * i);
  CHECK_EQ(mproc_pool_apply(pool, quadruple, "x", 1, NULL, 0, NULL, NULL), MPROC_ETASK);
  CHECK_CONTAINS(mproc_error_detail(), "1 bytes are no number");
  end_pool(pool);
}
