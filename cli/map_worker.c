/* What a worker does: prepares itself, and calls the function of a library for one input. */
#define _GNU_SOURCE /* memfd_create */

#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

/* One worker, one pool: a worker's process runs nothing else. */
static struct worker {
  map_setup *setup;
  const mproc_task_descriptor *function;
  mproc_task *task; /* the one that runs */
  uint64_t index;   /* its input's, from 0 */
  pid_t pid;
} worker;

const map_setup *map_worker_setup(void) {
  return worker.setup;
}

int64_t map_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static int open_capture(void) {
#ifdef MFD_CLOEXEC
  int fd = memfd_create("mproc map", MFD_CLOEXEC);
  if (fd >= 0)
    return fd;
#endif
  FILE *file = tmpfile();
  return file ? fileno(file) : -1;
}

/* Inputs and results of this command go through its standard streams: a task must not read the one,
 * and what it writes to the other belongs to its input. What a command writes goes elsewhere. */
static int replace_streams(bool capture) {
  int null = open("/dev/null", O_RDWR);
  while (null >= 0 && null <= STDERR_FILENO) /* streams that this command was not given */
    null = open("/dev/null", O_RDWR);
  int out = capture ? open_capture() : null;
  if (null < 0 || out < 0 || dup2(null, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
    return map_error("a worker cannot replace its standard streams: %s", strerror(errno));
  if (out != null)
    close(out);
  close(null);
  return 0;
}

static int load_function(void **ret_state) {
  const map_setup *setup = worker.setup;
  worker.function = map_function_load(setup->text, setup->text + setup->name_offset);
  if (!worker.function)
    return MAP_ERROR;
  return worker.function->initializer ? worker.function->initializer(NULL, 0, ret_state) : 0;
}

int map_worker_begin(void *arg, size_t size, void **ret_state) {
  (void)size;
  worker.setup = arg;
  worker.pid = getpid();
  map_forget_signals(worker.setup->ignored);
  /* a file of output that grows too large is an error of its input, and no death of the worker */
  signal(SIGXFSZ, worker.setup->is_command ? SIG_IGN : SIG_DFL);
  if (replace_streams(!worker.setup->is_command) != 0)
    return MAP_ERROR;
  /* what a function starts is killed with it; signals to the group of this command are the main
   * program's to act upon */
  (void)setpgid(0, 0);
  return worker.setup->is_command ? 0 : load_function(ret_state);
}

void map_worker_end(void *state) {
  if (worker.function && worker.function->worker_exit)
    worker.function->worker_exit(state);
}

bool map_worker_index(const mproc_task *task, uint64_t *ret_index) {
  if (!task || task != worker.task || getpid() != worker.pid)
    return false;
  *ret_index = worker.index;
  return true;
}

/* What it wrote to standard output becomes a block of the heap. When there is no room, it goes to
 * standard error: better there than nowhere. */
static void take_printed(map_record *record) {
  if (fflush(stdout) != 0)
    clearerr(stdout);
  off_t size = lseek(STDOUT_FILENO, 0, SEEK_CUR);
  if (size <= 0)
    return;
  char *printed = mproc_heap_alloc((size_t)size);
  char *place = printed ? printed : malloc((size_t)size);
  ssize_t n = place ? pread(STDOUT_FILENO, place, (size_t)size, 0) : -1;
  if (printed && n > 0) {
    record->printed_size = (size_t)n;
    record->printed = printed;
  } else {
    if (n > 0)
      (void)!write(STDERR_FILENO, place, (size_t)n);
    if (printed)
      mproc_heap_free(printed);
  }
  if (!printed)
    free(place);
  (void)lseek(STDOUT_FILENO, 0, SEEK_SET);
  (void)!ftruncate(STDOUT_FILENO, 0);
}

/* With `soon` of --halt what has begun goes on to its end, further attempts too. */
static bool is_to_stop(const map_record *record, const mproc_task *task) {
  int stop = atomic_load_explicit(&worker.setup->control->stop, memory_order_relaxed);
  return record->refusal != MAP_FITS || stop == MAP_END_ALL ||
         (stop != MAP_GO_ON && mproc_task_attempt(task) <= 1);
}

void map_record_take_over(map_record *record) {
  pid_t pid = (pid_t)atomic_load_explicit(&record->group, memory_order_relaxed);
  if (pid > 0)
    (void)kill(-pid, SIGKILL);
  if (record->printed)
    mproc_heap_free(record->printed);
  record->printed = NULL;
  record->printed_size = 0;
}

int map_call_function(mproc_task *task, const void *input, size_t size) {
  map_record *record;
  memcpy(&record, input, sizeof record);
  (void)size;
  if (is_to_stop(record, task)) {
    record->started_ns = 0; /* an attempt before may have begun; this is no result of it */
    return 0;
  }
  map_record_take_over(record);
  worker.task = task;
  worker.index = record->seq - 1;
  record->started_ns = map_now_ns();
  /* relaxed: who kills looks at it again after the pool has ended */
  atomic_store_explicit(&record->group, worker.pid, memory_order_relaxed);
  int r = worker.function->function(task, record->input, record->size);
  atomic_store_explicit(&record->group, 0, memory_order_relaxed);
  record->run_ns = map_now_ns() - record->started_ns;
  record->end = MAP_END_DONE;
  worker.task = NULL;
  take_printed(record);
  return r;
}
