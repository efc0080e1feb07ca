/* Numbers that wrap, in what waits and locks: each is put near its end in an object that lives,
 * which is then used across it. Each case sees first that the number is the one it takes it for.
 * What of a queue wraps is in test_wrap_queue.c. */
#include "harness.h"
#include "processes.h"

#include "heap/family.h"
#include "sync/layout.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SOON_MS = 5000, ROUNDS = 12, HALF = ROUNDS / 2 };

static pthread_t run(void *(*body)(void *), void *arg) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, body, arg), 0);
  return thread;
}

static void *end_of_thread(pthread_t thread) {
  void *result;
  CHECK_EQ(pthread_join(thread, &result), 0);
  return result;
}

/* ---- turns ----------------------------------------------------------------------------------- */

typedef struct door {
  mpx_turn turn;
  _Atomic uint32_t opened, passed;
} door;

/* Without the look of every 50 ms, which would hide that a wake-up got lost. */
static void *pass_the_door(void *arg) {
  door *d = arg;
  for (uint32_t i = 1; i <= ROUNDS; i++) {
    while (d->opened < i) {
      uint32_t seen = mpx_turn_prepare(&d->turn);
      if (d->opened < i)
        mpx_os_word_wait(&d->turn.word, seen, mpx_deadline(mpx_os_now(), 10 * JOIN_MS));
    }
    d->passed++;
    AWAIT(d->passed >= 2 * i);
  }
  return NULL;
}

TEST_LIMIT(turns_wake_sleepers, 60) {
  door *d = mproc_heap_calloc(1, sizeof *d);
  for (uint32_t before = 0; before < ROUNDS; before += 3) {
    d->opened = d->passed = 0;
    d->turn.word = 0 - before * MPX_TURN_STEP;
    pthread_t threads[2] = {run(pass_the_door, d), run(pass_the_door, d)};
    for (uint32_t i = 1; i <= ROUNDS; i++) {
      AWAIT(mpx_os_word_sleepers(&d->turn.word) == 2);
      d->opened = i;
      mpx_turn_next(&d->turn, MPX_TURN_ALL);
      AWAIT(d->passed == 2 * i);
    }
    for (int i = 0; i < 2; i++)
      (void)end_of_thread(threads[i]);
    CHECK(d->turn.word < 8 * ROUNDS); /* counted on from 0 */
    CHECK(!mpx_turn_is_used(&d->turn));
  }
  CHECK_EQ(mproc_heap_free(d), 0);
}

static void *give_turns(void *arg) {
  door *d = arg;
  while (!d->opened) {
    (void)atomic_fetch_add(&d->turn.word, MPX_TURN_STEP);
    for (int i = 0; i < 50; i++)
      mpx_os_pause();
  }
  return NULL;
}

/* Others give turns meanwhile, across the end: a mark of nobody's is nobody's all the same. */
TEST_LIMIT(turn_that_nobody_awaits, 60) {
  door *d = mproc_heap_calloc(1, sizeof *d);
  d->turn.word = 0U - ROUNDS * MPX_TURN_STEP;
  pthread_t thread = run(give_turns, d);
  for (int i = 0; i < 100; i++) {
    (void)mpx_turn_prepare(&d->turn);
    CHECK(!mpx_turn_is_used(&d->turn));
  }
  d->opened = 1;
  (void)end_of_thread(thread);
  CHECK_EQ(mproc_heap_free(d), 0);
}

/* ---- semaphores ------------------------------------------------------------------------------ */

typedef struct permits {
  mproc_semaphore *semaphore;
  int count;
  _Atomic int taken, refused;
} permits;

static void *take_permits(void *arg) {
  permits *p = arg;
  for (int i = 0; i < p->count; i++) {
    CHECK_EQ(mproc_semaphore_acquire(p->semaphore, JOIN_MS), 0);
    p->taken++;
  }
  return NULL;
}

TEST_LIMIT(turns_of_a_semaphore, 60) {
  permits *p = mproc_heap_calloc(1, sizeof *p);
  CHECK_EQ(mproc_semaphore_create(7, NULL, &p->semaphore), 0);
  CHECK_EQ(p->semaphore->value, 7);
  CHECK_EQ(mproc_semaphore_acquire(p->semaphore, 0), 0);
  CHECK_EQ(p->semaphore->value, 6);
  while (mproc_semaphore_acquire(p->semaphore, 0) == 0)
    continue;
  CHECK_EQ(mproc_semaphore_acquire(p->semaphore, 1), -ETIMEDOUT);
  CHECK_EQ(p->semaphore->turn.word, MPX_TURN_WAITED); /* it is the turn */
  p->semaphore->turn.word = 0U - HALF * MPX_TURN_STEP;
  p->count = ROUNDS;
  pthread_t thread = run(take_permits, p);
  for (int i = 1; i <= ROUNDS; i++) {
    AWAIT(mpx_os_word_sleepers(&p->semaphore->turn.word) == 1);
    CHECK_EQ(mproc_semaphore_release(p->semaphore, 1), 0);
    AWAIT(p->taken == i);
  }
  (void)end_of_thread(thread);
  CHECK(p->semaphore->turn.word < 8 * ROUNDS);
  CHECK_EQ(mproc_semaphore_value(p->semaphore), 0);
  CHECK_EQ(mproc_semaphore_destroy(p->semaphore), 0);
  CHECK_EQ(mproc_heap_free(p), 0);
}

/* Threads take the only permit of a tracked one by turns. */
static void *take_and_give(void *arg) {
  permits *p = arg;
  for (int i = 0; i < p->count; i++) {
    CHECK_EQ(mproc_semaphore_acquire(p->semaphore, JOIN_MS), 0);
    CHECK_EQ(++p->taken, 1);
    sched_yield();
    p->taken--;
    CHECK_EQ(mproc_semaphore_release(p->semaphore, 1), 0);
  }
  return NULL;
}

TEST_LIMIT(turns_of_a_tracked_semaphore, 60) {
  const mproc_semaphore_options tracked = {.tracked = 1};
  permits *p = mproc_heap_calloc(1, sizeof *p);
  CHECK_EQ(mproc_semaphore_create(1, &tracked, &p->semaphore), 0);
  CHECK(p->semaphore->tracked);
  p->semaphore->turn.word = 0U - 4 * MPX_TURN_STEP;
  p->count = test_scale(2000);
  /* until turns were awaited often enough, which is the scheduler's choice */
  for (int64_t end = now_ms() + JOIN_MS; p->semaphore->turn.word > UINT32_MAX / 2;) {
    pthread_t threads[3];
    CHECK(now_ms() < end);
    for (int i = 0; i < 3; i++)
      threads[i] = run(take_and_give, p);
    for (int i = 0; i < 3; i++)
      (void)end_of_thread(threads[i]);
  }
  CHECK(p->semaphore->turn.word < UINT32_MAX / 2); /* counted on from 0 */
  CHECK_EQ(mproc_semaphore_value(p->semaphore), 1);
  CHECK_EQ(mproc_semaphore_destroy(p->semaphore), 0);
  CHECK_EQ(mproc_heap_free(p), 0);
}

static void *give_permits(void *arg) {
  permits *p = arg;
  for (int i = 0; i < p->count; i++) {
    int r = mproc_semaphore_release(p->semaphore, 1);
    CHECK(r == 0 || r == -EOVERFLOW);
    p->refused += r != 0;
  }
  return NULL;
}

/* Permits end at 2^30, whoever gives them at the same time. */
TEST(permits_do_not_wrap) {
  enum { MOST = 1 << 30 };
  permits *p = mproc_heap_calloc(1, sizeof *p);
  p->count = test_scale(2000);
  CHECK_EQ(mproc_semaphore_create(MOST - p->count, NULL, &p->semaphore), 0);
  CHECK_EQ(mproc_semaphore_release(p->semaphore, p->count + 1), -EOVERFLOW);
  CHECK_EQ(mproc_semaphore_release(p->semaphore, INT32_MAX), -EOVERFLOW);
  pthread_t threads[2] = {run(give_permits, p), run(give_permits, p)};
  for (int i = 0; i < 2; i++)
    (void)end_of_thread(threads[i]);
  CHECK_EQ(p->refused, p->count);
  CHECK_EQ(mproc_semaphore_value(p->semaphore), MOST);
  CHECK_EQ(mproc_semaphore_acquire(p->semaphore, 0), 0);
  CHECK_EQ(mproc_semaphore_release(p->semaphore, 1), 0);
  CHECK_EQ(mproc_semaphore_release(p->semaphore, 1), -EOVERFLOW);
  CHECK_EQ(mproc_semaphore_destroy(p->semaphore), 0);
  CHECK_EQ(mproc_heap_free(p), 0);
}

/* ---- depths ---------------------------------------------------------------------------------- */

static void *try_rlock(void *arg) {
  int r = mproc_rlock_acquire(arg, 0);
  CHECK(r == -EAGAIN || r == 0);
  if (r == 0)
    CHECK_EQ(mproc_rlock_release(arg), 0);
  return r == 0 ? arg : NULL;
}

TEST(depth_of_an_rlock_does_not_wrap) {
  mproc_rlock *rlock;
  mproc_condition *condition;
  CHECK_EQ(mproc_rlock_create(&rlock), 0);
  const mproc_condition_options options = {.rlock = rlock};
  CHECK_EQ(mproc_condition_create(&options, &condition), 0);
  CHECK_EQ(mproc_rlock_acquire(rlock, 0), 0);
  CHECK_EQ(mproc_rlock_acquire(rlock, 0), 0);
  CHECK_EQ(rlock->depth, 2);
  rlock->depth = UINT32_MAX - 1;
  CHECK_EQ(mproc_rlock_acquire(rlock, 0), 0);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(mproc_rlock_acquire(rlock, MPROC_FOREVER), -EOVERFLOW);
    CHECK_EQ(mproc_condition_acquire(condition, 0), -EOVERFLOW);
    CHECK_EQ(mproc_condition_wait(condition, i), i == 0 ? -EAGAIN : -ETIMEDOUT);
  }
  CHECK_EQ(rlock->depth, UINT32_MAX);
  CHECK_EQ(mproc_rlock_release(rlock), 0);
  CHECK_EQ(mproc_rlock_acquire(rlock, 0), 0);
  CHECK(end_of_thread(run(try_rlock, rlock)) == NULL); /* it is held */
  rlock->depth = 2;
  CHECK_EQ(mproc_rlock_release(rlock), 0);
  CHECK(end_of_thread(run(try_rlock, rlock)) == NULL);
  CHECK_EQ(mproc_rlock_release(rlock), 0);
  CHECK(end_of_thread(run(try_rlock, rlock)) == rlock);
  CHECK_EQ(mproc_condition_destroy(condition), 0);
  CHECK_EQ(mproc_rlock_destroy(rlock), 0);
}

static void *try_to_write(void *arg) {
  int r = mproc_rwlock_acquire_write(arg, 0);
  CHECK(r == -EAGAIN || r == 0);
  if (r == 0)
    CHECK_EQ(mproc_rwlock_release(arg), 0);
  return r == 0 ? arg : NULL;
}

TEST(depth_of_a_reader_does_not_wrap) {
  mproc_rwlock *rwlock;
  mpx_thread self;
  CHECK_EQ(mproc_rwlock_create(&rwlock), 0);
  CHECK_EQ(mpx_family_thread(&self), 0);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_rwlock_acquire_read(rwlock, 0), 0);
  mpx_entry *entry = mpx_roster_find(&rwlock->readers, self);
  CHECK(entry != NULL);
  CHECK_EQ(entry->count, 3);
  entry->count = UINT32_MAX - 1;
  CHECK_EQ(mproc_rwlock_acquire_read(rwlock, 0), 0);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_rwlock_acquire_read(rwlock, MPROC_FOREVER), -EOVERFLOW);
  CHECK_CONTAINS(mproc_error_detail(), "4294967295 times");
  CHECK_EQ(entry->count, UINT32_MAX);
  CHECK_EQ(mproc_rwlock_readers(rwlock), 1);
  CHECK_EQ(mproc_rwlock_release(rwlock), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(rwlock, 0), 0);
  CHECK(end_of_thread(run(try_to_write, rwlock)) == NULL);
  entry->count = 2;
  CHECK_EQ(mproc_rwlock_release(rwlock), 0);
  CHECK(end_of_thread(run(try_to_write, rwlock)) == NULL);
  CHECK_EQ(mproc_rwlock_release(rwlock), 0);
  CHECK(end_of_thread(run(try_to_write, rwlock)) == rwlock);
  CHECK_EQ(mproc_rwlock_destroy(rwlock), 0);
}

/* A writer that sleeps until the reader goes. */
typedef struct readers {
  mproc_rwlock *rwlock;
  _Atomic int reads, written;
} readers;

static void *write_rounds(void *arg) {
  readers *r = arg;
  for (int i = 1; i <= ROUNDS; i++) {
    AWAIT(r->reads == i);
    CHECK_EQ(mproc_rwlock_acquire_write(r->rwlock, JOIN_MS), 0);
    CHECK_EQ(mproc_rwlock_release(r->rwlock), 0);
    r->written = i;
  }
  return NULL;
}

TEST_LIMIT(turns_of_a_rwlock, 60) {
  readers *r = mproc_heap_calloc(1, sizeof *r);
  CHECK_EQ(mproc_rwlock_create(&r->rwlock), 0);
  CHECK_EQ(mproc_rwlock_acquire_write(r->rwlock, 0), 0);
  CHECK_EQ(mproc_rwlock_release(r->rwlock), 0);
  CHECK_EQ(r->rwlock->turn.word, MPX_TURN_WAITED); /* it is the turn */
  r->rwlock->turn.word = 0U - HALF * MPX_TURN_STEP;
  pthread_t thread = run(write_rounds, r);
  for (int i = 1; i <= ROUNDS; i++) {
    CHECK_EQ(mproc_rwlock_acquire_read(r->rwlock, 0), 0);
    r->reads = i;
    AWAIT(mpx_os_word_sleepers(&r->rwlock->turn.word) == 1);
    CHECK_EQ(mproc_rwlock_release(r->rwlock), 0);
    AWAIT(r->written == i);
  }
  (void)end_of_thread(thread);
  CHECK(r->rwlock->turn.word < 8 * ROUNDS);
  CHECK_EQ(mproc_rwlock_destroy(r->rwlock), 0);
  CHECK_EQ(mproc_heap_free(r), 0);
}

/* ---- events ---------------------------------------------------------------------------------- */

typedef struct signals {
  mproc_event *event;
  _Atomic int waits, gone;
} signals;

static void *wait_rounds(void *arg) {
  signals *s = arg;
  for (int i = 1; i <= ROUNDS; i++) {
    AWAIT(s->waits == i);
    CHECK_EQ(mproc_event_wait(s->event, JOIN_MS), 0);
    s->gone = i;
  }
  return NULL;
}

/* Set and cleared at once: who waits goes all the same, and nobody else. */
TEST_LIMIT(sets_of_an_event, 60) {
  signals *s = mproc_heap_calloc(1, sizeof *s);
  CHECK_EQ(mproc_event_create(&s->event), 0);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(mproc_event_set(s->event), 0);
    CHECK_EQ(mproc_event_clear(s->event), 0);
  }
  CHECK_EQ(s->event->state, 10); /* sets count, in steps of 2 */
  s->event->state = 0U - 2 * HALF;
  s->event->notice.turn.word = 0U - HALF * MPX_TURN_STEP;
  pthread_t thread = run(wait_rounds, s);
  for (int i = 1; i <= ROUNDS; i++) {
    CHECK_EQ(mproc_event_is_set(s->event), 0);
    s->waits = i;
    AWAIT(mpx_os_word_sleepers(&s->event->notice.turn.word) == 1);
    CHECK_EQ(mproc_event_set(s->event), 0);
    CHECK_EQ(mproc_event_is_set(s->event), 1);
    CHECK_EQ(mproc_event_set(s->event), 0); /* once more is no set */
    CHECK_EQ(mproc_event_clear(s->event), 0);
    AWAIT(s->gone == i);
    CHECK_EQ(mproc_event_wait(s->event, 0), -EAGAIN);
  }
  (void)end_of_thread(thread);
  CHECK_EQ(s->event->state, 2 * HALF);
  CHECK(s->event->notice.turn.word < 8 * ROUNDS);
  CHECK_EQ(mproc_event_destroy(s->event), 0);
  CHECK_EQ(mproc_heap_free(s), 0);
}

static void *wait_once(void *arg) {
  signals *s = arg;
  CHECK_EQ(mproc_event_wait(s->event, SOON_MS), 0);
  s->gone++;
  return NULL;
}

/* Who got no CPU for ever so many sets sees that there were some: three quarters of the circle. */
TEST_LIMIT(sets_beyond_half_the_circle, 60) {
  signals *s = mproc_heap_calloc(1, sizeof *s);
  for (int is_cleared = 0; is_cleared < 2; is_cleared++) {
    CHECK_EQ(mproc_event_create(&s->event), 0);
    pthread_t thread = run(wait_once, s);
    AWAIT(mpx_os_word_sleepers(&s->event->notice.turn.word) == 1);
    (void)atomic_fetch_add(&s->event->state, 3U << 30);
    CHECK_EQ(mproc_event_set(s->event), 0);
    if (is_cleared)
      CHECK_EQ(mproc_event_clear(s->event), 0);
    AWAIT(s->gone == is_cleared + 1);
    (void)end_of_thread(thread);
    CHECK_EQ(mproc_event_destroy(s->event), 0);
  }
  CHECK_EQ(mproc_heap_free(s), 0);
}

/* ---- barriers -------------------------------------------------------------------------------- */

enum { PARTIES = 3 };

typedef struct meeting {
  mproc_barrier *barrier;
  int rounds;
  _Atomic int sum, actions, inside;
} meeting;

static int act(void *arg) {
  meeting *m = arg;
  CHECK_EQ(m->inside, PARTIES); /* all are here, nobody has gone on */
  m->inside = 0;
  return ++m->actions < 0;
}

static void *meet(void *arg) {
  meeting *m = arg;
  for (int i = 0; i < m->rounds; i++) {
    m->inside++;
    int number = mproc_barrier_wait_action(m->barrier, act, m, JOIN_MS);
    CHECK(number >= 0 && number < PARTIES);
    m->sum += number;
    number = mproc_barrier_wait(m->barrier, JOIN_MS);
    CHECK(number >= 0 && number < PARTIES);
  }
  return NULL;
}

static meeting *new_meeting(uint32_t rounds_before) {
  meeting *m = mproc_heap_calloc(1, sizeof *m);
  CHECK_EQ(mproc_barrier_create(PARTIES, &m->barrier), 0);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_barrier_reset(m->barrier), 0);
  CHECK_EQ(m->barrier->state, 3 * MPX_ROUND); /* it is the state */
  m->barrier->state = 0U - rounds_before * MPX_ROUND;
  m->barrier->turn.word = 0U - rounds_before * MPX_TURN_STEP;
  return m;
}

static void free_meeting(meeting *m) {
  CHECK_EQ(mproc_barrier_destroy(m->barrier), 0);
  CHECK_EQ(mproc_heap_free(m), 0);
}

TEST_LIMIT(rounds_of_a_barrier, 60) {
  meeting *m = new_meeting(HALF);
  m->rounds = ROUNDS;
  pthread_t threads[PARTIES];
  for (int i = 0; i < PARTIES; i++)
    threads[i] = run(meet, m);
  for (int i = 0; i < PARTIES; i++)
    (void)end_of_thread(threads[i]);
  CHECK_EQ(m->actions, ROUNDS);
  CHECK_EQ(m->sum, ROUNDS * (0 + 1 + 2));
  CHECK_EQ(m->barrier->state, (2 * ROUNDS - HALF) * MPX_ROUND);
  free_meeting(m);
}

static void *wait_at_barrier(void *arg) {
  meeting *m = arg;
  CHECK_EQ(mproc_barrier_wait(m->barrier, JOIN_MS), MPROC_EBROKEN);
  return NULL;
}

/* The last round is broken, by an abort or by somebody whose time is over; the first passes. */
TEST_LIMIT(last_round_of_a_barrier_is_broken, 60) {
  for (int how = 0; how < 2; how++) {
    meeting *m = new_meeting(1);
    pthread_t threads[PARTIES];
    threads[0] = run(wait_at_barrier, m);
    AWAIT(mproc_barrier_n_waiting(m->barrier) == 1);
    if (how)
      CHECK_EQ(mproc_barrier_wait(m->barrier, 20), -ETIMEDOUT);
    else
      CHECK_EQ(mproc_barrier_abort(m->barrier), 0);
    (void)end_of_thread(threads[0]);
    CHECK_EQ(mproc_barrier_broken(m->barrier), 1);
    CHECK_EQ(mproc_barrier_wait(m->barrier, 0), MPROC_EBROKEN);
    CHECK_EQ(mproc_barrier_reset(m->barrier), 0);
    CHECK_EQ(m->barrier->state, 0);
    m->rounds = 2;
    for (int i = 0; i < PARTIES; i++)
      threads[i] = run(meet, m);
    for (int i = 0; i < PARTIES; i++)
      (void)end_of_thread(threads[i]);
    CHECK_EQ(m->actions, 2);
    free_meeting(m);
  }
}

/* ---- conditions ------------------------------------------------------------------------------ */

typedef struct queue_of_waiters {
  mproc_condition *condition;
  _Atomic int standing, told;
} queue_of_waiters;

typedef struct waiter {
  queue_of_waiters *all;
  int index;
} waiter;

static void *await_news(void *arg) {
  waiter *own = arg;
  queue_of_waiters *all = own->all;
  CHECK_EQ(mproc_condition_acquire(all->condition, JOIN_MS), 0);
  all->standing++;
  CHECK_EQ(mproc_condition_wait(all->condition, JOIN_MS), 0);
  CHECK_EQ(all->told, own->index); /* who has waited longest is told first */
  all->told++;
  CHECK_EQ(mproc_condition_release(all->condition), 0);
  return NULL;
}

/* They have 64 bits, which no machine counts through; 32 would be used up in a day. */
TEST_LIMIT(numbers_of_a_condition, 60) {
  queue_of_waiters *all = mproc_heap_calloc(1, sizeof *all);
  CHECK_EQ(mproc_condition_create(NULL, &all->condition), 0);
  CHECK_EQ(mproc_condition_acquire(all->condition, 0), 0);
  for (int i = 0; i < 5; i++)
    CHECK_EQ(mproc_condition_notify(all->condition, 1), 0);
  CHECK_EQ(all->condition->next_number, 5);
  all->condition->next_number = UINT32_MAX - 3;
  CHECK_EQ(mproc_condition_release(all->condition), 0);
  pthread_t threads[ROUNDS];
  waiter waiters[ROUNDS];
  for (int i = 0; i < ROUNDS; i++) {
    waiters[i] = (waiter){all, i};
    threads[i] = run(await_news, &waiters[i]);
    AWAIT(all->standing == i + 1);
  }
  for (int i = 0; i < ROUNDS; i++) {
    CHECK_EQ(mproc_condition_acquire(all->condition, JOIN_MS), 0);
    CHECK_EQ(mproc_condition_notify(all->condition, 1), 1);
    CHECK_EQ(mproc_condition_release(all->condition), 0);
    AWAIT(all->told == i + 1);
  }
  for (int i = 0; i < ROUNDS; i++)
    (void)end_of_thread(threads[i]);
  CHECK_EQ(all->condition->next_number, UINT32_MAX - 3 + 2 * (uint64_t)ROUNDS);
  CHECK_EQ(mproc_condition_destroy(all->condition), 0);
  CHECK_EQ(mproc_heap_free(all), 0);
}

/* ---- names ----------------------------------------------------------------------------------- */

static void *take_lock(void *arg) {
  mpx_thread self;
  CHECK_EQ(mproc_lock_acquire(arg, 0), 0);
  CHECK_EQ(mpx_family_thread(&self), 0);
  CHECK(!mpx_thread_is_dead(mpx_family_header(), self));
  return (void *)(uintptr_t)self; /* it ends, and holds it */
}

/* A thread's name has 46 bits of its cell's generation: nobody counts through them, and the cell
 * that does is told from the one before. */
TEST(generation_of_a_cell) {
  const uint64_t circle = (uint64_t)1 << 46;
  mproc_lock *locks[4];
  uint64_t names[4];
  for (int i = 0; i < 4; i++)
    CHECK_EQ(mproc_lock_create(&locks[i]), 0);
  mpx_header *header = mpx_family_header();
  names[0] = (uintptr_t)end_of_thread(run(take_lock, locks[0]));
  mpx_cell *cell = mpx_cell_at(header, (uint32_t)(names[0] >> 48) - 1);
  CHECK(cell == &header->pool[0]);
  CHECK_EQ(names[0] >> 2 & (circle - 1), cell->generation);
  cell->generation = circle - 2;
  for (int i = 1; i < 4; i++) {
    names[i] = (uintptr_t)end_of_thread(run(take_lock, locks[i]));
    CHECK_EQ(names[i] >> 48, names[0] >> 48);
    CHECK_EQ(names[i] >> 2 & (circle - 1), (circle - 2 + (uint64_t)i) & (circle - 1));
    CHECK_EQ(names[i] & MPX_THREAD_FLAGS, 0);
    CHECK(mpx_thread_is_dead(header, names[i]));
  }
  for (int i = 0; i < 4; i++) {
    mproc_owner owner;
    CHECK_EQ(mproc_lock_owner(locks[i], &owner), 0);
    CHECK_EQ(owner.state, MPROC_OWNER_DEAD);
    CHECK_EQ(mproc_lock_acquire(locks[i], 0), MPROC_OWNER_DIED);
    CHECK_EQ(mproc_lock_release(locks[i]), 0);
    CHECK_EQ(mproc_lock_destroy(locks[i]), 0);
  }
}

static int take_lock_and_die(void *arg, size_t size) {
  (void)size;
  CHECK_EQ(mproc_lock_acquire(*(mproc_lock **)arg, 0), 0);
  raise(SIGKILL);
  return 0;
}

/* 32 bits of births in a slot of the process table: a child's, and the forkserver's. */
TEST_LIMIT(generation_of_a_slot, 60) {
  mproc_lock *lock;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  mpx_slot *slots = mpx_family_header()->slots;
  check_exited(start_by("fork", return_code, &(int){3}, sizeof(int)), 3);
  CHECK_EQ(slots[1].tag, 1 << 8 | MPX_SLOT_FREE); /* it was its first */
  FOR_ALL_METHODS(method) {
    bool by_server = strcmp(method, "forkserver") == 0; /* which has slot 1 itself */
    slots[1].tag = slots[2].tag = (uint64_t)(UINT32_MAX - 1) << 8 | MPX_SLOT_FREE;
    for (int i = 0; i < 3; i++) {
      check_exited(start_by(method, return_code, &i, sizeof i), i);
      check_killed(start_by(method, take_lock_and_die, &lock, sizeof lock), SIGKILL);
      CHECK_EQ(mproc_lock_acquire(lock, 0), MPROC_OWNER_DIED);
      CHECK_EQ(mproc_lock_consistent(lock), 0);
      CHECK_EQ(mproc_lock_release(lock), 0);
    }
    CHECK_EQ(slots[by_server ? 2 : 1].tag, 4 << 8 | MPX_SLOT_FREE);
  }
  CHECK_EQ(mproc_lock_destroy(lock), 0);
}

/* What was destroyed last lies in a ring of the header. */
TEST(hand_of_destroyed_objects) {
  mproc_lock *lock;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  CHECK_EQ(mproc_lock_destroy(lock), 0);
  mpx_header *header = mpx_family_header();
  CHECK_EQ(header->closed_hand, 1);
  header->closed_hand = UINT32_MAX - 100;
  header->sweep_hand = UINT32_MAX - 1;
  uint64_t used = 0;
  for (int i = 0; i < 300; i++) {
    CHECK_EQ(mproc_lock_create(&lock), 0);
    CHECK_EQ(mproc_lock_destroy(lock), 0);
    CHECK_EQ(mproc_lock_acquire(lock, 0), MPROC_ECLOSED);
    if (i == 99) /* before the end: the ring is full */
      used = heap_used();
  }
  CHECK_EQ(heap_used(), used);
  for (int i = 0; i < 3; i++)
    check_exited(start_by("fork", return_code, &i, sizeof i), i);
}
