/* Semaphore, bounded and tracked ones, and Event. */
#include "harness.h"
#include "methods.h"
#include "processes.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>

enum { SOON_MS = 5000, PERMITS = 3 };

typedef struct board {
  mproc_semaphore *semaphore;
  mproc_event *event, *done;
  int rounds, how;
  _Atomic int inside, most, go, release;
} board;

static board *new_board(int value, const mproc_semaphore_options *options) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_semaphore_create(value, options, &b->semaphore), 0);
  CHECK_EQ(mproc_event_create(&b->event), 0);
  CHECK_EQ(mproc_event_create(&b->done), 0);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_semaphore_destroy(b->semaphore), 0);
  CHECK_EQ(mproc_event_destroy(b->event), 0);
  CHECK_EQ(mproc_event_destroy(b->done), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static const mproc_semaphore_options plain, bounded = {.bounded = 1}, tracked = {.tracked = 1};
static const mproc_semaphore_options *const sorts[] = {&plain, &bounded, &tracked};
enum { SORTS = 3 };

/* ---- one thread ------------------------------------------------------------------------------ */

TEST(semaphore_in_one_thread) {
  for (int sort = 0; sort < SORTS; sort++) {
    board *b = new_board(2, sorts[sort]);
    CHECK_EQ(mproc_semaphore_value(b->semaphore), 2);
    CHECK_EQ(mproc_semaphore_acquire(b->semaphore, MPROC_FOREVER), 0);
    CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), 0);
    CHECK_EQ(mproc_semaphore_value(b->semaphore), 0);
    CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), -EAGAIN);
    int64_t begin = now_ms();
    CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 70), -ETIMEDOUT);
    CHECK(now_ms() - begin >= 69);
    CHECK_EQ(mproc_semaphore_release(b->semaphore, 3), sort == 0   ? 0
                                                       : sort == 1 ? -EOVERFLOW
                                                                   : -EPERM);
    if (sort != 0)
      CHECK_EQ(mproc_semaphore_release(b->semaphore, 2), 0);
    CHECK_EQ(mproc_semaphore_value(b->semaphore), sort == 0 ? 3 : 2);
    CHECK_EQ(mproc_semaphore_release(b->semaphore, 1), sort == 0   ? 0
                                                       : sort == 1 ? -EOVERFLOW
                                                                   : -EPERM);
    CHECK_EQ(mproc_semaphore_release(b->semaphore, 0), -EINVAL);
    CHECK_EQ(mproc_semaphore_release(b->semaphore, -1), -EINVAL);
    free_board(b);
  }
}

TEST(semaphore_at_its_limits) {
  mproc_semaphore *semaphore;
  const mproc_semaphore_options wrong = {.reserved = {[3] = 1}};
  CHECK_EQ(mproc_semaphore_create(-1, NULL, &semaphore), -EINVAL);
  CHECK_EQ(mproc_semaphore_create((1 << 30) + 1, NULL, &semaphore), -EINVAL);
  CHECK_EQ(mproc_semaphore_create(4097, &tracked, &semaphore), -EINVAL);
  CHECK_EQ(mproc_semaphore_create(1, &wrong, &semaphore), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "reserved[3]");
  CHECK_EQ(mproc_semaphore_create(1, NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_semaphore_create(1 << 30, NULL, &semaphore), 0);
  CHECK_EQ(mproc_semaphore_release(semaphore, 1), -EOVERFLOW);
  CHECK_EQ(mproc_semaphore_release(semaphore, INT32_MAX), -EOVERFLOW);
  CHECK_EQ(mproc_semaphore_value(semaphore), 1 << 30);
  CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);
  CHECK_EQ(mproc_semaphore_create(4096, &tracked, &semaphore), 0);
  for (int i = 0; i < 4096; i++)
    CHECK_EQ(mproc_semaphore_acquire(semaphore, 0), 0);
  CHECK_EQ(mproc_semaphore_acquire(semaphore, 0), -EAGAIN);
  CHECK_EQ(mproc_semaphore_destroy(semaphore), -EBUSY);
  CHECK_EQ(mproc_semaphore_release(semaphore, 4096), 0);
  CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);
  CHECK_EQ(mproc_semaphore_create(0, &tracked, &semaphore), 0);
  CHECK_EQ(mproc_semaphore_acquire(semaphore, 0), -EAGAIN);
  CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);
  CHECK_EQ(mproc_semaphore_acquire(semaphore, 0), MPROC_ECLOSED);
}

/* ---- several processes ----------------------------------------------------------------------- */

static int be_inside(board *b) {
  for (int i = 0; i < b->rounds; i++) {
    CHECK_EQ(mproc_semaphore_acquire(b->semaphore, i % 2 ? MPROC_FOREVER : 60000), 0);
    int inside = ++b->inside, most = b->most;
    while (inside > most && !atomic_compare_exchange_weak(&b->most, &most, inside))
      continue;
    CHECK(inside <= PERMITS);
    if (i % 16 == 0)
      sched_yield();
    b->inside--;
    CHECK_EQ(mproc_semaphore_release(b->semaphore, 1), 0);
  }
  return 0;
}

static int be_inside_in_child(void *arg, size_t size) {
  (void)size;
  return be_inside(*(board **)arg);
}

static void *be_inside_in_thread(void *arg) {
  return be_inside(arg) == 0 ? NULL : arg;
}

EACH_METHOD_LIMIT(no_more_inside_than_permits, 60) {
  for (int sort = 0; sort < SORTS; sort++) {
    board *b = new_board(PERMITS, sorts[sort]);
    mproc_process *children[5];
    b->rounds = test_scale(5000);
    for (int i = 0; i < 5; i++)
      children[i] = start_by(method, be_inside_in_child, &b, sizeof b);
    CHECK_EQ(be_inside(b), 0);
    for (int i = 0; i < 5; i++)
      check_exited(children[i], 0);
    CHECK_EQ(mproc_semaphore_value(b->semaphore), PERMITS);
    free_board(b);
  }
}

TEST_LIMIT(no_more_inside_than_permits_in_threads, 60) {
  for (int sort = 0; sort < SORTS; sort++) {
    board *b = new_board(PERMITS, sorts[sort]);
    pthread_t threads[6];
    b->rounds = test_scale(5000);
    for (int i = 0; i < 6; i++)
      CHECK_EQ(pthread_create(&threads[i], NULL, be_inside_in_thread, b), 0);
    for (int i = 0; i < 6; i++)
      CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(mproc_semaphore_value(b->semaphore), PERMITS);
    free_board(b);
  }
}

/* One release for each sleeper, in ones and at once. */
static int take_one(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->go++;
  return mproc_semaphore_acquire(b->semaphore, SOON_MS);
}

EACH_METHOD(each_release_lets_one_go) {
  for (int at_once = 0; at_once < 2; at_once++) {
    board *b = new_board(0, NULL);
    mproc_process *children[6];
    for (int i = 0; i < 6; i++)
      children[i] = start_by(method, take_one, &b, sizeof b);
    AWAIT(b->go == 6);
    sleep_ms(20);
    for (int i = 0; i < (at_once ? 1 : 6); i++)
      CHECK_EQ(mproc_semaphore_release(b->semaphore, at_once ? 6 : 1), 0);
    for (int i = 0; i < 6; i++)
      check_exited(children[i], 0);
    CHECK_EQ(mproc_semaphore_value(b->semaphore), 0);
    free_board(b);
  }
}

/* ---- death ----------------------------------------------------------------------------------- */

static int take_two_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), 0);
  CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), 0);
  b->go = 1;
  sleep_ms(20);
  raise(SIGKILL);
  return 0;
}

EACH_METHOD(tracked_permits_of_the_dead_come_back) {
  board *b = new_board(2, &tracked);
  mproc_process *child = start_by(method, take_two_and_die, &b, sizeof b);
  AWAIT(b->go);
  CHECK_EQ(mproc_semaphore_acquire(b->semaphore, SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_semaphore_acquire(b->semaphore, SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), -EAGAIN);
  CHECK_EQ(mproc_semaphore_release(b->semaphore, 2), 0);
  CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), 0);
  CHECK_EQ(mproc_semaphore_release(b->semaphore, 1), 0);
  check_killed(child, SIGKILL);
  free_board(b);
}

/* Its process goes on: as another program, or without the thread. */
enum { BY_EXEC, BY_THREAD, GOING_ON };

static void *take_two(void *arg) {
  board *b = arg;
  CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), 0);
  CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), 0);
  return NULL;
}

static int take_two_and_go_on(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  return take_and_go_on(take_two, b, b->how == BY_THREAD, &b->go, &b->release);
}

EACH_METHOD(tracked_permits_of_one_that_executes_or_whose_thread_ends) {
  for (int how = 0; how < GOING_ON; how++) {
    board *b = new_board(3, &tracked);
    b->how = how;
    mproc_process *child = start_by(method, take_two_and_go_on, &b, sizeof b);
    AWAIT(b->go);
    CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), 0);
    if (how == BY_EXEC)
      CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), -EAGAIN);
    b->release = 1;
    for (int i = 0; i < 2; i++)
      CHECK_EQ(mproc_semaphore_acquire(b->semaphore, SOON_MS), MPROC_OWNER_DIED);
    CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), -EAGAIN);
    CHECK_EQ(mproc_semaphore_release(b->semaphore, 3), 0);
    CHECK_EQ(mproc_semaphore_acquire(b->semaphore, 0), 0); /* told once */
    CHECK_EQ(mproc_semaphore_release(b->semaphore, 1), 0);
    CHECK(!is_gone(mproc_process_pid(child)));
    kill_child(child);
    free_board(b);
  }
}

static int wait_for_long(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->go++;
  return b->how ? mproc_event_wait(b->event, MPROC_FOREVER)
                : mproc_semaphore_acquire(b->semaphore, MPROC_FOREVER);
}

EACH_METHOD(dead_waiters_disturb_nobody) {
  for (int how = 0; how < 2; how++) {
    board *b = new_board(0, NULL);
    mproc_process *children[4], *survivor;
    b->how = how;
    for (int i = 0; i < 4; i++)
      children[i] = start_by(method, wait_for_long, &b, sizeof b);
    survivor = start_by(method, wait_for_long, &b, sizeof b);
    AWAIT(b->go == 5);
    sleep_ms(20);
    for (int i = 0; i < 4; i++)
      kill_child(children[i]);
    if (how)
      CHECK_EQ(mproc_event_set(b->event), 0);
    else
      CHECK_EQ(mproc_semaphore_release(b->semaphore, 1), 0);
    check_exited(survivor, 0);
    CHECK_EQ(mproc_semaphore_value(b->semaphore), 0);
    free_board(b);
  }
}

/* ---- events ---------------------------------------------------------------------------------- */

TEST(event_in_one_thread) {
  board *b = new_board(1, NULL);
  CHECK_EQ(mproc_event_is_set(b->event), 0);
  CHECK_EQ(mproc_event_wait(b->event, 0), -EAGAIN);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_event_wait(b->event, 70), -ETIMEDOUT);
  CHECK(now_ms() - begin >= 69);
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(mproc_event_set(b->event), 0);
    CHECK_EQ(mproc_event_is_set(b->event), 1);
    CHECK_EQ(mproc_event_wait(b->event, 0), 0);
    CHECK_EQ(mproc_event_wait(b->event, MPROC_FOREVER), 0);
  }
  CHECK_EQ(mproc_event_clear(b->event), 0);
  CHECK_EQ(mproc_event_clear(b->event), 0);
  CHECK_EQ(mproc_event_wait(b->event, 0), -EAGAIN);
  CHECK_EQ(mproc_event_wait(b->event, -7), -EINVAL);
  CHECK_EQ(mproc_event_create(NULL), -EINVAL);
  mproc_event *gone = b->event;
  CHECK_EQ(mproc_event_destroy(gone), 0);
  CHECK_EQ(mproc_event_set(gone), MPROC_ECLOSED);
  CHECK_EQ(mproc_event_wait(gone, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_event_create(&b->event), 0);
  free_board(b);
}

static int wait_for_a_set(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->go = 1;
  return mproc_event_wait(b->event, MPROC_FOREVER) != 0;
}

/* Whoever waited was let go, though the event is gone when it comes to look. */
EACH_METHOD(event_that_is_set_and_destroyed) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  for (int i = 0; i < 10; i++) {
    b->go = 0;
    CHECK_EQ(mproc_event_create(&b->event), 0);
    mproc_process *waiter = start_by(method, wait_for_a_set, &b, sizeof b);
    AWAIT(b->go && state_of(mproc_process_pid(waiter)) == 'S');
    CHECK_EQ(mproc_event_set(b->event), 0);
    while (mproc_event_destroy(b->event) == -EBUSY)
      sleep_ms(1);
    check_exited(waiter, 0);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int acquire_one(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->go = 1;
  int r = mproc_semaphore_acquire(b->semaphore, MPROC_FOREVER);
  return r == 0 ? 0 : r == MPROC_ECLOSED ? 1 : 2;
}

static mproc_process *start_taker(board *b, const char *method) {
  b->go = 0;
  CHECK_EQ(mproc_semaphore_create(0, NULL, &b->semaphore), 0);
  mproc_process *taker = start_by(method, acquire_one, &b, sizeof b);
  AWAIT(b->go && state_of(mproc_process_pid(taker)) == 'S');
  return taker;
}

/* The permit that it waited for was given, and more. */
EACH_METHOD(semaphore_that_is_released_and_destroyed) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  for (int i = 0; i < 10; i++) {
    mproc_process *taker = start_taker(b, method);
    CHECK_EQ(mproc_semaphore_release(b->semaphore, 1 + i % 2), 0);
    while (mproc_semaphore_destroy(b->semaphore) == -EBUSY)
      sleep_ms(1);
    check_exited(taker, 0);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* One who was stopped is not seen, and finds a semaphore that was destroyed. */
TEST(semaphore_that_is_destroyed_under_a_stopped_waiter) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  for (int given = 0; given < 3; given++) {
    mproc_process *taker = start_taker(b, "fork");
    CHECK_EQ(kill((pid_t)mproc_process_pid(taker), SIGSTOP), 0);
    CHECK(stopped_within(mproc_process_pid(taker), JOIN_MS));
    if (given)
      CHECK_EQ(mproc_semaphore_release(b->semaphore, given), 0);
    CHECK_EQ(mproc_semaphore_destroy(b->semaphore), 0);
    CHECK_EQ(kill((pid_t)mproc_process_pid(taker), SIGCONT), 0);
    check_exited(taker, given ? 0 : 1);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* Set and cleared at once: everybody who waited goes, whoever comes later waits. */
EACH_METHOD(event_lets_all_go) {
  board *b = new_board(0, NULL);
  mproc_process *children[4];
  b->how = 1;
  for (int round = 0; round < 3; round++) {
    b->go = 0;
    for (int i = 0; i < 4; i++)
      children[i] = start_by(method, wait_for_long, &b, sizeof b);
    AWAIT(b->go == 4);
    for (int i = 0; i < 4; i++)
      AWAIT(state_of(mproc_process_pid(children[i])) == 'S');
    CHECK_EQ(mproc_event_set(b->event), 0);
    CHECK_EQ(mproc_event_clear(b->event), 0);
    for (int i = 0; i < 4; i++)
      check_exited(children[i], 0);
    CHECK_EQ(mproc_event_wait(b->event, 0), -EAGAIN);
  }
  free_board(b);
}

static int ping(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (int i = 0; i < b->rounds; i++) {
    CHECK_EQ(mproc_event_wait(b->event, SOON_MS), 0);
    CHECK_EQ(mproc_event_clear(b->event), 0);
    CHECK_EQ(mproc_event_set(b->done), 0);
  }
  return 0;
}

EACH_METHOD_LIMIT(events_to_and_fro, 60) {
  board *b = new_board(0, NULL);
  b->rounds = test_scale(5000);
  mproc_process *child = start_by(method, ping, &b, sizeof b);
  for (int i = 0; i < b->rounds; i++) {
    CHECK_EQ(mproc_event_set(b->event), 0);
    CHECK_EQ(mproc_event_wait(b->done, SOON_MS), 0);
    CHECK_EQ(mproc_event_clear(b->done), 0);
  }
  check_exited(child, 0);
  free_board(b);
}

/* A handler may set an event that its own thread waits for, or is about to set. */
static mproc_event *of_the_handler;

static void set_in_handler(int number) {
  (void)number;
  int saved = errno;
  if (mproc_event_set(of_the_handler) != 0)
    abort();
  errno = saved;
}

TEST(event_is_set_by_a_signal_handler) {
  board *b = new_board(0, NULL);
  const struct sigaction action = {.sa_handler = set_in_handler};
  const struct itimerval soon = {.it_value = {.tv_usec = 3000}}, never = {.it_value = {0}};
  of_the_handler = b->event;
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  for (int i = 0; i < 20; i++) {
    CHECK_EQ(setitimer(ITIMER_REAL, &soon, NULL), 0);
    CHECK_EQ(mproc_event_wait(b->event, SOON_MS), 0);
    CHECK_EQ(mproc_event_clear(b->event), 0);
  }
  CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
  free_board(b);
}

/* Somebody waits: neither is destroyed. */
TEST(destroyed_under_waiters) {
  for (int how = 0; how < 2; how++) {
    board *b = new_board(0, NULL);
    b->how = how;
    mproc_process *child = start_by("fork", wait_for_long, &b, sizeof b);
    AWAIT(b->go && state_of(mproc_process_pid(child)) == 'S');
    for (int i = 0; i < 20; i++) /* no attempt wakes it */
      CHECK_EQ(how ? mproc_event_destroy(b->event) : mproc_semaphore_destroy(b->semaphore), -EBUSY);
    if (how)
      CHECK_EQ(mproc_event_set(b->event), 0);
    else
      CHECK_EQ(mproc_semaphore_release(b->semaphore, 1), 0);
    check_exited(child, 0);
    free_board(b);
  }
}
