/* Contexts of the forkserver: preload functions, who shares a server, and how a server is replaced
 * or sent away. */
#include "forkserver.h"
#include "harness.h"

#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

enum { BIG = 64 << 20 };

/* ---- what is preloaded ----------------------------------------------------------------------- */

static int preloaded; /* in the server and its workers */
static char *preloaded_memory;
static int64_t preloaded_by;

static int preload_one(void) {
  preloaded = preloaded * 10 + 1;
  preloaded_by = getpid();
  return 0;
}

static int preload_two(void) {
  preloaded = preloaded * 10 + 2;
  return 0;
}

static int preload_memory(void) {
  preloaded_memory = malloc(BIG);
  if (!preloaded_memory)
    return 1;
  memset(preloaded_memory, 'p', BIG);
  return 0;
}

static int return_preloaded(void *arg, size_t size) {
  (void)arg, (void)size;
  return preloaded_by == getppid() ? preloaded : 255;
}

TEST(preload_runs_once_and_in_order) {
  mproc_preload *const preload[] = {preload_one, preload_two, preload_one};
  mproc_context *context = new_context(preload, 3, 0);
  for (int i = 0; i < 5; i++)
    check_exited(ask_context(context, return_preloaded, NULL, 0), 121);
  CHECK_EQ(preloaded, 0); /* not here */
  mproc_context_destroy(context);
}

/* Memory of its own, in KiB; what is shared with the server is not counted. */
static int look_at_memory(void *arg, size_t size) {
  board *b = *(board **)arg;
  long private_kib = 0, value;
  char line[256];
  (void)size;
  CHECK(preloaded_memory != NULL);
  for (size_t i = 0; i < BIG; i += 4096)
    CHECK_EQ(preloaded_memory[i], 'p');
  FILE *file = fopen("/proc/self/smaps_rollup", "re");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "Private_Dirty: %ld", &value) == 1)
      private_kib = value;
  if (file)
    fclose(file);
  b->code = (int)private_kib;
  preloaded_memory[0] = 'x'; /* nobody else's */
  return 0;
}

TEST(preloaded_memory_is_shared_until_written) {
  mproc_preload *const preload[] = {preload_memory};
  mproc_context *context = new_context(preload, 1, 0);
  board *b = new_board();
  for (int i = 0; i < 3; i++) {
    check_exited(ask_context(context, look_at_memory, &b, sizeof b), 0);
    if (!TEST_HAS_TSAN) /* which copies what a child reads */
      CHECK(b->code < BIG / 1024 / 2);
  }
  mproc_context_destroy(context);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- preload functions that fail ------------------------------------------------------------- */

static int preload_error(void) {
  return 13;
}

static int preload_crash(void) {
  signal(SIGSEGV, SIG_DFL);
  raise(SIGSEGV);
  return 0;
}

static int preload_exit(void) {
  exit(0);
}

static int preload_quick_exit(void) {
  _exit(0);
}

static int preload_hang(void) {
  sleep_ms(60000);
  return 0;
}

/* The second of two fails; the text says which, and another context works. */
static void preload_fails(mproc_preload *function, int error, const char *text) {
  mproc_preload *const preload[] = {preload_one, function};
  const int zero = 0;
  mproc_context *context = new_context(preload, 2, 0);
  const int timeout_ms = test_under_valgrind() ? 8000 : 400;
  const mproc_process_options options = {
      .method = "forkserver", .context = context, .start_timeout_ms = timeout_ms};
  mproc_process *process = create_with(&options, return_code, &zero, sizeof zero);
  for (int i = 0; i < 3; i++) {
    int64_t begin = now_ms();
    CHECK_EQ(mproc_process_start(process), error);
    CHECK(now_ms() - begin < 3000 + timeout_ms);
    CHECK_CONTAINS(mproc_error_detail(), "preload function 2 of 2");
    CHECK_CONTAINS(mproc_error_detail(), "test_forkserver_contexts+0x");
    if (text)
      CHECK_CONTAINS(mproc_error_detail(), text);
  }
  CHECK_EQ(mproc_process_close(process), 0);
  CHECK(server_of(NULL) > 1);
  mproc_context_destroy(context);
}

TEST(preload_returns_an_error) {
  preload_fails(preload_error, MPROC_EPRELOAD, "returned 13");
}

TEST(preload_crashes) {
  preload_fails(preload_crash, MPROC_EBOOT, NULL);
}

TEST(preload_exits) {
  preload_fails(preload_exit, MPROC_EBOOT, NULL);
  preload_fails(preload_quick_exit, MPROC_EBOOT, NULL);
}

TEST(preload_hangs) {
  preload_fails(preload_hang, -ETIMEDOUT, NULL);
}

/* What was left hanging is gone when its asker gave it up: not when that ends. */
TEST(preload_that_hangs_leaves_no_process) {
  mproc_preload *const preload[] = {preload_hang};
  const int zero = 0;
  int64_t pids[64];
  (void)server_of(NULL);
  int before = children_of(getppid(), pids, 64);
  mproc_context *context = new_context(preload, 1, 0);
  const mproc_process_options options = {
      .method = "forkserver", .context = context, .start_timeout_ms = 100};
  mproc_process *process = create_with(&options, return_code, &zero, sizeof zero);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_process_start(process), -ETIMEDOUT);
  for (int64_t end = end_of_wait(GONE_MS); children_of(getppid(), pids, 64) > before; sleep_ms(5))
    CHECK(now_ms() < end);
  CHECK_EQ(mproc_process_close(process), 0);
  mproc_context_destroy(context);
}

static void *sleep_in_a_thread(void *nothing) {
  for (;;)
    pause();
  return nothing;
}

static int preload_thread(void) {
  pthread_t thread;
  return pthread_create(&thread, NULL, sleep_in_a_thread, NULL);
}

static char logged[4096];

static void take_log(void *user, mproc_log_level level, const char *message) {
  (void)user, (void)level;
  snprintf(logged + strlen(logged), sizeof logged - strlen(logged), "%s\n", message);
}

TEST(preload_that_leaves_a_thread_is_reported) {
  mproc_preload *const preload[] = {preload_thread, preload_thread};
  mproc_set_log(take_log, NULL, MPROC_LOG_ERROR);
  mproc_context *context = new_context(preload, 2, 0);
  CHECK(server_of(context) > 1);
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF);
  CHECK_CONTAINS(logged, TEST_HAS_TSAN ? "3 threads" : "2 threads"); /* and its own */
  mproc_context_destroy(context);
}

static _Atomic bool preload_is_over;

static void *end_while_the_server_sleeps(void *nothing) {
  while (!preload_is_over || state_of(getpid()) != 'S')
    sched_yield();
  return nothing;
}

static int preload_thread_that_ends(void) {
  pthread_t thread;
  int r = pthread_create(&thread, NULL, end_while_the_server_sleeps, NULL);
  preload_is_over = true;
  return r;
}

/* The kernel still counts a thread that was joined when the server looks: one that ends meanwhile
 * is not reported. */
TEST(preload_whose_thread_is_about_to_end) {
  mproc_preload *const preload[] = {preload_thread_that_ends};
  if (TEST_HAS_TSAN)
    SKIP("ThreadSanitizer's own thread is reported");
  mproc_set_log(take_log, NULL, MPROC_LOG_ERROR);
  mproc_context *context = new_context(preload, 1, 0);
  CHECK(server_of(context) > 1);
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF);
  CHECK_STR(logged, "");
  mproc_context_destroy(context);
}

/* A child of the preload function's own, which nobody waits for, hides no worker's end. */
static int preload_child(void) {
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0)
    _exit(0);
  return pid < 0;
}

static int preload_handlers(void) {
  struct sigaction action = {.sa_handler = SIG_IGN};
  sigset_t all;
  sigfillset(&all);
  for (int number = 1; number < 32; number++)
    (void)sigaction(number, &action, NULL);
  return sigprocmask(SIG_BLOCK, &all, NULL);
}

TEST(preload_that_leaves_children_and_handlers) {
  mproc_preload *const preload[] = {preload_child, preload_child, preload_handlers};
  mproc_context *context = new_context(preload, 3, 0);
  const int code = 12;
  for (int i = 0; i < 5; i++) {
    check_exited(ask_context(context, return_code, &code, sizeof code), code);
    mproc_process *worker = ask_context(context, sleep_for_long, NULL, 0);
    CHECK_EQ(mproc_process_terminate(worker), 0);
    check_killed(worker, SIGTERM);
  }
  mproc_context_destroy(context);
}

/* What it changes is the server's; a worker has its asker's. */
static int preload_surroundings(void) {
  struct rlimit few;
  if (getrlimit(RLIMIT_NOFILE, &few) < 0)
    return 1;
  few.rlim_cur = 200;
  umask(0777);
  setenv("OF_THE_PRELOAD", "1", 1);
  return chdir("/proc") || setpriority(PRIO_PROCESS, 0, 5) || setrlimit(RLIMIT_NOFILE, &few);
}

static int compare_surroundings(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->code = (int)umask(0);
  CHECK(getcwd(b->text, sizeof b->text) != NULL);
  b->count = getpriority(PRIO_PROCESS, 0);
  b->go = getenv("OF_THE_PRELOAD") != NULL;
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  b->pid = (int64_t)limit.rlim_cur;
  return 0;
}

TEST(preload_that_changes_its_surroundings) {
  mproc_preload *const preload[] = {preload_surroundings};
  board *b = new_board();
  char here[512];
  mode_t mask = umask(027);
  if (geteuid() != 0)
    SKIP("only root takes a nice value back");
  mproc_context *context = new_context(preload, 1, 0);
  check_exited(ask_context(context, compare_surroundings, &b, sizeof b), 0);
  umask(mask);
  CHECK_EQ(b->code, 027);
  CHECK(getcwd(here, sizeof here) != NULL);
  CHECK_STR(b->text, here);
  CHECK_EQ(b->count, getpriority(PRIO_PROCESS, 0));
  CHECK_EQ(b->go, 0);
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  CHECK_EQ(b->pid, limit.rlim_cur);
  mproc_context_destroy(context);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- who shares a server --------------------------------------------------------------------- */

TEST(contexts_share_a_server_by_their_settings) {
  mproc_preload *const first[] = {preload_one, preload_two};
  mproc_preload *const second[] = {preload_two, preload_one};
  mproc_context *contexts[] = {new_context(first, 2, 0), new_context(first, 2, 0),
                               new_context(second, 2, 0), new_context(first, 1, 0),
                               new_context(first, 2, 1)};
  int64_t servers[5];
  for (int i = 0; i < 5; i++)
    servers[i] = server_of(contexts[i]);
  CHECK_EQ(servers[0], servers[1]);
  for (int i = 1; i < 5; i++)
    for (int k = i + 1; k < 5; k++)
      CHECK(servers[i] != servers[k]);
  mproc_context_destroy(contexts[0]);
  CHECK_EQ(server_of(contexts[1]), servers[1]); /* not the last of them */
  for (int i = 1; i < 5; i++) {
    mproc_context_destroy(contexts[i]);
    CHECK(gone_within(servers[i], GONE_MS));
  }
}

/* A worker that makes a context with the settings of its own server finds that one. */
static int say_server_of_the_same(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_preload *const preload[] = {preload_one};
  (void)size;
  mproc_context *context = new_context(preload, 1, 0);
  b->server = server_of(context);
  mproc_context_destroy(context); /* not its parent's server */
  b->asker = getppid();
  return 0;
}

TEST(worker_shares_its_parents_server) {
  mproc_preload *const preload[] = {preload_one};
  mproc_context *context = new_context(preload, 1, 0);
  board *b = new_board();
  for (int i = 0; i < 3; i++) {
    check_exited(ask_context(context, say_server_of_the_same, &b, sizeof b), 0);
    CHECK_EQ(b->server, b->asker);
    CHECK_EQ(server_of(context), b->server);
  }
  mproc_context_destroy(context);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- stop and refresh ------------------------------------------------------------------------ */

static int wait_and_return(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->count++;
  AWAIT(b->go);
  return 33;
}

static void server_goes(void (*send_away)(mproc_context *context), bool destroyed) {
  mproc_preload *const preload[] = {preload_one};
  mproc_context *context = new_context(preload, 1, 2);
  board *b = new_board();
  mproc_process *workers[5];
  int64_t server = server_of(context);
  for (int i = 0; i < 5; i++)
    workers[i] = ask_context(context, wait_and_return, &b, sizeof b);
  AWAIT(b->count == 5);
  send_away(context);
  if (!destroyed) {
    CHECK(server_of(context) != server);
    check_exited(ask_context(context, return_preloaded, NULL, 0), 1);
  }
  CHECK(!is_gone(server));
  CHECK_EQ(mproc_process_kill(workers[4]), 0);
  check_killed(workers[4], SIGKILL);
  b->go = 1;
  for (int i = 0; i < 4; i++)
    check_exited(workers[i], 33);
  CHECK(gone_within(server, GONE_MS));
  CHECK_EQ(mproc_heap_free(b), 0);
  if (!destroyed)
    mproc_context_destroy(context);
}

static void stop(mproc_context *context) {
  mproc_context_stop(context);
  mproc_context_stop(context); /* nothing more to do */
}

static void refresh(mproc_context *context) {
  CHECK_EQ(mproc_context_refresh(context), 0);
}

TEST(stopped_server_ends_with_its_workers) {
  server_goes(stop, false);
}

TEST(refreshed_server_ends_with_its_workers) {
  server_goes(refresh, false);
}

TEST(server_of_destroyed_contexts_ends_with_its_workers) {
  server_goes(mproc_context_destroy, true);
}

TEST(refresh_of_a_context_without_a_server) {
  mproc_preload *const good[] = {preload_two}, *const bad[] = {preload_error};
  mproc_context *context = new_context(good, 1, 0), *broken = new_context(bad, 1, 0);
  CHECK_EQ(mproc_context_refresh(context), 0);
  CHECK_EQ(mproc_context_refresh(broken), MPROC_EPRELOAD);
  CHECK_CONTAINS(mproc_error_detail(), "preload function 1 of 1");
  mproc_context_stop(broken);
  mproc_context_destroy(context);
  mproc_context_destroy(broken);
}

TEST(context_of_another_method_has_no_server) {
  static const char *const methods[] = {"fork", "spawn"};
  int64_t server = server_of(NULL);
  for (int i = 0; i < 2; i++) {
    const mproc_context *context;
    CHECK_EQ(mproc_get_context(&context, methods[i]), 0);
    int before = descriptor_count();
    CHECK_EQ(mproc_context_refresh(context), -EINVAL);
    CHECK_CONTAINS(mproc_error_detail(), methods[i]);
    mproc_context_stop(context);
    CHECK_EQ(descriptor_count(), before);
  }
  CHECK_EQ(server_of(NULL), server);
}

static int refuse_once_told(void) {
  return getenv("MPROC_TEST_REFUSE") ? 7 : 0;
}

/* A bad version of what is preloaded stops nobody's work: the server that runs goes on. */
TEST(refresh_that_fails_changes_nothing) {
  mproc_preload *const preload[] = {refuse_once_told};
  mproc_context *context = new_context(preload, 1, 0);
  int64_t server = server_of(context);
  CHECK_EQ(setenv("MPROC_TEST_REFUSE", "1", 1), 0);
  CHECK_EQ(mproc_context_refresh(context), MPROC_EPRELOAD);
  CHECK_EQ(server_of(context), server);
  CHECK_EQ(unsetenv("MPROC_TEST_REFUSE"), 0);
  CHECK_EQ(mproc_context_refresh(context), 0);
  CHECK(server_of(context) != server);
  CHECK(gone_within(server, JOIN_MS));
  mproc_context_destroy(context);
}

/* While others start. */
static _Atomic bool starters_must_end;

static void *start_and_join(void *argument) {
  const int code = 21;
  while (!starters_must_end)
    check_exited(ask_context(argument, return_code, &code, sizeof code), code);
  return NULL;
}

TEST(refresh_while_others_start) {
  mproc_preload *const preload[] = {preload_one};
  mproc_context *context = new_context(preload, 1, 2);
  pthread_t threads[3];
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, start_and_join, context), 0);
  for (int i = 0; i < 40; i++) {
    if (i % 2)
      mproc_context_stop(context);
    else
      CHECK_EQ(mproc_context_refresh(context), 0);
    sleep_ms(3);
  }
  starters_must_end = true;
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  mproc_context_destroy(context);
}

/* ---- options --------------------------------------------------------------------------------- */

TEST(bad_settings_are_refused) {
  mproc_preload *const hole[] = {preload_one, NULL};
  const mproc_context_options bad[] = {{.preload = hole, .preload_count = 2},
                                       {.preload = hole},
                                       {.preload_count = 1},
                                       {.spares = -1},
                                       {.spares = 257}};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    mproc_context *context = NULL;
    CHECK_EQ(mproc_context_create(&context, &bad[i]), -EINVAL);
    CHECK(context == NULL);
  }
}

TEST(server_made_by_init) {
  for (int twice = 0; twice < 2; twice++) {
    const char *const argv[] = {test_child_path("early_server_main"), twice ? "twice" : NULL, NULL};
    char output[256];
    CHECK_EQ(run_program(argv, output, sizeof output), 0);
    CHECK_STR(output, "early 1 code 7 server 1\n");
  }
}
