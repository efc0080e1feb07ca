/* Time, files, polling, threads, processes and names. */
#include "in_child.h"
#include "proc.h"

#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>

/* ---- files ----------------------------------------------------------------------------------- */

static void write_without_reader(void) {
  mproc_handle ends[2];
  CHECK_OK(mpx_os_pipe(ends));
  mpx_os_close(ends[0]);
  CHECK_EQ(mpx_os_write(ends[1], "x", 1), -EPIPE);
  sigset_t set;
  CHECK_EQ(sigpending(&set), 0);
  CHECK(!sigismember(&set, SIGPIPE));
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &set), 0);
  CHECK(!sigismember(&set, SIGPIPE));
}

TEST(writing_to_nobody_raises_no_signal) {
  in_child(write_without_reader);
}

TEST(a_pipe_carries_all_bytes) {
  static char sent[200000], received[200000];
  mproc_handle ends[2];
  for (size_t i = 0; i < sizeof sent; i++)
    sent[i] = (char)(i * 7);
  CHECK_OK(mpx_os_pipe(ends));
  CHECK_EQ(fcntl((int)ends[0], F_GETFD), FD_CLOEXEC);
  pid_t pid = fork();
  if (pid == 0)
    _exit(mpx_os_write(ends[1], sent, sizeof sent) == 0 ? 0 : 1);
  mpx_os_close(ends[1]);
  CHECK_EQ(mpx_os_read(ends[0], received, sizeof received), sizeof sent);
  CHECK_EQ(mpx_os_read(ends[0], received, 1), 0);
  CHECK_EQ(memcmp(sent, received, sizeof sent), 0);
  mpx_os_close(ends[0]);
  CHECK_EQ(status_of(pid), 0);
}

TEST(small_files_are_read_and_appended_to) {
  const char *path = test_tmp_path("log");
  mproc_handle handle;
  char text[8];
  CHECK_EQ(mpx_os_read_file(path, text, sizeof text), -ENOENT);
  for (int i = 0; i < 2; i++) {
    CHECK_OK(mpx_os_open_append(path, &handle));
    CHECK_OK(mpx_os_write(handle, "abc", 3));
    mpx_os_close(handle);
  }
  struct stat st;
  CHECK_EQ(stat(path, &st), 0);
  CHECK_EQ(st.st_mode & 0777, 0600);
  CHECK_EQ(mpx_os_read_file(path, text, sizeof text), 6);
  CHECK_STR(text, "abcabc");
  CHECK_EQ(mpx_os_read_file(path, text, 4), 3);
  CHECK_STR(text, "abc");
  CHECK_EQ(unlink(path), 0);
}

TEST(handles_are_checked) {
  CHECK(mpx_os_handle_is_open(1));
  CHECK(!mpx_os_handle_is_open(MPX_NO_HANDLE));
  CHECK(!mpx_os_handle_is_open((mproc_handle)1 << 32 | 1));
  CHECK_EQ(mpx_os_set_inheritable(MPX_NO_HANDLE, true), -EBADF);
  mpx_os_close(MPX_NO_HANDLE);
  mproc_handle ends[2];
  CHECK_OK(mpx_os_pipe(ends));
  CHECK_OK(mpx_os_set_inheritable(ends[0], true));
  CHECK_EQ(fcntl((int)ends[0], F_GETFD), 0);
  CHECK_OK(mpx_os_set_inheritable(ends[0], false));
  CHECK_EQ(fcntl((int)ends[0], F_GETFD), FD_CLOEXEC);
  mpx_os_close(ends[0]);
  CHECK(!mpx_os_handle_is_open(ends[0]));
  mpx_os_close(ends[1]);
}

/* ---- poll ------------------------------------------------------------------------------------ */

TEST(poll_marks_ready_and_invalid_items) {
  enum { COUNT = 40 };
  mproc_handle ends[2];
  mpx_poll_item items[COUNT];
  CHECK_OK(mpx_os_pipe(ends));
  for (int i = 0; i < COUNT; i++)
    items[i] = (mpx_poll_item){.handle = ends[0]};
  int64_t start = mpx_os_now();
  CHECK_EQ(mpx_os_poll(items, COUNT, start + 20 * MPX_NS_PER_MS), 0);
  CHECK(mpx_os_now() >= start + 20 * MPX_NS_PER_MS);
  CHECK(!items[0].ready && !items[0].invalid);
  CHECK_EQ(mpx_os_poll(items, 1, 0), 0);

  items[1] = (mpx_poll_item){.handle = ends[1], .writable = true};
  CHECK_EQ(mpx_os_poll(items, 2, MPX_NEVER), 1);
  CHECK(!items[0].ready && items[1].ready);
  items[2] = (mpx_poll_item){.handle = MPX_NO_HANDLE};
  CHECK_EQ(mpx_os_poll(items + 2, 1, 0), 0);
  CHECK(!items[2].ready && !items[2].invalid);
  items[2] = (mpx_poll_item){.handle = -7};
  items[3] = (mpx_poll_item){.handle = 12345};
  CHECK_EQ(mpx_os_poll(items + 2, 2, MPX_NEVER), 2);
  CHECK(items[2].invalid && items[3].invalid && !items[2].ready && !items[3].ready);
  mpx_os_close(ends[1]);
  items[1].handle = ends[0];
  CHECK_EQ(mpx_os_poll(items, 1, MPX_NEVER), 1); /* the end counts as ready */
  CHECK(items[0].ready);
  mpx_os_close(ends[0]);
}

static void on_alarm(int number) {
  (void)number;
}

TEST(signals_do_not_shorten_a_wait) {
  struct sigaction action = {.sa_handler = on_alarm};
  struct itimerval timer = {.it_interval = {0, 2000}, .it_value = {0, 2000}};
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
  int64_t start = mpx_os_now();
  CHECK_EQ(mpx_os_poll(NULL, 0, start + 30 * MPX_NS_PER_MS), 0);
  mpx_os_sleep(30 * MPX_NS_PER_MS);
  CHECK(mpx_os_now() - start >= 60 * MPX_NS_PER_MS);
  timer = (struct itimerval){0};
  CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

/* ---- threads --------------------------------------------------------------------------------- */

static _Atomic int hook_calls;

static void hook(void) {
  atomic_fetch_add(&hook_calls, 1);
}

static void *watched(void *how) {
  mpx_os_thread_watch();
  mpx_os_thread_watch();
  if (how == (void *)1)
    pthread_exit(NULL);
  while (how == (void *)2)
    pause();
  return NULL;
}

static void *unwatched(void *unused) {
  return unused;
}

static void run_thread(void *(*function)(void *), void *argument) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, function, argument), 0);
  if (argument == (void *)2)
    pthread_cancel(thread);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

static void check_no_hook_at_exit(void) {
  mpx_os_thread_watch();
  atomic_store(&hook_calls, 0);
  run_thread(watched, NULL); /* works in a child too */
  CHECK_EQ(hook_calls, 1);
}

static void other_hook(void) {}

TEST(the_end_of_a_thread_calls_the_hook) {
  mpx_os_thread_watch(); /* before a hook: nothing */
  CHECK_OK(mpx_os_thread_hook(hook));
  CHECK_OK(mpx_os_thread_hook(hook));
  CHECK_EQ(mpx_os_thread_hook(other_hook), -EALREADY);
  run_thread(unwatched, NULL);
  CHECK_EQ(hook_calls, 0);
  run_thread(watched, NULL);
  CHECK_EQ(hook_calls, 1);
  run_thread(watched, (void *)1);
  CHECK_EQ(hook_calls, 2);
  in_child(check_no_hook_at_exit);
}

TEST(the_cancellation_of_a_thread_calls_the_hook) {
  CHECK_OK(mpx_os_thread_hook(hook));
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, watched, (void *)2), 0);
  mpx_os_sleep(20 * MPX_NS_PER_MS);
  CHECK_EQ(pthread_cancel(thread), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(hook_calls, 1);
}

static void *observe(void *unused) {
  CHECK(!mpx_os_is_main_thread());
  CHECK(mpx_os_thread_count() >= 2);
  return unused;
}

TEST(threads_are_told_apart_and_counted) {
  CHECK(mpx_os_is_main_thread());
  CHECK(mpx_os_thread_count() >= 1);
  run_thread(observe, NULL);
}

static mpx_os_mutex mutex; /* all zero: as good as initialised */
static _Atomic pid_t waiter;
static _Atomic bool is_inside;

static void *enter_and_leave(void *unused) {
  waiter = (pid_t)syscall(SYS_gettid);
  mpx_os_mutex_lock(&mutex);
  is_inside = true;
  mpx_os_mutex_unlock(&mutex);
  return unused;
}

/* Once it sleeps it waits for the lock, or it would be inside. */
static void check_one_waits(void) {
  pthread_t thread;
  waiter = 0;
  is_inside = false;
  mpx_os_mutex_lock(&mutex);
  CHECK_EQ(pthread_create(&thread, NULL, enter_and_leave, NULL), 0);
  while (!is_inside && (waiter == 0 || state_of(waiter) != 'S'))
    mpx_os_sleep(MPX_NS_PER_MS);
  CHECK(!is_inside);
  mpx_os_mutex_unlock(&mutex);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK(is_inside);
}

TEST(mutex_lets_one_thread_in) {
  check_one_waits();
  mpx_os_mutex_init(&mutex);
  check_one_waits();
}

/* ---- processes ------------------------------------------------------------------------------- */

static void hang(void) {
  for (;;)
    pause();
}

TEST(a_process_is_alive_until_it_ends) {
  pid_t pid = fork_child(hang);
  int64_t born = mpx_os_start_time(pid);
  CHECK(born > 0);
  CHECK(born >= mpx_os_start_time(getpid()));
  CHECK(mpx_os_process_is_alive(pid, born));
  CHECK(!mpx_os_process_is_alive(pid, born - 1));
  CHECK(kill(pid, SIGSTOP) == 0 && mpx_os_process_is_alive(pid, born)); /* stopped is alive */
  kill(pid, SIGKILL);
  siginfo_t info;
  CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
  CHECK(!mpx_os_process_is_alive(pid, born)); /* a zombie */
  CHECK_EQ(waitpid(pid, NULL, 0), pid);
  CHECK(!mpx_os_process_is_alive(pid, born));
  CHECK_EQ(mpx_os_start_time(pid), -ESRCH);
  CHECK_EQ(mpx_os_start_time(0), -ESRCH);
  CHECK_EQ(mpx_os_start_time(INT64_MAX), -ESRCH);
  CHECK(!mpx_os_process_is_alive(-1, born));
}

static void *hang_on(void *unused) {
  hang();
  return unused;
}

static void end_first_thread(void) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, hang_on, NULL), 0);
  pthread_exit(NULL);
}

TEST(a_process_outlives_its_first_thread) {
  pid_t pid = fork_child(end_first_thread);
  int64_t born = mpx_os_start_time(pid);
  mpx_os_sleep(50 * MPX_NS_PER_MS);
  CHECK(mpx_os_process_is_alive(pid, born));
  kill(pid, SIGKILL);
  CHECK_EQ(waitpid(pid, NULL, 0), pid);
  CHECK(!mpx_os_process_is_alive(pid, born));
}

static void check_odd_name(void) {
  mpx_os_set_process_name("a) R (b c) 1234567890");
  char name[16];
  CHECK_EQ(prctl(PR_GET_NAME, name), 0);
  CHECK_STR(name, "a) R (b c) 1234");
  CHECK(mpx_os_thread_count() == 1 || UNDER_SANITIZER);
  CHECK(mpx_os_start_time(getpid()) > 0);
}

TEST(a_process_may_have_any_name) {
  in_child(check_odd_name);
}

static void bind_to_one_cpu(void) {
  cpu_set_t set, mine;
  CPU_ZERO(&mine);
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  size_t cpu = 0;
  while (!CPU_ISSET(cpu, &set))
    cpu++;
  CPU_SET(cpu, &mine);
  CHECK_EQ(sched_setaffinity(0, sizeof mine, &mine), 0);
  CHECK_EQ(mpx_os_cpu_count(), 1);
}

TEST(cpus_are_counted_by_affinity) {
  CHECK(mpx_os_cpu_count() >= 1);
  CHECK(mpx_os_cpu_count() <= sysconf(_SC_NPROCESSORS_ONLN));
  in_child(bind_to_one_cpu);
}

TEST(memory_has_a_limit) {
  uint64_t limit = mpx_os_memory_limit();
  CHECK(limit > 16u << 20);
  CHECK(limit <= (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) + (1u << 20));
  CHECK(mpx_os_memory_headroom() > 0);
}

/* ---- names ----------------------------------------------------------------------------------- */

TEST(commands_are_searched_as_execvp_does) {
  char path[MPX_OS_PATH_SIZE], folders[8192];
  const char *folder = test_tmp_path("bin"), *empty = test_tmp_path("");
  CHECK_EQ(mkdir(folder, 0700), 0);
  CHECK_EQ(mkdir(test_tmp_path("bin/tool"), 0700), 0); /* a folder is no command */
  FILE *file = fopen(test_tmp_path("bin/secret"), "we");
  fclose(file);
  CHECK_EQ(chmod(test_tmp_path("bin/secret"), 0600), 0);
  snprintf(folders, sizeof folders, "%s:%s:/bin:/usr/bin", empty, folder);
  CHECK_EQ(setenv("PATH", folders, 1), 0);

  CHECK_OK(mpx_os_find_command("sh", path));
  CHECK(strcmp(path, "/bin/sh") == 0 || strcmp(path, "/usr/bin/sh") == 0);
  CHECK_EQ(mpx_os_find_command("tool", path), -EACCES);
  CHECK_EQ(mpx_os_find_command("secret", path), -EACCES);
  CHECK_EQ(mpx_os_find_command("no-such-command", path), -ENOENT);
  CHECK_EQ(mpx_os_find_command("", path), -ENOENT);
  CHECK_EQ(mpx_os_find_command("/bin/no-such-command", path), -ENOENT);
  CHECK_EQ(mpx_os_find_command("/bin/sh/x", path), -ENOENT);
  CHECK_OK(mpx_os_find_command("/bin/sh", path));
  CHECK_STR(path, "/bin/sh");
  CHECK_EQ(chdir("/bin"), 0);
  CHECK_EQ(setenv("PATH", "", 1), 0); /* the current folder */
  CHECK_OK(mpx_os_find_command("sh", path));
  CHECK(path[0] == '/' && strcmp(path + strlen(path) - 3, "/sh") == 0);
  CHECK_EQ(unsetenv("PATH"), 0);
  CHECK_OK(mpx_os_find_command("sh", path));
  CHECK_EQ(unlink(test_tmp_path("bin/secret")), 0);
  CHECK_EQ(rmdir(test_tmp_path("bin/tool")), 0);
  CHECK_EQ(rmdir(folder), 0);
}

TEST(signals_have_names) {
  char text[32];
  CHECK_STR(mpx_os_signal_name(SIGSEGV, text, sizeof text), "SIGSEGV");
  CHECK_STR(mpx_os_signal_name(SIGKILL, text, sizeof text), "SIGKILL");
  CHECK_STR(mpx_os_signal_name(77, text, sizeof text), "signal 77");
  CHECK_STR(mpx_os_signal_name(0, text, sizeof text), "signal 0");
  CHECK_STR(mpx_os_signal_name(SIGRTMIN + 3, text, sizeof text), "SIGRTMIN+3");
  CHECK_STR(mpx_os_signal_name(SIGSEGV, text, 4), "SIG");
}

TEST(this_process_is_an_ordinary_one) {
  CHECK_EQ(mpx_os_pid(), getpid());
  CHECK(!mpx_os_is_secure());
}
