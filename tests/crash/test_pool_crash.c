/* Pools: a worker, the supervisor or the host dies at each named place. Each result comes once and
 * is right, the pool goes on, and nothing is left of the dead; with the host all the others go. */
#include "harness.h"
#include "members.h"
#include "pool_tasks.h"

enum { WORKERS = 2, MANY = 200, EVERYBODY = 1000, DRAIN_MS = 10000, GONE_MS = 1000 };

/* Any number of attempts: it is not their fault. */
static const mproc_submit_options patient = {.retries = 1 << 20};

/* ---- who dies, and where --------------------------------------------------------------------- */

typedef enum role { WORKER, SUPERVISOR, HOST } role;

/* In the shared heap. */
typedef struct aim {
  char point[64]; /* for MPROC_CRASH */
  role who;
  _Atomic int left; /* who are still to get it */
} aim;

static aim *current;

/* In each child that fork makes, before its entry: what one of them has in its environment the
 * others are not to inherit. */
static void take_aim(void *user) {
  mproc_process_info info;
  (void)user;
  (void)unsetenv("MPROC_CRASH");
  if (!current || current->who == HOST || mproc_current_process(&info) < 0 ||
      strncmp(info.name, "t:", 2) != 0)
    return;
  role own = strcmp(info.name, "t:supervisor") == 0 ? SUPERVISOR : WORKER;
  if (own == current->who && current->left > 0 && current->left-- > 0)
    (void)setenv("MPROC_CRASH", current->point, 1);
}

static holdings before;
static const char *own_log; /* where nobody asked for one */

static void begin(void) {
  SKIP_WITHOUT_CRASH_POINTS();
  if (!getenv("MPROC_CRASH_LOG")) {
    own_log = test_tmp_path("hits");
    write_file(own_log, "", 0600);
    CHECK_EQ(setenv("MPROC_CRASH_LOG", own_log, 1), 0);
  }
  check_family_works();
  CHECK_EQ(mproc_after_fork(take_aim, NULL), 0);
  drain_closed();
  check_alone(DRAIN_MS);
  before = count_holdings();
}

/* How many have died there. */
static int hits_of(const char *point) {
  FILE *file = fopen(getenv("MPROC_CRASH_LOG"), "re");
  char line[128];
  int count = 0;
  CHECK(file != NULL);
  while (fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = '\0';
    count += strcmp(line, point) == 0;
  }
  CHECK_EQ(fclose(file), 0);
  return count;
}

static mproc_pool *new_target(void) {
  return new_pool(&(mproc_pool_options){.name = "t",
                                        .workers = WORKERS,
                                        .method = "fork",
                                        .spares = 1,
                                        .keep_errors = 1,
                                        .tasks_per_worker = 20 * MANY,
                                        .poison_limit = 1 << 20,
                                        .memory_limit = MEMORY_LIMIT});
}

/* The supervisor is replaced by calls of its host. */
#define AWAIT_IN(pool, condition) AWAIT((CHECK_OK(mproc_pool_dispatch(pool)), (condition)))

/* ---- a bit of everything --------------------------------------------------------------------- */

/* Enough that one takes work from another. */
static void map_many(mproc_pool *pool, board *b, size_t group, int guarded) {
  mproc_submit_options options = patient;
  order orders[MANY];
  int64_t answers[MANY];
  options.group = group;
  options.guarded = guarded;
  memset(answers, 0xee, sizeof answers);
  for (int i = 0; i < MANY; i++)
    orders[i] = (order){b, i, WELL, 0};
  CHECK_EQ(mproc_pool_map(pool, do_as_told, orders, sizeof orders[0], answers, sizeof answers[0],
                          MANY, &options),
           0);
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(answers[i], answer_of(i));
}

static void run_all(mproc_pool *pool, board *b, way how, int retry_delay_ms) {
  mproc_submit_options options = patient;
  options.retry_delay_ms = retry_delay_ms;
  for (int run = 0; run < RUNS; run++)
    CHECK_EQ(run_ten(pool, b, all_runs[run], how, 1, &options).failures, 0);
}

/* One fails for good: once, whoever dies. */
static void fail_one(mproc_pool *pool, board *b) {
  for (int run = 0; run < RUNS; run++) {
    outcome o = run_ten(pool, b, all_runs[run], BY_ERROR, NOTES_MAX, &(mproc_submit_options){0});
    CHECK_EQ(o.failures, 1);
  }
}

static int take_a_while(mproc_task *task, const void *input, size_t size) {
  usleep(200);
  return do_as_told(task, input, size);
}

/* A worker leaves in the middle of it, with a part that others take; or all do, for good. */
static void map_while_changing(mproc_pool *pool, board *b, bool is_cancelled) {
  mproc_submit_options options = patient;
  order orders[MANY];
  int64_t answers[MANY];
  mproc_future *future;
  options.group = MANY / 4;
  for (int i = 0; i < MANY; i++)
    orders[i] = (order){b, i, WELL, 0};
  memset(b->notes, 0, sizeof b->notes);
  CHECK_EQ(mproc_pool_map_async(pool, take_a_while, orders, sizeof orders[0], answers,
                                sizeof answers[0], MANY, &future, &options),
           0);
  AWAIT_IN(pool, b->notes[0].runs > 0);
  if (is_cancelled)
    CHECK_EQ(mproc_future_cancel(future), 0);
  else
    CHECK_EQ(mproc_pool_resize(pool, 1), 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), is_cancelled ? MPROC_ETASK : 0);
  for (int i = 0; i < MANY; i++)
    CHECK(is_cancelled || answers[i] == answer_of(i));
  CHECK_EQ(mproc_pool_resize(pool, WORKERS), 0);
  mproc_future_destroy(future);
}

static void cancel_one(mproc_pool *pool, board *b, way how) {
  const order o = {b, 0, how, NOTES_MAX};
  b->notes[0].runs = 0;
  mproc_future *future = submit(pool, &o, &patient);
  AWAIT_IN(pool, b->notes[0].runs > 0);
  CHECK_EQ(mproc_future_cancel(future), 0);
  CHECK_EQ(end_of_future(future).cause, MPROC_CAUSE_CANCELLED);
}

static void time_one_out(mproc_pool *pool, board *b) {
  const mproc_submit_options options = {.timeout_ms = 20};
  const order o = {b, 0, BY_LOOP, NOTES_MAX};
  mproc_cause cause = end_of_future(submit(pool, &o, &options)).cause;
  CHECK(cause == MPROC_CAUSE_TIMED_OUT || cause == MPROC_CAUSE_SIGNALED);
}

static void use_pool(mproc_pool *pool, board *b) {
  run_all(pool, b, BY_ERROR, 0);
  run_all(pool, b, BY_ERROR, 1);
  map_many(pool, b, 0, 0);
  map_many(pool, b, 7, 1);
  run_all(pool, b, BY_KILL, 0);
  cancel_one(pool, b, HELD);
  map_while_changing(pool, b, false);
  map_while_changing(pool, b, true);
  CHECK_EQ(mproc_pool_resize(pool, WORKERS + 1), 0);
  map_many(pool, b, 1, 0);
  CHECK_EQ(mproc_pool_resize(pool, WORKERS), 0);
  time_one_out(pool, b);
  fail_one(pool, b);
  map_many(pool, b, 0, 1);
}

/* All leave by themselves. */
static void close_pool(mproc_pool *pool, board *b) {
  CHECK_EQ(mproc_pool_close(pool), 0);
  CHECK_EQ(mproc_pool_join(pool, JOIN_MS), 0);
  end_all(pool, b);
}

/* ---- dying ----------------------------------------------------------------------------------- */

static void set_aim(const char *point, role who, int nth, int times) {
  current = mproc_heap_calloc(1, sizeof *current);
  CHECK(current != NULL);
  snprintf(current->point, sizeof current->point, "%s:%d", point, nth);
  current->who = who;
  current->left = times;
}

static void drop_aim(const char *what) {
  CHECK_EQ(mproc_heap_free(current), 0);
  current = NULL;
  drain_closed();
  /* the board itself is the family's by then, and nobody knows of it any more */
  if (strcmp(what, "pool.board.reaped") == 0 && alone_within(DRAIN_MS)) {
    uint64_t left = heap_used() - before.heap_bytes;
    CHECK(left <= 1 << 20);
    before.heap_bytes += left;
  }
  check_drained(&before, DRAIN_MS, what);
}

static void others_die(const char *point, role who, int nth, int times) {
  set_aim(point, who, nth, times);
  board *b = new_board();
  mproc_pool *pool = new_target();
  use_pool(pool, b);
  mproc_pool_statistics s;
  AWAIT_IN(pool, (s = figures(pool)).queued == 0 && s.running == 0);
  CHECK_EQ(s.failed, 1 + RUNS);
  close_pool(pool, b);
  drop_aim(point);
}

static int be_host(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(setenv("MPROC_CRASH", current->point, 1), 0);
  mproc_pool *pool = new_target();
  use_pool(pool, b);
  close_pool(pool, b);
  return 0;
}

static void host_dies(const char *point, int nth) {
  set_aim(point, HOST, nth, 0);
  board *b = new_board();
  mproc_status status = end_of(start_by("fork", be_host, &b, sizeof b));
  const bool is_dead = status.state == MPROC_STATE_SIGNALED && status.signal == SIGKILL;
  CHECK(is_dead || (status.state == MPROC_STATE_EXITED && status.code == 0));
  for (int64_t end = end_of_wait(GONE_MS); count_below(getppid(), "t:") > 0; sleep_ms(2))
    CHECK(now_ms() < end);
  if (is_dead)
    CHECK_EQ(mproc_heap_free(b), 0);
  drop_aim(point);
}

/* The first time, and later; one of them, and whoever comes in its place. */
static void dies_at(const char *point, role who) {
  static const struct { int nth, times; } ways[] = {{1, 1}, {1, 3}, {2, 1}, {5, 1}};
  begin();
  for (size_t i = 0; i < sizeof ways / sizeof ways[0]; i++) {
    int hits = hits_of(point);
    if (who == HOST)
      host_dies(point, ways[i].nth);
    else
      others_die(point, who, ways[i].nth, ways[i].times);
    if (ways[i].nth == 1 && who != HOST && hits_of(point) == hits) /* by others than the first */
      others_die(point, who, 1, EVERYBODY);
    if (ways[i].nth == 1 && hits_of(point) == hits)
      test_fail(__FILE__, __LINE__, "it dies there", "nobody came by %s", point);
  }
  if (own_log)
    CHECK_EQ(unlink(own_log), 0);
}

#define POINT(name, point, who)                                                                    \
  TEST_LIMIT(name, 60) {                                                                           \
    dies_at(point, who);                                                                           \
  }

POINT(worker_dies_when_it_has_begun, "pool.worker.started", WORKER)
POINT(worker_dies_when_it_is_ready, "pool.worker.ready", WORKER)
POINT(worker_dies_when_it_leaves, "pool.worker.leaves", WORKER)
POINT(worker_dies_when_it_has_claimed_a_job, "pool.job.claimed", WORKER)
POINT(worker_dies_when_its_job_is_over, "pool.job.over", WORKER)
POINT(worker_dies_when_it_has_told_of_it, "pool.job.pushed", WORKER)
POINT(worker_dies_when_its_job_is_to_be_tried_again, "pool.job.again", WORKER)
POINT(worker_dies_when_it_has_taken_a_piece, "pool.map.taken", WORKER)
POINT(worker_dies_when_it_has_run_a_piece, "pool.map.piece_run", WORKER)
POINT(worker_dies_when_it_has_given_a_piece_back, "pool.map.put_back", WORKER)
POINT(worker_dies_when_it_sees_that_a_map_is_over, "pool.map.over", WORKER)
POINT(worker_dies_when_it_has_noted_a_failure, "pool.map.failure_noted", WORKER)
POINT(worker_dies_when_it_has_put_an_input_aside, "pool.map.put_aside", WORKER)

POINT(supervisor_dies_when_it_has_begun, "pool.supervisor.begun", SUPERVISOR)
POINT(supervisor_dies_when_all_workers_are_gone, "pool.supervisor.alone", SUPERVISOR)
POINT(supervisor_dies_when_it_has_condemned_a_worker, "pool.watch.condemned", SUPERVISOR)
POINT(supervisor_dies_about_to_blame_a_job, "pool.repair.blames", SUPERVISOR)
POINT(supervisor_dies_about_to_give_a_piece_back, "pool.repair.piece", SUPERVISOR)
POINT(supervisor_dies_when_it_has_repaired, "pool.repair.done", SUPERVISOR)
POINT(supervisor_dies_when_it_has_queued_what_is_due, "pool.due.queued", SUPERVISOR)
POINT(supervisor_dies_when_it_has_put_into_a_lane, "pool.lane.put", SUPERVISOR)
POINT(supervisor_dies_when_it_has_put_an_input_aside, "pool.map.put_aside", SUPERVISOR)
POINT(supervisor_dies_when_it_has_told_of_a_job, "pool.job.pushed", SUPERVISOR)

POINT(host_dies_when_it_has_put_into_a_lane, "pool.lane.put", HOST)
POINT(host_dies_when_it_has_queued_a_job, "pool.submit.queued", HOST)
POINT(host_dies_with_a_board_that_is_empty, "pool.board.reaped", HOST)
