/* Lock and RLock: between processes that never saw each other, and beside their deaths. */
#include "harness.h"
#include "methods.h"
#include "processes.h"

#include <pthread.h>

enum { SOON_MS = 5000, ROUNDS = 4000 };

/* In the shared heap. `sum` and `copy` are equal whenever the lock is open. */
typedef struct board {
  mproc_lock *lock;
  mproc_rlock *rlock;
  int rounds;
  int how; /* see each entry */
  int64_t sum, copy;
  _Atomic int go;
  _Atomic int64_t count;
} board;

static board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_lock_create(&b->lock), 0);
  CHECK_EQ(mproc_rlock_create(&b->rlock), 0);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_lock_destroy(b->lock), 0);
  CHECK_EQ(mproc_rlock_destroy(b->rlock), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void check_open(board *b) {
  CHECK_EQ(mproc_lock_acquire(b->lock, 0), 0);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, 0), 0);
  CHECK_EQ(mproc_rlock_release(b->rlock), 0);
}

/* ---- one thread ------------------------------------------------------------------------------ */

TEST(lock_in_one_thread) {
  board *b = new_board();
  mproc_owner owner;
  CHECK_EQ(mproc_lock_locked(b->lock), 0);
  CHECK_EQ(mproc_lock_owner(b->lock, &owner), 0);
  CHECK_EQ(owner.state, MPROC_OWNER_NONE);
  CHECK_EQ(mproc_lock_acquire(b->lock, MPROC_FOREVER), 0);
  CHECK_EQ(mproc_lock_locked(b->lock), 1);
  CHECK_EQ(mproc_lock_owner(b->lock, &owner), 0);
  CHECK_EQ(owner.state, MPROC_OWNER_RUNNING);
  CHECK_EQ(owner.pid, getpid());
  CHECK_EQ(owner.is_main_thread, 1);
  CHECK_STR(owner.process_name, "MainProcess");
  CHECK_EQ(mproc_lock_acquire(b->lock, 0), -EAGAIN);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_lock_acquire(b->lock, 120), -ETIMEDOUT);
  CHECK(now_ms() - begin >= 119);
  CHECK_CONTAINS(mproc_error_detail(), "120 ms");
  CHECK_EQ(mproc_lock_destroy(b->lock), -EBUSY);
  CHECK_EQ(mproc_lock_consistent(b->lock), -EINVAL);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  CHECK_EQ(mproc_lock_release(b->lock), -EPERM);
  CHECK_EQ(mproc_lock_consistent(b->lock), -EPERM);
  free_board(b);
}

TEST(rlock_in_one_thread) {
  board *b = new_board();
  for (int i = 0; i < 5; i++)
    CHECK_EQ(mproc_rlock_acquire(b->rlock, i % 2 ? 0 : MPROC_FOREVER), 0);
  CHECK_EQ(mproc_rlock_destroy(b->rlock), -EBUSY);
  for (int i = 0; i < 5; i++) {
    CHECK_EQ(mproc_rlock_locked(b->rlock), 1);
    CHECK_EQ(mproc_rlock_release(b->rlock), 0);
  }
  CHECK_EQ(mproc_rlock_locked(b->rlock), 0);
  CHECK_EQ(mproc_rlock_release(b->rlock), -EPERM);
  free_board(b);
}

TEST(bad_arguments) {
  board *b = new_board();
  int64_t here = 0;
  void *block = mproc_heap_aligned_alloc(64, 64);
  mproc_lock *gone = b->lock;
  CHECK_EQ(mproc_lock_create(NULL), -EINVAL);
  CHECK_EQ(mproc_lock_acquire(NULL, 0), -EINVAL);
  CHECK_EQ(mproc_lock_acquire(b->lock, -2), -EINVAL);
  CHECK_EQ(mproc_lock_acquire((mproc_lock *)&here, 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_lock_acquire((mproc_lock *)(uintptr_t)64, 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_lock_acquire((mproc_lock *)(uintptr_t)-64, 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_lock_acquire((mproc_lock *)((char *)b->lock + 8), 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_lock_acquire((mproc_lock *)(void *)b->rlock, 0), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "another kind");
  memset(block, 0x5a, 64);
  CHECK_EQ(mproc_lock_acquire(block, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_lock_owner(b->lock, NULL), -EINVAL);
  CHECK_EQ(mproc_lock_destroy(NULL), 0);
  CHECK_EQ(mproc_rlock_destroy(NULL), 0);
  CHECK_EQ(mproc_lock_destroy(b->lock), 0);
  CHECK_EQ(mproc_lock_acquire(gone, MPROC_FOREVER), MPROC_ECLOSED);
  CHECK_EQ(mproc_lock_release(gone), MPROC_ECLOSED);
  CHECK_EQ(mproc_lock_destroy(gone), MPROC_ECLOSED);
  CHECK_EQ(mproc_lock_create(&b->lock), 0);
  CHECK_EQ(mproc_heap_free(block), 0);
  free_board(b);
}

TEST(strangers_copy_has_no_locks) {
  board *b = new_board();
  CHECK_EQ(mproc_lock_acquire(b->lock, 0), 0);
  pid_t pid = fork();
  if (pid == 0) {
    CHECK_EQ(mproc_lock_release(b->lock), MPROC_EFOREIGN);
    CHECK_EQ(mproc_lock_acquire(b->lock, 0), MPROC_EFOREIGN);
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  CHECK_EQ(status, 0);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  free_board(b);
}

/* ---- several processes ----------------------------------------------------------------------- */

static int add(board *b) {
  for (int i = 0; i < b->rounds; i++) {
    int timeout_ms = i % 3 == 0 ? MPROC_FOREVER : i % 3 == 1 ? 60000 : 0, r;
    do
      r = b->how ? mproc_rlock_acquire(b->rlock, timeout_ms)
                 : mproc_lock_acquire(b->lock, timeout_ms);
    while (r == -EAGAIN);
    CHECK_EQ(r, 0);
    CHECK_EQ(b->sum, b->copy);
    b->sum++;
    if (i % 64 == 0)
      sched_yield();
    b->copy++;
    CHECK_EQ(b->how ? mproc_rlock_release(b->rlock) : mproc_lock_release(b->lock), 0);
  }
  return 0;
}

static int add_in_child(void *arg, size_t size) {
  (void)size;
  return add(*(board **)arg);
}

static void *add_in_thread(void *arg) {
  return add(arg) == 0 ? NULL : arg;
}

EACH_METHOD_LIMIT(exclude_each_other, 60) {
  for (int how = 0; how < 2; how++) {
    board *b = new_board();
    mproc_process *children[3];
    b->how = how;
    b->rounds = test_scale(ROUNDS);
    for (int i = 0; i < 3; i++)
      children[i] = start_by(method, add_in_child, &b, sizeof b);
    CHECK_EQ(add(b), 0);
    for (int i = 0; i < 3; i++)
      check_exited(children[i], 0);
    CHECK_EQ(b->sum, 4 * b->rounds);
    check_open(b);
    free_board(b);
  }
}

TEST_LIMIT(exclude_each_other_in_threads, 60) {
  for (int how = 0; how < 2; how++) {
    board *b = new_board();
    pthread_t threads[4];
    b->how = how;
    b->rounds = test_scale(ROUNDS);
    for (int i = 0; i < 4; i++)
      CHECK_EQ(pthread_create(&threads[i], NULL, add_in_thread, b), 0);
    for (int i = 0; i < 4; i++) {
      void *result;
      CHECK_EQ(pthread_join(threads[i], &result), 0);
      CHECK(result == NULL);
    }
    CHECK_EQ(b->sum, 4 * b->rounds);
    check_open(b);
    free_board(b);
  }
}

/* The parent takes it, a child opens it: a signal, as in Python. Of an RLock only its owner may. */
static int release_both(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(mproc_rlock_release(b->rlock), -EPERM);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, 0), -EAGAIN);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  return 0;
}

EACH_METHOD(another_process_may_open_a_lock) {
  board *b = new_board();
  CHECK_EQ(mproc_lock_acquire(b->lock, 0), 0);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, 0), 0);
  mproc_process *child = start_by(method, release_both, &b, sizeof b);
  CHECK_EQ(mproc_lock_acquire(b->lock, MPROC_FOREVER), 0);
  check_exited(child, 0);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  CHECK_EQ(mproc_rlock_release(b->rlock), 0);
  free_board(b);
}

/* ---- death ----------------------------------------------------------------------------------- */

enum { BY_KILL, BY_EXIT, BY_EXEC, BY_THREAD, DEATHS };

static void *take_both(void *arg) {
  board *b = arg;
  CHECK_EQ(mproc_lock_acquire(b->lock, 0), 0);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, 0), 0);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, 0), 0);
  b->go = 1;
  return NULL;
}

static int take_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  pthread_t thread;
  (void)size;
  if (b->how == BY_THREAD) {
    CHECK_EQ(pthread_create(&thread, NULL, take_both, b), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    return sleep_for_long(NULL, 0);
  }
  take_both(b);
  sleep_ms(20);
  if (b->how == BY_KILL)
    raise(SIGKILL);
  if (b->how == BY_EXEC)
    execl("/bin/sleep", "sleep", "20", (char *)NULL);
  return 0;
}

static void check_died(board *b, int r) {
  CHECK_EQ(r, MPROC_OWNER_DIED);
  CHECK_EQ(mproc_lock_release(b->lock), 0); /* not repaired: the next is told as well */
  CHECK_EQ(mproc_lock_acquire(b->lock, 0), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_lock_consistent(b->lock), 0);
  CHECK_EQ(mproc_lock_consistent(b->lock), -EINVAL);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_rlock_acquire(b->rlock, SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_rlock_consistent(b->rlock), 0);
  CHECK_EQ(mproc_rlock_release(b->rlock), 0);
  CHECK_EQ(mproc_rlock_release(b->rlock), 0);
  check_open(b);
}

EACH_METHOD(next_taker_is_told_of_a_death) {
  for (int how = 0; how < DEATHS; how++) {
    board *b = new_board();
    b->how = how;
    mproc_process *child = start_by(method, take_and_die, &b, sizeof b);
    AWAIT(b->go);
    int64_t begin = now_ms();
    int r = mproc_lock_acquire(b->lock, SOON_MS);
    CHECK(now_ms() - begin < SOON_MS);
    check_died(b, r);
    CHECK_EQ(mproc_process_kill(child), 0);
    (void)end_of(child);
    free_board(b);
  }
}

/* Before and after its process is buried. */
TEST(try_gets_the_lock_of_a_dead_owner) {
  for (int joined = 0; joined < 2; joined++) {
    board *b = new_board();
    mproc_owner owner;
    b->how = BY_KILL;
    mproc_process *child = start_by("fork", take_and_die, &b, sizeof b);
    AWAIT(is_gone(mproc_process_pid(child)));
    if (joined)
      check_killed(child, SIGKILL);
    CHECK_EQ(mproc_lock_locked(b->lock), 1);
    CHECK_EQ(mproc_lock_owner(b->lock, &owner), 0);
    CHECK_EQ(owner.state, MPROC_OWNER_DEAD);
    check_died(b, mproc_lock_acquire(b->lock, 0));
    if (!joined)
      check_killed(child, SIGKILL);
    free_board(b);
  }
}

/* A lock may be opened by anybody; what its owner died with is told all the same. */
TEST(opened_for_a_dead_owner) {
  board *b = new_board();
  b->how = BY_KILL;
  mproc_process *child = start_by("fork", take_and_die, &b, sizeof b);
  AWAIT(is_gone(mproc_process_pid(child)));
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  CHECK_EQ(mproc_lock_locked(b->lock), 0);
  CHECK_EQ(mproc_lock_release(b->lock), -EPERM);
  check_died(b, mproc_lock_acquire(b->lock, 0));
  check_killed(child, SIGKILL);
  free_board(b);
}

static int hold(void *arg, size_t size) {
  (void)size;
  take_both(*(board **)arg);
  return sleep_for_long(NULL, 0);
}

TEST(stopped_owner_lives) {
  board *b = new_board();
  mproc_owner owner;
  mproc_process *child = start_by("fork", hold, &b, sizeof b);
  AWAIT(b->go);
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(child), SOON_MS));
  CHECK_EQ(mproc_lock_acquire(b->lock, 300), -ETIMEDOUT);
  CHECK_EQ(mproc_lock_acquire(b->lock, 0), -EAGAIN);
  CHECK_EQ(mproc_lock_owner(b->lock, &owner), 0);
  CHECK_EQ(owner.state, MPROC_OWNER_STOPPED);
  CHECK_EQ(owner.pid, mproc_process_pid(child));
  CHECK_EQ(mproc_rlock_owner(b->rlock, &owner), 0);
  CHECK_EQ(owner.state, MPROC_OWNER_STOPPED);
  kill_child(child);
  check_died(b, mproc_lock_acquire(b->lock, SOON_MS));
  free_board(b);
}

/* The kernel's own list of robust locks ends at 2,048. */
static int hold_many(void *arg, size_t size) {
  mproc_lock **locks = *(mproc_lock ***)arg;
  (void)size;
  for (; *locks; locks++)
    CHECK_EQ(mproc_lock_acquire(*locks, 0), 0);
  raise(SIGKILL);
  return 0;
}

TEST_LIMIT(hundred_thousand_locks_of_a_dead_process, 60) {
  int count = test_scale(100000);
  mproc_lock **locks = mproc_heap_calloc((size_t)count + 1, sizeof *locks);
  for (int i = 0; i < count; i++)
    CHECK_EQ(mproc_lock_create(&locks[i]), 0);
  check_killed(start_by("fork", hold_many, &locks, sizeof locks), SIGKILL);
  for (int i = 0; i < count; i++) {
    CHECK_EQ(mproc_lock_acquire(locks[i], 0), MPROC_OWNER_DIED);
    CHECK_EQ(mproc_lock_consistent(locks[i]), 0);
    CHECK_EQ(mproc_lock_release(locks[i]), 0);
    CHECK_EQ(mproc_lock_destroy(locks[i]), 0);
  }
  CHECK_EQ(mproc_heap_free(locks), 0);
}

/* ---- destroyed under a waiter ---------------------------------------------------------------- */

static int wait_for_the_lock(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->go = 1;
  int r = mproc_lock_acquire(b->lock, SOON_MS);
  return r == 0 ? 1 : r == MPROC_ECLOSED ? 2 : 3;
}

TEST(waiter_of_a_lock_that_is_destroyed) {
  board *b = new_board();
  CHECK_EQ(mproc_lock_acquire(b->lock, 0), 0);
  mproc_process *child = start_by("fork", wait_for_the_lock, &b, sizeof b);
  AWAIT(b->go);
  sleep_ms(50);
  CHECK_EQ(mproc_lock_destroy(b->lock), -EBUSY);
  CHECK_EQ(mproc_lock_release(b->lock), 0);
  int r = mproc_lock_destroy(b->lock);
  CHECK(r == 0 || r == -EBUSY);
  mproc_status status = end_of(child);
  /* told; or it had the lock, and has it no more: its owner ended with it */
  CHECK(status.code == 1 || (status.code == 2 && r == 0));
  if (r == 0)
    CHECK_EQ(mproc_lock_create(&b->lock), 0);
  else
    CHECK_EQ(mproc_lock_acquire(b->lock, SOON_MS), MPROC_OWNER_DIED);
  if (r != 0)
    CHECK_EQ(mproc_lock_release(b->lock), 0);
  free_board(b);
}
