/* Three workers, each finished when its turn comes: mproc_wait says which one ended. Prints:
 *   worker 3 ended
 *   worker 1 ended
 *   worker 2 ended
 */
#include <mproc/mproc.h>
#include <stdatomic.h>
#include <stdio.h>
#include <threads.h>

enum { WORKERS = 3 };

typedef struct task {
  atomic_int *turn; /* in the shared heap; 0 is nobody's */
  int number;
} task;

static int wait_for_turn(void *arg, size_t size) {
  const task *t = arg;
  (void)size;
  while (atomic_load(t->turn) != t->number)
    thrd_sleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
  return 0;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  mproc_wait_item items[WORKERS];
  atomic_int *turn = mproc_heap_calloc(1, sizeof *turn);
  if (!turn)
    return 1;
  for (int i = 0; i < WORKERS; i++) {
    task t = {turn, i + 1};
    char name[32];
    snprintf(name, sizeof name, "worker %d", t.number);
    mproc_process_options options = {.name = name};
    mproc_process *worker;
    if (mproc_process_create(&worker, wait_for_turn, &t, sizeof t, &options) < 0 ||
        mproc_process_start(worker) < 0)
      return 1;
    items[i] = (mproc_wait_item){.kind = MPROC_WAIT_PROCESS, .object = worker};
  }

  static const int order[WORKERS] = {3, 1, 2};
  for (size_t left = WORKERS; left > 0; left--) {
    atomic_store(turn, order[WORKERS - left]);
    if (mproc_wait(items, left, 0, MPROC_FOREVER) < 0)
      return 1;
    size_t i = 0;
    while (!items[i].ready)
      i++;
    mproc_process *ended = items[i].object;
    printf("%s ended\n", mproc_process_name(ended));
    if (mproc_process_join(ended, MPROC_FOREVER) < 0 || mproc_process_close(ended) < 0)
      return 1;
    items[i] = items[left - 1]; /* the others stay in the list */
  }
  return mproc_heap_free(turn) < 0;
}
