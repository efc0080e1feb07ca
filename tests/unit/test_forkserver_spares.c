/* Spares: workers that wait before they are asked for. They are a gain, never a condition: killed,
 * stopped or used up, every start comes through. */
#include "forkserver.h"
#include "harness.h"

#include <pthread.h>
#include <sys/resource.h>

enum { AT_ONCE = 50, WORKERS = 264 }; /* 256 spares at most */

static bool contains(const int64_t *pids, int count, int64_t pid) {
  for (int i = 0; i < count; i++)
    if (pids[i] == pid)
      return true;
  return false;
}

typedef struct spare_set {
  mproc_context *context;
  int64_t server, pids[64];
  int count;
} spare_set;

/* Looked up anew each time: one of them may just have been killed. The last may not wait yet. */
static bool all_wait(spare_set *set, int count) {
  set->count = children_of(set->server, set->pids, 64);
  for (int i = 0; i < set->count; i++)
    if (state_of(set->pids[i]) != 'S' && state_of(set->pids[i]) != 'T')
      return false;
  return set->count == count;
}

static void await_spares(spare_set *set, int count) {
  AWAIT(all_wait(set, count));
}

static spare_set new_spares(int count) {
  spare_set set = {.context = new_context(NULL, 0, count)};
  set.server = server_of(set.context);
  await_spares(&set, count);
  return set;
}

TEST(start_takes_a_spare_and_it_is_replaced) {
  static const int counts[] = {1, 3, 20};
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    spare_set set = new_spares(counts[i]);
    for (int round = 0; round < 5; round++) {
      mproc_process *worker = ask_context(set.context, sleep_for_long, NULL, 0);
      CHECK(contains(set.pids, set.count, mproc_process_pid(worker)));
      AWAIT(count_children(set.server) == counts[i] + 1);
      kill_child(worker);
      await_spares(&set, counts[i]);
    }
    CHECK_EQ(server_of(set.context), set.server);
    mproc_context_destroy(set.context);
    CHECK(gone_within(set.server, GONE_MS));
    for (int k = 0; k < set.count; k++)
      CHECK(gone_within(set.pids[k], GONE_MS));
  }
}

/* ---- state ----------------------------------------------------------------------------------- */

static int say_state(void *arg, size_t size) {
  board *b = *(board **)arg;
  struct rlimit limit;
  (void)size;
  CHECK(getcwd(b->text, sizeof b->text) != NULL);
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  b->pids[0] = (int64_t)limit.rlim_cur;
  b->pids[1] = umask(0);
  b->pids[2] = getpgrp();
  b->pids[3] = getenv("OF_MINE") ? atoi(getenv("OF_MINE")) : -1;
  b->pids[4] = getpriority(PRIO_PROCESS, 0);
  sigset_t mask;
  CHECK_EQ(sigprocmask(SIG_BLOCK, NULL, &mask), 0);
  b->pids[5] = sigismember(&mask, SIGUSR1) + 2 * sigismember(&mask, SIGTERM);
  return 0;
}

TEST(spares_have_the_changed_state) {
  spare_set set = new_spares(2);
  board *b = new_board();
  struct rlimit limit;
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  for (int round = 0; round < 6; round++) {
    char number[16];
    await_spares(&set, 2);
    limit.rlim_cur = 300 + (rlim_t)round;
    CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
    CHECK_EQ(chdir(round % 2 ? "/" : "/proc"), 0);
    umask(round % 2 ? 022 : 077);
    snprintf(number, sizeof number, "%d", round);
    CHECK_EQ(setenv("OF_MINE", number, 1), 0);
    CHECK_EQ(setpriority(PRIO_PROCESS, 0, 10 + round), 0);
    CHECK_EQ(sigprocmask(round % 2 ? SIG_BLOCK : SIG_UNBLOCK, &mask, NULL), 0);
    CHECK_EQ(setpgid(0, round % 2 ? getpgid(getppid()) : 0), 0);
    mproc_process *worker = ask_context(set.context, say_state, &b, sizeof b);
    CHECK(contains(set.pids, set.count, mproc_process_pid(worker)));
    check_exited(worker, 0);
    CHECK_STR(b->text, round % 2 ? "/" : "/proc");
    CHECK_EQ(b->pids[0], 300 + round);
    CHECK_EQ(b->pids[1], round % 2 ? 022 : 077);
    CHECK_EQ(b->pids[2], getpgrp());
    CHECK_EQ(b->pids[3], round);
    CHECK_EQ(b->pids[4], 10 + round);
    CHECK_EQ(b->pids[5], round % 2);
  }
  mproc_context_destroy(set.context);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- killed and stopped ---------------------------------------------------------------------- */

static void check_starts(const spare_set *set, int count, int within_ms) {
  const int code = 11;
  for (int i = 0; i < count; i++) {
    int64_t begin = now_ms();
    mproc_process *worker = ask_context(set->context, return_code, &code, sizeof code);
    CHECK(now_ms() - begin < within_ms);
    check_exited(worker, code);
  }
}

TEST(killed_spares_are_replaced) {
  for (int killed = 1; killed <= 3; killed++) {
    spare_set set = new_spares(3);
    for (int i = 0; i < killed; i++)
      kill_process(set.pids[i]);
    check_starts(&set, 5, 2000);
    await_spares(&set, 3);
    for (int i = 0; i < killed; i++)
      kill_process(set.pids[i]);
    await_spares(&set, 3); /* without a start too */
    check_starts(&set, 5, 2000);
    CHECK_EQ(server_of(set.context), set.server);
    mproc_context_destroy(set.context);
  }
}

/* Much more than 200 ms under load; far less than the limit of a start. */
TEST(all_spares_stopped) {
  spare_set set = new_spares(3);
  for (int i = 0; i < 3; i++)
    stop_process(set.pids[i]);
  check_starts(&set, 8, 3000);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(kill((pid_t)set.pids[i], SIGCONT), 0);
  await_spares(&set, 3);
  check_starts(&set, 20, 2000);
  await_spares(&set, 3);
  CHECK_EQ(server_of(set.context), set.server);
  mproc_context_destroy(set.context);
}

/* They wake up with requests that were served long ago, whose processes still run. */
TEST(stopped_spares_wake_up_too_late) {
  spare_set set = new_spares(3);
  mproc_process *workers[6];
  for (int i = 0; i < 3; i++)
    stop_process(set.pids[i]);
  for (int i = 0; i < 6; i++)
    workers[i] = ask_context(set.context, sleep_for_long, NULL, 0);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(kill((pid_t)set.pids[i], SIGCONT), 0);
  check_starts(&set, 10, 2000);
  AWAIT(count_children(set.server) == 9);
  for (int i = 0; i < 6; i++) {
    CHECK_EQ(mproc_process_is_alive(workers[i]), 1);
    CHECK_EQ(mproc_process_kill(workers[i]), 0);
    check_killed(workers[i], SIGKILL);
  }
  await_spares(&set, 3);
  mproc_context_destroy(set.context);
  CHECK(gone_within(set.server, GONE_MS)); /* none counts as a worker */
}

/* While they take requests: a start that loses its worker says so at once, nothing hangs. */
static _Atomic bool hunter_must_end;

static void *hunt(void *argument) {
  const spare_set *set = argument;
  int64_t pids[64];
  while (!hunter_must_end) {
    int count = children_of(set->server, pids, 64);
    if (count > 0)
      (void)kill((pid_t)pids[0], SIGKILL);
    sleep_ms(1);
  }
  return NULL;
}

TEST_LIMIT(spares_killed_while_they_are_taken, 60) {
  pthread_t hunter;
  spare_set set = new_spares(3);
  const int code = 14;
  const mproc_process_options options = {.method = "forkserver", .context = set.context};
  CHECK_EQ(pthread_create(&hunter, NULL, hunt, &set), 0);
  for (int i = 0; i < test_scale(500); i++) {
    mproc_process *worker = create_with(&options, return_code, &code, sizeof code);
    int64_t begin = now_ms();
    int r = mproc_process_start(worker);
    CHECK(now_ms() - begin < 5000);
    CHECK(r == 0 || r == MPROC_EBOOT);
    if (r == 0) {
      mproc_status status = end_of(worker);
      CHECK(status.state == MPROC_STATE_SIGNALED ? status.signal == SIGKILL : status.code == code);
    } else {
      CHECK_EQ(mproc_process_close(worker), 0);
    }
  }
  hunter_must_end = true;
  CHECK_EQ(pthread_join(hunter, NULL), 0);
  await_spares(&set, 3);
  check_starts(&set, 10, 2000);
  mproc_context_destroy(set.context);
}

/* ---- signals and users ----------------------------------------------------------------------- */

static void ignore_signal(int number) {
  (void)number;
}

static mproc_process *start_nothing(mproc_context *context) {
  return ask_context(context, return_code, &(int){0}, sizeof(int));
}

/* What came to all of the group while it waited is not the worker's. */
TEST(signals_to_the_group_do_not_wait_in_spares) {
  static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGALRM};
  CHECK_EQ(setpgid(0, 0), 0);
  spare_set set = new_spares(3);
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    const struct sigaction action = {.sa_handler = ignore_signal};
    CHECK_EQ(sigaction(numbers[i], &action, NULL), 0);
    CHECK_EQ(kill(0, numbers[i]), 0);
  }
  for (int i = 0; i < 4; i++)
    check_exited(start_nothing(set.context), 0);
  mproc_context_destroy(set.context);
}

static int change_user_and_ask(void *arg, size_t size) {
  (void)size;
  if (setgid(65534) < 0 || setuid(65534) < 0)
    return 9;
  check_exited(start_nothing(*(mproc_context **)arg), 0);
  return 0;
}

static bool starts_in_a_spare(const spare_set *set) {
  mproc_process *worker = start_nothing(set->context);
  bool found = contains(set->pids, set->count, mproc_process_pid(worker));
  check_exited(worker, 0);
  return found;
}

/* A spare that refused a request waits for others still, and is known to. */
TEST(spares_that_were_asked_by_another_user) {
  if (geteuid() != 0)
    SKIP("only root can become another user");
  spare_set set = new_spares(2);
  for (int i = 0; i < 3; i++)
    check_exited(start_by("fork", change_user_and_ask, &set.context, sizeof set.context), 0);
  for (int i = 0; i < 4; i++)
    AWAIT(all_wait(&set, 2) && starts_in_a_spare(&set));
  mproc_context_destroy(set.context);
}

/* ---- many ------------------------------------------------------------------------------------ */

TEST(fifty_at_once_with_three_spares) {
  spare_set set = new_spares(3);
  mproc_process *workers[AT_ONCE];
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < AT_ONCE; i++)
      workers[i] = ask_context(set.context, return_code, &i, sizeof i);
    for (int i = 0; i < AT_ONCE; i++)
      check_exited(workers[i], i);
    await_spares(&set, 3);
  }
  mproc_context_destroy(set.context);
}

TEST(as_many_spares_as_can_be) {
  mproc_context *context = new_context(NULL, 0, 256);
  int64_t server = server_of(context);
  const int code = 2;
  AWAIT(count_children(server) == 256);
  for (int i = 0; i < 20; i++)
    check_exited(ask_context(context, return_code, &code, sizeof code), code);
  AWAIT(count_children(server) == 256);
  mproc_context_destroy(context);
  CHECK(gone_within(server, GONE_MS));
}

/* A place among the spares is free again once its worker runs. */
TEST_LIMIT(more_workers_from_spares_than_there_can_be_spares, 60) {
  spare_set set = new_spares(3);
  mproc_process *workers[WORKERS];
  for (int i = 0; i < WORKERS; i++) {
    if (i % 3 == 0)
      AWAIT(count_children(set.server) == i + 3);
    workers[i] = ask_context(set.context, sleep_for_long, NULL, 0);
  }
  AWAIT(count_children(set.server) == WORKERS + 3);
  for (int i = 0; i < WORKERS; i++)
    CHECK_EQ(mproc_process_kill(workers[i]), 0);
  for (int i = 0; i < WORKERS; i++)
    check_killed(workers[i], SIGKILL);
  await_spares(&set, 3);
  mproc_context_destroy(set.context);
}

/* How many starts come through while most of the spares are yet to be made. */
static int starts_among_spares(int spares) {
  mproc_context *context = new_context(NULL, 0, spares);
  int served = 0, there = 0;
  int64_t server = 0, end = now_ms() + JOIN_MS;
  CHECK_EQ(mproc_context_refresh(context), 0);
  for (; there < spares && now_ms() < end; there = count_children(server)) {
    mproc_process *worker = start_nothing(context);
    if (!server)
      server = parent_of(mproc_process_pid(worker));
    served += there > spares / 16 && there < spares - spares / 16;
    check_exited(worker, 0);
  }
  AWAIT(count_children(server) == spares);
  mproc_context_destroy(context);
  return served;
}

/* They take a while: starts are served in between, not before the first and after the last. A
 * starter that gets no CPU meanwhile tries again. */
TEST_LIMIT(starts_do_not_wait_for_all_spares_to_be_made, 60) {
  int served = 0;
  for (int i = 0; i < 10 && served == 0; i++)
    served = starts_among_spares(256);
  CHECK(served > 0);
}

/* ---- deaths ---------------------------------------------------------------------------------- */

TEST(spares_die_with_their_server) {
  spare_set set = new_spares(5);
  mproc_process *worker = ask_context(set.context, sleep_for_long, NULL, 0);
  await_spares(&set, 6);
  kill_process(set.server);
  int64_t end = end_of_wait(GONE_MS);
  for (int i = 0; i < 6; i++)
    if (set.pids[i] != mproc_process_pid(worker))
      CHECK(gone_before(set.pids[i], end));
  sleep_ms(100);
  CHECK_EQ(mproc_process_is_alive(worker), 1); /* it was a spare, and is none any more */
  CHECK_EQ(mproc_process_kill(worker), 0);
  (void)end_of(worker);
  check_starts(&set, 3, 5000);
  mproc_context_destroy(set.context);
}

static int keep_daemons(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  mproc_context *context = new_context(NULL, 0, 3);
  b->server = server_of(context);
  AWAIT(count_children(b->server) == 3);
  for (int i = 0; i < 6; i++) {
    const mproc_process_options options = {
        .method = "forkserver", .context = context, .daemon = i < 3};
    b->pids[i] = mproc_process_pid(start_with(&options, sleep_for_long, NULL, 0));
  }
  b->count = 6;
  AWAIT(b->go);
  return 0;
}

TEST(daemons_that_were_spares_die_with_their_asker) {
  board *b = new_board();
  mproc_process *keeper = start_by("fork", keep_daemons, &b, sizeof b);
  AWAIT(b->count == 6);
  kill_child(keeper);
  int64_t end = end_of_wait(GONE_MS);
  for (int i = 0; i < 3; i++)
    CHECK(gone_before(b->pids[i], end));
  for (int i = 3; i < 6; i++) {
    CHECK(!is_gone(b->pids[i]));
    kill_process(b->pids[i]);
  }
  CHECK(gone_within(b->server, GONE_MS));
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* Right after it has started one: before the server noticed which spare it took. */
static int start_a_daemon_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  mproc_context *context = new_context(NULL, 0, 2);
  b->server = server_of(context);
  AWAIT(count_children(b->server) == 2);
  const mproc_process_options options = {.method = "forkserver", .context = context, .daemon = 1};
  b->pid = mproc_process_pid(start_with(&options, sleep_for_long, NULL, 0));
  raise(SIGKILL);
  return 0;
}

TEST(daemon_of_an_asker_that_dies_at_once) {
  for (int i = 0; i < 10; i++) {
    board *b = new_board();
    check_killed(start_by("fork", start_a_daemon_and_die, &b, sizeof b), SIGKILL);
    CHECK(gone_within(b->pid, GONE_MS));
    CHECK(gone_within(b->server, GONE_MS));
    CHECK_EQ(mproc_heap_free(b), 0);
  }
}

/* ---- another asker --------------------------------------------------------------------------- */

enum { DAEMONS = 4 };

static int sleep_for_ever_as(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->pids[b->count++] = getpid();
  for (;;)
    (void)pause();
  return 0;
}

typedef struct asking {
  const mproc_context *context;
  board *b;
} asking;

/* Its daemons go on while it lives, and end with it. */
static int ask_for_daemons(void *arg, size_t size) {
  const asking *own = arg;
  const mproc_process_options options = {
      .method = "forkserver", .context = own->context, .daemon = 1};
  (void)size;
  for (int i = 0; i < DAEMONS; i++) {
    (void)start_with(&options, sleep_for_ever_as, &own->b, sizeof own->b);
    AWAIT(own->b->count == i + 1);
    sleep_ms(20); /* the server notices, and makes another spare */
  }
  for (int i = 0; i < DAEMONS; i++)
    CHECK(!is_gone(own->b->pids[i]));
  own->b->go = 1;
  for (;;)
    (void)pause();
  return 0;
}

TEST(daemons_from_spares_of_another_asker) {
  asking own = {new_context(NULL, 0, 3), new_board()};
  int64_t server = server_of(own.context);
  AWAIT(count_children(server) == 3);
  mproc_process *asker = start_by("fork", ask_for_daemons, &own, sizeof own);
  AWAIT(own.b->go);
  CHECK_EQ(kill((pid_t)mproc_process_pid(asker), SIGKILL), 0);
  check_killed(asker, SIGKILL);
  int64_t end = end_of_wait(GONE_MS);
  for (int i = 0; i < DAEMONS; i++)
    CHECK(gone_before(own.b->pids[i], end));
  mproc_context_destroy((mproc_context *)(uintptr_t)own.context);
  CHECK_EQ(mproc_heap_free(own.b), 0);
}
