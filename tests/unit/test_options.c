/* What a child is given by mproc_process_options, and what start says when it cannot be had. */
#include "descriptors.h"
#include "each_method.h"
#include "in_child.h"
#include "seccomp.h"
#include "soft_limit.h"

#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* Small, so that RLIMIT_AS can leave room for it. */
const mproc_init_options *test_init_options(void) {
  static const mproc_init_options options = {.heap_size = (size_t)64 << 20};
  return &options;
}

static int run_with(const char *method, mproc_entry *entry, const void *arg, size_t size,
                    const mproc_process_options *options) {
  return code_of_child(start_child(method, entry, arg, size, options));
}

/* ---- environment and directory --------------------------------------------------------------- */

/* The argument: the expected strings, one after the other. */
static int check_environment(void *arg, size_t size) {
  const char *expected = arg, *end = expected + size;
  char **found = environ;
  for (; expected < end; expected += strlen(expected) + 1, found++) {
    CHECK(*found);
    CHECK_STR(*found, expected);
  }
  if (*found)
    CHECK_STR(*found, "(nothing more)");
  return 21;
}

EACH_METHOD(environment_given) {
  if (strcmp(method, "spawn") == 0)
    SKIP_UNDER_VALGRIND("valgrind adds variables to what it executes");
  static const char expected[] = "B=2\0A=first\0PATH=/bin";
  const char *const list[] = {"B=2", "A=first", "PATH=/bin", NULL};
  mproc_process_options options = {.environment = list};
  CHECK_EQ(run_with(method, check_environment, expected, sizeof expected, &options), 21);
}

EACH_METHOD(environment_empty) {
  if (strcmp(method, "spawn") == 0)
    SKIP_UNDER_VALGRIND("valgrind adds variables to what it executes");
  const char *const list[] = {NULL};
  mproc_process_options options = {.environment = list};
  CHECK_EQ(run_with(method, check_environment, NULL, 0, &options), 21);
}

static int check_variables(void *arg, size_t size) {
  (void)arg, (void)size;
  CHECK_STR(getenv("TEST_MARK"), "set by the parent");
  CHECK(getenv("HOME") == NULL);
  CHECK(getenv("MPROC_BOOT") == NULL);
  CHECK_EQ(setenv("TEST_MARK", "changed by the child", 1), 0);
  return 22;
}

EACH_METHOD(environment_of_the_caller) {
  CHECK_EQ(setenv("TEST_MARK", "set by the parent", 1), 0);
  CHECK_EQ(unsetenv("HOME"), 0);
  CHECK_EQ(run_child(method, check_variables, NULL, 0), 22);
  CHECK_STR(getenv("TEST_MARK"), "set by the parent");
}

static int print_directory(void *arg, size_t size) {
  char path[4096];
  CHECK(getcwd(path, sizeof path));
  CHECK_EQ(strlen(path) + 1, size);
  CHECK_STR(path, (const char *)arg);
  return 23;
}

EACH_METHOD(working_directory) {
  char path[4096];
  mproc_process_options options = {.cwd = "/proc"};
  CHECK_EQ(run_with(method, print_directory, "/proc", 6, &options), 23);
  CHECK(getcwd(path, sizeof path));
  CHECK_EQ(run_with(method, print_directory, path, strlen(path) + 1, NULL), 23);
}

/* ---- standard streams ------------------------------------------------------------------------ */

static int talk(void *arg, size_t size) {
  char line[64] = "";
  (void)arg, (void)size;
  if (fgets(line, sizeof line, stdin))
    printf("got %s", line);
  else
    printf("got nothing\n");
  fflush(stdout);
  fprintf(stderr, "an error\n");
  printf("the end\n"); /* flushed at the child's end */
  return 0;
}

EACH_METHOD(streams_to_pipes) {
  int in[2], out[2], error[2];
  char text[256];
  make_pipe(in);
  make_pipe(out);
  make_pipe(error);
  mproc_process_options options = {.streams = {{MPROC_STREAM_HANDLE, in[0]},
                                               {MPROC_STREAM_HANDLE, out[1]},
                                               {MPROC_STREAM_HANDLE, error[1]}}};
  mproc_process *process = start_child(method, talk, NULL, 0, &options);
  CHECK_EQ(close(in[0]), 0);
  CHECK_EQ(close(out[1]), 0);
  CHECK_EQ(close(error[1]), 0);
  CHECK_EQ(write(in[1], "apples\n", 7), 7);
  CHECK_EQ(close(in[1]), 0);
  CHECK_STR(read_all(out[0], text, sizeof text), "got apples\nthe end\n");
  CHECK_STR(read_all(error[0], text, sizeof text), "an error\n");
  CHECK_EQ(code_of_child(process), 0);
}

EACH_METHOD(error_stream_merged_into_output) {
  int out[2];
  char text[256];
  make_pipe(out);
  mproc_process_options options = {.streams = {{.kind = MPROC_STREAM_NULL},
                                               {MPROC_STREAM_HANDLE, out[1]},
                                               {.kind = MPROC_STREAM_STDOUT}}};
  mproc_process *process = start_child(method, talk, NULL, 0, &options);
  CHECK_EQ(close(out[1]), 0);
  CHECK_STR(read_all(out[0], text, sizeof text), "got nothing\nan error\nthe end\n");
  CHECK_EQ(code_of_child(process), 0);
}

static int check_null_streams(void *arg, size_t size) {
  struct stat null, st;
  (void)arg, (void)size;
  CHECK_EQ(stat("/dev/null", &null), 0);
  for (int fd = 0; fd < 3; fd++) {
    if (fstat(fd, &st) < 0 || st.st_rdev != null.st_rdev)
      return fd + 1;
    int mode = fcntl(fd, F_GETFL) & O_ACCMODE;
    if (fd == 0 ? mode == O_WRONLY : mode == O_RDONLY)
      return fd + 11;
  }
  return 24;
}

EACH_METHOD(streams_to_the_null_device) {
  mproc_process_options options = {.streams = {{.kind = MPROC_STREAM_NULL},
                                               {.kind = MPROC_STREAM_NULL},
                                               {.kind = MPROC_STREAM_NULL}}};
  CHECK_EQ(run_with(method, check_null_streams, NULL, 0, &options), 24);
}

/* Which file of 0, 1, 2 in the parent must be behind 0, 1, 2 in the child. */
typedef struct crossing {
  uint64_t inodes[3];
} crossing;

static int check_crossing(void *arg, size_t size) {
  const crossing *expected = arg;
  struct stat st;
  CHECK_EQ(size, sizeof *expected);
  for (int fd = 0; fd < 3; fd++) {
    CHECK_EQ(fstat(fd, &st), 0);
    if (st.st_ino != expected->inodes[fd])
      return fd + 1;
  }
  return 25;
}

static const char *method_in_child;

static void cross_streams(void) {
  static const int orders[][3] = {{0, 1, 2}, {1, 0, 2}, {2, 1, 0}, {1, 2, 0},
                                  {2, 0, 1}, {0, 0, 0}, {2, 2, 1}};
  static const char *const names[] = {"zero", "one", "two"};
  uint64_t inodes[3];
  struct stat st;
  for (int fd = 0; fd < 3; fd++) {
    int file = open(test_tmp_path(names[fd]), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    CHECK(file >= 0);
    CHECK_EQ(unlink(test_tmp_path(names[fd])), 0);
    CHECK_EQ(fstat(file, &st), 0);
    CHECK_EQ(dup2(file, fd), fd);
    inodes[fd] = st.st_ino;
  }
  for (size_t i = 0; i < sizeof orders / sizeof orders[0]; i++) {
    crossing expected;
    mproc_process_options options = {0};
    for (int fd = 0; fd < 3; fd++) {
      options.streams[fd] = (mproc_stream){MPROC_STREAM_HANDLE, orders[i][fd]};
      expected.inodes[fd] = inodes[orders[i][fd]];
    }
    int code = run_with(method_in_child, check_crossing, &expected, sizeof expected, &options);
    if (code != 25)
      _exit(100 + (int)i);
  }
}

EACH_METHOD(streams_that_cross) {
  method_in_child = method;
  CHECK_EQ(status_of_child(cross_streams), 0);
}

static int check_standard_descriptors(void *arg, size_t size) {
  int expected = *(int *)arg;
  struct stat st;
  CHECK_EQ(size, sizeof expected);
  for (int fd = 0; fd < 3; fd++)
    if (fstat(fd, &st) == 0 && !S_ISCHR(st.st_mode))
      return fd + 1; /* something of mproc's own */
  return expected;
}

static void start_without_streams(void) {
  int number = 26;
  for (int fd = 0; fd < 3; fd++)
    CHECK_EQ(close(fd), 0);
  mproc_process *process;
  mproc_process_options options = {.method = method_in_child};
  int r =
      mproc_process_create(&process, check_standard_descriptors, &number, sizeof number, &options);
  if (r == 0)
    r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  mproc_status status = {0};
  if (r == 0)
    r = mproc_process_status(process, &status);
  if (r < 0)
    _exit(101);
  _exit(status.state == MPROC_STATE_EXITED ? status.code : 102);
}

EACH_METHOD(start_with_standard_streams_closed) {
  method_in_child = method;
  int status = status_of_child(start_without_streams);
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 26);
}

/* ---- limits, CPUs, nice, cgroup -------------------------------------------------------------- */

/* A program with ThreadSanitizer starts only where it can make a file for its own use. */
enum { LEAST_FILE = TEST_HAS_TSAN ? 1 << 20 : 0 };

typedef struct limit_case {
  mproc_limit limit;
  int resource;
  int under_sanitizer; /* they reserve much memory, and set a core limit of their own */
} limit_case;

static int check_limit(void *arg, size_t size) {
  const limit_case *expected = arg;
  struct rlimit limit;
  CHECK_EQ(size, sizeof *expected);
  CHECK_EQ(getrlimit((limit_name)expected->resource, &limit), 0);
  CHECK_EQ(limit.rlim_cur, expected->limit.soft);
  CHECK_EQ(limit.rlim_max, expected->limit.hard);
  return 27;
}

/* Valgrind keeps limits of memory and descriptors to itself, and writes files when it starts. */
static bool can_limit(const limit_case *limit) {
  bool valgrind_does = limit->resource == RLIMIT_CPU || limit->resource == RLIMIT_CORE;
  return (!UNDER_SANITIZER || limit->under_sanitizer) && (!test_under_valgrind() || valgrind_does);
}

EACH_METHOD(limits_of_every_resource) {
  enum { GIB = 1 << 30 };
  static const limit_case cases[] = {
      /* static: written as a whole, what is between fields too */
      {{MPROC_RESOURCE_CORE, 4096, 8192}, RLIMIT_CORE, 0},
      {{MPROC_RESOURCE_CPU, 100, 200}, RLIMIT_CPU, 1},
      {{MPROC_RESOURCE_DATA, GIB, (uint64_t)2 * GIB}, RLIMIT_DATA, 0},
      {{MPROC_RESOURCE_FSIZE, LEAST_FILE, LEAST_FILE + 65536}, RLIMIT_FSIZE, 1},
      {{MPROC_RESOURCE_NOFILE, 40, 50}, RLIMIT_NOFILE, 1},
      {{MPROC_RESOURCE_STACK, 4 << 20, 6 << 20}, RLIMIT_STACK, 1},
      {{MPROC_RESOURCE_AS, (uint64_t)2 * GIB, (uint64_t)3 * GIB}, RLIMIT_AS, 0},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    mproc_process_options options = {.limits = &cases[i].limit, .limit_count = 1};
    if (can_limit(&cases[i]))
      CHECK_EQ(run_with(method, check_limit, &cases[i], sizeof cases[i], &options), 27);
  }
}

EACH_METHOD(several_limits_and_unlimited) {
  SKIP_UNDER_VALGRIND("valgrind lets nobody change the hard limit of descriptors");
  const mproc_limit limits[] = {{MPROC_RESOURCE_CPU, 300, MPROC_UNLIMITED},
                                {MPROC_RESOURCE_NOFILE, 30, 40}};
  struct rlimit cpu;
  CHECK_EQ(getrlimit(RLIMIT_CPU, &cpu), 0);
  if (cpu.rlim_max != RLIM_INFINITY)
    SKIP("this environment limits the CPU time");
  limit_case expected = {.limit = {.soft = 300, .hard = RLIM_INFINITY}, .resource = RLIMIT_CPU};
  mproc_process_options options = {.limits = limits, .limit_count = 2};
  CHECK_EQ(run_with(method, check_limit, &expected, sizeof expected, &options), 27);
  expected = (limit_case){.limit = {.soft = 30, .hard = 40}, .resource = RLIMIT_NOFILE};
  CHECK_EQ(run_with(method, check_limit, &expected, sizeof expected, &options), 27);
}

static int check_cpu(void *arg, size_t size) {
  cpu_set_t set;
  CHECK_EQ(size, sizeof(int));
  CHECK_EQ(sched_getaffinity(0, sizeof set, &set), 0);
  CHECK_EQ(CPU_COUNT(&set), 1);
  CHECK(CPU_ISSET((size_t) * (int *)arg, &set));
  return mproc_cpu_count() == 1 ? 28 : 1;
}

EACH_METHOD(cpus) {
  cpu_set_t all;
  CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  for (int cpu = 0, tried = 0; cpu < CPU_SETSIZE && tried < 2; cpu++) {
    if (!CPU_ISSET((size_t)cpu, &all))
      continue;
    mproc_process_options options = {.cpus = &cpu, .cpu_count = 1};
    CHECK_EQ(run_with(method, check_cpu, &cpu, sizeof cpu, &options), 28);
    tried++;
  }
}

static int check_nice(void *arg, size_t size) {
  CHECK_EQ(size, sizeof(int));
  return getpriority(PRIO_PROCESS, 0) == *(int *)arg ? 29 : 1;
}

EACH_METHOD(nice_value_is_added) {
  int expected = getpriority(PRIO_PROCESS, 0) + 3;
  if (expected > 19)
    SKIP("no room above the nice value of this process");
  mproc_process_options options = {.nice = 3};
  CHECK_EQ(run_with(method, check_nice, &expected, sizeof expected, &options), 29);
  CHECK_EQ(getpriority(PRIO_PROCESS, 0), expected - 3);
}

static int check_cgroup(void *arg, size_t size) {
  char text[4096];
  (void)size;
  int fd = open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_CONTAINS(read_all(fd, text, sizeof text), (const char *)arg);
  return 30;
}

/* The first place where a cgroup can be made and entered; NULL when there is none. */
static const char *make_cgroup(char *path, size_t size, char *name, size_t name_size) {
  static const char *const roots[] = {"/sys/fs/cgroup/pids", "/sys/fs/cgroup/cpu",
                                      "/sys/fs/cgroup/unified", "/sys/fs/cgroup"};
  snprintf(name, name_size, "/mproc-test-%d", (int)getpid());
  for (size_t i = 0; i < sizeof roots / sizeof roots[0]; i++) {
    char file[300];
    snprintf(path, size, "%s%s", roots[i], name);
    snprintf(file, sizeof file, "%s/cgroup.procs", path);
    if (mkdir(path, 0755) < 0)
      continue;
    if (access(file, W_OK) == 0)
      return path;
    (void)rmdir(path);
  }
  return NULL;
}

EACH_METHOD(cgroup) {
  char path[200], name[64];
  mproc_process_options options = {.cgroup = make_cgroup(path, sizeof path, name, sizeof name)};
  if (!options.cgroup)
    SKIP("no cgroup hierarchy is writable here");
  int code = run_with(method, check_cgroup, name, strlen(name) + 1, &options);
  AWAIT(rmdir(path) == 0);
  CHECK_EQ(code, 30);
}

/* ---- handles --------------------------------------------------------------------------------- */

static int echo_upper(void *arg, size_t size) {
  mproc_handle from, to, again, other = -7;
  char byte;
  (void)arg, (void)size;
  CHECK_OK(mproc_inherited("from", &from));
  CHECK_OK(mproc_inherited("to", &to));
  CHECK_OK(mproc_inherited("to", &again));
  CHECK_EQ(again, to);
  CHECK_EQ(mproc_inherited("other", &other), -ENOENT);
  CHECK_CONTAINS(mproc_error_detail(), "'other'");
  CHECK_CONTAINS(mproc_error_detail(), "'from', 'to'");
  CHECK_EQ(mproc_inherited(NULL, &other), -ENOENT);
  CHECK_EQ(other, -7);
  while (read((int)from, &byte, 1) == 1) {
    byte = (char)(byte - 'a' + 'A');
    CHECK_EQ(write((int)to, &byte, 1), 1);
  }
  CHECK_EQ(close((int)from), 0);
  CHECK_EQ(close((int)to), 0);
  return 31;
}

EACH_METHOD(handles_reach_the_child_by_name) {
  int to_child[2], from_child[2];
  char text[32];
  make_pipe(to_child);
  make_pipe(from_child);
  const mproc_inherit inherit[] = {{to_child[0], "from"}, {from_child[1], "to"}};
  mproc_process_options options = {.inherit = inherit, .inherit_count = 2};
  CHECK_EQ(write(to_child[1], "abc", 3), 3);
  mproc_process *process = create_child(method, echo_upper, NULL, 0, &options);
  /* A forked child has a copy of this end, and would wait for its own end of file. */
  CHECK_EQ(close(to_child[1]), 0);
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(close(to_child[0]), 0);
  CHECK_EQ(close(from_child[1]), 0);
  CHECK_STR(read_all(from_child[0], text, sizeof text), "ABC");
  CHECK_EQ(code_of_child(process), 31);
}

TEST(no_handle_was_passed_to_the_main_process) {
  mproc_handle handle = -7;
  CHECK_EQ(mproc_inherited("x", &handle), -ENOENT);
  CHECK_CONTAINS(mproc_error_detail(), "none");
  CHECK_EQ(handle, -7);
}

static int send_descriptors(void *arg, size_t size) {
  descriptor_list *list = *(descriptor_list **)arg;
  CHECK_EQ(size, sizeof list);
  list_descriptors(list);
  return 32;
}

TEST(spawned_child_has_exactly_what_it_was_given) {
  int given[2], other[2], own_extra = !has_pidfds(); /* the other end of its sentinel */
  make_pipe(given);
  CHECK_EQ(pipe(other), 0); /* not even close-on-exec */
  mproc_process *sibling = start_child("spawn", sleep_for_ever, NULL, 0, NULL);
  descriptor_list *list = mproc_heap_calloc(1, sizeof *list);
  mproc_inherit inherit = {given[1], "given"};
  mproc_process_options options = {.inherit = &inherit, .inherit_count = 1};
  CHECK_EQ(run_with("spawn", send_descriptors, &list, sizeof list, &options), 32);
  int heaps = 0;
  check_descriptor_count(list, 3 + 1 + 1 + own_extra);
  for (int i = 0; i < list->count; i++) {
    heaps += list->items[i].is_heap;
    CHECK_EQ(list->items[i].passes_on, list->items[i].number < 3);
  }
  CHECK_EQ(heaps, 1);
  CHECK_OK(mproc_heap_free(list));
  kill_child(sibling);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(close(given[i]), 0);
    CHECK_EQ(close(other[i]), 0);
  }
}

TEST(forked_child_has_nothing_of_its_siblings) {
  int own_extra = !has_pidfds(); /* the other end of its sentinel */
  descriptor_list before;
  descriptor_list *list = mproc_heap_calloc(1, sizeof *list); /* and the heap */
  list_descriptors(&before);
  mproc_process *first = start_child("fork", sleep_for_ever, NULL, 0, NULL);
  mproc_process *second = start_child("spawn", sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(run_child("fork", send_descriptors, &list, sizeof list), 32);
  check_descriptor_count(list, before.count + own_extra);
  for (int i = 0; i < before.count; i++)
    CHECK_STR(list->items[i].target, before.items[i].target);
  CHECK_OK(mproc_heap_free(list));
  kill_child(first);
  kill_child(second);
}

/* ---- signals --------------------------------------------------------------------------------- */

static int tell_signals(void *arg, size_t size) {
  sigset_t mask;
  struct sigaction action;
  (void)arg, (void)size;
  CHECK_EQ(sigprocmask(SIG_SETMASK, NULL, &mask), 0);
  int blocked = sigismember(&mask, SIGUSR1);
  CHECK_EQ(sigaction(SIGPIPE, NULL, &action), 0);
  return blocked + 2 * (action.sa_handler == SIG_IGN);
}

EACH_METHOD(signal_mask_and_dispositions) {
  sigset_t set;
  CHECK_EQ(sigemptyset(&set), 0);
  CHECK_EQ(sigaddset(&set, SIGUSR1), 0);
  CHECK_EQ(sigprocmask(SIG_BLOCK, &set, NULL), 0);
  CHECK(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
  /* bit 0: the mask, bit 1: what is ignored */
  CHECK_EQ(run_child(method, tell_signals, NULL, 0), strcmp(method, "fork") == 0         ? 3
                                                     : strcmp(method, "forkserver") == 0 ? 1
                                                                                         : 0);
  sigset_t now;
  CHECK_EQ(sigprocmask(SIG_SETMASK, NULL, &now), 0);
  CHECK_EQ(sigismember(&now, SIGUSR1), 1);
  CHECK_EQ(sigismember(&now, SIGUSR2), 0);
}

/* ---- refused by create ----------------------------------------------------------------------- */

static void check_refused(const mproc_process_options *options, int code, const char *field) {
  mproc_process *process = NULL;
  const char *const argv[] = {"true", NULL};
  CHECK_EQ(mproc_process_create(&process, return_zero, NULL, 0, options), code);
  CHECK_CONTAINS(mproc_error_detail(), field);
  CHECK_EQ(mproc_process_create_command(&process, argv, options), code);
  CHECK_CONTAINS(mproc_error_detail(), field);
  CHECK(process == NULL);
}

TEST(bad_options_are_named) {
  int cpu = 0, bad_cpu = -1;
  const mproc_limit limit = {MPROC_RESOURCE_CPU, 1, 1}, crossed = {MPROC_RESOURCE_CPU, 2, 1};
  const mproc_limit unknown = {(mproc_resource)99, 1, 1}, none = {(mproc_resource)0, 1, 1};
  const mproc_inherit good = {1, "x"}, nameless = {1, NULL}, empty = {1, ""}, closed = {987, "x"};
  const mproc_inherit long_name = {1, "a name of thirty-two characters."};
  const mproc_inherit twice[] = {{1, "x"}, {2, "x"}};
  const struct {
    mproc_process_options options;
    const char *field;
  } cases[] = {
      {{.name = "a name of thirty-two characters."}, "name"},
      {{.start_timeout_ms = -1}, "start_timeout_ms"},
      {{.inherit = &good}, "inherit"},
      {{.inherit_count = 1}, "inherit"},
      {{.inherit = &nameless, .inherit_count = 1}, "inherit[0].name"},
      {{.inherit = &empty, .inherit_count = 1}, "inherit[0].name"},
      {{.inherit = &long_name, .inherit_count = 1}, "inherit[0].name"},
      {{.inherit = &closed, .inherit_count = 1}, "inherit[0]: handle 987"},
      {{.inherit = twice, .inherit_count = 2}, "inherit[1]: the name 'x'"},
      {{.limits = &limit}, "limits"},
      {{.limit_count = 1}, "limits"},
      {{.limits = &crossed, .limit_count = 1}, "limits[0]"},
      {{.limits = &unknown, .limit_count = 1}, "limits[0].resource"},
      {{.limits = &none, .limit_count = 1}, "limits[0].resource"},
      {{.cpus = &cpu}, "cpus"},
      {{.cpu_count = 1}, "cpus"},
      {{.cpus = &bad_cpu, .cpu_count = 1}, "cpus[0] is -1"},
      {{.streams = {{.kind = MPROC_STREAM_STDOUT}}}, "streams[0]"},
      {{.streams = {[1] = {.kind = MPROC_STREAM_STDOUT}}}, "streams[1]"},
      {{.streams = {[1] = {.kind = (mproc_stream_kind)9}}}, "streams[1]"},
      {{.streams = {[2] = {.kind = (mproc_stream_kind)-1}}}, "streams[2]"},
      {{.streams = {[1] = {MPROC_STREAM_HANDLE, 987}}}, "streams[1]"},
      {{.streams = {[0] = {MPROC_STREAM_HANDLE, -1}}}, "streams[0]"},
      {{.reserved = {1}}, "reserved[0]"},
      {{.reserved = {[7] = 1}}, "reserved[7]"},
  };
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    check_refused(&cases[i].options, -EINVAL, cases[i].field);
}

TEST(bad_method_is_named) {
  mproc_process *process = NULL;
  CHECK_EQ(mproc_process_create(&process, return_zero, NULL, 0,
                                &(mproc_process_options){.method = "threads"}),
           MPROC_EMETHOD);
  CHECK_CONTAINS(mproc_error_detail(), "'threads'");
  CHECK_CONTAINS(mproc_error_detail(), "fork, spawn, forkserver");
  CHECK_OK(seccomp_deny(&(const seccomp_rule){.call = SYS_socketpair}, 1,
                        EPERM)); /* a system that cannot pass descriptors */
  CHECK_EQ(mproc_process_create(&process, return_zero, NULL, 0,
                                &(mproc_process_options){.method = "forkserver"}),
           -ENOSYS);
  CHECK(process == NULL);
}

TEST(name_of_31_characters_is_allowed) {
  mproc_process_options options = {.name = "a name of thirty-one characters"};
  CHECK_EQ(run_with("fork", return_zero, NULL, 0, &options), 0);
}

/* ---- failed by start ------------------------------------------------------------------------- */

static void check_fails(const char *method, const mproc_process_options *options, int code,
                        const char *stage) {
  descriptor_list before, after;
  CHECK_EQ(run_child(method, return_zero, NULL, 0), 0); /* the heap exists */
  mproc_process *process = create_child(method, return_zero, NULL, 0, options);
  list_descriptors(&before);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(mproc_process_start(process), code);
    CHECK_CONTAINS(mproc_error_detail(), stage);
    CHECK_CONTAINS(mproc_error_detail(), mproc_process_name(process));
    CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1); /* not even a zombie */
  }
  list_descriptors(&after);
  check_descriptor_count(&after, before.count);
  CHECK_OK(mproc_process_close(process));
}

EACH_METHOD(missing_directory) {
  check_fails(method, &(mproc_process_options){.cwd = "/no/such/folder"}, -ENOENT,
              "changing the working directory '/no/such/folder' failed: No such file");
}

EACH_METHOD(missing_cgroup) {
  check_fails(method, &(mproc_process_options){.cgroup = "/sys/fs/cgroup/no/such"}, -ENOENT,
              "entering the cgroup '/sys/fs/cgroup/no/such' failed: No such file");
}

EACH_METHOD(missing_cpu) {
  int two[] = {4000, 4001};
  check_fails(method, &(mproc_process_options){.cpus = two, .cpu_count = 2}, -EINVAL,
              "setting the CPU affinity to 4000,4001 failed");
  int cpu = 1 << 30;
  check_fails(method, &(mproc_process_options){.cpus = &cpu, .cpu_count = 1}, -EINVAL,
              "setting the CPU affinity to 1073741824 failed");
}

/* Everything is allowed to root. */
static void become_nobody(void) {
  if (geteuid() != 0)
    return;
  CHECK_EQ(setgid(65534), 0);
  CHECK_EQ(setuid(65534), 0);
  CHECK_EQ(prctl(PR_SET_DUMPABLE, 1), 0);
}

static void raise_a_limit(void) {
  const mproc_limit limit = {MPROC_RESOURCE_CPU, 300, 600};
  mproc_process_options options = {.limits = &limit, .limit_count = 1};
  CHECK_EQ(setrlimit(RLIMIT_CPU, &(struct rlimit){300, 300}), 0);
  become_nobody();
  check_fails(method_in_child, &options, -EPERM, "setting the resource limits");
}

EACH_METHOD(limit_above_the_hard_one) {
  method_in_child = method;
  CHECK_EQ(status_of_child(raise_a_limit), 0);
}

static void lower_the_nice_value(void) {
  mproc_process_options options = {.nice = -5};
  CHECK_EQ(setrlimit(RLIMIT_NICE, &(struct rlimit){0, 0}), 0);
  become_nobody();
  check_fails(method_in_child, &options, -EPERM, "changing the nice value");
}

EACH_METHOD(nice_value_below_what_is_allowed) {
  method_in_child = method;
  CHECK_EQ(status_of_child(lower_the_nice_value), 0);
}
