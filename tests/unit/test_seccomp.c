/* The same life on a kernel that knows less, or in a container that forbids more: memfd_create,
 * pidfds, close_range, clone3 and the newer advice to madvise are refused, by the errno of
 * either. */
#include "harness.h"
#include "in_child.h"
#include "processes.h"
#include "seccomp.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define MIB ((size_t)1 << 20)

static void refuse_everything(int errno_value) {
  if (seccomp_deny_newer(errno_value) < 0)
    SKIP("no system call filters here");
  CHECK_EQ(memfd_create("refused", 0), -1);
  CHECK_EQ(errno, errno_value);
}

/* ---- what must work -------------------------------------------------------------------------- */

static int fill_block(void *arg, size_t size) {
  char *block = *(char **)arg;
  (void)size;
  CHECK_EQ(mproc_parent_is_alive(), 1);
  memset(block, 6, 3 * MIB);
  char *own = mproc_heap_alloc_owned(3 * MIB);
  CHECK(own != NULL);
  return own[0] * 0 + 4;
}

static void check_heap(const char *method) {
  uint64_t used = heap_used();
  char *block = mproc_heap_alloc(3 * MIB);
  CHECK(block != NULL);
  check_exited(start_by(method, fill_block, &block, sizeof block), 4);
  CHECK_EQ(block[0], 6);
  CHECK_EQ(block[3 * MIB - 1], 6);
  CHECK_EQ(mproc_heap_prefault(block, MIB), 0);
  CHECK_EQ(mproc_heap_free(block), 0);
  CHECK_EQ(heap_used(), used);
}

static void check_signals(const char *method) {
  mproc_process *killed = start_by(method, sleep_for_long, NULL, 0);
  CHECK_EQ(mproc_process_join(killed, 20), -ETIMEDOUT);
  CHECK_EQ(mproc_process_join(killed, 0), -EAGAIN);
  CHECK_EQ(mproc_process_is_alive(killed), 1);
  kill_child(killed);
  mproc_process *terminated = start_by(method, sleep_for_long, NULL, 0);
  CHECK_EQ(mproc_process_terminate(terminated), 0);
  check_killed(terminated, SIGTERM);
}

static int check_own_options(void *arg, size_t size) {
  char folder[4096], byte = 0;
  mproc_handle handle;
  struct rlimit limit;
  (void)arg, (void)size;
  CHECK(getcwd(folder, sizeof folder) != NULL);
  CHECK_STR(folder, "/");
  CHECK_EQ(getrlimit(RLIMIT_CPU, &limit), 0);
  CHECK_EQ(limit.rlim_cur, 100);
  CHECK_STR(getenv("WORD"), "given");
  CHECK(getenv("PATH") == NULL);
  CHECK_EQ(mproc_inherited("end", &handle), 0);
  CHECK_EQ(read((int)handle, &byte, 1), 1);
  return byte;
}

static void check_options(const char *method) {
  int ends[2];
  make_pipe(ends);
  CHECK_EQ(write(ends[1], "z", 1), 1);
  const char *const environment[] = {"WORD=given", NULL};
  const mproc_inherit inherit = {.handle = ends[0], .name = "end"};
  const mproc_limit limit = {.resource = MPROC_RESOURCE_CPU, .soft = 100, .hard = 100};
  const mproc_process_options options = {.method = method,
                                         .cwd = "/",
                                         .environment = environment,
                                         .inherit = &inherit,
                                         .inherit_count = 1,
                                         .limits = &limit,
                                         .limit_count = 1};
  check_exited(start_with(&options, check_own_options, NULL, 0), 'z');
  close(ends[0]);
  close(ends[1]);
}

static int count_own_descriptors(void *arg, size_t size) {
  int unwanted = *(int *)arg;
  (void)size;
  return fcntl(unwanted, F_GETFD) >= 0;
}

/* Without close_range too, what was not passed does not reach a spawned child. */
static void check_descriptors(void) {
  int stray = dup(STDERR_FILENO);
  check_exited(start_by("spawn", count_own_descriptors, &stray, sizeof stray), 0);
  close(stray);
}

static int start_daemon(void *arg, size_t size) {
  _Atomic int64_t *pids = *(_Atomic int64_t **)arg;
  (void)size;
  for (int i = 0; i < 2; i++) {
    const mproc_process_options options = {.daemon = 1, .method = all_methods[i]};
    pids[i] = mproc_process_pid(start_with(&options, sleep_for_long, NULL, 0));
  }
  sleep_ms(20000);
  return 0;
}

static void check_daemons(const char *method) {
  _Atomic int64_t *pids = mproc_heap_calloc(2, sizeof *pids);
  CHECK(pids != NULL);
  mproc_process *keeper = start_by(method, start_daemon, &pids, sizeof pids);
  AWAIT(pids[1] != 0);
  kill_child(keeper);
  CHECK(gone_within(pids[0], 1000));
  CHECK(gone_within(pids[1], 1000));
  CHECK_EQ(mproc_heap_free((void *)pids), 0);
}

static void be_a_stranger(void) {
  CHECK(mproc_heap_alloc(1) == NULL);
  CHECK_EQ(mproc_last_error(), MPROC_EFOREIGN);
}

static void check_stolen_status(const char *method) {
  const int code = 77;
  mproc_process *process = start_by(method, return_code, &code, sizeof code);
  if (strcmp(method, "forkserver") != 0) /* no child of ours: nothing to steal */
    CHECK_EQ(waitpid((pid_t)mproc_process_pid(process), NULL, 0), mproc_process_pid(process));
  check_exited(process, code);
}

static void check_command(void) {
  check_exited(start_command(COMMAND("/bin/sh", "-c", "exit 5"), NULL), 5);
}

static void check_everything(void) {
  int before = 0;
  for (int round = 0; round < 3; round++) {
    FOR_ALL_METHODS(method) {
      check_heap(method);
      check_signals(method);
      check_options(method);
      check_daemons(method);
      check_stolen_status(method);
    }
    check_descriptors();
    check_command();
    in_child(be_a_stranger);
    if (round == 0) /* the heap and the like are there now */
      before = descriptor_count();
  }
  CHECK_EQ(descriptor_count(), before);
}

/* ---- who refuses, and to whom ---------------------------------------------------------------- */

TEST_LIMIT(calls_are_missing, 40) {
  refuse_everything(ENOSYS);
  check_everything();
}

TEST_LIMIT(calls_are_forbidden, 40) {
  refuse_everything(EPERM);
  check_everything();
}

/* Filters belong to threads: the thread is refused what the rest of the process may still do,
 * and its daemons are the guardian's. */
static void *live_in_a_thread(void *errno_value) {
  refuse_everything(*(int *)errno_value);
  check_everything();
  const mproc_process_options options = {.daemon = 1, .method = "fork"};
  mproc_process *daemon = start_with(&options, sleep_for_long, NULL, 0);
  kill_child(daemon);
  return NULL;
}

static int live_in_a_thread_of_a_child(void *arg, size_t size) {
  pthread_t thread;
  (void)size;
  CHECK_EQ(pthread_create(&thread, NULL, live_in_a_thread, arg), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 0;
}

TEST_LIMIT(calls_are_missing_in_one_thread, 40) {
  check_exited(start_by("fork", live_in_a_thread_of_a_child, &(int){ENOSYS}, sizeof(int)), 0);
}

TEST_LIMIT(calls_are_forbidden_in_one_thread, 40) {
  check_exited(start_by("fork", live_in_a_thread_of_a_child, &(int){EPERM}, sizeof(int)), 0);
}

/* A keeper whose daemons a guardian without pidfds has to watch. */
static void *start_daemons_from_thread(void *arg) {
  start_daemon(arg, sizeof(void *));
  return NULL;
}

static int keep_from_a_thread(void *arg, size_t size) {
  pthread_t thread;
  (void)size;
  CHECK_EQ(pthread_create(&thread, NULL, start_daemons_from_thread, arg), 0);
  refuse_everything(ENOSYS);
  pthread_join(thread, NULL);
  return 0;
}

static int keep_by_refused_thread(void *arg, size_t size) {
  refuse_everything(ENOSYS); /* ENOSYS: libc then makes threads in the old way */
  return keep_from_a_thread(arg, size);
}

TEST(guardian_without_pidfds) {
  _Atomic int64_t *pids = mproc_heap_calloc(2, sizeof *pids);
  CHECK(pids != NULL);
  FOR_ALL_METHODS(method) {
    pids[0] = pids[1] = 0;
    mproc_process *keeper = start_by(method, keep_by_refused_thread, &pids, sizeof pids);
    AWAIT(pids[1] != 0);
    sleep_ms(100);
    CHECK(!is_gone(pids[0]) && !is_gone(pids[1]));
    kill_child(keeper);
    CHECK(gone_within(pids[0], 1000));
    CHECK(gone_within(pids[1], 1000));
  }
  CHECK_EQ(mproc_heap_free((void *)pids), 0);
}
