/* Programs that were there before mproc: they wait for any child, ignore SIGCHLD, fork by
 * themselves, sit in getchar and close descriptors that are not theirs. */
#include "facilities.h"
#include "harness.h"
#include "in_child.h"
#include "processes.h"
#include "seccomp.h"
#include "taker.h"

#include <link.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>

enum { QUICK_CHILDREN = 300 };

static int crash(void *arg, size_t size) {
  (void)size;
  raise(*(int *)arg);
  return 0;
}

/* ---- the status was taken by somebody else --------------------------------------------------- */

/* A child that returned left a record; one that was killed is known to a new kernel only. */
static void check_status(const mproc_status *status, int code, int signal_number, bool remembered) {
  if (signal_number == 0) {
    CHECK_EQ(status->state, MPROC_STATE_EXITED);
    CHECK_EQ(status->code, code);
  } else if (remembered || status->state == MPROC_STATE_SIGNALED) {
    CHECK_EQ(status->state, MPROC_STATE_SIGNALED);
    CHECK_EQ(status->signal, signal_number);
  } else {
    CHECK_EQ(status->state, MPROC_STATE_UNKNOWN);
  }
}

/* Every eighth child is killed, the others return their number. */
static void start_quick_children(const char *method, bool remembered) {
  for (int i = 0, count = test_scale(QUICK_CHILDREN); i < count; i++) {
    const int signal_number = i % 8 == 7 ? SIGKILL : 0, code = i % 256;
    mproc_process *process = signal_number ? start_by(method, crash, &signal_number, sizeof(int))
                                           : start_by(method, return_code, &code, sizeof code);
    const mproc_status status = end_of(process);
    check_status(&status, code, signal_number, remembered);
  }
}

static void reap_all(int number) {
  int saved_errno = errno;
  (void)number;
  while (waitpid(-1, NULL, WNOHANG) > 0)
    continue;
  errno = saved_errno;
}

static void host_reaps_all(const char *method) {
  struct sigaction action = {.sa_handler = reap_all, .sa_flags = SA_RESTART};
  CHECK_EQ(sigaction(SIGCHLD, &action, NULL), 0);
  start_quick_children(method, has_exit_info());
}

TEST_LIMIT(host_that_reaps_all_fork, 30) {
  host_reaps_all("fork");
}

TEST_LIMIT(host_that_reaps_all_spawn, 30) {
  host_reaps_all("spawn");
}

/* The worst host: a thread that waits for any child all the time. */
static void host_waits_in_a_thread(const char *method) {
  static taker reaper;
  start_taker(&reaper, __WALL);
  start_quick_children(method, has_exit_info());
  stop_taker(&reaper);
}

TEST_LIMIT(host_that_waits_in_a_thread_fork, 30) {
  host_waits_in_a_thread("fork");
}

TEST_LIMIT(host_that_waits_in_a_thread_spawn, 30) {
  host_waits_in_a_thread("spawn");
}

TEST_LIMIT(host_that_ignores_sigchld_fork, 30) {
  signal(SIGCHLD, SIG_IGN);
  start_quick_children("fork", has_exit_info());
}

TEST_LIMIT(host_that_ignores_sigchld_spawn, 30) {
  signal(SIGCHLD, SIG_IGN);
  start_quick_children("spawn", has_exit_info());
}

static void steal(const char *method, mproc_process *process) {
  pid_t pid = (pid_t)mproc_process_pid(process);
  pid_t r = waitpid(pid, NULL, 0);
  CHECK_EQ(r, strcmp(method, "forkserver") == 0 ? -1 : pid); /* no child of ours: not to be had */
}

static void check_stolen(const char *method, bool remembered) {
  const int signal_number = SIGUSR2;
  for (int code = 0; code < 256; code += 51) {
    mproc_process *process = start_by(method, return_code, &code, sizeof code);
    steal(method, process);
    check_exited(process, code);
  }
  mproc_process *process = start_by(method, crash, &signal_number, sizeof signal_number);
  steal(method, process);
  mproc_status status = end_of(process);
  check_status(&status, 0, signal_number, remembered || strcmp(method, "forkserver") == 0);
}

TEST(status_stolen_by_pid) {
  FOR_ALL_METHODS(method)
  check_stolen(method, has_exit_info());
}

/* A command has no record in the table: an old kernel knows nothing of its end. */
static void check_stolen_command(bool remembered) {
  mproc_process *process = start_command(COMMAND("/bin/sh", "-c", "exit 9"), NULL);
  steal("", process);
  mproc_status status = end_of(process);
  CHECK_EQ(status.state, remembered ? MPROC_STATE_EXITED : MPROC_STATE_UNKNOWN);
  CHECK_EQ(status.code, remembered ? 9 : -1);
}

TEST(status_of_a_command_stolen) {
  check_stolen_command(has_exit_info());
}

static void check_without_get_info(int errno_value) {
  const seccomp_rule get_info = SECCOMP_GET_INFO;
  if (seccomp_deny(&get_info, 1, errno_value) < 0)
    SKIP("no system call filters here");
  FOR_ALL_METHODS(method)
  check_stolen(method, false);
  check_stolen_command(false);
  signal(SIGCHLD, SIG_IGN);
  FOR_ALL_METHODS(method)
  start_quick_children(method, false);
}

TEST_LIMIT(stolen_status_without_kernel_help_enotty, 40) {
  check_without_get_info(ENOTTY);
}

TEST_LIMIT(stolen_status_without_kernel_help_eperm, 40) {
  check_without_get_info(EPERM);
}

/* A stolen rusage is gone for good: no number may be made up for it. */
TEST(rusage_of_a_stolen_child_is_unknown) {
  const int code = 1;
  mproc_rusage usage = {.user_time_ns = -7};
  mproc_process *process = start_by("spawn", return_code, &code, sizeof code);
  steal("", process);
  CHECK_EQ(mproc_process_rusage(process, &usage), MPROC_ESTATUS_UNKNOWN);
  CHECK_EQ(usage.user_time_ns, -7);
  CHECK_EQ(end_of(process).max_rss_bytes, -1);
}

/* ---- standard input and output --------------------------------------------------------------- */

static void *read_a_character(void *into) {
  *(int *)into = getchar();
  return NULL;
}

/* fflush(NULL) would wait for the lock of standard input until somebody types. */
TEST(start_while_a_thread_sits_in_getchar) {
  int ends[2], character = 0;
  pthread_t reader;
  make_pipe(ends);
  int saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
  CHECK_EQ(dup2(ends[0], STDIN_FILENO), STDIN_FILENO);
  CHECK_EQ(pthread_create(&reader, NULL, read_a_character, &character), 0);
  sleep_ms(50);
  for (int round = 0; round < 5; round++)
    check_family_works();
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(pthread_join(reader, NULL), 0);
  CHECK_EQ(character, 'x');
  CHECK_EQ(dup2(saved, STDIN_FILENO), STDIN_FILENO);
  close(saved);
  close(ends[0]);
  close(ends[1]);
}

static int print_a_word(void *arg, size_t size) {
  (void)arg, (void)size;
  printf("child ");
  return 0;
}

/* fork flushes first; spawn leaves the parent's bytes where they are. */
static void check_output_once(const char *method, const char *expected) {
  char text[256];
  const char *path = test_tmp_path("output");
  fflush(stdout);
  int saved = dup(STDOUT_FILENO);
  int file = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
  CHECK_EQ(dup2(file, STDOUT_FILENO), STDOUT_FILENO);
  printf("parent ");
  check_exited(start_by(method, print_a_word, NULL, 0), 0);
  printf("end");
  fflush(stdout);
  dup2(saved, STDOUT_FILENO);
  close(saved);
  ssize_t size = pread(file, text, sizeof text - 1, 0);
  text[size < 0 ? 0 : size] = '\0';
  close(file);
  CHECK_EQ(unlink(path), 0);
  CHECK_STR(text, expected);
}

TEST(unflushed_output_is_written_once) {
  check_output_once("fork", "parent child end");
  check_output_once("spawn", "child parent end");
}

/* A pipe that nobody reads: what was printed into it stays the parent's, and the start does not
 * wait. */
TEST(start_with_a_full_standard_output) {
  int ends[2];
  char buffer[4096];
  memset(buffer, 'x', sizeof buffer);
  fflush(stdout);
  int saved = dup(STDOUT_FILENO);
  make_pipe(ends);
  CHECK_EQ(fcntl(ends[1], F_SETFL, O_NONBLOCK), 0);
  while (write(ends[1], buffer, sizeof buffer) > 0)
    continue;
  CHECK_EQ(fcntl(ends[1], F_SETFL, 0), 0);
  CHECK_EQ(dup2(ends[1], STDOUT_FILENO), STDOUT_FILENO);
  printf("unflushed");
  check_family_works();
  close(ends[1]);
  for (size_t left = 16 * sizeof buffer; left > 0; left -= sizeof buffer)
    CHECK(read(ends[0], buffer, sizeof buffer) > 0);
  fflush(stdout);
  dup2(saved, STDOUT_FILENO);
  close(saved);
  ssize_t size = read(ends[0], buffer, sizeof buffer - 1);
  CHECK(size > 0);
  buffer[size] = '\0';
  close(ends[0]);
  CHECK_STR(buffer, "unflushed");
}

/* ---- a host that forks by itself ------------------------------------------------------------- */

static char *own_block;
static mproc_process *running;

/* Everything that a stranger tries is refused; its end, by exit with all handlers, joins nobody. */
static void be_a_stranger(void) {
  const int code = 0;
  CHECK(mproc_heap_alloc(1) == NULL);
  CHECK_EQ(mproc_last_error(), MPROC_EFOREIGN);
  CHECK_EQ(mproc_heap_free(own_block), MPROC_EFOREIGN);
  CHECK_EQ(mproc_heap_share(own_block), MPROC_EFOREIGN);
  FOR_ALL_METHODS(method) {
    const mproc_process_options options = {.method = method};
    mproc_process *process = create_with(&options, return_code, &code, sizeof code);
    CHECK_EQ(mproc_process_start(process), MPROC_EFOREIGN);
    CHECK_EQ(mproc_process_close(process), 0);
  }
  mproc_process *process = create_command(COMMAND("/bin/true"), NULL);
  CHECK_EQ(mproc_process_start(process), MPROC_EFOREIGN);
  CHECK_EQ(mproc_process_close(process), 0);
  CHECK_EQ(mproc_process_join(running, MPROC_FOREVER), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_kill(running), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_parent_is_alive(), MPROC_EFOREIGN);
  exit(0);
}

static int wait_for_word(void *arg, size_t size) {
  _Atomic int *word = *(_Atomic int **)arg;
  (void)size;
  while (*word == 0)
    sleep_ms(1);
  return *word;
}

TEST(strangers_fork_is_no_member) {
  _Atomic int *word = mproc_heap_calloc(1, sizeof *word);
  own_block = mproc_heap_alloc_owned(100);
  CHECK(word && own_block);
  FOR_ALL_METHODS(method) {
    *word = 0;
    running = start_by(method, wait_for_word, &word, sizeof word);
    for (int round = 0; round < 3; round++)
      in_child(be_a_stranger);
    CHECK_EQ(mproc_process_is_alive(running), 1);
    *word = 21;
    check_exited(running, 21);
  }
  memset(own_block, 1, 100);
  CHECK_EQ(mproc_heap_free(own_block), 0);
  CHECK_EQ(mproc_heap_free((void *)word), 0);
  check_family_works();
}

/* The stranger of a child is none either, and it is the child that joins what it started. */
static int fork_by_hand(void *arg, size_t size) {
  (void)arg, (void)size;
  const int code = 5;
  running = start_by("fork", return_code, &code, sizeof code);
  own_block = mproc_heap_alloc_owned(100);
  in_child(be_a_stranger);
  check_exited(running, code);
  return 11;
}

TEST(strangers_fork_in_a_child) {
  FOR_ALL_METHODS(method)
  check_exited(start_by(method, fork_by_hand, NULL, 0), 11);
}

/* Killed strangers, strangers that exec, strangers that outlive the case's child. */
static int leave_strangers(void *arg, size_t size) {
  (void)arg, (void)size;
  const char *const command[] = {"/bin/sleep", "0.1", NULL};
  pid_t killed = fork();
  if (killed == 0) {
    pause();
    _exit(0);
  }
  pid_t program = fork();
  if (program == 0)
    execv(command[0], (char *const *)(uintptr_t)command);
  pid_t last = fork();
  if (last == 0) {
    sleep_ms(200);
    exit(0);
  }
  CHECK(killed > 0 && program > 0 && last > 0);
  CHECK_EQ(kill(killed, SIGKILL), 0);
  CHECK_EQ(waitpid(killed, NULL, 0), killed);
  return 12;
}

TEST(strangers_disturb_nobody) {
  uint64_t used = heap_used();
  FOR_ALL_METHODS(method) {
    int64_t start = now_ms();
    check_exited(start_by(method, leave_strangers, NULL, 0), 12);
    CHECK(now_ms() - start < 5000 * (UNDER_SANITIZER ? 10 : 1));
  }
  check_family_works();
  CHECK_EQ(heap_used(), used);
}

static _Atomic bool threads_must_end;
static _Atomic int starts, allocations;

static void *start_in_a_loop(void *method) {
  const int code = 1;
  for (; !threads_must_end; starts++)
    check_exited(start_by(method, return_code, &code, sizeof code), code);
  return NULL;
}

static void *allocate_in_a_loop(void *nothing) {
  for (; !threads_must_end; allocations++)
    CHECK_EQ(mproc_heap_free(mproc_heap_alloc(100 + (size_t)allocations % 1000)), 0);
  return nothing;
}

static void be_a_strangers_thread(void) {
  CHECK(mproc_heap_alloc(10) == NULL);
  CHECK_EQ(mproc_last_error(), MPROC_EFOREIGN);
  const int code = 0;
  mproc_process *process = create_with(NULL, return_code, &code, sizeof code);
  CHECK_EQ(mproc_process_start(process), MPROC_EFOREIGN);
  if (UNDER_SANITIZER) /* which would blame us for what the other threads were at */
    _exit(0);
  exit(0);
}

/* At any instant of any start and allocation. */
static void fork_among_threads(bool family_is_new) {
  enum { THREADS = 5 };
  pthread_t threads[THREADS];
  if (!family_is_new)
    CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
  CHECK_EQ(pthread_create(&threads[0], NULL, start_in_a_loop, (void *)(uintptr_t) "fork"), 0);
  CHECK_EQ(pthread_create(&threads[1], NULL, start_in_a_loop, (void *)(uintptr_t) "spawn"), 0);
  CHECK_EQ(pthread_create(&threads[2], NULL, allocate_in_a_loop, NULL), 0);
  CHECK_EQ(pthread_create(&threads[3], NULL, allocate_in_a_loop, NULL), 0);
  CHECK_EQ(pthread_create(&threads[4], NULL, start_in_a_loop, (void *)(uintptr_t) "forkserver"), 0);
  while (starts < 3)
    sleep_ms(1);
  for (int round = 0; round < (UNDER_SANITIZER ? 20 : 150); round++)
    in_child(be_a_strangers_thread);
  threads_must_end = true;
  for (int i = 0; i < THREADS; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

TEST_LIMIT(strangers_fork_among_threads, 60) {
  fork_among_threads(false);
}

static void *make_the_family(void *nothing) {
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
  return nothing;
}

/* A fork while another thread makes the heap: the copy has half of it, and must not wait for the
 * rest. */
static void fork_while_the_family_is_made(void) {
  pthread_t maker;
  CHECK_EQ(pthread_create(&maker, NULL, make_the_family, NULL), 0);
  pid_t pid = fork();
  if (pid == 0) {
    void *block = mproc_heap_alloc(1);
    CHECK(block != NULL || mproc_last_error() == MPROC_EFOREIGN);
#if defined(__GLIBC__) && !UNDER_SANITIZER
    exit(0);
#else /* a libc whose fork leaves other threads' streams locked, and whose exit waits for them */
    _exit(0);
#endif
  }
  int status = -1;
  for (int64_t end = now_ms() + 8000; waitpid(pid, &status, WNOHANG) == 0; sleep_ms(1))
    if (now_ms() > end) {
      kill(pid, SIGKILL);
      break;
    }
  CHECK_EQ(status, 0);
  CHECK_EQ(pthread_join(maker, NULL), 0);
}

TEST_LIMIT(strangers_fork_while_the_family_is_made, 60) {
  if (TEST_HAS_TSAN)
    SKIP("ThreadSanitizer's dlopen, which the maker calls, has the loader's lock at the fork");
  if (UNDER_SANITIZER)
    SKIP("AddressSanitizer's malloc, unlike libc's, stays locked in a child forked meanwhile");
  for (int round = 0; round < 200; round++)
    in_child(fork_while_the_family_is_made);
}

static atomic_bool loader_is_locked, loader_must_open;

static int hold_the_loader(struct dl_phdr_info *info, size_t size, void *user) {
  (void)info, (void)size, (void)user;
  loader_is_locked = true;
  while (!loader_must_open)
    sleep_ms(1);
  return 1;
}

static void *walk_the_modules(void *nothing) {
  CHECK_EQ(dl_iterate_phdr(hold_the_loader, NULL), 1);
  return nothing;
}

static void make_a_family_in_time(void) {
  (void)alarm(10);
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
}

/* Where every thread is at times that throws an exception or asks for a backtrace. */
TEST(strangers_fork_while_the_loader_is_locked) {
  if (TEST_HAS_TSAN)
    SKIP("ThreadSanitizer's dlopen takes the loader's lock");
  pthread_t walker;
  CHECK_EQ(pthread_create(&walker, NULL, walk_the_modules, NULL), 0);
  while (!loader_is_locked)
    sleep_ms(1);
  in_child(make_a_family_in_time);
  loader_must_open = true;
  CHECK_EQ(pthread_join(walker, NULL), 0);
}

/* ---- what starts leave alone ----------------------------------------------------------------- */

static volatile sig_atomic_t signals;

static void count_signal(int number) {
  (void)number;
  signals++;
}

TEST(handlers_outlive_a_start) {
  const int code = 5;
  struct sigaction action = {.sa_handler = count_signal};
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  FOR_ALL_METHODS(method) {
    signals = 0;
    check_exited(start_by(method, return_code, &code, sizeof code), code);
    CHECK_EQ(raise(SIGUSR1), 0);
    CHECK_EQ(signals, 1);
  }
}

static void *allocate_under_a_lock(void *argument) {
  pthread_mutex_t *lock = argument;
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(pthread_mutex_lock(lock), 0);
    CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
    CHECK_EQ(pthread_mutex_unlock(lock), 0);
  }
  return NULL;
}

/* What a thread's first call takes for good is no lock in the eyes of a checker of lock order. */
TEST(first_call_under_a_lock_of_the_host) {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, allocate_under_a_lock, &lock), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* ---- closed descriptors ---------------------------------------------------------------------- */

TEST(heap_descriptor_closed_by_user_code) {
  const int code = 9;
  const mproc_process_options by_spawn = {.method = "spawn"};
  int fd = heap_descriptor();
  int kept = fcntl(fd, F_DUPFD_CLOEXEC, 100);
  CHECK_EQ(close(fd), 0);
  int before = descriptor_count();
  uint64_t used = heap_used();
  mproc_process *process = create_with(&by_spawn, return_code, &code, sizeof code);
  CHECK_EQ(mproc_process_start(process), MPROC_EHEAPLOST);
  CHECK_EQ(descriptor_count(), before);
  check_exited(start_by("fork", return_code, &code, sizeof code), code);
  void *block = mproc_heap_alloc(10000000);
  CHECK(block != NULL);
  CHECK_EQ(mproc_heap_free(block), 0);
  CHECK_EQ(heap_used(), used);
  /* The same object starts once the cause is gone. */
  CHECK_EQ(dup3(kept, fd, O_CLOEXEC), fd);
  CHECK_EQ(close(kept), 0);
  CHECK_EQ(mproc_process_start(process), 0);
  check_exited(process, code);
}

static int close_all_descriptors(void *arg, size_t size) {
  char **cell = *(char ***)arg;
  const int code = 33;
  (void)size;
  for (int fd = 3; fd < 1024; fd++)
    close(fd);
  char *block = mproc_heap_alloc(5000000);
  CHECK(block != NULL);
  memset(block, 7, 5000000);
  *cell = block;
  check_exited(start_by("fork", return_code, &code, sizeof code), code);
  return 44;
}

TEST(child_that_closes_all_descriptors) {
  char **cell = mproc_heap_calloc(1, sizeof *cell);
  CHECK(cell != NULL);
  FOR_ALL_METHODS(method) {
    check_exited(start_by(method, close_all_descriptors, &cell, sizeof cell), 44);
    CHECK_EQ((*cell)[4999999], 7);
    CHECK_EQ(mproc_heap_free(*cell), 0);
  }
  CHECK_EQ(mproc_heap_free(cell), 0);
}
