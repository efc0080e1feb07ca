/* What a supervisor of worker processes asks of the system: their memory, their last words, which
 * of them the system killed; and holding signals back. */
#include "harness.h"
#include "in_child.h"
#include "soft_limit.h"

#include "os/linux/proc.h"
#include "os/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define MIB ((size_t)1 << 20)

/* ---- how much memory a process has ----------------------------------------------------------- */

static const char status_text[] = "Name:\tRssAnon: 7 kB\nUmask:\t0022\nVmData:\t     360 kB\n"
                                  "VmDataX:\t1 kB\nRssAnon:\t     112 kB\nRssShmem:\t  9000 kB\n"
                                  "VmSwap:\t      12 kB\nThreads:\t1\n";

TEST(the_status_of_a_process_is_read) {
  uint64_t bytes = 7;
  CHECK_OK(mpx_proc_parse_kib(status_text, "VmData", &bytes));
  CHECK_EQ(bytes, 360 * 1024);
  CHECK_OK(mpx_proc_parse_kib(status_text, "Threads", &bytes));
  CHECK_EQ(bytes, 1024);
  CHECK_OK(mpx_proc_parse_memory_use(status_text, &bytes));
  CHECK_EQ(bytes, (112 + 12) * 1024);
  CHECK_OK(mpx_proc_parse_memory_use("RssAnon:\t5 kB", &bytes));
  CHECK_EQ(bytes, 5 * 1024);
}

TEST(a_status_that_does_not_tell_is_no_figure) {
  static const char *const texts[] = {"",
                                      "\n\n",
                                      "RssAnon",
                                      "RssAnon:",
                                      "RssAnon:\t\n",
                                      "RssAnon 12 kB\n",
                                      "RssAnon:\tnone\n",
                                      "VmSwap:\t12 kB\n",
                                      "RssAnonX:\t12 kB\n",
                                      "RssAnon:\t18014398509481984 kB\n"};
  uint64_t bytes = 7;
  for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
    CHECK_EQ(mpx_proc_parse_memory_use(texts[i], &bytes), -ENOENT);
  CHECK_EQ(mpx_proc_parse_kib(status_text, "Vm", &bytes), -ENOENT);
  CHECK_EQ(bytes, 7);
}

/* Checkers keep books of what is written, in private memory. */
static bool memory_is_our_own(void) {
  return !UNDER_SANITIZER && !test_under_valgrind();
}

static void fill(int sharing, size_t size) {
  volatile char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
  CHECK(memory != MAP_FAILED);
  for (size_t i = 0; i < size; i += 1024)
    memory[i] = 1;
}

static mproc_handle to_child[2], from_child[2];

/* Each byte that comes is a step to do, and is sent back when it is done. */
static void grow_step_by_step(void) {
  char step;
  mpx_os_close(to_child[1]);
  while (mpx_os_read(to_child[0], &step, 1) == 1) {
    if (step != 'n')
      fill(step == 's' ? MAP_SHARED : MAP_PRIVATE, 50 * MIB);
    CHECK_OK(mpx_os_write(from_child[1], &step, 1));
  }
}

static uint64_t use_after(pid_t pid, char step) {
  uint64_t bytes;
  CHECK_OK(mpx_os_write(to_child[1], &step, 1));
  CHECK_EQ(mpx_os_read(from_child[0], &step, 1), 1);
  CHECK_OK(mpx_os_memory_use(pid, &bytes));
  return bytes;
}

TEST(private_memory_that_was_written_to_is_counted) {
  CHECK_OK(mpx_os_pipe(to_child));
  CHECK_OK(mpx_os_pipe(from_child));
  pid_t pid = fork_child(grow_step_by_step);
  mpx_os_close(to_child[0]);
  mpx_os_close(from_child[1]);
  uint64_t before = use_after(pid, 'n');
  uint64_t shared = use_after(pid, 's');
  uint64_t grown = use_after(pid, 'p');
  CHECK(before > 0);
  CHECK(grown >= shared + 45 * MIB);
  if (memory_is_our_own()) {
    CHECK(shared < before + 5 * MIB);
    CHECK(grown < shared + 55 * MIB);
  }

  mpx_os_close(to_child[1]);
  mpx_os_close(from_child[0]);
  siginfo_t info;
  CHECK_EQ(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
  uint64_t bytes = 7;
  CHECK_EQ(mpx_os_memory_use(pid, &bytes), -ESRCH); /* a zombie */
  CHECK_EQ(status_of(pid), 0);
  CHECK_EQ(mpx_os_memory_use(pid, &bytes), -ESRCH);
  CHECK_EQ(mpx_os_memory_use(0, &bytes), -ESRCH);
  CHECK_EQ(mpx_os_memory_use((int64_t)1 << 32 | getpid(), &bytes), -ESRCH);
  CHECK_EQ(bytes, 7);
}

static void fill_and_end(void) {
  fill(MAP_PRIVATE, 100 * MIB);
}

/* It has no memory any more while the system gives back what it had, and is no zombie yet. */
TEST(a_process_that_ends_is_gone_or_has_memory) {
  for (int i = test_scale(10); i > 0; i--) {
    uint64_t bytes;
    pid_t pid = fork_child(fill_and_end);
    int r;
    while ((r = mpx_os_memory_use(pid, &bytes)) == 0)
      continue;
    CHECK_EQ(r, -ESRCH);
    CHECK_EQ(status_of(pid), 0);
  }
}

TEST(a_process_sees_its_own_memory) {
  uint64_t before, after;
  CHECK_OK(mpx_os_memory_use(getpid(), &before));
  fill(MAP_PRIVATE, 50 * MIB);
  CHECK_OK(mpx_os_memory_use(getpid(), &after));
  CHECK(after >= before + 45 * MIB);
}

/* The list of groups comes first. */
static void read_behind_many_groups(void) {
  enum { COUNT = 5000 };
  static gid_t groups[COUNT];
  uint64_t bytes;
  for (unsigned i = 0; i < COUNT; i++)
    groups[i] = 1000000 + i;
  CHECK_EQ(setgroups(COUNT, groups), 0);
  CHECK_OK(mpx_os_memory_use(getpid(), &bytes));
  CHECK(bytes > 0);
}

TEST(many_groups_hide_nothing) {
  if (geteuid() != 0)
    SKIP("needs root");
  in_child(read_behind_many_groups);
}

/* ---- how much it may have -------------------------------------------------------------------- */

static struct rlimit data_limit(void) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_DATA, &limit), 0);
  return limit;
}

static void *get(int sharing, size_t size) {
  return mmap(NULL, size, PROT_READ | PROT_WRITE, sharing | MAP_ANONYMOUS, -1, 0);
}

static void live_with_32_mib(void) {
  CHECK(get(MAP_SHARED, 64 * MIB) != MAP_FAILED); /* what is shared gives no right to more */
  CHECK_OK(mpx_os_limit_memory(32 * MIB));
  CHECK(get(MAP_PRIVATE, 40 * MIB) == MAP_FAILED);
  CHECK_EQ(errno, ENOMEM);
  void *first = get(MAP_PRIVATE, 24 * MIB);
  CHECK(first != MAP_FAILED);
  CHECK(get(MAP_PRIVATE, 16 * MIB) == MAP_FAILED);
  CHECK(get(MAP_SHARED, 40 * MIB) != MAP_FAILED);
  CHECK_EQ(munmap(first, 24 * MIB), 0);
  CHECK(get(MAP_PRIVATE, 16 * MIB) != MAP_FAILED);
  if (!UNDER_SANITIZER) { /* theirs would end the process */
    void *volatile memory = malloc(64 * MIB);
    CHECK(memory == NULL);
  }
}

TEST(memory_above_the_limit_is_refused) {
  SKIP_UNDER_VALGRIND("it does not pass the limit on");
  in_child(live_with_32_mib);
}

static void limit_again_and_again(void) {
  CHECK_OK(mpx_os_limit_memory(64 * MIB));
  struct rlimit first = data_limit();
  CHECK(first.rlim_cur > 64 * MIB && first.rlim_cur != RLIM_INFINITY);
  CHECK_EQ(first.rlim_cur, first.rlim_max);
  static const uint64_t more[] = {1024 * MIB, INT64_MAX, UINT64_MAX - 1, UINT64_MAX};
  for (size_t i = 0; i < sizeof more / sizeof more[0]; i++) {
    CHECK_OK(mpx_os_limit_memory(more[i]));
    CHECK_EQ(data_limit().rlim_cur, first.rlim_cur);
    CHECK_EQ(data_limit().rlim_max, first.rlim_max);
  }
  CHECK_OK(mpx_os_limit_memory(16 * MIB));
  CHECK(data_limit().rlim_max <= first.rlim_max - 40 * MIB);
  CHECK_EQ(data_limit().rlim_cur, data_limit().rlim_max);
}

TEST(a_limit_is_lowered_only) {
  in_child(limit_again_and_again);
}

static void limit_above_a_soft_one(void) {
  struct rlimit limit = data_limit();
  CHECK_OK(mpx_os_limit_memory(256 * MIB));
  limit.rlim_max = data_limit().rlim_max;
  limit.rlim_cur = limit.rlim_max - 128 * MIB;
  CHECK_EQ(setrlimit(RLIMIT_DATA, &limit), 0);
  CHECK_OK(mpx_os_limit_memory(192 * MIB));
  CHECK_EQ(data_limit().rlim_cur, limit.rlim_cur);
  CHECK(data_limit().rlim_max < limit.rlim_max);
}

TEST(a_lower_soft_limit_stays) {
  in_child(limit_above_a_soft_one);
}

/* ---- whom the system killed ------------------------------------------------------------------ */

/* The figures themselves: test_os_cgroup. */
TEST(kills_are_counted_or_not_known) {
  int64_t kills = mpx_os_oom_kills();
  CHECK(kills >= 0 || kills == -ENOSYS);
}

/* ---- spool ----------------------------------------------------------------------------------- */

static mproc_handle spool;

enum { LINES = 1000, LINE = 16 };

/* As standard error, which knows nothing of the spool; where this process is in the file does not
 * matter. */
static void write_lines(char letter) {
  char line[LINE];
  memset(line, letter, sizeof line);
  line[LINE - 1] = '\n';
  CHECK_EQ(dup2((int)spool, STDERR_FILENO), STDERR_FILENO);
  mpx_os_close(spool);
  for (int i = 0; i < LINES; i++) {
    if (i % 10 == 0 && lseek(STDERR_FILENO, 0, SEEK_SET) < 0)
      _exit(2);
    if (write(STDERR_FILENO, line, sizeof line) != LINE)
      _exit(3);
  }
}

static void write_a(void) {
  write_lines('a');
}

static void write_b(void) {
  write_lines('b');
}

TEST(two_processes_append_to_a_spool) {
  static char text[2 * LINES * LINE];
  char line[LINE];
  int counts[2] = {0, 0};
  CHECK_OK(mpx_os_spool_create(&spool));
  CHECK(spool > STDERR_FILENO);
  CHECK_EQ(fcntl((int)spool, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(mpx_os_spool_size(spool), 0);
  pid_t a = fork_child(write_a), b = fork_child(write_b);
  CHECK_EQ(status_of(a), 0);
  CHECK_EQ(status_of(b), 0);
  CHECK_EQ(mpx_os_spool_size(spool), sizeof text);
  CHECK_EQ(mpx_os_spool_tail(spool, 0, text, sizeof text), sizeof text);
  for (size_t i = 0; i < 2 * LINES; i++) {
    char letter = text[i * LINE];
    CHECK(letter == 'a' || letter == 'b');
    memset(line, letter, sizeof line);
    line[LINE - 1] = '\n';
    CHECK_EQ(memcmp(text + i * LINE, line, LINE), 0);
    counts[letter - 'a']++;
  }
  CHECK_EQ(counts[0], LINES);
  CHECK_EQ(counts[1], LINES);
  mpx_os_close(spool);
}

/* Its byte at `place` is known. */
static void append(size_t from, size_t size) {
  static char bytes[16384];
  CHECK(size <= sizeof bytes);
  for (size_t i = 0; i < size; i++)
    bytes[i] = (char)((from + i) * 7 / 3);
  CHECK_OK(mpx_os_write(spool, bytes, size));
}

static void check_tail(int64_t from, size_t capacity, int64_t expected_from, size_t expected) {
  char bytes[8192];
  memset(bytes, 'x', sizeof bytes);
  CHECK_EQ(mpx_os_spool_tail(spool, from, bytes, capacity), expected);
  for (size_t i = 0; i < expected; i++)
    CHECK_EQ(bytes[i], (char)((uint64_t)(expected_from + (int64_t)i) * 7 / 3));
  CHECK_EQ(bytes[expected], 'x');
}

TEST(the_tail_of_a_spool_is_what_was_written_last) {
  CHECK_OK(mpx_os_spool_create(&spool));
  check_tail(0, 4096, 0, 0);
  append(0, 100);
  check_tail(0, 4096, 0, 100);
  check_tail(40, 4096, 40, 60);
  append(100, 9900);
  check_tail(0, 4096, 10000 - 4096, 4096);
  check_tail(10000 - 4097, 4096, 10000 - 4096, 4096);
  check_tail(10000 - 4095, 4096, 10000 - 4095, 4095);
  check_tail(9990, 4096, 9990, 10);
  check_tail(9990, 3, 9997, 3);
  check_tail(10000, 4096, 0, 0);
  check_tail(9000, 0, 0, 0);
  append(10000, 5); /* reading moves nobody's place */
  check_tail(10000, 4096, 10000, 5);
  mpx_os_close(spool);
}

static void append_ten(void) {
  append(0, 10);
}

TEST(a_cleared_spool_begins_anew) {
  CHECK_OK(mpx_os_spool_create(&spool));
  append(0, 10000);
  CHECK_OK(mpx_os_spool_clear(spool));
  CHECK_EQ(mpx_os_spool_size(spool), 0);
  check_tail(0, 4096, 0, 0);
  check_tail(10000, 4096, 0, 0);
  in_child(append_ten);
  CHECK_EQ(mpx_os_spool_size(spool), 10); /* 10010: behind a hole */
  check_tail(0, 4096, 0, 10);
  check_tail(10000, 4096, 0, 10); /* more than there is: it was cleared since */
  append(10, 20);
  check_tail(10, 4096, 10, 20);
  mpx_os_close(spool);
}

TEST(what_is_no_spool_is_refused) {
  char byte;
  CHECK_EQ(mpx_os_spool_size(MPX_NO_HANDLE), -EBADF);
  CHECK_EQ(mpx_os_spool_tail(MPX_NO_HANDLE, 0, &byte, 1), -EBADF);
  CHECK_EQ(mpx_os_spool_clear(MPX_NO_HANDLE), -EBADF);
}

static void create_without_descriptors(void) {
  mproc_handle none = 7;
  (void)set_soft_limit(RLIMIT_NOFILE, 3);
  CHECK_EQ(mpx_os_spool_create(&none), -EMFILE);
  CHECK_EQ(none, 7);
}

TEST(a_spool_needs_a_descriptor) {
  in_child(create_without_descriptors);
}

/* ---- modules --------------------------------------------------------------------------------- */

TEST(unloading_a_module_is_counted) {
#if MPX_STATIC
  CHECK_EQ(mpx_os_module_unloads(), 0);
#else
  char path[4096];
  snprintf(path, sizeof path, "%s.so", test_child_path("os_module_a"));
  uint64_t before = mpx_os_module_unloads();
  void *module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  CHECK(module != NULL);
  CHECK_EQ(dlopen(path, RTLD_NOW | RTLD_LOCAL) == module, 1);
  CHECK_EQ(mpx_os_module_unloads(), before);
  CHECK_EQ(dlclose(module), 0);
  CHECK_EQ(mpx_os_module_unloads(), before); /* somebody else has it open */
  CHECK_EQ(dlclose(module), 0);
#ifdef __GLIBC__
  CHECK_EQ(mpx_os_module_unloads(), before + 1);
#endif
#endif
}

/* ---- signals --------------------------------------------------------------------------------- */

static volatile sig_atomic_t handled;

static void count_signal(int number) {
  (void)number;
  handled = handled + 1;
}

static sigset_t current_mask(void) {
  sigset_t mask;
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
  return mask;
}

TEST(signals_are_held_and_come_afterwards) {
  struct sigaction action = {.sa_handler = count_signal};
  static const int numbers[] = {SIGUSR1, SIGTERM, SIGCHLD, SIGALRM};
  const size_t count = sizeof numbers / sizeof numbers[0];
  mpx_signal_mask mask, inner;
  sigset_t own;
  sigemptyset(&own);
  sigaddset(&own, SIGUSR2);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &own, NULL), 0);
  memset(&mask, 0xff, sizeof mask);
  mpx_os_signals_hold(&mask);
  for (size_t i = 0; i < count; i++) {
    CHECK_EQ(sigaction(numbers[i], &action, NULL), 0);
    CHECK_EQ(raise(numbers[i]), 0);
  }
  sigset_t held = current_mask();
  for (int number = 1; number <= SIGRTMAX; number++)
    if (number != SIGKILL && number != SIGSTOP && (number < 32 || number >= SIGRTMIN))
      CHECK_EQ(sigismember(&held, number), 1);
  mpx_os_signals_hold(&inner); /* one in the other */
  mpx_os_signals_restore(&inner);
  CHECK_EQ(handled, 0);
  mpx_os_signals_restore(&mask);
  CHECK_EQ(handled, (int)count);
  held = current_mask();
  for (int number = 1; number <= SIGRTMAX; number++)
    if (number < 32 || number >= SIGRTMIN)
      CHECK_EQ(sigismember(&held, number), number == SIGUSR2);
}

static void *check_open(void *unused) {
  sigset_t mask = current_mask();
  CHECK_EQ(sigismember(&mask, SIGUSR1), 0);
  return unused;
}

static _Atomic int stage;

static void *wait_and_check(void *unused) {
  while (stage == 0)
    mpx_os_sleep(MPX_NS_PER_MS);
  return check_open(unused);
}

TEST(only_the_callers_signals_are_held) {
  pthread_t thread;
  mpx_signal_mask mask;
  CHECK_EQ(pthread_create(&thread, NULL, wait_and_check, NULL), 0);
  mpx_os_signals_hold(&mask);
  stage = 1;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  mpx_os_signals_restore(&mask);
}
