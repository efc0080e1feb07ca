/* Who has looked at an object's kind, and goes on when it was destroyed: it is told so, as long as
 * the object is kept. The kind is put back here, which is what such a one has seen. And who comes
 * back to one whose memory is somebody's by then: that is left alone. Who destroys does not wait
 * for those who are told so. */
#include "harness.h"
#include "processes.h"

#include "sync/layout.h"

enum { SHORT_MS = 60 };

static void see_as_before(void *object, mpx_kind kind) {
  CHECK_EQ(((mpx_object *)object)->kind, 0);
  ((mpx_object *)object)->kind = kind;
}

TEST(at_a_lock) {
  mproc_lock *lock;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  CHECK_EQ(mproc_lock_destroy(lock), 0);
  see_as_before(lock, MPX_KIND_LOCK);
  CHECK_EQ(mproc_lock_acquire(lock, SHORT_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_lock_release(lock), MPROC_ECLOSED); /* nor is it opened: */
  CHECK_EQ(mproc_lock_acquire(lock, 0), MPROC_ECLOSED);
}

/* Another one has destroyed it, and its memory is somebody's by now. */
TEST(destroying_what_is_something_else) {
  mpx_object head = {7};
  CHECK_EQ(mpx_object_end(&head, MPX_KIND_LOCK), MPROC_ECLOSED);
  CHECK_EQ(head.kind, 7);
}

/* One who died in the middle of destroying it has closed it; another one goes on. */
TEST(after_one_who_died_destroying) {
  mproc_lock *lock;
  mproc_rwlock *rwlock;
  mproc_condition *condition;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  CHECK_EQ(mproc_rwlock_create(&rwlock), 0);
  CHECK_EQ(mproc_condition_create(NULL, &condition), 0);
  lock->mutex.word = rwlock->writer.word = condition->rlock->mutex.word = ~(uint64_t)0;
  CHECK_EQ(mproc_lock_destroy(lock), 0);
  CHECK_EQ(mproc_lock_destroy(lock), MPROC_ECLOSED);
  CHECK_EQ(mproc_rwlock_destroy(rwlock), 0);
  CHECK_EQ(mproc_rwlock_destroy(rwlock), MPROC_ECLOSED);
  CHECK_EQ(mproc_condition_destroy(condition), 0);
  CHECK_EQ(mproc_condition_destroy(condition), MPROC_ECLOSED);
}

TEST(at_an_rlock) {
  mproc_rlock *rlock;
  CHECK_EQ(mproc_rlock_create(&rlock), 0);
  CHECK_EQ(mproc_rlock_destroy(rlock), 0);
  see_as_before(rlock, MPX_KIND_RLOCK);
  CHECK_EQ(mproc_rlock_acquire(rlock, SHORT_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_rlock_release(rlock), -EPERM);
}

TEST(at_a_rwlock) {
  mproc_rwlock *rwlock;
  CHECK_EQ(mproc_rwlock_create(&rwlock), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(rwlock, 0), 0); /* makes its roster */
  CHECK_EQ(mproc_rwlock_release(rwlock), 0);
  CHECK_EQ(mproc_rwlock_destroy(rwlock), 0);
  see_as_before(rwlock, MPX_KIND_RWLOCK);
  CHECK_EQ(mproc_rwlock_readers(rwlock), 0); /* a walk finds the roster, and nobody */
  CHECK_EQ(mproc_rwlock_acquire_read(rwlock, SHORT_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_rwlock_acquire_write(rwlock, SHORT_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_rwlock_release(rwlock), -EPERM);
}

/* Holds the lock, and is about to stand in. */
TEST(at_a_condition) {
  mproc_lock *lock;
  mproc_condition *condition;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  CHECK_EQ(mproc_condition_create(&(mproc_condition_options){.lock = lock}, &condition), 0);
  CHECK_EQ(mproc_condition_acquire(condition, 0), 0);
  CHECK_EQ(mproc_condition_wait(condition, 0), -EAGAIN); /* makes its roster */
  CHECK_EQ(mproc_condition_destroy(condition), 0);
  see_as_before(condition, MPX_KIND_CONDITION);
  CHECK_EQ(mproc_condition_wait(condition, SHORT_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_condition_notify(condition, 1), MPROC_ECLOSED);
  CHECK_EQ(mproc_lock_locked(lock), 1);
  CHECK_EQ(mproc_lock_release(lock), 0);
  CHECK_EQ(mproc_lock_destroy(lock), 0);
}

TEST(at_a_barrier) {
  mproc_barrier *barrier;
  CHECK_EQ(mproc_barrier_create(2, &barrier), 0);
  CHECK_EQ(mproc_barrier_wait(barrier, 1), -ETIMEDOUT); /* makes its roster */
  CHECK_EQ(mproc_barrier_reset(barrier), 0);
  CHECK_EQ(mproc_barrier_destroy(barrier), 0);
  see_as_before(barrier, MPX_KIND_BARRIER);
  CHECK_EQ(mproc_barrier_wait(barrier, SHORT_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_barrier_n_waiting(barrier), MPROC_ECLOSED);
  CHECK_EQ(mproc_barrier_reset(barrier), MPROC_ECLOSED);
  CHECK_EQ(mproc_barrier_abort(barrier), MPROC_ECLOSED);
}

/* ---- who was let go -------------------------------------------------------------------------- */

/* What somebody waits for, where he sleeps, and the least time that it took to destroy one. */
typedef struct gate {
  mproc_event *event;
  mproc_value *value;
  mproc_semaphore *semaphore;
  mpx_turn *turn;
  int64_t least_ns;
} gate;

static void *wait_at_gate(void *arg) {
  gate *g = arg;
  int64_t number;
  int r = g->event   ? mproc_event_wait(g->event, MPROC_FOREVER)
          : g->value ? mproc_value_wait_int64(g->value, 0, &number, MPROC_FOREVER)
                     : mproc_semaphore_acquire(g->semaphore, MPROC_FOREVER);
  CHECK_EQ(r, 0);
  return NULL;
}

static void open_gate(gate *g) {
  int r = g->event   ? mproc_event_set(g->event)
          : g->value ? mproc_value_set_int64(g->value, 1)
                     : mproc_semaphore_release(g->semaphore, 2);
  CHECK_EQ(r, 0);
  int64_t from = mpx_os_now();
  do /* -EBUSY: he looked just now by himself */
    r = g->event   ? mproc_event_destroy(g->event)
        : g->value ? mproc_value_destroy(g->value)
                   : mproc_semaphore_destroy(g->semaphore);
  while (r == -EBUSY);
  CHECK_EQ(r, 0);
  int64_t took = mpx_os_now() - from;
  g->least_ns = took < g->least_ns ? took : g->least_ns;
}

/* They are told by the block that is kept, and the destroyer need not wait until they are gone. */
TEST(destroying_what_let_somebody_go) {
  for (int kind = 0; kind < 3; kind++) {
    gate g = {.least_ns = INT64_MAX};
    for (int i = 0; i < 10; i++) {
      pthread_t thread;
      if (kind == 0)
        CHECK_EQ(mproc_event_create(&g.event), 0);
      if (kind == 1)
        CHECK_EQ(mproc_value_create_int64(0, &g.value), 0);
      if (kind == 2)
        CHECK_EQ(mproc_semaphore_create(0, NULL, &g.semaphore), 0);
      g.turn = kind == 0 ? &g.event->notice.turn : kind == 1 ? &g.value->turn : &g.semaphore->turn;
      CHECK_EQ(pthread_create(&thread, NULL, wait_at_gate, &g), 0);
      AWAIT(mpx_turn_has_sleepers(g.turn));
      open_gate(&g);
      CHECK_EQ(pthread_join(thread, NULL), 0);
    }
    CHECK(g.least_ns < MPX_TURN_GRACE_NS);
  }
}

/* ---- what is somebody's by then -------------------------------------------------------------- */

enum { SOMEBODYS = 7 };

/* As if it had gone back to the heap and been given to somebody; here nobody else has it. */
static void reuse(void *object) {
  mproc_lock *lock = object; /* an RLock begins in the same way */
  CHECK_EQ(lock->object.kind, 0);
  lock->object.kind = SOMEBODYS;
  lock->mutex.word = 0;
}

static void check_untouched(const void *object) {
  const mproc_lock *lock = object;
  CHECK_EQ(lock->object.kind, SOMEBODYS);
  CHECK_EQ(lock->mutex.word, 0);
}

TEST(destroying_an_array_without_its_lock) {
  mproc_array *array;
  CHECK_EQ(mproc_array_create(4, 8, &array), 0);
  mproc_lock *lock = mproc_array_lock(array);
  CHECK_EQ(mproc_lock_destroy(lock), 0);
  reuse(lock);
  CHECK_EQ(mproc_array_destroy(array), 0);
  CHECK_EQ(mproc_array_destroy(array), MPROC_ECLOSED);
  check_untouched(lock);
}

/* In the shared heap: who sleeps where. */
typedef struct taker {
  mproc_lock *lock;
  mproc_rlock *rlock;
  mproc_rwlock *rwlock;
  int how;
  _Atomic int comes;
} taker;

enum { AT_LOCK, AT_RLOCK, READS, WRITES, HOWS };

static int take_by(const taker *t, int timeout_ms) {
  return t->how == AT_LOCK    ? mproc_lock_acquire(t->lock, timeout_ms)
         : t->how == AT_RLOCK ? mproc_rlock_acquire(t->rlock, timeout_ms)
         : t->how == READS    ? mproc_rwlock_acquire_read(t->rwlock, timeout_ms)
                              : mproc_rwlock_acquire_write(t->rwlock, timeout_ms);
}

static int take_late(void *arg, size_t size) {
  taker *t = *(taker **)arg;
  (void)size;
  t->comes = 1;
  return take_by(t, MPROC_FOREVER) == MPROC_ECLOSED ? 0 : 1;
}

static void release_and_destroy(const taker *t) {
  int r = t->how == AT_LOCK    ? mproc_lock_release(t->lock)
          : t->how == AT_RLOCK ? mproc_rlock_release(t->rlock)
                               : mproc_rwlock_release(t->rwlock);
  CHECK_EQ(r, 0);
  r = t->how == AT_LOCK    ? mproc_lock_destroy(t->lock)
      : t->how == AT_RLOCK ? mproc_rlock_destroy(t->rlock)
                           : mproc_rwlock_destroy(t->rwlock);
  CHECK_EQ(r, 0);
}

/* Stopped until the memory is somebody's: all of it looks like an open lock. */
static void stopped_taker(taker *t) {
  CHECK_EQ(mproc_lock_create(&t->lock), 0);
  CHECK_EQ(mproc_rlock_create(&t->rlock), 0);
  CHECK_EQ(mproc_rwlock_create(&t->rwlock), 0);
  void *object = t->how == AT_LOCK    ? (void *)t->lock
                 : t->how == AT_RLOCK ? (void *)t->rlock
                                      : (void *)t->rwlock;
  t->comes = 0;
  CHECK_EQ(t->how == READS ? mproc_rwlock_acquire_write(t->rwlock, 0) : take_by(t, 0), 0);
  mproc_process *child = start_by("fork", take_late, &t, sizeof t);
  AWAIT(t->comes && state_of(mproc_process_pid(child)) == 'S');
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(child), JOIN_MS));
  release_and_destroy(t);
  uint64_t *words = object, zero[8] = {SOMEBODYS};
  CHECK_EQ(((mpx_object *)object)->kind, 0);
  memcpy(words, zero, sizeof zero);
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGCONT), 0);
  check_exited(child, 0);
  CHECK_EQ(memcmp(words, zero, sizeof zero), 0);
}

TEST(back_to_a_lock) {
  taker *t = mproc_heap_calloc(1, sizeof *t);
  CHECK(t != NULL);
  for (t->how = 0; t->how < HOWS; t->how++)
    stopped_taker(t);
  CHECK_EQ(mproc_heap_free(t), 0);
}

/* In the shared heap: a barrier of one, whose action lasts until `release`. */
typedef struct scene {
  mproc_barrier *barrier;
  _Atomic int acts, release, comes;
} scene;

static int act(void *arg) {
  scene *s = arg;
  s->acts = 1;
  AWAIT(s->release);
  return 0;
}

static void *act_in_thread(void *arg) {
  scene *s = arg;
  CHECK_EQ(mproc_barrier_wait_action(s->barrier, act, s, MPROC_FOREVER), 0);
  return NULL;
}

static int come_late(void *arg, size_t size) {
  scene *s = *(scene **)arg;
  (void)size;
  s->comes = 1;
  return mproc_barrier_wait(s->barrier, MPROC_FOREVER) == MPROC_ECLOSED ? 0 : 1;
}

/* Who waits for room is not in the barrier yet. */
static void stopped_comer(uint64_t first_word) {
  scene *s = mproc_heap_calloc(1, sizeof *s);
  const uint64_t zero[8] = {first_word};
  pthread_t actor;
  CHECK(s != NULL);
  CHECK_EQ(mproc_barrier_create(1, &s->barrier), 0);
  CHECK_EQ(pthread_create(&actor, NULL, act_in_thread, s), 0);
  AWAIT(s->acts);
  mproc_process *child = start_by("fork", come_late, &s, sizeof s);
  AWAIT(s->comes && state_of(mproc_process_pid(child)) == 'S');
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(child), JOIN_MS));
  s->release = 1;
  CHECK_EQ(pthread_join(actor, NULL), 0);
  CHECK_EQ(mproc_barrier_destroy(s->barrier), 0);
  memcpy((void *)s->barrier, zero, sizeof zero);
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGCONT), 0);
  check_exited(child, 0);
  CHECK_EQ(memcmp(s->barrier, zero, sizeof zero), 0);
  CHECK_EQ(mproc_heap_free(s), 0);
}

TEST(back_to_a_barrier) {
  stopped_comer(SOMEBODYS);
  stopped_comer(MPX_KIND_LOCK); /* that is no matter of the caller's kind of object */
}

static int wait_late(void *arg, size_t size) {
  int64_t number;
  (void)size;
  int r = mproc_value_wait_int64(*(mproc_value **)arg, 0, &number, MPROC_FOREVER);
  return r == MPROC_ECLOSED && strstr(mproc_error_detail(), "was destroyed") ? 0 : 1;
}

TEST(back_to_a_value) {
  mproc_value *value;
  CHECK_EQ(mproc_value_create_int64(0, &value), 0);
  mproc_process *child = start_by("fork", wait_late, &value, sizeof value);
  AWAIT(mpx_turn_has_sleepers(&value->turn));
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(child), JOIN_MS));
  CHECK_EQ(mproc_value_destroy(value), 0);
  ((mpx_object *)value)->kind = MPX_KIND_LOCK; /* as another's, by then */
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGCONT), 0);
  check_exited(child, 0);
}

typedef struct sleeper {
  mproc_condition *condition;
  _Atomic int stands; /* under the condition's lock */
} sleeper;

static void *wait_for_little(void *arg) {
  sleeper *s = arg;
  CHECK_EQ(mproc_condition_acquire(s->condition, 0), 0);
  s->stands = 1;
  int r = mproc_condition_wait(s->condition, 10 * SHORT_MS);
  return r == MPROC_ECLOSED ? arg : NULL;
}

static void sleep_without_lock(const mproc_condition_options *options, void *lock,
                               int (*destroy)(void *)) {
  sleeper s = {.stands = 0};
  pthread_t thread;
  void *was_told;
  int r;
  CHECK_EQ(mproc_condition_create(options, &s.condition), 0);
  CHECK_EQ(pthread_create(&thread, NULL, wait_for_little, &s), 0);
  AWAIT(s.stands);
  while ((r = destroy(lock)) == -EBUSY)
    sleep_ms(1);
  CHECK_EQ(r, 0);
  reuse(lock);
  CHECK_EQ(pthread_join(thread, &was_told), 0);
  CHECK(was_told != NULL);
  check_untouched(lock);
  CHECK_EQ(mproc_condition_destroy(s.condition), 0);
}

static int destroy_lock(void *lock) {
  return mproc_lock_destroy(lock);
}

static int destroy_rlock(void *rlock) {
  return mproc_rlock_destroy(rlock);
}

TEST(back_from_a_condition_to_a_lock) {
  mproc_lock *lock;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  sleep_without_lock(&(mproc_condition_options){.lock = lock}, lock, destroy_lock);
}

TEST(back_from_a_condition_to_an_rlock) {
  mproc_rlock *rlock;
  CHECK_EQ(mproc_rlock_create(&rlock), 0);
  sleep_without_lock(&(mproc_condition_options){.rlock = rlock}, rlock, destroy_rlock);
}
