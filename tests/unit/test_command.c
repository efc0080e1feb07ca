/* Commands: programs that know nothing of mproc, behind the same object. */
#include "descriptors.h"
#include "each_method.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

static int run_command(const char *const *argv, const mproc_process_options *options) {
  return code_of_child(start_command(argv, options));
}

/* Its standard output; the command must succeed. */
static const char *output_of(const char *const *argv, const mproc_process_options *options) {
  static char text[8192];
  int code = -1;
  CHECK_OK(try_command(argv, options, &code, text, sizeof text));
  CHECK_EQ(code, 0);
  return text;
}

TEST(output_and_arguments) {
  CHECK_STR(output_of(COMMAND("printf", "[%s]", "a b", "", "*"), NULL), "[a b][][*]");
}

TEST(exit_codes) {
  CHECK_EQ(run_command(COMMAND("true"), NULL), 0);
  CHECK_EQ(run_command(COMMAND("sh", "-c", "exit 7"), NULL), 7);
  CHECK_EQ(run_command(COMMAND("sh", "-c", "exit 255"), NULL), 255);
}

TEST(death_by_signal) {
  check_killed(start_command(COMMAND("sh", "-c", "kill -KILL $$"), NULL), SIGKILL);
}

TEST(object_is_that_of_any_process) {
  mproc_handle sentinel;
  mproc_rusage usage;
  mproc_process_options options = {.name = "sleeper"};
  mproc_process *process = create_command(COMMAND("sleep", "1000"), &options);
  CHECK_STR(mproc_process_name(process), "sleeper");
  CHECK_EQ(mproc_process_join(process, 0), MPROC_ENOTSTARTED);
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(mproc_process_start(process), MPROC_ESTARTED);
  CHECK(mproc_process_pid(process) > 0);
  CHECK_EQ(mproc_process_is_alive(process), 1);
  CHECK_EQ(mproc_active_children(NULL, 0), 1);
  CHECK_OK(mproc_process_sentinel(process, &sentinel));
  CHECK(!is_readable(sentinel));
  CHECK_EQ(mproc_process_join(process, 30), -ETIMEDOUT);
  CHECK_EQ(mproc_process_close(process), -EBUSY);
  CHECK_OK(mproc_process_terminate(process));
  CHECK_OK(mproc_process_join(process, 10000));
  CHECK(is_readable(sentinel));
  CHECK_OK(mproc_process_rusage(process, &usage));
  CHECK(usage.max_rss_bytes != 0); /* -1: it used less than we do */
  check_killed(process, SIGTERM);
}

/* ---- finding the program --------------------------------------------------------------------- */

static void check_start_fails(const char *const *argv, const mproc_process_options *options,
                              int code, const char *text) {
  descriptor_list before, after;
  mproc_process *process = create_command(argv, options);
  list_descriptors(&before);
  CHECK_EQ(mproc_process_start(process), code);
  CHECK_CONTAINS(mproc_error_detail(), argv[0]);
  CHECK_CONTAINS(mproc_error_detail(), text);
  CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
  list_descriptors(&after);
  check_descriptor_count(&after, before.count);
  CHECK_OK(mproc_process_close(process));
}

TEST(search_in_path) {
  char path[8192];
  const char *folder = test_tmp_path("bin"), *script = test_tmp_path("bin/test-command");
  CHECK_EQ(mkdir(folder, 0755), 0);
  write_file(script, "#!/bin/sh\nexit 17\n", 0755);
  check_start_fails(COMMAND("test-command"), NULL, -ENOENT, "No such file");
  snprintf(path, sizeof path, "/no/such/folder:%s:%s", folder, getenv("PATH"));
  CHECK_EQ(setenv("PATH", path, 1), 0);
  CHECK_EQ(run_command(COMMAND("test-command"), NULL), 17);
  /* Another PATH for the child changes nothing here. */
  const char *const environment[] = {"PATH=/none", NULL};
  CHECK_EQ(
      run_command(COMMAND("test-command"), &(mproc_process_options){.environment = environment}),
      17);
  CHECK_EQ(run_command(COMMAND(script), NULL), 17);
  CHECK_EQ(unlink(script), 0);
  CHECK_EQ(rmdir(folder), 0);
}

TEST(missing_command) {
  check_start_fails(COMMAND("no-such-command-anywhere"), NULL, -ENOENT, "No such file");
  check_start_fails(COMMAND("/no/such/command"), NULL, -ENOENT, "No such file");
}

TEST(command_that_is_not_executable) {
  const char *script = test_tmp_path("script");
  write_file(script, "#!/bin/sh\n", 0644);
  check_start_fails(COMMAND(script), NULL, -EACCES, "Permission denied");
  check_start_fails(COMMAND("/"), NULL, -EACCES, "Permission denied");
  CHECK_EQ(unlink(script), 0);
}

TEST(command_that_the_kernel_refuses) {
  const char *script = test_tmp_path("script");
  write_file(script, "\x01\x02\x03 no program\n", 0755);
  check_start_fails(COMMAND(script), NULL, -ENOEXEC, "executing the program");
  CHECK_EQ(unlink(script), 0);
  SKIP_UNDER_VALGRIND("the rest: valgrind itself ends when the kernel refuses what it let pass");
  write_file(script, "#!/no/such/interpreter\n", 0755);
  check_start_fails(COMMAND(script), NULL, -ENOENT, "executing the program");
  CHECK_EQ(unlink(script), 0);
}

TEST(nonsense_is_refused) {
  mproc_process *process = NULL;
  CHECK_EQ(mproc_process_create_command(&process, NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_process_create_command(&process, (const char *const[]){NULL}, NULL), -EINVAL);
  CHECK_EQ(mproc_process_create_command(&process, COMMAND(""), NULL), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "empty");
  CHECK(process == NULL);
}

/* ---- options --------------------------------------------------------------------------------- */

TEST(environment_given) {
  const char *const environment[] = {"Z=1", "A=two words", NULL};
  mproc_process_options options = {.environment = environment};
  CHECK_STR(output_of(COMMAND("env"), &options), "Z=1\nA=two words\n");
}

TEST(working_directory) {
  mproc_process_options options = {.cwd = "/proc"};
  CHECK_STR(output_of(COMMAND("/bin/pwd"), &options), "/proc\n");
}

TEST(input_and_merged_error) {
  int in[2];
  make_pipe(in);
  CHECK_EQ(write(in[1], "text\n", 5), 5);
  CHECK_EQ(close(in[1]), 0);
  mproc_process_options options = {
      .streams = {{MPROC_STREAM_HANDLE, in[0]}, {0}, {.kind = MPROC_STREAM_STDOUT}}};
  CHECK_STR(output_of(COMMAND("sh", "-c", "cat; echo error >&2"), &options), "text\nerror\n");
  CHECK_EQ(close(in[0]), 0);
}

TEST(limits_cpus_and_nice) {
  const mproc_limit limits[] = {{MPROC_RESOURCE_CPU, 41, 42}, {MPROC_RESOURCE_CORE, 0, 0}};
  char expected[64];
  int cpu = 0;
  mproc_process_options options = {
      .limits = limits, .limit_count = 2, .nice = 2, .cpus = &cpu, .cpu_count = 1};
  int value = getpriority(PRIO_PROCESS, 0) + 2;
  snprintf(expected, sizeof expected, "41 42 0 %d\n", value < 19 ? value : 19);
  CHECK_STR(output_of(COMMAND("sh", "-c", "echo $(ulimit -St) $(ulimit -Ht) $(ulimit -c) $(nice)"),
                      &options),
            expected);
  CHECK_CONTAINS(output_of(COMMAND("grep", "Cpus_allowed_list", "/proc/self/status"), &options),
                 "\t0\n");
}

TEST(failing_options) {
  int cpu = 4000;
  check_start_fails(COMMAND("true"), &(mproc_process_options){.cwd = "/no/such/folder"}, -ENOENT,
                    "changing the working directory '/no/such/folder' failed");
  check_start_fails(COMMAND("true"), &(mproc_process_options){.cgroup = "/no/such/cgroup"}, -ENOENT,
                    "entering the cgroup '/no/such/cgroup' failed");
  check_start_fails(COMMAND("true"), &(mproc_process_options){.cpus = &cpu, .cpu_count = 1},
                    -EINVAL, "setting the CPU affinity to 4000 failed");
}

TEST(start_again_after_a_failed_start) {
  const char *script = test_tmp_path("late");
  mproc_process *process = create_command(COMMAND(script), NULL);
  CHECK_EQ(mproc_process_start(process), -ENOENT);
  write_file(script, "#!/bin/sh\nexit 3\n", 0755);
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(code_of_child(process), 3);
  CHECK_EQ(unlink(script), 0);
}

/* ---- what it does not get -------------------------------------------------------------------- */

TEST(mask_and_dispositions_are_reset) {
  sigset_t set;
  CHECK_EQ(sigfillset(&set), 0);
  CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
  CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  CHECK(signal(SIGINT, SIG_IGN) != SIG_ERR);
  CHECK(signal(SIGUSR2, SIG_IGN) != SIG_ERR);
  CHECK(signal(SIGRTMIN + 3, SIG_IGN) != SIG_ERR);
  const char *text = output_of(COMMAND("cat", "/proc/self/status"), NULL);
  CHECK_CONTAINS(text, "SigBlk:\t0000000000000000\n");
  CHECK_CONTAINS(text, "SigIgn:\t0000000000000000\n");
}

TEST(descriptors_are_the_given_ones) {
  int given[2], other[2];
  char expected[64];
  make_pipe(given);
  CHECK_EQ(pipe(other), 0);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0); /* the heap is there, and not passed on */
  mproc_inherit inherit = {given[1], "given"};
  mproc_process_options options = {.inherit = &inherit, .inherit_count = 1};
  /* ls itself opens the folder: the lowest free number. */
  const char *text = output_of(COMMAND("ls", "-1", "/proc/self/fd"), &options);
  snprintf(expected, sizeof expected, "0\n1\n2\n3\n%d\n", given[1]);
  if (has_pidfds()) /* there the child holds the other end of its sentinel */
    CHECK_STR(text, expected);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(close(given[i]), 0);
    CHECK_EQ(close(other[i]), 0);
  }
}

TEST(no_marker_in_its_environment) {
  CHECK(strstr(output_of(COMMAND("env"), NULL), "MPROC_BOOT") == NULL);
}

static int check_commands_of_a_child(void *arg, size_t size) {
  (void)arg, (void)size;
  CHECK(strstr(output_of(COMMAND("env"), NULL), "MPROC_BOOT") == NULL);
  CHECK_EQ(system("env | grep -q MPROC_BOOT"), 1 << 8);
  return 18;
}

EACH_METHOD(commands_of_a_child_have_no_marker) {
  CHECK_EQ(run_child(method, check_commands_of_a_child, NULL, 0), 18);
}

TEST(it_is_no_member_of_the_family) {
  CHECK_EQ(
      run_command(COMMAND("sh", "-c", "test -z \"$(grep memfd:mproc /proc/self/maps)\""), NULL), 0);
}

/* ---- daemons --------------------------------------------------------------------------------- */

static int start_daemon_command(void *arg, size_t size) {
  mproc_process_options options = {.daemon = 1};
  CHECK_EQ(size, sizeof(int64_t *));
  **(int64_t **)arg = mproc_process_pid(start_command(COMMAND("sleep", "1000"), &options));
  return 0;
}

EACH_METHOD(daemon_command_is_terminated_at_exit) {
  int64_t *pid = mproc_heap_calloc(1, sizeof *pid);
  CHECK_EQ(run_child(method, start_daemon_command, &pid, sizeof pid), 0);
  CHECK(*pid > 0);
  CHECK_EQ(kill((pid_t)*pid, 0), -1);
  CHECK_OK(mproc_heap_free(pid));
}
