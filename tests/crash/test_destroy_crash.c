/* Who destroys an object dies, or is stopped, on the way: others are told that it is gone, or
 * destroy it themselves, nobody waits for good, and what is somebody else's by then stays so. */
#include "harness.h"
#include "members.h"

#include "ipc/queue.h"
#include "sync/layout.h"

#include <stdatomic.h>

enum { QUEUES = 64, MOST_TRIES = 500, SOON_MS = 5000 };

#define DESTROYS(what)                                                                             \
  static int destroy_##what(void *arg, size_t size) {                                              \
    (void)size;                                                                                    \
    return mproc_##what##_destroy(*(mproc_##what **)arg) == 0 ? 0 : 1;                             \
  }

DESTROYS(barrier)
DESTROYS(condition)
DESTROYS(event)
DESTROYS(queue)
DESTROYS(semaphore)
DESTROYS(value)

static mproc_process *start_process(const char *point, mproc_entry *entry, void *object,
                                    const char *method) {
  setenv("MPROC_CRASH", point, 1);
  mproc_process *process = start_by(method, entry, &object, sizeof object);
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

/* ---- at the guard of a dead destroyer -------------------------------------------------------- */

/* In the shared heap. */
typedef struct late_comer {
  mproc_barrier *barrier;
  mproc_lock *lock;
  mproc_condition *condition;
  _Atomic int comes;
} late_comer;

static late_comer *new_late_comer(void) {
  SKIP_WITHOUT_CRASH_POINTS();
  late_comer *late = mproc_heap_calloc(1, sizeof *late);
  CHECK(late != NULL);
  CHECK_EQ(mproc_barrier_create(2, &late->barrier), 0);
  CHECK_EQ(mproc_lock_create(&late->lock), 0);
  const mproc_condition_options options = {.lock = late->lock};
  CHECK_EQ(mproc_condition_create(&options, &late->condition), 0);
  return late;
}

static int come_to_barrier(void *arg, size_t size) {
  late_comer *late = *(late_comer **)arg;
  (void)size;
  late->comes = 1;
  return mproc_barrier_wait(late->barrier, SOON_MS) == MPROC_ECLOSED ? 0 : 1;
}

static int come_to_condition(void *arg, size_t size) {
  late_comer *late = *(late_comer **)arg;
  (void)size;
  CHECK_EQ(mproc_lock_acquire(late->lock, 0), 0);
  late->comes = 1;
  int r = mproc_condition_wait(late->condition, SOON_MS);
  CHECK_EQ(mproc_lock_release(late->lock), 0);
  return r == MPROC_ECLOSED ? 0 : 1;
}

static int notify_late(void *arg, size_t size) {
  late_comer *late = *(late_comer **)arg;
  (void)size;
  CHECK_EQ(mproc_lock_acquire(late->lock, 0), 0);
  late->comes = 1;
  int r = mproc_condition_notify(late->condition, 1);
  CHECK_EQ(mproc_lock_release(late->lock), 0);
  return r == MPROC_ECLOSED ? 0 : 1;
}

/* It has seen the kind, and waits for the guard that the destroyer takes along. */
static void dies_before_a_late_comer(late_comer *late, mpx_kind kind, void *object,
                                     mproc_entry *destroy, mproc_entry *come) {
  mpx_object *head = object;
  mproc_process *destroyer = start_process("object.ended:stop", destroy, object, "fork");
  await_stop(destroyer);
  head->kind = kind;
  mproc_process *comer = start_by("fork", come, &late, sizeof late);
  AWAIT(late->comes && state_of(mproc_process_pid(comer)) == 'S');
  sleep_ms(10);
  head->kind = 0;
  kill_child(destroyer);
  check_exited(comer, 0);
  head->kind = kind; /* for the next as well */
  late->comes = 0;
  check_exited(start_by("fork", come, &late, sizeof late), 0);
  head->kind = 0;
}

TEST(dies_before_a_late_comer_at_a_barrier) {
  late_comer *late = new_late_comer();
  dies_before_a_late_comer(late, MPX_KIND_BARRIER, late->barrier, destroy_barrier, come_to_barrier);
}

TEST(dies_before_a_late_comer_at_a_condition) {
  late_comer *late = new_late_comer();
  dies_before_a_late_comer(late, MPX_KIND_CONDITION, late->condition, destroy_condition,
                           come_to_condition);
  CHECK_EQ(mproc_lock_destroy(late->lock), 0);
}

/* Who comes after it is told by no death any more. */
TEST(dies_before_a_late_notify) {
  late_comer *late = new_late_comer();
  dies_before_a_late_comer(late, MPX_KIND_CONDITION, late->condition, destroy_condition,
                           notify_late);
  CHECK_EQ(mproc_lock_acquire(late->lock, 0), 0);
  late->condition->object.kind = MPX_KIND_CONDITION;
  CHECK_EQ(mproc_condition_wait(late->condition, SOON_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_lock_release(late->lock), 0);
  CHECK_EQ(mproc_condition_destroy(late->condition), MPROC_ECLOSED);
}

/* ---- asleep since the destroyer looked ------------------------------------------------------- */

enum { AT_EVENT, AT_SEMAPHORE, AT_VALUE, AT_PUT, AT_GET, AT_JOIN, PLACES };

/* In the shared heap. */
typedef struct bed {
  int place;
  mpx_kind kind;
  mproc_entry *destroy;
  void *object;
  mpx_turn *turn;
} bed;

static int sleep_in(void *arg, size_t size) {
  bed *b = *(bed **)arg;
  int64_t number;
  (void)size;
  switch (b->place) {
  case AT_EVENT:
    return mproc_event_wait(b->object, SOON_MS) == MPROC_ECLOSED ? 0 : 1;
  case AT_SEMAPHORE:
    return mproc_semaphore_acquire(b->object, SOON_MS) == MPROC_ECLOSED ? 0 : 1;
  case AT_VALUE:
    return mproc_value_wait_int64(b->object, 0, &number, SOON_MS) == MPROC_ECLOSED ? 0 : 1;
  case AT_PUT:
    return mproc_queue_put(b->object, "text", 4, SOON_MS) == MPROC_ECLOSED ? 0 : 1;
  case AT_GET:
    return mproc_queue_get(b->object, &number, 8, NULL, SOON_MS) == MPROC_ECLOSED ? 0 : 1;
  default:
    return mproc_queue_join(b->object, SOON_MS) == MPROC_ECLOSED ? 0 : 1;
  }
}

static void make_queue_bed(bed *b) {
  mproc_queue *queue = new_queue();
  b->kind = MPX_KIND_QUEUE;
  b->destroy = destroy_queue;
  b->object = queue;
  b->turn = b->place == AT_PUT   ? &queue->not_full.turn
            : b->place == AT_GET ? &queue->not_empty.turn
                                 : &queue->drained;
  for (int i = 0; b->place != AT_GET && i < 2; i++)
    CHECK_EQ(mproc_queue_put(queue, "text", 4, 0), 0);
}

static bed *new_bed(int place) {
  mproc_event *event;
  mproc_semaphore *semaphore;
  mproc_value *value;
  bed *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  b->place = place;
  if (place == AT_EVENT) {
    CHECK_EQ(mproc_event_create(&event), 0);
    *b = (bed){place, MPX_KIND_EVENT, destroy_event, event, &event->notice.turn};
  } else if (place == AT_SEMAPHORE) {
    CHECK_EQ(mproc_semaphore_create(0, NULL, &semaphore), 0);
    *b = (bed){place, MPX_KIND_SEMAPHORE, destroy_semaphore, semaphore, &semaphore->turn};
  } else if (place == AT_VALUE) {
    CHECK_EQ(mproc_value_create_int64(0, &value), 0);
    *b = (bed){place, MPX_KIND_VALUE, destroy_value, value, &value->turn};
  } else {
    make_queue_bed(b);
  }
  return b;
}

static uint32_t turns_of(const bed *b) {
  return b->turn->word & ~(uint32_t)MPX_TURN_WAITED;
}

/* The destroyer has looked whether somebody sleeps, and the sleeper whether there is an object. */
static mproc_process *fall_asleep(bed *b, mproc_process **ret_destroyer) {
  mpx_object *head = b->object;
  *ret_destroyer = start_process("object.ended:stop", b->destroy, b->object, "fork");
  await_stop(*ret_destroyer);
  head->kind = b->kind;
  mproc_process *sleeper = start_by("fork", sleep_in, &b, sizeof b);
  AWAIT(mpx_turn_is_waited(b->turn) && state_of(mproc_process_pid(sleeper)) == 'S');
  sleep_ms(10);
  return sleeper;
}

TEST(sleepers_who_came_late_are_let_go) {
  SKIP_WITHOUT_CRASH_POINTS();
  for (int place = 0; place < PLACES; place++) {
    bed *b = new_bed(place);
    mproc_process *destroyer, *sleeper = fall_asleep(b, &destroyer);
    uint32_t before = turns_of(b);
    ((mpx_object *)b->object)->kind = 0;
    go_on(destroyer);
    check_exited(destroyer, 0);
    CHECK(turns_of(b) != before);
    check_exited(sleeper, 0);
    CHECK_EQ(mproc_heap_free(b), 0);
  }
}

/* Stopped, until the memory is somebody's: as if it had gone back to the heap. */
TEST(sleepers_who_came_late_write_nothing) {
  enum { SOMEBODYS = 0x70 };
  SKIP_WITHOUT_CRASH_POINTS();
  for (int place = 0; place < PLACES; place++) {
    bed *b = new_bed(place);
    mproc_process *destroyer, *sleeper = fall_asleep(b, &destroyer);
    CHECK_EQ(kill((pid_t)mproc_process_pid(sleeper), SIGSTOP), 0);
    await_stop(sleeper);
    ((mpx_object *)b->object)->kind = 0;
    go_on(destroyer);
    check_exited(destroyer, 0);
    ((mpx_object *)b->object)->kind = SOMEBODYS;
    b->turn->word = SOMEBODYS;
    if (place == AT_EVENT)
      ((mproc_event *)b->object)->state = SOMEBODYS;
    go_on(sleeper);
    check_exited(sleeper, 0);
    CHECK_EQ(b->turn->word, SOMEBODYS);
    CHECK_EQ(mproc_heap_free(b), 0);
  }
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
  mproc_process *stuck = start_process("queue.reaped:stop", destroy_queue, old, "fork");
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
    check_killed(start_process("queue.reaped", destroy_queue, queue, method), SIGKILL);
    CHECK_EQ(mproc_queue_destroy(queue), MPROC_ECLOSED);
    CHECK_EQ(mproc_queue_put(queue, "text", 4, MPROC_FOREVER), MPROC_ECLOSED);
  }
}

static int put_into_queue(void *arg, size_t size) {
  (void)size;
  return mproc_queue_put(*(mproc_queue **)arg, "text", 4, 0);
}

/* With a place of a dead producer's, in whose ring a destroyer looks for long. */
static mproc_queue *new_queue_of_the_dead(void) {
  mproc_queue *queue = new_queue();
  check_killed(start_process("ring.filled", put_into_queue, queue, "fork"), SIGKILL);
  return queue;
}

/* Nothing goes that another destroyer looks at. */
TEST(stopped_when_it_looks_whether_a_queue_is_used) {
  SKIP_WITHOUT_CRASH_POINTS();
  mproc_queue *queue = new_queue_of_the_dead();
  mproc_process *stuck = start_process("ring.finished:stop", destroy_queue, queue, "fork");
  await_stop(stuck);
  CHECK_EQ(mproc_queue_destroy(queue), -EBUSY);
  check_is_whole(mpx_queue_check(queue));
  go_on(stuck);
  check_exited(stuck, 0);
  CHECK_EQ(mproc_queue_destroy(queue), MPROC_ECLOSED);
}

TEST(dies_when_it_looks_whether_a_queue_is_used) {
  SKIP_WITHOUT_CRASH_POINTS();
  mproc_message message;
  FOR_ALL_METHODS(method) {
    mproc_queue *queue = new_queue_of_the_dead();
    check_killed(start_process("ring.finished", destroy_queue, queue, method), SIGKILL);
    CHECK_EQ(mproc_queue_put(queue, "text", 4, 0), 0);
    CHECK_EQ(mproc_queue_get_begin(queue, &message, 0), 0);
    CHECK_EQ(mproc_queue_destroy(queue), -EBUSY);
    CHECK_EQ(mproc_queue_get_commit(queue, &message), 0);
    check_exited(start_by(method, destroy_queue, &queue, sizeof queue), 0);
  }
}
