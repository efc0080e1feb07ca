/* A library with tasks, which test_pool loads when its pool is there already. */
#include <mproc/task.h>

#include <string.h>

int quadruple(mproc_task *task, const void *input, size_t size);

static int multiply(mproc_task *task, const void *input, size_t size, int64_t by) {
  int64_t number;
  if (size != sizeof number)
    return mproc_task_fail(task, 1, "%zu bytes are no number", size);
  memcpy(&number, input, sizeof number);
  number *= by;
  return mproc_task_result(task, &number, sizeof number);
}

static int triple(mproc_task *task, const void *input, size_t size) {
  return multiply(task, input, size, 3);
}

int quadruple(mproc_task *task, const void *input, size_t size) {
  return multiply(task, input, size, 4);
}

MPROC_TASK(triple, .help = "three times a number", .input_size = sizeof(int64_t));
