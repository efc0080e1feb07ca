/* Contexts: a start method with settings of its own. */
#include "each_method.h"
#include "seccomp.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

static mproc_context *make_context(const mproc_context_options *options) {
  mproc_context *context = NULL;
  CHECK_OK(mproc_context_create(&context, options));
  return context;
}

static const char *chosen_method(void) {
  const char *name;
  CHECK_OK(mproc_get_start_method_if_set(&name));
  return name;
}

static int number_of(const char *method) {
  return strcmp(method, "fork") == 0 ? 1 : strcmp(method, "spawn") == 0 ? 2 : 3;
}

static int tell_method(void *arg, size_t size) {
  mproc_process_info info;
  (void)arg, (void)size;
  CHECK_OK(mproc_current_process(&info));
  return number_of(info.method);
}

static int method_used(const mproc_context *context, const char *method) {
  mproc_process_options options = {.context = context};
  return code_of_child(start_child(method, tell_method, NULL, 0, &options));
}

/* ---- the built-in ones ----------------------------------------------------------------------- */

TEST(builtin_contexts) {
  static const char *const names[] = {"fork", "spawn", "forkserver"};
  for (int i = 0; i < 3; i++) {
    const mproc_context *context = NULL, *again = NULL;
    CHECK_OK(mproc_get_context(&context, names[i]));
    CHECK_OK(mproc_get_context(&again, names[i]));
    CHECK(context == again);
    CHECK_STR(mproc_context_method(context), names[i]);
    CHECK_EQ(method_used(context, NULL), i + 1);
    CHECK(chosen_method() == NULL);
  }
}

TEST(builtin_context_of_the_process_wide_choice) {
  const mproc_context *context = NULL;
  CHECK_OK(mproc_get_context(&context, NULL));
  CHECK(mproc_context_method(context) == NULL);
  CHECK(chosen_method() == NULL);
  CHECK_OK(mproc_set_start_method("spawn", 0));
  CHECK_EQ(method_used(context, NULL), 2);
  CHECK_OK(mproc_set_start_method("fork", 1));
  CHECK_EQ(method_used(context, NULL), 1);
}

TEST(choice_is_looked_up_at_each_start) {
  const mproc_context *context = NULL;
  CHECK_OK(mproc_get_context(&context, NULL));
  mproc_process_options options = {.context = context};
  mproc_process *process = create_child(NULL, tell_method, NULL, 0, &options);
  CHECK(chosen_method() == NULL);
  CHECK_OK(mproc_set_start_method("spawn", 0));
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(code_of_child(process), 2);
}

TEST(builtin_context_survives_destroy) {
  const mproc_context *context = NULL;
  CHECK_OK(mproc_get_context(&context, "spawn"));
  mproc_context_destroy((mproc_context *)(uintptr_t)context);
  mproc_context_destroy(NULL);
  CHECK_STR(mproc_context_method(context), "spawn");
  CHECK_EQ(method_used(context, NULL), 2);
}

TEST(unknown_and_absent_methods) {
  const mproc_context *context = (const mproc_context *)&context, *before = context;
  CHECK_EQ(mproc_get_context(&context, "threads"), MPROC_EMETHOD);
  CHECK_CONTAINS(mproc_error_detail(), "'threads'");
  CHECK_CONTAINS(mproc_error_detail(), "fork, spawn, forkserver");
  CHECK_OK(seccomp_deny(&(const seccomp_rule){.call = SYS_socketpair}, 1,
                        ENOSYS)); /* a system that cannot pass descriptors */
  CHECK_EQ(mproc_get_context(&context, "forkserver"), -ENOSYS);
  CHECK_CONTAINS(mproc_error_detail(), "not available");
  mproc_context *own = NULL;
  CHECK_EQ(mproc_context_create(&own, &(mproc_context_options){.method = "threads"}),
           MPROC_EMETHOD);
  CHECK_EQ(mproc_context_create(&own, &(mproc_context_options){.method = "forkserver"}), -ENOSYS);
  CHECK_EQ(mproc_context_create(&own, &(mproc_context_options){.reserved = {[3] = 1}}), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "mproc_context_options.reserved[3]");
  CHECK(context == before && own == NULL);
}

/* ---- contexts of one's own ------------------------------------------------------------------- */

TEST(own_context_follows_the_choice_by_default) {
  mproc_context *context = make_context(NULL);
  CHECK(mproc_context_method(context) == NULL);
  CHECK_EQ(method_used(context, NULL), 1);
  CHECK_STR(chosen_method(), "fork");
  mproc_context_destroy(context);
}

EACH_METHOD(own_context_has_its_method) {
  char name[16];
  snprintf(name, sizeof name, "%s", method);
  mproc_context *context = make_context(&(mproc_context_options){.method = name});
  memset(name, 'x', sizeof name); /* copied */
  CHECK_STR(mproc_context_method(context), method);
  CHECK_EQ(method_used(context, NULL), number_of(method));
  CHECK(chosen_method() == NULL);
  mproc_context_destroy(context);
}

TEST(method_of_the_options_comes_first) {
  const mproc_context *context = NULL;
  CHECK_OK(mproc_get_context(&context, "fork"));
  CHECK_EQ(method_used(context, "spawn"), 2);
}

TEST(process_keeps_the_settings_of_a_destroyed_context) {
  mproc_context *context = make_context(
      &(mproc_context_options){.method = "spawn", .executable = test_child_path("test_context")});
  mproc_process_options options = {.context = context};
  mproc_process *process = create_child(NULL, tell_method, NULL, 0, &options);
  mproc_context_destroy(context);
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(code_of_child(process), 2);
}

/* ---- another program ------------------------------------------------------------------------- */

static void check_executable(const char *executable, const mproc_process_options *given, int code,
                             const char *text) {
  mproc_context *context =
      make_context(&(mproc_context_options){.method = "spawn", .executable = executable});
  mproc_process_options options = given ? *given : (mproc_process_options){0};
  options.context = context;
  mproc_process *process = create_child(NULL, return_zero, NULL, 0, &options);
  CHECK_EQ(mproc_process_start(process), code);
  CHECK_CONTAINS(mproc_error_detail(), text);
  CHECK_CONTAINS(mproc_error_detail(), mproc_process_name(process));
  CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
  CHECK_OK(mproc_process_close(process));
  mproc_context_destroy(context);
}

TEST(executable_that_is_missing) {
  check_executable("/no/such/program", NULL, -ENOENT, "/no/such/program");
  check_executable("/", NULL, -EACCES, "'/'");
}

TEST(executable_that_ends_without_mproc_init) {
  check_executable("/bin/true", NULL, MPROC_EBOOT, "ran (exited with code 0); does its program");
  check_executable("/bin/false", NULL, MPROC_EBOOT, "ran (exited with code 1); does its program");
}

TEST(executable_that_never_calls_mproc_init) {
  const char *script = test_tmp_path("script");
  mproc_process_options options = {.start_timeout_ms = 300};
  write_file(script, "#!/bin/sh\nexec sleep 1000\n", 0755);
  int64_t start = now_ms();
  check_executable(script, &options, -ETIMEDOUT, "mproc_init()");
  CHECK(now_ms() - start >= 299);
  CHECK_EQ(unlink(script), 0);
}

TEST(executable_that_dies) {
  const char *script = test_tmp_path("dies");
  const mproc_limit limit = {.resource = MPROC_RESOURCE_CORE};
  mproc_process_options options = {.limits = &limit, .limit_count = 1};
  write_file(script, "#!/bin/sh\nkill -s SEGV $$\n", 0755);
  check_executable(script, &options, MPROC_EBOOT, "ended before its entry ran (killed by SIGSEGV)");
  check_executable(script, &options, MPROC_EBOOT, "do options.limits leave it enough?");
  CHECK_EQ(unlink(script), 0);
}

/* A wrapper that sets things up and becomes the program. */
TEST(executable_that_is_a_wrapper) {
  char text[5000];
  const char *script = test_tmp_path("wrapper");
  snprintf(text, sizeof text, "#!/bin/sh\nexec nice -n 1 '%s'\n", test_child_path("test_context"));
  write_file(script, text, 0755);
  mproc_context *context =
      make_context(&(mproc_context_options){.method = "spawn", .executable = script});
  CHECK_EQ(method_used(context, NULL), 2);
  mproc_context_destroy(context);
  CHECK_EQ(unlink(script), 0);
}

TEST(executable_by_variable) {
  CHECK_EQ(setenv("MPROC_EXECUTABLE", "/no/such/program", 1), 0);
  mproc_process *process = create_child("spawn", return_zero, NULL, 0, NULL);
  CHECK_EQ(mproc_process_start(process), -ENOENT);
  CHECK_CONTAINS(mproc_error_detail(), "/no/such/program");
  CHECK_EQ(setenv("MPROC_EXECUTABLE", test_child_path("test_context"), 1), 0);
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(code_of_child(process), 0);
  /* The context's own comes first. */
  check_executable("/no/program", NULL, -ENOENT, "/no/program");
}

static int return_inherited(void *arg, size_t size) {
  mproc_context *context = *(mproc_context **)arg;
  CHECK_EQ(size, sizeof context);
  return method_used(context, NULL);
}

TEST(context_is_usable_in_a_forked_child) {
  mproc_context *context = make_context(&(mproc_context_options){.method = "spawn"});
  CHECK_EQ(run_child("fork", return_inherited, &context, sizeof context), 2);
  mproc_context_destroy(context);
}
