/* What preload functions, askers and their surroundings do to a server: threads that wait for its
 * children, descriptors used up, signals to the group, threads of different privileges. */
#include "forkserver.h"
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

/* ---- somebody else waits for the workers ----------------------------------------------------- */

static void *wait_for_any_child(void *nothing) {
  for (;;) {
    (void)waitpid(0, NULL, 0);
    usleep(200);
  }
  return nothing;
}

static int preload_thief(void) {
  pthread_t thread;
  return pthread_create(&thread, NULL, wait_for_any_child, NULL);
}

/* Not of the group: the thread leaves it to the server, which has it before it each time. */
static int preload_zombie(void) {
  pid_t pid = fork();
  if (pid == 0)
    _exit(setpgid(0, 0));
  AWAIT(state_of(pid) == 'Z');
  return pid < 0;
}

/* What the worker wrote down counts; the server forgets it, and ends. */
TEST(thread_that_waits_for_all_children) {
  mproc_preload *const preload[] = {preload_thief, preload_zombie};
  for (size_t count = 1; count <= 2; count++) {
    mproc_context *context = new_context(preload, count, 0);
    int64_t server = 0;
    for (int code = 5; code < 8; code++) {
      int64_t begin = now_ms();
      mproc_status status = end_of(ask_context(context, return_code, &code, sizeof code));
      CHECK_EQ(status.state, MPROC_STATE_EXITED);
      CHECK_EQ(status.code, code);
      CHECK(test_under_valgrind() || now_ms() - begin < 3000); /* the server's patience is 5 s */
    }
    mproc_process *killed = ask_context(context, sleep_for_long, NULL, 0);
    server = look_at(mproc_process_pid(killed)).parent;
    CHECK_EQ(mproc_process_kill(killed), 0);
    mproc_status status = end_of(killed); /* nobody has its status now, or the server was first */
    CHECK(status.state == MPROC_STATE_UNKNOWN || status.signal == SIGKILL);
    mproc_context_destroy(context);
    CHECK(gone_within(server, JOIN_MS));
  }
}

/* ---- a thread in the middle of something ----------------------------------------------------- */

static _Atomic bool in_the_middle;

static void *work_and_sleep(void *nothing) {
  for (int64_t end = now_ms() + 300; now_ms() < end;)
    continue;
  in_the_middle = false;
  for (;;)
    pause();
  return nothing;
}

static int preload_busy_thread(void) {
  pthread_t thread;
  in_the_middle = true;
  return pthread_create(&thread, NULL, work_and_sleep, NULL);
}

static int say_in_the_middle(void *arg, size_t size) {
  (void)arg, (void)size;
  return in_the_middle;
}

/* Workers are copied when it sleeps: else its work would be half done in each of them for ever. */
TEST(threads_of_a_preload_come_to_rest_first) {
  mproc_preload *const preload[] = {preload_busy_thread};
  mproc_context *context = new_context(preload, 1, 0);
  check_exited(ask_context(context, say_in_the_middle, NULL, 0), 0);
  mproc_context_destroy(context);
}

/* ---- a worker that never takes its slot ------------------------------------------------------ */

static void end_worker(void) {
  _exit(1);
}

static int preload_deadly_hook(void) {
  return pthread_atfork(NULL, NULL, end_worker);
}

TEST(hook_of_a_preload_ends_each_worker) {
  mproc_preload *const preload[] = {preload_deadly_hook};
  mproc_context *context = new_context(preload, 1, 0);
  const mproc_process_options options = {.method = "forkserver", .context = context};
  mproc_process *process = create_with(&options, return_code, NULL, 0);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_process_start(process), MPROC_EBOOT);
  CHECK_CONTAINS(mproc_error_detail(), "exited with code 1");
  CHECK(now_ms() - begin < JOIN_MS);
  CHECK_EQ(mproc_process_close(process), 0);
  mproc_context_destroy(context);
}

/* ---- a server without descriptors ------------------------------------------------------------ */

enum { ROOM = 14, ASKERS = 14 };

static int preload_fill(void) {
  int fds[1000], count = 0;
  while (count < 1000 && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
    count++;
  for (int i = 0; i < ROOM && count > 0; i++)
    close(fds[--count]);
  return 0;
}

typedef struct asking {
  const mproc_context *context;
  board *b;
  int64_t number;
} asking;

static int say_pid_and_wait(void *arg, size_t size) {
  const asking *own = arg;
  (void)size;
  own->b->pids[own->number] = getpid();
  return sleep_for_long(NULL, 0);
}

static int ask_for_a_daemon(void *arg, size_t size) {
  const asking *own = arg;
  const mproc_process_options options = {
      .method = "forkserver", .context = own->context, .daemon = 1};
  mproc_process *daemon = create_with(&options, say_pid_and_wait, own, sizeof *own);
  (void)size;
  if (mproc_process_start(daemon) == 0)
    AWAIT(own->b->pids[own->number]);
  else
    CHECK_EQ(mproc_process_close(daemon), 0);
  own->b->count++;
  AWAIT(own->b->go);
  return 0;
}

/* Whom it cannot watch by a descriptor, it knows by pid: alive, the asker keeps its daemons. */
TEST(asker_is_not_forgotten_by_a_server_without_descriptors) {
  struct rlimit limit;
  mproc_preload *const preload[] = {preload_fill};
  SKIP_UNDER_VALGRIND("it has descriptors of its own below the limit");
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  limit.rlim_cur = limit.rlim_max = 200;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  asking own = {new_context(preload, 1, 0), new_board(), 0};
  mproc_process *askers[ASKERS];
  int daemons = 0;
  CHECK_EQ(mproc_context_refresh(own.context), 0);
  for (; own.number < ASKERS; own.number++) {
    askers[own.number] = start_by("fork", ask_for_a_daemon, &own, sizeof own);
    AWAIT(own.b->count == own.number + 1);
  }
  sleep_ms(300); /* three looks of the server */
  for (int i = 0; i < ASKERS; i++)
    if (own.b->pids[i]) {
      CHECK(!is_gone(own.b->pids[i]));
      daemons++;
    }
  CHECK(daemons >= ROOM / 2);
  own.b->go = 1;
  for (int i = 0; i < ASKERS; i++)
    check_exited(askers[i], 0);
  mproc_context_destroy((mproc_context *)(uintptr_t)own.context);
  CHECK_EQ(mproc_heap_free(own.b), 0);
}

static int ask_once(void *arg, size_t size) {
  (void)size;
  return end_of(ask_context(((asking *)arg)->context, return_code, &(int){3}, sizeof(int))).code;
}

TEST(descriptors_of_a_server_that_many_asked) {
  asking own = {new_context(NULL, 0, 0), NULL, 0};
  int64_t server = server_of(own.context);
  int before = descriptors_of(server);
  mproc_process *askers[50];
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < 50; i++)
      askers[i] = start_by("fork", ask_once, &own, sizeof own);
    for (int i = 0; i < 50; i++)
      check_exited(askers[i], 3);
  }
  AWAIT(descriptors_of(server) <= before);
  CHECK_EQ(server_of(own.context), server);
  mproc_context_destroy((mproc_context *)(uintptr_t)own.context);
}

/* ---- spares ---------------------------------------------------------------------------------- */

static mproc_context *context_with_spares(int count, int64_t *ret_server) {
  mproc_context *context = new_context(NULL, 0, count);
  *ret_server = server_of(context);
  AWAIT(count_children(*ret_server) == count);
  return context;
}

static bool is_spare(int64_t server, mproc_process *(*start)(mproc_context *),
                     mproc_context *context) {
  int64_t spares[8];
  int count = children_of(server, spares, 8);
  mproc_process *worker = start(context);
  bool found = false;
  for (int i = 0; i < count; i++)
    found |= spares[i] == mproc_process_pid(worker);
  check_exited(worker, 0);
  return found;
}

static mproc_process *start_nothing(mproc_context *context) {
  return ask_context(context, return_code, &(int){0}, sizeof(int));
}

static void ignore_signal(int number) {
  (void)number;
}

/* What came to all of the group while it waited is not the worker's. */
TEST(signals_to_the_group_do_not_wait_in_spares) {
  static const int numbers[] = {SIGINT, SIGTERM, SIGHUP, SIGUSR1, SIGALRM};
  int64_t server;
  CHECK_EQ(setpgid(0, 0), 0);
  mproc_context *context = context_with_spares(3, &server);
  for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
    const struct sigaction action = {.sa_handler = ignore_signal};
    CHECK_EQ(sigaction(numbers[i], &action, NULL), 0);
    CHECK_EQ(kill(0, numbers[i]), 0);
  }
  for (int i = 0; i < 4; i++)
    check_exited(start_nothing(context), 0);
  mproc_context_destroy(context);
}

static int change_user_and_ask(void *arg, size_t size) {
  (void)size;
  if (setgid(65534) < 0 || setuid(65534) < 0)
    return 9;
  check_exited(start_nothing(*(mproc_context **)arg), 0);
  return 0;
}

/* A spare that refused a request waits for others still, and is known to. */
TEST(spares_that_were_asked_by_another_user) {
  int64_t server;
  if (geteuid() != 0)
    SKIP("only root can become another user");
  mproc_context *context = context_with_spares(2, &server);
  for (int i = 0; i < 3; i++)
    check_exited(start_by("fork", change_user_and_ask, &context, sizeof context), 0);
  for (int i = 0; i < 4; i++) {
    AWAIT(count_children(server) == 2);
    AWAIT(is_spare(server, start_nothing, context));
  }
  mproc_context_destroy(context);
}

/* They take a while: starts are served in between, not before the first and after the last. */
TEST(starts_do_not_wait_for_all_spares_to_be_made) {
  enum { SPARES = 256 };
  mproc_context *context = new_context(NULL, 0, SPARES);
  int served = 0, there = 0;
  int64_t server = 0, end = now_ms() + JOIN_MS;
  CHECK_EQ(mproc_context_refresh(context), 0);
  for (; there < SPARES && now_ms() < end; there = count_children(server)) {
    mproc_process *worker = start_nothing(context);
    if (!server)
      server = look_at(mproc_process_pid(worker)).parent;
    served += there > SPARES / 16 && there < SPARES - SPARES / 16;
    check_exited(worker, 0);
  }
  CHECK(served >= 3);
  AWAIT(count_children(server) == SPARES);
  mproc_context_destroy(context);
}

/* ---- threads of different privileges --------------------------------------------------------- */

static void *start_many(void *other) {
  if (other)
    CHECK_EQ(unshare(CLONE_NEWUTS | CLONE_FS), 0);
  for (int i = 0; i < test_scale(10) + 2; i++)
    check_exited(start_by("forkserver", return_code, &i, sizeof i), i);
  return NULL;
}

/* Each takes the other's server for its own, and gets one in the end. */
TEST_LIMIT(threads_of_different_privileges, 120) {
  pthread_t threads[6];
  if (geteuid() != 0)
    SKIP("only root can have another namespace");
  for (int i = 0; i < 6; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, start_many, i % 2 ? threads : NULL), 0);
  for (int i = 0; i < 6; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
}
