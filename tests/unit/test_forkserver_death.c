/* The forkserver is killed or stopped, with few workers and with many: who is a daemon dies, the
 * others go on, every status is right, nobody hangs, and the next start works. */
#include "forkserver.h"
#include "harness.h"

#include <pthread.h>
#include <sys/resource.h>

enum { WORKERS_MAX = 1000 };

/* A worker ends in the way of its number when the other end of its pipe is closed: a thousand that
 * look for a word now and then are a load that proves nothing. */
typedef struct task {
  board *b;
  int64_t number; /* no padding: valgrind looks at what is sent */
} task;

static int barrier[2];

static void raise_barrier(void) {
  CHECK_EQ(pipe2(barrier, O_CLOEXEC), 0);
}

static void lower_barrier(void) {
  CHECK_EQ(close(barrier[0]), 0);
  CHECK_EQ(close(barrier[1]), 0);
}

static int wait_and_end(void *arg, size_t size) {
  task t = *(task *)arg;
  (void)size;
  mproc_handle other;
  char byte;
  CHECK_EQ(mproc_inherited("barrier", &other), 0);
  t.b->count++;
  CHECK_EQ(read((int)other, &byte, 1), 0);
  if (t.number % 3 == 1)
    raise(SIGKILL);
  if (t.number % 3 == 2)
    _exit((int)(t.number % 100)); /* leaves no record of its own */
  return (int)(t.number % 100);
}

static mproc_process *start_task(board *b, int number, bool daemon) {
  const mproc_inherit list[] = {{barrier[0], "barrier"}};
  const mproc_process_options options = {
      .method = "forkserver", .daemon = daemon, .inherit = list, .inherit_count = 1};
  task t = {b, number};
  return start_with(&options, wait_and_end, &t, sizeof t);
}

/* Without pidfds that know an exit status (Linux 6.15) nobody can tell how a stranger ended. */
static void check_task_ended(mproc_process *worker, int number) {
  mproc_status status = end_of(worker);
  if (status.state == MPROC_STATE_UNKNOWN && number % 3 != 0)
    return;
  CHECK_EQ(status.state, number % 3 == 1 ? MPROC_STATE_SIGNALED : MPROC_STATE_EXITED);
  CHECK_EQ(status.signal, number % 3 == 1 ? SIGKILL : 0);
  CHECK_EQ(status.code, number % 3 == 1 ? -1 : number % 100);
}

/* ---- killed ---------------------------------------------------------------------------------- */

static mproc_process *workers[WORKERS_MAX];

/* Which all wait at the barrier then; one of so many is a daemon, the last of them. */
static void start_tasks(board *b, int count, int daemon_of) {
  raise_barrier();
  for (int i = 0; i < count; i++)
    workers[i] = start_task(b, i, daemon_of && i % daemon_of == daemon_of - 1);
  AWAIT(b->count == count);
}

/* Every fifth is a daemon. */
static void server_is_killed(int count) {
  board *b = new_board();
  const int code = 8;
  int64_t server = server_of(NULL);
  start_tasks(b, count, 5);
  kill_process(server);
  int64_t end = end_of_wait(GONE_MS);
  for (int i = 4; i < count; i += 5) {
    CHECK(gone_before(mproc_process_pid(workers[i]), end));
    mproc_status status = end_of(workers[i]);
    CHECK(status.state == MPROC_STATE_SIGNALED || status.state == MPROC_STATE_UNKNOWN);
  }
  for (int i = 0; i < count; i++)
    if (i % 5 != 4)
      CHECK_EQ(mproc_process_is_alive(workers[i]), 1);
  check_exited(ask(return_code, &code, sizeof code), code);
  lower_barrier();
  for (int i = 0; i < count; i++)
    if (i % 5 != 4)
      check_task_ended(workers[i], i);
  CHECK(server_of(NULL) != server);
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST(server_killed_with_one_worker) {
  for (int number = 0; number < 3; number++) {
    board *b = new_board();
    int64_t server = server_of(NULL);
    raise_barrier();
    mproc_process *worker = start_task(b, number + 90, false);
    AWAIT(b->count == 1);
    kill_process(server);
    CHECK_EQ(mproc_process_is_alive(worker), 1);
    CHECK_EQ(mproc_process_join(worker, 0), -EAGAIN);
    lower_barrier();
    check_task_ended(worker, number + 90);
    CHECK_EQ(mproc_heap_free(b), 0);
  }
}

/* What only the server was told is gone with it, and the text says so. */
TEST(figures_of_a_worker_whose_server_was_killed) {
  mproc_rusage usage;
  board *b = new_board();
  int64_t server = server_of(NULL);
  raise_barrier();
  mproc_process *worker = start_task(b, 90, false);
  AWAIT(b->count == 1);
  kill_process(server);
  lower_barrier();
  CHECK_EQ(mproc_process_join(worker, JOIN_MS), 0);
  CHECK_EQ(mproc_process_rusage(worker, &usage), MPROC_ESTATUS_UNKNOWN);
  CHECK_CONTAINS(mproc_error_detail(), "forkserver");
  CHECK_EQ(mproc_process_close(worker), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST_LIMIT(server_killed_with_a_hundred_workers, 60) {
  server_is_killed(100);
}

TEST_LIMIT(server_killed_with_a_thousand_workers, 180) {
  server_is_killed(test_scale(1000));
}

/* Both at once, while the asker joins. */
TEST(server_killed_just_when_the_worker_ends) {
  for (int round = 0; round < test_scale(100); round++) {
    board *b = new_board();
    int64_t server = server_of(NULL);
    raise_barrier();
    mproc_process *worker = start_task(b, round * 3, false);
    AWAIT(b->count == 1);
    lower_barrier();
    if (round % 2)
      sched_yield();
    CHECK_EQ(kill((pid_t)server, SIGKILL), 0);
    check_task_ended(worker, round * 3);
    CHECK(gone_within(server, JOIN_MS));
    CHECK_EQ(mproc_heap_free(b), 0);
  }
}

/* Whoever kills servers all the time may fail a start, but not fake a status. */
static _Atomic bool killer_must_end;
static board *targets;

static int tell_server_and_return(void *arg, size_t size) {
  (void)size;
  targets = ((task *)arg)->b;
  targets->server = getppid();
  return (int)((task *)arg)->number;
}

static void *kill_servers(void *nothing) {
  while (!killer_must_end) {
    int64_t server = atomic_exchange(&targets->server, 0);
    if (server > 1 && server != getppid()) /* whose an orphan is */
      (void)kill((pid_t)server, SIGKILL);
    sleep_ms(5);
  }
  return nothing;
}

static void *start_and_join(void *argument) {
  int failures = 0;
  for (int i = 0; i < test_scale(100); i++) {
    const mproc_process_options options = {.method = "forkserver"};
    task t = {targets, i % 200};
    mproc_process *worker = create_with(&options, tell_server_and_return, &t, sizeof t);
    int r = mproc_process_start(worker);
    if (r == 0) {
      mproc_status status = end_of(worker);
      CHECK_EQ(status.state, MPROC_STATE_EXITED);
      CHECK_EQ(status.code, i % 200);
    } else {
      CHECK(r == MPROC_ESERVER || r == MPROC_EBOOT);
      CHECK_EQ(mproc_process_close(worker), 0);
      failures++;
    }
  }
  *(int *)argument = failures;
  return NULL;
}

TEST_LIMIT(servers_killed_all_the_time, 120) {
  pthread_t killer, starters[4];
  int failures[4];
  targets = new_board();
  CHECK_EQ(pthread_create(&killer, NULL, kill_servers, NULL), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&starters[i], NULL, start_and_join, &failures[i]), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(starters[i], NULL), 0);
  killer_must_end = true;
  CHECK_EQ(pthread_join(killer, NULL), 0);
  CHECK(server_of(NULL) > 1);
  CHECK_EQ(mproc_heap_free(targets), 0);
}

static int become_sleep(void *arg, size_t size) {
  (void)arg, (void)size;
  execl("/bin/sleep", "sleep", "30", (char *)NULL);
  return 1;
}

TEST(daemon_that_executed_a_program_dies_with_the_server) {
  const mproc_process_options options = {.method = "forkserver", .daemon = 1};
  int64_t server = server_of(NULL);
  mproc_process *worker = start_with(&options, become_sleep, NULL, 0);
  kill_process(server);
  CHECK(gone_within(mproc_process_pid(worker), GONE_MS));
  mproc_status status = end_of(worker);
  CHECK(status.state == MPROC_STATE_SIGNALED || status.state == MPROC_STATE_UNKNOWN);
}

TEST(server_is_deaf_to_polite_signals) {
  static const int polite[] = {SIGTERM, SIGINT,  SIGHUP,  SIGQUIT,
                               SIGUSR1, SIGPIPE, SIGALRM, SIGTSTP};
  int64_t server = server_of(NULL);
  for (size_t i = 0; i < sizeof polite / sizeof polite[0]; i++)
    CHECK_EQ(kill((pid_t)server, polite[i]), 0);
  CHECK_EQ(server_of(NULL), server);
}

/* ---- stopped --------------------------------------------------------------------------------- */

static void server_is_stopped(int count) {
  board *b = new_board();
  const int code = 8;
  int64_t server = server_of(NULL);
  start_tasks(b, count, 0);
  stop_process(server);
  lower_barrier();
  int64_t begin = now_ms();
  for (int i = 0; i < count; i++)
    check_task_ended(workers[i], i);
  CHECK(TEST_HAS_TSAN || test_under_valgrind() || now_ms() - begin < 3000 + 3 * count);

  const mproc_process_options options = {.method = "forkserver", .start_timeout_ms = 150};
  board *other = new_board();
  mproc_process *late = create_with(&options, say_server, &other, sizeof other);
  begin = now_ms();
  CHECK_EQ(mproc_process_start(late), -ETIMEDOUT);
  CHECK(now_ms() - begin < 2000);
  CHECK_EQ(kill((pid_t)server, SIGCONT), 0);
  check_exited(ask(return_code, &code, sizeof code), code);
  AWAIT(count_children(server) == 0);
  CHECK_EQ(other->pid, 0); /* it was called off */
  CHECK_EQ(mproc_process_start(late), 0);
  check_exited(late, 0);
  CHECK_EQ(other->server, server);
  CHECK_EQ(mproc_heap_free(other), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST(server_stopped_with_one_worker) {
  server_is_stopped(1);
}

TEST_LIMIT(server_stopped_with_a_hundred_workers, 60) {
  server_is_stopped(100);
}

TEST_LIMIT(server_stopped_with_a_thousand_workers, 120) {
  SKIP_UNDER_VALGRIND("a thousand processes at a time");
  server_is_stopped(1000);
}

/* More requests than its socket takes: each gives up in time, and none comes to life later. */
static void *start_late(void *argument) {
  const mproc_process_options options = {.method = "forkserver", .start_timeout_ms = 300};
  static const char big[50000];
  board *b = argument;
  for (int i = 0; i < 10; i++) {
    char copy[sizeof big];
    memcpy(copy, big, sizeof copy);
    memcpy(copy, &b, sizeof b);
    mproc_process *late = create_with(&options, say_server, copy, sizeof copy);
    CHECK_EQ(mproc_process_start(late), -ETIMEDOUT);
    CHECK_EQ(mproc_process_close(late), 0);
  }
  return NULL;
}

TEST(requests_pile_up_before_a_stopped_server) {
  pthread_t threads[4];
  board *b = new_board();
  int64_t server = server_of(NULL);
  int descriptors = descriptors_of(server);
  stop_process(server);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, start_late, b), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(kill((pid_t)server, SIGCONT), 0);
  CHECK_EQ(server_of(NULL), server);
  CHECK_EQ(b->pid, 0);
  AWAIT(count_children(server) == 0 && descriptors_of(server) <= descriptors);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int use_and_wait(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  mproc_context *context = new_context(NULL, 0, 1);
  const mproc_process_options options = {.method = "forkserver", .context = context, .daemon = 1};
  b->pid = mproc_process_pid(start_with(&options, sleep_for_long, NULL, 0));
  b->server = server_of(context);
  sleep_ms(20000);
  return 0;
}

/* The client dies while the server cannot see it. */
TEST(client_killed_while_the_server_is_stopped) {
  board *b = new_board();
  mproc_process *client = start_by("fork", use_and_wait, &b, sizeof b);
  AWAIT(b->server);
  stop_process(b->server);
  kill_child(client);
  CHECK_EQ(kill((pid_t)b->server, SIGCONT), 0);
  CHECK(gone_within(b->pid, GONE_MS));
  CHECK(gone_within(b->server, GONE_MS));
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* A stopped server that is killed in the end is replaced, whoever waits for it. */
static void *kill_later(void *argument) {
  sleep_ms(200);
  CHECK_EQ(kill((pid_t) * (int64_t *)argument, SIGKILL), 0);
  return NULL;
}

TEST(stopped_server_is_killed_under_a_start) {
  pthread_t thread;
  const int code = 5;
  int64_t server = server_of(NULL);
  stop_process(server);
  CHECK_EQ(pthread_create(&thread, NULL, kill_later, &server), 0);
  int64_t begin = now_ms();
  check_exited(ask(return_code, &code, sizeof code), code);
  CHECK(now_ms() - begin < 5000);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}
