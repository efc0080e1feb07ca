/* A pool in a poll loop: its handle is readable when callbacks are due, which run in this thread.
 * Prints:
 *   failed: 7 brings bad luck
 *   9 results, the sum is 336
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>

enum { TASKS = 10, UNLUCKY = 7 };

static struct board { int left, results, sum; } board = {.left = TASKS};

static int square(mproc_task *task, const void *input, size_t size) {
  int number = *(const int *)input, result = number * number;
  (void)size;
  if (number == UNLUCKY)
    return mproc_task_fail(task, 1, "%d brings bad luck", number);
  return mproc_task_result(task, &result, sizeof result);
}

static void add(mproc_future *future, void *user) {
  struct board *b = user;
  mproc_bytes result;
  int number = 0;
  if (mproc_future_result(future, &result) == 0)
    memcpy(&number, result.data, sizeof number);
  b->sum += number;
  b->results++;
  b->left--;
}

static void complain(mproc_future *future, void *user) {
  struct board *b = user;
  mproc_failure failure;
  if (mproc_future_failure(future, 0, &failure) == 0)
    printf("failed: %s\n", failure.text);
  b->left--;
}

int main(int argc, char **argv) {
  const mproc_submit_options options = {.done = add, .error = complain, .user = &board};
  mproc_pool *pool;
  mproc_handle handle;
  int ok = mproc_init(&argc, &argv, NULL) == 0 && mproc_pool_create(&pool, NULL) == 0 &&
           mproc_pool_handle(pool, &handle) == 0;
  for (int i = 1; ok && i <= TASKS; i++) /* no future: the callbacks tell all */
    ok = mproc_pool_apply_async(pool, square, &i, sizeof i, NULL, &options) == 0;
  while (ok && board.left > 0) {
    struct pollfd events[] = {{.fd = (int)handle, .events = POLLIN}}; /* and what else there is */
    ok = poll(events, 1, -1) == 1 && mproc_pool_dispatch(pool) >= 0;
  }
  printf("%d results, the sum is %d\n", board.results, board.sum);
  return !ok || mproc_pool_destroy(pool) < 0;
}
