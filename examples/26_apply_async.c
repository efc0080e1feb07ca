/* Three tasks look for a divisor at the same time. The first that has one is enough: the others,
 * which would go on for long, are cancelled. Prints:
 *   task 2 has found it: 1000003000039000117 = 1000003 * 1000000000039
 *   2 others were cancelled
 */
#include <mproc/mproc.h>
#include <stdio.h>
#include <string.h>

enum { TASKS = 3 };

typedef struct search {
  long long number, first; /* 3, 5, 7, ...: each third one is tried from `first` on */
} search;

static int find_divisor(mproc_task *task, const void *input, size_t size) {
  const search *s = input;
  (void)size;
  for (long long d = s->first; d * d <= s->number; d += 2LL * TASKS)
    if (s->number % d == 0)
      return mproc_task_result(task, &d, sizeof d);
  return mproc_task_fail(task, 1, "%lld has no divisor of ours", s->number);
}

int main(int argc, char **argv) {
  const mproc_pool_options options = {.workers = TASKS};
  mproc_pool *pool;
  mproc_future *futures[TASKS];
  if (mproc_init(&argc, &argv, NULL) < 0 || mproc_pool_create(&pool, &options) < 0)
    return 1;
  search s = {1000003000039000117, 3};
  for (int i = 0; i < TASKS; i++, s.first += 2)
    if (mproc_pool_apply_async(pool, find_divisor, &s, sizeof s, &futures[i], NULL) < 0)
      return 1;

  int winner = mproc_future_wait_any(futures, TASKS, MPROC_FOREVER), cancelled = 0;
  mproc_bytes result;
  long long divisor;
  if (winner < 0 || mproc_future_result(futures[winner], &result) < 0)
    return fprintf(stderr, "%s\n", mproc_error_detail()), 1;
  memcpy(&divisor, result.data, sizeof divisor);
  printf("task %d has found it: %lld = %lld * %lld\n", winner, s.number, divisor,
         s.number / divisor);
  for (int i = 0; i < TASKS; i++) {
    mproc_failure failure;
    if (mproc_future_cancel(futures[i]) == 0 &&
        mproc_future_wait(futures[i], MPROC_FOREVER) == MPROC_ETASK &&
        mproc_future_failure(futures[i], 0, &failure) == 0)
      cancelled += failure.cause == MPROC_CAUSE_CANCELLED;
    mproc_future_destroy(futures[i]);
  }
  printf("%d others were cancelled\n", cancelled);
  return mproc_pool_destroy(pool) < 0;
}
