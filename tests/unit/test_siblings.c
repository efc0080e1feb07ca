/* Objects between processes of one family, under each start method: waiting for a connection whose
 * other end lives, a condition over a lock of its own, what a child made and its sibling uses, and
 * messages that are done with by others than who put them. */
#include "harness.h"
#include "methods.h"
#include "processes.h"

#include "../children/one_of_each.h"

#include <stdatomic.h>

enum { SOON_MS = 5000, LATE_MS = 100, MESSAGES = 200, LONGEST = 5000 };

/* In the shared heap. */
typedef struct board {
  void *objects[OBJECTS];
  mproc_lock *lock;
  mproc_condition *condition;
  mproc_queue *queue, *back;
  int turn, rounds; /* turn: under the lock */
  int64_t sum;      /* under the lock */
  _Atomic int ready, go;
} board;

static board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  return b;
}

/* ---- a condition over a lock ----------------------------------------------------------------- */

/* Whoever has the lock, by whatever name, may wait and tell. */
static void play(board *b, int self) {
  for (int i = 0; i < b->rounds; i++) {
    if (i % 2)
      CHECK_EQ(mproc_lock_acquire(b->lock, SOON_MS), 0);
    else
      CHECK_EQ(mproc_condition_acquire(b->condition, SOON_MS), 0);
    while (b->turn != self) {
      CHECK_EQ(mproc_condition_wait(b->condition, SOON_MS), 0);
      mproc_owner owner;
      CHECK_EQ(mproc_lock_owner(b->lock, &owner), 0);
      CHECK_EQ(owner.pid, getpid());
    }
    b->sum += self ? 1 : 1000000;
    b->turn = !self;
    CHECK(mproc_condition_notify(b->condition, 1) <= 1);
    if (i % 3)
      CHECK_EQ(mproc_lock_release(b->lock), 0);
    else
      CHECK_EQ(mproc_condition_release(b->condition), 0);
  }
}

static int play_in_child(void *arg, size_t size) {
  (void)size;
  play(*(board **)arg, 1);
  return 0;
}

EACH_METHOD_LIMIT(condition_over_a_lock, 60) {
  board *b = new_board();
  CHECK_EQ(mproc_lock_create(&b->lock), 0);
  const mproc_condition_options options = {.lock = b->lock};
  CHECK_EQ(mproc_condition_create(&options, &b->condition), 0);
  b->rounds = test_scale(1000);
  mproc_process *child = start_by(method, play_in_child, &b, sizeof b);
  play(b, 0);
  check_exited(child, 0);
  CHECK_EQ(b->sum, b->rounds * INT64_C(1000001));
  CHECK_EQ(mproc_condition_destroy(b->condition), 0);
  CHECK_EQ(mproc_lock_destroy(b->lock), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- what a sibling made --------------------------------------------------------------------- */

static int make_all(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(make_one_of_each(b->objects), 0);
  b->ready = 1;
  AWAIT(b->go);
  return 0;
}

static void use_pipe(void **o) {
  char text[8];
  CHECK_EQ(mproc_connection_send(o[CONNECTION], "text", 4, 0), 0);
  CHECK_EQ(mproc_connection_recv_into(o[SECOND], text, sizeof text, NULL, 0), 0);
  CHECK_EQ(mproc_connection_close(o[CONNECTION]), 0);
  CHECK_EQ(mproc_connection_close(o[SECOND]), 0);
}

static void use_and_destroy(void **o) {
  int64_t number;
  char text[8];
  CHECK_EQ(mproc_lock_acquire(o[LOCK], 0), 0);
  CHECK_EQ(mproc_lock_release(o[LOCK]), 0);
  CHECK_EQ(mproc_lock_destroy(o[LOCK]), 0);
  CHECK_EQ(mproc_rlock_acquire(o[RLOCK], 0), 0);
  CHECK_EQ(mproc_rlock_release(o[RLOCK]), 0);
  CHECK_EQ(mproc_rlock_destroy(o[RLOCK]), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(o[RWLOCK], 0), 0);
  CHECK_EQ(mproc_rwlock_release(o[RWLOCK]), 0);
  CHECK_EQ(mproc_rwlock_destroy(o[RWLOCK]), 0);
  CHECK_EQ(mproc_semaphore_acquire(o[SEMAPHORE], 0), 0);
  CHECK_EQ(mproc_semaphore_destroy(o[SEMAPHORE]), 0);
  CHECK_EQ(mproc_condition_acquire(o[CONDITION], 0), 0);
  CHECK_EQ(mproc_condition_notify(o[CONDITION], 1), 0);
  CHECK_EQ(mproc_condition_wait(o[CONDITION], 10), -ETIMEDOUT);
  CHECK_EQ(mproc_condition_release(o[CONDITION]), 0);
  CHECK_EQ(mproc_condition_destroy(o[CONDITION]), 0);
  CHECK_EQ(mproc_event_wait(o[EVENT], 10), -ETIMEDOUT);
  CHECK_EQ(mproc_event_set(o[EVENT]), 0);
  CHECK_EQ(mproc_event_destroy(o[EVENT]), 0);
  CHECK_EQ(mproc_barrier_wait(o[BARRIER], 0), 0);
  CHECK_EQ(mproc_barrier_destroy(o[BARRIER]), 0);
  CHECK_EQ(mproc_value_add_int64(o[VALUE], 1, &number), 0);
  CHECK_EQ(number, 1);
  CHECK_EQ(mproc_value_destroy(o[VALUE]), 0);
  memset(mproc_array_items(o[ARRAY]), 1, 16);
  CHECK_EQ(mproc_array_destroy(o[ARRAY]), 0);
  CHECK_EQ(mproc_queue_put(o[QUEUE], "text", 4, 0), 0);
  CHECK_EQ(mproc_queue_get(o[QUEUE], text, sizeof text, NULL, 0), 0);
  CHECK_EQ(mproc_queue_destroy(o[QUEUE]), 0);
}

static int use_all(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  if (!b->go) /* a pipe ends with its maker */
    use_pipe(b->objects);
  use_and_destroy(b->objects);
  return 0;
}

/* Its maker is alive, or killed: that changes nothing. */
EACH_METHOD(sibling_uses_what_a_child_made) {
  for (int how = 0; how < 2; how++) {
    board *b = new_board();
    mproc_process *maker = start_by(method, make_all, &b, sizeof b);
    AWAIT(b->ready);
    if (how) {
      kill_child(maker);
      b->go = 1;
    }
    check_exited(start_by(method, use_all, &b, sizeof b), 0);
    CHECK_EQ(mproc_lock_acquire(b->objects[LOCK], 0), MPROC_ECLOSED);
    if (how) {
      CHECK_EQ(mproc_connection_close(b->objects[CONNECTION]), 0);
    } else {
      b->go = 1;
      check_exited(maker, 0);
    }
    CHECK_EQ(mproc_heap_free(b), 0);
  }
}

/* ---- a connection ---------------------------------------------------------------------------- */

static int send_late(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  AWAIT(b->ready);
  sleep_ms(LATE_MS);
  CHECK_EQ(mproc_connection_send(b->objects[SECOND], "late", 4, 0), 0);
  AWAIT(b->go);
  return 0;
}

/* Ready with a message, not without one, and again at the end: its process is alive until then. */
EACH_METHOD(woken_by_a_connection) {
  char text[8];
  board *b = new_board();
  CHECK_EQ(make_one_of_each(b->objects), 0);
  mproc_wait_item items[] = {{.kind = MPROC_WAIT_EVENT, .object = b->objects[EVENT]},
                             {.kind = MPROC_WAIT_CONNECTION, .object = b->objects[CONNECTION]},
                             {.kind = MPROC_WAIT_QUEUE, .object = b->objects[QUEUE]}};
  mproc_process *child = start_by(method, send_late, &b, sizeof b);
  CHECK_EQ(mproc_connection_give(b->objects[SECOND], mproc_process_pid(child)), 0);
  CHECK_EQ(mproc_wait(items, 3, 0, 0), -EAGAIN);
  b->ready = 1;
  CHECK_EQ(mproc_wait(items, 3, 0, MPROC_FOREVER), 1);
  CHECK(items[1].ready && !items[0].ready && !items[2].ready);
  CHECK_EQ(mproc_connection_recv_into(b->objects[CONNECTION], text, sizeof text, NULL, 0), 0);
  CHECK(memcmp(text, "late", 4) == 0);
  CHECK_EQ(mproc_wait(items, 3, 0, LATE_MS), -ETIMEDOUT); /* longer than a look */
  b->go = 1;
  CHECK_EQ(mproc_wait(items, 3, 0, MPROC_FOREVER), 1);
  CHECK(items[1].ready);
  CHECK_EQ(mproc_connection_recv_into(b->objects[CONNECTION], text, sizeof text, NULL, 0),
           MPROC_ECLOSED);
  check_exited(child, 0);
  CHECK_EQ(mproc_connection_close(b->objects[CONNECTION]), 0);
  use_and_destroy(b->objects);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- messages -------------------------------------------------------------------------------- */

static int finish_tasks(void *arg, size_t size) {
  board *b = *(board **)arg;
  int number, r;
  (void)size;
  while ((r = mproc_queue_get(b->queue, &number, sizeof number, NULL, MPROC_FOREVER)) == 0) {
    CHECK_EQ(mproc_queue_put(b->back, &number, sizeof number, SOON_MS), 0);
    CHECK_EQ(mproc_queue_task_done(b->queue), 0);
  }
  CHECK_EQ(r, MPROC_ECLOSED);
  return 0;
}

/* Joined means: done with by whoever got it, not only got. */
EACH_METHOD(joinable_queue) {
  const mproc_queue_options joinable = {.capacity = 8, .joinable = 1};
  board *b = new_board();
  mproc_process *workers[2];
  CHECK_EQ(mproc_queue_create(&joinable, &b->queue), 0);
  CHECK_EQ(mproc_queue_create(NULL, &b->back), 0);
  for (int i = 0; i < 2; i++)
    workers[i] = start_by(method, finish_tasks, &b, sizeof b);
  for (int i = 0; i < MESSAGES; i++) {
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, SOON_MS), 0);
    if (i % 20 == 19) {
      CHECK_EQ(mproc_queue_join(b->queue, MPROC_FOREVER), 0);
      CHECK_EQ(mproc_queue_size(b->back), i + 1);
    }
  }
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  for (int i = 0; i < 2; i++)
    check_exited(workers[i], 0);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_queue_destroy(b->back), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static size_t size_of(int number) {
  return 1 + (size_t)number * 37 % LONGEST;
}

static void check_block(const unsigned char *block, size_t size, int number) {
  CHECK_EQ(size, size_of(number));
  for (size_t i = 0; i < size; i++)
    CHECK_EQ(block[i], (unsigned char)(number + (int)i));
}

/* What comes is written over, and goes back or is freed. */
static int send_blocks_back(void *arg, size_t ignored) {
  board *b = *(board **)arg;
  (void)ignored;
  for (int number = 0; number < MESSAGES; number++) {
    void *block;
    size_t size;
    CHECK_EQ(mproc_queue_get_block(b->queue, &block, &size, SOON_MS), 0);
    check_block(block, size, number);
    if (number % 2) {
      CHECK_EQ(mproc_heap_free(block), 0);
      continue;
    }
    for (size_t i = 0; i < size; i++)
      ((unsigned char *)block)[i]++;
    CHECK_EQ(mproc_queue_put_block(b->back, block, size, SOON_MS), 0);
  }
  return 0;
}

EACH_METHOD(blocks_to_and_fro) {
  const mproc_queue_options small = {.capacity = 4};
  board *b = new_board();
  CHECK_EQ(mproc_queue_create(&small, &b->queue), 0);
  CHECK_EQ(mproc_queue_create(NULL, &b->back), 0);
  mproc_process *child = start_by(method, send_blocks_back, &b, sizeof b);
  for (int number = 0; number < MESSAGES; number++) {
    size_t size = size_of(number);
    unsigned char *block = number % 3 ? mproc_heap_alloc_owned(size) : mproc_heap_alloc(size);
    CHECK(block != NULL);
    for (size_t i = 0; i < size; i++)
      block[i] = (unsigned char)(number + (int)i);
    CHECK_EQ(mproc_queue_put_block(b->queue, block, size, SOON_MS), 0);
  }
  check_exited(child, 0);
  for (int number = 0; number < MESSAGES; number += 2) {
    void *block;
    size_t size;
    CHECK_EQ(mproc_queue_get_block(b->back, &block, &size, 0), 0);
    CHECK_EQ(size, size_of(number));
    for (size_t i = 0; i < size; i++)
      CHECK_EQ(((unsigned char *)block)[i], (unsigned char)(number + (int)i + 1));
    CHECK_EQ(mproc_heap_free(block), 0);
  }
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_queue_destroy(b->back), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}
