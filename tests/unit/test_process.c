/* One process: its argument, its end, its signals, and the object that stands for it. */
#include "each_method.h"
#include "in_child.h"

#include <fcntl.h>
#include <glob.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- how it ends ----------------------------------------------------------------------------- */

static int return_number(void *arg, size_t size) {
  CHECK_EQ(size, sizeof(int));
  return *(int *)arg;
}

static int exit_with_number(void *arg, size_t size) {
  exit(return_number(arg, size));
}

static int leave_without_handlers(void *arg, size_t size) {
  _exit(return_number(arg, size));
}

static void check_codes(const char *method, mproc_entry *entry) {
  static const struct {
    int given;
    int code;
  } cases[] = {{0, 0}, {7, 7}, {255, 255}, {256 + 3, 3}, {-1, 255}};
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
    CHECK_EQ(run_child(method, entry, &cases[i].given, sizeof(int)), cases[i].code);
}

EACH_METHOD(result_is_the_exit_code) {
  check_codes(method, return_number);
}

EACH_METHOD(exit_in_the_entry_gives_its_code) {
  check_codes(method, exit_with_number);
}

EACH_METHOD(underscore_exit_gives_its_code) {
  check_codes(method, leave_without_handlers);
}

EACH_METHOD(status_of_an_exit_has_no_signal) {
  int number = 7;
  mproc_status status = end_of(start_child(method, return_number, &number, sizeof number, NULL));
  CHECK_EQ(status.state, MPROC_STATE_EXITED);
  CHECK_EQ(status.code, 7);
  CHECK_EQ(status.signal, 0);
  CHECK_EQ(status.core_dumped, 0);
  CHECK(status.run_time_ns > 0);
  CHECK(status.max_rss_bytes > 0 || strcmp(method, "spawn") == 0);
}

static int die_by(void *arg, size_t size) {
  int number = return_number(arg, size);
  (void)signal(number, SIG_DFL); /* sanitizers have handlers of their own */
  (void)raise(number);
  return 0;
}

EACH_METHOD(signals_are_told_apart_from_codes) {
  static const int signals[] = {SIGKILL, SIGSEGV, SIGTERM, SIGABRT, SIGUSR1};
  for (size_t i = 0; i < sizeof signals / sizeof signals[0]; i++) {
    mproc_status status = end_of(start_child(method, die_by, &signals[i], sizeof signals[i], NULL));
    CHECK_EQ(status.state, MPROC_STATE_SIGNALED);
    CHECK_EQ(status.signal, signals[i]);
    CHECK_EQ(status.code, -1);
    CHECK_EQ(status.core_dumped, 0); /* the runner sets RLIMIT_CORE to 0 */
  }
}

static int dump_core(void *arg, size_t size) {
  struct rlimit limit;
  CHECK_EQ(chdir(test_tmp_path("")), 0);
  CHECK_EQ(getrlimit(RLIMIT_CORE, &limit), 0);
  limit.rlim_cur = limit.rlim_max;
  CHECK_EQ(setrlimit(RLIMIT_CORE, &limit), 0);
  return die_by(arg, size);
}

static void remove_cores(void) {
  glob_t found;
  if (glob(test_tmp_path("*core*"), 0, NULL, &found) == 0) {
    for (size_t i = 0; i < found.gl_pathc; i++)
      CHECK_EQ(unlink(found.gl_pathv[i]), 0);
    globfree(&found);
  }
}

/* What a plain fork says about the same death here: core_pattern may be anything. */
static int core_flag_of_a_plain_fork(int number) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0)
    _exit(dump_core(&number, sizeof number));
  int status = status_of(pid);
  remove_cores();
  CHECK(WIFSIGNALED(status));
  return WCOREDUMP(status) != 0;
}

EACH_METHOD(core_flag_is_the_kernels) {
  SKIP_UNDER_VALGRIND("valgrind writes core dumps of its own");
  int number = SIGABRT;
  int expected = core_flag_of_a_plain_fork(number);
  int64_t start = now_ms();
  mproc_status status = end_of(start_child(method, dump_core, &number, sizeof number, NULL));
  int64_t duration = now_ms() - start;
  remove_cores();
  CHECK_EQ(status.state, MPROC_STATE_SIGNALED);
  CHECK_EQ(status.signal, SIGABRT);
  CHECK_EQ(status.core_dumped, expected);
  /* With the heap's reservation in the dump it would be many seconds. */
  CHECK(UNDER_SANITIZER || duration < 3000);
}

/* ---- the argument block ---------------------------------------------------------------------- */

static int check_no_argument(void *arg, size_t size) {
  return arg == NULL && size == 0 ? 5 : 1;
}

EACH_METHOD(argument_of_no_bytes_is_null) {
  char unused = 'x';
  CHECK_EQ(run_child(method, check_no_argument, NULL, 0), 5);
  CHECK_EQ(run_child(method, check_no_argument, &unused, 0), 5);
}

static int check_one_byte(void *arg, size_t size) {
  CHECK_EQ((uintptr_t)arg % 64, 0);
  return size == 1 ? *(unsigned char *)arg : 1;
}

EACH_METHOD(argument_of_one_byte) {
  CHECK_EQ(run_child(method, check_one_byte, "\xc8", 1), 0xc8);
}

static void fill_pattern(uint32_t *words, size_t count) {
  for (size_t i = 0; i < count; i++)
    words[i] = (uint32_t)i * 2654435761U;
}

static int check_pattern(void *arg, size_t size) {
  uint32_t *words = arg;
  CHECK_EQ((uintptr_t)arg % 64, 0);
  for (size_t i = 0; i < size / sizeof *words; i++)
    if (words[i] != (uint32_t)i * 2654435761U)
      return 1;
  memset(arg, 0xee, size); /* its own copy */
  return 9;
}

EACH_METHOD(argument_of_64_mib) {
  size_t size = (size_t)64 << 20;
  uint32_t *words = malloc(size);
  CHECK(words);
  fill_pattern(words, size / sizeof *words);
  mproc_process *process = start_child(method, check_pattern, words, size, NULL);
  CHECK_EQ(code_of_child(process), 9);
  size_t intact = 0;
  while (intact < size / sizeof *words && words[intact] == (uint32_t)intact * 2654435761U)
    intact++;
  CHECK_EQ(intact, size / sizeof *words); /* the child wrote into a copy */
  free(words);
}

static int check_pattern_when_told(void *arg, size_t size) {
  mproc_handle go;
  char byte;
  CHECK_OK(mproc_inherited("go", &go));
  CHECK_EQ(read((int)go, &byte, 1), 1);
  CHECK_EQ(close((int)go), 0);
  return check_pattern(arg, size);
}

EACH_METHOD(callers_block_is_free_after_start) {
  enum { SIZE = 1 << 20 };
  int go[2];
  make_pipe(go);
  mproc_inherit inherit = {.handle = go[0], .name = "go"};
  mproc_process_options options = {.inherit = &inherit, .inherit_count = 1};
  uint32_t *words = malloc(SIZE);
  CHECK(words);
  fill_pattern(words, SIZE / sizeof *words);
  mproc_process *process = start_child(method, check_pattern_when_told, words, SIZE, &options);
  memset(words, 0x55, SIZE);
  free(words);
  CHECK_EQ(write(go[1], "x", 1), 1);
  CHECK_EQ(code_of_child(process), 9);
  CHECK_EQ(close(go[0]), 0);
  CHECK_EQ(close(go[1]), 0);
}

EACH_METHOD(block_is_copied_by_create) {
  int number = 11;
  mproc_process *process = create_child(method, return_number, &number, sizeof number, NULL);
  number = 12;
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(code_of_child(process), 11);
}

typedef struct node {
  struct node *next;
  int value;
} node;

static int extend_list(void *arg, size_t size) {
  node *first = *(node **)arg;
  CHECK_EQ(size, sizeof first);
  int sum = 0;
  for (node *at = first; at; at = at->next)
    sum += at->value;
  node *added = mproc_heap_alloc(sizeof *added);
  CHECK(added);
  *added = (node){.next = first->next, .value = 100};
  first->next = added;
  return sum;
}

EACH_METHOD(heap_pointers_hold_in_the_child_and_back) {
  node *second = mproc_heap_alloc(sizeof *second);
  node *first = mproc_heap_alloc(sizeof *first);
  CHECK(first && second);
  *second = (node){.value = 20};
  *first = (node){.next = second, .value = 3};
  CHECK_EQ(run_child(method, extend_list, &first, sizeof first), 23);
  CHECK_EQ(first->next->value, 100);
  CHECK(first->next->next == second);
  CHECK_OK(mproc_heap_free(first->next));
  CHECK_OK(mproc_heap_free(second));
  CHECK_OK(mproc_heap_free(first));
}

/* ---- what it used ---------------------------------------------------------------------------- */

enum { BURN_MS = 60, TOUCH_BYTES = 48 << 20 };

static int use_much(void *arg, size_t size) {
  (void)arg, (void)size;
  volatile char *memory = malloc(TOUCH_BYTES);
  CHECK(memory);
  for (size_t i = 0; i < TOUCH_BYTES; i += 4096)
    memory[i] = 1;
  while (clock() < BURN_MS * (CLOCKS_PER_SEC / 1000))
    ;
  free((void *)memory);
  return 0;
}

EACH_METHOD(rusage_is_the_childs) {
  mproc_rusage usage = {.user_time_ns = -7};
  mproc_process *process = create_child(method, use_much, NULL, 0, NULL);
  CHECK_EQ(mproc_process_rusage(process, &usage), MPROC_ENOTSTARTED);
  CHECK_OK(mproc_process_start(process));
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  CHECK_OK(mproc_process_rusage(process, &usage));
  CHECK(usage.user_time_ns + usage.system_time_ns >= (BURN_MS - 15) * 1000000LL);
  CHECK(usage.user_time_ns + usage.system_time_ns < 20000000000LL);
  CHECK(usage.max_rss_bytes >= TOUCH_BYTES);
  CHECK(usage.max_rss_bytes < (int64_t)TOUCH_BYTES * 40);
  CHECK(usage.minor_faults > 0);
  mproc_status status = end_of(process);
  CHECK_EQ(status.max_rss_bytes, usage.max_rss_bytes);
  CHECK(status.run_time_ns >= (BURN_MS - 15) * 1000000LL);
}

EACH_METHOD(rusage_of_a_running_process_is_a_failed_try) {
  mproc_rusage usage = {.user_time_ns = -7};
  mproc_process *process = start_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(mproc_process_rusage(process, &usage), -EAGAIN);
  CHECK_EQ(usage.user_time_ns, -7);
  kill_child(process);
}

/* ---- pid and name ---------------------------------------------------------------------------- */

static int store_pid(void *arg, size_t size) {
  CHECK_EQ(size, sizeof(int64_t *));
  **(int64_t **)arg = getpid();
  return 0;
}

EACH_METHOD(pid_is_the_childs) {
  int64_t *pid = mproc_heap_calloc(1, sizeof *pid);
  mproc_process *process = create_child(method, store_pid, &pid, sizeof pid, NULL);
  CHECK_EQ(mproc_process_pid(process), MPROC_ENOTSTARTED);
  CHECK_OK(mproc_process_start(process));
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  CHECK(*pid > 0 && *pid != getpid());
  CHECK_EQ(mproc_process_pid(process), *pid);
  CHECK_OK(mproc_process_close(process));
  CHECK_OK(mproc_heap_free(pid));
}

static void read_proc(int64_t pid, const char *file, char *text, size_t size) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%lld/%s", (long long)pid, file);
  CHECK(read_file(path, text, size));
  text[strcspn(text, "\n")] = '\0';
}

EACH_METHOD(name_shows_in_proc) {
  char text[256];
  mproc_process_options options = {.name = "a-rather-long-worker-name"};
  mproc_process *process = start_child(method, sleep_for_ever, NULL, 0, &options);
  CHECK_STR(mproc_process_name(process), "a-rather-long-worker-name");
  AWAIT((read_proc(mproc_process_pid(process), "comm", text, sizeof text), text[0] == 'a'));
  CHECK_STR(text, "a-rather-long-w");                           /* the kernel's 15 bytes */
  if (strcmp(method, "spawn") == 0 && !test_under_valgrind()) { /* whose own line is there */
    read_proc(mproc_process_pid(process), "cmdline", text, sizeof text);
    CHECK_STR(text, "mproc:a-rather-long-worker-name");
  }
  kill_child(process);
}

static int check_name(void *arg, size_t size) {
  mproc_process_info info;
  CHECK_OK(mproc_current_process(&info));
  CHECK(size == 32);
  return strcmp(info.name, arg) == 0 && info.pid == getpid() ? 0 : 1;
}

EACH_METHOD(names_by_default_count) {
  char first_name[32], expected[32];
  mproc_process *first = create_child(method, return_zero, NULL, 0, NULL);
  mproc_process *second = create_child(method, return_zero, NULL, 0, NULL);
  snprintf(first_name, sizeof first_name, "%s", mproc_process_name(first));
  CHECK_EQ(strncmp(first_name, "Process-", 8), 0);
  snprintf(expected, sizeof expected, "Process-%d", atoi(first_name + 8) + 1);
  CHECK_STR(mproc_process_name(second), expected);
  CHECK_OK(mproc_process_close(first));
  CHECK_OK(mproc_process_close(second));
}

EACH_METHOD(name_reaches_the_child) {
  char name[32] = "w\xc3\xb6rker of thirty-one bytes ...";
  CHECK_EQ(strlen(name), 31);
  mproc_process_options options = {.name = name};
  CHECK_EQ(code_of_child(start_child(method, check_name, name, sizeof name, &options)), 0);
}

/* ---- waiting for the end --------------------------------------------------------------------- */

EACH_METHOD(sentinel_becomes_readable) {
  mproc_handle sentinel = -7;
  mproc_process *process = create_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(mproc_process_sentinel(process, &sentinel), MPROC_ENOTSTARTED);
  CHECK_EQ(sentinel, -7);
  CHECK_OK(mproc_process_start(process));
  CHECK_OK(mproc_process_sentinel(process, &sentinel));
  CHECK(!is_readable(sentinel));
  CHECK_OK(mproc_process_kill(process));
  struct pollfd item = {.fd = (int)sentinel, .events = POLLIN};
  CHECK_EQ(poll(&item, 1, 10000), 1);
  mproc_wait_item wait = {.kind = MPROC_WAIT_READABLE, .handle = sentinel};
  CHECK_EQ(mproc_wait(&wait, 1, 0, 0), 1);
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  CHECK(is_readable(sentinel)); /* borrowed until close */
  CHECK_OK(mproc_process_close(process));
}

EACH_METHOD(is_alive_from_start_to_end) {
  mproc_process *process = create_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(mproc_process_is_alive(process), 0);
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(mproc_process_is_alive(process), 1);
  CHECK_OK(mproc_process_kill(process));
  AWAIT(mproc_process_is_alive(process) == 0);
  CHECK_OK(mproc_process_close(process)); /* is_alive took the status */
}

EACH_METHOD(join_times_out_and_tries) {
  mproc_process *process = create_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(mproc_process_join(process, 10), MPROC_ENOTSTARTED);
  CHECK_OK(mproc_process_start(process));
  int64_t start = now_ms();
  CHECK_EQ(mproc_process_join(process, 120), -ETIMEDOUT);
  CHECK(now_ms() - start >= 119);
  CHECK_CONTAINS(mproc_error_detail(), mproc_process_name(process));
  start = now_ms();
  CHECK_EQ(mproc_process_join(process, 0), -EAGAIN);
  CHECK(now_ms() - start < 2000);
  CHECK_OK(mproc_process_kill(process));
  CHECK_OK(mproc_process_join(process, 10000));
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  CHECK_OK(mproc_process_join(process, 0));
  CHECK_OK(mproc_process_close(process));
}

EACH_METHOD(status_at_every_stage) {
  mproc_status status;
  mproc_process *process = create_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_OK(mproc_process_status(process, &status));
  CHECK_EQ(status.state, MPROC_STATE_CREATED);
  CHECK_EQ(status.run_time_ns, 0);
  CHECK_EQ(status.max_rss_bytes, -1);
  CHECK_OK(mproc_process_start(process));
  sleep_ms(30);
  CHECK_OK(mproc_process_status(process, &status));
  CHECK_EQ(status.state, MPROC_STATE_RUNNING);
  CHECK_EQ(status.code, -1);
  CHECK(status.run_time_ns >= 30000000 && status.run_time_ns < 20000000000);
  CHECK_OK(mproc_process_kill(process));
  AWAIT((CHECK_OK(mproc_process_status(process, &status)), status.state != MPROC_STATE_RUNNING));
  CHECK_EQ(status.state, MPROC_STATE_SIGNALED);
  int64_t run_time = status.run_time_ns;
  sleep_ms(20);
  CHECK_OK(mproc_process_status(process, &status));
  CHECK_EQ(status.run_time_ns, run_time); /* the clock stands still after the end */
  CHECK_OK(mproc_process_close(process));
}

/* ---- signals --------------------------------------------------------------------------------- */

static void check_signal(const char *method, int (*send)(mproc_process *), int expected) {
  mproc_process *process = create_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(send(process), MPROC_ENOTSTARTED);
  CHECK_OK(mproc_process_start(process));
  CHECK_OK(send(process));
  CHECK_OK(mproc_process_join(process, 10000));
  CHECK_EQ(send(process), 0);
  check_killed(process, expected);
}

EACH_METHOD(terminate_is_sigterm) {
  check_signal(method, mproc_process_terminate, SIGTERM);
}

EACH_METHOD(kill_is_sigkill) {
  check_signal(method, mproc_process_kill, SIGKILL);
}

EACH_METHOD(interrupt_is_sigint) {
  check_signal(method, mproc_process_interrupt, SIGINT);
}

/* A zombie is there to be signalled: that is no error either. */
EACH_METHOD(signal_to_an_unjoined_dead_process) {
  mproc_handle sentinel;
  mproc_process *process = start_child(method, return_zero, NULL, 0, NULL);
  CHECK_OK(mproc_process_sentinel(process, &sentinel));
  AWAIT(is_readable(sentinel));
  CHECK_EQ(mproc_process_kill(process), 0);
  CHECK_EQ(code_of_child(process), 0);
}

/* ---- the object ------------------------------------------------------------------------------ */

TEST(create_refuses_nonsense) {
  mproc_process *process = (mproc_process *)&process, *before = process;
  CHECK_EQ(mproc_process_create(&process, NULL, NULL, 0, NULL), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "entry");
  CHECK_EQ(mproc_process_create(&process, return_zero, NULL, 3, NULL), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "argument block");
  CHECK(process == before);
}

TEST(null_object) {
  CHECK_EQ(mproc_process_close(NULL), 0);
  CHECK_EQ(mproc_process_start(NULL), -EINVAL);
  CHECK_EQ(mproc_process_join(NULL, 0), -EINVAL);
  CHECK_EQ(mproc_process_is_alive(NULL), -EINVAL);
}

EACH_METHOD(no_second_start) {
  mproc_process *process = start_child(method, return_zero, NULL, 0, NULL);
  CHECK_EQ(mproc_process_start(process), MPROC_ESTARTED);
  CHECK_CONTAINS(mproc_error_detail(), "started before");
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  CHECK_EQ(mproc_process_start(process), MPROC_ESTARTED);
  CHECK_OK(mproc_process_close(process));
}

EACH_METHOD(start_again_after_a_failed_start) {
  const char *folder = test_tmp_path("not-yet");
  mproc_process_options options = {.cwd = folder};
  mproc_process *process = create_child(method, return_zero, NULL, 0, &options);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(mproc_process_start(process), -ENOENT);
    CHECK_EQ(mproc_process_is_alive(process), 0);
    CHECK_EQ(mproc_process_join(process, 0), MPROC_ENOTSTARTED);
    CHECK_EQ(mproc_process_pid(process), MPROC_ENOTSTARTED);
  }
  CHECK_EQ(mkdir(folder, 0700), 0);
  CHECK_OK(mproc_process_start(process));
  CHECK_EQ(code_of_child(process), 0);
  CHECK_EQ(rmdir(folder), 0);
}

static mproc_process *parents_object;

static int use_parents_object(void *arg, size_t size) {
  (void)arg, (void)size;
  mproc_status status;
  mproc_rusage usage;
  mproc_handle sentinel;
  mproc_process *object = parents_object;
  mproc_wait_item item = {.kind = MPROC_WAIT_PROCESS, .object = object};
  CHECK_EQ(mproc_process_start(object), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_join(object, 0), MPROC_ENOTCREATOR);
  CHECK_CONTAINS(mproc_error_detail(), "created by process");
  CHECK_EQ(mproc_process_is_alive(object), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_terminate(object), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_kill(object), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_interrupt(object), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_close(object), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_pid(object), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_status(object, &status), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_rusage(object, &usage), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_process_sentinel(object, &sentinel), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_wait(&item, 1, 0, 0), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_active_children(NULL, 0), 0);
  return 0;
}

EACH_METHOD(only_the_creator_may_use_it) {
  parents_object = start_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(run_child("fork", use_parents_object, NULL, 0), 0);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0)
    _exit(use_parents_object(NULL, 0));
  CHECK_EQ(status_of(pid), 0);
  CHECK_EQ(mproc_process_is_alive(parents_object), 1);
  kill_child(parents_object);
}

EACH_METHOD(close_of_a_running_process_is_busy) {
  mproc_process *process = start_child(method, sleep_for_ever, NULL, 0, NULL);
  CHECK_EQ(mproc_process_close(process), -EBUSY);
  CHECK_CONTAINS(mproc_error_detail(), "still runs");
  CHECK_EQ(mproc_process_is_alive(process), 1);
  kill_child(process);
}

EACH_METHOD(close_needs_no_join) {
  mproc_handle sentinel;
  mproc_process *process = start_child(method, return_zero, NULL, 0, NULL);
  CHECK_OK(mproc_process_sentinel(process, &sentinel));
  AWAIT(is_readable(sentinel));
  CHECK_OK(mproc_process_close(process));
}

TEST(close_without_start) {
  CHECK_OK(mproc_process_close(create_child("fork", return_zero, NULL, 0, NULL)));
}

EACH_METHOD(use_after_close) {
  mproc_status status;
  mproc_rusage usage;
  mproc_handle sentinel;
  mproc_process *process = start_child(method, return_zero, NULL, 0, NULL);
  CHECK_EQ(code_of_child(process), 0);
  mproc_wait_item item = {.kind = MPROC_WAIT_PROCESS, .object = process};
  CHECK_EQ(mproc_process_start(process), MPROC_ECLOSED);
  CHECK_EQ(mproc_process_join(process, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_process_is_alive(process), MPROC_ECLOSED);
  CHECK_EQ(mproc_process_kill(process), MPROC_ECLOSED);
  CHECK_EQ(mproc_process_pid(process), MPROC_ECLOSED);
  CHECK_EQ(mproc_process_status(process, &status), MPROC_ECLOSED);
  CHECK_EQ(mproc_process_rusage(process, &usage), MPROC_ECLOSED);
  CHECK_EQ(mproc_process_sentinel(process, &sentinel), MPROC_ECLOSED);
  CHECK_EQ(mproc_process_close(process), MPROC_ECLOSED);
  CHECK_EQ(mproc_wait(&item, 1, 0, 0), MPROC_ECLOSED);
}

/* More objects than the library keeps of closed ones. */
EACH_METHOD_LIMIT(many_objects_one_after_another, 60) {
  for (int i = 0; i < test_scale(200); i++) {
    int number = i & 0xff;
    CHECK_EQ(run_child(method, return_number, &number, sizeof number), number);
  }
}

/* ---- mproc_run and words --------------------------------------------------------------------- */

EACH_METHOD(run_returns_the_code) {
  CHECK_OK(mproc_set_start_method(method, 0));
  for (int number = 0; number < 256; number += 51)
    CHECK_EQ(mproc_run(return_number, &number, sizeof number), number);
  CHECK_EQ(mproc_run(check_no_argument, NULL, 0), 5);
  CHECK_EQ(mproc_run(NULL, NULL, 0), -EINVAL);
}

EACH_METHOD(run_tells_of_a_crash) {
  int number = SIGKILL;
  CHECK_OK(mproc_set_start_method(method, 0));
  CHECK_EQ(mproc_run(die_by, &number, sizeof number), MPROC_ECRASHED);
  CHECK_CONTAINS(mproc_error_detail(), "'Process-");
  CHECK_CONTAINS(mproc_error_detail(), "killed by SIGKILL after ");
  if (strcmp(method, "spawn") != 0) /* which is believed only above our own */
    CHECK_CONTAINS(mproc_error_detail(), "peak ");
}

TEST(strstatus_says_it_in_words) {
  static const struct {
    mproc_status status;
    const char *text;
  } cases[] = {
      {{.state = MPROC_STATE_CREATED, .max_rss_bytes = -1}, "not started"},
      {{.state = MPROC_STATE_RUNNING, .run_time_ns = 2340000000}, "running for 2.3 s"},
      {{.state = MPROC_STATE_EXITED, .code = 3, .run_time_ns = 200000000, .max_rss_bytes = -1},
       "exited with code 3 after 0.2 s"},
      {{.state = MPROC_STATE_EXITED, .code = 0, .run_time_ns = 1, .max_rss_bytes = 5000000},
       "exited with code 0 after 0.0 s, peak 5 MB"},
      {{.state = MPROC_STATE_SIGNALED,
        .code = -1,
        .signal = SIGSEGV,
        .core_dumped = 1,
        .run_time_ns = 1200000000,
        .max_rss_bytes = 84000000},
       "killed by SIGSEGV (core dumped) after 1.2 s, peak 84 MB"},
      {{.state = MPROC_STATE_SIGNALED, .signal = SIGKILL, .max_rss_bytes = -1},
       "killed by SIGKILL after 0.0 s"},
      {{.state = MPROC_STATE_UNKNOWN, .run_time_ns = 1500000000, .max_rss_bytes = -1},
       "ended after 1.5 s, status unknown"},
  };
  char text[128];
  for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
    CHECK(mproc_strstatus(&cases[i].status, text, sizeof text) == text);
    CHECK_STR(text, cases[i].text);
    char small[8];
    CHECK_EQ(strlen(mproc_strstatus(&cases[i].status, small, sizeof small)), 7);
    CHECK_EQ(strncmp(small, cases[i].text, 7), 0);
  }
}
