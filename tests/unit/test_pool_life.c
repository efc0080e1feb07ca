/* Pools: who dies with whom, and who is replaced. A host takes its supervisor and workers along,
 * however it ends; those that are killed are replaced, and no result tells of it. */
#include "harness.h"
#include "members.h"
#include "methods.h"
#include "pool_tasks.h"
#include "taker.h"

enum { WORKERS = 3, GONE_MS = 1000, DRAIN_MS = 10000, INPUTS = 400, CANCEL_MS = 1000 };

static mproc_pool *pool_by(const char *method) {
  return new_pool(&(mproc_pool_options){.name = "t", .workers = WORKERS, .method = method});
}

/* ---- the host ends --------------------------------------------------------------------------- */

typedef enum host_end { KILLED, RETURNS, EXITS, EXITS_QUICKLY } host_end;

/* In the shared heap: what a host shall do, and did. */
typedef struct plan {
  char method[16];
  host_end end;
  bool is_idle, is_somebody_else;
  board *b;
  _Atomic bool has_begun, is_ready;
  _Atomic int64_t pids[WORKERS];
} plan;

static int hold_as_somebody_else(mproc_task *task, const void *input, size_t size) {
  if (geteuid() == 0) {
    CHECK_EQ(setgid(65534), 0);
    CHECK_EQ(setuid(65534), 0);
  }
  return do_as_told(task, input, size);
}

static int be_host(void *arg, size_t size) {
  plan *p = *(plan **)arg;
  order orders[INPUTS];
  mproc_future *future;
  (void)size;
  p->has_begun = true;
  mproc_pool *pool = pool_by(p->method);
  for (int i = 0; i < INPUTS; i++)
    orders[i] = (order){p->b, i, HELD, 0};
  if (p->is_idle)
    check_works(pool, p->b);
  else
    CHECK_EQ(mproc_pool_map_async(pool, p->is_somebody_else ? hold_as_somebody_else : do_as_told,
                                  orders, sizeof orders[0], NULL, 0, INPUTS, &future, NULL),
             0);
  AWAIT(figures(pool).alive == WORKERS && figures(pool).idle == (p->is_idle ? WORKERS : 0));
  for (int i = 0; i < WORKERS; i++)
    p->pids[i] = worker_pid(pool, i);
  p->is_ready = true;
  if (p->end == KILLED)
    (void)sleep_for_long(NULL, 0);
  if (p->end == EXITS)
    exit(EXIT_CODE);
  if (p->end == EXITS_QUICKLY)
    _exit(EXIT_CODE);
  return EXIT_CODE;
}

static plan *new_plan(const char *method, host_end end) {
  plan *p = mproc_heap_calloc(1, sizeof *p);
  CHECK(p != NULL);
  snprintf(p->method, sizeof p->method, "%s", method);
  p->b = new_board();
  p->end = end;
  return p;
}

static void free_plan(plan *p) {
  CHECK_EQ(mproc_heap_free(p->b), 0);
  CHECK_EQ(mproc_heap_free(p), 0);
}

/* No thread, and one child. */
static void check_host(int64_t pid, int64_t supervisor, const char *method) {
  char path[64], text[4096];
  int64_t children[4];
  if (strcmp(method, "forkserver") == 0) /* whose server may be one too */
    return;
  CHECK_EQ(children_of(pid, children, 4), 1);
  CHECK_EQ(children[0], supervisor);
  snprintf(path, sizeof path, "/proc/%lld/status", (long long)pid);
  CHECK(TEST_HAS_TSAN || strstr(read_file(path, text, sizeof text), "\nThreads:\t1\n"));
}

static void host_ends(plan *p) {
  const int64_t runner = getppid();
  mproc_process *host = start_by(p->method, be_host, &p, sizeof p);
  int64_t supervisor = 0;
  if (p->end == KILLED) {
    AWAIT(p->is_ready);
    supervisor = await_supervisor(runner, 0);
    check_host(mproc_process_pid(host), supervisor, p->method);
    for (int i = 0; i < WORKERS; i++)
      CHECK(p->pids[i] > 0 && !is_gone(p->pids[i]));
    kill_child(host);
  } else {
    check_exited(host, EXIT_CODE);
    CHECK(p->is_ready);
  }
  int64_t end = end_of_wait(GONE_MS);
  CHECK(gone_before(supervisor, end));
  for (int i = 0; i < WORKERS; i++)
    CHECK(gone_before(p->pids[i], end));
  AWAIT(count_below(runner, "t:") == 0);
  free_plan(p);
}

EACH_METHOD(host_is_killed_in_mid_map) {
  host_ends(new_plan(method, KILLED));
}

EACH_METHOD(host_is_killed_while_all_are_idle) {
  plan *p = new_plan(method, KILLED);
  p->is_idle = true;
  host_ends(p);
}

EACH_METHOD(host_is_killed_when_its_workers_have_given_up_their_privileges) {
  plan *p = new_plan(method, KILLED);
  if (geteuid() != 0)
    SKIP("only root has any");
  p->is_somebody_else = true;
  host_ends(p);
}

EACH_METHOD(host_ends_without_destroying) {
  for (host_end end = RETURNS; end <= EXITS_QUICKLY; end++) {
    host_ends(new_plan(method, end));
    plan *p = new_plan(method, end);
    p->is_idle = true;
    host_ends(p);
  }
}

/* Somewhere while all is being started. */
EACH_METHOD_LIMIT(host_is_killed_as_it_begins, 40) {
  const int64_t runner = getppid();
  const int rounds = test_under_valgrind() ? 3 : 20;
  for (int round = 0; round < rounds; round++) {
    plan *p = new_plan(method, KILLED);
    mproc_process *host = start_by("fork", be_host, &p, sizeof p);
    AWAIT(p->has_begun);
    usleep((unsigned)(round * 1000));
    kill_child(host);
    for (int64_t end = end_of_wait(GONE_MS); count_below(runner, "t:") > 0; sleep_ms(2))
      CHECK(now_ms() < end);
    free_plan(p);
  }
}

/* ---- the supervisor is killed ---------------------------------------------------------------- */

/* It is replaced by calls of its host. */
static int64_t kill_supervisor(mproc_pool *pool, int64_t old) {
  int64_t pid;
  AWAIT(
      (CHECK_OK(mproc_pool_dispatch(pool)), (pid = supervisor_now(getppid())) != 0 && pid != old));
  CHECK_EQ(kill((pid_t)pid, SIGKILL), 0);
  CHECK(gone_within(pid, JOIN_MS));
  return pid;
}

static void get_pids(mproc_pool *pool, int64_t pids[WORKERS]) {
  for (int i = 0; i < WORKERS; i++)
    AWAIT((pids[i] = worker_pid(pool, i)) > 0);
}

static void check_others(mproc_pool *pool, const int64_t old[WORKERS]) {
  AWAIT(figures(pool).alive == WORKERS);
  for (int i = 0; i < WORKERS; i++) {
    int64_t pid;
    AWAIT((pid = worker_pid(pool, i)) > 0 && pid != old[i]);
    for (int k = 0; k < WORKERS; k++)
      CHECK(pid != old[k]);
    CHECK(gone_within(old[i], JOIN_MS));
  }
}

EACH_METHOD(supervisor_is_killed_while_all_are_idle) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  int64_t pids[WORKERS], supervisor = 0;
  for (uint64_t round = 1; round <= 3; round++) {
    check_works(pool, b);
    get_pids(pool, pids);
    supervisor = kill_supervisor(pool, supervisor);
    check_works(pool, b);
    check_others(pool, pids);
    CHECK_EQ(figures(pool).supervisors_died, round);
  }
  CHECK_EQ(figures(pool).failed, 0);
  CHECK_EQ(figures(pool).done, 6 * 21);
  end_all(pool, b);
}

static int work_for_a_while(mproc_task *task, const void *input, size_t size) {
  usleep(1000);
  return do_as_told(task, input, size);
}

static void fill_orders(board *b, order *orders, int count) {
  for (int i = 0; i < count; i++)
    orders[i] = (order){b, i, WELL, 0};
}

static int64_t finished(mproc_future *future) {
  uint64_t done, count;
  CHECK_EQ(mproc_future_progress(future, &done, &count), 0);
  return (int64_t)done;
}

static void await_finished(mproc_future *future, int64_t wanted) {
  int64_t end = now_ms() + JOIN_MS;
  while (finished(future) < wanted) {
    CHECK(now_ms() < end);
    int r = mproc_future_wait(future, 5);
    CHECK(r == 0 || r == -ETIMEDOUT);
  }
}

/* A third of it later again, and once more. */
EACH_METHOD_LIMIT(supervisor_is_killed_in_mid_map, 40) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  order orders[INPUTS];
  int64_t answers[INPUTS], pids[WORKERS], supervisor = 0;
  mproc_future *future;
  fill_orders(b, orders, INPUTS);
  check_works(pool, b);
  get_pids(pool, pids);
  CHECK_EQ(mproc_pool_map_async(pool, work_for_a_while, orders, sizeof orders[0], answers,
                                sizeof answers[0], INPUTS, &future, NULL),
           0);
  for (int i = 1; i <= 3; i++) {
    await_finished(future, i * INPUTS / 5);
    supervisor = kill_supervisor(pool, supervisor);
  }
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  CHECK_EQ(mproc_future_failures(future), 0);
  CHECK_EQ(finished(future), INPUTS);
  int again = 0;
  for (int i = 0; i < INPUTS; i++) {
    CHECK_EQ(answers[i], answer_of(i));
    CHECK(b->notes[i].runs >= 1);
    again += b->notes[i].runs - 1;
  }
  CHECK(again <= 3 * WORKERS); /* no more than they were in */
  check_others(pool, pids);
  CHECK_EQ(figures(pool).supervisors_died, 3);
  CHECK_EQ(figures(pool).done, INPUTS + 21);
  CHECK_EQ(figures(pool).failed, 0);
  mproc_future_destroy(future);
  end_all(pool, b);
}

static void count_done(mproc_future *future, void *user) {
  (void)future;
  ++*(int *)user;
}

EACH_METHOD_LIMIT(supervisor_is_killed_while_tasks_are_queued, 40) {
  enum { QUEUED = 150 };
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  mproc_future *futures[QUEUED];
  order orders[QUEUED];
  int called[QUEUED] = {0};
  int64_t supervisor = 0;
  fill_orders(b, orders, QUEUED);
  for (int i = 0; i < QUEUED; i++) {
    const mproc_submit_options options = {.done = count_done, .user = &called[i]};
    CHECK_EQ(mproc_pool_apply_async(pool, work_for_a_while, &orders[i], sizeof orders[i],
                                    &futures[i], &options),
             0);
  }
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(mproc_future_wait(futures[i * QUEUED / 5], JOIN_MS), 0);
    supervisor = kill_supervisor(pool, supervisor);
  }
  CHECK_EQ(mproc_future_wait_all(futures, QUEUED, JOIN_MS), 0);
  for (int i = 0; i < QUEUED; i++) {
    check_answer(futures[i], i);
    CHECK_EQ(called[i], 1);
    mproc_future_destroy(futures[i]);
  }
  CHECK_EQ(figures(pool).done, QUEUED);
  CHECK_EQ(figures(pool).failed, 0);
  end_all(pool, b);
}

static int feed_numbers(void *user, mproc_bytes *ret_input) {
  order *next = user;
  if (next->number + 1 == INPUTS)
    return 0;
  next->number++;
  *ret_input = (mproc_bytes){next, sizeof *next};
  return 1;
}

TEST_LIMIT(supervisor_is_killed_between_results, 40) {
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  order next = {b, -1, WELL, 0};
  mproc_imap *imap;
  mproc_bytes result;
  uint64_t index;
  int64_t supervisor = 0;
  CHECK_EQ(mproc_pool_imap(pool, work_for_a_while, feed_numbers, &next, &imap, NULL), 0);
  for (int i = 0; i < INPUTS; i++) {
    CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 1);
    CHECK_EQ(index, i);
    CHECK(is_answer(result, i));
    if (i % 100 == 50)
      supervisor = kill_supervisor(pool, supervisor);
  }
  CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 0);
  mproc_imap_destroy(imap);
  CHECK_EQ(figures(pool).done, INPUTS);
  end_all(pool, b);
}

/* Killed as soon as it is there. */
TEST_LIMIT(supervisor_is_killed_as_it_begins, 40) {
  board *b = new_board();
  for (int round = 0; round < 10; round++) {
    mproc_pool *pool = pool_by(round % 2 ? "spawn" : "fork");
    (void)kill_supervisor(pool, 0);
    check_works(pool, b);
    CHECK_EQ(figures(pool).supervisors_died, 1);
    end_pool(pool);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int kill_my_supervisor(mproc_task *task, const void *input, size_t size) {
  mproc_process_info info;
  (void)input, (void)size;
  CHECK_EQ(mproc_parent_process(&info), 0);
  CHECK_STR(info.name, "t:supervisor");
  if (mproc_task_attempt(task) < 100)
    CHECK_EQ(kill((pid_t)info.pid, SIGKILL), 0);
  sleep_ms(2000);
  return 0;
}

/* It is poisonous, in another way. */
TEST_LIMIT(task_that_kills_the_supervisor_does_not_run_for_ever, 60) {
  const mproc_submit_options options = {.retries = 4};
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  CHECK_EQ(mproc_pool_apply(pool, kill_my_supervisor, NULL, 0, NULL, 0, NULL, &options),
           MPROC_ETASK);
  CHECK(figures(pool).supervisors_died <= 10);
  check_works(pool, b);
  end_all(pool, b);
}

/* A stopped one is alive, and in nobody's way. */
TEST(pool_is_destroyed_while_all_are_stopped) {
  board *b = new_board();
  for (int busy = 0; busy < 2; busy++) {
    mproc_pool *pool = pool_by("fork");
    int64_t pids[WORKERS], supervisor;
    const order o = {b, 0, HELD, 0};
    mproc_future *future = busy ? submit(pool, &o, NULL) : NULL;
    AWAIT(figures(pool).running == (uint64_t)busy);
    get_pids(pool, pids);
    supervisor = await_supervisor(getppid(), 0);
    for (int i = 0; i < WORKERS; i++)
      CHECK_EQ(kill((pid_t)pids[i], SIGSTOP), 0);
    CHECK_EQ(kill((pid_t)supervisor, SIGSTOP), 0);
    CHECK(stopped_within(supervisor, JOIN_MS));
    end_pool(pool);
    for (int i = 0; i < WORKERS; i++)
      CHECK(gone_within(pids[i], GONE_MS));
    CHECK(gone_within(supervisor, GONE_MS));
    mproc_future_destroy(future);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- workers are killed ---------------------------------------------------------------------- */

EACH_METHOD(idle_workers_are_killed) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  int64_t pids[WORKERS];
  check_works(pool, b);
  for (uint64_t round = 0; round < 3; round++) {
    mproc_worker_statistics s;
    get_pids(pool, pids);
    CHECK_EQ(kill((pid_t)pids[1], SIGKILL), 0);
    AWAIT(worker_pid(pool, 1) > 0 && worker_pid(pool, 1) != pids[1]);
    CHECK_EQ(worker_pid(pool, 0), pids[0]);
    CHECK_EQ(worker_pid(pool, 2), pids[2]);
    CHECK_EQ(mproc_pool_worker_stats(pool, 1, &s), 0);
    CHECK_EQ(s.started, round + 2);
    check_works(pool, b);
  }
  get_pids(pool, pids);
  for (int i = 0; i < WORKERS; i++)
    CHECK_EQ(kill((pid_t)pids[i], SIGKILL), 0);
  check_works(pool, b);
  check_others(pool, pids);
  CHECK_EQ(figures(pool).died, 6);
  CHECK_EQ(figures(pool).failed, 0);
  end_all(pool, b);
}

TEST(all_are_killed_at_once) {
  board *b = new_board();
  mproc_pool *pool = pool_by("fork");
  int64_t pids[WORKERS];
  check_works(pool, b);
  get_pids(pool, pids);
  CHECK_EQ(kill((pid_t)await_supervisor(getppid(), 0), SIGKILL), 0);
  for (int i = 0; i < WORKERS; i++)
    (void)kill((pid_t)pids[i], SIGKILL);
  check_works(pool, b);
  check_others(pool, pids);
  end_all(pool, b);
}

/* ---- the pool ends with work left ------------------------------------------------------------ */

enum { QUEUED = 1000 };

/* All workers are in something that does not end. */
static void submit_many(mproc_pool *pool, board *b, mproc_future **futures) {
  for (int i = 0; i < QUEUED; i++) {
    const order o = {b, i, i % 2 ? BY_LOOP_DEAF : HELD, NOTES_MAX};
    futures[i] = submit(pool, &o, NULL);
  }
  AWAIT(figures(pool).running == WORKERS);
}

EACH_METHOD(pool_is_destroyed_with_tasks_queued) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  mproc_future *futures[QUEUED];
  mproc_bytes result;
  mproc_failure failure;
  submit_many(pool, b, futures);
  end_pool(pool);
  AWAIT(count_below(getppid(), "t:") == 0);
  for (int i = 0; i < QUEUED; i++) {
    CHECK_EQ(mproc_future_wait(futures[i], JOIN_MS), MPROC_ECLOSED);
    CHECK_EQ(mproc_future_result(futures[i], &result), MPROC_ECLOSED);
    CHECK_EQ(mproc_future_failure(futures[i], 0, &failure), MPROC_ECLOSED);
    mproc_future_destroy(futures[i]);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

EACH_METHOD(pool_is_terminated_with_tasks_queued) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  mproc_future *futures[QUEUED];
  submit_many(pool, b, futures);
  int64_t since = now_ms();
  CHECK_EQ(mproc_pool_terminate(pool), 0);
  CHECK_EQ(mproc_future_wait_all(futures, QUEUED, JOIN_MS), 0);
  check_took(since, CANCEL_MS, "terminate");
  for (int i = 0; i < QUEUED; i++) {
    CHECK_EQ(mproc_future_wait(futures[i], 0), MPROC_ETASK);
    CHECK_EQ(failure_of(futures[i], 0).cause, MPROC_CAUSE_CANCELLED);
    mproc_future_destroy(futures[i]);
  }
  CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  CHECK_EQ(figures(pool).cancelled, QUEUED);
  end_all(pool, b);
}

EACH_METHOD(pool_is_terminated_in_mid_map) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  order orders[INPUTS];
  int64_t answers[INPUTS];
  mproc_future *future;
  fill_orders(b, orders, INPUTS);
  CHECK_EQ(mproc_pool_map_async(pool, work_for_a_while, orders, sizeof orders[0], answers,
                                sizeof answers[0], INPUTS, &future, NULL),
           0);
  await_finished(future, INPUTS / 4);
  int64_t since = now_ms();
  CHECK_EQ(mproc_pool_terminate(pool), 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  check_took(since, CANCEL_MS, "terminate");
  int64_t failures = mproc_future_failures(future);
  CHECK(failures > 0 && failures <= INPUTS - INPUTS / 4);
  CHECK_EQ(finished(future), INPUTS);
  for (int64_t i = 0; i < failures; i++) {
    mproc_failure f = failure_of(future, (uint64_t)i);
    CHECK_EQ(f.cause, MPROC_CAUSE_CANCELLED);
    CHECK(f.index < INPUTS);
    orders[f.index].how = BY_KILL;
  }
  for (int i = 0; i < INPUTS; i++)
    CHECK(orders[i].how == BY_KILL || answers[i] == answer_of(i));
  AWAIT(count_below(getppid(), "t:") == 0);
  mproc_future_destroy(future);
  end_all(pool, b);
}

/* ---- initializers ---------------------------------------------------------------------------- */

typedef struct beginning {
  board *b;
  int64_t how;
  int64_t deadly; /* how many workers, one after the other */
} beginning;

static int begin_worker(void *arg, size_t size, void **ret_state) {
  const beginning *own = arg;
  CHECK_EQ(size, sizeof *own);
  if (own->b->calls++ < own->deadly) {
    const order o = {own->b, 0, own->how, 1};
    return own->how == BY_ERROR ? ERROR_CODE : end_this_way(NULL, &o);
  }
  *ret_state = own->b;
  return 0;
}

static mproc_pool *pool_that_begins(const char *method, const beginning *how) {
  return new_pool(&(mproc_pool_options){.name = "t",
                                        .workers = WORKERS,
                                        .method = method,
                                        .initializer = begin_worker,
                                        .initializer_arg = how,
                                        .initializer_size = sizeof *how});
}

/* Whoever waits is told, and nobody is started any more. */
static void check_breaks(const char *method, way how) {
  enum { WAITING = 20, STARTS_MAX = 200 };
  mproc_future *futures[WAITING], *map = NULL;
  const order o = {new_board(), 0, WELL, 0};
  const beginning begin = {o.b, how, INT64_MAX};
  mproc_pool *pool = pool_that_begins(method, &begin);
  int count = 0, r = 0;
  r = mproc_pool_map_async(pool, do_as_told, NULL, 0, NULL, 0, 10, &map, NULL);
  CHECK(r == 0 || r == MPROC_EPOOL);
  while (count < WAITING && r == 0) {
    r = mproc_pool_apply_async(pool, do_as_told, &o, sizeof o, &futures[count], NULL);
    CHECK(r == 0 || r == MPROC_EPOOL);
    count += r == 0;
  }
  for (int i = 0; i < count; i++) {
    mproc_failure f = end_of_future(futures[i]);
    CHECK_EQ(f.cause, MPROC_CAUSE_INITIALIZER);
  }
  if (map) {
    CHECK_EQ(mproc_future_wait(map, JOIN_MS), MPROC_ETASK);
    CHECK_EQ(failure_of(map, 0).cause, MPROC_CAUSE_INITIALIZER);
    mproc_future_destroy(map);
  }
  CHECK_EQ(mproc_pool_apply(pool, do_as_told, &o, sizeof o, NULL, 0, NULL, NULL), MPROC_EPOOL);
  printf("# %s: %s\n", method, mproc_error_detail());
  fflush(stdout);
  AWAIT(count_below(getppid(), "t:") <= 1); /* the supervisor may stay */
  const int calls = o.b->calls;
  CHECK(calls >= 1 && calls < STARTS_MAX);
  sleep_ms(300);
  CHECK_EQ(o.b->calls, calls);
  CHECK_EQ(o.b->notes[0].runs, 0);
  end_all(pool, o.b);
}

EACH_METHOD(initializer_that_always_fails) {
  check_breaks(method, BY_ERROR);
}

EACH_METHOD(initializer_that_always_crashes) {
  check_breaks(method, BY_FAULT);
}

TEST(initializer_that_always_exits) {
  check_breaks("fork", BY_EXIT_ZERO);
  check_breaks("fork", BY_EXEC);
}

EACH_METHOD(initializer_that_fails_at_first) {
  static const way ways[] = {BY_ERROR, BY_FAULT, BY_EXIT, BY_KILL};
  for (int i = 0; i < 4; i++) {
    board *b = new_board();
    const beginning begin = {b, ways[i], 1};
    mproc_pool *pool = pool_that_begins(method, &begin);
    check_works(pool, b);
    AWAIT(figures(pool).idle == WORKERS && b->calls == WORKERS + 1);
    check_works(pool, b);
    end_all(pool, b);
  }
}

/* There is no limit of time for it. The pool can be got rid of all the same. */
TEST(initializer_that_hangs) {
  board *b = new_board();
  const beginning begin = {b, BY_LOOP_DEAF, INT64_MAX};
  const order o = {b, 0, WELL, 0};
  for (int i = 0; i < 2; i++) {
    b->calls = 0;
    mproc_pool *pool = pool_that_begins("fork", &begin);
    mproc_future *future = submit(pool, &o, NULL);
    AWAIT(b->calls > 0);
    CHECK_EQ(mproc_future_wait(future, 100), -ETIMEDOUT);
    if (i == 0) {
      CHECK_EQ(mproc_future_cancel(future), 0);
      CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
      CHECK_EQ(failure_of(future, 0).cause, MPROC_CAUSE_CANCELLED);
    }
    end_pool(pool);
    mproc_future_destroy(future);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- unusual hosts --------------------------------------------------------------------------- */

/* Every kind of death, and all come out right. */
static void live_through_deaths(mproc_pool *pool, board *b) {
  static const way ways[] = {BY_KILL, BY_EXIT, BY_EXIT_ZERO, BY_FAULT, BY_LOOP};
  static const mproc_cause causes[] = {MPROC_CAUSE_SIGNALED, MPROC_CAUSE_EXITED, MPROC_CAUSE_EXITED,
                                       MPROC_CAUSE_SIGNALED, MPROC_CAUSE_TIMED_OUT};
  for (int i = 0; i < 5; i++) {
    const mproc_submit_options options = {.timeout_ms = LOOP_MS};
    CHECK_EQ(run_ten(pool, b, by_apply, ways[i], NOTES_MAX, &options).failure.cause, causes[i]);
    CHECK_EQ(run_ten(pool, b, by_map, ways[i], NOTES_MAX, &options).failure.cause, causes[i]);
  }
  (void)kill_supervisor(pool, 0);
  check_works(pool, b);
}

EACH_METHOD_LIMIT(host_ignores_its_children, 40) {
  board *b = new_board();
  CHECK(signal(SIGCHLD, SIG_IGN) != SIG_ERR);
  mproc_pool *pool = pool_by(method);
  live_through_deaths(pool, b);
  end_all(pool, b);
  CHECK(signal(SIGCHLD, SIG_DFL) != SIG_ERR);
}

EACH_METHOD_LIMIT(host_takes_all_children, 40) {
  static taker other;
  board *b = new_board();
  start_taker(&other, __WALL);
  mproc_pool *pool = pool_by(method);
  live_through_deaths(pool, b);
  end_all(pool, b);
  stop_taker(&other);
}

/* ---- nothing is left ------------------------------------------------------------------------- */

static uint64_t block_count(void) {
  mproc_heap_statistics statistics;
  CHECK_EQ(mproc_heap_stats(&statistics), 0);
  return statistics.block_count;
}

static void live_and_die(const char *method, int round) {
  board *b = new_board();
  mproc_pool *pool = pool_by(method);
  const order o = {b, 0, HELD, 0};
  (void)run_ten(pool, b, all_runs[round % RUNS], BY_KILL, NOTES_MAX, NULL);
  if (round % 3 == 0)
    (void)kill_supervisor(pool, 0);
  check_works(pool, b);
  mproc_future *future = round % 2 ? submit(pool, &o, NULL) : NULL;
  if (round % 4 == 1)
    AWAIT(b->notes[0].runs > 0);
  end_pool(pool);
  mproc_future_destroy(future);
  CHECK_EQ(mproc_heap_free(b), 0);
}

EACH_METHOD_LIMIT(pools_leave_nothing, 60) {
  const int rounds = test_under_valgrind() ? 4 : 24;
  check_family_works();
  live_and_die(method, 0);
  drain_closed();
  check_alone(DRAIN_MS);
  const holdings before = count_holdings();
  const uint64_t blocks = block_count();
  for (int round = 0; round < rounds; round++)
    live_and_die(method, round);
  drain_closed();
  check_drained(&before, DRAIN_MS, "pools");
  CHECK_EQ(block_count(), blocks);
}
