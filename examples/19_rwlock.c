/* Three processes read a clock while a fourth one sets it: any number may read at a time, and
 * nobody while it is half changed. Prints:
 *   the readers saw 01:40, and 0 times that never were
 */
#include <mproc/mproc.h>
#include <stdio.h>

enum { READERS = 3, LAST = 100 };

typedef struct board {
  mproc_rwlock *lock;
  mproc_value *wrong;
  int hours, minutes, ticks; /* ticks: the other two, when nobody writes */
} board;

static int read_clock(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (int ticks = 0; ticks < LAST;) {
    if (mproc_rwlock_acquire_read(b->lock, MPROC_FOREVER) < 0)
      return 1;
    ticks = b->hours * 60 + b->minutes;
    if (ticks != b->ticks)
      (void)mproc_value_add_int64(b->wrong, 1, NULL);
    (void)mproc_rwlock_release(b->lock);
  }
  return 0;
}

static int set_clock(board *b, int ticks) {
  if (mproc_rwlock_acquire_write(b->lock, MPROC_FOREVER) < 0)
    return 0;
  b->ticks = ticks;
  b->hours = ticks / 60;
  b->minutes = ticks % 60;
  return mproc_rwlock_release(b->lock) == 0;
}

int main(int argc, char **argv) {
  mproc_process *all[READERS];
  int64_t wrong = 0;
  board *b;
  if (mproc_init(&argc, &argv, NULL) < 0 || !(b = mproc_heap_calloc(1, sizeof *b)))
    return 1;
  int ok = mproc_rwlock_create(&b->lock) == 0 && mproc_value_create_int64(0, &b->wrong) == 0;
  for (int i = 0; ok && i < READERS; i++)
    ok = mproc_process_create(&all[i], read_clock, &b, sizeof b, NULL) == 0 &&
         mproc_process_start(all[i]) == 0;
  for (int ticks = 1; ok && ticks <= LAST; ticks++)
    ok = set_clock(b, ticks);
  for (int i = 0; ok && i < READERS; i++)
    ok = mproc_process_join(all[i], MPROC_FOREVER) == 0;
  ok = ok && mproc_value_get_int64(b->wrong, &wrong) == 0;
  printf("the readers saw %02d:%02d, and %d times that never were\n", b->hours, b->minutes,
         (int)wrong);
  return !ok || mproc_rwlock_destroy(b->lock) < 0 || mproc_value_destroy(b->wrong) < 0 ||
         mproc_heap_free(b) < 0;
}
