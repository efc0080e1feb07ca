/* A queue and an event in a poll loop: a notifier's descriptor stands for both. Prints:
 *   message 1
 *   message 2
 *   message 3
 *   done
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <poll.h>
#include <stdio.h>

typedef struct board {
  mproc_queue *messages;
  mproc_event *done;
} board;

static int put_messages(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (int i = 1; i <= 3; i++)
    if (mproc_queue_put(b->messages, &i, sizeof i, MPROC_FOREVER) < 0)
      return 1;
  return mproc_event_set(b->done) < 0;
}

/* First the reset, then what is there: what comes later makes the descriptor readable again. */
static int take_what_is_there(mproc_notifier *notifier, board *b) {
  int i;
  if (mproc_notifier_reset(notifier) < 0)
    return -1;
  int done = mproc_event_is_set(b->done); /* before the queue: it is set after the last message */
  while (mproc_queue_get(b->messages, &i, sizeof i, NULL, 0) == 0)
    printf("message %d\n", i);
  return done;
}

int main(int argc, char **argv) {
  board *b;
  mproc_process *process;
  mproc_notifier *notifier;
  if (mproc_init(&argc, &argv, NULL) < 0 || !(b = mproc_heap_calloc(1, sizeof *b)) ||
      mproc_queue_create(NULL, &b->messages) < 0 || mproc_event_create(&b->done) < 0 ||
      mproc_process_create(&process, put_messages, &b, sizeof b, NULL) < 0)
    return 1;
  mproc_wait_item items[] = {{.kind = MPROC_WAIT_QUEUE, .object = b->messages},
                             {.kind = MPROC_WAIT_EVENT, .object = b->done}};
  if (mproc_notifier_create(items, 2, &notifier) < 0 || mproc_process_start(process) < 0)
    return 1;

  /* Beside it stands whatever else the loop waits for. */
  struct pollfd events[] = {{.fd = (int)mproc_notifier_handle(notifier), .events = POLLIN}};
  int done = 0;
  while (done == 0 && poll(events, 1, -1) > 0)
    done = take_what_is_there(notifier, b);
  if (done == 1)
    puts("done");
  mproc_notifier_destroy(notifier);
  return done != 1 || mproc_process_join(process, MPROC_FOREVER) < 0 ||
         mproc_process_close(process) < 0 || mproc_queue_destroy(b->messages) < 0 ||
         mproc_event_destroy(b->done) < 0 || mproc_heap_free(b) < 0;
}
