/* RWLock: many readers or one writer, whoever dies. */
#include "harness.h"
#include "methods.h"
#include "processes.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SOON_MS = 5000 };

typedef struct board {
  mproc_rwlock *lock;
  int rounds, how;
  int64_t first, second; /* equal, but for a writer */
  _Atomic int readers, most_readers, go, release;
} board;

static board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_rwlock_create(&b->lock), 0);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_rwlock_destroy(b->lock), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST(rwlock_in_one_thread) {
  board *b = new_board();
  mproc_owner owner;
  CHECK_EQ(mproc_rwlock_release(b->lock), -EPERM);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_rwlock_acquire_read(b->lock, i - 1), 0);
  CHECK_EQ(mproc_rwlock_readers(b->lock), 1);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), -EDEADLK);
  CHECK_EQ(mproc_rwlock_destroy(b->lock), -EBUSY);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  CHECK_EQ(mproc_rwlock_release(b->lock), -EPERM);
  CHECK_EQ(mproc_rwlock_readers(b->lock), 0);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), 0);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), -EDEADLK);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, MPROC_FOREVER), -EDEADLK);
  CHECK_EQ(mproc_rwlock_owner(b->lock, &owner), 0);
  CHECK_EQ(owner.pid, getpid());
  CHECK_EQ(mproc_rwlock_consistent(b->lock), -EINVAL);
  CHECK_EQ(mproc_rwlock_destroy(b->lock), -EBUSY);
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  CHECK_EQ(mproc_rwlock_consistent(b->lock), -EPERM);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, -2), -EINVAL);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, -2), -EINVAL);
  CHECK_EQ(mproc_rwlock_create(NULL), -EINVAL);
  mproc_rwlock *gone = b->lock;
  CHECK_EQ(mproc_rwlock_destroy(gone), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(gone, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_rwlock_acquire_write(gone, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_rwlock_create(&b->lock), 0);
  free_board(b);
}

/* ---- several processes ----------------------------------------------------------------------- */

static void read_once(board *b) {
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 60000), 0);
  int readers = ++b->readers, most = b->most_readers;
  while (readers > most && !atomic_compare_exchange_weak(&b->most_readers, &most, readers))
    continue;
  CHECK_EQ(b->first, b->second);
  sched_yield();
  CHECK_EQ(b->first, b->second);
  b->readers--;
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
}

static void write_once(board *b) {
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 60000), 0);
  CHECK_EQ(b->readers, 0);
  b->first++;
  sched_yield();
  b->second++;
  CHECK_EQ(b->readers, 0);
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
}

static int read_and_write(board *b) {
  for (int i = 0; i < b->rounds; i++)
    if (i % 4 == 0)
      write_once(b);
    else
      read_once(b);
  return 0;
}

static int read_and_write_in_child(void *arg, size_t size) {
  (void)size;
  return read_and_write(*(board **)arg);
}

static void *read_and_write_in_thread(void *arg) {
  return read_and_write(arg) == 0 ? NULL : arg;
}

EACH_METHOD_LIMIT(readers_and_writers, 60) {
  board *b = new_board();
  mproc_process *children[4];
  b->rounds = test_scale(400) / 4 * 4 + 4;
  for (int i = 0; i < 4; i++)
    children[i] = start_by(method, read_and_write_in_child, &b, sizeof b);
  for (int i = 0; i < 4; i++)
    check_exited(children[i], 0);
  CHECK_EQ(b->first, b->rounds);
  free_board(b);
}

TEST_LIMIT(readers_and_writers_in_threads, 60) {
  board *b = new_board();
  pthread_t threads[4];
  b->rounds = test_scale(400) / 4 * 4 + 4;
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, read_and_write_in_thread, b), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  CHECK_EQ(b->first, b->rounds);
  free_board(b);
}

/* ---- who waits for whom ---------------------------------------------------------------------- */

/* Holds it until told; how: 0 reads, 1 writes. */
static int hold(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(b->how ? mproc_rwlock_acquire_write(b->lock, SOON_MS)
                  : mproc_rwlock_acquire_read(b->lock, SOON_MS),
           0);
  b->go++;
  AWAIT(b->release);
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  return 0;
}

static int write_in_child(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->go++;
  int r = mproc_rwlock_acquire_write(b->lock, MPROC_FOREVER);
  if (r < 0 || b->readers != 0)
    return 1;
  b->first++;
  return mproc_rwlock_release(b->lock) == 0 ? 0 : 2;
}

EACH_METHOD(readers_share_and_a_writer_waits) {
  board *b = new_board();
  mproc_process *readers[30], *writer;
  for (int i = 0; i < 30; i++)
    readers[i] = start_by(method, hold, &b, sizeof b);
  AWAIT(b->go == 30); /* more than a chunk of the roster */
  CHECK_EQ(mproc_rwlock_readers(b->lock), 30);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), -EAGAIN);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 60), -ETIMEDOUT);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 0), 0); /* a writer that gave up leaves no trace */
  writer = start_by(method, write_in_child, &b, sizeof b);
  mproc_owner owner = {.pid = 0};
  for (; owner.pid != mproc_process_pid(writer); sleep_ms(1))
    CHECK_EQ(mproc_rwlock_owner(b->lock, &owner), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 0), 0); /* who reads already may again */
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 0), -EAGAIN); /* a new one comes after the writer */
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 60), -ETIMEDOUT);
  CHECK_EQ(b->first, 0);
  b->release = 1;
  for (int i = 0; i < 30; i++)
    check_exited(readers[i], 0);
  check_exited(writer, 0);
  CHECK_EQ(b->first, 1);
  free_board(b);
}

EACH_METHOD(writer_keeps_all_others_out) {
  board *b = new_board();
  b->how = 1;
  mproc_process *writer = start_by(method, hold, &b, sizeof b);
  AWAIT(b->go);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 0), -EAGAIN);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), -EAGAIN);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 60), -ETIMEDOUT);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 60), -ETIMEDOUT);
  CHECK_EQ(mproc_rwlock_release(b->lock), -EPERM);
  b->release = 1;
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, SOON_MS), 0);
  check_exited(writer, 0);
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  free_board(b);
}

/* ---- death ----------------------------------------------------------------------------------- */

EACH_METHOD(dead_readers_are_out) {
  board *b = new_board();
  mproc_process *readers[3];
  for (int i = 0; i < 3; i++)
    readers[i] = start_by(method, hold, &b, sizeof b);
  AWAIT(b->go == 3);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_process_kill(readers[i]), 0);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, SOON_MS), 0); /* a reader has changed nothing */
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  CHECK_EQ(mproc_rwlock_readers(b->lock), 0);
  for (int i = 0; i < 3; i++)
    check_killed(readers[i], SIGKILL);
  free_board(b);
}

EACH_METHOD(dead_writer_is_told_to_all_until_repaired) {
  board *b = new_board();
  b->how = 1;
  mproc_process *writer = start_by(method, hold, &b, sizeof b);
  AWAIT(b->go);
  CHECK_EQ(mproc_process_kill(writer), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_rwlock_consistent(b->lock), -EPERM); /* a reader cannot repair */
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 0), MPROC_OWNER_DIED);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_rwlock_consistent(b->lock), 0);
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 0), 0);
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  check_killed(writer, SIGKILL);
  free_board(b);
}

/* Its process goes on: as another program, or without the thread. */
enum { BY_EXEC = 2, BY_THREAD = 4 };

static void *hold_in_thread(void *arg) {
  board *b = arg;
  CHECK_EQ(b->how & 1 ? mproc_rwlock_acquire_write(b->lock, 0)
                      : mproc_rwlock_acquire_read(b->lock, 0),
           0);
  return NULL;
}

static int hold_and_go_on(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  return take_and_go_on(hold_in_thread, b, b->how & BY_THREAD, &b->go, &b->release);
}

EACH_METHOD(owner_that_executes_or_whose_thread_ends) {
  for (int how = BY_EXEC; how < BY_EXEC + BY_THREAD; how++) {
    board *b = new_board();
    b->how = how;
    bool writes = how & 1;
    mproc_process *child = start_by(method, hold_and_go_on, &b, sizeof b);
    AWAIT(b->go);
    if (how & BY_EXEC)
      CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), -EAGAIN);
    b->release = 1;
    if (writes)
      CHECK_EQ(mproc_rwlock_acquire_read(b->lock, SOON_MS), MPROC_OWNER_DIED);
    else /* a reader has changed nothing */
      CHECK_EQ(mproc_rwlock_acquire_write(b->lock, SOON_MS), 0);
    CHECK_EQ(mproc_rwlock_release(b->lock), 0);
    CHECK_EQ(mproc_rwlock_readers(b->lock), 0);
    CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), writes ? MPROC_OWNER_DIED : 0);
    CHECK_EQ(mproc_rwlock_consistent(b->lock), writes ? 0 : -EINVAL);
    CHECK_EQ(mproc_rwlock_release(b->lock), 0);
    CHECK(!is_gone(mproc_process_pid(child)));
    kill_child(child);
    free_board(b);
  }
}

/* A try is no wait, also for what a dead writer left. */
TEST(try_finds_the_dead) {
  for (int how = 0; how < 2; how++) {
    board *b = new_board();
    b->how = how;
    mproc_process *child = start_by("fork", hold, &b, sizeof b);
    AWAIT(b->go);
    kill_child(child);
    if (how)
      CHECK_EQ(mproc_rwlock_acquire_read(b->lock, 0), MPROC_OWNER_DIED);
    else
      CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 0), 0);
    CHECK_EQ(mproc_rwlock_release(b->lock), 0);
    free_board(b);
  }
}

/* A reader that is stopped lives. */
TEST(writer_waits_for_a_stopped_reader) {
  board *b = new_board();
  mproc_process *reader = start_by("fork", hold, &b, sizeof b);
  AWAIT(b->go);
  CHECK_EQ(kill((pid_t)mproc_process_pid(reader), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(reader), SOON_MS));
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, 250), -ETIMEDOUT);
  kill_child(reader);
  CHECK_EQ(mproc_rwlock_acquire_write(b->lock, SOON_MS), 0);
  CHECK_EQ(mproc_rwlock_release(b->lock), 0);
  free_board(b);
}
