/* Numbers that wrap, in queues: the lap of a slot's word, 22 bits; the number of what a thread
 * keeps, 24; the generation in a slot's owner, 23. Each is put near its end in a queue that lives,
 * which is then used across it. */
#include "harness.h"
#include "methods.h"
#include "processes.h"

#include "ipc/connection.h"
#include "ipc/queue.h"

#include <pthread.h>
#include <stdatomic.h>

enum { SOON_MS = 5000, COUNT = 4 };

/* As in ring.c. */
enum { LAP_SHIFT = 3, LAP_BITS = 22 };
#define CIRCLE ((uint64_t)1 << LAP_BITS)

static mpx_ring *ring_of(mproc_queue *queue) {
  return &atomic_load(&queue->first)->ring;
}

static uint64_t lap_of(mproc_queue *queue, uint64_t index) {
  return mpx_ring_at(ring_of(queue), index)->word >> LAP_SHIFT & (CIRCLE - 1);
}

/* As if an empty queue had been used for so many laps; its turns are near their end, too. */
static void age(mproc_queue *queue, uint64_t laps) {
  mpx_ring *ring = ring_of(queue);
  for (uint64_t i = 0; i < (uint64_t)1 << ring->log2_count; i++)
    mpx_ring_at(ring, i)->word = MPX_RING_FREE | (laps & (CIRCLE - 1)) << LAP_SHIFT;
  ring->floor = ring->tail = laps << ring->log2_count;
  queue->not_full.turn.word = 0U - 3 * MPX_TURN_STEP;
  queue->not_empty.turn.word = 0U - 3 * MPX_TURN_STEP;
  queue->drained.word = 0U - 3 * MPX_TURN_STEP;
  CHECK_EQ(mpx_queue_check(queue), 0);
}

static mproc_queue *new_queue(const mproc_queue_options *options, uint64_t laps) {
  mproc_queue *queue;
  CHECK_EQ(mproc_queue_create(options, &queue), 0);
  age(queue, laps);
  return queue;
}

static void put(mproc_queue *queue, int number) {
  CHECK_EQ(mproc_queue_put(queue, &number, sizeof number, 0), 0);
}

static void get(mproc_queue *queue, int expected) {
  int number;
  CHECK_EQ(mproc_queue_get(queue, &number, sizeof number, NULL, 0), 0);
  CHECK_EQ(number, expected);
}

/* In order; but number 0, which somebody had in hand, comes when it is found. */
static void get_rest(mproc_queue *queue, int oldest, int next, bool first_too) {
  for (int number, left = next - oldest + first_too; left > 0; left--) {
    CHECK_EQ(mproc_queue_get(queue, &number, sizeof number, NULL, SOON_MS), 0);
    if (first_too && number == 0)
      first_too = false;
    else
      CHECK_EQ(number, oldest++);
  }
  CHECK_EQ(oldest, next);
}

static const mproc_queue_options small = {.capacity = COUNT},
                                 growing = {.capacity = 2, .growing = 1},
                                 joinable = {.capacity = COUNT, .joinable = 1};

/* Before the first end of the circle, and where positions are long above 32 bits. */
static const uint64_t ages[] = {CIRCLE - 3, 1000 * CIRCLE - 3};
enum { AGES = sizeof ages / sizeof ages[0] };

TEST(lap_is_where_it_is_taken_to_be) {
  mproc_queue *queue;
  CHECK_EQ(mproc_queue_create(&small, &queue), 0);
  for (int i = 0; i < COUNT * 5 + 1; i++) {
    put(queue, i);
    get(queue, i);
  }
  CHECK_EQ(mpx_ring_at(ring_of(queue), 0)->word, 6 << LAP_SHIFT | MPX_RING_FREE);
  CHECK_EQ(mpx_ring_at(ring_of(queue), 1)->word, 5 << LAP_SHIFT | MPX_RING_FREE);
  CHECK_EQ(mproc_queue_destroy(queue), 0);
}

/* Filled to every degree. */
TEST(order_is_kept) {
  for (int i = 0; i < AGES; i++)
    for (int most = 1; most <= COUNT; most++) {
      mproc_queue *queue = new_queue(&small, ages[i]);
      int first = 0, next = 0;
      while (first < 10 * COUNT) {
        while (next - first < most)
          put(queue, next++);
        if (most == COUNT)
          CHECK_EQ(mproc_queue_put(queue, &next, sizeof next, 0), -EAGAIN);
        CHECK_EQ(mproc_queue_size(queue), most);
        CHECK_EQ(mpx_queue_check(queue), 0);
        for (int number = (first + next) % most + 1; number > 0; number--)
          get(queue, first++);
      }
      while (first < next)
        get(queue, first++);
      CHECK_EQ(mproc_queue_get(queue, &next, sizeof next, NULL, 0), -EAGAIN);
      CHECK_EQ(mpx_queue_check(queue), 0);
      CHECK(lap_of(queue, 0) < 20);
      CHECK_EQ(mproc_queue_destroy(queue), 0);
    }
}

/* ---- between processes ----------------------------------------------------------------------- */

enum { PRODUCERS = 2 };

typedef struct board {
  mproc_queue *queue;
  mproc_connection *connection;
  int count, how;
  _Atomic int producers, go;
} board;

typedef struct parcel {
  int producer, number;
} parcel;

static board *new_board(const mproc_queue_options *options, uint64_t laps) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  b->queue = new_queue(options, laps);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mpx_queue_check(b->queue), 0);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int produce(void *arg, size_t size) {
  board *b = *(board **)arg;
  parcel one = {.producer = b->producers++};
  (void)size;
  for (; one.number < b->count; one.number++)
    CHECK_EQ(mproc_queue_put(b->queue, &one, sizeof one, JOIN_MS), 0);
  return 0;
}

EACH_METHOD_LIMIT(laps_between_processes, 60) {
  const int count = test_scale(4000), laps = PRODUCERS * count / COUNT;
  board *b = new_board(&small, CIRCLE - (uint64_t)laps / 2 - 1);
  mproc_process *children[PRODUCERS];
  int next[PRODUCERS] = {0};
  b->count = count;
  for (int i = 0; i < PRODUCERS; i++)
    children[i] = start_by(method, produce, &b, sizeof b);
  for (int i = 0; i < PRODUCERS * count; i++) {
    parcel one;
    CHECK_EQ(mproc_queue_get(b->queue, &one, sizeof one, NULL, JOIN_MS), 0);
    CHECK(one.producer >= 0 && one.producer < PRODUCERS);
    CHECK_EQ(one.number, next[one.producer]++);
  }
  for (int i = 0; i < PRODUCERS; i++)
    check_exited(children[i], 0);
  CHECK(lap_of(b->queue, 0) < CIRCLE / 2);
  free_board(b);
}

static int echo(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (int i = 0, number; i < b->count; i++) {
    CHECK_EQ(mproc_connection_recv_into(b->connection, &number, sizeof number, NULL, JOIN_MS), 0);
    CHECK_EQ(mproc_connection_send(b->connection, &number, sizeof number, JOIN_MS), 0);
  }
  return 0;
}

TEST_LIMIT(laps_of_a_pipe, 60) {
  const mproc_pipe_options options = {.capacity = 2};
  board *b = mproc_heap_calloc(1, sizeof *b);
  mproc_connection *own;
  b->count = test_scale(2000);
  CHECK_EQ(mproc_pipe_create(&options, &own, &b->connection), 0);
  age(own->in, CIRCLE - 2);
  age(own->out, CIRCLE - (uint64_t)b->count / 4 - 1);
  mproc_process *child = start_by("fork", echo, &b, sizeof b);
  for (int i = 0, number; i < b->count; i++) {
    CHECK_EQ(mproc_connection_send(own, &i, sizeof i, JOIN_MS), 0);
    CHECK_EQ(mproc_connection_recv_into(own, &number, sizeof number, NULL, JOIN_MS), 0);
    CHECK_EQ(number, i);
  }
  check_exited(child, 0);
  CHECK(lap_of(own->out, 0) < CIRCLE / 2);
  CHECK_EQ(mproc_connection_close(own), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- in hand --------------------------------------------------------------------------------- */

enum { COMMIT, ABORT, ENDS };

/* What is kept is passed in each lap, and can be finished or given back after any. */
static void keep_for_laps(uint64_t laps_before, int rounds, int end) {
  mproc_queue *queue = new_queue(&small, laps_before);
  mproc_message first;
  int next = 0, oldest = 1;
  while (next < COUNT)
    put(queue, next++);
  CHECK_EQ(mproc_queue_get_begin(queue, &first, 0), 0);
  for (int i = 0; i < rounds; i++) {
    get(queue, oldest++);
    put(queue, next++);
    CHECK_EQ(mproc_queue_put(queue, &next, sizeof next, 0), -EAGAIN);
    CHECK_EQ(mproc_queue_size(queue), COUNT - 1);
  }
  CHECK_EQ(*(const int *)first.data, 0);
  if (end == ABORT)
    CHECK_EQ(mproc_queue_get_abort(queue, &first), 0);
  else
    CHECK_EQ(mproc_queue_get_commit(queue, &first), 0);
  CHECK_EQ(mproc_queue_get_commit(queue, &first), -EINVAL);
  get_rest(queue, oldest, next, end == ABORT);
  CHECK_EQ(mproc_queue_get(queue, &next, sizeof next, NULL, 0), -EAGAIN);
  for (int i = 0; i < 3 * COUNT; i++) {
    put(queue, i);
    get(queue, i);
  }
  CHECK_EQ(mproc_queue_join(queue, 0), 0);
  CHECK_EQ(mproc_queue_destroy(queue), 0);
}

TEST(kept_messages_are_passed) {
  for (int i = 0; i < AGES; i++)
    for (int rounds = 0; rounds < 8 * COUNT; rounds++)
      for (int end = 0; end < ENDS; end++)
        keep_for_laps(ages[i], rounds, end);
}

/* task_done goes by numbers: 2^24 - 1 is before 0. */
TEST(numbers_of_what_is_kept) {
  for (uint32_t before = 0; before <= COUNT; before++) {
    mproc_queue *queue = new_queue(&joinable, CIRCLE - 1);
    mpx_ring *ring = ring_of(queue);
    for (int i = 0; i < COUNT; i++)
      put(queue, i);
    for (int i = 0; i < COUNT; i++)
      get(queue, i); /* and keeps it, as the queue is joinable */
    for (uint32_t i = 0; i < COUNT; i++) {
      CHECK_EQ(mpx_ring_at(ring, i)->taking, before * COUNT + i);
      mpx_ring_at(ring, i)->taking = (0U - before + i) & MPX_TAKING_MASK;
    }
    for (uint64_t i = 0; i < COUNT; i++) {
      uint64_t seen = mpx_ring_at(ring, i)->word;
      CHECK_EQ(seen & 7, MPX_RING_TAKEN);
      CHECK_EQ(mproc_queue_task_done(queue), 0);
      CHECK_EQ(mpx_ring_at(ring, i)->word & 7, MPX_RING_FREE);
      for (uint64_t later = i + 1; later < COUNT; later++)
        CHECK_EQ(mpx_ring_at(ring, later)->word & 7, MPX_RING_TAKEN);
    }
    CHECK_EQ(mproc_queue_task_done(queue), -EINVAL);
    CHECK_EQ(mproc_queue_join(queue, 0), 0);
    CHECK_EQ(mproc_queue_destroy(queue), 0);
  }
}

static void *join_queue(void *arg) {
  board *b = arg;
  CHECK_EQ(mproc_queue_join(b->queue, JOIN_MS), 0);
  b->go = 1;
  return NULL;
}

TEST(joins_across_the_end) {
  for (uint64_t before = 0; before < 3; before++) {
    board *b = new_board(&joinable, CIRCLE - before);
    pthread_t thread;
    for (int i = 0; i < COUNT; i++)
      put(b->queue, i);
    CHECK_EQ(pthread_create(&thread, NULL, join_queue, b), 0);
    AWAIT(mpx_os_word_sleepers(&b->queue->drained.word) == 1);
    for (int i = 0; i < 4 * COUNT; i++) {
      get(b->queue, i);
      CHECK(!b->go);
      CHECK_EQ(mproc_queue_task_done(b->queue), 0);
      if (i < 3 * COUNT)
        put(b->queue, i + COUNT);
    }
    CHECK_EQ(pthread_join(thread, NULL), 0);
    free_board(b);
  }
}

/* ---- the dead -------------------------------------------------------------------------------- */

enum { CONSUMER, PRODUCER, SORTS };

static int have_one(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_message message;
  mpx_place place;
  mpx_thread self;
  (void)size;
  CHECK_EQ(mpx_family_thread(&self), 0);
  if (b->how == CONSUMER)
    CHECK_EQ(mproc_queue_get_begin(b->queue, &message, 0), 0);
  else
    CHECK_EQ(mpx_queue_claim(b->queue, self, false, &place), 0);
  b->go = 1;
  return sleep_for_long(NULL, 0);
}

/* It has its slot since the last lap, and is passed into the first ones, or not. */
EACH_METHOD_LIMIT(slots_of_the_dead, 60) {
  for (int how = 0; how < SORTS; how++)
    for (int rounds = 0; rounds < 3 * COUNT; rounds += 2) {
      board *b = new_board(&small, CIRCLE - 1);
      int next = 0, oldest = how == CONSUMER;
      b->how = how;
      if (how == CONSUMER)
        put(b->queue, next++);
      mproc_process *child = start_by(method, have_one, &b, sizeof b);
      AWAIT(b->go);
      while (next < (how == CONSUMER ? COUNT : COUNT - 1))
        put(b->queue, next++);
      for (int i = 0; i < rounds; i++) {
        get(b->queue, oldest++);
        put(b->queue, next++);
      }
      CHECK_EQ(mproc_queue_destroy(b->queue), -EBUSY);
      kill_child(child);
      get_rest(b->queue, oldest, next, how == CONSUMER);
      int number;
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 120), -ETIMEDOUT);
      mproc_queue_statistics statistics;
      CHECK_EQ(mproc_queue_stats(b->queue, &statistics), 0);
      CHECK_EQ(statistics.in_hand, 0);
      CHECK_EQ(statistics.dropped, how == PRODUCER);
      CHECK_EQ(statistics.delivered_again, how == CONSUMER);
      for (int i = 0; i < 2 * COUNT; i++) {
        put(b->queue, i);
        get(b->queue, i);
      }
      free_board(b);
    }
}

static void *take_one(void *arg) {
  mproc_message message;
  mpx_thread self;
  CHECK_EQ(mproc_queue_get_begin(arg, &message, 0), 0);
  CHECK_EQ(mpx_family_thread(&self), 0);
  return (void *)(uintptr_t)self; /* it ends, and has it in hand */
}

static mpx_thread name_of_taker(mproc_queue *queue) {
  pthread_t thread;
  void *name;
  CHECK_EQ(pthread_create(&thread, NULL, take_one, queue), 0);
  CHECK_EQ(pthread_join(thread, &name), 0);
  return (uintptr_t)name;
}

/* A word has 23 bits of the generation of its owner's cell. */
TEST(generation_of_an_owner) {
  const uint64_t circle = (uint64_t)1 << 23;
  mproc_queue *queue = new_queue(&small, CIRCLE - 2);
  put(queue, 1);
  mpx_thread name = name_of_taker(queue);
  mpx_cell *cell = mpx_cell_at(mpx_family_header(), (uint32_t)(name >> 48) - 1);
  get(queue, 1);
  for (uint64_t many = 1; many < 4; many++)
    for (uint64_t before = 0; before < 3; before++) {
      CHECK(cell->owner == 0);
      cell->generation = many * circle - 1 - before;
      put(queue, 2);
      name = name_of_taker(queue);
      CHECK_EQ(name >> 2 & (circle - 1), (circle - before) % circle);
      CHECK_EQ(mproc_queue_size(queue), 0);
      get(queue, 2); /* there again, as its owner has ended */
    }
  CHECK_EQ(mpx_queue_check(queue), 0);
  CHECK_EQ(mproc_queue_destroy(queue), 0);
}

/* ---- the end of a queue ---------------------------------------------------------------------- */

TEST(closed_across_the_end) {
  for (uint64_t before = 0; before < 3; before++)
    for (int count = 0; count <= COUNT; count++) {
      mproc_queue *queue = new_queue(&small, CIRCLE - before);
      mproc_message kept;
      for (int i = 0; i < 2; i++) {
        put(queue, i);
        get(queue, i);
      }
      for (int i = 0; i < count; i++)
        put(queue, i);
      CHECK_EQ(mproc_queue_close(queue), 0);
      CHECK_EQ(mproc_queue_put(queue, "", 1, 0), MPROC_ECLOSED);
      for (int i = 0; i < count - 1; i++)
        get(queue, i);
      if (count > 0) {
        CHECK_EQ(mproc_queue_get_begin(queue, &kept, 0), 0);
        CHECK_EQ(mproc_queue_get_abort(queue, &kept), 0);
        get(queue, count - 1);
      }
      CHECK_EQ(mproc_queue_get_begin(queue, &kept, MPROC_FOREVER), MPROC_ECLOSED);
      CHECK_EQ(mproc_queue_put(queue, "", 1, 0), MPROC_ECLOSED);
      CHECK_EQ(mpx_queue_check(queue), 0);
      CHECK_EQ(mproc_queue_destroy(queue), 0);
    }
}

/* The ring that ends is sealed, with a message of it in hand, and the next one goes on. */
TEST(growing_across_the_end) {
  for (uint64_t before = 0; before < 3; before++)
    for (int used = 0; used < 3; used++) {
      mproc_queue *queue = new_queue(&growing, CIRCLE - before);
      mproc_message kept;
      int next = 0, oldest = 0;
      for (; next < used; oldest++) {
        put(queue, next++);
        get(queue, oldest);
      }
      while (next < 20)
        put(queue, next++);
      CHECK_EQ(mproc_queue_get_begin(queue, &kept, 0), 0);
      CHECK_EQ(*(const int *)kept.data, oldest);
      for (int i = oldest + 1; i < next; i++)
        get(queue, i);
      CHECK_EQ(mproc_queue_join(queue, 0), -EAGAIN);
      CHECK_EQ(mproc_queue_get_abort(queue, &kept), 0);
      get(queue, oldest);
      CHECK_EQ(mproc_queue_join(queue, 0), 0);
      CHECK_EQ(mpx_queue_check(queue), 0);
      CHECK_EQ(mproc_queue_destroy(queue), 0);
    }
}
