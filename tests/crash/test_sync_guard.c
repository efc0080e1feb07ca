/* Who dies, or is stopped, while it changes an object for others: what it was about to do is done
 * by somebody else, and nobody waits for it beyond his time. */
#include "harness.h"
#include "methods.h"
#include "processes.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

enum { SOON_MS = 5000, NOT_TOLD = 1, BROKEN = 100, LATE = 101, CROWD = 15 };

/* In the shared heap. */
typedef struct board {
  mproc_condition *condition;
  mproc_barrier *barrier;
  mproc_rwlock *rwlock;
  mproc_semaphore *tracked;
  int stands; /* under the condition's lock */
  int timeout_ms;
  _Atomic int late, acts, go;
} board;

static board *new_board(int parties) {
  static const mproc_semaphore_options tracked = {.tracked = 1};
  SKIP_WITHOUT_CRASH_POINTS();
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_condition_create(NULL, &b->condition), 0);
  CHECK_EQ(mproc_barrier_create(parties, &b->barrier), 0);
  CHECK_EQ(mproc_rwlock_create(&b->rwlock), 0);
  CHECK_EQ(mproc_semaphore_create(2, &tracked, &b->tracked), 0);
  b->timeout_ms = MPROC_FOREVER;
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_condition_destroy(b->condition), 0);
  CHECK_EQ(mproc_barrier_destroy(b->barrier), 0);
  CHECK_EQ(mproc_rwlock_destroy(b->rwlock), 0);
  CHECK_EQ(mproc_semaphore_destroy(b->tracked), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static mproc_process *start_at(const char *point, mproc_entry *entry, board *b) {
  if (point)
    setenv("MPROC_CRASH", point, 1);
  mproc_process *process = start_by("fork", entry, &b, sizeof b);
  unsetenv("MPROC_CRASH");
  return process;
}

static void stop(mproc_process *process) {
  CHECK_EQ(kill((pid_t)mproc_process_pid(process), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(process), JOIN_MS));
}

static void await_stop(mproc_process *process) {
  CHECK(stopped_within(mproc_process_pid(process), JOIN_MS));
}

static void go_on(mproc_process *process) {
  CHECK_EQ(kill((pid_t)mproc_process_pid(process), SIGCONT), 0);
}

static void check_stuck(int r) {
  CHECK_EQ(r, -ETIMEDOUT);
  CHECK_CONTAINS(mproc_error_detail(), "stopped");
}

/* ---- condition ------------------------------------------------------------------------------- */

static void lock(board *b) {
  CHECK_OK(mproc_condition_acquire(b->condition, MPROC_FOREVER));
}

static void unlock(board *b) {
  CHECK_EQ(mproc_condition_release(b->condition), 0);
}

static int notify(board *b) {
  lock(b);
  int told = mproc_condition_notify(b->condition, 1);
  unlock(b);
  return told;
}

static int stand_in_line(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  lock(b);
  b->stands++;
  int r = mproc_condition_wait(b->condition, b->timeout_ms);
  unlock(b);
  return r == 0 ? 0 : r == -ETIMEDOUT ? NOT_TOLD : 2;
}

/* Returns when it has let go of the lock. */
static mproc_process *start_waiter(board *b, const char *point) {
  lock(b);
  int before = b->stands;
  unlock(b);
  mproc_process *waiter = start_at(point, stand_in_line, b);
  for (bool stands = false; !stands; sleep_ms(1)) {
    lock(b);
    stands = b->stands == before + 1;
    unlock(b);
  }
  return waiter;
}

/* The oldest is told, and dies. */
static mproc_process *start_told(board *b) {
  mproc_process *first = start_waiter(b, NULL);
  stop(first);
  CHECK_EQ(notify(b), 1);
  return first;
}

/* The second dies while it passes on what the first was told; the third is told, once. */
TEST_LIMIT(two_deaths_lose_no_notification, 60) {
  static const char *const points[] = {"condition.tells", "condition.told", "condition.passed_on"};
  for (int i = 0; i < 3; i++) {
    board *b = new_board(1);
    mproc_process *first = start_told(b);
    mproc_process *second = start_waiter(b, points[i]);
    mproc_process *third = start_waiter(b, "condition.waits:stop");
    await_stop(third);
    kill_child(first);
    check_killed(second, SIGKILL);
    go_on(third);
    check_exited(third, 0);
    b->timeout_ms = 200;
    mproc_process *fourth = start_waiter(b, NULL);
    check_exited(fourth, NOT_TOLD);
    CHECK_EQ(notify(b), 0);
    free_board(b);
  }
}

/* No wait of its own lasts until a look is due. */
TEST(short_waits_find_what_a_dead_one_was_told) {
  for (int timeout_ms = 0; timeout_ms <= 10; timeout_ms += 10) {
    board *b = new_board(1);
    kill_child(start_told(b));
    int r = -ETIMEDOUT;
    for (int64_t end = now_ms() + SOON_MS; r != 0 && now_ms() < end;) {
      lock(b);
      r = mproc_condition_wait(b->condition, timeout_ms);
      unlock(b);
    }
    CHECK_EQ(r, 0);
    free_board(b);
  }
}

TEST_LIMIT(a_stopped_teller_keeps_nobody, 60) {
  board *b = new_board(1);
  mproc_process *first = start_told(b);
  mproc_process *stuck = start_waiter(b, "condition.told:stop"); /* which tells itself */
  b->timeout_ms = 300;
  mproc_process *late = start_waiter(b, "condition.waits:stop");
  await_stop(late);
  kill_child(first);
  await_stop(stuck);
  go_on(late);
  check_exited(late, NOT_TOLD);
  lock(b);
  int64_t since = now_ms();
  check_stuck(mproc_condition_wait(b->condition, 50));
  CHECK(now_ms() - since >= 50);
  CHECK_EQ(mproc_condition_wait(b->condition, 0), -EAGAIN);
  CHECK_CONTAINS(mproc_error_detail(), "stopped");
  check_stuck(mproc_condition_notify(b->condition, 1));
  check_stuck(mproc_condition_notify_all(b->condition));
  unlock(b);
  check_stuck(mproc_condition_destroy(b->condition));
  go_on(stuck);
  check_exited(stuck, 0);
  CHECK_EQ(notify(b), 0);
  free_board(b);
}

/* ---- barrier --------------------------------------------------------------------------------- */

static int result(board *b, int r) {
  b->late += r == -ETIMEDOUT;
  return r == MPROC_EBROKEN ? BROKEN : r == -ETIMEDOUT ? LATE : r < 0 ? 102 : r;
}

static int wait_at_barrier(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  return result(b, mproc_barrier_wait(b->barrier, MPROC_FOREVER));
}

/* All were there: they go, though the one who says so is stopped. */
TEST_LIMIT(a_stopped_leader_keeps_nobody, 60) {
  board *b = new_board(3);
  mproc_process *children[2];
  for (int i = 0; i < 2; i++) {
    children[i] = start_at(NULL, wait_at_barrier, b);
    AWAIT(mproc_barrier_n_waiting(b->barrier) == i + 1);
  }
  mproc_process *stuck = start_at("barrier.opens:stop", wait_at_barrier, b);
  await_stop(stuck);
  for (int i = 0; i < 2; i++)
    check_exited(children[i], i);
  check_stuck(mproc_barrier_n_waiting(b->barrier));
  check_stuck(mproc_barrier_abort(b->barrier));
  check_stuck(mproc_barrier_reset(b->barrier));
  check_stuck(mproc_barrier_wait(b->barrier, 50));
  CHECK_EQ(mproc_barrier_wait(b->barrier, 0), -EAGAIN);
  CHECK_EQ(mproc_barrier_broken(b->barrier), 0);
  go_on(stuck);
  check_exited(stuck, 2);
  CHECK_EQ(mproc_barrier_n_waiting(b->barrier), 0);
  free_board(b);
}

static int wait_for_little(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  return result(b, mproc_barrier_wait(b->barrier, 100));
}

/* It has broken the barrier; nobody is told but by the state. */
TEST(dies_when_its_time_is_over) {
  board *b = new_board(3);
  mproc_process *other = start_at(NULL, wait_at_barrier, b);
  AWAIT(mproc_barrier_n_waiting(b->barrier) == 1);
  check_killed(start_at("barrier.gives_up", wait_for_little, b), SIGKILL);
  check_exited(other, BROKEN);
  CHECK_EQ(mproc_barrier_broken(b->barrier), 1);
  CHECK_EQ(mproc_barrier_n_waiting(b->barrier), 0);
  CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
  CHECK_EQ(mproc_barrier_wait(b->barrier, 0), -EAGAIN);
  free_board(b);
}

static void *wait_in_thread(void *arg) {
  board *b = arg;
  return result(b, mproc_barrier_wait(b->barrier, b->timeout_ms)) >= BROKEN ? NULL : arg;
}

/* One who comes is stopped: the time of those who wait breaks the barrier all the same. */
TEST_LIMIT(a_stopped_comer_keeps_nobody, 60) {
  board *b = new_board(CROWD + 2);
  pthread_t threads[CROWD]; /* as many as a chunk of the roster holds */
  b->timeout_ms = 2000;
  for (int i = 0; i < CROWD; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, wait_in_thread, b), 0);
  AWAIT(mproc_barrier_n_waiting(b->barrier) == CROWD);
  mproc_process *stuck = start_at("roster.chunk:stop", wait_at_barrier, b);
  await_stop(stuck);
  for (int i = 0; i < CROWD; i++) {
    void *failed;
    CHECK_EQ(pthread_join(threads[i], &failed), 0);
    CHECK(failed == NULL);
  }
  CHECK(b->late >= 1);
  CHECK_EQ(mproc_barrier_broken(b->barrier), 1);
  go_on(stuck);
  check_exited(stuck, BROKEN);
  CHECK_EQ(mproc_barrier_n_waiting(b->barrier), 0);
  CHECK_EQ(mproc_barrier_wait(b->barrier, 0), MPROC_EBROKEN);
  CHECK_EQ(mproc_barrier_reset(b->barrier), 0);
  CHECK_EQ(mproc_barrier_wait(b->barrier, 0), -EAGAIN);
  free_board(b);
}

static int act_until_told(void *arg) {
  board *b = arg;
  b->acts = 1;
  for (int64_t end = now_ms() + JOIN_MS; !b->go && now_ms() < end;)
    sleep_ms(1);
  return 0;
}

static int wait_and_act(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  return result(b, mproc_barrier_wait_action(b->barrier, act_until_told, b, MPROC_FOREVER));
}

static int look_at_barrier(void *arg, size_t size) {
  (void)size;
  return mproc_barrier_n_waiting((*(board **)arg)->barrier);
}

/* Who comes out of an action has lost the guard meanwhile: it is another's, who keeps it. */
TEST_LIMIT(broken_in_the_action, 60) {
  board *b = new_board(1);
  mproc_process *actor = start_at(NULL, wait_and_act, b);
  AWAIT(b->acts);
  CHECK_EQ(mproc_barrier_abort(b->barrier), 0);
  mproc_process *stuck = start_at("mutex.taken:stop", look_at_barrier, b);
  await_stop(stuck);
  b->go = 1;
  check_exited(actor, BROKEN);
  check_stuck(mproc_barrier_n_waiting(b->barrier));
  go_on(stuck);
  check_exited(stuck, 0);
  CHECK_EQ(mproc_barrier_broken(b->barrier), 1);
  free_board(b);
}

/* ---- RWLock ---------------------------------------------------------------------------------- */

static int read_once(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(mproc_rwlock_acquire_read(b->rwlock, MPROC_FOREVER), 0);
  CHECK_EQ(mproc_rwlock_release(b->rwlock), 0);
  return 0;
}

TEST_LIMIT(a_stopped_reader_keeps_nobody, 60) {
  board *b = new_board(1);
  CHECK_EQ(mproc_rwlock_acquire_read(b->rwlock, 0), 0);
  mproc_process *stuck = start_at("rwlock.reader:stop", read_once, b);
  await_stop(stuck);
  CHECK_EQ(mproc_rwlock_acquire_read(b->rwlock, 0), 0); /* who reads already */
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_rwlock_release(b->rwlock), 0);
  check_stuck(mproc_rwlock_acquire_read(b->rwlock, 50));
  CHECK_EQ(mproc_rwlock_acquire_read(b->rwlock, 0), -EAGAIN);
  check_stuck(mproc_rwlock_acquire_write(b->rwlock, 50));
  CHECK_EQ(mproc_rwlock_acquire_write(b->rwlock, 0), -EAGAIN);
  CHECK_EQ(mproc_rwlock_readers(b->rwlock), 0);
  check_stuck(mproc_rwlock_destroy(b->rwlock));
  mproc_owner owner;
  CHECK_EQ(mproc_rwlock_owner(b->rwlock, &owner), 0);
  CHECK_EQ(owner.state, MPROC_OWNER_NONE);
  go_on(stuck);
  check_exited(stuck, 0);
  free_board(b);
}

/* A reader that waits for a writer takes nothing that could die with it. The second mutex that it
 * takes is that of the roster, after the writer has gone. */
TEST(a_dead_reader_is_no_dead_writer) {
  static const char *const points[] = {"mutex.awaits", "mutex.awaited", "mutex.taken:2"};
  for (int i = 0; i < 3; i++) {
    board *b = new_board(1);
    CHECK_EQ(mproc_rwlock_acquire_write(b->rwlock, 0), 0);
    mproc_process *reader = start_at(points[i], read_once, b);
    sleep_ms(100); /* it waits, or comes later: either will do for the third */
    CHECK(i < 2 || mproc_rwlock_release(b->rwlock) == 0);
    check_killed(reader, SIGKILL);
    CHECK(i == 2 || mproc_rwlock_release(b->rwlock) == 0);
    CHECK_EQ(mproc_rwlock_acquire_write(b->rwlock, SOON_MS), 0);
    CHECK_EQ(mproc_rwlock_release(b->rwlock), 0);
    free_board(b);
  }
}

static int write_and_die(void *arg, size_t size) {
  (void)size;
  CHECK_EQ(mproc_rwlock_acquire_write((*(board **)arg)->rwlock, 0), 0);
  raise(SIGKILL);
  return 0;
}

/* Who has opened it for a dead writer, and dies, leaves the mark of that death. */
TEST(a_dead_writer_stays_one) {
  board *b = new_board(1);
  check_killed(start_at(NULL, write_and_die, b), SIGKILL);
  check_killed(start_at("mutex.opened_for_dead", read_once, b), SIGKILL);
  CHECK_EQ(mproc_rwlock_acquire_read(b->rwlock, 0), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_rwlock_release(b->rwlock), 0);
  CHECK_EQ(mproc_rwlock_acquire_write(b->rwlock, 0), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_rwlock_release(b->rwlock), 0);
  free_board(b);
}

/* ---- Semaphore ------------------------------------------------------------------------------- */

static board *of_the_handler;

static void give_in_handler(int number) {
  (void)number;
  if (mproc_semaphore_release(of_the_handler->tracked, 1) != 0)
    abort();
  for (int64_t end = now_ms() + JOIN_MS; !of_the_handler->go && now_ms() < end;)
    sched_yield();
}

static int give_one_of_two(void *arg, size_t size) {
  const struct sigaction action = {.sa_handler = give_in_handler};
  board *b = of_the_handler = *(board **)arg;
  (void)size;
  CHECK_EQ(sigaction(SIGUSR1, &action, NULL), 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_semaphore_acquire(b->tracked, 0), 0);
  CHECK_EQ(mproc_semaphore_release(b->tracked, 1), 0);
  return 0;
}

/* What the thread was about to give, its handler gives, and somebody else has it. */
TEST(permit_is_given_by_a_handler_meanwhile) {
  board *b = new_board(1);
  mproc_process *child = start_at("semaphore.gives:stop", give_one_of_two, b);
  await_stop(child);
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGUSR1), 0);
  go_on(child);
  CHECK_EQ(mproc_semaphore_acquire(b->tracked, SOON_MS), 0);
  b->go = 1;
  check_exited(child, 0);
  CHECK_EQ(mproc_semaphore_value(b->tracked), 1);
  CHECK_EQ(mproc_semaphore_release(b->tracked, 1), 0);
  free_board(b);
}
