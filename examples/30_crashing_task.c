/* Ten tasks: one crashes whenever it is tried, another one only at first. The pool goes on, and
 * says what became of each. Prints:
 *   task 7: killed by SIGSEGV..., at the second attempt...
 *   9 of 10 are done; task 3 needed 2 attempts
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <stdio.h>
#include <sys/resource.h>

enum { TASKS = 10, FRAIL = 3, FATAL = 7 };

static void crash(void) {
  static char *volatile nowhere = (char *)16;
  *nowhere = 1;
}

static int work(mproc_task *task, const void *input, size_t size) {
  uint64_t number = mproc_task_index(task);
  int attempt = mproc_task_attempt(task);
  (void)input, (void)size;
  if (number == FATAL || (number == FRAIL && attempt == 1))
    crash();
  *(int *)mproc_task_output(task) = attempt;
  return 0;
}

int main(int argc, char **argv) {
  const mproc_submit_options options = {.retries = 1};
  const struct rlimit no_core = {0, 0}; /* here it would only litter the directory */
  int attempts[TASKS];
  mproc_pool *pool;
  mproc_future *all;
  mproc_failure failure;
  uint64_t i = 0;
  if (mproc_init(&argc, &argv, NULL) < 0 || setrlimit(RLIMIT_CORE, &no_core) < 0 ||
      mproc_pool_create(&pool, NULL) < 0 ||
      mproc_pool_map_async(pool, work, NULL, 0, attempts, sizeof *attempts, TASKS, &all, &options) <
          0 ||
      mproc_future_wait(all, MPROC_FOREVER) != MPROC_ETASK)
    return fprintf(stderr, "%s\n", mproc_error_detail()), 1;
  for (; mproc_future_failure(all, i, &failure) == 0; i++) {
    char text[256];
    printf("task %d: %s\n", (int)failure.index, mproc_strfailure(&failure, text, sizeof text));
  }
  printf("%d of %d are done; task %d needed %d attempts\n", TASKS - (int)i, TASKS, FRAIL,
         attempts[FRAIL]);
  mproc_future_destroy(all);
  return mproc_pool_destroy(pool) < 0;
}
