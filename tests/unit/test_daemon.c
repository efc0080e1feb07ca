/* Daemon children die with their parent, however it ends and whichever thread started them;
 * others do not. A "keeper" is the parent that dies: itself a child of the case, so that the
 * case goes on. */
#include "harness.h"
#include "processes.h"
#include "taker.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

/* More than can be told to a guardian that does not read. */
enum { GONE_MS = 1000, HERE_MS = 250, MAX_DAEMONS = 400 };

typedef enum where { IN_MAIN_THREAD, IN_ENDED_THREAD, IN_THREAD_OF_OTHER_GROUPS } where;
typedef enum what { ENTRIES, COMMANDS } what;

/* In the shared heap: what a keeper shall do and what it did. */
typedef struct board {
  const char *method; /* of the daemons; a heap string */
  where starter;
  what kind;
  int daemon;
  int count;
  int then_exec;
  _Atomic int more; /* set by the case: start that many more, in the same way */
  _Atomic int started;
  _Atomic int64_t pids[MAX_DAEMONS];
} board;

static mproc_process *start_one(board *b) {
  const mproc_process_options options = {.daemon = b->daemon, .method = b->method};
  return b->kind == ENTRIES ? start_with(&options, sleep_for_long, NULL, 0)
                            : start_command(COMMAND("/bin/sleep", "30"), &options);
}

static void *start_some(void *argument) {
  static const gid_t other = 65534;
  board *b = argument;
  if (b->starter == IN_THREAD_OF_OTHER_GROUPS) /* glibc's setgroups would change all threads */
    CHECK_EQ(syscall(SYS_setgroups, 1, &other), 0);
  for (int i = 0; i < b->count; i++) {
    mproc_process *process = start_one(b);
    b->pids[b->started] = mproc_process_pid(process);
    b->started++;
  }
  return NULL;
}

static void start_daemons(board *b) {
  pthread_t thread;
  if (b->starter == IN_MAIN_THREAD) {
    start_some(b);
    return;
  }
  CHECK_EQ(pthread_create(&thread, NULL, start_some, b), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

_Noreturn static void keep_on(board *b) {
  for (;; sleep_ms(1))
    if (atomic_exchange(&b->more, 0) > 0)
      start_daemons(b);
}

static int keep(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  start_daemons(b);
  if (b->then_exec)
    execl("/bin/sleep", "sleep", "20", (char *)NULL);
  keep_on(b);
}

static board *new_board(const char *method, where starter, what kind, int count) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  char *name = mproc_heap_alloc(16);
  CHECK(b && name);
  snprintf(name, 16, "%s", method);
  b->method = name;
  b->starter = starter;
  b->kind = kind;
  b->daemon = 1;
  b->count = count;
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_heap_free((void *)(uintptr_t)b->method), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void await_started(const board *b, int count) {
  AWAIT(b->started >= count);
}

static mproc_process *start_keeper(board *b) {
  mproc_process *keeper = start_by(b->method, keep, &b, sizeof b);
  await_started(b, b->count);
  return keeper;
}

static void check_all_here(const board *b) {
  for (int i = 0; i < b->started; i++)
    CHECK(!is_gone(b->pids[i]));
}

static void check_all_gone(const board *b) {
  int64_t end = end_of_wait(GONE_MS);
  for (int i = 0; i < b->started; i++)
    CHECK(gone_before(b->pids[i], end));
}

/* A forkserver sees to its workers itself. */
static bool has_guardian(const char *method, what kind) {
  return kind == COMMANDS || strcmp(method, "forkserver") != 0;
}

/* The parent of orphans: looked up here, for a child has another one. */
static int64_t runner;

/* It gets its name a moment after it was made. */
static pid_t await_guardian(void) {
  int64_t pid;
  if (runner == 0)
    runner = getppid();
  AWAIT((pid = guardian_below(runner)) != 0);
  return (pid_t)pid;
}

/* ---- the parent is killed -------------------------------------------------------------------- */

static void parent_is_killed(where starter, what kind) {
  FOR_ALL_METHODS(method) {
    board *b = new_board(method, starter, kind, 3);
    mproc_process *keeper = start_keeper(b);
    bool guarded = starter != IN_MAIN_THREAD && has_guardian(method, kind);
    pid_t guardian = guarded ? await_guardian() : 0;
    sleep_ms(HERE_MS);
    check_all_here(b); /* also after the end of the thread that started them */
    kill_child(keeper);
    check_all_gone(b);
    if (guardian)
      CHECK(gone_within(guardian, GONE_MS));
    free_board(b);
  }
}

TEST(daemons_of_the_main_thread_die_with_a_killed_parent) {
  parent_is_killed(IN_MAIN_THREAD, ENTRIES);
}

TEST(daemons_of_a_thread_die_with_a_killed_parent) {
  parent_is_killed(IN_ENDED_THREAD, ENTRIES);
}

TEST(daemons_of_a_thread_of_other_groups_die_with_a_killed_parent) {
  if (geteuid() != 0)
    SKIP("only root can change its groups");
  parent_is_killed(IN_THREAD_OF_OTHER_GROUPS, ENTRIES);
  parent_is_killed(IN_THREAD_OF_OTHER_GROUPS, COMMANDS);
}

TEST(daemon_commands_of_the_main_thread_die_with_a_killed_parent) {
  parent_is_killed(IN_MAIN_THREAD, COMMANDS);
}

TEST(daemon_commands_of_a_thread_die_with_a_killed_parent) {
  parent_is_killed(IN_ENDED_THREAD, COMMANDS);
}

static void other_children_survive(where starter, what kind) {
  FOR_ALL_METHODS(method) {
    board *b = new_board(method, starter, kind, 2);
    b->daemon = 0;
    mproc_process *keeper = start_keeper(b);
    kill_child(keeper);
    sleep_ms(HERE_MS);
    check_all_here(b);
    for (int i = 0; i < b->started; i++)
      CHECK_EQ(kill((pid_t)b->pids[i], SIGKILL), 0);
    check_all_gone(b);
    free_board(b);
  }
}

TEST(other_children_survive_a_killed_parent) {
  other_children_survive(IN_MAIN_THREAD, ENTRIES);
  other_children_survive(IN_ENDED_THREAD, ENTRIES);
}

TEST(other_commands_survive_a_killed_parent) {
  other_children_survive(IN_MAIN_THREAD, COMMANDS);
  other_children_survive(IN_ENDED_THREAD, COMMANDS);
}

/* ---- the parent executes another program ----------------------------------------------------- */

static void parent_execs(where starter) {
  FOR_ALL_METHODS(method) {
    board *b = new_board(method, starter, ENTRIES, 2);
    b->then_exec = 1;
    mproc_process *keeper = start_keeper(b);
    sleep_ms(HERE_MS);
    check_all_here(b); /* it is the same process and lives */
    kill_child(keeper);
    check_all_gone(b);
    free_board(b);
  }
}

TEST(daemons_live_and_die_with_a_parent_that_execs) {
  parent_execs(IN_MAIN_THREAD);
  parent_execs(IN_ENDED_THREAD);
}

/* ---- the guardian ---------------------------------------------------------------------------- */

static void guardian_is_killed(what kind) {
  FOR_ALL_METHODS(method) {
    if (!has_guardian(method, kind))
      continue;
    board *b = new_board(method, IN_ENDED_THREAD, kind, 2);
    mproc_process *keeper = start_keeper(b);
    pid_t first = await_guardian();
    CHECK_EQ(kill(first, SIGKILL), 0);
    CHECK(gone_within(first, GONE_MS));
    check_all_here(b);
    b->more = 1;
    await_started(b, 2 * b->count);
    pid_t second = await_guardian();
    CHECK(second != first);
    check_all_here(b);
    kill_child(keeper);
    check_all_gone(b);
    CHECK(gone_within(second, GONE_MS));
    free_board(b);
  }
}

TEST(killed_guardian_is_replaced) {
  guardian_is_killed(ENTRIES);
}

TEST(killed_guardian_of_commands_is_replaced) {
  guardian_is_killed(COMMANDS);
}

/* Stopped, it still has a message to read when it is killed: its end is told in another way
 * then. */
TEST(guardian_killed_before_it_has_read_its_messages) {
  board *b = new_board("fork", IN_ENDED_THREAD, ENTRIES, 1);
  mproc_process *keeper = start_keeper(b);
  pid_t first = await_guardian();
  CHECK_EQ(kill(first, SIGSTOP), 0);
  CHECK(stopped_within(first, GONE_MS));
  b->more = 1;
  await_started(b, 2);
  CHECK_EQ(kill(first, SIGKILL), 0);
  CHECK(gone_within(first, GONE_MS));
  b->more = 1;
  await_started(b, 3);
  check_all_here(b);
  kill_child(keeper);
  check_all_gone(b);
  free_board(b);
}

/* A parent that dies while its guardian sleeps: what it said last is read before anybody is
 * killed. */
TEST(guardian_that_was_stopped_makes_up_for_it) {
  board *b = new_board("spawn", IN_ENDED_THREAD, ENTRIES, 1);
  mproc_process *keeper = start_keeper(b);
  pid_t guardian = await_guardian();
  CHECK_EQ(kill(guardian, SIGSTOP), 0);
  CHECK(stopped_within(guardian, GONE_MS));
  b->more = 1;
  await_started(b, 2);
  kill_child(keeper);
  CHECK_EQ(kill(guardian, SIGCONT), 0);
  check_all_gone(b);
  CHECK(gone_within(guardian, GONE_MS));
  free_board(b);
}

/* Till then every fork of the host's waits, whichever thread it is in. */
TEST(guardian_that_stays_stopped_is_replaced) {
  SKIP_UNDER_VALGRIND("400 processes at a time");
  board *b = new_board("fork", IN_ENDED_THREAD, ENTRIES, 1);
  mproc_process *keeper = start_keeper(b);
  pid_t guardian = await_guardian();
  CHECK_EQ(kill(guardian, SIGSTOP), 0);
  CHECK(stopped_within(guardian, GONE_MS));
  b->count = MAX_DAEMONS - 1;
  b->more = 1;
  await_started(b, MAX_DAEMONS);
  check_all_here(b);
  kill_child(keeper);
  check_all_gone(b);
  CHECK_EQ(kill(guardian, SIGCONT), 0);
  CHECK(gone_within(guardian, GONE_MS));
  free_board(b);
}

TEST(guardian_is_deaf_to_polite_signals) {
  static const int polite[] = {SIGTERM, SIGINT, SIGHUP, SIGQUIT};
  board *b = new_board("fork", IN_ENDED_THREAD, ENTRIES, 1);
  mproc_process *keeper = start_keeper(b);
  pid_t guardian = await_guardian();
  for (size_t i = 0; i < sizeof polite / sizeof polite[0]; i++)
    CHECK_EQ(kill(guardian, polite[i]), 0);
  sleep_ms(HERE_MS);
  CHECK_EQ(is_gone(guardian), false);
  kill_child(keeper);
  check_all_gone(b);
  free_board(b);
}

static int hunt_the_guardian(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  start_daemons(b);
  pid_t guardian = await_guardian();
  CHECK_EQ(waitpid(-1, NULL, WNOHANG | __WALL), 0);
  CHECK_EQ(kill(guardian, SIGKILL), 0);
  CHECK(gone_within(guardian, GONE_MS));
  sleep_ms(50);
  CHECK_EQ(waitpid(-1, NULL, WNOHANG | __WALL), 0);
  mproc_process *child;
  CHECK_EQ(mproc_active_children(&child, 1), 1);
  kill_child(child);
  CHECK_EQ(waitpid(-1, NULL, WNOHANG | __WALL), -1);
  CHECK_EQ(errno, ECHILD);
  return 0;
}

/* Neither its life nor its death is seen by a host that waits for any child. */
TEST(guardian_is_no_child_of_the_host) {
  runner = getppid();
  board *b = new_board("spawn", IN_ENDED_THREAD, COMMANDS, 1);
  check_exited(start_by("fork", hunt_the_guardian, &b, sizeof b), 0);
  check_all_gone(b);
  free_board(b);
}

/* Another thread that takes all children, while guardians are made, gets nothing of theirs. */
static int make_a_guardian_under_watch(void *arg, size_t size) {
  static taker watcher;
  board *b = *(board **)arg;
  (void)size;
  start_taker(&watcher, 0);
  start_daemons(b);
  sleep_ms(20);
  stop_taker(&watcher);
  CHECK_EQ(watcher.taken, 0);
  return 0;
}

TEST(guardian_in_the_making_is_no_child_either) {
  for (int round = 0; round < 10; round++) {
    board *b = new_board("spawn", IN_ENDED_THREAD, ENTRIES, 1);
    check_exited(start_by("fork", make_a_guardian_under_watch, &b, sizeof b), 0);
    check_all_gone(b);
    free_board(b);
  }
}

/* A forked child is not its parent's keeper: daemons that it starts are tied to it. */
static int keep_in_a_thread(void *arg, size_t size) {
  board **both = *(board ***)arg;
  (void)size;
  start_daemons(both[0]);
  mproc_process *keeper = start_by("fork", keep, &both[1], sizeof both[1]);
  await_started(both[1], both[1]->count);
  kill_child(keeper);
  check_all_gone(both[1]);
  check_all_here(both[0]);
  return 0;
}

TEST(each_process_has_a_guardian_of_its_own) {
  board **both = mproc_heap_calloc(2, sizeof *both);
  CHECK(both != NULL);
  for (int i = 0; i < 2; i++)
    both[i] = new_board("fork", IN_ENDED_THREAD, ENTRIES, 1);
  check_exited(start_by("fork", keep_in_a_thread, &both, sizeof both), 0);
  check_all_gone(both[0]);
  for (int i = 0; i < 2; i++)
    free_board(both[i]);
  CHECK_EQ(mproc_heap_free(both), 0);
}

/* ---- the parent's ordinary end --------------------------------------------------------------- */

static int end_with_daemons(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  start_daemons(b);
  return 3;
}

TEST(daemons_are_terminated_when_their_parent_ends) {
  FOR_ALL_METHODS(method)
  for (int starter = IN_MAIN_THREAD; starter <= IN_ENDED_THREAD; starter++) {
    board *b = new_board(method, (where)starter, ENTRIES, 2);
    check_exited(start_by(method, end_with_daemons, &b, sizeof b), 3);
    check_all_gone(b);
    free_board(b);
  }
}
