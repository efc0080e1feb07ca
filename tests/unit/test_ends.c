/* Ends that are easily missed: of children of a program that became a daemon, of daemon children
 * that dropped their privileges, by exit() in a hook. And what memory is said to be used then. */
#include "each_method.h"
#include "in_child.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>

/* ---- a program that forks before its first child --------------------------------------------- */

static int channel[2];

static int write_late(void *arg, size_t size) {
  (void)arg, (void)size;
  sleep_ms(300);
  return write(channel[1], "x", 1) == 1 ? 0 : 1;
}

/* As after daemon(3): who called mproc_init has left, this copy of it is the program. */
TEST(children_of_a_program_that_forked_itself_are_joined_at_exit) {
  make_pipe(channel);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    (void)start_child("fork", write_late, NULL, 0, NULL);
    exit(7);
  }
  CHECK_EQ(WEXITSTATUS(status_of(pid)), 7);
  CHECK(is_readable(channel[0]));
  CHECK_EQ(close(channel[0]), 0);
  CHECK_EQ(close(channel[1]), 0);
}

/* ---- daemons without privileges -------------------------------------------------------------- */

enum { ORDINARY_USER = 65534, GONE_MS = 2000 };

/* The kernel forgets at setuid() that it is to kill us with our parent. */
static int drop_privileges(void *arg, size_t size) {
  int64_t self = getpid();
  mproc_handle to;
  (void)arg, (void)size;
  CHECK_OK(mproc_inherited("channel", &to));
  CHECK_EQ(setgid(ORDINARY_USER), 0);
  CHECK_EQ(setuid(ORDINARY_USER), 0);
  CHECK_EQ(write((int)to, &self, sizeof self), sizeof self);
  return sleep_for_ever(NULL, 0);
}

static const char drop_in_a_shell[] =
    "exec setpriv --reuid=65534 --regid=65534 --clear-groups sleep 1000";

static void start_daemon(const char *method) {
  const mproc_inherit passed = {.handle = channel[1], .name = "channel"};
  mproc_process_options options = {.daemon = 1, .inherit = &passed, .inherit_count = 1};
  if (method) {
    (void)start_child(method, drop_privileges, NULL, 0, &options);
    return;
  }
  mproc_process *process = start_command(COMMAND("/bin/sh", "-c", drop_in_a_shell), &options);
  sleep_ms(500);
  int64_t pid = mproc_process_pid(process);
  CHECK_EQ(write(channel[1], &pid, sizeof pid), sizeof pid);
}

/* Its entry wrote its pid, or stands in a command that has had the time to become another user. */
static void daemon_dies_with_its_parent(const char *method) {
  int64_t pid;
  if (geteuid() != 0)
    SKIP("only root has privileges to drop");
  make_pipe(channel);
  pid_t parent = fork();
  CHECK(parent >= 0);
  if (parent == 0) {
    start_daemon(method);
    (void)sleep_for_ever(NULL, 0);
  }
  CHECK_EQ(read(channel[0], &pid, sizeof pid), sizeof pid);
  CHECK_EQ(kill((pid_t)pid, 0), 0);
  CHECK_EQ(kill(parent, SIGKILL), 0);
  CHECK_EQ(waitpid(parent, NULL, 0), parent);
  bool gone = false; /* the runner, a subreaper, reaps orphans */
  for (int64_t end = now_ms() + GONE_MS; !gone && now_ms() < end; sleep_ms(5))
    gone = kill((pid_t)pid, 0) < 0;
  if (!gone)
    (void)kill((pid_t)pid, SIGKILL);
  CHECK(gone);
  CHECK_EQ(close(channel[0]), 0);
  CHECK_EQ(close(channel[1]), 0);
}

EACH_METHOD(daemon_that_dropped_privileges_dies_with_its_parent) {
  daemon_dies_with_its_parent(method);
}

TEST(daemon_command_that_dropped_privileges_dies_with_its_parent) {
  if (access("/usr/bin/setpriv", X_OK) < 0)
    SKIP("there is no setpriv (util-linux) here");
  daemon_dies_with_its_parent(NULL);
}

static char last_message[256];

static void keep_message(void *user, mproc_log_level level, const char *message) {
  (void)user;
  if (level == MPROC_LOG_INFO && strstr(message, "guardian"))
    (void)snprintf(last_message, sizeof last_message, "%s", message);
}

static void start_where_no_guardian_can_be_made(void) {
  CHECK_OK(mproc_heap_free(mproc_heap_alloc(1)));
  mproc_set_log(keep_message, NULL, MPROC_LOG_INFO);
  /* what it executes counts as set-user-ID, and none of the ids could bring back the others */
  CHECK_EQ(setresuid(ORDINARY_USER, ORDINARY_USER - 1, ORDINARY_USER), 0);
  mproc_process_options options = {.daemon = 1};
  kill_child(start_child("fork", sleep_for_ever, NULL, 0, &options));
  CHECK_CONTAINS(last_message, "no guardian");
}

TEST(privileged_main_thread_starts_daemons_without_a_guardian_too) {
  if (geteuid() != 0)
    SKIP("others have no guardian for the main thread");
  in_child(start_where_no_guardian_can_be_made);
}

/* ---- the peak of memory ---------------------------------------------------------------------- */

enum { PARENT_BYTES = 300 << 20, CHILD_BYTES = 400 << 20 };

static void touch(size_t size) {
  volatile char *memory = malloc(size);
  CHECK(memory);
  for (size_t i = 0; i < size; i += 4096)
    memory[i] = 1;
  free((void *)memory);
}

static int touch_more(void *arg, size_t size) {
  (void)arg, (void)size;
  touch(CHILD_BYTES);
  return 0;
}

/* How much it used at most, by both calls. */
static int64_t peak_of(mproc_process *process) {
  mproc_rusage usage;
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  CHECK_OK(mproc_process_rusage(process, &usage));
  mproc_status status = end_of(process);
  CHECK_EQ(status.max_rss_bytes, usage.max_rss_bytes);
  CHECK(usage.minor_faults > 0);
  return usage.max_rss_bytes;
}

/* The kernel counts the memory that a child shared with us until its exec as its own. */
TEST(peak_of_the_parent_is_not_said_to_be_the_childs) {
  touch(PARENT_BYTES);
  CHECK_EQ(peak_of(start_child("spawn", return_zero, NULL, 0, NULL)), -1);
  CHECK(peak_of(start_child("spawn", touch_more, NULL, 0, NULL)) >= CHILD_BYTES);
  CHECK_EQ(peak_of(start_command(COMMAND("true"), NULL)), -1);
  CHECK(peak_of(start_child("fork", return_zero, NULL, 0, NULL)) < PARENT_BYTES);
}

/* ---- hooks ----------------------------------------------------------------------------------- */

static int *handler_calls; /* in the shared heap */

static void count_call(void) {
  ++*handler_calls;
}

static void exit_in_hook(void *code) {
  exit(*(int *)code);
}

TEST(exit_in_a_hook_runs_no_handler_of_the_parent) {
  static int code = 3;
#ifndef __GLIBC__
  SKIP("no on_exit: after exit() all handlers run");
#endif
  handler_calls = mproc_heap_calloc(1, sizeof *handler_calls);
  CHECK(handler_calls);
  CHECK_EQ(atexit(count_call), 0);
  CHECK_OK(mproc_after_fork(exit_in_hook, &code));
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), code);
  CHECK_EQ(*handler_calls, 0);
}

/* ---- the host's own handlers at a fork ------------------------------------------------------- */

static void use_mproc(void) {
  mproc_process *running[4];
  (void)mproc_active_children(running, 4);
}

/* Registered before the first object: the locks of mproc are taken after the host's handlers ran,
 * and open when they run again. */
TEST(handlers_of_the_host_at_a_fork_may_use_mproc) {
  CHECK_EQ(pthread_atfork(use_mproc, use_mproc, use_mproc), 0);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  mproc_process *child = start_child("fork", sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  kill_child(child);
}
