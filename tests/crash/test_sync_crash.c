/* Locks and signals: a process dies, or is stopped for a while, at each named place. Its partner,
 * who does the same with the same objects, goes on, and nothing is left of the dead. */
#include "harness.h"
#include "latency.h"
#include "members.h"

#include "sync/check.h"

#include <sched.h>
#include <stdatomic.h>

/* The hang limit is for the rounds after the first, and for busy machines. A round has pauses of
 * its own. */
enum { DRAIN_MS = 1000, ROUNDS_AFTER = 4, SOON_MS = 5000, OWN_MS = 5 };

/* In the shared heap. */
typedef struct board {
  mproc_lock *lock;
  mproc_rlock *rlock;
  mproc_rwlock *rwlock;
  mproc_semaphore *permits, *tracked;
  mproc_condition *condition;
  mproc_event *events[2];
  mproc_value *value;
  mproc_barrier *barrier;
  mproc_queue *queue;
  int turn; /* whose: under the condition's lock */
  _Atomic int stop, next_may_come, sleeps, goes_on, has_begun[2];
  _Atomic int64_t rounds[2];
} board;

typedef void work(board *b, int self);

typedef struct job {
  board *b;
  uintptr_t number; /* of the work: addresses differ between processes */
  int64_t self;
  bool is_next; /* comes when the victim is dead */
} job;

static board *new_board(void) {
  static const mproc_semaphore_options tracked = {.tracked = 1};
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_lock_create(&b->lock), 0);
  CHECK_EQ(mproc_rlock_create(&b->rlock), 0);
  CHECK_EQ(mproc_rwlock_create(&b->rwlock), 0);
  CHECK_EQ(mproc_semaphore_create(2, NULL, &b->permits), 0);
  CHECK_EQ(mproc_semaphore_create(1, &tracked, &b->tracked), 0);
  CHECK_EQ(mproc_condition_create(NULL, &b->condition), 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_event_create(&b->events[i]), 0);
  CHECK_EQ(mproc_value_create_int64(0, &b->value), 0);
  CHECK_EQ(mproc_barrier_create(2, &b->barrier), 0);
  CHECK_EQ(mproc_queue_create(NULL, &b->queue), 0);
  return b;
}

/* None counts a dead process for one that is inside. */
static void free_board(board *b) {
  CHECK_EQ(mproc_lock_destroy(b->lock), 0);
  CHECK_EQ(mproc_rlock_destroy(b->rlock), 0);
  CHECK_EQ(mproc_rwlock_destroy(b->rwlock), 0);
  CHECK_EQ(mproc_semaphore_destroy(b->permits), 0);
  CHECK_EQ(mproc_semaphore_destroy(b->tracked), 0);
  CHECK_EQ(mproc_condition_destroy(b->condition), 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_event_destroy(b->events[i]), 0);
  CHECK_EQ(mproc_value_destroy(b->value), 0);
  CHECK_EQ(mproc_barrier_destroy(b->barrier), 0);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* Nobody is inside any more. */
static void check_whole(const board *b) {
  check_is_whole(mpx_lock_check(b->lock));
  check_is_whole(mpx_rlock_check(b->rlock));
  check_is_whole(mpx_rwlock_check(b->rwlock));
  check_is_whole(mpx_semaphore_check(b->permits));
  check_is_whole(mpx_semaphore_check(b->tracked));
  check_is_whole(mpx_condition_check(b->condition));
  for (int i = 0; i < 2; i++)
    check_is_whole(mpx_event_check(b->events[i]));
  check_is_whole(mpx_barrier_check(b->barrier));
}

/* ---- what both do ---------------------------------------------------------------------------- */

static void lock_work(board *b, int self) {
  (void)self;
  int r = mproc_lock_acquire(b->lock, MPROC_FOREVER);
  CHECK_OK(r);
  if (r == MPROC_OWNER_DIED)
    CHECK_EQ(mproc_lock_consistent(b->lock), 0);
  sleep_ms(1);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
}

static void rlock_work(board *b, int self) {
  (void)self;
  int r = mproc_rlock_acquire(b->rlock, MPROC_FOREVER);
  CHECK_OK(r);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, 0), r);
  if (r == MPROC_OWNER_DIED)
    CHECK_EQ(mproc_rlock_consistent(b->rlock), 0);
  sched_yield();
  CHECK_EQ(mproc_rlock_release(b->rlock), 0);
  CHECK_EQ(mproc_rlock_release(b->rlock), 0);
  sleep_ms(1); /* a lock is not fair: who takes it again at once may keep the other out for long */
}

static void rwlock_work(board *b, int self) {
  CHECK_OK(mproc_rwlock_acquire_read(b->rwlock, MPROC_FOREVER));
  sleep_ms(1 + self);
  CHECK_EQ(mproc_rwlock_release(b->rwlock), 0);
  int r = mproc_rwlock_acquire_write(b->rwlock, MPROC_FOREVER);
  CHECK_OK(r);
  if (r == MPROC_OWNER_DIED)
    CHECK_EQ(mproc_rwlock_consistent(b->rwlock), 0);
  sched_yield();
  CHECK_EQ(mproc_rwlock_release(b->rwlock), 0);
}

/* A permit that is not tracked goes with its holder: one of two is left. */
static void permit_work(board *b, int self) {
  (void)self;
  CHECK_EQ(mproc_semaphore_acquire(b->permits, MPROC_FOREVER), 0);
  sched_yield();
  CHECK_EQ(mproc_semaphore_release(b->permits, 1), 0);
}

static void tracked_work(board *b, int self) {
  (void)self;
  CHECK_OK(mproc_semaphore_acquire(b->tracked, MPROC_FOREVER));
  sleep_ms(1);
  CHECK_EQ(mproc_semaphore_release(b->tracked, 1), 0);
}

/* Who was told that an owner died tells all: what that was about to tell is lost. */
static void accept(board *b, int r) {
  CHECK_OK(r);
  if (r == MPROC_OWNER_DIED) {
    CHECK_EQ(mproc_condition_consistent(b->condition), 0);
    CHECK_OK(mproc_condition_notify_all(b->condition));
  }
}

/* Each waits for its turn, for ever, and gives it to the other. */
static void condition_work(board *b, int self) {
  accept(b, mproc_condition_acquire(b->condition, MPROC_FOREVER));
  while (b->turn != self && !b->stop)
    accept(b, mproc_condition_wait(b->condition, MPROC_FOREVER));
  b->turn = !self;
  CHECK_OK(mproc_condition_notify(b->condition, 1));
  CHECK_EQ(mproc_condition_release(b->condition), 0);
}

/* Each sets the other's after it has cleared its own: no set is lost. */
static void event_work(board *b, int self) {
  CHECK_EQ(mproc_event_wait(b->events[self], MPROC_FOREVER), 0);
  CHECK_EQ(mproc_event_clear(b->events[self]), 0);
  CHECK_EQ(mproc_event_set(b->events[!self]), 0);
}

/* Even numbers are the victim's to change, odd ones the partner's. */
static void value_work(board *b, int self) {
  int64_t number;
  CHECK_EQ(mproc_value_get_int64(b->value, &number), 0);
  while (number % 2 != self && !b->stop)
    CHECK_EQ(mproc_value_wait_int64(b->value, number, &number, MPROC_FOREVER), 0);
  CHECK_EQ(mproc_value_add_int64(b->value, 1, NULL), 0);
}

static int no_action(void *arg) {
  (void)arg;
  return 0;
}

static void repair_barrier(board *b) {
  if (!b->stop && mproc_barrier_broken(b->barrier))
    CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
}

/* Broken when the other died in the action. */
static void barrier_work(board *b, int self) {
  (void)self;
  int r = mproc_barrier_wait_action(b->barrier, no_action, NULL, MPROC_FOREVER);
  if (r < 0)
    CHECK_EQ(r, MPROC_EBROKEN);
  repair_barrier(b);
}

/* One who is alone at a barrier breaks it. */
static void breaker_work(board *b, int self) {
  (void)self;
  int r = mproc_barrier_wait(b->barrier, 20);
  CHECK(r >= 0 || r == -ETIMEDOUT || r == MPROC_EBROKEN);
  if (r < 0)
    CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
}

static work *const works[] = {lock_work,      rlock_work, rwlock_work, permit_work,  tracked_work,
                              condition_work, event_work, value_work,  barrier_work, breaker_work};
enum { LOCK, RLOCK, RWLOCK, PERMIT, TRACKED, CONDITION, EVENT, VALUE, BARRIER, BREAKER };

/* Nobody does these alone. */
static bool takes_two(int number) {
  return number == CONDITION || number == EVENT || number == VALUE || number == BARRIER;
}

/* A predecessor may have died with its event cleared, and the other's not set. */
static int go_on(void *arg, size_t size) {
  const job *j = arg;
  (void)size;
  j->b->has_begun[j->self] = 1;
  while (j->is_next && !j->b->next_may_come)
    sleep_ms(1);
  CHECK_EQ(mproc_event_set(j->b->events[!j->self]), 0);
  while (!j->b->stop) {
    works[j->number](j->b, (int)j->self);
    j->b->rounds[j->self]++;
  }
  return 0;
}

static mproc_process *start_one(board *b, int number, int self, const char *point,
                                const char *method) {
  const job j = {b, (uintptr_t)number, self, false};
  if (point)
    setenv("MPROC_CRASH", point, 1);
  mproc_process *process = start_by(method, go_on, &j, sizeof j);
  unsetenv("MPROC_CRASH");
  return process;
}

/* It stands by, as a start takes its time. */
static mproc_process *start_next(board *b, int number, int self, const char *method) {
  const job j = {b, (uintptr_t)number, self, true};
  mproc_process *process = start_by(method, go_on, &j, sizeof j);
  AWAIT(b->has_begun[self]);
  return process;
}

/* Whoever waits for one that has gone already is let go. */
static void end_one(board *b, mproc_process *process) {
  b->stop = 1;
  while (mproc_process_join(process, 5) == -ETIMEDOUT) {
    CHECK_OK(mproc_condition_acquire(b->condition, JOIN_MS));
    CHECK_OK(mproc_condition_notify_all(b->condition));
    CHECK_EQ(mproc_condition_release(b->condition), 0);
    CHECK_EQ(mproc_event_set(b->events[0]), 0);
    CHECK_EQ(mproc_event_set(b->events[1]), 0);
    CHECK_EQ(mproc_value_add_int64(b->value, 2, NULL), 0);
    CHECK_EQ(mproc_barrier_abort(b->barrier), 0);
  }
  check_exited(process, 0);
}

/* ---- dying ----------------------------------------------------------------------------------- */

static holdings before;

static void begin(void) {
  SKIP_WITHOUT_CRASH_POINTS();
  check_family_works();
  free_board(new_board());
  drain_closed();
  check_alone(DRAIN_MS);
  before = count_holdings();
}

static void await_rounds(const board *b, int self) {
  int64_t wanted = b->rounds[self] + ROUNDS_AFTER;
  AWAIT(b->rounds[self] >= wanted);
}

/* What it takes two for, too, as far as one alone can tell. */
static void check_all_work(board *b) {
  for (int i = 0; i < CONDITION; i++)
    works[i](b, 1);
  accept(b, mproc_condition_acquire(b->condition, 0));
  CHECK_EQ(mproc_condition_notify_all(b->condition), 0);
  CHECK_EQ(mproc_condition_release(b->condition), 0);
  CHECK_EQ(mproc_event_set(b->events[0]), 0);
  CHECK_EQ(mproc_event_wait(b->events[0], 0), 0);
  CHECK_EQ(mproc_value_add_int64(b->value, 1, NULL), 0);
  CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
  CHECK_EQ(mproc_barrier_n_waiting(b->barrier), 0);
}

/* `alone`: the partner comes when the victim is dead. Else the victim is the first to use the
 * objects once, and once the second. What takes two goes on with another in the victim's place. */
static void dies_at(const char *point, int number, bool alone) {
  begin();
  FOR_ALL_METHODS(method)
  for (int first = 0; first < 2; first++) {
    board *b = new_board();
    mproc_process *partner = NULL;
    mproc_process *next = takes_two(number) ? start_next(b, number, 0, method) : NULL;
    if (alone)
      partner = start_next(b, number, 1, method);
    else if (!first)
      partner = start_one(b, number, 1, NULL, method);
    mproc_process *victim = start_one(b, number, 0, point, method);
    if (!alone && first)
      partner = start_one(b, number, 1, NULL, method);
    check_killed(victim, SIGKILL);
    if (alone)
      check_whole(b);
    AWAIT(b->has_begun[1]);
    int64_t since = now_ms(), was = b->rounds[1];
    b->next_may_come = 1;
    AWAIT_GOING_ON(b->rounds[1] > was, OWN_MS, point);
    await_rounds(b, 1);
    CHECK(UNDER_SANITIZER || test_under_valgrind() || now_ms() - since < SOON_MS);
    end_one(b, partner);
    if (next)
      end_one(b, next);
    check_whole(b);
    check_all_work(b);
    check_whole(b);
    free_board(b);
    drain_closed();
    check_drained(&before, DRAIN_MS, point);
  }
  latency_report(point);
}

/* Alive: whoever needs what it holds waits; it goes on where it was. */
static void stops_at(const char *point, int number) {
  char stop[64];
  begin();
  snprintf(stop, sizeof stop, "%s:stop", point);
  board *b = new_board();
  mproc_process *partner = start_one(b, number, 1, NULL, "fork");
  mproc_process *victim = start_one(b, number, 0, stop, "fork");
  CHECK(stopped_within(mproc_process_pid(victim), JOIN_MS));
  sleep_ms(200);
  CHECK_EQ(kill((pid_t)mproc_process_pid(victim), SIGCONT), 0);
  await_rounds(b, 0);
  await_rounds(b, 1);
  end_one(b, victim);
  end_one(b, partner);
  check_whole(b);
  check_all_work(b);
  free_board(b);
}

#define DIES(name, point, number)                                                                  \
  TEST_LIMIT(dies_##name, 60) {                                                                    \
    dies_at(point, number, false);                                                                 \
  }                                                                                                \
  TEST_LIMIT(stops_##name, 60) {                                                                   \
    stops_at(point, number);                                                                       \
  }

DIES(with_a_lock_that_it_just_got, "mutex.taken", LOCK)
DIES(before_it_sleeps_for_a_lock, "mutex.waits", LOCK)
DIES(when_it_was_woken_for_a_lock, "mutex.woken", LOCK)
DIES(when_it_has_opened_a_lock, "mutex.released", LOCK)
DIES(when_it_has_opened_an_rlock, "mutex.released", RLOCK)
DIES(with_an_rlock_that_it_just_got, "mutex.taken", RLOCK)
DIES(as_a_reader, "rwlock.reader", RWLOCK)
DIES(as_a_writer, "rwlock.writer", RWLOCK)
DIES(awaiting_readers, "rwlock.awaits_readers", RWLOCK)
DIES(with_a_tracked_permit, "semaphore.taken", TRACKED)
DIES(before_it_sleeps_for_a_permit, "semaphore.waits", TRACKED)
DIES(when_it_was_woken_for_a_permit, "semaphore.woken", TRACKED)
DIES(when_it_is_about_to_give_a_permit, "semaphore.gives", TRACKED)
DIES(when_it_has_given_a_permit, "semaphore.given", TRACKED)
DIES(when_it_has_given_a_plain_permit, "semaphore.given", PERMIT)
DIES(in_a_turn, "turn.counted", TRACKED)
DIES(when_it_has_set_an_event, "turn.counted", EVENT)
DIES(when_it_has_woken_those_at_an_event, "notice.woken", EVENT)
DIES(when_it_has_changed_a_value, "turn.counted", VALUE)
DIES(before_it_sleeps_for_a_value, "value.waits", VALUE)
DIES(when_it_lets_go_at_a_barrier, "turn.counted", BARRIER)
DIES(before_it_tells_a_waiter, "condition.tells", CONDITION)
DIES(when_it_has_told_a_waiter, "condition.told", CONDITION)
DIES(when_it_stands_in_line, "condition.stands", CONDITION)
DIES(before_it_sleeps_in_a_condition, "condition.waits", CONDITION)
DIES(when_it_was_woken_in_a_condition, "condition.woken", CONDITION)
DIES(when_it_is_back_from_a_condition, "condition.back", CONDITION)
DIES(before_it_sleeps_at_a_barrier, "barrier.waits", BARRIER)
DIES(when_it_leads_at_a_barrier, "barrier.acts", BARRIER)
DIES(when_it_opens_a_barrier, "barrier.opens", BARRIER)
DIES(when_it_has_told_one_at_a_barrier, "barrier.told_one", BARRIER)

TEST_LIMIT(dies_with_a_roster_that_it_made, 60) {
  dies_at("roster.chunk", RWLOCK, true);
}

TEST_LIMIT(dies_when_it_breaks_a_barrier, 60) {
  dies_at("barrier.breaks", BREAKER, true);
}

/* The lock of a dead owner, whose finder dies as well. */
static int take_and_die(void *arg, size_t size) {
  (void)size;
  CHECK_EQ(mproc_lock_acquire((*(board **)arg)->lock, 0), 0);
  raise(SIGKILL);
  return 0;
}

TEST_LIMIT(dies_when_it_finds_a_dead_owner, 60) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    check_killed(start_by(method, take_and_die, &b, sizeof b), SIGKILL);
    check_killed(start_one(b, LOCK, 0, "mutex.found_dead", method), SIGKILL);
    check_whole(b);
    check_killed(start_one(b, LOCK, 0, "mutex.taken", method), SIGKILL);
    check_whole(b);
    CHECK_EQ(mproc_lock_acquire(b->lock, 0), MPROC_OWNER_DIED);
    CHECK_EQ(mproc_lock_consistent(b->lock), 0);
    CHECK_EQ(mproc_lock_release(b->lock), 0);
    check_all_work(b);
    free_board(b);
    drain_closed();
    check_drained(&before, DRAIN_MS, method);
  }
}

/* ---- a sleeper whose wake-up dies ------------------------------------------------------------ */

enum { AT_EVENT, AT_VALUE, AT_QUEUE, PLACES };

static int sleep_at(void *arg, size_t size) {
  const job *j = arg;
  int64_t number;
  char text[8];
  (void)size;
  j->b->sleeps = 1;
  if (j->number == AT_EVENT)
    CHECK_EQ(mproc_event_wait(j->b->events[0], MPROC_FOREVER), 0);
  else if (j->number == AT_VALUE)
    CHECK_EQ(mproc_value_wait_int64(j->b->value, 0, &number, MPROC_FOREVER), 0);
  else
    CHECK_EQ(mproc_queue_get(j->b->queue, text, sizeof text, NULL, MPROC_FOREVER), 0);
  j->b->goes_on = 1;
  return 0;
}

/* The change is there when it dies. */
static int wake_at(void *arg, size_t size) {
  const job *j = arg;
  (void)size;
  if (j->number == AT_EVENT)
    return mproc_event_set(j->b->events[0]);
  if (j->number == AT_VALUE)
    return mproc_value_add_int64(j->b->value, 1, NULL);
  return mproc_queue_put(j->b->queue, "text", 4, 0);
}

/* Nobody else comes by: the sleeper finds out by its own look. */
static void wake_up_dies(int place, const char *method) {
  board *b = new_board();
  const job j = {b, (uintptr_t)place, 0, false};
  mproc_process *sleeper = start_by(method, sleep_at, &j, sizeof j);
  AWAIT(b->sleeps && state_of(mproc_process_pid(sleeper)) == 'S');
  sleep_ms(10);
  CHECK(!b->goes_on);
  setenv("MPROC_CRASH", "turn.counted", 1);
  mproc_process *victim = start_by(method, wake_at, &j, sizeof j);
  unsetenv("MPROC_CRASH");
  check_killed(victim, SIGKILL);
  AWAIT_GOING_ON(b->goes_on, 0, "turn.counted");
  check_exited(sleeper, 0);
  free_board(b);
  drain_closed();
  check_drained(&before, DRAIN_MS, method);
}

TEST_LIMIT(dies_when_a_sleeper_is_to_be_woken, 60) {
  begin();
  FOR_ALL_METHODS(method)
  for (int place = 0; place < PLACES; place++)
    wake_up_dies(place, method);
  latency_report("turn.counted");
}
