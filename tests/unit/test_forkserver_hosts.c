/* What preload functions, askers and their surroundings do to a server: threads that wait for its
 * children, descriptors used up, threads of different privileges. */
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
    server = parent_of(mproc_process_pid(killed));
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
