/* Condition and Barrier. */
#include "harness.h"
#include "methods.h"
#include "processes.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SOON_MS = 5000, WAITERS = 6 };

/* In the shared heap. What the condition's lock guards: items, told, waiting. */
typedef struct board {
  mproc_condition *condition;
  mproc_barrier *barrier;
  int items, told, waiting;
  int rounds, how, timeout_ms;
  int order[WAITERS];
  _Atomic int number, go, acted, passed;
} board;

static board *new_board(const mproc_condition_options *options, int parties) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_condition_create(options, &b->condition), 0);
  CHECK_EQ(mproc_barrier_create(parties, &b->barrier), 0);
  b->timeout_ms = MPROC_FOREVER;
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_condition_destroy(b->condition), 0);
  CHECK_EQ(mproc_barrier_destroy(b->barrier), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void lock(board *b) {
  CHECK_EQ(mproc_condition_acquire(b->condition, MPROC_FOREVER), 0);
}

static void unlock(board *b) {
  CHECK_EQ(mproc_condition_release(b->condition), 0);
}

/* ---- condition: one thread ------------------------------------------------------------------- */

TEST(condition_in_one_thread) {
  mproc_lock *own_lock;
  mproc_rlock *own_rlock;
  CHECK_EQ(mproc_lock_create(&own_lock), 0);
  CHECK_EQ(mproc_rlock_create(&own_rlock), 0);
  const mproc_condition_options all[] = {{.lock = NULL}, {.lock = own_lock}, {.rlock = own_rlock}};
  for (int i = 0; i < 3; i++) {
    board *b = new_board(i ? &all[i] : NULL, 1);
    CHECK_EQ(mproc_condition_wait(b->condition, 0), -EPERM);
    CHECK_EQ(mproc_condition_notify(b->condition, 1), -EPERM);
    CHECK_EQ(mproc_condition_notify_all(b->condition), -EPERM);
    CHECK_EQ(mproc_condition_release(b->condition), -EPERM);
    lock(b);
    CHECK_EQ(mproc_condition_wait(b->condition, 0), -EAGAIN);
    CHECK_EQ(mproc_condition_notify(b->condition, 0), -EINVAL);
    CHECK_EQ(mproc_condition_notify(b->condition, 5), 0);
    CHECK_EQ(mproc_condition_notify_all(b->condition), 0);
    int64_t begin = now_ms();
    CHECK_EQ(mproc_condition_wait(b->condition, 60), -ETIMEDOUT);
    CHECK(now_ms() - begin >= 59);
    CHECK_EQ(mproc_condition_wait(b->condition, -3), -EINVAL);
    CHECK_EQ(mproc_condition_destroy(b->condition), i ? 0 : -EBUSY);
    if (i) {
      CHECK_EQ(mproc_condition_wait(b->condition, 0), MPROC_ECLOSED);
      CHECK_EQ(i == 1 ? mproc_lock_release(own_lock) : mproc_rlock_release(own_rlock), 0);
      CHECK_EQ(mproc_condition_create(&all[i], &b->condition), 0);
    } else {
      unlock(b);
    }
    free_board(b);
  }
  const mproc_condition_options both = {.lock = own_lock, .rlock = own_rlock};
  mproc_condition *condition;
  CHECK_EQ(mproc_condition_create(&both, &condition), -EINVAL);
  const mproc_condition_options wrong = {.lock = (mproc_lock *)(void *)own_rlock};
  CHECK_EQ(mproc_condition_create(&wrong, &condition), -EINVAL);
  CHECK_EQ(mproc_condition_create(NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_lock_destroy(own_lock), 0);
  CHECK_EQ(mproc_rlock_destroy(own_rlock), 0);
}

/* An RLock that was taken three times is let go of, and is held three times again. */
static int tell_one(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  lock(b);
  CHECK_EQ(mproc_condition_notify(b->condition, 3), 1);
  unlock(b);
  return 0;
}

EACH_METHOD(wait_lets_go_of_all_levels) {
  board *b = new_board(NULL, 1);
  for (int i = 0; i < 3; i++)
    lock(b);
  mproc_process *child = start_by(method, tell_one, &b, sizeof b);
  CHECK_EQ(mproc_condition_wait(b->condition, SOON_MS), 0);
  check_exited(child, 0);
  for (int i = 0; i < 3; i++)
    unlock(b);
  CHECK_EQ(mproc_condition_release(b->condition), -EPERM);
  free_board(b);
}

/* ---- condition: several processes ------------------------------------------------------------ */

static int wait_in_line(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  lock(b);
  int own = b->waiting++;
  int r = mproc_condition_wait(b->condition, b->timeout_ms);
  if (r == 0)
    b->order[b->told++] = own;
  unlock(b);
  return r == 0 ? 0 : r == -ETIMEDOUT ? 1 : 2;
}

static void start_waiters(board *b, const char *method, mproc_process **waiters) {
  for (int i = 0; i < WAITERS; i++) {
    waiters[i] = start_by(method, wait_in_line, &b, sizeof b);
    for (bool waits = false; !waits; sleep_ms(1)) {
      lock(b);
      waits = b->waiting == i + 1;
      unlock(b);
    }
  }
}

static int notify(board *b, int count) {
  lock(b);
  int told = count ? mproc_condition_notify(b->condition, count)
                   : mproc_condition_notify_all(b->condition);
  unlock(b);
  return told;
}

static void await_told(board *b, int count) {
  for (int told = 0; told < count; sleep_ms(1)) {
    lock(b);
    told = b->told;
    unlock(b);
  }
}

EACH_METHOD(longest_waiter_is_told_first) {
  board *b = new_board(NULL, 1);
  mproc_process *waiters[WAITERS];
  start_waiters(b, method, waiters);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(notify(b, 1), 1);
    await_told(b, i + 1);
  }
  sleep_ms(150); /* nobody else goes by himself */
  lock(b);
  CHECK_EQ(b->told, 2);
  unlock(b);
  CHECK_EQ(notify(b, 3), 3);
  await_told(b, 5);
  CHECK_EQ(notify(b, 0), 1);
  for (int i = 0; i < WAITERS; i++)
    check_exited(waiters[i], 0);
  CHECK_EQ(b->order[0], 0);
  CHECK_EQ(b->order[1], 1);
  CHECK_EQ(notify(b, 0), 0);
  free_board(b);
}

EACH_METHOD(killed_waiters_get_no_notification) {
  board *b = new_board(NULL, 1);
  mproc_process *waiters[WAITERS];
  start_waiters(b, method, waiters);
  for (int i = 0; i < 4; i++)
    kill_child(waiters[i]);
  CHECK_EQ(notify(b, 1), 1);
  check_exited(waiters[4], 0);
  CHECK_EQ(notify(b, 0), 1);
  check_exited(waiters[5], 0);
  free_board(b);
}

/* Stopped when it is told, killed after: its turn goes to the next. */
TEST(what_a_dead_waiter_was_told_is_told_to_another) {
  board *b = new_board(NULL, 1);
  mproc_process *waiters[WAITERS];
  start_waiters(b, "fork", waiters);
  int64_t first = mproc_process_pid(waiters[0]);
  CHECK_EQ(kill((pid_t)first, SIGSTOP), 0);
  CHECK(stopped_within(first, SOON_MS));
  CHECK_EQ(notify(b, 1), 1);
  sleep_ms(150);
  CHECK_EQ(b->told, 0);
  kill_child(waiters[0]);
  check_exited(waiters[1], 0);
  CHECK_EQ(notify(b, 0), 4);
  for (int i = 2; i < WAITERS; i++)
    check_exited(waiters[i], 0);
  free_board(b);
}

EACH_METHOD(waiters_that_run_out_of_time) {
  board *b = new_board(NULL, 1);
  mproc_process *waiters[WAITERS];
  b->timeout_ms = 200;
  start_waiters(b, method, waiters);
  for (int i = 0; i < WAITERS; i++)
    check_exited(waiters[i], 1);
  CHECK_EQ(notify(b, 0), 0);
  free_board(b);
}

/* A store of items: nobody takes what is not there, all are taken. */
static int has_items(void *arg) {
  return ((board *)arg)->items > 0;
}

static int take_items(board *b) {
  for (int i = 0; i < b->rounds; i++) {
    lock(b);
    CHECK_EQ(mproc_condition_wait_for(b->condition, has_items, b, 60000), 1);
    b->items--;
    unlock(b);
  }
  return 0;
}

static int take_items_in_child(void *arg, size_t size) {
  (void)size;
  return take_items(*(board **)arg);
}

static void *take_items_in_thread(void *arg) {
  return take_items(arg) == 0 ? NULL : arg;
}

static void bring_items(board *b, int count) {
  for (int i = 0; i < count; i++) {
    lock(b);
    b->items++;
    CHECK(mproc_condition_notify(b->condition, 1) <= 1);
    unlock(b);
    if (i % 8 == 0)
      sched_yield();
  }
}

EACH_METHOD_LIMIT(store_of_items, 60) {
  board *b = new_board(NULL, 1);
  mproc_process *takers[3];
  b->rounds = test_scale(3000);
  for (int i = 0; i < 3; i++)
    takers[i] = start_by(method, take_items_in_child, &b, sizeof b);
  bring_items(b, 3 * b->rounds);
  for (int i = 0; i < 3; i++)
    check_exited(takers[i], 0);
  CHECK_EQ(b->items, 0);
  lock(b);
  CHECK_EQ(mproc_condition_wait_for(b->condition, has_items, b, 30), 0);
  CHECK_EQ(mproc_condition_wait_for(b->condition, has_items, b, 0), 0);
  CHECK_EQ(mproc_condition_wait_for(b->condition, NULL, b, 0), -EINVAL);
  unlock(b);
  free_board(b);
}

TEST_LIMIT(store_of_items_in_threads, 60) {
  board *b = new_board(NULL, 1);
  pthread_t takers[3];
  b->rounds = test_scale(3000);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_create(&takers[i], NULL, take_items_in_thread, b), 0);
  bring_items(b, 3 * b->rounds);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(pthread_join(takers[i], NULL), 0);
  CHECK_EQ(b->items, 0);
  free_board(b);
}

/* Called before the first wait, which nobody ends before there are items. */
static int counts_waiters(void *arg) {
  board *b = arg;
  b->waiting += b->items == 0;
  return b->items > 0;
}

static void *take_one(void *arg) {
  board *b = arg;
  lock(b);
  CHECK_EQ(mproc_condition_wait_for(b->condition, counts_waiters, b, 60000), 1);
  b->items--;
  unlock(b);
  return NULL;
}

/* More at a time than one chunk of the roster holds. */
TEST_LIMIT(hundred_waiters, 60) {
  enum { MANY = 100 };
  board *b = new_board(NULL, 1);
  pthread_t takers[MANY];
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(pthread_create(&takers[i], NULL, take_one, b), 0);
  for (bool all = false; !all; sleep_ms(1)) {
    lock(b);
    all = b->waiting == MANY;
    unlock(b);
  }
  lock(b);
  b->items = MANY;
  CHECK_EQ(mproc_condition_notify_all(b->condition), MANY);
  unlock(b);
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(pthread_join(takers[i], NULL), 0);
  CHECK_EQ(b->items, 0);
  free_board(b);
}

/* The owner dies while another waits: the waiter has the lock and is told. */
static int take_tell_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  lock(b);
  CHECK_EQ(mproc_condition_notify(b->condition, 1), 1);
  raise(SIGKILL);
  return 0;
}

EACH_METHOD(owner_dies_after_it_has_told) {
  board *b = new_board(NULL, 1);
  lock(b);
  mproc_process *child = start_by(method, take_tell_and_die, &b, sizeof b);
  CHECK_EQ(mproc_condition_wait(b->condition, SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_condition_consistent(b->condition), 0);
  unlock(b);
  check_killed(child, SIGKILL);
  lock(b);
  unlock(b);
  free_board(b);
}

static int take_and_die(void *arg, size_t size) {
  (void)size;
  lock(*(board **)arg);
  raise(SIGKILL);
  return 0;
}

static int never(void *arg) {
  (*(int *)arg)++;
  return 0;
}

/* Its time ends all the same, and the predicate may find out. */
static int whether_one_died(void *arg) {
  return mproc_condition_consistent(((board *)arg)->condition) == 0 ? 7 : 0;
}

TEST(wait_for_with_what_a_dead_owner_left) {
  board *b = new_board(NULL, 1);
  int calls = 0;
  check_killed(start_by("fork", take_and_die, &b, sizeof b), SIGKILL);
  CHECK_EQ(mproc_condition_acquire(b->condition, 0), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_condition_wait_for(b->condition, never, &calls, 0), 0);
  CHECK_EQ(calls, 2);
  CHECK_EQ(mproc_condition_wait_for(b->condition, never, &calls, 60), 0);
  CHECK_EQ(calls, 4);
  CHECK_EQ(mproc_condition_wait_for(b->condition, whether_one_died, b, MPROC_FOREVER), 7);
  CHECK_EQ(mproc_condition_wait_for(b->condition, whether_one_died, b, 10), 0);
  unlock(b);
  lock(b);
  unlock(b);
  free_board(b);
}

/* ---- barrier --------------------------------------------------------------------------------- */

static int count_action(void *arg) {
  board *b = arg;
  CHECK_EQ(b->passed % 4, 0);
  b->acted++;
  return 0;
}

static int go_through(board *b) {
  for (int i = 0; i < b->rounds; i++) {
    int index = b->how ? mproc_barrier_wait_action(b->barrier, count_action, b, 60000)
                       : mproc_barrier_wait(b->barrier, MPROC_FOREVER);
    CHECK(index >= 0 && index < 4);
    b->passed++;
    int last = mproc_barrier_wait(b->barrier, 60000);
    CHECK(last >= 0 && last < 4);
    CHECK_EQ(b->passed, 4 * (i + 1)); /* nobody has gone on before all were there */
    CHECK(mproc_barrier_wait(b->barrier, 60000) >= 0);
  }
  return 0;
}

static int go_through_in_child(void *arg, size_t size) {
  (void)size;
  return go_through(*(board **)arg);
}

static void *go_through_in_thread(void *arg) {
  return go_through(arg) == 0 ? NULL : arg;
}

EACH_METHOD_LIMIT(nobody_passes_before_all_are_there, 60) {
  for (int how = 0; how < 2; how++) {
    board *b = new_board(NULL, 4);
    mproc_process *children[3];
    b->how = how;
    b->rounds = test_scale(500);
    for (int i = 0; i < 3; i++)
      children[i] = start_by(method, go_through_in_child, &b, sizeof b);
    CHECK_EQ(go_through(b), 0);
    for (int i = 0; i < 3; i++)
      check_exited(children[i], 0);
    CHECK_EQ(b->acted, how ? b->rounds : 0);
    CHECK_EQ(mproc_barrier_n_waiting(b->barrier), 0);
    free_board(b);
  }
}

TEST_LIMIT(nobody_passes_before_all_threads_are_there, 60) {
  board *b = new_board(NULL, 4);
  pthread_t threads[4];
  b->how = 1;
  b->rounds = test_scale(500);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, go_through_in_thread, b), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(b->acted, b->rounds);
  free_board(b);
}

/* So many that what costs their square is felt. */
enum { PARTIES = 1000 };

typedef struct crowd {
  mproc_barrier *barrier;
  _Atomic int came[2][PARTIES];
} crowd;

static void *come_twice(void *arg) {
  crowd *c = arg;
  for (int i = 0; i < 2; i++) {
    int number = mproc_barrier_wait(c->barrier, 100000);
    CHECK(number >= 0 && number < PARTIES);
    c->came[i][number]++;
  }
  return NULL;
}

TEST_LIMIT(thousand_parties, 120) {
  static crowd c;
  static pthread_t threads[PARTIES];
  pthread_attr_t attributes;
  CHECK_EQ(mproc_barrier_create(PARTIES, &c.barrier), 0);
  CHECK_EQ(pthread_attr_init(&attributes), 0);
  CHECK_EQ(pthread_attr_setstacksize(&attributes, 256 << 10), 0);
  int64_t begin = now_ms();
  for (int i = 0; i < PARTIES; i++)
    CHECK_EQ(pthread_create(&threads[i], &attributes, come_twice, &c), 0);
  for (int i = 0; i < PARTIES; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK(UNDER_SANITIZER || test_under_valgrind() || now_ms() - begin < 10000);
  for (int i = 0; i < PARTIES; i++)
    CHECK(c.came[0][i] == 1 && c.came[1][i] == 1);
  CHECK_EQ(mproc_barrier_destroy(c.barrier), 0);
  CHECK_EQ(pthread_attr_destroy(&attributes), 0);
}

static int fail_action(void *arg) {
  (void)arg;
  return -5;
}

TEST(barrier_in_one_thread) {
  board *b = new_board(NULL, 1);
  mproc_barrier *wrong;
  CHECK_EQ(mproc_barrier_create(0, &wrong), -EINVAL);
  CHECK_EQ(mproc_barrier_create(2, NULL), -EINVAL);
  CHECK_EQ(mproc_barrier_parties(b->barrier), 1);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_barrier_wait(b->barrier, i - 1), 0);
  CHECK_EQ(mproc_barrier_wait_action(b->barrier, fail_action, NULL, 0), MPROC_EBROKEN);
  CHECK_CONTAINS(mproc_error_detail(), "-5");
  CHECK_EQ(mproc_barrier_broken(b->barrier), 1);
  CHECK_EQ(mproc_barrier_wait(b->barrier, 0), MPROC_EBROKEN);
  CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
  CHECK_EQ(mproc_barrier_broken(b->barrier), 0);
  CHECK_EQ(mproc_barrier_wait(b->barrier, 0), 0);
  CHECK_EQ(mproc_barrier_abort(b->barrier), 0);
  CHECK_EQ(mproc_barrier_wait(b->barrier, MPROC_FOREVER), MPROC_EBROKEN);
  mproc_barrier *gone = b->barrier;
  CHECK_EQ(mproc_barrier_destroy(gone), 0);
  CHECK_EQ(mproc_barrier_wait(gone, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_barrier_create(2, &b->barrier), 0);
  CHECK_EQ(mproc_barrier_wait(b->barrier, 0), -EAGAIN);
  CHECK_EQ(mproc_barrier_broken(b->barrier), 0);
  CHECK_EQ(mproc_barrier_n_waiting(b->barrier), 0);
  CHECK_EQ(mproc_barrier_wait(b->barrier, 30), -ETIMEDOUT);
  CHECK_EQ(mproc_barrier_broken(b->barrier), 1);
  free_board(b);
}

/* Exit code: 0 to parties - 1, or 100 broken, 101 out of time. */
static int wait_at_barrier(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->go++;
  int r = mproc_barrier_wait(b->barrier, b->timeout_ms);
  return r == MPROC_EBROKEN ? 100 : r == -ETIMEDOUT ? 101 : r < 0 ? 102 : r;
}

enum { ABORT, RESET, TIME, ENDS };

EACH_METHOD(barrier_breaks_for_all) {
  for (int how = 0; how < ENDS; how++) {
    board *b = new_board(NULL, 4);
    mproc_process *children[3];
    for (int i = 0; i < 3; i++) {
      b->timeout_ms = how == TIME && i == 2 ? 100 : MPROC_FOREVER;
      children[i] = start_by(method, wait_at_barrier, &b, sizeof b);
      AWAIT(b->go == i + 1);
      sleep_ms(10);
    }
    AWAIT(mproc_barrier_n_waiting(b->barrier) == 3 || how == TIME);
    CHECK(how == TIME || mproc_barrier_destroy(b->barrier) == -EBUSY);
    if (how == ABORT)
      CHECK_EQ(mproc_barrier_abort(b->barrier), 0);
    if (how == RESET)
      CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
    for (int i = 0; i < 3; i++)
      check_exited(children[i], how == TIME && i == 2 ? 101 : 100);
    CHECK_EQ(mproc_barrier_broken(b->barrier), how != RESET);
    CHECK_EQ(mproc_barrier_n_waiting(b->barrier), 0);
    free_board(b);
  }
}

/* As if it had not come: the others wait for one in its place. */
EACH_METHOD(dead_waiter_was_not_there) {
  board *b = new_board(NULL, 3);
  mproc_process *children[2], *dead = start_by(method, wait_at_barrier, &b, sizeof b);
  b->timeout_ms = SOON_MS;
  AWAIT(mproc_barrier_n_waiting(b->barrier) == 1);
  children[0] = start_by(method, wait_at_barrier, &b, sizeof b);
  AWAIT(mproc_barrier_n_waiting(b->barrier) == 2);
  kill_child(dead);
  CHECK_EQ(mproc_barrier_n_waiting(b->barrier), 1);
  CHECK_EQ(mproc_barrier_broken(b->barrier), 0);
  children[1] = start_by(method, wait_at_barrier, &b, sizeof b);
  int got = 1 << mproc_barrier_wait(b->barrier, SOON_MS);
  for (int i = 0; i < 2; i++)
    got |= 1 << end_of(children[i]).code;
  CHECK_EQ(got, 7); /* a number for each, also after a death */
  free_board(b);
}

static int die_in_action(void *arg) {
  (void)arg;
  raise(SIGKILL);
  return 0;
}

static int lead_and_die(void *arg, size_t size) {
  (void)size;
  return mproc_barrier_wait_action((*(board **)arg)->barrier, die_in_action, NULL, MPROC_FOREVER);
}

EACH_METHOD(leader_dies_in_its_action) {
  board *b = new_board(NULL, 3);
  mproc_process *children[2];
  for (int i = 0; i < 2; i++)
    children[i] = start_by(method, wait_at_barrier, &b, sizeof b);
  AWAIT(mproc_barrier_n_waiting(b->barrier) == 2);
  check_killed(start_by(method, lead_and_die, &b, sizeof b), SIGKILL);
  for (int i = 0; i < 2; i++)
    check_exited(children[i], 100);
  CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
  free_board(b);
}
