/* Starts and ends: a process dies at each named place, and a second later nothing of it is left: no
 * process, no descriptor, no slot, no byte of the heap. The others go on. */
#include "harness.h"
#include "in_child.h"
#include "members.h"

#include <pthread.h>
#include <stdatomic.h>

enum { DRAIN_MS = 1000 };

/* In the shared heap: what a keeper does before it dies. */
typedef struct board {
  char point[64];
  char method[16];
  int daemon;
  int in_thread;
  int joins;     /* waits for its child, which was killed */
  int dies_soon; /* before it knows what its child is called */
  _Atomic int go;
  _Atomic mpx_member member; /* of the child that runs */
  _Atomic int64_t pid;
} board;

static board *new_board(const char *point, const char *method) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  snprintf(b->point, sizeof b->point, "%s", point);
  snprintf(b->method, sizeof b->method, "%s", method);
  return b;
}

/* With blocks and descriptors that come with the first starts in place. */
static holdings before;

/* Root's daemons have one, whichever thread starts them. */
static void make_guardian(void) {
  const mproc_process_options options = {.method = "fork", .daemon = 1};
  const int code = 0;
  check_exited(start_with(&options, return_code, &code, sizeof code), code);
}

static void remember(void) {
  SKIP_WITHOUT_CRASH_POINTS();
  check_family_works();
  check_alone(DRAIN_MS);
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc_owned(1)), 0);
  before = count_holdings();
}

static void check_nothing_left(const char *what) {
  check_drained(&before, DRAIN_MS, what);
}

/* ---- the child dies -------------------------------------------------------------------------- */

static int use_the_heap(void *arg, size_t size) {
  (void)arg, (void)size;
  void *owned = mproc_heap_alloc_owned(100000);
  CHECK(owned != NULL);
  return 0;
}

static void child_dies_at(const char *point, const char *method, int daemon) {
  const mproc_process_options options = {.method = method, .daemon = daemon};
  mproc_process *process = create_with(&options, use_the_heap, NULL, 0);
  setenv("MPROC_CRASH", point, 1);
  int r = mproc_process_start(process);
  unsetenv("MPROC_CRASH");
  if (r == 0) {
    const mproc_status status = end_of(process);
    if (status.state != MPROC_STATE_SIGNALED)
      fprintf(stderr, "# %s, %s, daemon %d: code %d\n", point, method, daemon, status.code);
    CHECK_EQ(status.signal, SIGKILL);
  } else {
    CHECK_EQ(r, MPROC_EBOOT);
    CHECK_CONTAINS(mproc_error_detail(), "ended before its entry ran");
    CHECK_EQ(mproc_process_close(process), 0);
  }
  check_nothing_left(point);
}

static void children_die(const char *method, const char *const *points, size_t count) {
  make_guardian();
  remember();
  for (size_t i = 0; i < count; i++) {
    child_dies_at(points[i], method, 0);
    child_dies_at(points[i], method, 1);
  }
  check_family_works();
}

static void children_die_in_a_fork(void) {
  static const char *const points[] = {"fork.child.born",
                                       "fork.child.member",
                                       "table.taken",
                                       "family.taken",
                                       "cell.taken",
                                       "cell.locked",
                                       "child.finish.unrecorded",
                                       "child.finish.recorded"};
  children_die("fork", points, sizeof points / sizeof points[0]);
}

TEST(child_dies_in_a_fork) {
  SKIP_WITHOUT_CRASH_POINTS();
  in_child(children_die_in_a_fork);
}

static void children_die_in_a_spawn(void) {
  static const char *const points[] = {
      "spawn.child.unexecuted", "boot.before_attach", "boot.attached", "boot.reported",
      "family.taken",           "cell.taken",         "cell.locked",   "child.finish.unrecorded",
      "child.finish.recorded"};
  children_die("spawn", points, sizeof points / sizeof points[0]);
}

TEST(child_dies_in_a_spawn) {
  SKIP_WITHOUT_CRASH_POINTS();
  in_child(children_die_in_a_spawn);
}

/* The status of who was killed after it left its record is still "killed". */
TEST(kill_after_the_record_is_a_kill) {
  remember();
  FOR_ALL_METHODS(method)
  child_dies_at("child.finish.recorded", method, 0);
}

/* ---- the starter dies ------------------------------------------------------------------------ */

static int run_shortly_or_for_long(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  void *owned = mproc_heap_alloc_owned(100000);
  CHECK(owned != NULL);
  b->member = mpx_family_self();
  b->pid = getpid();
  sleep_ms(b->daemon || b->joins ? 20000 : 20);
  return 0;
}

static const char *const no_environment[] = {"PATH=/bin", NULL};

static void *start_and_die(void *argument) {
  board *b = argument;
  const mproc_process_options options = {
      .method = b->method, .daemon = b->daemon, .environment = no_environment};
  mproc_process *process = create_with(&options, run_shortly_or_for_long, &b, sizeof b);
  if (!b->joins)
    setenv("MPROC_CRASH", b->point, 1);
  CHECK_EQ(mproc_process_start(process), 0);
  setenv("MPROC_CRASH", b->point, 1);
  CHECK_EQ(mproc_process_kill(process), 0);
  CHECK_EQ(mproc_process_join(process, JOIN_MS), 0);
  return NULL;
}

static void die_now(void) {
  raise(SIGKILL);
}

static int keep(void *arg, size_t size) {
  board *b = *(board **)arg;
  pthread_t thread;
  (void)size;
  if (b->dies_soon)
    CHECK_EQ(pthread_atfork(NULL, die_now, NULL), 0);
  if (!b->in_thread) {
    start_and_die(b);
    return 1; /* the point was not on the way */
  }
  CHECK_EQ(pthread_create(&thread, NULL, start_and_die, b), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 1;
}

static void starter_dies(board *b) {
  mproc_process *keeper = start_by("fork", keep, &b, sizeof b);
  mproc_status status = end_of(keeper);
  if (status.state != MPROC_STATE_SIGNALED || status.signal != SIGKILL)
    fprintf(stderr, "# %s, %s: did not die there\n", b->point, b->method);
  CHECK_EQ(status.state, MPROC_STATE_SIGNALED);
  CHECK_EQ(status.signal, SIGKILL);
  char what[128];
  snprintf(what, sizeof what, "%s, %s, daemon %d, thread %d", b->point, b->method, b->daemon,
           b->in_thread);
  if (b->daemon && b->pid)
    CHECK(gone_within(b->pid, DRAIN_MS));
  CHECK_EQ(mproc_heap_free(b), 0);
  check_nothing_left(what);
}

enum { STARTER_POINTS = 5 };

static const char *starter_point(const char *method, int i) {
  static const char *const points[STARTER_POINTS] = {
      "table.claiming", "table.claimed", "start.prepared", "start.cloned", "start.watched"};
  static const char *const last_two[] = {"forkserver.asked", "forkserver.gate_open"};
  return i >= 3 && strcmp(method, "forkserver") == 0 ? last_two[i - 3] : points[i];
}

static void starter_dies_everywhere(int daemon, int in_thread) {
  remember();
  for (int i = 0; i < STARTER_POINTS; i++)
    FOR_ALL_METHODS(method) {
      board *b = new_board(starter_point(method, i), method);
      b->daemon = daemon;
      b->in_thread = in_thread;
      starter_dies(b);
    }
  check_family_works();
}

TEST(starter_dies) {
  starter_dies_everywhere(0, 0);
}

TEST(starter_dies_in_a_thread) {
  starter_dies_everywhere(0, 1);
}

TEST(starter_of_a_daemon_dies) {
  starter_dies_everywhere(1, 0);
}

TEST(starter_of_a_daemon_dies_in_a_thread) {
  starter_dies_everywhere(1, 1);
}

/* Between the guardian's birth and the first word to it. */
TEST(starter_dies_while_it_makes_its_guardian) {
  remember();
  FOR_ALL_METHODS(method) {
    if (strcmp(method, "forkserver") == 0) /* which sees to its workers itself */
      continue;
    board *b = new_board("guardian.executed", method);
    b->daemon = b->in_thread = 1;
    starter_dies(b);
  }
}

/* And its child is killed there, at the place where only itself can have said what it is called. */
TEST(starter_and_child_die) {
  static const char *const points[] = {"table.taken", "family.taken", "cell.taken"};
  remember();
  for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
    board *b = new_board(points[i], "fork");
    b->dies_soon = 1;
    starter_dies(b);
  }
}

/* In the middle of a burial: the next one who comes by goes on with it. */
TEST(burier_dies) {
  static const char *const points[] = {"family.bury.reaped", "family.bury.cells_freed"};
  remember();
  for (size_t i = 0; i < sizeof points / sizeof points[0]; i++)
    FOR_ALL_METHODS(method) {
      board *b = new_board(points[i], method);
      b->joins = 1;
      starter_dies(b);
    }
  check_family_works();
}

/* ---- threads --------------------------------------------------------------------------------- */

static void *use_and_end(void *point) {
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc(10)), 0);
  setenv("MPROC_CRASH", point, 1);
  return NULL;
}

static void *die_on_first_use(void *point) {
  setenv("MPROC_CRASH", point, 1);
  return mproc_heap_alloc(10);
}

static int use_in_a_thread(void *arg, size_t size) {
  const char *point = arg;
  pthread_t thread;
  (void)size;
  bool at_the_end = strcmp(point, "cell.released") == 0;
  CHECK_EQ(pthread_create(&thread, NULL, at_the_end ? use_and_end : die_on_first_use, arg), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 1;
}

TEST(thread_dies_with_its_process) {
  static const char *const points[] = {"cell.taken", "cell.locked", "cell.released"};
  remember();
  for (size_t i = 0; i < sizeof points / sizeof points[0]; i++)
    FOR_ALL_METHODS(method) {
      const char *point = points[i];
      check_killed(start_by(method, use_in_a_thread, point, strlen(point) + 1), SIGKILL);
      check_nothing_left(point);
    }
}

/* ---- stopped in between, while others act ---------------------------------------------------- */

static bool has_stopped_child(mproc_process *parent, int64_t *ret_pid) {
  return children_of(mproc_process_pid(parent), ret_pid, 1) == 1 && state_of(*ret_pid) == 'T';
}

static pid_t await_stopped_child(mproc_process *parent) {
  int64_t pid;
  AWAIT(has_stopped_child(parent, &pid));
  return (pid_t)pid;
}

/* The guardian comes first, or it would be the one that is stopped. */
static int keep_with_guardian(void *arg, size_t size) {
  make_guardian();
  return keep(arg, size);
}

/* The parent is killed while its child is a clone that has not executed yet. */
static void parent_dies_between_clone_and_exec(int daemon) {
  board *b = new_board("spawn.child.unexecuted:stop", "spawn");
  b->daemon = daemon;
  mproc_process *keeper = start_by("fork", keep_with_guardian, &b, sizeof b);
  pid_t child = await_stopped_child(keeper);
  kill_child(keeper);
  CHECK(kill(child, SIGCONT) == 0 || daemon); /* the daemon was killed with it */
  CHECK(gone_within(child, DRAIN_MS));
  if (daemon)
    CHECK_EQ(b->pid, 0);
  CHECK_EQ(mproc_heap_free(b), 0);
  check_nothing_left("a kill between clone and exec");
}

TEST(parent_is_killed_between_clone_and_exec) {
  remember();
  parent_dies_between_clone_and_exec(0);
  parent_dies_between_clone_and_exec(1);
}

static int start_one(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  const mproc_process_options options = {.method = b->method, .environment = no_environment};
  setenv("MPROC_CRASH", b->point, 1);
  mproc_process *process = start_with(&options, return_code, &(int){5}, sizeof(int));
  unsetenv("MPROC_CRASH");
  check_exited(process, 5);
  return 0;
}

/* A slot that is being claimed still names the parent of its last user, who is dead. */
TEST(sweep_spares_a_claim_in_the_making) {
  remember();
  FOR_ALL_METHODS(method) {
    board *b = new_board("table.claiming:stop", method);
    mproc_process *starter = start_by("fork", start_one, &b, sizeof b);
    CHECK(stopped_within(mproc_process_pid(starter), JOIN_MS));
    for (int i = 0; i < 10; i++)
      mpx_family_sweep(true);
    CHECK_EQ(used_slots(), 3);
    CHECK_EQ(kill((pid_t)mproc_process_pid(starter), SIGCONT), 0);
    check_exited(starter, 0);
    CHECK_EQ(mproc_heap_free(b), 0);
    check_nothing_left("a sweep during a claim");
  }
}

static int sweep_and_stop(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  while (b->go == 0)
    sleep_ms(1);
  setenv("MPROC_CRASH", "table.sweep.condemned:stop", 1);
  mpx_family_sweep(true);
  return 0;
}

static int sweep_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  while (b->go == 0)
    sleep_ms(1);
  setenv("MPROC_CRASH", "table.sweep.condemned", 1);
  mpx_family_sweep(true);
  return 1; /* there was nothing to sweep */
}

/* The next one does it. */
TEST(sweeper_dies) {
  remember();
  board *b = new_board("table.claimed", "fork");
  mproc_process *sweeper = start_by("fork", sweep_and_die, &b, sizeof b);
  mproc_process *keeper = start_by("fork", keep, &b, sizeof b);
  check_killed(keeper, SIGKILL);
  b->go = 1;
  check_killed(sweeper, SIGKILL);
  CHECK_EQ(mproc_heap_free(b), 0);
  check_nothing_left("a sweep");
}

static int orphan_a_newborn(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  setenv("MPROC_CRASH", "fork.child.born:stop", 1);
  (void)start_by("fork", run_shortly_or_for_long, &b, sizeof b);
  sleep_ms(20000);
  return 0;
}

/* A claim is found to be a dead parent's; before it is swept, the orphan takes it and lives. */
TEST(sweep_spares_a_claim_that_was_taken) {
  remember();
  board *b = new_board("none", "fork");
  b->joins = 1; /* it sleeps for long */
  mproc_process *keeper = start_by("fork", orphan_a_newborn, &b, sizeof b);
  pid_t newborn = await_stopped_child(keeper);
  mproc_process *sweeper = start_by("fork", sweep_and_stop, &b, sizeof b);
  kill_child(keeper);
  b->go = 1;
  CHECK(stopped_within(mproc_process_pid(sweeper), JOIN_MS));
  CHECK_EQ(kill(newborn, SIGCONT), 0);
  AWAIT(b->member != 0);
  CHECK_EQ(kill((pid_t)mproc_process_pid(sweeper), SIGCONT), 0);
  check_exited(sweeper, 0);
  CHECK(mpx_table_slot(mpx_family_header(), b->member) != NULL);
  CHECK(heap_used() > before.heap_bytes + 100000); /* its owned block was left alone */
  CHECK_EQ(kill(newborn, SIGKILL), 0);
  CHECK(gone_within(newborn, DRAIN_MS));
  CHECK_EQ(mproc_heap_free(b), 0);
  check_nothing_left("a sweep that came too late");
}

/* And an orphan whose claim was swept in time ends at once. */
TEST(orphan_whose_claim_was_swept_ends) {
  remember();
  board *b = new_board("none", "fork");
  mproc_process *keeper = start_by("fork", orphan_a_newborn, &b, sizeof b);
  pid_t newborn = await_stopped_child(keeper);
  kill_child(keeper);
  mpx_family_sweep(true);
  CHECK_EQ(used_slots(), 1);
  CHECK_EQ(kill(newborn, SIGCONT), 0);
  CHECK(gone_within(newborn, DRAIN_MS));
  CHECK_EQ(b->member, 0);
  CHECK_EQ(mproc_heap_free(b), 0);
  check_nothing_left("an orphan without a slot");
}
