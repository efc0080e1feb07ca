/* Threads that set the log's file and threads that write to it. Calls of the library are wrapped,
 * so that one thread is stopped where the other may do harm: no luck is needed. */
#include "each_method.h"
#include "in_child.h"

#include "os/os.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

/* ---- threads that are stopped ---------------------------------------------------------------- */

/* Where a thread waits until the case lets it go on. */
typedef struct stop {
  _Atomic int wanted;  /* how many threads are to come here; 0: none is stopped */
  _Atomic int arrived; /* how many have */
  _Atomic int open;
} stop;

static stop after_open, before_write;
static _Thread_local bool is_stopped; /* the others pass */
static _Atomic mproc_handle written;  /* the handle of the write that was stopped */

static void pass(stop *here) {
  if (here->wanted == 0 || !is_stopped)
    return;
  here->arrived++;
  AWAIT(here->open);
}

static void await_arrival(stop *here) {
  AWAIT(here->arrived == here->wanted);
}

int __real_mpx_os_open_append(const char *path, mproc_handle *ret_handle);
int __wrap_mpx_os_open_append(const char *path, mproc_handle *ret_handle);

int __wrap_mpx_os_open_append(const char *path, mproc_handle *ret_handle) {
  int r = __real_mpx_os_open_append(path, ret_handle);
  pass(&after_open);
  return r;
}

int __real_mpx_os_write(mproc_handle handle, const void *data, size_t size);
int __wrap_mpx_os_write(mproc_handle handle, const void *data, size_t size);

int __wrap_mpx_os_write(mproc_handle handle, const void *data, size_t size) {
  if (before_write.wanted && is_stopped)
    written = handle;
  pass(&before_write);
  return __real_mpx_os_write(handle, data, size);
}

/* ---- the log --------------------------------------------------------------------------------- */

static const char *set_variable(void) {
  static char value[4200];
  const char *path = test_tmp_path("log");
  snprintf(value, sizeof value, "info:%s", path);
  CHECK_EQ(setenv("MPROC_LOG", value, 1), 0);
  return path;
}

/* Without mproc_init this is where the variable is read: here that found none. */
static void read_variable(void) {
  CHECK_OK(mproc_process_close(create_child("fork", return_zero, NULL, 0, NULL)));
}

/* One line of level info. */
static void say(const char *method) {
  CHECK_OK(mproc_set_start_method(method, 1));
}

static void *read_and_say(void *method) {
  is_stopped = true;
  read_variable();
  say(method);
  return NULL;
}

static const char *content_of(const char *path) {
  static char text[65536];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  return read_all(fd, text, sizeof text);
}

static int count_lines(const char *text, const char *part) {
  int count = 0;
  for (; (text = strstr(text, part)); text++)
    count++;
  return count;
}

/* How many descriptors of this process are this file. By their names: a thread may be about to
 * close one. */
static int count_descriptors(const char *path) {
  struct stat file, st;
  char name[64];
  int count = 0;
  CHECK_EQ(stat(path, &file), 0);
  for (int fd = 0; fd < 256; fd++) {
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    count += stat(name, &st) == 0 && st.st_ino == file.st_ino && st.st_dev == file.st_dev;
  }
  return count;
}

static _Atomic int hook_calls;

static void count_call(void *user, mproc_log_level level, const char *message) {
  CHECK(user == &hook_calls && level == MPROC_LOG_INFO && message[0] != '\0');
  hook_calls++;
}

/* ---- the cases ------------------------------------------------------------------------------- */

/* Each has opened the file when either goes on. */
TEST(threads_that_read_the_variable_at_once_have_one_file) {
  static const char *const methods[] = {"fork", "spawn"};
  pthread_t threads[2];
  const char *path = set_variable();
  after_open.wanted = 2;
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, read_and_say, (void *)(uintptr_t)methods[i]), 0);
  await_arrival(&after_open);
  CHECK_EQ(count_descriptors(path), 2);
  after_open.open = 1;
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(count_descriptors(path), 1);
  const char *text = content_of(path);
  CHECK_EQ(count_lines(text, "info: start method: fork (mproc_set_start_method)\n"), 1);
  CHECK_EQ(count_lines(text, "info: start method: spawn (mproc_set_start_method)\n"), 1);
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF);
  CHECK_EQ(count_descriptors(path), 0);
  CHECK_EQ(unlink(path), 0);
}

/* What the program sets while another thread reads the variable goes before the variable. */
TEST(program_goes_before_a_variable_that_is_being_read) {
  pthread_t thread;
  const char *path = set_variable();
  after_open.wanted = 1;
  CHECK_EQ(pthread_create(&thread, NULL, read_and_say, (void *)(uintptr_t) "fork"), 0);
  await_arrival(&after_open);
  mproc_set_log(count_call, &hook_calls, MPROC_LOG_OFF);
  after_open.open = 1;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(hook_calls, 0);
  CHECK_EQ(count_descriptors(path), 0);
  CHECK_STR(content_of(path), "");
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF);
  CHECK_EQ(unlink(path), 0);
}

static int log_in_child(void *arg, size_t size) {
  (void)arg, (void)size;
  int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
  CHECK_EQ(dup2(nowhere, STDERR_FILENO), STDERR_FILENO);
  mproc_set_log(NULL, NULL, MPROC_LOG_INFO);
  say("spawn");
  mproc_set_log(count_call, &hook_calls, MPROC_LOG_INFO);
  say("fork");
  return hook_calls;
}

/* Were the file closed under the thread that is about to write, its number could be that of a file
 * of the program's by then. */
TEST(a_line_under_way_goes_to_its_file_and_to_no_other) {
  pthread_t thread;
  struct stat st;
  const char *path = set_variable(), *other_path = test_tmp_path("other");
  read_variable();
  before_write.wanted = 1;
  CHECK_EQ(pthread_create(&thread, NULL, read_and_say, (void *)(uintptr_t) "fork"), 0);
  await_arrival(&before_write);
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF);
  int other = open(other_path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(other >= 0 && other != (int)written);
  CHECK_EQ(count_descriptors(path), 1);
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF); /* not the last to leave it */
  CHECK_EQ(count_descriptors(path), 1);
  CHECK_EQ(run_child("fork", log_in_child, NULL, 0), 1); /* beside a thread that writes */
  before_write.open = 1;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(count_descriptors(path), 0); /* the last one has closed it */
  CHECK(fstat(other, &st) == 0 && st.st_size == 0);
  const char *text = content_of(path);
  CHECK_EQ(count_lines(text, "\n"), 1);
  CHECK_CONTAINS(text, "info: start method: fork (mproc_set_start_method)\n");
  CHECK_EQ(close(other), 0);
  CHECK_EQ(unlink(path), 0);
  CHECK_EQ(unlink(other_path), 0);
}

/* ---- all at once ----------------------------------------------------------------------------- */

static atomic_bool enough;

static void *say_much(void *unused) {
  while (!enough)
    say("fork");
  return unused;
}

/* In a process of its own: the variable is read once in the life of each. */
static void set_while_others_write(void) {
  pthread_t threads[3];
  struct stat st;
  const char *path = test_tmp_path("log"), *other_path = test_tmp_path("other");
  int used = open("/dev/null", O_RDONLY | O_CLOEXEC); /* the number that the file gets */
  CHECK_EQ(close(used), 0);
  read_variable();
  CHECK_EQ(count_descriptors(path), 1);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, say_much, NULL), 0);
  AWAIT(stat(path, &st) == 0 && st.st_size > 0);
  mproc_set_log(count_call, &hook_calls, MPROC_LOG_INFO);
  AWAIT(count_descriptors(path) == 0);
  int other = open(other_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  CHECK_EQ(other, used);
  AWAIT(hook_calls > 0);
  enough = true;
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK(fstat(other, &st) == 0 && st.st_size == 0);
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF);
  CHECK_EQ(close(other), 0);
}

TEST_LIMIT(the_file_is_taken_away_while_threads_write, 60) {
  const char *path = set_variable();
  char text[4096];
  int error[2];
  for (int i = test_scale(50); i > 0; i--) {
    make_pipe(error);
    int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    CHECK_EQ(dup2(error[1], STDERR_FILENO), STDERR_FILENO);
    int status = status_of_child(set_while_others_write);
    CHECK_EQ(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    CHECK_EQ(close(saved), 0);
    CHECK_EQ(close(error[1]), 0);
    CHECK_STR(read_all(error[0], text, sizeof text), ""); /* where nobody has sent a line */
    CHECK_EQ(status, 0);
    CHECK_EQ(unlink(path), 0);
  }
  CHECK_EQ(unlink(test_tmp_path("other")), 0);
}
