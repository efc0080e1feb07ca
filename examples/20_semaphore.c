/* Two desks for four workers. A permit is tracked, so that a worker who is killed at a desk does
 * not keep it: whoever gets that permit is told. Prints:
 *   a desk came back from the dead
 *   4 workers are done, 0 were one too many
 */
#include <mproc/mproc.h>
#include <signal.h>
#include <stdio.h>

enum { WORKERS = 4, DESKS = 2 };

typedef struct office {
  mproc_semaphore *desks;
  mproc_value *taken, *too_many;
} office;

static int work_and_die(void *arg, size_t size) {
  const office *o = arg;
  (void)size;
  if (mproc_semaphore_acquire(o->desks, MPROC_FOREVER) == 0)
    raise(SIGKILL);
  return 1;
}

static int work(void *arg, size_t size) {
  const office *o = arg;
  int64_t before;
  (void)size;
  if (mproc_semaphore_acquire(o->desks, MPROC_FOREVER) < 0)
    return 1;
  if (mproc_value_add_int64(o->taken, 1, &before) < 0 || before >= DESKS)
    (void)mproc_value_add_int64(o->too_many, 1, NULL);
  (void)mproc_value_add_int64(o->taken, -1, NULL);
  return mproc_semaphore_release(o->desks, 1) < 0;
}

int main(int argc, char **argv) {
  const mproc_semaphore_options tracked = {.tracked = 1};
  mproc_process *all[WORKERS];
  int64_t too_many = 0;
  office o;
  if (mproc_init(&argc, &argv, NULL) < 0 || mproc_value_create_int64(0, &o.taken) < 0 ||
      mproc_value_create_int64(0, &o.too_many) < 0 ||
      mproc_semaphore_create(DESKS, &tracked, &o.desks) < 0)
    return 1;
  int ok = mproc_run(work_and_die, &o, sizeof o) == MPROC_ECRASHED &&
           mproc_semaphore_acquire(o.desks, 0) == 0;
  if (ok && mproc_semaphore_acquire(o.desks, MPROC_FOREVER) == MPROC_OWNER_DIED)
    puts("a desk came back from the dead");
  ok = ok && mproc_semaphore_release(o.desks, DESKS) == 0;
  for (int i = 0; ok && i < WORKERS; i++)
    ok = mproc_process_create(&all[i], work, &o, sizeof o, NULL) == 0 &&
         mproc_process_start(all[i]) == 0;
  for (int i = 0; ok && i < WORKERS; i++)
    ok = mproc_process_join(all[i], MPROC_FOREVER) == 0;
  ok = ok && mproc_value_get_int64(o.too_many, &too_many) == 0;
  printf("%d workers are done, %d were one too many\n", WORKERS, (int)too_many);
  return !ok || mproc_semaphore_destroy(o.desks) < 0 || mproc_value_destroy(o.taken) < 0 ||
         mproc_value_destroy(o.too_many) < 0;
}
