/* What a hostile reading of the sources found, one case each: closed streams, limits that are
 * reached, two threads that end the same object, names that two directories have. */
#include "descriptors.h"
#include "each_method.h"
#include "in_child.h"
#include "soft_limit.h"

#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>

enum { FAR_DESCRIPTOR = 200 };

/* Small, so that a case can fill it. */
const mproc_init_options *test_init_options(void) {
  static const mproc_init_options options = {.heap_size = 16 << 20};
  return &options;
}

static int open_descriptors(void) {
  descriptor_list list;
  list_descriptors(&list);
  return list.count;
}

static void write_script(const char *path, int code) {
  char text[64];
  snprintf(text, sizeof text, "#!/bin/sh\nexit %d\n", code);
  write_file(path, text, 0755);
}

/* ---- closed standard streams ----------------------------------------------------------------- */

static void make_heap_without(int stream) {
  descriptor_list list;
  int heaps = 0;
  CHECK_EQ(close(stream), 0);
  char *block = mproc_heap_calloc(1, 4096);
  CHECK(block);
  for (int i = 0; i < 100; i++)
    printf("a line that must not land in the heap\n");
  CHECK_EQ(fflush(stdout), 0);
  list_descriptors(&list);
  for (int i = 0; i < list.count; i++) {
    heaps += list.items[i].is_heap;
    CHECK(!list.items[i].is_heap || list.items[i].number > STDERR_FILENO);
  }
  CHECK_EQ(heaps, 1);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  CHECK_EQ(run_child("spawn", return_zero, NULL, 0), 0);
  for (int i = 0; i < 4096; i++)
    CHECK_EQ(block[i], 0);
  CHECK_OK(mproc_heap_free(block));
}

static void make_heap_without_input(void) {
  make_heap_without(STDIN_FILENO);
}

static void make_heap_without_output(void) {
  make_heap_without(STDOUT_FILENO);
}

TEST(heap_of_a_program_without_standard_streams) {
  int saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3), null = open("/dev/null", O_WRONLY);
  CHECK_EQ(dup2(null, STDOUT_FILENO), STDOUT_FILENO);
  CHECK_EQ(close(null), 0);
  in_child(make_heap_without_input);
  in_child(make_heap_without_output);
  CHECK_EQ(dup2(saved, STDOUT_FILENO), STDOUT_FILENO);
  CHECK_EQ(close(saved), 0);
}

/* This program again, started by a shell that closes its standard error. */
TEST(log_file_of_a_program_without_standard_error) {
  char variable[4200], text[8192];
  int code;
  if (getenv("TEST_CORNERS_INNER")) {
    (void)!write(STDERR_FILENO, "stray\n", 6);
    CHECK_EQ(run_child("spawn", return_zero, NULL, 0), 0);
    CHECK_EQ(close(STDERR_FILENO), 0); /* the start opened it */
    return;
  }
  const char *path = test_tmp_path("log");
  snprintf(variable, sizeof variable, "MPROC_LOG=trace:%s", path);
  const char *const environment[] = {"TEST_CORNERS_INNER=1", variable, NULL};
  CHECK_OK(try_command(
      COMMAND("sh", "-c", "exec \"$0\" --case \"$1\" 2>&-", test_child_path("test_corners"),
              "log_file_of_a_program_without_standard_error"),
      &(mproc_process_options){.environment = environment}, &code, text, sizeof text));
  CHECK_EQ(code, 0);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_CONTAINS(read_all(fd, text, sizeof text), "started 'Process-1'");
  CHECK(strstr(text, "stray") == NULL);
  CHECK_EQ(unlink(path), 0);
}

static int log_elsewhere(void *arg, size_t size) {
  char text[4096];
  int ends[2];
  (void)arg, (void)size;
  make_pipe(ends);
  CHECK_EQ(dup2(ends[1], STDERR_FILENO), STDERR_FILENO);
  CHECK_EQ(close(ends[1]), 0);
  mproc_set_log(NULL, NULL, MPROC_LOG_DEBUG);
  CHECK_EQ(run_child("fork", return_zero, NULL, 0), 0);
  CHECK_EQ(close(STDERR_FILENO), 0);
  return strstr(read_all(ends[0], text, sizeof text), "started") == NULL;
}

TEST(mproc_set_log_replaces_the_file_of_the_variable) {
  char variable[4200];
  const char *path = test_tmp_path("log");
  snprintf(variable, sizeof variable, "MPROC_LOG=trace:%s", path);
  const char *const environment[] = {variable, NULL};
  CHECK_EQ(code_of_child(start_child("spawn", log_elsewhere, NULL, 0,
                                     &(mproc_process_options){.environment = environment})),
           0);
  CHECK_EQ(unlink(path), 0);
}

/* ---- a thread that ends, and its process that lives ------------------------------------------ */

typedef struct start {
  const char *method;
  mproc_handle gate;
  bool starve; /* leave no descriptor to the end of the thread */
  mproc_process *process;
  int result;
} start;

/* The exit code: 1 if the parent lives, once it has opened the gate. */
static int ask_for_parent(void *arg, size_t size) {
  mproc_handle gate;
  char byte;
  (void)arg, (void)size;
  CHECK_OK(mproc_inherited("gate", &gate));
  CHECK_EQ(read((int)gate, &byte, 1), 1);
  int alive = mproc_parent_is_alive();
  return alive < 0 ? 100 : alive;
}

static void *start_and_end(void *arg) {
  start *s = arg;
  mproc_inherit inherit = {s->gate, "gate"};
  mproc_process_options options = {.inherit = &inherit, .inherit_count = 1};
  s->process = create_child(s->method, ask_for_parent, NULL, 0, &options);
  s->result = mproc_process_start(s->process);
  if (s->result == -EAGAIN)
    CHECK_CONTAINS(mproc_error_detail(), "pthread keys");
  if (s->starve)
    (void)set_soft_limit(RLIMIT_NOFILE, 0);
  return NULL;
}

static void start_in_a_thread(start *s) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, start_and_end, s), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* Only the child's word counts: the parent touches the heap no more before it has ended. */
static void check_child_sees_parent(start *s, int gate) {
  mproc_handle sentinel;
  CHECK_OK(s->result);
  CHECK_OK(mproc_process_sentinel(s->process, &sentinel));
  CHECK_EQ(write(gate, "x", 1), 1);
  AWAIT(is_readable(sentinel));
  CHECK_EQ(code_of_child(s->process), 1);
}

EACH_METHOD(pthread_keys_are_used_up) {
  static pthread_key_t keys[4096];
  int count = 0, gate[2];
  make_pipe(gate);
  start s = {.method = method, .gate = gate[0]};
  while (count < 4096 && pthread_key_create(&keys[count], NULL) == 0)
    count++;
  CHECK(count < 4096);
  start_in_a_thread(&s);
  if (s.result == 0)
    check_child_sees_parent(&s, gate[1]);
  else
    CHECK_EQ(s.result, -EAGAIN);
  while (count > 0)
    CHECK_EQ(pthread_key_delete(keys[--count]), 0);
  if (s.result != 0) {
    CHECK_OK(mproc_process_close(s.process));
    start_in_a_thread(&s);
    check_child_sees_parent(&s, gate[1]);
  }
  CHECK_EQ(close(gate[0]), 0);
  CHECK_EQ(close(gate[1]), 0);
}

EACH_METHOD(thread_ends_without_free_descriptors) {
  int gate[2];
  make_pipe(gate);
  start s = {.method = method, .gate = gate[0], .starve = true};
  rlim_t soft = set_soft_limit(RLIMIT_NOFILE, 1024);
  start_in_a_thread(&s);
  (void)set_soft_limit(RLIMIT_NOFILE, soft);
  check_child_sees_parent(&s, gate[1]);
  CHECK_EQ(close(gate[0]), 0);
  CHECK_EQ(close(gate[1]), 0);
}

/* ---- two threads and one object -------------------------------------------------------------- */

static struct {
  pthread_barrier_t barrier;
  mproc_process *process;
  bool join;
  int rounds;
  _Atomic int closed;
} race;

static void *close_too(void *nothing) {
  for (int i = 0; i < race.rounds; i++) {
    (void)pthread_barrier_wait(&race.barrier);
    int r = race.join ? mproc_process_join(race.process, 10000) : 0;
    CHECK(r == 0 || r == MPROC_ECLOSED);
    r = mproc_process_close(race.process);
    CHECK(r == 0 || r == MPROC_ECLOSED || (r == -EBUSY && race.join));
    race.closed += r == 0;
    (void)pthread_barrier_wait(&race.barrier);
  }
  return nothing;
}

/* Descriptors that get the number that was just closed: a second close would hit one of them. */
static void open_and_check_canaries(void) {
  int canaries[8];
  for (int i = 0; i < 8; i++)
    canaries[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  (void)pthread_barrier_wait(&race.barrier);
  for (int i = 0; i < 8; i++)
    CHECK_EQ(close(canaries[i]), 0);
}

static void run_race(int rounds) {
  pthread_t threads[2];
  race.rounds = rounds;
  CHECK_EQ(pthread_barrier_init(&race.barrier, NULL, 3), 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, close_too, NULL), 0);
  for (int i = 0; i < rounds; i++) {
    race.closed = 0;
    race.process = create_child("fork", return_zero, "argument", 9, NULL);
    if (race.join)
      CHECK_OK(mproc_process_start(race.process));
    (void)pthread_barrier_wait(&race.barrier);
    open_and_check_canaries();
    CHECK_EQ(race.closed, 1);
  }
  for (int i = 0; i < 2; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(pthread_barrier_destroy(&race.barrier), 0);
}

TEST_LIMIT(two_threads_close_a_process, 60) {
  run_race(test_scale(20000));
}

TEST_LIMIT(two_threads_join_and_close_a_process, 60) {
  race.join = true;
  run_race(test_scale(500));
}

/* ---- a guardian that cannot be replaced at once ---------------------------------------------- */

/* In the shared heap: what the process that keeps daemons has done so far. */
typedef struct board {
  _Atomic int64_t pids[2];
  _Atomic bool guardian_is_dead;
} board;

static int start_daemon(_Atomic int64_t *ret_pid) {
  mproc_process *process =
      create_child("fork", sleep_for_ever, NULL, 0, &(mproc_process_options){.daemon = 1});
  int r = mproc_process_start(process);
  if (r == 0)
    *ret_pid = mproc_process_pid(process);
  else
    CHECK_OK(mproc_process_close(process));
  return r;
}

/* With 0, 1, 2, ... descriptors left: at one of these counts there is a child, but no guardian. */
static void *keep_daemons(void *argument) {
  board *b = argument;
  CHECK_OK(start_daemon(&b->pids[0]));
  while (!b->guardian_is_dead)
    sleep_ms(1);
  rlim_t count = (rlim_t)open_descriptors(), soft = set_soft_limit(RLIMIT_NOFILE, count);
  for (int r = -1; r != 0; count++) {
    (void)set_soft_limit(RLIMIT_NOFILE, count);
    r = start_daemon(&b->pids[1]);
    CHECK(r == 0 || r == -EMFILE);
  }
  (void)set_soft_limit(RLIMIT_NOFILE, soft);
  return NULL;
}

static int keep(void *arg, size_t size) {
  pthread_t thread;
  (void)size;
  CHECK_EQ(pthread_create(&thread, NULL, keep_daemons, *(board **)arg), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return sleep_for_ever(NULL, 0);
}

TEST(guardian_that_is_replaced_late_gets_all_daemons) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  int64_t guardian = 0;
  CHECK(b);
  mproc_process *keeper = start_child("fork", keep, &b, sizeof b, NULL);
  AWAIT(b->pids[0] != 0 && (guardian = guardian_below(getppid())) != 0);
  CHECK_EQ(kill((pid_t)guardian, SIGKILL), 0);
  AWAIT(is_gone(guardian));
  b->guardian_is_dead = true;
  AWAIT(b->pids[1] != 0);
  CHECK(!is_gone(b->pids[0]) && !is_gone(b->pids[1]));
  kill_child(keeper);
  AWAIT(is_gone(b->pids[0]) && is_gone(b->pids[1]));
  CHECK_OK(mproc_heap_free(b));
}

/* ---- environment, descriptors ---------------------------------------------------------------- */

static int count_variables(void *arg, size_t size) {
  int count = 0;
  (void)arg, (void)size;
  while (environ && environ[count])
    count++;
  return count;
}

EACH_METHOD(no_environment) {
  if (strcmp(method, "spawn") == 0)
    SKIP_UNDER_VALGRIND("valgrind adds variables to what it executes");
  CHECK_EQ(clearenv(), 0);
  CHECK_EQ(run_child(method, count_variables, NULL, 0), 0);
}

EACH_METHOD(stream_that_was_closed_before_the_start) {
  descriptor_list before, after;
  int fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, FAR_DESCRIPTOR);
  CHECK(fd >= 0 && mproc_heap_free(mproc_heap_alloc(1)) == 0);
  for (int stream = 0; stream < 3; stream++) {
    mproc_process_options options = {0};
    options.streams[stream] = (mproc_stream){MPROC_STREAM_HANDLE, fd};
    CHECK_EQ(dup2(STDIN_FILENO, fd), fd);
    mproc_process *process = create_child(method, return_zero, NULL, 0, &options);
    CHECK_EQ(close(fd), 0);
    list_descriptors(&before);
    CHECK_EQ(mproc_process_start(process), -EBADF);
    CHECK_CONTAINS(mproc_error_detail(), "standard input, output and error");
    mproc_context_stop(NULL); /* takes a server's doors along */
    list_descriptors(&after);
    check_descriptor_count(&after, before.count);
    for (int i = 0; i < before.count; i++)
      CHECK_EQ(after.items[i].number, before.items[i].number);
    CHECK_OK(mproc_process_close(process));
  }
}

/* What ls prints, which itself opens one; the other end of the sentinel may be there, too. */
static void check_few_descriptors(char *text) {
  char *rest = NULL;
  int count = 0;
  for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
    CHECK(atoi(line) < FAR_DESCRIPTOR);
    count++;
  }
  CHECK_EQ(count, has_pidfds() ? 4 : 5);
}

/* Every number below the limit is taken until the command runs. */
TEST(command_with_a_limit_below_open_descriptors) {
  SKIP_UNDER_VALGRIND("valgrind lets nobody change the hard limit of descriptors");
  enum { LIMIT = 32 };
  static const mproc_limit limit = {MPROC_RESOURCE_NOFILE, LIMIT, LIMIT};
  char text[4096];
  int code, low, filled[LIMIT], count = 0;
  CHECK_EQ(dup2(STDIN_FILENO, FAR_DESCRIPTOR), FAR_DESCRIPTOR);
  while ((low = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3)) < LIMIT)
    filled[count++] = low;
  CHECK_EQ(close(low), 0);
  CHECK_OK(try_command(COMMAND("ls", "-1", "/proc/self/fd"),
                       &(mproc_process_options){.limits = &limit, .limit_count = 1}, &code, text,
                       sizeof text));
  CHECK_EQ(code, 0);
  if (has_pidfds())
    CHECK_STR(text, "0\n1\n2\n3\n");
  else
    check_few_descriptors(text);
  while (count > 0)
    CHECK_EQ(close(filled[--count]), 0);
  CHECK_EQ(close(FAR_DESCRIPTOR), 0);
}

/* The host's own limit: the first start that succeeds leaves the child none to open. */
TEST(command_of_a_host_with_a_limit_below_open_descriptors) {
  char text[4096];
  int r = -1, out[2], saved = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
  mproc_process *process =
      create_command(COMMAND("sh", "-c", "ulimit -n 512; exec ls -1 /proc/self/fd"), NULL);
  make_pipe(out);
  CHECK_EQ(dup2(out[1], STDOUT_FILENO), STDOUT_FILENO);
  CHECK_EQ(close(out[1]), 0);
  CHECK_EQ(dup2(STDIN_FILENO, FAR_DESCRIPTOR), FAR_DESCRIPTOR);
  for (rlim_t count = (rlim_t)open_descriptors() - 1; r != 0; count++) {
    rlim_t soft = set_soft_limit(RLIMIT_NOFILE, count);
    r = mproc_process_start(process);
    CHECK(r == 0 || r == -EMFILE);
    (void)set_soft_limit(RLIMIT_NOFILE, soft);
  }
  CHECK_EQ(dup2(saved, STDOUT_FILENO), STDOUT_FILENO);
  CHECK_EQ(close(saved), 0);
  check_few_descriptors((char *)(uintptr_t)read_all(out[0], text, sizeof text));
  CHECK_EQ(code_of_child(process), 0);
  CHECK_EQ(close(FAR_DESCRIPTOR), 0);
}

static int execute_a_writer(void *arg, size_t size) {
  mproc_handle handle;
  (void)size;
  CHECK_OK(mproc_inherited("err", &handle));
  CHECK_EQ(handle == STDERR_FILENO, strcmp(arg, "forkserver") != 0); /* there it is a copy */
  CHECK_EQ(fcntl(STDERR_FILENO, F_GETFD), 0);
  return system("echo written >&2") != 0;
}

EACH_METHOD(standard_error_that_is_inherited_by_name) {
  char text[64];
  int error[2], saved = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
  mproc_inherit inherit = {STDERR_FILENO, "err"};
  mproc_process_options options = {.inherit = &inherit, .inherit_count = 1};
  make_pipe(error);
  CHECK_EQ(dup2(error[1], STDERR_FILENO), STDERR_FILENO);
  mproc_process *process =
      start_child(method, execute_a_writer, method, strlen(method) + 1, &options);
  CHECK_EQ(dup2(saved, STDERR_FILENO), STDERR_FILENO);
  CHECK_EQ(close(saved), 0);
  CHECK_EQ(close(error[1]), 0);
  CHECK_STR(read_all(error[0], text, sizeof text), "written\n");
  CHECK_EQ(code_of_child(process), 0);
}

TEST(redirected_stream_cannot_be_inherited_by_name) {
  mproc_inherit inherit = {STDOUT_FILENO, "out"};
  mproc_process *process = NULL;
  mproc_process_options options = {
      .inherit = &inherit, .inherit_count = 1, .streams = {{0}, {.kind = MPROC_STREAM_NULL}, {0}}};
  CHECK_EQ(mproc_process_create(&process, return_zero, NULL, 0, &options), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "'out' is standard stream 1");
  CHECK(process == NULL);
  options.streams[1].kind = MPROC_STREAM_INHERIT;
  CHECK_EQ(code_of_child(start_child("spawn", return_zero, NULL, 0, &options)), 0);
}

/* ---- commands and directories ---------------------------------------------------------------- */

static void check_command(const char *name, const char *cwd, int result, int expected) {
  char text[64];
  int code = -1;
  CHECK_EQ(
      try_command(COMMAND(name), &(mproc_process_options){.cwd = cwd}, &code, text, sizeof text),
      result);
  CHECK_EQ(code, expected);
  if (result < 0)
    CHECK_CONTAINS(mproc_error_detail(), name);
}

TEST(command_with_a_relative_name) {
  const char *ours = test_tmp_path("ours"), *childs = test_tmp_path("childs");
  CHECK_EQ(mkdir(ours, 0755) | mkdir(childs, 0755), 0);
  write_script(test_tmp_path("ours/both"), 1);
  write_script(test_tmp_path("ours/only_ours"), 2);
  write_script(test_tmp_path("childs/both"), 3);
  write_script(test_tmp_path("childs/only_childs"), 4);
  CHECK_EQ(chdir(ours), 0);
  check_command("./both", NULL, 0, 1);
  check_command("./both", childs, 0, 3);
  check_command("./only_childs", childs, 0, 4);
  check_command("./only_ours", childs, -ENOENT, -1);
  CHECK_EQ(setenv("PATH", ".", 1), 0); /* of the caller, whose directory counts for it */
  check_command("both", childs, 0, 1);
  check_command("only_ours", childs, 0, 2);
  check_command("only_childs", childs, -ENOENT, -1);
  CHECK_EQ(chdir("/"), 0);
  CHECK_EQ(unlink(test_tmp_path("ours/both")) | unlink(test_tmp_path("ours/only_ours")), 0);
  CHECK_EQ(unlink(test_tmp_path("childs/both")) | unlink(test_tmp_path("childs/only_childs")), 0);
  CHECK_EQ(rmdir(ours) | rmdir(childs), 0);
}

/* ---- the heap -------------------------------------------------------------------------------- */

static int own_most_of_the_heap(void *arg, size_t size) {
  (void)size;
  **(_Atomic(void *) **)arg = mproc_heap_alloc_owned(12 << 20);
  return sleep_for_ever(NULL, 0);
}

EACH_METHOD(full_heap_takes_back_what_an_unjoined_child_owned) {
  mproc_handle sentinel;
  _Atomic(void *) *block = mproc_heap_calloc(1, sizeof *block);
  CHECK(block);
  mproc_process *process = start_child(method, own_most_of_the_heap, &block, sizeof block, NULL);
  AWAIT(*block != NULL);
  CHECK(mproc_heap_alloc(8 << 20) == NULL);
  CHECK_EQ(mproc_last_error(), MPROC_EHEAPFULL);
  CHECK_OK(mproc_process_sentinel(process, &sentinel));
  CHECK_OK(mproc_process_kill(process));
  AWAIT(is_readable(sentinel));
  void *large = mproc_heap_alloc(8 << 20);
  CHECK(large);
  CHECK_OK(mproc_heap_free(large));
  CHECK_EQ(end_of(process).signal, SIGKILL);
  CHECK_OK(mproc_heap_free((void *)block));
}

TEST(heap_larger_than_everything) {
  static const size_t sizes[] = {SIZE_MAX, SIZE_MAX - 65535, ((size_t)240 << 30) + 1};
  for (int i = 0; i < 3; i++) {
    char number[32], text[1024], answer[32];
    int code = -1;
    snprintf(number, sizeof number, "%zu", sizes[i]);
    snprintf(answer, sizeof answer, "%d ", MPROC_EADDRESS);
    CHECK_OK(try_command(COMMAND(test_child_path("hostile_main"), "heap", number), NULL, &code,
                         text, sizeof text));
    CHECK_EQ(code, 0);
    CHECK_EQ(strncmp(text, answer, strlen(answer)), 0);
    CHECK_CONTAINS(text, "257698037760 is the most");
  }
}

/* ---- room for fields to come ----------------------------------------------------------------- */

static bool is_zero(const uint64_t *words, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (words[i] != 0)
      return false;
  return true;
}

/* A later version may give the words a meaning of which 0 is the default. */
TEST(reserved_words_that_the_library_writes_are_zero) {
  mproc_status status;
  mproc_rusage usage;
  mproc_process_info info;
  mproc_process *process = start_child("fork", return_zero, NULL, 0, NULL);
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  memset(&status, 0xff, sizeof status);
  memset(&usage, 0xff, sizeof usage);
  memset(&info, 0xff, sizeof info);
  CHECK_OK(mproc_process_status(process, &status));
  CHECK_OK(mproc_process_rusage(process, &usage));
  CHECK_OK(mproc_current_process(&info));
  CHECK(is_zero(status.reserved, 8));
  CHECK(is_zero(usage.reserved, 8));
  CHECK(is_zero(info.reserved, 8));
  CHECK_OK(mproc_process_close(process));
}
