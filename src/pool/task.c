/* What a task is given, and what becomes of what it does. */
#include "pool/worker.h"

#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void mpx_task_drop_result(mproc_task *task) {
  if (task->result && task->result != task->answer)
    (void)mproc_heap_free(task->result);
  task->result = NULL;
  task->result_size = 0;
}

static int place_result(mproc_task *task, const void *data, size_t size) {
  if (size != task->output_size)
    return mpx_fail(-EINVAL, "the result has %zu bytes, but there is a place of %zu for it", size,
                    task->output_size);
  if (task->output && size && data != task->output)
    memmove(task->output, data, size);
  return 0;
}

int mproc_task_result(mproc_task *task, const void *data, size_t size) {
  int r = mpx_check_not_null(task, "task");
  if (r < 0 || (size && (r = mpx_check_not_null(data, "data")) < 0))
    return r;
  if (task->is_placed)
    return place_result(task, data, size);
  void *block = size <= MPX_POOL_INSIDE ? task->answer : NULL;
  if (!block && size) {
    r = mpx_board_alloc(task->worker->board, size, &block);
    if (r < 0)
      return r;
  }
  if (size)
    memmove(block, data, size);
  if (task->result != block)
    mpx_task_drop_result(task);
  task->result = block;
  task->result_size = size;
  return 0;
}

void *mproc_task_output(mproc_task *task) {
  return task ? task->output : NULL;
}

size_t mproc_task_output_size(mproc_task *task) {
  return task ? task->output_size : 0;
}

int mproc_task_fail(mproc_task *task, int code, const char *format, ...) {
  if (task && format) {
    va_list values;
    va_start(values, format);
    (void)vsnprintf(task->text, sizeof task->text, format, values);
    va_end(values);
  }
  return code;
}

uint64_t mproc_task_index(const mproc_task *task) {
  return task ? task->index : 0;
}

int mproc_task_attempt(const mproc_task *task) {
  return task ? task->attempt : 0;
}

int mproc_task_worker(const mproc_task *task) {
  return task ? (int)task->worker->number : -1;
}

void *mproc_task_state(const mproc_task *task) {
  return task ? task->worker->state : NULL;
}

int mproc_task_is_cancelled(const mproc_task *task) {
  if (!task)
    return 0;
  return mpx_job_is_cancelled(task->job) ||
         atomic_load_explicit(&task->worker->board->state, memory_order_relaxed) >= MPX_POOL_ENDING;
}

int mpx_task_of_missing_function(mproc_task *task, const void *input, size_t size) {
  mproc_task_function *function;
  (void)input;
  (void)size;
  int r = mpx_worker_function(task->worker, task->job->function, &function);
  return mproc_task_fail(task, r, "%s", mproc_error_detail());
}

/* ---- running --------------------------------------------------------------------------------- */

int mpx_task_run(mproc_task *task, mproc_task_function *function, const void *input, size_t size) {
  task->text[0] = '\0';
  int code = function(task, input, size);
  if (code != 0)
    mpx_task_drop_result(task);
  return code;
}

enum { GUARD = 64, GUARD_BYTE = 0xa5 };

static bool is_whole(const unsigned char *guard) {
  for (int i = 0; i < GUARD; i++)
    if (guard[i] != GUARD_BYTE)
      return false;
  return true;
}

static unsigned char *make_guarded(mpx_worker *worker, size_t size) {
  if (worker->guarded_size < size) {
    void *bigger = realloc(worker->guarded, size);
    if (!bigger)
      return NULL;
    worker->guarded = bigger;
    worker->guarded_size = size;
  }
  return worker->guarded;
}

int mpx_task_run_guarded(mproc_task *task, mproc_task_function *function, const void *input,
                         size_t size) {
  void *place = task->output;
  unsigned char *room = make_guarded(task->worker, task->output_size + (size_t)2 * GUARD);
  if (!room)
    return mproc_task_fail(task, -ENOMEM, "no memory for the guards of its output");
  unsigned char *behind = room + GUARD + task->output_size;
  memset(room, GUARD_BYTE, GUARD);
  memset(behind, GUARD_BYTE, GUARD);
  if (place)
    memcpy(room + GUARD, place, task->output_size);
  task->output = room + GUARD;
  int code = mpx_task_run(task, function, input, size);
  task->output = place;
  if (!is_whole(room) || !is_whole(behind))
    return mproc_task_fail(task, -EFAULT, "it wrote %s its output of %zu bytes",
                           is_whole(room) ? "past the end of" : "in front of", task->output_size);
  if (place)
    memcpy(place, room + GUARD, task->output_size);
  return code;
}

mpx_failure *mpx_task_failure(mproc_task *task, int code, int64_t run_time_ns) {
  mpx_worker *worker = task->worker;
  char errors[MPX_POOL_ERRORS];
  int64_t size = 0;
  if (worker->board->settings.keep_errors) {
    fflush(stderr);
    size = mpx_os_spool_tail(mpx_os_stderr(),
                             atomic_load_explicit(&worker->line->errors_from, memory_order_relaxed),
                             errors, sizeof errors);
  }
  mpx_failure failure = {.cause = MPROC_CAUSE_ERROR,
                         .code = code,
                         .attempts = task->attempt,
                         .worker = (int)worker->number,
                         .index = task->index,
                         .pid = mpx_os_pid(),
                         .run_time_ns = run_time_ns,
                         .max_rss_bytes = -1};
  memcpy(failure.text, task->text, sizeof failure.text);
  return mpx_failure_make(worker->board, &failure, errors, size > 0 ? (size_t)size : 0);
}
