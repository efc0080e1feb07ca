/* What a fork in one thread copies while other threads start and close. */
#include "descriptors.h"
#include "each_method.h"
#include "harness.h"
#include "in_child.h"
#include "taker.h"

#include "os/os.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>

/* ---- handles of siblings --------------------------------------------------------------------- */

/* Those that a start makes: pidfds, pipes and boot records. */
static int count_made_by_starts(void *arg, size_t size) {
  descriptor_list list;
  int count = 0;
  (void)arg, (void)size;
  list_descriptors(&list);
  for (int i = 0; i < list.count; i++)
    count += strstr(list.items[i].target, "pidfd") || strstr(list.items[i].target, "pipe:") ||
             strstr(list.items[i].target, "mproc-boot");
  return count;
}

static atomic_bool enough;

static void *start_and_close(void *method) {
  while (!enough)
    CHECK_EQ(code_of_child(method ? start_child(method, return_zero, NULL, 0, NULL)
                                  : start_command(COMMAND("/bin/true"), NULL)),
             0);
  return NULL;
}

static void check_no_siblings_handles(const char *method) {
  pthread_t threads[2];
  if (UNDER_SANITIZER || test_under_valgrind())
    SKIP("children of a spawn do not share memory here, and each needs a pipe");
  if (method) /* what a forkserver leaves open is no child's */
    CHECK_EQ(run_child(method, return_zero, NULL, 0), 0);
  int expected = run_child("fork", count_made_by_starts, NULL, 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, start_and_close, (void *)(uintptr_t)method), 0);
  for (int i = test_scale(1000) + 100; i > 0; i--)
    CHECK_EQ(run_child("fork", count_made_by_starts, NULL, 0), expected);
  enough = true;
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

TEST_LIMIT(forked_child_has_no_handle_of_a_sibling_fork, 60) {
  check_no_siblings_handles("fork");
}

TEST_LIMIT(forked_child_has_no_handle_of_a_sibling_spawn, 60) {
  check_no_siblings_handles("spawn");
}

TEST_LIMIT(forked_child_has_no_handle_of_a_sibling_forkserver, 60) {
  check_no_siblings_handles("forkserver");
}

TEST_LIMIT(forked_child_has_no_handle_of_a_sibling_command, 60) {
  check_no_siblings_handles(NULL);
}

static void *start_servers(void *nothing) {
  while (!enough)
    CHECK_OK(mproc_context_refresh(NULL));
  return nothing;
}

/* The report and the record of a server that another thread is starting. */
TEST_LIMIT(forked_child_has_no_handle_of_a_starting_server, 60) {
  pthread_t thread;
  if (UNDER_SANITIZER || test_under_valgrind())
    SKIP("children of a spawn do not share memory here, and each needs a pipe");
  CHECK_OK(mproc_context_refresh(NULL));
  int expected = run_child("fork", count_made_by_starts, NULL, 0);
  CHECK_EQ(pthread_create(&thread, NULL, start_servers, NULL), 0);
  for (int i = test_scale(1000) + 100; i > 0; i--)
    CHECK_EQ(run_child("fork", count_made_by_starts, NULL, 0), expected);
  enough = true;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  mproc_context_stop(NULL);
}

/* ---- numbers that are somebody else's by now ------------------------------------------------- */

void __real_mpx_os_close(mproc_handle handle);
void __wrap_mpx_os_close(mproc_handle handle);
static _Thread_local bool reuses; /* the next handle that this thread closes */
static int reused = -1;

static int check_reused(void *arg, size_t size) {
  (void)arg, (void)size;
  return fcntl(reused, F_GETFD) >= 0 ? 0 : 9;
}

static void *start_it(void *process) {
  CHECK_OK(mproc_process_start(process));
  return NULL;
}

static mproc_process *looker;
static pthread_t starter;

/* The host opens a file just after the close, and another thread forks: as long as the registry
 * has the number, it must not get through. */
void __wrap_mpx_os_close(mproc_handle handle) {
  __real_mpx_os_close(handle);
  if (!reuses || handle == MPX_NO_HANDLE)
    return;
  reuses = false;
  int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  reused = fd == handle ? fd : fcntl(fd, F_DUPFD_CLOEXEC, (int)handle);
  CHECK_EQ(reused, handle);
  if (fd != reused)
    CHECK_EQ(close(fd), 0);
  CHECK_EQ(pthread_create(&starter, NULL, start_it, looker), 0);
  sleep_ms(100);
}

static void check_looker(void) {
  CHECK(reused >= 0);
  CHECK_EQ(pthread_join(starter, NULL), 0);
  CHECK_EQ(code_of_child(looker), 0);
  CHECK_EQ(close(reused), 0);
}

TEST(forked_child_keeps_what_has_the_number_of_a_closed_sentinel) {
  mproc_process *process = start_child("fork", return_zero, NULL, 0, NULL);
  looker = create_child("fork", check_reused, NULL, 0, NULL);
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  reuses = true;
  CHECK_OK(mproc_process_close(process));
  check_looker();
}

TEST(forked_child_keeps_what_has_the_number_of_a_failed_start) {
  mproc_process *process = create_command(COMMAND("/nonexistent/command"), NULL);
  CHECK_EQ(run_child("spawn", return_zero, NULL, 0), 0); /* what the first spawn opens is past */
  looker = create_child("fork", check_reused, NULL, 0, NULL);
  reuses = true;
  CHECK_EQ(mproc_process_start(process), -ENOENT);
  reuses = false;
  check_looker();
  CHECK_OK(mproc_process_close(process));
}

/* ---- a thread that is cancelled -------------------------------------------------------------- */

static void *run_for_ever(void *method) {
  for (;; pthread_testcancel())
    CHECK_EQ(run_child(method, return_zero, NULL, 0), 0);
  return NULL;
}

static void check_cancelled_starts(const char *method) {
  for (int i = 0; i < test_scale(100) + 20; i++) {
    pthread_t thread;
    CHECK_EQ(pthread_create(&thread, NULL, run_for_ever, (void *)(uintptr_t)method), 0);
    sleep_ms(1 + i % 3);
    CHECK_EQ(pthread_cancel(thread), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    CHECK_EQ(run_child(method, return_zero, NULL, 0), 0);
  }
}

EACH_METHOD_LIMIT(cancelled_thread_leaves_no_lock, 60) {
  if (UNDER_SANITIZER && !TEST_HAS_TSAN)
    SKIP("AddressSanitizer takes the stack of a cancelled thread for that of a scope it left");
  check_cancelled_starts(method);
}

/* What is asked for of a thread before it calls. */
static void *cancelled_in_the_heap(void *nothing) {
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
  pthread_testcancel();
  return nothing;
}

static void *cancelled_in_a_refresh(void *nothing) {
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  CHECK_OK(mproc_context_refresh(NULL));
  mproc_context_stop(NULL);
  pthread_testcancel();
  return nothing;
}

/* The thread that makes the family, and the one that makes a server, finish what they do. */
TEST(cancelled_maker_leaves_no_lock) {
  void *(*const makers[])(void *) = {cancelled_in_the_heap, cancelled_in_a_refresh};
  if (UNDER_SANITIZER && !TEST_HAS_TSAN)
    SKIP("AddressSanitizer takes the stack of a cancelled thread for that of a scope it left");
  for (int i = 0; i < 2; i++) {
    pthread_t thread;
    void *result;
    CHECK_EQ(pthread_create(&thread, NULL, makers[i], NULL), 0);
    CHECK_EQ(pthread_join(thread, &result), 0);
    CHECK(result == PTHREAD_CANCELED);
    CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
    CHECK_EQ(run_child("forkserver", return_zero, NULL, 0), 0);
  }
}

static void *join_it(void *process) {
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  return NULL;
}

TEST(cancelled_join_leaves_no_joiner) {
  pthread_t thread;
  mproc_process *process = start_child("fork", sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(pthread_create(&thread, NULL, join_it, process), 0);
  sleep_ms(50);
  CHECK_EQ(pthread_cancel(thread), 0);
  sleep_ms(10);
  CHECK_OK(mproc_process_kill(process));
  CHECK_EQ(pthread_join(thread, NULL), 0);
  check_killed(process, SIGKILL);
}

static int tell_cancel_state(void *arg, size_t size) {
  int state;
  (void)arg, (void)size;
  CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state), 0);
  return state == PTHREAD_CANCEL_ENABLE ? 0 : 9;
}

EACH_METHOD(entry_can_be_cancelled) {
  int state;
  CHECK_EQ(run_child(method, tell_cancel_state, NULL, 0), 0);
  CHECK_EQ(mproc_run(return_zero, NULL, 0), 0);
  CHECK_EQ(pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, &state), 0);
  CHECK_EQ(state, PTHREAD_CANCEL_ENABLE);
}

/* ---- whom a failed start signals ------------------------------------------------------------- */

int __real_kill(pid_t pid, int number);
int __wrap_kill(pid_t pid, int number);
static _Atomic int killed;

int __wrap_kill(pid_t pid, int number) {
  killed += number == SIGKILL;
  return __real_kill(pid, number);
}

/* The child has ended by itself, and the host has taken it: its pid may be anybody's. */
TEST(failed_exec_signals_nobody) {
  static taker thief;
  start_taker(&thief, 0);
  for (int i = 0; i < test_scale(100) + 10; i++) {
    mproc_process *process = create_command(COMMAND("/nonexistent/command"), NULL);
    CHECK_EQ(mproc_process_start(process), -ENOENT);
    CHECK_OK(mproc_process_close(process));
  }
  stop_taker(&thief);
  CHECK_EQ(killed, 0);
}

/* ---- handles that were closed since create --------------------------------------------------- */

EACH_METHOD(inherited_handle_is_closed_before_start) {
  int fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
  const mproc_inherit inherit = {.handle = fd, .name = "x"};
  const mproc_process_options options = {.inherit = &inherit, .inherit_count = 1};
  mproc_process *process = create_child(method, return_zero, NULL, 0, &options);
  char text[64];
  CHECK_EQ(close(fd), 0);
  CHECK_EQ(mproc_process_start(process), -EBADF);
  snprintf(text, sizeof text, "inherit[0] ('x'): handle %d is not open any more", fd);
  CHECK_CONTAINS(mproc_error_detail(), text);
  CHECK_EQ(open("/dev/zero", O_RDONLY | O_CLOEXEC), fd);
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(code_of_child(process), 0);
  CHECK_EQ(close(fd), 0);
}

EACH_METHOD(stream_is_closed_before_start) {
  int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  const mproc_process_options options = {
      .streams = {[1] = {.kind = MPROC_STREAM_HANDLE, .handle = fd}}};
  mproc_process *process = create_child(method, return_zero, NULL, 0, &options);
  CHECK_EQ(close(fd), 0);
  CHECK_EQ(mproc_process_start(process), -EBADF);
  CHECK_CONTAINS(mproc_error_detail(), "setting up standard input, output and error");
  CHECK_CONTAINS(mproc_error_detail(), "streams[1]");
  CHECK_OK(mproc_process_close(process));
}
