/* Locks and signals under random fire: whoever holds or awaits one is killed and stopped at any
 * instruction. Nobody hangs who waits for the living, what a lock guards is whole unless its taker
 * was told, and nothing is left in the end. */
#include "harness.h"
#include "members.h"
#include "storm.h"

#include "sync/check.h"

#include <sched.h>
#include <stdatomic.h>

enum { LOCK, RLOCK, RWLOCK, TRACKED, PERMIT, BOUNDED, CONDITION, EVENT, VALUE, BARRIER, ROLES };
enum { ROUNDS = 2000, DRAIN_MS = 10000, LONG_MS = 10000, BOUND = 4, BACKLOG = 16, MOST = 3 };

/* Changed one after the other: unequal when somebody died in between. */
typedef struct pair {
  _Atomic int64_t first, second;
} pair;

/* In the shared heap. */
typedef struct board {
  mproc_lock *lock;
  mproc_rlock *rlock;
  mproc_rwlock *rwlock;
  mproc_semaphore *tracked, *permits, *bounded;
  mproc_condition *condition;
  mproc_event *event;
  mproc_value *value;
  mproc_barrier *barrier;
  pair by_lock, by_rlock, by_rwlock, by_permit;
  int64_t tokens; /* under the condition's lock */
  _Atomic int must_end;
  _Atomic int64_t given, taken; /* permits: before they are given, after they were taken */
  _Atomic int64_t rounds[ROLES];
} board;

static int64_t progress_of(const void *argument, int kind) {
  return ((const board *)argument)->rounds[kind];
}

static void pause_in_between(uint64_t *random) {
  unsigned choice = random_below(random, 8);
  if (choice == 0)
    usleep(random_below(random, 1000));
  else if (choice < 3)
    sched_yield();
}

static void change(pair *p, bool was_told, uint64_t *random) {
  if (was_told)
    p->first = p->second = p->first > p->second ? (int64_t)p->first : (int64_t)p->second;
  else
    CHECK_EQ(p->first, p->second);
  p->first++;
  pause_in_between(random);
  p->second++;
}

/* ---- what each does -------------------------------------------------------------------------- */

static void lock_work(board *b, int self, uint64_t *random) {
  (void)self;
  int r = mproc_lock_acquire(b->lock, LONG_MS);
  CHECK_OK(r);
  change(&b->by_lock, r == MPROC_OWNER_DIED, random);
  if (r == MPROC_OWNER_DIED)
    CHECK_EQ(mproc_lock_consistent(b->lock), 0);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  b->rounds[LOCK]++;
}

/* Twice, and let go of twice: a death at either depth is told. */
static void rlock_work(board *b, int self, uint64_t *random) {
  (void)self;
  int r = mproc_rlock_acquire(b->rlock, LONG_MS);
  CHECK_OK(r);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, 0), r);
  change(&b->by_rlock, r == MPROC_OWNER_DIED, random);
  if (r == MPROC_OWNER_DIED)
    CHECK_EQ(mproc_rlock_consistent(b->rlock), 0);
  CHECK_EQ(mproc_rlock_release(b->rlock), 0);
  pause_in_between(random);
  CHECK_EQ(mproc_rlock_release(b->rlock), 0);
  b->rounds[RLOCK]++;
}

static void rwlock_work(board *b, int self, uint64_t *random) {
  (void)self;
  if (random_below(random, 2)) {
    int r = mproc_rwlock_acquire_read(b->rwlock, LONG_MS);
    CHECK_OK(r);
    int64_t first = b->by_rwlock.first, second = b->by_rwlock.second;
    pause_in_between(random);
    CHECK(first == b->by_rwlock.first && second == b->by_rwlock.second);
    CHECK(r == MPROC_OWNER_DIED || first == second);
  } else {
    int r = mproc_rwlock_acquire_write(b->rwlock, LONG_MS);
    CHECK_OK(r);
    change(&b->by_rwlock, r == MPROC_OWNER_DIED, random);
    if (r == MPROC_OWNER_DIED)
      CHECK_EQ(mproc_rwlock_consistent(b->rwlock), 0);
  }
  CHECK_EQ(mproc_rwlock_release(b->rwlock), 0);
  b->rounds[RWLOCK]++;
}

static void tracked_work(board *b, int self, uint64_t *random) {
  (void)self;
  int r = mproc_semaphore_acquire(b->tracked, LONG_MS);
  CHECK_OK(r);
  change(&b->by_permit, r == MPROC_OWNER_DIED, random);
  CHECK_EQ(mproc_semaphore_release(b->tracked, 1), 0);
  b->rounds[TRACKED]++;
}

/* A permit without an owner goes with the one who takes it: one gives, the other takes. */
static void permit_work(board *b, int self, uint64_t *random) {
  if (self == 0) {
    int count =
        mproc_semaphore_value(b->permits) < BACKLOG ? 1 + (int)random_below(random, MOST) : 0;
    b->given += count;
    if (count)
      CHECK_EQ(mproc_semaphore_release(b->permits, count), 0);
    usleep(random_below(random, 500));
    return;
  }
  CHECK_EQ(mproc_semaphore_acquire(b->permits, LONG_MS), 0);
  b->taken++;
  b->rounds[PERMIT]++;
}

static void bounded_work(board *b, int self, uint64_t *random) {
  int value = mproc_semaphore_value(b->bounded);
  CHECK(value >= 0 && value <= BOUND);
  if (self == 0) {
    int r = mproc_semaphore_release(b->bounded, 1);
    if (r != 0)
      CHECK_EQ(r, -EOVERFLOW);
    usleep(random_below(random, 500));
    return;
  }
  CHECK_EQ(mproc_semaphore_acquire(b->bounded, LONG_MS), 0);
  b->rounds[BOUNDED]++;
}

/* Tokens are one number: whoever was told that an owner died finds it whole. */
static void accept(board *b, int r) {
  CHECK_OK(r);
  if (r == MPROC_OWNER_DIED)
    CHECK_EQ(mproc_condition_consistent(b->condition), 0);
}

/* One makes tokens, the other waits for them. */
static void condition_work(board *b, int self, uint64_t *random) {
  accept(b, mproc_condition_acquire(b->condition, LONG_MS));
  if (self == 0) {
    pause_in_between(random);
    b->tokens++;
    CHECK_OK(mproc_condition_notify(b->condition, 1));
    CHECK_EQ(mproc_condition_release(b->condition), 0);
    usleep(random_below(random, 500));
    return;
  }
  while (b->tokens == 0 && !b->must_end)
    accept(b, mproc_condition_wait(b->condition, LONG_MS));
  b->tokens -= b->tokens > 0;
  CHECK_EQ(mproc_condition_release(b->condition), 0);
  b->rounds[CONDITION]++;
}

static void event_work(board *b, int self, uint64_t *random) {
  if (self == 0) {
    CHECK_EQ(mproc_event_set(b->event), 0);
    pause_in_between(random);
    CHECK_EQ(mproc_event_clear(b->event), 0);
    usleep(random_below(random, 500));
  } else {
    CHECK_EQ(mproc_event_wait(b->event, LONG_MS), 0);
    b->rounds[EVENT]++;
  }
}

/* It only grows. What was seen last is kept, so that no change is missed. */
static void value_work(board *b, int self, uint64_t *random) {
  static int64_t seen = -1;
  int64_t now;
  if (self == 0) {
    CHECK_EQ(mproc_value_add_int64(b->value, 1, NULL), 0);
    usleep(random_below(random, 500));
    return;
  }
  CHECK_EQ(mproc_value_wait_int64(b->value, seen, &now, LONG_MS), 0);
  CHECK(now > seen);
  seen = now;
  b->rounds[VALUE]++;
}

static int no_action(void *arg) {
  (void)arg;
  return 0;
}

/* Broken when somebody died in the action. */
static void barrier_work(board *b, int self, uint64_t *random) {
  (void)self, (void)random;
  int r = mproc_barrier_wait_action(b->barrier, no_action, NULL, LONG_MS);
  CHECK(r >= 0 || r == MPROC_EBROKEN);
  if (r >= 0)
    b->rounds[BARRIER]++;
  else if (!b->must_end)
    CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
}

/* The other may wait, and looks whether all must end when it goes on. */
static void tell_the_last_time(board *b, int role) {
  if (role == EVENT)
    CHECK_EQ(mproc_event_set(b->event), 0);
  else if (role == VALUE)
    CHECK_EQ(mproc_value_add_int64(b->value, 1, NULL), 0);
  else if (role == PERMIT) {
    b->given++;
    CHECK_EQ(mproc_semaphore_release(b->permits, 1), 0);
  } else if (role == BOUNDED)
    (void)mproc_semaphore_release(b->bounded, 1);
}

static int work(void *arg, size_t size) {
  static void (*const works[])(board *, int, uint64_t *) = {
      [LOCK] = lock_work,           [RLOCK] = rlock_work,   [RWLOCK] = rwlock_work,
      [TRACKED] = tracked_work,     [PERMIT] = permit_work, [BOUNDED] = bounded_work,
      [CONDITION] = condition_work, [EVENT] = event_work,   [VALUE] = value_work,
      [BARRIER] = barrier_work};
  const post *order = arg;
  board *b = order->board;
  uint64_t random = order->seed | 1;
  (void)size;
  while (!b->must_end)
    works[order->role](b, (int)(order->index % 2), &random);
  if (order->index % 2 == 0)
    tell_the_last_time(b, (int)order->role);
  return 0;
}

/* ---- the storm ------------------------------------------------------------------------------- */

static board *new_board(void) {
  static const mproc_semaphore_options tracked = {.tracked = 1}, bounded = {.bounded = 1};
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_lock_create(&b->lock), 0);
  CHECK_EQ(mproc_rlock_create(&b->rlock), 0);
  CHECK_EQ(mproc_rwlock_create(&b->rwlock), 0);
  CHECK_EQ(mproc_semaphore_create(1, &tracked, &b->tracked), 0);
  CHECK_EQ(mproc_semaphore_create(0, NULL, &b->permits), 0);
  CHECK_EQ(mproc_semaphore_create(BOUND, &bounded, &b->bounded), 0);
  CHECK_EQ(mproc_condition_create(NULL, &b->condition), 0);
  CHECK_EQ(mproc_event_create(&b->event), 0);
  CHECK_EQ(mproc_value_create_int64(0, &b->value), 0);
  CHECK_EQ(mproc_barrier_create(2, &b->barrier), 0);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_lock_destroy(b->lock), 0);
  CHECK_EQ(mproc_rlock_destroy(b->rlock), 0);
  CHECK_EQ(mproc_rwlock_destroy(b->rwlock), 0);
  CHECK_EQ(mproc_semaphore_destroy(b->tracked), 0);
  CHECK_EQ(mproc_semaphore_destroy(b->permits), 0);
  CHECK_EQ(mproc_semaphore_destroy(b->bounded), 0);
  CHECK_EQ(mproc_condition_destroy(b->condition), 0);
  CHECK_EQ(mproc_event_destroy(b->event), 0);
  CHECK_EQ(mproc_value_destroy(b->value), 0);
  CHECK_EQ(mproc_barrier_destroy(b->barrier), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* Nobody is inside any more. */
static void check_whole(const board *b) {
  check_is_whole(mpx_lock_check(b->lock));
  check_is_whole(mpx_rlock_check(b->rlock));
  check_is_whole(mpx_rwlock_check(b->rwlock));
  check_is_whole(mpx_semaphore_check(b->tracked));
  check_is_whole(mpx_semaphore_check(b->permits));
  check_is_whole(mpx_semaphore_check(b->bounded));
  check_is_whole(mpx_condition_check(b->condition));
  check_is_whole(mpx_event_check(b->event));
  check_is_whole(mpx_value_check(b->value));
  check_is_whole(mpx_barrier_check(b->barrier));
}

/* Who waits for a partner goes too. */
static void end_all(board *b, storm *s) {
  accept(b, mproc_condition_acquire(b->condition, LONG_MS));
  b->must_end = 1;
  CHECK_OK(mproc_condition_notify_all(b->condition));
  CHECK_EQ(mproc_condition_release(b->condition), 0);
  CHECK_EQ(mproc_barrier_abort(b->barrier), 0);
  for (int role = 0; role < ROLES; role++)
    storm_end(s, role);
}

/* None came from nowhere; each of the dead may have given or taken some that were not counted. */
static void check_permits(const board *b, int killed) {
  int64_t gone = b->given - b->taken - mproc_semaphore_value(b->permits);
  CHECK(gone >= 0);
  CHECK(gone <= (int64_t)killed * MOST);
}

TEST_LIMIT(locks_and_signals_under_fire, 300) {
  check_family_works();
  free_board(new_board());
  drain_closed();
  check_alone(DRAIN_MS);
  const holdings before = count_holdings();
  board *b = new_board();
  storm s;
  storm_init(&s, work, b, progress_of, ROLES, (1U << ROLES) - 1);
  for (int role = 0; role < ROLES; role++)
    storm_add(&s, role, 2);
  storm_blow(&s, test_scale(ROUNDS));
  end_all(b, &s);
  check_whole(b);
  check_permits(b, s.killed[PERMIT]);
  uint64_t random = 1;
  lock_work(b, 0, &random);
  rlock_work(b, 0, &random);
  rwlock_work(b, 0, &random);
  tracked_work(b, 0, &random);
  condition_work(b, 0, &random);
  CHECK_EQ(mproc_event_clear(b->event), 0);
  CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
  check_whole(b);
  free_board(b);
  drain_closed();
  check_drained(&before, DRAIN_MS, "a storm");
}
