/* Who destroys an object dies, or is stopped, on the way: others are told that it is gone, or
 * destroy it themselves, nobody waits for good, and what is somebody else's by then stays so. */
#include "harness.h"
#include "members.h"

#include "ipc/queue.h"
#include "sync/layout.h"

#include <stdatomic.h>

enum { QUEUES = 64, MOST_TRIES = 500, SOON_MS = 5000, SOMEBODYS = 0x70 };

/* As every object is made and destroyed, here and by a process. */
#define OBJECT(what, ...)                                                                          \
  static void *make_##what(void) {                                                                 \
    mproc_##what *made = NULL;                                                                     \
    CHECK_EQ(__VA_ARGS__, 0);                                                                      \
    return made;                                                                                   \
  }                                                                                                \
  static int end_##what(void *object) {                                                            \
    return mproc_##what##_destroy(object);                                                         \
  }                                                                                                \
  static int destroy_##what(void *arg, size_t size) {                                              \
    (void)size;                                                                                    \
    return end_##what(*(void **)arg) == 0 ? 0 : 1;                                                 \
  }

OBJECT(lock, mproc_lock_create(&made))
OBJECT(rlock, mproc_rlock_create(&made))
OBJECT(rwlock, mproc_rwlock_create(&made))
OBJECT(semaphore, mproc_semaphore_create(0, NULL, &made))
OBJECT(condition, mproc_condition_create(NULL, &made))
OBJECT(event, mproc_event_create(&made))
OBJECT(barrier, mproc_barrier_create(2, &made))
OBJECT(value, mproc_value_create_int64(0, &made))
OBJECT(array, mproc_array_create(4, 8, &made))
OBJECT(queue, mproc_queue_create(&(mproc_queue_options){.capacity = 2}, &made))

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

/* ---- before it waits again ------------------------------------------------------------------- */

static int wait_for_one(void *arg, size_t size) {
  int64_t number = 0;
  (void)size;
  int r = mproc_value_wait_int64(*(mproc_value **)arg, 0, &number, MPROC_FOREVER);
  return r == 0 && number == 1 ? 0 : 1;
}

/* What the value became counts though the turn that was given for it came before the mark. */
TEST(value_that_is_set_and_destroyed_before_the_mark) {
  SKIP_WITHOUT_CRASH_POINTS();
  mproc_value *value = make_value();
  mproc_process *waiter = start_process("value.waits:stop:2", wait_for_one, value, "fork");
  await_stop(waiter);
  CHECK_EQ(mproc_value_set_int64(value, 1), 0);
  CHECK_EQ(mproc_value_destroy(value), 0);
  go_on(waiter);
  check_exited(waiter, 0);
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
  head->kind = kind; /* the next has the guard already */
  late->comes = 0;
  comer = start_process("mutex.taken:stop", come, late, "fork");
  await_stop(comer);
  head->kind = 0;
  go_on(comer);
  check_exited(comer, 0);
  head->kind = kind; /* and has closed it for whoever comes */
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
  mproc_queue *queue = make_queue();
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
  bed *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  b->place = place;
  if (place == AT_EVENT) {
    mproc_event *event = make_event();
    *b = (bed){place, MPX_KIND_EVENT, destroy_event, event, &event->notice.turn};
  } else if (place == AT_SEMAPHORE) {
    mproc_semaphore *semaphore = make_semaphore();
    *b = (bed){place, MPX_KIND_SEMAPHORE, destroy_semaphore, semaphore, &semaphore->turn};
  } else if (place == AT_VALUE) {
    mproc_value *value = make_value();
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

TEST(sleepers_who_came_late_look_after_the_dead) {
  SKIP_WITHOUT_CRASH_POINTS();
  for (int place = 0; place < PLACES; place++) {
    bed *b = new_bed(place);
    mproc_process *destroyer, *sleeper = fall_asleep(b, &destroyer);
    ((mpx_object *)b->object)->kind = 0;
    kill_child(destroyer);
    check_exited(sleeper, 0);
    CHECK_EQ(mproc_heap_free(b), 0);
  }
}

/* Stopped, until the memory is somebody's: as if it had gone back to the heap. */
static void memory_is_somebodys(int place, uint32_t word) {
  bed *b = new_bed(place);
  if (place == AT_EVENT) { /* so that it counts */
    CHECK_EQ(mproc_event_set(b->object), 0);
    CHECK_EQ(mproc_event_clear(b->object), 0);
  }
  mproc_process *destroyer, *sleeper = fall_asleep(b, &destroyer);
  CHECK_EQ(kill((pid_t)mproc_process_pid(sleeper), SIGSTOP), 0);
  await_stop(sleeper);
  ((mpx_object *)b->object)->kind = 0;
  go_on(destroyer);
  check_exited(destroyer, 0);
  ((mpx_object *)b->object)->kind = word;
  b->turn->word = word;
  if (place == AT_EVENT)
    ((mproc_event *)b->object)->state = word;
  if (place == AT_SEMAPHORE)
    ((mproc_semaphore *)b->object)->value = SOMEBODYS;
  if (place == AT_VALUE)
    ((mproc_value *)b->object)->bits = SOMEBODYS;
  go_on(sleeper);
  check_exited(sleeper, 0);
  CHECK_EQ(b->turn->word, word);
  if (place == AT_SEMAPHORE)
    CHECK_EQ(((mproc_semaphore *)b->object)->value, SOMEBODYS);
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST(sleepers_who_came_late_write_nothing) {
  SKIP_WITHOUT_CRASH_POINTS();
  for (int place = 0; place < PLACES; place++) {
    memory_is_somebodys(place, SOMEBODYS);
    memory_is_somebodys(place, 0);
  }
}

/* ---- dying on the way ------------------------------------------------------------------------ */

static int use_rwlock(void *rwlock) {
  int r = mproc_rwlock_acquire_read(rwlock, SOON_MS);
  return r == MPROC_ECLOSED ? mproc_rwlock_acquire_write(rwlock, SOON_MS) : r;
}

static int use_condition(void *condition) {
  return mproc_condition_acquire(condition, SOON_MS);
}

static int use_array(void *array) {
  mproc_lock *lock = mproc_array_lock(array);
  return lock ? mproc_lock_acquire(lock, SOON_MS) : MPROC_ECLOSED;
}

static int use_lock(void *lock) {
  return mproc_lock_acquire(lock, SOON_MS);
}

static int use_rlock(void *rlock) {
  return mproc_rlock_acquire(rlock, SOON_MS);
}

static int use_semaphore(void *semaphore) {
  return mproc_semaphore_acquire(semaphore, SOON_MS);
}

static int use_event(void *event) {
  return mproc_event_wait(event, SOON_MS);
}

static int use_barrier(void *barrier) {
  return mproc_barrier_wait(barrier, SOON_MS);
}

static int use_value(void *value) {
  int64_t number;
  return mproc_value_wait_int64(value, 0, &number, SOON_MS);
}

static int use_queue(void *queue) {
  int number;
  int r = mproc_queue_get(queue, &number, sizeof number, NULL, SOON_MS);
  return r == MPROC_ECLOSED ? mproc_queue_put(queue, "text", 4, SOON_MS) : r;
}

typedef struct thing {
  void *(*make)(void);
  mproc_entry *destroy;
  int (*end)(void *object);
  int (*use)(void *object);
  bool has_lock;  /* that is closed first */
  bool has_other; /* an object of its own, which ends after it */
} thing;

#define THING(what, has_lock, has_other)                                                           \
  { make_##what, destroy_##what, end_##what, use_##what, has_lock, has_other }

static const thing things[] = {
    THING(lock, true, false),       THING(rlock, true, false),    THING(rwlock, true, false),
    THING(semaphore, false, false), THING(condition, true, true), THING(event, false, false),
    THING(barrier, false, false),   THING(value, false, false),   THING(array, true, true),
    THING(queue, false, false),
};
enum { THINGS = sizeof things / sizeof things[0] };

/* What another one is told who destroys it after the dead one. */
static void dies_destroying(const thing *one, const char *point, int expected, const char *method) {
  void *object = one->make();
  check_killed(start_process(point, one->destroy, object, method), SIGKILL);
  CHECK_EQ(one->use(object), MPROC_ECLOSED);
  CHECK_EQ(one->end(object), expected);
  CHECK_EQ(one->end(object), MPROC_ECLOSED);
  CHECK_EQ(one->use(object), MPROC_ECLOSED);
}

TEST_LIMIT(dies_when_it_has_closed_a_lock, 60) {
  SKIP_WITHOUT_CRASH_POINTS();
  FOR_ALL_METHODS(method)
  for (int i = 0; i < THINGS; i++)
    if (things[i].has_lock)
      dies_destroying(&things[i], "mutex.closed", 0, method);
}

TEST_LIMIT(dies_when_the_object_has_ended, 60) {
  SKIP_WITHOUT_CRASH_POINTS();
  FOR_ALL_METHODS(method)
  for (int i = 0; i < THINGS; i++) {
    dies_destroying(&things[i], "object.ended", MPROC_ECLOSED, method);
    if (things[i].has_other)
      dies_destroying(&things[i], "object.ended:2", MPROC_ECLOSED, method);
  }
}

/* ---- queue ----------------------------------------------------------------------------------- */

/* As many as fit, or until one is where the old one was. */
static int make_queues(const mproc_queue *old, mproc_queue **queues) {
  int count = 0;
  for (int i = 0; i < MOST_TRIES && count < QUEUES && (!count || queues[count - 1] != old); i++) {
    drain_closed();
    queues[count++] = make_queue();
  }
  return count;
}

/* Stopped before it has written anything, until the memory is somebody's. */
TEST(stopped_before_a_queue_that_is_somebodys) {
  const mpx_thread words[] = {0, 0x7070};
  SKIP_WITHOUT_CRASH_POINTS();
  for (int i = 0; i < 2; i++) {
    mproc_queue *queue = make_queue();
    mproc_process *stuck = start_process("queue.destroys:stop", destroy_queue, queue, "fork");
    await_stop(stuck);
    queue->object.kind = SOMEBODYS;
    queue->destroyer = words[i];
    go_on(stuck);
    check_exited(stuck, 1);
    CHECK_EQ(queue->destroyer, words[i]);
    queue->object.kind = MPX_KIND_QUEUE;
    queue->destroyer = 0;
    CHECK_EQ(mproc_queue_destroy(queue), 0);
  }
}

TEST(dies_before_it_destroys_a_queue) {
  SKIP_WITHOUT_CRASH_POINTS();
  FOR_ALL_METHODS(method) {
    mproc_queue *queue = make_queue();
    check_killed(start_process("queue.destroys", destroy_queue, queue, method), SIGKILL);
    CHECK_EQ(mproc_queue_put(queue, "text", 4, 0), 0);
    CHECK_EQ(mproc_queue_destroy(queue), 0);
  }
}

/* What a queue has goes by its address: the next one there keeps its own. */
TEST_LIMIT(stopped_when_the_rings_are_gone, 60) {
  SKIP_WITHOUT_CRASH_POINTS();
  mproc_queue *queues[QUEUES], *old = make_queue();
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
    mproc_queue *queue = make_queue();
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
static mproc_queue *make_queue_of_the_dead(void) {
  mproc_queue *queue = make_queue();
  check_killed(start_process("ring.filled", put_into_queue, queue, "fork"), SIGKILL);
  return queue;
}

/* Nothing goes that another destroyer looks at. */
TEST(stopped_when_it_looks_whether_a_queue_is_used) {
  SKIP_WITHOUT_CRASH_POINTS();
  mproc_queue *queue = make_queue_of_the_dead();
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
    mproc_queue *queue = make_queue_of_the_dead();
    check_killed(start_process("ring.finished", destroy_queue, queue, method), SIGKILL);
    CHECK_EQ(mproc_queue_put(queue, "text", 4, 0), 0);
    CHECK_EQ(mproc_queue_get_begin(queue, &message, 0), 0);
    CHECK_EQ(mproc_queue_destroy(queue), -EBUSY);
    CHECK_EQ(mproc_queue_get_commit(queue, &message), 0);
    check_exited(start_by(method, destroy_queue, &queue, sizeof queue), 0);
  }
}
