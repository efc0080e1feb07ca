/* Pool: what its workers are called, how they come and go, who gets which task when, how the caller
 * hears of it, and what the figures say. */
#include "each_method.h"
#include "harness.h"
#include "pools.h"

#include <poll.h>
#include <pthread.h>

/* ---- as the system sees them ----------------------------------------------------------------- */

static bool is_called(int64_t pid, const char *name) {
  return strcmp(look_at(pid).name, name) == 0;
}

static bool only_child_is_called(const char *name) {
  int64_t pids[16];
  return children_of(getpid(), pids, 16) == 1 && is_called(pids[0], name);
}

static int count_threads(void) {
  int count = 0;
  DIR *folder = opendir("/proc/self/task");
  CHECK(folder != NULL);
  for (struct dirent *entry; (entry = readdir(folder));)
    count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

EACH_METHOD(processes_have_names) {
  const mproc_pool_options options = {.name = "crew", .method = method, .workers = 3};
  int threads = count_threads();
  mproc_pool *pool = pool_with(&options);
  for (int i = 0; i < 3; i++) {
    char name[32];
    snprintf(name, sizeof name, "crew:%d", i);
    AWAIT(is_called(pid_of(pool, i), name));
    AWAIT(worker_of(pool, i).started == 1);
  }
  if (strcmp(method, "forkserver") != 0) /* there it is the server's */
    AWAIT(only_child_is_called("crew:supervisor"));
  CHECK_EQ(count_threads(), threads);
  end_pool(pool);
}

static int tell_name(mproc_task *task, const void *input, size_t size) {
  mproc_process_info info;
  (void)input, (void)size;
  CHECK_EQ(mproc_current_process(&info), 0);
  return mproc_task_result(task, info.name, strlen(info.name) + 1);
}

TEST(default_names_differ) {
  mproc_pool *pools[2];
  char names[2][32];
  for (int i = 0; i < 2; i++) {
    pools[i] = pool_of("fork", 1);
    CHECK_EQ(mproc_pool_apply(pools[i], tell_name, NULL, 0, names[i], 32, NULL, NULL), 0);
    CHECK(strncmp(names[i], "Pool-", 5) == 0);
    CHECK_STR(names[i] + strcspn(names[i], ":"), ":0");
  }
  CHECK(strcmp(names[0], names[1]) != 0);
  for (int i = 0; i < 2; i++)
    end_pool(pools[i]);
}

/* ---- callbacks ------------------------------------------------------------------------------- */

static struct {
  bool allowed;
  int done, failed;
  pthread_t thread;
} told;

static void check_teller(mproc_future *future, void *user) {
  CHECK(told.allowed);
  CHECK(pthread_equal(pthread_self(), told.thread));
  CHECK(user == &told);
  CHECK_EQ(mproc_future_is_done(future), 1);
}

static void on_done(mproc_future *future, void *user) {
  check_teller(future, user);
  told.done++;
}

static void on_error(mproc_future *future, void *user) {
  check_teller(future, user);
  CHECK_EQ(failure_of(future).cause, MPROC_CAUSE_ERROR);
  told.failed++;
}

static const mproc_submit_options telling = {.done = on_done, .error = on_error, .user = &told};

EACH_METHOD(callbacks_run_in_dispatch_only) {
  enum { TASKS = 10 };
  const int code = 9;
  const mproc_submit_options done_only = {.done = on_done, .user = &told};
  mproc_future *futures[TASKS + 2];
  mproc_pool *pool = pool_of(method, 2);
  told.thread = pthread_self();
  for (int i = 0; i < TASKS; i++)
    futures[i] = submit(pool, i % 5 ? echo : fail_with, &code, sizeof code, &telling);
  futures[TASKS] = submit(pool, fail_with, &code, sizeof code, &done_only);
  CHECK_EQ(
      mproc_pool_map_async(pool, do_nothing, NULL, 0, NULL, 0, 100, &futures[TASKS + 1], &telling),
      0);
  for (int i = 0; i < TASKS + 2; i++)
    AWAIT(mproc_future_is_done(futures[i]));
  CHECK_EQ(told.done + told.failed, 0);
  told.allowed = true;
  CHECK_EQ(mproc_pool_dispatch(pool), TASKS + 2);
  told.allowed = false;
  CHECK_EQ(told.done, TASKS);
  CHECK_EQ(told.failed, 2);
  CHECK_EQ(mproc_pool_dispatch(pool), 0);
  for (int i = 0; i < TASKS + 2; i++) {
    CHECK_EQ(mproc_future_wait(futures[i], 0), i % 5 && i != TASKS ? 0 : MPROC_ETASK);
    mproc_future_destroy(futures[i]);
  }
  end_pool(pool);
}

static void *wait_in_thread(void *arg) {
  told.thread = pthread_self();
  told.allowed = true;
  CHECK_EQ(mproc_future_wait(arg, JOIN_MS), 0);
  return NULL;
}

TEST(callbacks_run_in_the_thread_that_waits) {
  pthread_t thread;
  board *b = new_board();
  mproc_pool *pool = pool_of("fork", 1);
  const job own = {b, 1, 0};
  mproc_future *first = submit(pool, hold, &own, sizeof own, &telling);
  mproc_future *last = submit_hold(pool, b, 2, 0);
  CHECK_EQ(pthread_create(&thread, NULL, wait_in_thread, last), 0);
  AWAIT(b->begun == 1);
  open_gate(b, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(told.done, 1); /* of the first, in a wait for the last */
  CHECK_EQ(number_when_done(first), 1);
  CHECK_EQ(number_when_done(last), 2);
  CHECK_EQ(told.done, 1);
  end_pool(pool);
  free_board(b);
}

enum { CHAIN = 6 };

typedef struct chain {
  mproc_pool *pool;
  int64_t next;
} chain;

/* Nobody keeps the future; the next task is put from here. */
static void on_link(mproc_future *future, void *user) {
  chain *c = user;
  const mproc_submit_options options = {.done = on_link, .user = c};
  CHECK_EQ(number_of(future), c->next);
  if (++c->next < CHAIN)
    CHECK_EQ(mproc_pool_apply_async(c->pool, echo, &c->next, sizeof c->next, NULL, &options), 0);
}

TEST(callbacks_without_a_future_go_on) {
  chain c = {pool_of("fork", 1), 0};
  const mproc_submit_options options = {.done = on_link, .user = &c};
  CHECK_EQ(mproc_pool_apply_async(c.pool, echo, &c.next, sizeof c.next, NULL, &options), 0);
  CHECK_EQ(mproc_pool_apply_async(c.pool, do_nothing, NULL, 0, NULL, NULL), 0);
  AWAIT(c.next == CHAIN || mproc_pool_dispatch(c.pool) < 0);
  CHECK_EQ(c.next, CHAIN);
  c.next = CHAIN - 1;
  CHECK_EQ(mproc_pool_apply_async(c.pool, echo, &c.next, sizeof c.next, NULL, &options), 0);
  end_pool(c.pool); /* join runs the last one */
  CHECK_EQ(c.next, CHAIN);
}

EACH_METHOD(handle_tells_when_to_dispatch) {
  mproc_handle handle;
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 2);
  int r = mproc_pool_handle(pool, &handle), dispatched = 0;
  if (r == -ENOSYS)
    SKIP("no handles here");
  CHECK_EQ(r, 0);
  told.thread = pthread_self();
  told.allowed = true;
  for (int round = 0; round < 5; round++) {
    const job own = {b, round, 0};
    mproc_future *futures[2] = {submit(pool, hold, &own, sizeof own, &telling),
                                submit(pool, hold, &own, sizeof own, &telling)};
    AWAIT(b->begun == 2 * round + 2);
    AWAIT((dispatched += mproc_pool_dispatch(pool), !is_readable(handle)));
    CHECK_EQ(told.done, 2 * round);
    open_gate(b, 0);
    while (told.done < 2 * round + 2) {
      mproc_wait_item item = {.kind = MPROC_WAIT_READABLE, .handle = handle};
      CHECK_EQ(mproc_wait(&item, 1, 0, JOIN_MS), 1);
      dispatched += mproc_pool_dispatch(pool);
    }
    AWAIT((dispatched += mproc_pool_dispatch(pool), !is_readable(handle)));
    CHECK_EQ(mproc_event_clear(b->gates[0]), 0);
    for (int i = 0; i < 2; i++)
      CHECK_EQ(number_when_done(futures[i]), round);
  }
  CHECK_EQ(dispatched, told.done);
  end_pool(pool);
  free_board(b);
}

/* ---- who may submit how many, and in which order --------------------------------------------- */

static mproc_pool *limited_pool(size_t limit, mproc_overflow overflow) {
  const mproc_pool_options options = {
      .method = "fork", .workers = 1, .queue_limit = limit, .overflow = overflow};
  return pool_with(&options);
}

TEST(overflow_fails) {
  board *b = new_board();
  mproc_pool *pool = limited_pool(3, MPROC_OVERFLOW_FAIL);
  mproc_future *futures[2], *map = NULL, *none = NULL;
  for (int i = 0; i < 2; i++)
    futures[i] = submit_hold(pool, b, i, 0);
  CHECK_EQ(mproc_pool_map_async(pool, do_nothing, NULL, 0, NULL, 0, 1000, &map, NULL), 0);
  CHECK_EQ(mproc_pool_apply_async(pool, echo, "x", 1, &none, NULL), -EAGAIN);
  CHECK_EQ(mproc_pool_apply(pool, echo, "x", 1, NULL, 0, NULL, NULL), -EAGAIN);
  CHECK_EQ(mproc_pool_map(pool, do_nothing, NULL, 0, NULL, 0, 2, NULL), -EAGAIN);
  CHECK(none == NULL);
  open_gate(b, 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(number_when_done(futures[i]), i);
  CHECK_EQ(mproc_future_wait(map, JOIN_MS), 0);
  mproc_future_destroy(map);
  check_works(pool);
  end_pool(pool);
  free_board(b);
}

TEST(overflow_drops) {
  board *b = new_board();
  mproc_pool *pool = limited_pool(2, MPROC_OVERFLOW_DROP);
  mproc_future *futures[2];
  for (int i = 0; i < 2; i++)
    futures[i] = submit_hold(pool, b, i, 0);
  for (int i = 0; i < 3; i++)
    check_cancelled(submit_hold(pool, b, i, 0));
  CHECK_EQ(mproc_pool_apply(pool, echo, "x", 1, NULL, 0, NULL, NULL), MPROC_ETASK);
  open_gate(b, 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(number_when_done(futures[i]), i);
  CHECK_EQ(b->begun, 2);
  CHECK_EQ(stats_of(pool).cancelled, 4);
  check_works(pool);
  end_pool(pool);
  free_board(b);
}

static struct {
  mproc_pool *pool;
  board *b;
  _Atomic int submitted;
} blocked;

static void *submit_in_thread(void *arg) {
  const job own = {blocked.b, 2, 0};
  (void)arg;
  for (int i = 0; i < 3; i++, blocked.submitted++)
    CHECK_EQ(mproc_pool_apply_async(blocked.pool, hold, &own, sizeof own, NULL, NULL), 0);
  return NULL;
}

TEST(overflow_blocks) {
  pthread_t thread;
  board *b = blocked.b = new_board();
  mproc_pool *pool = blocked.pool = limited_pool(2, MPROC_OVERFLOW_BLOCK);
  mproc_future *futures[2];
  for (int i = 0; i < 2; i++)
    futures[i] = submit_hold(pool, b, i, 0);
  CHECK_EQ(pthread_create(&thread, NULL, submit_in_thread, NULL), 0);
  sleep_ms(100); /* would be enough for one that does not wait */
  CHECK_EQ(blocked.submitted, 0);
  open_gate(b, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(number_when_done(futures[i]), i);
  for (int i = 0; i < 50; i++) /* nobody dispatches meanwhile */
    CHECK_EQ(mproc_pool_apply_async(pool, do_nothing, NULL, 0, NULL, NULL), 0);
  CHECK_EQ(mproc_pool_close(pool), 0);
  CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  CHECK_EQ(b->over, 5);
  CHECK_EQ(stats_of(pool).done, 55);
  CHECK_EQ(mproc_pool_destroy(pool), 0);
  free_board(b);
}

EACH_METHOD(priorities) {
  enum { OF_EACH = 4 };
  static const int order[] = {0, -1, 1};
  mproc_future *futures[3 * OF_EACH];
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 1);
  mproc_future *first = submit_hold(pool, b, 9, 0);
  AWAIT(b->begun == 1);
  for (int i = 0; i < 3 * OF_EACH; i++) {
    const mproc_submit_options options = {.priority = order[i % 3]};
    const job own = {b, order[i % 3], 0};
    futures[i] = submit(pool, hold, &own, sizeof own, &options);
  }
  open_gate(b, 0);
  CHECK_EQ(number_when_done(first), 9);
  for (int i = 0; i < 3 * OF_EACH; i++)
    CHECK_EQ(number_when_done(futures[i]), order[i % 3]);
  for (int i = 0; i < 3 * OF_EACH; i++)
    CHECK_EQ(b->numbers[1 + i], 1 - i / OF_EACH);
  end_pool(pool);
  free_board(b);
}

/* ---- more and fewer of them ------------------------------------------------------------------ */

static void count_end(void *state) {
  board *b = state;
  b->has_ended++;
}

static int begin_with_board(void *arg, size_t size, void **ret_state) {
  CHECK_EQ(size, sizeof(board *));
  board *b = *(board **)arg;
  b->initialized++;
  *ret_state = b;
  return 0;
}

static mproc_pool *pool_with_board(mproc_pool_options options, board *b) {
  options.initializer = begin_with_board;
  options.initializer_arg = &b;
  options.initializer_size = sizeof b;
  options.worker_exit = count_end;
  return pool_with(&options);
}

EACH_METHOD(resize) {
  mproc_future *futures[12];
  board *b = new_board();
  mproc_pool *pool = pool_with_board((mproc_pool_options){.method = method, .workers = 1}, b);
  for (int i = 0; i < 4; i++)
    futures[i] = submit_hold(pool, b, i, 0);
  AWAIT(b->begun == 1);
  CHECK_EQ(mproc_pool_resize(pool, 4), 0);
  CHECK_EQ(stats_of(pool).workers, 4);
  AWAIT(b->begun == 4);
  CHECK_EQ(mproc_pool_resize(pool, 1), 0); /* does not wait for them */
  CHECK_EQ(b->inside, 4);
  open_gate(b, 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(number_when_done(futures[i]), i);
  AWAIT(stats_of(pool).alive == 1 && b->has_ended == 3);
  for (int i = 4; i < 12; i++)
    futures[i] = submit_hold(pool, b, i, 1);
  AWAIT(b->begun == 5);
  CHECK_EQ(b->inside, 1);
  CHECK_EQ(stats_of(pool).queued, 7);
  CHECK_EQ(mproc_pool_resize(pool, 2), 0);
  AWAIT(b->begun == 6);
  open_gate(b, 1);
  for (int i = 4; i < 12; i++)
    CHECK_EQ(number_when_done(futures[i]), i);
  CHECK_EQ(b->most_inside, 4);
  CHECK_EQ(stats_of(pool).workers, 2);
  CHECK_EQ(stats_of(pool).died, 0);
  end_pool(pool);
  CHECK_EQ(b->has_ended, b->initialized);
  free_board(b);
}

EACH_METHOD(spare_takes_the_place) {
  const mproc_pool_options options = {.method = method, .workers = 2, .spares = 1};
  board *b = new_board();
  mproc_pool *pool = pool_with_board(options, b);
  for (int round = 0; round < 3; round++) {
    AWAIT(b->initialized == 3 + round && stats_of(pool).alive == 3 && stats_of(pool).spares == 1);
    CHECK_EQ(stats_of(pool).workers, 2);
    CHECK_EQ(stats_of(pool).died, round);
    int64_t pid = pid_of(pool, round % 2);
    CHECK(pid > 0);
    CHECK_EQ(kill((pid_t)pid, SIGKILL), 0);
    AWAIT(stats_of(pool).died == (uint64_t)round + 1);
    for (int i = 0; i < 10; i++)
      CHECK(pid_of_worker(pool) != pid);
  }
  CHECK_EQ(stats_of(pool).failed, 0);
  AWAIT(stats_of(pool).started == 6 && b->initialized == 6);
  end_pool(pool);
  CHECK_EQ(b->has_ended, 3);
  free_board(b);
}

EACH_METHOD(idle_workers_leave_and_come_back) {
  const mproc_pool_options options = {.method = method, .workers = 2, .idle_timeout_ms = 40};
  mproc_future *futures[2];
  board *b = new_board();
  mproc_pool *pool = pool_with(&options);
  for (int round = 1; round <= 3; round++) {
    AWAIT(stats_of(pool).alive == 0);
    check_works(pool);
    for (int i = 0; i < 2; i++)
      futures[i] = submit_hold(pool, b, i, 0);
    AWAIT(b->begun == 2 * round);
    sleep_ms(round == 1 ? 120 : 0); /* who has a task stays */
    CHECK_EQ(b->inside, 2);
    CHECK_EQ(stats_of(pool).alive, 2);
    open_gate(b, 0);
    for (int i = 0; i < 2; i++)
      CHECK_EQ(number_when_done(futures[i]), i);
    CHECK_EQ(mproc_event_clear(b->gates[0]), 0);
  }
  AWAIT(stats_of(pool).alive == 0);
  AWAIT(pid_of(pool, 0) == 0);
  CHECK_EQ(stats_of(pool).died, 0);
  CHECK(stats_of(pool).started >= 6);
  end_pool(pool);
  free_board(b);
}

EACH_METHOD(tasks_per_worker) {
  enum { TASKS = 13 };
  const mproc_pool_options options = {.method = method, .workers = 1, .tasks_per_worker = 3};
  int64_t pids[TASKS];
  mproc_future *futures[TASKS];
  board *b = new_board();
  mproc_pool *pool = pool_with_board(options, b);
  for (int i = 0; i < TASKS; i++)
    futures[i] = submit(pool, return_pid, NULL, 0, NULL);
  for (int i = 0; i < TASKS; i++)
    pids[i] = number_when_done(futures[i]);
  for (int i = 0; i < TASKS; i++) {
    int same = 0;
    for (int k = 0; k < TASKS; k++)
      same += pids[k] == pids[i];
    CHECK(same == 3 || (same == 1 && i == TASKS - 1));
  }
  CHECK_EQ(stats_of(pool).done, TASKS);
  CHECK_EQ(stats_of(pool).died, 0);
  end_pool(pool);
  CHECK_EQ(b->initialized, b->has_ended);
  CHECK(b->initialized >= 5);
  free_board(b);
}

static int put_pid(mproc_task *task, const void *input, size_t size) {
  (void)input, (void)size;
  *(int64_t *)mproc_task_output(task) = getpid();
  return 0;
}

/* Inputs of a map count as tasks. */
TEST(tasks_per_worker_in_a_map) {
  enum { COUNT = 200 };
  const mproc_pool_options options = {.method = "fork", .workers = 2, .tasks_per_worker = 20};
  static int64_t pids[COUNT];
  mproc_pool *pool = pool_with(&options);
  CHECK_EQ(mproc_pool_map(pool, put_pid, NULL, 0, pids, sizeof pids[0], COUNT, NULL), 0);
  for (int i = 0; i < COUNT; i++) {
    int same = 0;
    for (int k = 0; k < COUNT; k++)
      same += pids[k] == pids[i];
    CHECK(pids[i] > 0);
    CHECK(same <= 20);
  }
  CHECK_EQ(stats_of(pool).done, COUNT);
  CHECK_EQ(stats_of(pool).died, 0);
  end_pool(pool);
}

/* ---- figures --------------------------------------------------------------------------------- */

enum { SLOW_MS = 20, SHORTER = 15 }; /* 2^14 us < 20 ms < 2^15 us */

static int take_time(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  sleep_ms(SLOW_MS);
  return 0;
}

static uint64_t sum_of(const uint64_t *histogram, int from, int to) {
  uint64_t sum = 0;
  for (int i = from; i < to; i++)
    sum += histogram[i];
  return sum;
}

EACH_METHOD(figures_add_up) {
  const int code = 3;
  board *b = new_board();
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < 10; i++)
    check_works(pool);
  for (int i = 0; i < 5; i++)
    CHECK_EQ(mproc_pool_apply(pool, fail_with, &code, 4, NULL, 0, NULL, NULL), MPROC_ETASK);
  CHECK_EQ(mproc_pool_map(pool, do_nothing, NULL, 0, NULL, 0, 1000, NULL), 0);
  mproc_pool_statistics all = stats_of(pool);
  CHECK_EQ(all.done, 1010);
  CHECK_EQ(all.failed, 5);
  CHECK_EQ(all.cancelled + all.retried + all.died + all.timed_out + all.out_of_memory, 0);
  CHECK_EQ(all.supervisors_died, 0);
  AWAIT(stats_of(pool).alive == 2 && stats_of(pool).idle == 2 && stats_of(pool).started == 2);
  all = stats_of(pool);
  CHECK_EQ(all.workers, 2);
  CHECK_EQ(all.spares, 0);
  CHECK_EQ(all.queued + all.running, 0);
  CHECK_EQ(all.started, 2);
  mproc_worker_statistics first = worker_of(pool, 0), second = worker_of(pool, 1);
  CHECK_EQ(first.done + second.done, 1010);
  CHECK_EQ(first.failed + second.failed, 5);
  CHECK(first.pid > 0 && second.pid > 0 && first.pid != second.pid);
  CHECK_EQ(first.is_spare + first.is_busy + second.is_spare + second.is_busy, 0);

  mproc_future *held[3];
  for (int i = 0; i < 3; i++)
    held[i] = submit_hold(pool, b, i, 0);
  AWAIT(b->begun == 2);
  AWAIT(stats_of(pool).running == 2 && stats_of(pool).queued == 1 && stats_of(pool).idle == 0);
  CHECK_EQ(worker_of(pool, 0).is_busy + worker_of(pool, 1).is_busy, 2);
  mproc_future_destroy(held[2]);
  AWAIT(stats_of(pool).cancelled == 1 && stats_of(pool).queued == 0);
  open_gate(b, 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(number_when_done(held[i]), i);
  CHECK_EQ(stats_of(pool).done, 1012);
  end_pool(pool);
  free_board(b);
}

TEST(histograms) {
  enum { TASKS = 10, MAPPED = 6 };
  mproc_pool *pool = pool_of("fork", 1);
  mproc_future *futures[TASKS];
  check_works(pool); /* the worker is there */
  mproc_pool_statistics before = stats_of(pool);
  CHECK_EQ(sum_of(before.wait_time, 0, MPROC_HISTOGRAM_BUCKETS), 1);
  CHECK(sum_of(before.run_time, 0, MPROC_HISTOGRAM_BUCKETS) <= 1);
  for (int i = 0; i < TASKS; i++)
    futures[i] = submit(pool, take_time, NULL, 0, NULL);
  CHECK_EQ(mproc_future_wait_all(futures, TASKS, JOIN_MS), 0);
  for (int i = 0; i < TASKS; i++)
    mproc_future_destroy(futures[i]);
  mproc_pool_statistics after = stats_of(pool);
  CHECK_EQ(sum_of(after.run_time, SHORTER, MPROC_HISTOGRAM_BUCKETS) -
               sum_of(before.run_time, SHORTER, MPROC_HISTOGRAM_BUCKETS),
           TASKS);
  CHECK_EQ(sum_of(after.run_time, 0, SHORTER), sum_of(before.run_time, 0, SHORTER));
  CHECK_EQ(sum_of(after.wait_time, 0, MPROC_HISTOGRAM_BUCKETS), TASKS + 1);
  CHECK(sum_of(after.wait_time, SHORTER, MPROC_HISTOGRAM_BUCKETS) >= TASKS / 2);
  CHECK(worker_of(pool, 0).busy_ns >= TASKS * SLOW_MS * 1000000LL);

  const mproc_submit_options by_two = {.group = 2};
  CHECK_EQ(mproc_pool_map(pool, take_time, NULL, 0, NULL, 0, MAPPED, &by_two), 0);
  before = after, after = stats_of(pool);
  CHECK_EQ(sum_of(after.wait_time, 0, MPROC_HISTOGRAM_BUCKETS), TASKS + 1);
  uint64_t measured = sum_of(after.run_time, SHORTER, MPROC_HISTOGRAM_BUCKETS) -
                      sum_of(before.run_time, SHORTER, MPROC_HISTOGRAM_BUCKETS);
  CHECK(measured >= 1 && measured <= MAPPED);
  end_pool(pool);
}
