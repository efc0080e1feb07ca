/* A worker of the forkserver has the state that its asker has now, not the one that the server was
 * born with. Each case starts the server, changes one thing, and compares everything. */
#include "forkserver.h"
#include "harness.h"

#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <sys/resource.h>

extern char **environ;

#ifdef __GLIBC__
typedef __rlimit_resource_t resource_number;
#else
typedef int resource_number;
#endif

enum { LIMITS = 16 };

/* In the shared heap: what a process finds about itself. */
typedef struct seen {
  struct stat cwd, streams[3];
  int cwd_result, path_errno, stream_errno[3];
  char path[PATH_MAX];
  mode_t umask;
  struct rlimit limits[LIMITS];
  int nice;
  cpu_set_t cpus;
  sigset_t mask;
  pid_t group, session;
  int variables;
  char environment[32768];
  int64_t server;
} seen;

static void see_environment(seen *all) {
  size_t used = 0;
  all->variables = 0;
  memset(all->environment, 0, sizeof all->environment);
  for (char **at = environ; at && *at; at++) {
    /* The harness's own sanitizers and coverage runs put nothing in between. */
    used += (size_t)snprintf(all->environment + used, sizeof all->environment - used, "%s\n", *at);
    CHECK(used < sizeof all->environment);
    all->variables++;
  }
}

static void see(seen *all) {
  memset(all, 0, sizeof *all);
  all->cwd_result = stat(".", &all->cwd);
  all->path_errno = getcwd(all->path, sizeof all->path) ? 0 : errno;
  all->umask = umask(0);
  umask(all->umask);
  for (int i = 0; i < LIMITS; i++)
    CHECK_EQ(getrlimit((resource_number)i, &all->limits[i]), 0);
  all->nice = getpriority(PRIO_PROCESS, 0);
  CHECK_EQ(sched_getaffinity(0, sizeof all->cpus, &all->cpus), 0);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &all->mask), 0);
  all->group = getpgrp();
  all->session = getsid(0);
  for (int i = 0; i < 3; i++)
    all->stream_errno[i] = fstat(i, &all->streams[i]) == 0 ? 0 : errno;
  see_environment(all);
}

static int see_in_worker(void *arg, size_t size) {
  seen *all = *(seen **)arg;
  (void)size;
  see(all);
  all->server = getppid();
  return 0;
}

static void check_same_file(const struct stat *worker, const struct stat *here) {
  CHECK_EQ(worker->st_dev, here->st_dev);
  CHECK_EQ(worker->st_ino, here->st_ino);
}

static void check_same(const seen *worker, const seen *here) {
  check_same_file(&worker->cwd, &here->cwd);
  CHECK_EQ(worker->cwd_result, here->cwd_result);
  CHECK_EQ(worker->path_errno, here->path_errno);
  CHECK_STR(worker->path, here->path);
  CHECK_EQ(worker->umask, here->umask);
  for (int i = 0; i < LIMITS; i++) {
    CHECK_EQ(worker->limits[i].rlim_cur, here->limits[i].rlim_cur);
    CHECK_EQ(worker->limits[i].rlim_max, here->limits[i].rlim_max);
  }
  CHECK_EQ(worker->nice, here->nice);
  CHECK(CPU_EQUAL(&worker->cpus, &here->cpus));
  for (int number = 1; number < 65; number++)
    CHECK_EQ(sigismember(&worker->mask, number), sigismember(&here->mask, number));
  CHECK_EQ(worker->group, here->group);
  CHECK_EQ(worker->session, here->session);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(worker->stream_errno[i], here->stream_errno[i]);
    if (here->stream_errno[i] == 0)
      check_same_file(&worker->streams[i], &here->streams[i]);
  }
  CHECK_EQ(worker->variables, here->variables);
  CHECK_STR(worker->environment, here->environment);
}

/* What a worker finds now, with options or without. */
static seen *seen_by_worker(const mproc_process_options *options) {
  mproc_process_options with = options ? *options : (mproc_process_options){0};
  seen *all = mproc_heap_calloc(1, sizeof *all);
  CHECK(all != NULL);
  with.method = "forkserver";
  check_exited(start_with(&with, see_in_worker, &all, sizeof all), 0);
  return all;
}

static void check_worker_is_like_us(int64_t server) {
  seen *here = malloc(sizeof *here), *worker = seen_by_worker(NULL);
  CHECK(here != NULL);
  see(here);
  check_same(worker, here);
  CHECK_EQ(worker->server, server);
  free(here);
  CHECK_EQ(mproc_heap_free(worker), 0);
}

/* ---- the directory --------------------------------------------------------------------------- */

TEST(nothing_changed) {
  check_worker_is_like_us(server_of(NULL));
}

TEST(directory_changed) {
  int64_t server = server_of(NULL);
  CHECK_EQ(chdir(test_tmp_path(".")), 0);
  check_worker_is_like_us(server);
  CHECK_EQ(chdir("/"), 0);
  check_worker_is_like_us(server);
}

TEST(directory_renamed) {
  int64_t server = server_of(NULL);
  const char *first = test_tmp_path("first"), *second = test_tmp_path("second");
  CHECK_EQ(mkdir(first, 0700), 0);
  CHECK_EQ(chdir(first), 0);
  CHECK_EQ(rename(first, second), 0);
  check_worker_is_like_us(server);
  CHECK_EQ(chdir("/"), 0);
  CHECK_EQ(rmdir(second), 0);
}

TEST(directory_deleted) {
  int64_t server = server_of(NULL);
  const char *folder = test_tmp_path("folder");
  CHECK_EQ(mkdir(folder, 0700), 0);
  CHECK_EQ(chdir(folder), 0);
  CHECK_EQ(rmdir(folder), 0);
  check_worker_is_like_us(server);
  CHECK_EQ(chdir("/"), 0);
}

/* Another directory of the same name: the server's own is the deleted one. */
TEST(directory_of_the_server_replaced) {
  const char *folder = test_tmp_path("folder");
  CHECK_EQ(mkdir(folder, 0700), 0);
  CHECK_EQ(chdir(folder), 0);
  int64_t server = server_of(NULL);
  CHECK_EQ(rmdir(folder), 0);
  CHECK_EQ(mkdir(folder, 0700), 0);
  CHECK_EQ(chdir(folder), 0);
  check_worker_is_like_us(server);
  CHECK_EQ(chdir("/"), 0);
  check_worker_is_like_us(server);
  CHECK_EQ(rmdir(folder), 0);
}

TEST(directory_that_nobody_may_read) {
  int64_t server = server_of(NULL);
  const char *folder = test_tmp_path("folder");
  CHECK_EQ(mkdir(folder, 0700), 0);
  CHECK_EQ(chdir(folder), 0);
  CHECK_EQ(chmod(folder, 0100), 0);
  check_worker_is_like_us(server);
  CHECK_EQ(chdir("/"), 0);
  CHECK_EQ(rmdir(folder), 0);
}

TEST(directory_by_option) {
  CHECK_EQ(chdir("/"), 0);
  (void)server_of(NULL);
  const mproc_process_options options = {.cwd = "/proc"};
  seen *worker = seen_by_worker(&options);
  CHECK_STR(worker->path, "/proc");
  CHECK_EQ(mproc_heap_free(worker), 0);
}

/* ---- mask, limits, nice, affinity, signals, group -------------------------------------------- */

TEST(umask_changed) {
  int64_t server = server_of(NULL);
  mode_t before = umask(0137);
  check_worker_is_like_us(server);
  umask(0);
  check_worker_is_like_us(server);
  umask(before);
}

/* Every limit, soft and hard; the values hinder nobody. */
TEST(limits_changed) {
  static const rlim_t soft[LIMITS] = {
      [RLIMIT_CPU] = 1000,        [RLIMIT_FSIZE] = 1 << 30, [RLIMIT_DATA] = 1L << 40,
      [RLIMIT_STACK] = 16 << 20,  [RLIMIT_CORE] = 0,        [RLIMIT_RSS] = 1L << 40,
      [RLIMIT_NPROC] = 20000,     [RLIMIT_NOFILE] = 300,    [RLIMIT_MEMLOCK] = 1 << 16,
      [RLIMIT_AS] = 1L << 60,     [RLIMIT_LOCKS] = 1000,    [RLIMIT_SIGPENDING] = 500,
      [RLIMIT_MSGQUEUE] = 500000, [RLIMIT_NICE] = 0,        [RLIMIT_RTPRIO] = 0,
      [RLIMIT_RTTIME] = 1L << 30};
  int64_t server = server_of(NULL);
  for (int i = 0; i < LIMITS; i++) {
    struct rlimit limit;
    CHECK_EQ(getrlimit((resource_number)i, &limit), 0);
    if (UNDER_SANITIZER && (i == RLIMIT_AS || i == RLIMIT_DATA))
      continue; /* its shadow is larger than any limit */
    limit.rlim_cur = soft[i] < limit.rlim_max ? soft[i] : limit.rlim_max;
    CHECK_EQ(setrlimit((resource_number)i, &limit), 0);
    check_worker_is_like_us(server);
    if (test_under_valgrind() && i == RLIMIT_NOFILE)
      continue; /* its own descriptors lie above the soft limit that it shows: the hard one stays */
    limit.rlim_max = limit.rlim_cur;
    CHECK_EQ(setrlimit((resource_number)i, &limit), 0);
  }
  check_worker_is_like_us(server);
}

/* The server makes room for itself; its workers have what their asker has. */
TEST(few_descriptors) {
  struct rlimit before, limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  limit = before;
  limit.rlim_cur = 64;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  int64_t server = server_of(NULL);
  check_worker_is_like_us(server);
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  check_worker_is_like_us(server);
}

TEST(nice_changed) {
  int64_t server = server_of(NULL);
  int before = getpriority(PRIO_PROCESS, 0);
  CHECK_EQ(setpriority(PRIO_PROCESS, 0, before < 12 ? before + 7 : 19), 0);
  check_worker_is_like_us(server);
}

TEST(nice_by_option_adds_to_the_changed_one) {
  (void)server_of(NULL);
  CHECK_EQ(setpriority(PRIO_PROCESS, 0, 15), 0);
  const mproc_process_options options = {.nice = 2};
  seen *worker = seen_by_worker(&options);
  CHECK_EQ(worker->nice, 17);
  CHECK_EQ(mproc_heap_free(worker), 0);
}

TEST(affinity_changed) {
  cpu_set_t all, one;
  int64_t server = server_of(NULL);
  CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  for (size_t cpu = 0; cpu < CPU_SETSIZE; cpu++) {
    if (!CPU_ISSET(cpu, &all))
      continue;
    CPU_ZERO(&one);
    CPU_SET(cpu, &one);
    CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    check_worker_is_like_us(server);
  }
  CHECK_EQ(sched_setaffinity(0, sizeof all, &all), 0);
  check_worker_is_like_us(server);
}

TEST(signal_mask_changed) {
  int64_t server = server_of(NULL);
  sigset_t mask;
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR1);
  sigaddset(&mask, SIGTERM);
  sigaddset(&mask, SIGRTMAX);
  CHECK_EQ(sigprocmask(SIG_BLOCK, &mask, NULL), 0);
  check_worker_is_like_us(server);
  sigfillset(&mask);
  CHECK_EQ(sigprocmask(SIG_SETMASK, &mask, NULL), 0);
  check_worker_is_like_us(server);
}

static int end_by_signals(void *arg, size_t size) {
  struct sigaction action;
  (void)arg, (void)size;
  for (int number = 1; number < SIGRTMAX; number++)
    if (number < 32 || number >= SIGRTMIN) { /* between them libc has some for itself */
      CHECK_EQ(sigaction(number, NULL, &action), 0);
      CHECK(action.sa_handler == SIG_DFL);
    }
  return 0;
}

TEST(dispositions_are_the_default) {
  CHECK(signal(SIGUSR1, SIG_IGN) != SIG_ERR);
  CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  check_exited(ask(end_by_signals, NULL, 0), 0);
}

TEST(process_group_changed) {
  int64_t server = server_of(NULL);
  CHECK_EQ(setpgid(0, getpgid(getppid())), 0);
  check_worker_is_like_us(server);
  CHECK_EQ(setpgid(0, 0), 0);
  check_worker_is_like_us(server);
}

/* The leader of the group is gone; the group is not. */
static int work_in_a_group(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  int64_t server = server_of(NULL);
  CHECK_EQ(setpgid(0, (pid_t)b->pid), 0);
  b->go = 1;
  AWAIT(is_gone(b->pid));
  check_worker_is_like_us(server);
  return 0;
}

static int lead_a_group(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(setpgid(0, 0), 0);
  b->pid = getpid();
  AWAIT(b->go);
  return 0;
}

TEST(process_group_without_its_leader) {
  board *b = new_board();
  mproc_process *leader = start_by("fork", lead_a_group, &b, sizeof b);
  AWAIT(b->pid);
  mproc_process *member = start_by("fork", work_in_a_group, &b, sizeof b);
  check_exited(leader, 0);
  check_exited(member, 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* What counts is the thread that starts. */
static void *work_in_a_thread(void *argument) {
  cpu_set_t one;
  sigset_t mask;
  CPU_ZERO(&one);
  CPU_SET((size_t)sched_getcpu(), &one);
  CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
  CHECK_EQ(setpriority(PRIO_PROCESS, 0, 18), 0);
  sigemptyset(&mask);
  sigaddset(&mask, SIGUSR2);
  CHECK_EQ(pthread_sigmask(SIG_SETMASK, &mask, NULL), 0);
  check_worker_is_like_us(*(int64_t *)argument);
  return NULL;
}

TEST(state_of_the_starting_thread) {
  pthread_t thread;
  int64_t server = server_of(NULL);
  CHECK_EQ(pthread_create(&thread, NULL, work_in_a_thread, &server), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  check_worker_is_like_us(server);
}

/* ---- environment ----------------------------------------------------------------------------- */

TEST(environment_changed) {
  int64_t server = server_of(NULL);
  CHECK_EQ(setenv("FIRST_OF_MINE", "", 1), 0);
  CHECK_EQ(setenv("SECOND_OF_MINE", "a=b\nc", 1), 0);
  CHECK_EQ(unsetenv("PATH"), 0);
  check_worker_is_like_us(server);
}

TEST(environment_changed_and_changed_back) {
  int64_t server = server_of(NULL);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(setenv("SOME_OF_MINE", i % 2 ? "b" : "a", 1), 0);
    check_worker_is_like_us(server);
    CHECK_EQ(unsetenv("SOME_OF_MINE"), 0);
    check_worker_is_like_us(server);
  }
}

TEST(environment_cleared) {
  int64_t server = server_of(NULL);
  char **kept = environ;
  char *empty[] = {NULL};
  environ = empty;
  check_worker_is_like_us(server);
  environ = NULL;
  check_worker_is_like_us(server);
  environ = kept;
}

TEST(environment_by_option) {
  static const char *const variables[] = {"ONLY=this", "AND=that", NULL};
  static const char *const none[] = {NULL};
  mproc_process_options options = {.environment = variables};
  (void)server_of(NULL);
  CHECK_EQ(setenv("SOME_OF_MINE", "a", 1), 0);
  seen *worker = seen_by_worker(&options);
  CHECK_STR(worker->environment, "ONLY=this\nAND=that\n");
  CHECK_EQ(mproc_heap_free(worker), 0);
  options.environment = none;
  worker = seen_by_worker(&options);
  CHECK_STR(worker->environment, "");
  CHECK_EQ(mproc_heap_free(worker), 0);
}

/* More than fits into a message. */
static int measure_variable(void *arg, size_t size) {
  const char *value = getenv("SOME_OF_MINE");
  (void)size;
  return value && strlen(value) == *(size_t *)arg && strspn(value, "x") == *(size_t *)arg ? 0 : 1;
}

TEST(environment_of_a_megabyte) {
  size_t size = 1 << 20;
  (void)server_of(NULL);
  char *value = malloc(size + 1);
  CHECK(value != NULL);
  memset(value, 'x', size);
  value[size] = '\0';
  CHECK_EQ(setenv("SOME_OF_MINE", value, 1), 0);
  free(value);
  check_exited(ask(measure_variable, &size, sizeof size), 0);
  CHECK_EQ(unsetenv("SOME_OF_MINE"), 0);
}

/* ---- standard streams ------------------------------------------------------------------------ */

static int write_to_streams(void *arg, size_t size) {
  (void)arg, (void)size;
  CHECK(write(STDOUT_FILENO, "out", 3) == 3);
  CHECK(write(STDERR_FILENO, "err", 3) == 3);
  puts("put"); /* buffered: to be written at the end, once */
  return 0;
}

static const char *content_of(const char *path) {
  static char text[256];
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  ssize_t size = read(fd, text, sizeof text - 1);
  close(fd);
  text[size < 0 ? 0 : size] = '\0';
  return text;
}

static int new_file(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  return fd;
}

/* The case's own output must come back for its report. */
static int saved[3];

static void save_streams(void) {
  fflush(NULL);
  for (int i = 0; i < 3; i++)
    CHECK((saved[i] = fcntl(i, F_DUPFD_CLOEXEC, 200)) >= 0);
}

static void restore_streams(void) {
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(dup2(saved[i], i), i);
    CHECK_EQ(close(saved[i]), 0);
  }
}

TEST(streams_led_elsewhere) {
  int64_t server = server_of(NULL);
  const char *path = test_tmp_path("file");
  int fd = new_file(path);
  save_streams();
  CHECK(dup2(fd, 1) == 1 && dup2(fd, 2) == 2);
  check_worker_is_like_us(server);
  mproc_process *writer = ask(write_to_streams, NULL, 0);
  restore_streams();
  check_exited(writer, 0);
  CHECK_STR(content_of(path), "outerrput\n");
  CHECK_EQ(close(fd), 0);
  CHECK_EQ(unlink(path), 0);
}

/* A number that nobody has may be the null device's: closed or that, but never another file. */
static bool is_empty(const seen *worker, int index) {
  struct stat null;
  CHECK_EQ(stat("/dev/null", &null), 0);
  return worker->stream_errno[index] == EBADF ||
         (worker->stream_errno[index] == 0 && worker->streams[index].st_rdev == null.st_rdev);
}

TEST(streams_closed) {
  int64_t server = server_of(NULL);
  for (int mask = 1; mask < 8; mask++) {
    save_streams();
    for (int i = 0; i < 3; i++)
      if (mask & 1 << i)
        close(i);
    seen *worker = seen_by_worker(NULL);
    restore_streams();
    for (int i = 0; i < 3; i++)
      CHECK(mask & 1 << i ? is_empty(worker, i) : worker->stream_errno[i] == 0);
    CHECK_EQ(worker->server, server);
    CHECK_EQ(mproc_heap_free(worker), 0);
  }
}

/* A server that was born without streams has its own descriptors elsewhere. */
TEST(server_born_without_streams) {
  save_streams();
  for (int i = 0; i < 3; i++)
    close(i);
  int64_t server = server_of(NULL);
  seen *worker = seen_by_worker(NULL);
  restore_streams();
  for (int i = 0; i < 3; i++)
    CHECK(is_empty(worker, i));
  CHECK_EQ(mproc_heap_free(worker), 0);
  check_worker_is_like_us(server);
}

TEST(streams_by_option) {
  (void)server_of(NULL);
  const char *path = test_tmp_path("file");
  int fd = new_file(path);
  struct stat file, null;
  const mproc_process_options options = {.streams = {{.kind = MPROC_STREAM_NULL},
                                                     {MPROC_STREAM_HANDLE, fd},
                                                     {.kind = MPROC_STREAM_STDOUT}}};
  CHECK(fstat(fd, &file) == 0 && stat("/dev/null", &null) == 0);
  seen *worker = seen_by_worker(&options);
  CHECK_EQ(worker->streams[0].st_rdev, null.st_rdev);
  check_same_file(&worker->streams[1], &file);
  check_same_file(&worker->streams[2], &file);
  CHECK_EQ(mproc_heap_free(worker), 0);
  mproc_process_options writing = options;
  writing.method = "forkserver";
  check_exited(start_with(&writing, write_to_streams, NULL, 0), 0);
  CHECK_STR(content_of(path), "outerrput\n");
  CHECK_EQ(close(fd), 0);
  CHECK_EQ(unlink(path), 0);
}

/* One descriptor for all three, and standard error led to a standard output that is closed. */
TEST(streams_by_option_in_odd_ways) {
  (void)server_of(NULL);
  save_streams();
  close(1);
  const mproc_process_options options = {
      .streams = {{MPROC_STREAM_HANDLE, 2}, {0}, {.kind = MPROC_STREAM_STDOUT}}};
  seen *worker = seen_by_worker(&options);
  restore_streams();
  CHECK_EQ(worker->stream_errno[0], 0);
  CHECK(is_empty(worker, 1));
  CHECK(is_empty(worker, 2));
  CHECK_EQ(mproc_heap_free(worker), 0);
}
