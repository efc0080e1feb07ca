/* A producer and two consumers share room for four numbers; each waits for what it needs. Prints:
 *   100 numbers were taken, their sum is 5050
 */
#include <mproc/mproc.h>
#include <stdio.h>

enum { ROOM = 4, CONSUMERS = 2, LAST = 100 };

typedef struct buffer {
  mproc_condition *changed; /* its lock guards all that follows */
  int numbers[ROOM], put, taken, sum;
} buffer;

static int has_room(void *arg) {
  return ((buffer *)arg)->put - ((buffer *)arg)->taken < ROOM;
}

static int has_number(void *arg) {
  return ((buffer *)arg)->put > ((buffer *)arg)->taken;
}

/* Takes the lock; lets go of it while there is nothing to do; returns 1 with it held. */
static int enter(buffer *b, int (*is_ready)(void *arg)) {
  return mproc_condition_acquire(b->changed, MPROC_FOREVER) >= 0 &&
         mproc_condition_wait_for(b->changed, is_ready, b, MPROC_FOREVER) > 0;
}

/* Tells all: one alone might be one that waits for the other sort of change. */
static void leave(buffer *b) {
  (void)mproc_condition_notify_all(b->changed);
  (void)mproc_condition_release(b->changed);
}

static int consume(void *arg, size_t size) {
  buffer *b = *(buffer **)arg;
  (void)size;
  for (int number = 1; number != 0 && enter(b, has_number); leave(b)) { /* 0 is the end */
    number = b->numbers[b->taken++ % ROOM];
    b->sum += number;
  }
  return 0;
}

int main(int argc, char **argv) {
  mproc_process *all[CONSUMERS];
  buffer *b;
  if (mproc_init(&argc, &argv, NULL) < 0 || !(b = mproc_heap_calloc(1, sizeof *b)))
    return 1;
  int ok = mproc_condition_create(NULL, &b->changed) == 0;
  for (int i = 0; ok && i < CONSUMERS; i++)
    ok = mproc_process_create(&all[i], consume, &b, sizeof b, NULL) == 0 &&
         mproc_process_start(all[i]) == 0;
  for (int i = 1; ok && i <= LAST + CONSUMERS && enter(b, has_room); leave(b), i++)
    b->numbers[b->put++ % ROOM] = i <= LAST ? i : 0;
  for (int i = 0; ok && i < CONSUMERS; i++)
    ok = mproc_process_join(all[i], MPROC_FOREVER) == 0;
  printf("%d numbers were taken, their sum is %d\n", b->taken - CONSUMERS, b->sum);
  return !ok || mproc_condition_destroy(b->changed) < 0 || mproc_heap_free(b) < 0;
}
