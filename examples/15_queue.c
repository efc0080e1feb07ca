/* Producers put numbers into a queue, consumers add them up. One consumer is killed with a number
 * in its hand: another gets that number, and all is done all the same. Prints:
 *   the sum is 20100, 1 number was delivered again
 */
#include <mproc/mproc.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

enum { PRODUCERS = 2, CONSUMERS = 3, ALL = PRODUCERS + CONSUMERS, EACH = 100, FATAL = 50 };

typedef struct job {
  mproc_queue *queue;
  mproc_value *sum, *deaths;
  int64_t first; /* number of a producer */
} job;

static int produce(void *arg, size_t size) {
  const job *j = arg;
  int r = 0;
  (void)size;
  for (int64_t i = j->first; r == 0 && i < j->first + EACH; i++)
    r = mproc_queue_put(j->queue, &i, sizeof i, MPROC_FOREVER);
  return r;
}

static int consume(void *arg, size_t size) {
  const job *j = arg;
  mproc_message message; /* the queue's until commit */
  int r;
  (void)size;
  while ((r = mproc_queue_get_begin(j->queue, &message, MPROC_FOREVER)) == 0) {
    int64_t number, none = 0;
    memcpy(&number, message.data, sizeof number);
    if (number == FATAL && mproc_value_compare_exchange_int64(j->deaths, &none, 1) == 1)
      raise(SIGKILL); /* only who gets it first */
    (void)mproc_value_add_int64(j->sum, number, NULL);
    (void)mproc_queue_get_commit(j->queue, &message);
  }
  return r == MPROC_ECLOSED ? 0 : r; /* closed, and nothing can come back any more */
}

int main(int argc, char **argv) {
  mproc_process *all[ALL];
  mproc_queue_statistics found = {0};
  int64_t sum = 0;
  job j = {.first = 1};
  int ok = mproc_init(&argc, &argv, NULL) == 0 && mproc_queue_create(NULL, &j.queue) == 0 &&
           mproc_value_create_int64(0, &j.sum) == 0 && mproc_value_create_int64(0, &j.deaths) == 0;
  for (int i = 0; ok && i < ALL; i++, j.first += EACH)
    ok = !mproc_process_create(&all[i], i < PRODUCERS ? produce : consume, &j, sizeof j, NULL) &&
         !mproc_process_start(all[i]);
  for (int i = 0; ok && i < ALL; i++) /* producers first: then nothing more comes */
    ok = (i != PRODUCERS || mproc_queue_close(j.queue) == 0) &&
         mproc_process_join(all[i], MPROC_FOREVER) == 0;
  ok = ok && mproc_value_get_int64(j.sum, &sum) == 0 && mproc_queue_stats(j.queue, &found) == 0;
  printf("the sum is %d, %d number was delivered again\n", (int)sum, (int)found.delivered_again);
  return !ok || mproc_queue_destroy(j.queue) < 0 || mproc_value_destroy(j.sum) < 0 ||
         mproc_value_destroy(j.deaths) < 0;
}
