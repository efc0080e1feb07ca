/* The checks that other tests of locks and signals rely on: healthy objects pass in every state. */
#include "damage.h"

#include <pthread.h>

/* ---- what can be held ------------------------------------------------------------------------ */

/* A sort of lock. */
typedef struct sort {
  object_check *check;
  int (*acquire)(void *object, int timeout_ms);
  int (*release)(void *object);
  int (*consistent)(void *object);
  bool (*is_waited)(const void *object);
} sort;

#define LOCK_BY(name, acquire)                                                                     \
  static int name##_acquire(void *object, int timeout_ms) {                                        \
    return mproc_##acquire(object, timeout_ms);                                                    \
  }                                                                                                \
  static int name##_release(void *object) {                                                        \
    return mproc_##name##_release(object);                                                         \
  }
#define LOCK_OF(name, acquire)                                                                     \
  LOCK_BY(name, acquire)                                                                           \
  static int name##_consistent(void *object) {                                                     \
    return mproc_##name##_consistent(object);                                                      \
  }

LOCK_OF(lock, lock_acquire)
LOCK_OF(rlock, rlock_acquire)
LOCK_OF(rwlock, rwlock_acquire_write)
LOCK_OF(condition, condition_acquire)

static bool lock_is_waited(const void *object) {
  return (((const mproc_lock *)object)->mutex.word & MPX_MUTEX_WAITED) != 0;
}

static bool rlock_is_waited(const void *object) {
  return (((const mproc_rlock *)object)->mutex.word & MPX_MUTEX_WAITED) != 0;
}

static bool writer_is_waited(const void *object) {
  return (((const mproc_rwlock *)object)->writer.word & MPX_MUTEX_WAITED) != 0;
}

static bool condition_is_waited(const void *object) {
  return rlock_is_waited(((const mproc_condition *)object)->rlock);
}

static int semaphore_acquire(void *object, int timeout_ms) {
  return mproc_semaphore_acquire(object, timeout_ms);
}

static int semaphore_release(void *object) {
  return mproc_semaphore_release(object, 1);
}

static bool semaphore_is_waited(const void *object) {
  return mpx_turn_is_waited(&((const mproc_semaphore *)object)->turn);
}

static const sort locks = {check_lock, lock_acquire, lock_release, lock_consistent, lock_is_waited};
static const sort rlocks = {check_rlock, rlock_acquire, rlock_release, rlock_consistent,
                            rlock_is_waited};
static const sort writers = {check_rwlock, rwlock_acquire, rwlock_release, rwlock_consistent,
                             writer_is_waited};
static const sort conditions = {check_condition, condition_acquire, condition_release,
                                condition_consistent, condition_is_waited};
static const sort permits = {check_semaphore, semaphore_acquire, semaphore_release, NULL,
                             semaphore_is_waited};

/* For a thread or a child. */
typedef struct job {
  const sort *of;
  void *object;
} job;

static void *take_and_give(void *arg) {
  const job *j = arg;
  CHECK_OK(j->of->acquire(j->object, MPROC_FOREVER));
  CHECK_EQ(j->of->release(j->object), 0);
  return NULL;
}

static int take_and_die(void *arg, size_t size) {
  const job *j = arg;
  (void)size;
  CHECK_OK(j->of->acquire(j->object, MPROC_FOREVER));
  raise(SIGKILL);
  return 0;
}

/* Another sleeps for what we hold, gets it and gives it back. */
static void check_waited(const job *j) {
  pthread_t thread;
  CHECK_OK(j->of->acquire(j->object, 0));
  check_passes(j->of->check, j->object);
  CHECK_EQ(pthread_create(&thread, NULL, take_and_give, (void *)(uintptr_t)j), 0);
  AWAIT(j->of->is_waited(j->object));
  check_keeps_passing(j->of->check, j->object);
  CHECK_EQ(j->of->release(j->object), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  check_passes(j->of->check, j->object);
}

/* Held by the dead, by one who was told, open and not repaired, repaired. */
static void check_of_the_dead(const job *j) {
  check_killed(start_by("fork", take_and_die, j, sizeof *j), SIGKILL);
  check_passes(j->of->check, j->object);
  CHECK_EQ(j->of->acquire(j->object, 0), MPROC_OWNER_DIED);
  check_passes(j->of->check, j->object);
  CHECK_EQ(j->of->release(j->object), 0);
  check_passes(j->of->check, j->object);
  if (!j->of->consistent)
    return;
  CHECK_EQ(j->of->acquire(j->object, 0), MPROC_OWNER_DIED);
  CHECK_EQ(j->of->consistent(j->object), 0);
  check_passes(j->of->check, j->object);
  CHECK_EQ(j->of->release(j->object), 0);
  check_passes(j->of->check, j->object);
}

static void live_through(const sort *of, void *object) {
  const job j = {of, object};
  check_passes(of->check, object);
  check_waited(&j);
  check_of_the_dead(&j);
  check_waited(&j);
}

TEST(locks) {
  mproc_lock *lock;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  live_through(&locks, lock);
  CHECK_EQ(mproc_lock_acquire(lock, 0), 0);
  CHECK_EQ(mproc_lock_destroy(lock), -EBUSY);
  check_passes(check_lock, lock);
  CHECK_EQ(mproc_lock_release(lock), 0);
  CHECK_EQ(mproc_lock_destroy(lock), 0);
  CHECK_EQ(mpx_lock_check(lock), MPROC_ECLOSED);
}

TEST(rlocks) {
  mproc_rlock *rlock;
  CHECK_EQ(mproc_rlock_create(&rlock), 0);
  live_through(&rlocks, rlock);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(mproc_rlock_acquire(rlock, 0), 0);
    check_passes(check_rlock, rlock);
  }
  check_passes(check_rlock, rlock);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(mproc_rlock_release(rlock), 0);
    check_passes(check_rlock, rlock);
  }
  CHECK_EQ(mproc_rlock_destroy(rlock), 0);
}

/* ---- readers --------------------------------------------------------------------------------- */

static int read_twice(void *object, int timeout_ms) {
  int r = mproc_rwlock_acquire_read(object, timeout_ms);
  return r < 0 ? r : mproc_rwlock_acquire_read(object, timeout_ms);
}

static int give_twice(void *object) {
  int r = mproc_rwlock_release(object);
  return r < 0 ? r : mproc_rwlock_release(object);
}

static bool turn_is_waited(const void *object) {
  return mpx_turn_is_waited(&((const mproc_rwlock *)object)->turn);
}

TEST(rwlocks) {
  static const sort readers = {check_rwlock, read_twice, give_twice, NULL, NULL};
  mproc_rwlock *rwlock;
  pthread_t thread;
  CHECK_EQ(mproc_rwlock_create(&rwlock), 0);
  live_through(&writers, rwlock);
  const job reads = {&readers, rwlock}, writes = {&writers, rwlock};
  CHECK_EQ(read_twice(rwlock, 0), 0);
  check_passes(check_rwlock, rwlock);
  /* as many as a second chunk is for */
  for (int i = 0; i <= MPX_CHUNK_ENTRIES; i++)
    check_killed(start_by("fork", take_and_die, &reads, sizeof reads), SIGKILL);
  CHECK(((mpx_chunk *)rwlock->readers.first)->next != NULL);
  check_passes(check_rwlock, rwlock);
  /* a writer sleeps until the living are gone */
  CHECK_EQ(pthread_create(&thread, NULL, take_and_give, (void *)(uintptr_t)&writes), 0);
  AWAIT(turn_is_waited(rwlock));
  check_keeps_passing(check_rwlock, rwlock);
  CHECK_EQ(give_twice(rwlock), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  check_passes(check_rwlock, rwlock);
  CHECK_EQ(mproc_rwlock_destroy(rwlock), 0);
}

/* ---- semaphore ------------------------------------------------------------------------------- */

TEST(semaphores) {
  const mproc_semaphore_options sorts[] = {{.bounded = 0}, {.bounded = 1}, {.tracked = 1}};
  for (size_t i = 0; i < sizeof sorts / sizeof sorts[0]; i++)
    for (int count = 0; count < 30; count += 1 + count / 2) {
      mproc_semaphore *semaphore;
      CHECK_EQ(mproc_semaphore_create(count, &sorts[i], &semaphore), 0);
      for (int k = 0; k < count; k++) {
        check_passes(check_semaphore, semaphore);
        CHECK_EQ(mproc_semaphore_acquire(semaphore, 0), 0);
      }
      check_passes(check_semaphore, semaphore);
      CHECK_EQ(mproc_semaphore_acquire(semaphore, 0), -EAGAIN);
      if (count > 0)
        CHECK_EQ(mproc_semaphore_release(semaphore, count), 0);
      if (i == 0)
        CHECK_EQ(mproc_semaphore_release(semaphore, MPX_SEMAPHORE_MOST - count), 0);
      check_passes(check_semaphore, semaphore);
      CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);
    }
}

TEST(permits) {
  const mproc_semaphore_options tracked = {.tracked = 1};
  mproc_semaphore *semaphore;
  CHECK_EQ(mproc_semaphore_create(1, &tracked, &semaphore), 0);
  live_through(&permits, semaphore);
  CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);
  CHECK_EQ(mproc_semaphore_create(2, NULL, &semaphore), 0);
  const job j = {&permits, semaphore};
  check_killed(start_by("fork", take_and_die, &j, sizeof j), SIGKILL);
  check_passes(check_semaphore, semaphore);
  check_waited(&j);
  CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);
}

/* ---- condition ------------------------------------------------------------------------------- */

typedef struct waiter {
  mproc_condition *condition;
  int timeout_ms, depth;
} waiter;

static void *wait_in_condition(void *arg) {
  const waiter *w = arg;
  for (int i = 0; i < w->depth; i++)
    CHECK_OK(mproc_condition_acquire(w->condition, MPROC_FOREVER));
  int r = mproc_condition_wait(w->condition, w->timeout_ms);
  CHECK(r >= 0 || r == -ETIMEDOUT);
  for (int i = 0; i < w->depth; i++)
    CHECK_EQ(mproc_condition_release(w->condition), 0);
  return NULL;
}

static int wait_in_child(void *arg, size_t size) {
  (void)size;
  (void)wait_in_condition(arg);
  return 0;
}

static int count_entries(const mpx_roster *roster) {
  int count = 0;
  for (const mpx_entry *entry = NULL; (entry = mpx_roster_next(roster, entry));)
    count++;
  return count;
}

static bool has_heir(const mpx_roster *roster) {
  for (const mpx_entry *entry = NULL; (entry = mpx_roster_next(roster, entry));)
    if (atomic_load(&entry->word) == MPX_HEIR)
      return true;
  return false;
}

static void notify(mproc_condition *condition, int count, int told) {
  CHECK_OK(mproc_condition_acquire(condition, MPROC_FOREVER));
  check_passes(check_condition, condition);
  CHECK_EQ(mproc_condition_notify(condition, count), told);
  check_passes(check_condition, condition);
  CHECK_EQ(mproc_condition_release(condition), 0);
}

/* Threads that wait, however deep they hold the lock; some of them die, told or not. */
TEST(conditions) {
  enum { THREADS = 3 };
  mproc_condition *condition;
  pthread_t threads[THREADS];
  waiter w = {.timeout_ms = MPROC_FOREVER, .depth = 3};
  CHECK_EQ(mproc_condition_create(NULL, &condition), 0);
  w.condition = condition;
  live_through(&conditions, condition);
  for (int i = 0; i < THREADS; i++) {
    CHECK_EQ(pthread_create(&threads[i], NULL, wait_in_condition, &w), 0);
    AWAIT(count_entries(&condition->waiters) == i + 1);
    AWAIT(mproc_rlock_locked(condition->rlock) == 0);
  }
  check_keeps_passing(check_condition, condition);
  mproc_process *victim = start_by("fork", wait_in_child, &w, sizeof w);
  AWAIT(count_entries(&condition->waiters) == THREADS + 1);
  AWAIT(mproc_rlock_locked(condition->rlock) == 0);
  check_passes(check_condition, condition);
  kill_child(victim);
  check_keeps_passing(check_condition, condition); /* the others find it dead */
  notify(condition, 1, 1);
  notify(condition, THREADS, THREADS - 1);
  for (int i = 0; i < THREADS; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  check_passes(check_condition, condition);
  w.timeout_ms = 1;
  (void)wait_in_condition(&w);
  check_passes(check_condition, condition);
  CHECK_EQ(mproc_condition_destroy(condition), 0);
}

/* One dies with a notification, which the other inherits. */
TEST(condition_with_an_heir) {
  mproc_condition *condition;
  mproc_lock *lock;
  mproc_condition_options options = {.lock = NULL};
  pthread_t thread;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  options.lock = lock;
  CHECK_EQ(mproc_condition_create(&options, &condition), 0);
  waiter w = {condition, MPROC_FOREVER, 1};
  mproc_process *victim = start_by("fork", wait_in_child, &w, sizeof w);
  AWAIT(count_entries(&condition->waiters) == 1 && mproc_lock_locked(lock) == 0);
  CHECK_EQ(kill((pid_t)mproc_process_pid(victim), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(victim), JOIN_MS));
  CHECK_EQ(pthread_create(&thread, NULL, wait_in_condition, &w), 0);
  AWAIT(count_entries(&condition->waiters) == 2 && mproc_lock_locked(lock) == 0);
  CHECK_OK(mproc_condition_acquire(condition, MPROC_FOREVER));
  CHECK_EQ(mproc_condition_notify(condition, 1), 1); /* the first */
  CHECK_EQ(mproc_process_kill(victim), 0);
  check_killed(victim, SIGKILL);
  AWAIT(has_heir(&condition->waiters)); /* it has looked, and wants the lock */
  AWAIT(check_condition(condition) == 0);
  CHECK_EQ(mproc_condition_release(condition), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  check_passes(check_condition, condition);
  CHECK_EQ(mproc_condition_destroy(condition), 0);
  CHECK_EQ(mproc_lock_destroy(lock), 0);
}

/* ---- event ----------------------------------------------------------------------------------- */

static void *wait_for_event(void *arg) {
  CHECK_EQ(mproc_event_wait(arg, MPROC_FOREVER), 0);
  return NULL;
}

static int wait_for_both(void *arg, size_t size) {
  mproc_event **events = arg;
  mproc_wait_item items[] = {{.kind = MPROC_WAIT_EVENT, .object = events[0]},
                             {.kind = MPROC_WAIT_EVENT, .object = events[1]}};
  (void)size;
  CHECK_EQ(mproc_wait(items, 2, 0, MPROC_FOREVER), 1);
  return 0;
}

TEST(events) {
  mproc_event *events[2];
  pthread_t thread;
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_event_create(&events[i]), 0);
  mproc_event *event = events[0];
  const mpx_roster *bells = &event->notice.bells;
  check_passes(check_event, event);
  mproc_process *victim = start_by("fork", wait_for_both, events, sizeof events);
  AWAIT(count_entries(bells) == 1);
  check_keeps_passing(check_event, event);
  kill_child(victim);
  check_passes(check_event, event);
  mproc_process *other = start_by("fork", wait_for_both, events, sizeof events);
  CHECK_EQ(pthread_create(&thread, NULL, wait_for_event, event), 0);
  AWAIT(count_entries(bells) == 1 && mpx_turn_is_waited(&event->notice.turn));
  check_keeps_passing(check_event, event);
  CHECK_EQ(mproc_event_set(event), 0);
  check_passes(check_event, event);
  check_exited(other, 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(mproc_event_clear(event), 0);
  for (int i = 0; i < 2; i++) {
    check_passes(check_event, events[i]);
    CHECK_EQ(mproc_event_destroy(events[i]), 0);
  }
}

TEST(event_with_a_notifier) {
  mproc_event *event;
  mproc_notifier *notifier;
  CHECK_EQ(mproc_event_create(&event), 0);
  const mproc_wait_item item = {.kind = MPROC_WAIT_EVENT, .object = event};
  int r = mproc_notifier_create(&item, 1, &notifier);
  check_passes(check_event, event);
  if (r == -ENOSYS) {
    CHECK_EQ(mproc_event_destroy(event), 0);
    SKIP("no bells on this system");
  }
  CHECK_EQ(r, 0);
  CHECK_EQ(count_entries(&event->notice.bells), 1);
  mproc_notifier_destroy(notifier);
  check_passes(check_event, event);
  CHECK_EQ(mproc_event_destroy(event), 0);
}

/* ---- barrier --------------------------------------------------------------------------------- */

typedef struct party {
  mproc_barrier *barrier;
  int (*action)(void *arg);
  int timeout_ms;
  int result;
} party;

static int check_in_action(void *arg) {
  check_passes(check_barrier, arg);
  return 0;
}

static int fail_in_action(void *arg) {
  check_passes(check_barrier, arg);
  return -1;
}

static int die_in_action(void *arg) {
  (void)arg;
  raise(SIGKILL);
  return 0;
}

static void *come(void *arg) {
  party *p = arg;
  p->result = mproc_barrier_wait_action(p->barrier, p->action, p->barrier, p->timeout_ms);
  return NULL;
}

static int come_in_child(void *arg, size_t size) {
  (void)size;
  (void)come(arg);
  return 0;
}

enum { PARTIES = 3 };

/* All but the last, each of whom is there before the next comes. */
static void bring_others(pthread_t *threads, party *parties, const party *like) {
  for (int i = 0; i < PARTIES - 1; i++) {
    parties[i] = *like;
    CHECK_EQ(pthread_create(&threads[i], NULL, come, &parties[i]), 0);
    AWAIT(mproc_barrier_n_waiting(like->barrier) == i + 1);
    check_passes(check_barrier, like->barrier);
  }
  check_keeps_passing(check_barrier, like->barrier);
}

static void await_others(const pthread_t *threads, const party *parties, bool passed) {
  for (int i = 0; i < PARTIES - 1; i++) {
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(parties[i].result >= 0, passed);
  }
}

static void check_reset(mproc_barrier *barrier) {
  CHECK_EQ(mproc_barrier_broken(barrier), 1);
  check_passes(check_barrier, barrier);
  CHECK_EQ(mproc_barrier_n_waiting(barrier), 0);
  check_passes(check_barrier, barrier);
  CHECK_EQ(mproc_barrier_reset(barrier), 0);
  check_passes(check_barrier, barrier);
}

TEST(barriers) {
  pthread_t threads[PARTIES];
  party parties[PARTIES], last = {.timeout_ms = MPROC_FOREVER};
  CHECK_EQ(mproc_barrier_create(PARTIES, &last.barrier), 0);
  check_passes(check_barrier, last.barrier);
  for (int i = 0; i < 3; i++) { /* without action, with one, with one that fails */
    bring_others(threads, parties, &last);
    last.action = i == 0 ? NULL : i == 1 ? check_in_action : fail_in_action;
    (void)come(&last);
    check_passes(check_barrier, last.barrier);
    CHECK_EQ(last.result, i < 2 ? PARTIES - 1 : MPROC_EBROKEN);
    await_others(threads, parties, i < 2);
    check_passes(check_barrier, last.barrier);
  }
  check_reset(last.barrier);
  bring_others(threads, parties, &last);
  CHECK_EQ(mproc_barrier_abort(last.barrier), 0);
  check_passes(check_barrier, last.barrier);
  await_others(threads, parties, false);
  check_reset(last.barrier);
  last.timeout_ms = 10; /* breaks it, and nobody is told yet */
  (void)come(&last);
  CHECK_EQ(last.result, -ETIMEDOUT);
  check_reset(last.barrier);
  CHECK_EQ(mproc_barrier_destroy(last.barrier), 0);
}

/* In its place, and in its action. */
TEST(barriers_of_the_dead) {
  pthread_t threads[PARTIES];
  party parties[PARTIES], one = {.timeout_ms = MPROC_FOREVER};
  CHECK_EQ(mproc_barrier_create(PARTIES, &one.barrier), 0);
  mproc_process *victim = start_by("fork", come_in_child, &one, sizeof one);
  AWAIT(mproc_barrier_n_waiting(one.barrier) == 1);
  kill_child(victim);
  check_passes(check_barrier, one.barrier);
  bring_others(threads, parties, &one);
  one.action = die_in_action;
  check_killed(start_by("fork", come_in_child, &one, sizeof one), SIGKILL);
  check_passes(check_barrier, one.barrier);
  await_others(threads, parties, false);
  check_passes(check_barrier, one.barrier);
  check_reset(one.barrier);
  CHECK_EQ(mproc_barrier_destroy(one.barrier), 0);
}

/* ---- value, array ---------------------------------------------------------------------------- */

static void *wait_for_value(void *arg) {
  int64_t number;
  CHECK_EQ(mproc_value_wait_int64(arg, -1, &number, MPROC_FOREVER), 0);
  return NULL;
}

TEST(values) {
  mproc_value *values[3];
  pthread_t thread;
  CHECK_EQ(mproc_value_create_int64(-1, &values[0]), 0);
  CHECK_EQ(mproc_value_create_double(-0.5, &values[1]), 0);
  CHECK_EQ(mproc_value_create_pointer(NULL, &values[2]), 0);
  CHECK_EQ(pthread_create(&thread, NULL, wait_for_value, values[0]), 0);
  AWAIT(mpx_turn_is_waited(&values[0]->turn));
  check_keeps_passing(check_value, values[0]);
  CHECK_EQ(mproc_value_set_int64(values[0], INT64_MIN), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(mproc_value_set_pointer(values[2], values[1]), 0);
  for (int i = 0; i < 3; i++) {
    check_passes(check_value, values[i]);
    CHECK_EQ(mproc_value_destroy(values[i]), 0);
  }
}

TEST(arrays) {
  for (size_t bytes = 1; bytes < 100000; bytes = bytes * 3 + 1) {
    mproc_array *array;
    CHECK_EQ(mproc_array_create(bytes, 1, &array), 0);
    check_passes(check_array, array);
    memset(mproc_array_items(array), 0xff, bytes);
    check_passes(check_array, array);
    CHECK_EQ(mproc_array_destroy(array), 0);
  }
  mproc_array *array;
  CHECK_EQ(mproc_array_create(3, 8, &array), 0);
  const job j = {&locks, mproc_array_lock(array)};
  check_killed(start_by("fork", take_and_die, &j, sizeof j), SIGKILL);
  check_passes(check_array, array);
  CHECK_EQ(mproc_lock_acquire(j.object, 0), MPROC_OWNER_DIED);
  check_passes(check_array, array);
  CHECK_EQ(mproc_lock_release(j.object), 0);
  CHECK_EQ(mproc_array_destroy(array), 0);
}
