/* Workers say of each task when it is done; join waits for that, and the workers stay for the next
 * round. One is killed before it says so: its task is there again. Prints:
 *   round 1: the sum is 55
 *   round 2: the sum is 110
 */
#include <mproc/mproc.h>
#include <signal.h>
#include <stdio.h>

enum { WORKERS = 3, ROUNDS = 2, TASKS = 10, FATAL = 5 };

typedef struct job {
  mproc_queue *tasks;
  mproc_value *sum, *deaths;
} job;

static int work(void *arg, size_t size) {
  const job *j = arg;
  int64_t task;
  int r;
  (void)size;
  while ((r = mproc_queue_get(j->tasks, &task, sizeof task, NULL, MPROC_FOREVER)) == 0) {
    int64_t none = 0;
    if (task == FATAL && mproc_value_compare_exchange_int64(j->deaths, &none, 1) == 1)
      raise(SIGKILL); /* only who gets it first */
    (void)mproc_value_add_int64(j->sum, task, NULL);
    if (mproc_queue_task_done(j->tasks) < 0)
      return 1;
  }
  return r != MPROC_ECLOSED;
}

static int play_round(const job *j) {
  for (int64_t task = 1; task <= TASKS; task++)
    if (mproc_queue_put(j->tasks, &task, sizeof task, MPROC_FOREVER) < 0)
      return 0;
  return mproc_queue_join(j->tasks, MPROC_FOREVER) == 0;
}

int main(int argc, char **argv) {
  const mproc_queue_options joinable = {.joinable = 1};
  mproc_process *all[WORKERS];
  int64_t sum;
  job j;
  int ok = mproc_init(&argc, &argv, NULL) == 0 && mproc_queue_create(&joinable, &j.tasks) == 0 &&
           mproc_value_create_int64(0, &j.sum) == 0 && mproc_value_create_int64(0, &j.deaths) == 0;
  for (int i = 0; ok && i < WORKERS; i++)
    ok = mproc_process_create(&all[i], work, &j, sizeof j, NULL) == 0 &&
         mproc_process_start(all[i]) == 0;
  for (int i = 1; ok && i <= ROUNDS; i++) {
    ok = play_round(&j) && mproc_value_get_int64(j.sum, &sum) == 0;
    if (ok)
      printf("round %d: the sum is %d\n", i, (int)sum);
  }
  ok = ok && mproc_queue_close(j.tasks) == 0;
  for (int i = 0; ok && i < WORKERS; i++)
    ok = mproc_process_join(all[i], MPROC_FOREVER) == 0;
  return !ok || mproc_queue_destroy(j.tasks) < 0 || mproc_value_destroy(j.sum) < 0 ||
         mproc_value_destroy(j.deaths) < 0;
}
