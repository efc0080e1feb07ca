/* The forkserver and its workers from birth to end, as the host, the asker and the workers see
 * it. */
#include "forkserver.h"
#include "harness.h"
#include "in_child.h"
#include "taker.h"

#include "../children/entry_library.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/resource.h>

/* ---- who is whose child ---------------------------------------------------------------------- */

static _Atomic int sigchld_count;

static void count_sigchld(int number) {
  (void)number;
  sigchld_count++;
}

static int become_true(void *arg, size_t size) {
  (void)arg, (void)size;
  execl("/bin/true", "true", (char *)NULL);
  return 1;
}

static int kill_self(void *arg, size_t size) {
  (void)size;
  raise(*(int *)arg);
  return 1;
}

/* Not the server in the making, and no worker, however it ends. */
TEST(host_sees_no_child) {
  const int code = 3, number = SIGKILL;
  static taker watcher;
  CHECK(signal(SIGCHLD, count_sigchld) != SIG_ERR);
  start_taker(&watcher, 0);
  for (int round = 0; round < 5; round++) {
    check_exited(ask(return_code, &code, sizeof code), code);
    check_exited(ask(become_true, NULL, 0), 0);
    check_killed(ask(kill_self, &number, sizeof number), SIGKILL);
    mproc_context_stop(NULL);
  }
  stop_taker(&watcher);
  CHECK_EQ(watcher.taken, 0);
  CHECK_EQ(sigchld_count, 0);
  CHECK_EQ(waitpid(-1, NULL, WNOHANG | __WALL), -1);
  CHECK_EQ(errno, ECHILD);
}

static int say_parents(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_process_info info;
  (void)size;
  b->server = getppid();
  CHECK_EQ(mproc_parent_process(&info), 0);
  b->asker = info.pid;
  CHECK_EQ(mproc_parent_is_alive(), 1);
  CHECK_EQ(mproc_current_process(&info), 0);
  CHECK_EQ(info.pid, getpid());
  CHECK_STR(info.method, "forkserver");
  CHECK_STR(info.name, "worker's name");
  return 0;
}

TEST(parents) {
  board *b = new_board();
  int64_t server = server_of(NULL);
  const mproc_process_options options = {.method = "forkserver", .name = "worker's name"};
  check_exited(start_with(&options, say_parents, &b, sizeof b), 0);
  CHECK_EQ(b->server, server);
  CHECK_EQ(b->asker, getpid());
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- the server's end ------------------------------------------------------------------------ */

static int use_a_server(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->server = server_of(NULL);
  if (b->code) { /* a stranger keeps copies of all descriptors */
    pid_t stranger = fork();
    if (stranger == 0)
      for (;;)
        pause();
    b->pid = stranger;
  }
  AWAIT(b->go);
  return 0;
}

static void server_ends(bool by_kill, bool stranger) {
  board *b = new_board();
  b->code = stranger;
  mproc_process *client = start_by("fork", use_a_server, &b, sizeof b);
  AWAIT(b->server && (!stranger || b->pid));
  int64_t server = b->server, other = b->pid;
  sleep_ms(150);
  CHECK(!is_gone(server));
  if (by_kill)
    CHECK_EQ(mproc_process_kill(client), 0);
  b->go = 1;
  CHECK_EQ(mproc_process_join(client, JOIN_MS), 0);
  CHECK(gone_within(server, GONE_MS));
  if (stranger) {
    CHECK(!is_gone(other));
    kill_process(other);
  }
  CHECK_EQ(mproc_process_close(client), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST(server_ends_with_its_last_client) {
  server_ends(false, false);
}

TEST(server_ends_with_its_killed_client) {
  server_ends(true, false);
}

TEST(server_ends_although_a_stranger_has_its_door) {
  server_ends(true, true);
  server_ends(false, true);
}

/* Several askers: it ends with the last of them, and with its last worker. */
static int ask_for_a_long_worker(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  mproc_process *worker = ask(sleep_for_long, NULL, 0);
  b->pids[b->count++] = mproc_process_pid(worker);
  AWAIT(b->go);
  _exit(0);
}

TEST(server_ends_after_the_worker_that_outlives_its_asker) {
  board *b = new_board();
  int64_t server = server_of(NULL);
  mproc_process *client = start_by("fork", ask_for_a_long_worker, &b, sizeof b);
  AWAIT(b->count == 1);
  CHECK_EQ(parent_of(b->pids[0]), server);
  mproc_context_stop(NULL);
  b->go = 1;
  check_exited(client, 0);
  sleep_ms(250);
  CHECK(!is_gone(server) && !is_gone(b->pids[0]));
  kill_process(b->pids[0]);
  CHECK(gone_within(server, GONE_MS));
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- a stranger's fork ----------------------------------------------------------------------- */

TEST(foreign_fork_of_the_host) {
  const int code = 4;
  int64_t server = server_of(NULL);
  mproc_process *process = create_with(&(mproc_process_options){.method = "forkserver"},
                                       return_code, &code, sizeof code);
  mproc_process *worker = ask(sleep_for_long, NULL, 0);
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    mproc_process *own;
    int r = mproc_process_start(process);
    int made = mproc_process_create(&own, return_code, &code, sizeof code,
                                    &(mproc_process_options){.method = "forkserver"});
    int second = made == 0 ? mproc_process_start(own) : made;
    int joined = mproc_process_join(worker, 100);
    exit(r == MPROC_ENOTCREATOR && second == MPROC_EFOREIGN && joined == MPROC_ENOTCREATOR ? 0 : 1);
  }
  CHECK_EQ(status_of(pid), 0);
  CHECK_EQ(server_of(NULL), server);
  CHECK_EQ(mproc_process_is_alive(worker), 1);
  CHECK_EQ(mproc_process_start(process), 0);
  check_exited(process, code);
  kill_child(worker);
}

/* ---- depth ----------------------------------------------------------------------------------- */

typedef struct nest {
  board *b;
  int depth;
} nest;

static int nest_deeper(void *arg, size_t size) {
  nest n = *(nest *)arg;
  n.b->pids[n.depth] = getppid();
  if (n.depth-- == 0)
    return 9;
  mproc_process *child = ask(nest_deeper, &n, size);
  mproc_status status = end_of(child);
  return status.state == MPROC_STATE_EXITED ? status.code : 1;
}

TEST(four_deep_by_one_server) {
  nest n; /* it is sent with its padding, which valgrind wants to be something */
  memset(&n, 0, sizeof n);
  n.b = new_board();
  n.depth = 4;
  int64_t server = server_of(NULL);
  check_exited(ask(nest_deeper, &n, sizeof n), 9);
  for (int i = 0; i <= 4; i++)
    CHECK_EQ(n.b->pids[i], server);
  CHECK_EQ(mproc_heap_free(n.b), 0);
}

static int say_own_server(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->server = server_of(NULL);
  return 0;
}

TEST(forked_child_uses_its_parents_server) {
  board *b = new_board();
  int64_t server = server_of(NULL);
  check_exited(start_by("fork", say_own_server, &b, sizeof b), 0);
  CHECK_EQ(b->server, server);
  check_exited(start_by("spawn", say_own_server, &b, sizeof b), 0);
  CHECK(b->server != server);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* A worker that asks for one: its daemon dies with it, the other goes on. */
static int keep_workers(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (int daemon = 0; daemon < 2; daemon++) {
    const mproc_process_options options = {.method = "forkserver", .daemon = daemon};
    b->pids[daemon] = mproc_process_pid(start_with(&options, sleep_for_long, NULL, 0));
  }
  b->count = 2;
  AWAIT(b->go);
  return 0;
}

TEST(daemon_of_a_killed_worker_dies) {
  board *b = new_board();
  mproc_process *keeper = ask(keep_workers, &b, sizeof b);
  AWAIT(b->count == 2);
  kill_child(keeper);
  CHECK(gone_within(b->pids[1], GONE_MS));
  CHECK(!is_gone(b->pids[0]));
  kill_process(b->pids[0]);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int leave_a_grandchild(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    AWAIT(b->go);
    b->code = 77;
    _exit(0);
  }
  b->pid = pid;
  return 5;
}

TEST(grandchild_outlives_the_worker) {
  board *b = new_board();
  check_exited(ask(leave_a_grandchild, &b, sizeof b), 5);
  CHECK(!is_gone(b->pid));
  int64_t server = server_of(NULL);
  CHECK(server > 1);
  b->go = 1;
  CHECK(gone_within(b->pid, JOIN_MS));
  CHECK_EQ(b->code, 77);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- ends ------------------------------------------------------------------------------------ */

static int crash(void *arg, size_t size) {
  (void)arg, (void)size;
  signal(SIGSEGV, SIG_DFL);
  raise(SIGSEGV);
  return 0;
}

TEST(entry_that_crashes_at_once) {
  for (int i = 0; i < 20; i++)
    check_killed(ask(crash, NULL, 0), SIGSEGV);
}

static int dump_core(void *arg, size_t size) {
  struct rlimit limit;
  (void)arg, (void)size;
  CHECK_EQ(getrlimit(RLIMIT_CORE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_CORE, &limit);
  CHECK_EQ(chdir(getenv("TMPDIR")), 0);
  signal(SIGABRT, SIG_DFL);
  abort();
}

/* As a forked child's: the flag is the kernel's. */
TEST(core_flag) {
  mproc_status forked = end_of(start_by("fork", dump_core, NULL, 0));
  mproc_status worker = end_of(ask(dump_core, NULL, 0));
  CHECK_EQ(worker.state, MPROC_STATE_SIGNALED);
  CHECK_EQ(worker.signal, SIGABRT);
  CHECK_EQ(worker.core_dumped, forked.core_dumped);
  DIR *folder = opendir(test_tmp_path("."));
  CHECK(folder != NULL);
  for (struct dirent *entry; (entry = readdir(folder));)
    if (entry->d_name[0] != '.')
      (void)unlink(test_tmp_path(entry->d_name));
  closedir(folder);
}

static int use_resources(void *arg, size_t size) {
  (void)arg, (void)size;
  size_t bytes = (size_t)100 << 20;
  char *memory = malloc(bytes);
  CHECK(memory != NULL);
  memset(memory, 1, bytes);
  struct timespec used;
  do
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
  while (used.tv_sec == 0 && used.tv_nsec < 150000000);
  int code = 0;
  for (size_t at = 0; at < bytes; at += 4096)
    code |= ((volatile char *)memory)[at] != 1;
  free(memory);
  return code;
}

static int say_nothing(void *arg, size_t size) {
  (void)arg, (void)size;
  return 0;
}

TEST(resources_used) {
  mproc_process *worker = ask(say_nothing, NULL, 0);
  mproc_rusage idle, busy;
  CHECK_EQ(mproc_process_join(worker, JOIN_MS), 0);
  CHECK_EQ(mproc_process_rusage(worker, &idle), 0);
  CHECK_EQ(mproc_process_close(worker), 0);
  worker = ask(use_resources, NULL, 0);
  CHECK_EQ(mproc_process_join(worker, JOIN_MS), 0);
  CHECK_EQ(mproc_process_rusage(worker, &busy), 0);
  CHECK_EQ(mproc_process_close(worker), 0);
  CHECK(busy.user_time_ns + busy.system_time_ns >= 140000000);
  CHECK(idle.user_time_ns + idle.system_time_ns < 140000000);
  CHECK(busy.max_rss_bytes >= 100L << 20);
  CHECK(UNDER_SANITIZER || idle.max_rss_bytes < 100L << 20);
}

/* ---- what goes along ------------------------------------------------------------------------- */

static int check_pattern(void *arg, size_t size) {
  const unsigned char *bytes = arg;
  CHECK_EQ((uintptr_t)arg % 64, 0);
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != (unsigned char)(i * 31 + i / 4096))
      return 1;
  memset(arg, 0, size); /* its own copy */
  return 0;
}

/* Around the size of a message, and far above it. */
TEST_LIMIT(arguments_of_any_size, 60) {
  static const size_t sizes[] = {1,     63,    64,    60000, 63000, 64000, 64511,
                                 64512, 64513, 65000, 65535, 65536, 65537, (size_t)64 << 20};
  unsigned char *bytes = malloc((size_t)64 << 20);
  CHECK(bytes != NULL);
  for (size_t i = 0; i < (size_t)64 << 20; i++)
    bytes[i] = (unsigned char)(i * 31 + i / 4096);
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    check_exited(ask(check_pattern, bytes, sizes[i]), 0);
  for (size_t size = 62000; size < 65600; size += 61)
    check_exited(ask(check_pattern, bytes, size), 0);
  free(bytes);
}

static int check_inherited(void *arg, size_t size) {
  int count = *(int *)arg;
  (void)size;
  mproc_handle handle;
  for (int i = 0; i < count; i++) {
    char name[32];
    struct stat file;
    off_t where;
    snprintf(name, sizeof name, "handle %d", i);
    CHECK_EQ(mproc_inherited(name, &handle), 0);
    CHECK((fcntl((int)handle, F_GETFD) & FD_CLOEXEC) != 0);
    CHECK_EQ(fstat((int)handle, &file), 0);
    where = lseek((int)handle, 0, SEEK_CUR);
    CHECK_EQ(where, i); /* each is the one of this name */
  }
  CHECK_EQ(mproc_inherited("no such name", &handle), -ENOENT);
  return 0;
}

static void pass_handles(const mproc_context *context, int count, int expected) {
  mproc_inherit *list = calloc((size_t)count + 1, sizeof *list);
  char(*names)[32] = calloc((size_t)count + 1, sizeof *names);
  CHECK(list != NULL && names != NULL);
  for (int i = 0; i < count; i++) {
    int fd = open("/etc/passwd", O_RDONLY | O_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQ(lseek(fd, i, SEEK_SET), i);
    snprintf(names[i], sizeof names[i], "handle %d", i);
    list[i] = (mproc_inherit){.handle = fd, .name = names[i]};
  }
  const mproc_process_options options = {.method = "forkserver",
                                         .context = context,
                                         .inherit = count ? list : NULL,
                                         .inherit_count = (size_t)count};
  mproc_process *worker = create_with(&options, check_inherited, &count, sizeof count);
  CHECK_EQ(mproc_process_start(worker), expected);
  if (expected == 0)
    check_exited(worker, 0);
  else
    CHECK_EQ(mproc_process_close(worker), 0);
  for (int i = 0; i < count; i++)
    CHECK_EQ(close((int)list[i].handle), 0);
  free(list);
  free(names);
}

TEST(handles_by_name) {
  static const int counts[] = {0, 1, 2, 199, 200, 201, 250, 251, 400, 1000, 2000};
  struct rlimit limit;
  CHECK_EQ(getrlimit(RLIMIT_NOFILE, &limit), 0);
  if (limit.rlim_max < 2200)
    SKIP("the hard limit of descriptors is too low: ulimit -Hn 4096");
  limit.rlim_cur = limit.rlim_max;
  CHECK_EQ(setrlimit(RLIMIT_NOFILE, &limit), 0);
  int64_t server = server_of(NULL);
  int open_here = descriptor_count(), open_there = descriptors_of(server);
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++)
    pass_handles(NULL, counts[i], 0);
  pass_handles(NULL, 2001, -E2BIG);
  CHECK_EQ(descriptor_count(), open_here);
  AWAIT(descriptors_of(server) <= open_there);
  CHECK_EQ(server_of(NULL), server);
}

TEST(handle_that_was_closed) {
  int ends[2];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  CHECK_EQ(dup3(ends[0], 500, O_CLOEXEC), 500); /* a number that nobody takes in between */
  close(ends[0]);
  ends[0] = 500;
  const mproc_inherit list[] = {{ends[0], "mine"}};
  const mproc_process_options options = {
      .method = "forkserver", .inherit = list, .inherit_count = 1};
  int zero = 0;
  mproc_process *worker = create_with(&options, return_code, &zero, sizeof zero);
  (void)server_of(NULL);
  close(ends[0]);
  CHECK_EQ(mproc_process_start(worker), -EBADF);
  CHECK_CONTAINS(mproc_error_detail(), "mine");
  CHECK_EQ(mproc_process_close(worker), 0);
  close(ends[1]);
}

/* The server was born before this library was loaded. */
TEST(entry_in_a_library_that_the_server_does_not_know) {
#if MPX_STATIC_TESTS
  SKIP("no shared libraries in this build");
#else
  int64_t server = server_of(NULL);
  void *library = dlopen(test_child_path("entry_library.so"), RTLD_NOW | RTLD_LOCAL);
  CHECK(library != NULL);
  mproc_entry *entry;
  void *found = dlsym(library, "library_entry");
  memcpy(&entry, &found, sizeof entry);
  const unsigned char argument = 40;
  check_exited(ask(entry, &argument, 1), 41);
  check_exited(ask(entry, &argument, 1), 41);
  CHECK_EQ(server_of(NULL), server);
  CHECK_EQ(dlclose(library), 0);
#endif
}
