/* The log: hook and levels, MPROC_LOG. */
#include "each_method.h"
#include "seccomp.h"

#include <fcntl.h>
#include <pthread.h>

/* ---- the hook -------------------------------------------------------------------------------- */

typedef struct journal {
  int count;
  mproc_log_level highest;
  char text[8192];
} journal;

static void keep(void *user, mproc_log_level level, const char *message) {
  journal *to = user;
  size_t used = strlen(to->text);
  CHECK(strchr(message, '\n') == NULL);
  CHECK(level >= MPROC_LOG_ERROR && level <= MPROC_LOG_TRACE);
  to->count++;
  to->highest = level > to->highest ? level : to->highest;
  snprintf(to->text + used, sizeof to->text - used, "%s\n", message);
}

TEST(off_by_default) {
  int error[2];
  char text[64];
  make_pipe(error);
  int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  CHECK_EQ(dup2(error[1], STDERR_FILENO), STDERR_FILENO);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  CHECK_EQ(run_child("spawn", return_zero, NULL, 0), 0);
  CHECK_EQ(dup2(saved, STDERR_FILENO), STDERR_FILENO);
  CHECK_EQ(close(saved), 0);
  CHECK_EQ(close(error[1]), 0);
  CHECK_STR(read_all(error[0], text, sizeof text), "");
}

EACH_METHOD(hook_gets_starts_and_exits) {
  static journal seen;
  mproc_process_options options = {.name = "carpenter"};
  mproc_set_log(keep, &seen, MPROC_LOG_DEBUG);
  mproc_process *process = start_child(method, return_zero, NULL, 0, &options);
  char how[64];
  snprintf(how, sizeof how, ": %s (asked for)", method);
  CHECK_CONTAINS(seen.text, "started 'carpenter' as process ");
  CHECK_CONTAINS(seen.text, how);
  CHECK_EQ(code_of_child(process), 0);
  CHECK_CONTAINS(seen.text, "'carpenter' (process ");
  CHECK_CONTAINS(seen.text, ") exited with code 0 after ");
  CHECK_EQ(seen.highest, MPROC_LOG_DEBUG);
}

EACH_METHOD(level_holds_back_what_is_above) {
  static journal seen;
  mproc_set_log(keep, &seen, MPROC_LOG_INFO);
  CHECK_OK(mproc_set_start_method(method, 0));
  CHECK_EQ(mproc_run(return_zero, NULL, 0), 0);
  CHECK_CONTAINS(seen.text, "start method: ");
  CHECK_CONTAINS(seen.text, method);
  CHECK_EQ(seen.highest, MPROC_LOG_INFO);
  CHECK(strstr(seen.text, "started") == NULL);
  int count = seen.count;
  mproc_set_log(keep, &seen, MPROC_LOG_OFF);
  CHECK_EQ(mproc_run(return_zero, NULL, 0), 0);
  CHECK_EQ(seen.count, count);
}

TEST(method_in_use_and_why) {
  static journal seen;
  const char *name;
  mproc_set_log(keep, &seen, MPROC_LOG_INFO);
  CHECK_OK(mproc_get_start_method(&name));
  CHECK_CONTAINS(seen.text, "start method: fork (the default of this system)\n");
  CHECK_OK(mproc_set_start_method(NULL, 1));
  CHECK_EQ(setenv("MPROC_START_METHOD", "spawn", 1), 0);
  CHECK_OK(mproc_get_start_method(&name));
  CHECK_CONTAINS(seen.text, "start method: spawn (MPROC_START_METHOD)\n");
}

static void *wait_for_byte(void *arg) {
  char byte;
  return (void *)(intptr_t)read(*(int *)arg, &byte, 1);
}

TEST(fork_beside_threads_is_a_hazard) {
  static journal seen;
  int ends[2];
  pthread_t thread;
  make_pipe(ends);
  mproc_set_log(keep, &seen, MPROC_LOG_INFO);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  CHECK(strstr(seen.text, "threads") == NULL || UNDER_SANITIZER);
  CHECK_EQ(pthread_create(&thread, NULL, wait_for_byte, &ends[0]), 0);
  CHECK_EQ(run_child("spawn", return_zero, NULL, 0), 0);
  CHECK(strstr(seen.text, "threads") == NULL || UNDER_SANITIZER);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  CHECK_CONTAINS(seen.text, TEST_HAS_TSAN ? "while 3 threads run" : "while 2 threads run");
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(close(ends[0]), 0);
  CHECK_EQ(close(ends[1]), 0);
}

static journal childs_journal;

static int log_in_child(void *arg, size_t size) {
  (void)arg, (void)size;
  int before = childs_journal.count;
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  return childs_journal.count > before;
}

TEST(forked_child_keeps_the_hook_and_a_spawned_one_does_not) {
  mproc_set_log(keep, &childs_journal, MPROC_LOG_DEBUG);
  CHECK_EQ(run_child("fork", log_in_child, NULL, 0), 1);
  CHECK_EQ(run_child("spawn", log_in_child, NULL, 0), 0);
}

static const char *log_to_standard_error(void) {
  static char text[4096];
  int error[2];
  make_pipe(error);
  int saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  CHECK_EQ(dup2(error[1], STDERR_FILENO), STDERR_FILENO);
  mproc_set_log(NULL, NULL, MPROC_LOG_DEBUG);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF);
  CHECK_EQ(dup2(saved, STDERR_FILENO), STDERR_FILENO);
  CHECK_EQ(close(saved), 0);
  CHECK_EQ(close(error[1]), 0);
  return read_all(error[0], text, sizeof text);
}

TEST(no_hook_means_standard_error) {
  char start[64];
  snprintf(start, sizeof start, "mproc[%d] debug: ", (int)getpid());
  const char *text = log_to_standard_error();
  CHECK_CONTAINS(text, start);
  CHECK_CONTAINS(text, "exited with code 0 after ");
}

/* ---- MPROC_LOG ------------------------------------------------------------------------------- */

typedef struct output {
  char standard[4096];
  char error[8192];
} output;

static const output *run_program(const char *log, const char *method, int code) {
  static output text;
  char log_variable[5000], method_variable[64];
  const char *const argv[] = {test_child_path("log_main"), NULL};
  snprintf(log_variable, sizeof log_variable, "MPROC_LOG=%s", log);
  snprintf(method_variable, sizeof method_variable, "MPROC_START_METHOD=%s", method);
  const char *const environment[] = {log_variable, method_variable, NULL};
  CHECK_EQ(outputs_of_command(argv, environment, text.standard, sizeof text.standard, text.error,
                              sizeof text.error),
           code);
  return &text;
}

EACH_METHOD(variable_sets_the_level) {
  const output *text = run_program("", method, 0);
  CHECK_STR(text->error, "");
  text = run_program("error", method, 0);
  CHECK_STR(text->error, "");
  text = run_program("info", method, 0);
  CHECK_CONTAINS(text->error, "info: start method: ");
  CHECK(strstr(text->error, "debug: ") == NULL);
  text = run_program("debug", method, 0);
  CHECK_CONTAINS(text->error, "info: start method: ");
  CHECK_CONTAINS(text->error, "debug: started 'the child'");
  text = run_program("trace", method, 0);
  CHECK_CONTAINS(text->error, "debug: started 'the child'");
  CHECK_STR(text->standard, "");
}

EACH_METHOD(variable_names_a_file) {
  char log[4200], text[4096];
  const char *path = test_tmp_path("log:with a colon");
  snprintf(log, sizeof log, "debug:%s", path);
  CHECK_STR(run_program(log, method, 0)->error, "");
  CHECK_STR(run_program(log, method, 0)->error, ""); /* appended */
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  (void)read_all(fd, text, sizeof text);
  char *first = strstr(text, "started 'the child'");
  CHECK(first && strstr(first + 1, "started 'the child'"));
  CHECK_EQ(unlink(path), 0);
}

EACH_METHOD(bad_values_are_errors) {
  static const char *const values[] = {"verbose", "Debug", "debugging", "3", ":file", "off"};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
    const output *text = run_program(values[i], method, 3);
    CHECK_CONTAINS(text->standard, "MPROC_LOG: ");
    CHECK_CONTAINS(text->standard, values[i]);
    CHECK_CONTAINS(text->standard, "error, info, debug or trace");
  }
  const output *text = run_program("debug:/no/such/folder/file", method, 3);
  CHECK_CONTAINS(text->standard, "/no/such/folder/file");
}

TEST(bad_start_method_is_an_error_of_mproc_init) {
  const output *text = run_program("", "thread", 3);
  CHECK_CONTAINS(text->standard, "MPROC_START_METHOD");
  CHECK_CONTAINS(text->standard, "'thread'");
  CHECK_OK(seccomp_deny(&(const seccomp_rule){.call = SYS_socketpair}, 1, ENOSYS));
  text = run_program("", "forkserver", 3);
  CHECK_CONTAINS(text->standard, "'forkserver' is not available");
}
