/* Processes among each other: who is whose child, many at once, beside threads. */
#include "each_method.h"
#include "in_child.h"

#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

/* ---- the main process ------------------------------------------------------------------------ */

TEST(main_process_knows_itself) {
  mproc_process_info info;
  CHECK_OK(mproc_current_process(&info));
  CHECK_STR(info.name, "MainProcess");
  CHECK_STR(info.method, "main");
  CHECK_EQ(info.pid, getpid());
  CHECK_EQ(info.daemon, 0);
}

static void check_no_parent(void) {
  mproc_process_info info = {.pid = -7};
  mproc_handle handle = -7;
  CHECK_EQ(mproc_parent_process(&info), -ESRCH);
  CHECK_CONTAINS(mproc_error_detail(), "main process");
  CHECK_EQ(mproc_parent_is_alive(), -ESRCH);
  CHECK_EQ(mproc_parent_sentinel(&handle), -ESRCH);
  CHECK_EQ(info.pid, -7);
  CHECK_EQ(handle, -7);
}

TEST(main_process_has_no_parent) {
  check_no_parent();
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  check_no_parent();
}

TEST(cpu_count_heeds_the_affinity) {
  cpu_set_t all, one;
  CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  int count = mproc_cpu_count();
  CHECK(count >= 1 && count <= CPU_COUNT(&all));
  size_t first = 0;
  while (!CPU_ISSET(first, &all))
    first++;
  CPU_ZERO(&one);
  CPU_SET(first, &one);
  CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  CHECK_EQ(mproc_cpu_count(), 1);
}

/* ---- a child and its parent ------------------------------------------------------------------ */

typedef struct expectation {
  char method[16];
  char name[32];
  char parent_name[32];
  char parent_method[16];
  int daemon;
  int64_t parent_pid;
} expectation;

static int check_relations(void *arg, size_t size) {
  const expectation *expected = arg;
  mproc_process_info info;
  mproc_handle handle;
  CHECK_EQ(size, sizeof *expected);
  CHECK_OK(mproc_current_process(&info));
  CHECK_EQ(info.pid, getpid());
  CHECK_STR(info.name, expected->name);
  CHECK_STR(info.method, expected->method);
  CHECK_EQ(info.daemon, expected->daemon);
  CHECK_OK(mproc_parent_process(&info));
  CHECK_EQ(info.pid, expected->parent_pid);
  CHECK_EQ(info.pid == getppid(), strcmp(expected->method, "forkserver") != 0);
  CHECK_STR(info.name, expected->parent_name);
  CHECK_STR(info.method, expected->parent_method);
  CHECK_EQ(mproc_parent_is_alive(), 1);
  if (has_pidfds()) { /* there is no such thing without them */
    CHECK_OK(mproc_parent_sentinel(&handle));
    CHECK(!is_readable(handle));
  } else {
    CHECK_EQ(mproc_parent_sentinel(&handle), -ENOSYS);
  }
  return 42;
}

static void check_child(const char *method, int daemon) {
  expectation expected = {.name = "child", .parent_name = "MainProcess", .parent_method = "main"};
  mproc_process_options options = {.name = "child", .daemon = daemon};
  snprintf(expected.method, sizeof expected.method, "%s", method);
  expected.daemon = daemon;
  expected.parent_pid = getpid();
  CHECK_EQ(
      code_of_child(start_child(method, check_relations, &expected, sizeof expected, &options)),
      42);
}

static const char *method_in_child;

static void check_children(void) {
  check_child(method_in_child, 0);
  check_child(method_in_child, 1);
}

/* In a process of its own: root's has a guardian, and a channel to it. */
EACH_METHOD(child_knows_itself_and_its_parent) {
  method_in_child = method;
  in_child(check_children);
}

/* ---- children of children -------------------------------------------------------------------- */

enum { DEPTH = 4 };

typedef struct generation {
  int depth;        /* of this process */
  unsigned methods; /* digit n - 1 in base 3: how generation n is started */
  int64_t parent_pid;
} generation;

static const char *method_of(const generation *self, int depth) {
  static const char *const methods[] = {"fork", "spawn", "forkserver"};
  unsigned digits = self->methods;
  for (int i = 1; i < depth; i++)
    digits /= 3;
  return depth == 0 ? "main" : methods[digits % 3];
}

static int run_generation(void *arg, size_t size) {
  generation next = *(generation *)arg;
  int depth = next.depth;
  char name[32];
  CHECK_EQ(size, sizeof next);
  if (depth > 0) {
    expectation expected = {.daemon = 0, .parent_pid = next.parent_pid};
    snprintf(expected.name, sizeof expected.name, "generation-%d", depth);
    snprintf(expected.method, sizeof expected.method, "%s", method_of(&next, depth));
    snprintf(expected.parent_method, sizeof expected.parent_method, "%s",
             method_of(&next, depth - 1));
    if (depth == 1)
      snprintf(expected.parent_name, sizeof expected.parent_name, "MainProcess");
    else
      snprintf(expected.parent_name, sizeof expected.parent_name, "generation-%d", depth - 1);
    CHECK_EQ(check_relations(&expected, sizeof expected), 42);
  }
  if (depth == DEPTH)
    return 10;
  next.depth = depth + 1;
  next.parent_pid = getpid();
  snprintf(name, sizeof name, "generation-%d", next.depth);
  mproc_process_options options = {.name = name};
  return 1 + code_of_child(start_child(method_of(&next, next.depth), run_generation, &next,
                                       sizeof next, &options));
}

TEST_LIMIT(children_of_children_by_every_mix_of_methods, 60) {
  unsigned step = test_under_valgrind() ? 8 : 1; /* two seconds each there */
  for (unsigned methods = 0; methods < 3 * 3 * 3 * 3; methods += step) {
    generation first = {.methods = methods};
    CHECK_EQ(run_generation(&first, sizeof first), 10 + DEPTH);
  }
}

/* ---- the death of a parent ------------------------------------------------------------------- */

typedef struct watch {
  _Atomic int pid;
  _Atomic int saw_it_alive;
  _Atomic int saw_the_sentinel;
  _Atomic int saw_it_dead;
  _Atomic int done;
} watch;

static int outlive_parent(void *arg, size_t size) {
  watch *shared = *(watch **)arg;
  mproc_handle handle;
  CHECK_EQ(size, sizeof shared);
  int r = mproc_parent_sentinel(&handle);
  CHECK_EQ(r, has_pidfds() ? 0 : -ENOSYS);
  shared->saw_it_alive = mproc_parent_is_alive() == 1;
  shared->pid = getpid();
  struct pollfd item = {.fd = r == 0 ? (int)handle : -1, .events = POLLIN};
  shared->saw_the_sentinel = poll(&item, 1, r == 0 ? 10000 : 500) == (r == 0);
  shared->saw_it_dead = mproc_parent_is_alive() == 0;
  shared->done = 1;
  return 0;
}

static int have_a_child_and_sleep(void *arg, size_t size) {
  watch *shared = *(watch **)arg;
  mproc_process *process = start_child(getenv("TEST_METHOD"), outlive_parent, arg, size, NULL);
  AWAIT(shared->pid != 0);
  (void)process;
  return sleep_for_ever(NULL, 0);
}

static void check_orphan(const char *method, const char *method_of_grandchild) {
  watch *shared = mproc_heap_calloc(1, sizeof *shared);
  CHECK_EQ(setenv("TEST_METHOD", method_of_grandchild, 1), 0);
  mproc_process *process =
      start_child(method, have_a_child_and_sleep, &shared, sizeof shared, NULL);
  AWAIT(shared->pid != 0);
  kill_child(process);
  AWAIT(shared->done);
  CHECK(shared->saw_it_alive);
  CHECK(shared->saw_the_sentinel);
  CHECK(shared->saw_it_dead);
  AWAIT(kill(shared->pid, 0) < 0);
  CHECK_OK(mproc_heap_free(shared));
}

EACH_METHOD(child_outlives_a_killed_parent_and_sees_it) {
  check_orphan(method, "fork");
  check_orphan(method, "spawn");
  check_orphan(method, "forkserver");
}

/* A sentinel asked for after the death is one that says so. */
static int ask_late(void *arg, size_t size) {
  watch *shared = *(watch **)arg;
  mproc_handle handle;
  CHECK_EQ(size, sizeof shared);
  shared->pid = getpid();
  int64_t end = now_ms() + 10000;
  while (mproc_parent_is_alive() == 1 && now_ms() < end)
    sleep_ms(5);
  shared->saw_it_dead = mproc_parent_is_alive() == 0;
  CHECK_OK(mproc_parent_sentinel(&handle));
  shared->saw_the_sentinel = is_readable(handle);
  shared->done = 1;
  return 0;
}

static int have_a_late_child_and_sleep(void *arg, size_t size) {
  watch *shared = *(watch **)arg;
  (void)start_child(getenv("TEST_METHOD"), ask_late, arg, size, NULL);
  AWAIT(shared->pid != 0);
  return sleep_for_ever(NULL, 0);
}

EACH_METHOD(sentinel_of_a_parent_that_is_dead_already) {
  watch *shared = mproc_heap_calloc(1, sizeof *shared);
  CHECK_EQ(setenv("TEST_METHOD", method, 1), 0);
  mproc_process *process =
      start_child("fork", have_a_late_child_and_sleep, &shared, sizeof shared, NULL);
  AWAIT(shared->pid != 0);
  kill_child(process);
  AWAIT(shared->done);
  CHECK(shared->saw_the_sentinel);
  CHECK(shared->saw_it_dead);
  AWAIT(kill(shared->pid, 0) < 0);
  CHECK_OK(mproc_heap_free(shared));
}

/* ---- active children ------------------------------------------------------------------------- */

EACH_METHOD(active_children_are_those_that_run) {
  mproc_process *children[3], *found[4] = {NULL};
  CHECK_EQ(mproc_active_children(NULL, 0), 0);
  for (int i = 0; i < 3; i++)
    children[i] = start_child(method, sleep_for_ever, NULL, 0, NULL);
  mproc_process *idle = create_child(method, return_zero, NULL, 0, NULL);
  CHECK_EQ(mproc_active_children(NULL, 0), 3);
  CHECK_EQ(mproc_active_children(found, 2), 3);
  CHECK(found[0] == children[0] && found[1] == children[1] && found[2] == NULL);
  CHECK_OK(mproc_process_kill(children[1]));
  CHECK_OK(mproc_process_join(children[1], MPROC_FOREVER));
  CHECK_EQ(mproc_active_children(found, 4), 2);
  CHECK(found[0] == children[0] && found[1] == children[2]);
  CHECK_OK(mproc_process_kill(children[0]));
  AWAIT(mproc_active_children(NULL, 0) == 1); /* joins what ended, as in Python */
  CHECK_OK(mproc_process_close(children[0]));
  CHECK_OK(mproc_process_close(children[1]));
  CHECK_OK(mproc_process_close(idle));
  kill_child(children[2]);
}

static int count_active(void *arg, size_t size) {
  (void)arg, (void)size;
  return mproc_active_children(NULL, 0);
}

EACH_METHOD(child_has_none_of_its_parents_children) {
  mproc_process *other = start_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(run_child(method, count_active, NULL, 0), 0);
  kill_child(other);
}

/* ---- many at once ---------------------------------------------------------------------------- */

enum { STARTERS = 8, STARTS = 50 };

static int return_byte(void *arg, size_t size) {
  return size == 1 ? *(unsigned char *)arg : 99;
}

static void *start_many(void *arg) {
  int number = *(int *)arg, starts = test_scale(STARTS);
  mproc_process *running[2] = {NULL, NULL};
  unsigned char codes[2] = {0, 0};
  for (int i = 0; i < starts; i++) { /* two run at a time */
    int slot = i & 1;
    if (running[slot])
      CHECK_EQ(code_of_child(running[slot]), codes[slot]);
    codes[slot] = (unsigned char)(number * STARTS + i);
    running[slot] =
        start_child(all_methods[(number + i) % METHODS], return_byte, &codes[slot], 1, NULL);
  }
  for (int slot = 0; slot < 2; slot++)
    if (running[slot])
      CHECK_EQ(code_of_child(running[slot]), codes[slot]);
  return NULL;
}

TEST_LIMIT(eight_threads_start_at_once, 120) {
  pthread_t threads[STARTERS];
  int numbers[STARTERS];
  CHECK_EQ(run_child("forkserver", return_zero, NULL, 0), 0); /* heap and server exist */
  int before = descriptor_count();
  for (int i = 0; i < STARTERS; i++) {
    numbers[i] = i;
    CHECK_EQ(pthread_create(&threads[i], NULL, start_many, &numbers[i]), 0);
  }
  for (int i = 0; i < STARTERS; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(descriptor_count(), before);
  CHECK_EQ(mproc_active_children(NULL, 0), 0);
}

/* ---- beside threads -------------------------------------------------------------------------- */

static atomic_bool stop;

static void *allocate(void *arg) {
  (void)arg;
  for (size_t size = 1; !stop; size = size % 5000 + 37) {
    void *block = malloc(size);
    CHECK(block);
    memset(block, 1, size);
    free(block);
  }
  return NULL;
}

static void *read_standard_input(void *arg) {
  *(int *)arg = getchar(); /* holds the lock of stdin */
  return NULL;
}

static int work_after_start(void *arg, size_t size) {
  char *text = malloc(1000);
  CHECK(text);
  snprintf(text, 1000, "%.*s", (int)size, (char *)arg);
  int r = strcmp(text, "hello") == 0 ? 33 : 1;
  free(text);
  fputs("", stdout);
  return r;
}

EACH_METHOD_LIMIT(starts_beside_busy_threads, 60) {
  int input[2], got = 0;
  pthread_t reader, allocators[2];
  make_pipe(input);
  int null = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
  CHECK_EQ(dup2(input[0], STDIN_FILENO), STDIN_FILENO);
  CHECK_EQ(pthread_create(&reader, NULL, read_standard_input, &got), 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_create(&allocators[i], NULL, allocate, NULL), 0);
  sleep_ms(20);
  for (int i = 0; i < test_scale(100); i++)
    CHECK_EQ(run_child(method, work_after_start, "hello", 6), 33);
  stop = true;
  CHECK_EQ(write(input[1], "q", 1), 1);
  CHECK_EQ(pthread_join(reader, NULL), 0);
  CHECK_EQ(got, 'q');
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_join(allocators[i], NULL), 0);
  CHECK_EQ(dup2(null, STDIN_FILENO), STDIN_FILENO);
  CHECK_EQ(close(null), 0);
  CHECK_EQ(close(input[0]), 0);
  CHECK_EQ(close(input[1]), 0);
}

static void *start_and_leave(void *arg) {
  *(mproc_process **)arg = start_child("spawn", sleep_for_ever, NULL, 0, NULL);
  return NULL;
}

TEST(child_outlives_the_thread_that_started_it) {
  mproc_process *process;
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, start_and_leave, &process), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(mproc_process_join(process, 100), -ETIMEDOUT);
  kill_child(process);
}

/* ---- hooks after a fork ---------------------------------------------------------------------- */

static char trace[16];

static void append_trace(void *user) {
  strncat(trace, user, sizeof trace - strlen(trace) - 1);
}

static int check_trace(void *arg, size_t size) {
  char expected[sizeof trace];
  snprintf(expected, sizeof expected, "%.*s", (int)size, (char *)arg);
  return strcmp(trace, expected) == 0 ? 0 : 1;
}

TEST(hooks_run_in_order_in_forked_children_only) {
  static char a[] = "a", b[] = "b";
  CHECK_EQ(mproc_after_fork(NULL, a), -EINVAL);
  CHECK_OK(mproc_after_fork(append_trace, a));
  CHECK_OK(mproc_after_fork(append_trace, b));
  CHECK_OK(mproc_after_fork(append_trace, a));
  CHECK_EQ(run_child("fork", check_trace, "aba", 4), 0);
  CHECK_EQ(run_child("spawn", check_trace, "", 1), 0);
  CHECK_EQ(run_child("forkserver", check_trace, "", 1), 0);
  CHECK_STR(trace, "");
}

static int start_with_hooks(void *arg, size_t size) {
  return run_child("fork", check_trace, arg, size);
}

TEST(hooks_are_inherited_by_forked_children) {
  static char a[] = "a";
  CHECK_OK(mproc_after_fork(append_trace, a));
  CHECK_EQ(run_child("fork", start_with_hooks, "aa", 3), 0);
}
