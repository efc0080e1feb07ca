/* mproc_wait: any or all of several processes and handles. */
#include "each_method.h"
#include "in_child.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>

static int sleep_then_end(void *arg, size_t size) {
  CHECK_EQ(size, sizeof(int));
  sleep_ms(*(int *)arg);
  return 0;
}

static mproc_wait_item process_item(mproc_process *process) {
  return (mproc_wait_item){.kind = MPROC_WAIT_PROCESS, .object = process, .ready = -7};
}

static mproc_wait_item readable_item(mproc_handle handle) {
  return (mproc_wait_item){.kind = MPROC_WAIT_READABLE, .handle = handle, .ready = -7};
}

static mproc_wait_item writable_item(mproc_handle handle) {
  return (mproc_wait_item){.kind = MPROC_WAIT_WRITABLE, .handle = handle, .ready = -7};
}

EACH_METHOD(any_of_two_processes) {
  int soon = 30;
  mproc_process *sleeper = start_child(method, sleep_for_ever, NULL, 0, NULL);
  mproc_process *quick = start_child(method, sleep_then_end, &soon, sizeof soon, NULL);
  mproc_wait_item items[] = {process_item(sleeper), process_item(quick)};
  CHECK_EQ(mproc_wait(items, 2, 0, MPROC_FOREVER), 1);
  CHECK_EQ(items[0].ready, 0);
  CHECK_EQ(items[1].ready, 1);
  CHECK_EQ(mproc_wait(items, 2, 0, 0), 1); /* it did not join it, and again: ready */
  CHECK_EQ(code_of_child(quick), 0);
  kill_child(sleeper);
}

EACH_METHOD(all_of_three_processes) {
  mproc_process *children[3];
  mproc_wait_item items[3];
  for (int i = 0; i < 3; i++) {
    int ms = 40 * (3 - i);
    children[i] = start_child(method, sleep_then_end, &ms, sizeof ms, NULL);
    items[i] = process_item(children[i]);
  }
  CHECK_EQ(mproc_wait(items, 3, 1, 10000), 3);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(items[i].ready, 1);
    CHECK_EQ(mproc_process_join(children[i], 0), 0);
    CHECK_OK(mproc_process_close(children[i]));
  }
}

EACH_METHOD(all_with_one_that_ended_before) {
  int soon = 50;
  mproc_process *ended = start_child(method, return_zero, NULL, 0, NULL);
  CHECK_OK(mproc_process_join(ended, MPROC_FOREVER));
  mproc_process *quick = start_child(method, sleep_then_end, &soon, sizeof soon, NULL);
  mproc_wait_item items[] = {process_item(ended), process_item(quick)};
  CHECK_EQ(mproc_wait(items, 2, 1, 10000), 2);
  CHECK_OK(mproc_process_close(ended));
  CHECK_EQ(code_of_child(quick), 0);
}

EACH_METHOD(processes_and_descriptors_mixed) {
  int ends[2], soon = 50;
  char byte;
  make_pipe(ends);
  mproc_process *quick = start_child(method, sleep_then_end, &soon, sizeof soon, NULL);
  mproc_wait_item items[] = {readable_item(ends[0]), process_item(quick), writable_item(ends[1])};
  CHECK_EQ(mproc_wait(items, 3, 0, MPROC_FOREVER), 1);
  CHECK(items[0].ready == 0 && items[2].ready == 1);
  CHECK_EQ(mproc_wait(items, 2, 0, 10000), 1);
  CHECK(items[0].ready == 0 && items[1].ready == 1);
  CHECK_EQ(mproc_wait(items, 3, 1, 20), -ETIMEDOUT);
  CHECK(items[0].ready == 0 && items[1].ready == 1 && items[2].ready == 1);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(mproc_wait(items, 3, 1, 0), 3);
  CHECK_EQ(read(ends[0], &byte, 1), 1);
  CHECK_EQ(close(ends[1]), 0);
  CHECK_EQ(mproc_wait(items, 1, 0, 10000), 1); /* the end of the data is readable */
  CHECK_EQ(close(ends[0]), 0);
  CHECK_EQ(code_of_child(quick), 0);
}

TEST(timeout_and_try) {
  int ends[2];
  make_pipe(ends);
  mproc_wait_item items[] = {readable_item(ends[0]), writable_item(ends[1])};
  int64_t start = now_ms();
  CHECK_EQ(mproc_wait(items, 1, 0, 80), -ETIMEDOUT);
  CHECK(now_ms() - start >= 79);
  CHECK_EQ(items[0].ready, 0);
  start = now_ms();
  CHECK_EQ(mproc_wait(items, 2, 1, 80), -ETIMEDOUT);
  CHECK(now_ms() - start >= 79);
  CHECK(items[0].ready == 0 && items[1].ready == 1);
  CHECK_CONTAINS(mproc_error_detail(), "1 of 2");
  start = now_ms();
  CHECK_EQ(mproc_wait(items, 1, 0, 0), -EAGAIN);
  CHECK_EQ(mproc_wait(items, 2, 1, 0), -EAGAIN);
  CHECK(now_ms() - start < 1000);
  CHECK(items[0].ready == 0 && items[1].ready == 1);
  CHECK_EQ(close(ends[0]), 0);
  CHECK_EQ(close(ends[1]), 0);
}

TEST(broken_pipe_is_ready) {
  int ends[2];
  make_pipe(ends);
  CHECK_EQ(close(ends[0]), 0);
  mproc_wait_item item = writable_item(ends[1]);
  CHECK_EQ(mproc_wait(&item, 1, 0, 10000), 1);
  CHECK_EQ(close(ends[1]), 0);
}

EACH_METHOD_LIMIT(forty_items, 60) {
  enum { PROCESSES = 36, ITEMS = PROCESSES + 4 };
  int ends[2];
  mproc_process *children[PROCESSES];
  mproc_wait_item items[ITEMS];
  make_pipe(ends);
  for (int i = 0; i < PROCESSES; i++) {
    int ms = i == 20 ? 5 : 150 + i;
    children[i] = start_child(method, sleep_then_end, &ms, sizeof ms, NULL);
    items[i] = process_item(children[i]);
  }
  for (int i = PROCESSES; i < ITEMS; i++)
    items[i] = readable_item(ends[0]);
  CHECK(mproc_wait(items, ITEMS, 0, MPROC_FOREVER) >= 1);
  CHECK_EQ(items[ITEMS - 1].ready, 0);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(mproc_wait(items, ITEMS, 1, MPROC_FOREVER), ITEMS);
  for (int i = 0; i < ITEMS; i++)
    CHECK_EQ(items[i].ready, 1);
  for (int i = 0; i < PROCESSES; i++)
    CHECK_EQ(code_of_child(children[i]), 0);
  CHECK_EQ(close(ends[0]), 0);
  CHECK_EQ(close(ends[1]), 0);
}

/* Takes the child as a debugger does, and keeps it for `ms` after its end. */
static _Noreturn void trace(pid_t child, int ready, int ms) {
  siginfo_t info;
  if (ptrace(PTRACE_SEIZE, child, NULL, NULL) < 0)
    _exit(77);
  CHECK_EQ(write(ready, "x", 1), 1);
  CHECK_EQ(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT | __WALL), 0);
  sleep_ms(ms);
  CHECK_EQ(waitpid(child, NULL, __WALL), child);
  _exit(0);
}

static int end_when_told(void *arg, size_t size) {
  char byte;
  (void)size;
  (void)prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY);
  return read(*(int *)arg, &byte, 1) == 1 ? 3 : 4;
}

/* The sentinel says that it ended, and the kernel does not give the status yet. */
TEST(zombie_of_a_tracer_costs_no_processor) {
  enum { HELD_MS = 400 };
  SKIP_UNDER_VALGRIND("valgrind cannot trace");
  int start[2], ready[2];
  char byte;
  make_pipe(start);
  mproc_process *process = start_child("fork", end_when_told, &start[0], sizeof start[0], NULL);
  make_pipe(ready);
  pid_t child = (pid_t)mproc_process_pid(process), tracer = fork();
  if (tracer == 0)
    trace(child, ready[1], HELD_MS);
  CHECK_EQ(close(ready[1]), 0);
  bool traced = read(ready[0], &byte, 1) == 1;
  CHECK_EQ(write(start[1], "x", 1), 1);
  int64_t before = now_ms();
  clock_t used = clock();
  CHECK_OK(mproc_process_join(process, 10000));
  used = clock() - used;
  int64_t took = now_ms() - before;
  CHECK_EQ(code_of_child(process), 3);
  int status = status_of(tracer);
  CHECK_EQ(close(start[0]), 0);
  CHECK_EQ(close(start[1]), 0);
  CHECK_EQ(close(ready[0]), 0);
  if (!traced)
    SKIP("tracing is not allowed here");
  CHECK_EQ(status, 0);
  CHECK(took >= HELD_MS / 2);
  CHECK(used < HELD_MS / 4 * (CLOCKS_PER_SEC / 1000));
}

static void on_alarm(int number) {
  (void)number;
}

EACH_METHOD(signals_do_not_end_a_wait) {
  int soon = 200;
  CHECK_EQ(sigaction(SIGALRM, &(struct sigaction){.sa_handler = on_alarm}, NULL), 0);
  mproc_process *quick = start_child(method, sleep_then_end, &soon, sizeof soon, NULL);
  CHECK_EQ(ualarm(10000, 10000), 0);
  mproc_wait_item item = process_item(quick);
  int r = mproc_wait(&item, 1, 1, 10000);
  CHECK_EQ(mproc_process_join(quick, MPROC_FOREVER), 0);
  (void)ualarm(0, 0);
  CHECK_EQ(r, 1);
  CHECK_EQ(code_of_child(quick), 0);
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void check_refused(mproc_wait_item *items, size_t count, int code, const char *text) {
  CHECK_EQ(mproc_wait(items, count, 0, 10000), code);
  CHECK_CONTAINS(mproc_error_detail(), text);
}

TEST(errors_name_the_item) {
  int ends[2];
  make_pipe(ends);
  mproc_process *process = create_child("fork", return_zero, NULL, 0, NULL);
  mproc_wait_item good = readable_item(ends[0]);
  mproc_wait_item items[3] = {good, good, {.kind = (mproc_wait_kind)9}};
  check_refused(NULL, 0, -EINVAL, "at least one item");
  check_refused(items, 0, -EINVAL, "at least one item");
  check_refused(items, (size_t)1 << 31, -EINVAL, "2147483648 items are more");
  CHECK_EQ(mproc_wait(items, 1, 0, -2), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "timeout_ms is -2");
  check_refused(items, 3, -EINVAL, "item 2 has the unknown kind 9");
  items[1] = (mproc_wait_item){0};
  check_refused(items, 2, -EINVAL, "item 1 has the unknown kind 0");
  items[1] = readable_item(987);
  check_refused(items, 2, -EINVAL, "item 1, 987");
  items[1] = readable_item(-1);
  check_refused(items, 2, -EINVAL, "item 1");
  items[1] = writable_item(-5);
  check_refused(items, 2, -EINVAL, "item 1");
  items[1] = process_item(NULL);
  check_refused(items, 2, -EINVAL, "item 1");
  items[1] = process_item(process);
  check_refused(items, 2, MPROC_ENOTSTARTED, mproc_process_name(process));
  CHECK_OK(mproc_process_close(process));
  check_refused(items, 2, MPROC_ECLOSED, "item 1");
  CHECK_EQ(close(ends[0]), 0);
  CHECK_EQ(close(ends[1]), 0);
}
