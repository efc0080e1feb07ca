/* Who destroys an object dies, or is stopped, on the way: others are told that it is gone, or
 * destroy it themselves, nobody waits for good, and what is somebody else's by then stays so. */
#include "harness.h"
#include "members.h"

#include "ipc/queue.h"

enum { QUEUES = 64, MOST_TRIES = 500 };

static int destroy_queue(void *arg, size_t size) {
  (void)size;
  return mproc_queue_destroy(*(mproc_queue **)arg) == 0 ? 0 : 1;
}

static mproc_process *start_destroyer(const char *point, mproc_entry *destroy, void *object,
                                      const char *method) {
  setenv("MPROC_CRASH", point, 1);
  mproc_process *process = start_by(method, destroy, &object, sizeof object);
  unsetenv("MPROC_CRASH");
  return process;
}

static void await_stop(mproc_process *process) {
  CHECK(stopped_within(mproc_process_pid(process), JOIN_MS));
}

static void go_on(mproc_process *process) {
  CHECK_EQ(kill((pid_t)mproc_process_pid(process), SIGCONT), 0);
}

static mproc_queue *new_queue(void) {
  const mproc_queue_options options = {.capacity = 2};
  mproc_queue *queue;
  CHECK_EQ(mproc_queue_create(&options, &queue), 0);
  return queue;
}

/* ---- queue ----------------------------------------------------------------------------------- */

/* As many as fit, or until one is where the old one was. */
static int make_queues(const mproc_queue *old, mproc_queue **queues) {
  int count = 0;
  for (int i = 0; i < MOST_TRIES && count < QUEUES && (!count || queues[count - 1] != old); i++) {
    drain_closed();
    queues[count++] = new_queue();
  }
  return count;
}

/* What a queue has goes by its address: the next one there keeps its own. */
TEST_LIMIT(stopped_when_the_rings_are_gone, 60) {
  SKIP_WITHOUT_CRASH_POINTS();
  mproc_queue *queues[QUEUES], *old = new_queue();
  mproc_process *stuck = start_destroyer("queue.reaped:stop", destroy_queue, old, "fork");
  await_stop(stuck);
  int count = make_queues(old, queues);
  go_on(stuck);
  check_exited(stuck, 0);
  for (int i = 0; i < count; i++) {
    CHECK(mproc_heap_usable_size(queues[i]->first) > 0);
    check_is_whole(mpx_queue_check(queues[i]));
    CHECK_EQ(mproc_queue_put(queues[i], "text", 4, 0), 0);
    CHECK_EQ(mproc_queue_destroy(queues[i]), 0);
  }
}

TEST_LIMIT(dies_when_the_rings_are_gone, 60) {
  SKIP_WITHOUT_CRASH_POINTS();
  FOR_ALL_METHODS(method) {
    mproc_queue *queue = new_queue();
    check_killed(start_destroyer("queue.reaped", destroy_queue, queue, method), SIGKILL);
    CHECK_EQ(mproc_queue_destroy(queue), MPROC_ECLOSED);
    CHECK_EQ(mproc_queue_put(queue, "text", 4, MPROC_FOREVER), MPROC_ECLOSED);
  }
}
