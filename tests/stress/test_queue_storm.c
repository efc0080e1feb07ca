/* Queues under random fire: producers, consumers, holders and joiners are killed and stopped at any
 * instruction. Nothing hangs, what was confirmed comes as often as the contract says, whole and in
 * order, and nothing is left in the end. */
#include "harness.h"
#include "letters.h"
#include "members.h"
#include "storm.h"

#include "ipc/queue.h"

#include <stdatomic.h>

enum { PRODUCER, CONSUMER, HOLDER, JOINER };
enum { PRODUCERS = 3, CONSUMERS = 2, NUMBERS = 1 << 19, LONGEST = 3000, DRAIN_MS = 10000 };
enum { ROUNDS = 1000, AT_ONCE = 4 };

/* How consumers get: as copies and as blocks at most once, in hand and joinable at least once. */
typedef enum way { IN_HAND, BY_WAIT, JOINABLE, COPIES, MANY, BLOCKS } way;

/* In the shared heap. */
typedef struct board {
  mproc_queue *queue;
  way how;
  _Atomic int must_end;
  _Atomic int64_t got, out_of_order;
  _Atomic uint32_t tried[PRODUCERS];             /* the producer, before it puts */
  _Atomic uint8_t confirmed[PRODUCERS][NUMBERS]; /* the producer, when put has returned */
  _Atomic uint8_t came[PRODUCERS][NUMBERS];      /* who has it, before it is done with */
  _Atomic uint8_t
      may_be_late[PRODUCERS][NUMBERS]; /* who keeps it for long, to give it back or die */
} board;

static int64_t progress_of(const void *argument, int kind) {
  (void)kind;
  return ((const board *)argument)->got;
}

static bool is_at_most_once(const board *b) {
  return b->how >= COPIES;
}

/* ---- the crew -------------------------------------------------------------------------------- */

static size_t size_of(uint32_t number) {
  return sizeof(letter) + (number % 5 == 0 ? number % (LONGEST - 100) : number % 96);
}

/* Some at once, all of one size. */
static int put_some(board *b, uint32_t writer, uint32_t first) {
  unsigned char bytes[4 * 64];
  size_t size = sizeof(letter) + 20;
  for (uint32_t i = 0; i < 4; i++)
    write_letter(bytes + i * size, writer, first + i, size);
  return mproc_queue_put_many(b->queue, bytes, size, 4, MPROC_FOREVER);
}

static int put_one(board *b, uint32_t writer, uint32_t number) {
  unsigned char bytes[LONGEST];
  size_t size = size_of(number);
  write_letter(bytes, writer, number, size);
  if (b->how != BLOCKS)
    return mproc_queue_put(b->queue, bytes, size, MPROC_FOREVER);
  void *block = mproc_heap_alloc_owned(size);
  CHECK(block != NULL);
  memcpy(block, bytes, size);
  return mproc_queue_put_block(b->queue, block, size, MPROC_FOREVER);
}

/* Goes on behind what its predecessor tried: that may be there or not. */
static void produce(board *b, uint32_t writer, uint64_t random) {
  while (!b->must_end) {
    uint32_t number = b->tried[writer];
    int count = random_below(&random, 8) == 0 ? 4 : 1;
    if (number + 4 > NUMBERS)
      return;
    b->tried[writer] = number + (uint32_t)count;
    if (count > 1)
      CHECK_EQ(put_some(b, writer, number), count);
    else
      CHECK_EQ(put_one(b, writer, number), 0);
    for (int i = 0; i < count; i++)
      b->confirmed[writer][number + (uint32_t)i] = 1;
    if (random_below(&random, 3) == 0)
      usleep(random_below(&random, 300));
  }
}

/* What a reader has seen. */
typedef struct reader {
  board *b;
  uint64_t random;
  uint32_t highest[PRODUCERS];
} reader;

/* What somebody kept, or had already, may come late; else only what died in a taker's hand before
 * it noted so, which is few instructions. */
static letter note(reader *self, const void *bytes, size_t size) {
  letter head = read_letter(bytes, size);
  CHECK(head.writer < PRODUCERS && head.number < NUMBERS);
  bool came_before = self->b->came[head.writer][head.number]++ > 0;
  if (head.number + 1 >= self->highest[head.writer])
    self->highest[head.writer] = head.number + 1;
  else if (!came_before && !self->b->may_be_late[head.writer][head.number])
    self->b->out_of_order++;
  self->b->got++;
  return head;
}

static int some_timeout(reader *self) {
  static const int timeouts[] = {0, 10, MPROC_FOREVER, MPROC_FOREVER};
  return timeouts[random_below(&self->random, 4)];
}

static int get_copy(reader *self) {
  unsigned char bytes[LONGEST];
  size_t size;
  int r = mproc_queue_get(self->b->queue, bytes, sizeof bytes, &size, some_timeout(self));
  if (r < 0)
    return r;
  (void)note(self, bytes, size);
  return self->b->how == JOINABLE ? mproc_queue_task_done(self->b->queue) : 0;
}

static int get_many(reader *self) {
  unsigned char bytes[AT_ONCE][LONGEST];
  int r = mproc_queue_get_many(self->b->queue, bytes, LONGEST, AT_ONCE, some_timeout(self));
  for (int i = 0; i < r; i++) {
    letter head;
    memcpy(&head, bytes[i], sizeof head);
    CHECK(head.size <= LONGEST);
    (void)note(self, bytes[i], head.size);
  }
  return r > 0 ? 0 : r;
}

static int get_block(reader *self) {
  void *block;
  size_t size;
  int r = mproc_queue_get_block(self->b->queue, &block, &size, some_timeout(self));
  if (r < 0)
    return r;
  (void)note(self, block, size);
  return mproc_heap_free(block);
}

static int get_in_hand(reader *self, bool holds, int timeout_ms) {
  mproc_message message;
  int r = mproc_queue_get_begin(self->b->queue, &message, timeout_ms);
  if (r < 0)
    return r;
  if (holds) {
    letter head = read_letter(message.data, message.size);
    self->b->may_be_late[head.writer][head.number] = 1;
    usleep(random_below(&self->random, 3000));
    if (random_below(&self->random, 4) == 0)
      return mproc_queue_get_abort(self->b->queue, &message);
  }
  (void)note(self, message.data, message.size);
  return mproc_queue_get_commit(self->b->queue, &message);
}

/* Another may be faster. */
static int get_by_wait(reader *self) {
  mproc_wait_item item = {.kind = MPROC_WAIT_QUEUE, .object = self->b->queue};
  int r = mproc_wait(&item, 1, 0, some_timeout(self));
  return r < 0 ? r : get_in_hand(self, false, 0);
}

static int get_some(reader *self, bool holds) {
  if (holds)
    return get_in_hand(self, true, some_timeout(self));
  switch (self->b->how) {
  case IN_HAND:
    return get_in_hand(self, false, some_timeout(self));
  case BY_WAIT:
    return get_by_wait(self);
  case MANY:
    return get_many(self);
  case BLOCKS:
    return get_block(self);
  default:
    return get_copy(self);
  }
}

static void consume(board *b, uint64_t random, bool holds) {
  reader self = {.b = b, .random = random};
  for (;;) {
    int r = get_some(&self, holds);
    if (r == MPROC_ECLOSED)
      return;
    CHECK(r == 0 || r == -EAGAIN || r == -ETIMEDOUT);
  }
}

static void join(board *b) {
  while (!b->must_end) {
    int r = mproc_queue_join(b->queue, 20);
    CHECK(r == 0 || r == -ETIMEDOUT);
  }
}

static int work(void *arg, size_t size) {
  const post *order = arg;
  (void)size;
  if (order->role == PRODUCER)
    produce(order->board, (uint32_t)order->index, order->seed | 1);
  else if (order->role == JOINER)
    join(order->board);
  else
    consume(order->board, order->seed | 1, order->role == HOLDER);
  return 0;
}

/* ---- what must hold -------------------------------------------------------------------------- */

static void check_letters(const board *b, const storm *s) {
  int64_t missing = 0, twice = 0, strange = 0, confirmed = 0;
  int takers = s->killed[CONSUMER] + s->killed[HOLDER];
  for (int writer = 0; writer < PRODUCERS; writer++)
    for (uint32_t i = 0; i < NUMBERS; i++) {
      int came = b->came[writer][i];
      confirmed += b->confirmed[writer][i];
      missing += b->confirmed[writer][i] && came == 0;
      twice += came > 1;
      strange += came && i >= b->tried[writer];
    }
  printf("# %lld confirmed, %lld missing, %lld twice, %lld out of order; killed: %d, %d, %d, %d\n",
         (long long)confirmed, (long long)missing, (long long)twice, (long long)b->out_of_order,
         s->killed[PRODUCER], s->killed[CONSUMER], s->killed[HOLDER], s->killed[JOINER]);
  CHECK_EQ(strange, 0);
  CHECK(missing <= (is_at_most_once(b) ? s->killed[CONSUMER] * (b->how == MANY ? AT_ONCE : 1) : 0));
  CHECK(twice <= (is_at_most_once(b) ? s->killed[HOLDER] : takers));
  CHECK(b->out_of_order <= takers);
}

static void check_queue(const board *b, const storm *s) {
  mproc_queue_statistics statistics;
  check_is_whole(mpx_queue_check(b->queue));
  CHECK_EQ(mproc_queue_stats(b->queue, &statistics), 0);
  CHECK_EQ(statistics.messages, 0);
  CHECK_EQ(statistics.in_hand, 0);
  CHECK(statistics.dropped <= (uint64_t)s->killed[PRODUCER]);
  CHECK(statistics.delivered_again <= (uint64_t)(s->killed[CONSUMER] + s->killed[HOLDER]));
}

/* A given block is nobody's for a few instructions of its producer, and its taker's from then on:
 * one may be left of each of the dead. */
static void check_all_freed(holdings *before, const storm *s) {
  uint64_t dead = 0;
  for (int role = PRODUCER; role <= HOLDER; role++)
    dead += (uint64_t)s->killed[role];
  check_alone(DRAIN_MS);
  CHECK(heap_used() <= before->heap_bytes + dead * 4096);
  before->heap_bytes = heap_used();
}

static void blow(const mproc_queue_options *options, way how, unsigned mortal) {
  check_family_works();
  drain_closed();
  check_alone(DRAIN_MS);
  holdings before = count_holdings();
  board *b = mproc_heap_calloc(1, sizeof *b);
  storm s;
  CHECK(b != NULL);
  b->how = how;
  CHECK_EQ(mproc_queue_create(options, &b->queue), 0);
  storm_init(&s, work, b, progress_of, 1, mortal);
  storm_add(&s, PRODUCER, PRODUCERS);
  storm_add(&s, CONSUMER, CONSUMERS);
  if (mortal & 1U << HOLDER)
    storm_add(&s, HOLDER, 1);
  storm_add(&s, JOINER, 1);
  storm_blow(&s, test_scale(ROUNDS));
  b->must_end = 1;
  storm_end(&s, PRODUCER);
  storm_end(&s, JOINER);
  CHECK_EQ(mproc_queue_join(b->queue, JOIN_MS), 0);
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  storm_end(&s, CONSUMER);
  storm_end(&s, HOLDER);
  check_queue(b, &s);
  check_letters(b, &s);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
  drain_closed();
  if (how == BLOCKS)
    check_all_freed(&before, &s);
  check_drained(&before, DRAIN_MS, "a storm");
}

#define ANYBODY (1U << PRODUCER | 1U << CONSUMER | 1U << HOLDER | 1U << JOINER)

TEST_LIMIT(at_least_once_in_hand, 300) {
  blow(&(mproc_queue_options){.capacity = 16}, IN_HAND, ANYBODY);
}

TEST_LIMIT(at_least_once_in_the_smallest_queue, 300) {
  blow(&(mproc_queue_options){.capacity = 2}, IN_HAND, ANYBODY);
}

TEST_LIMIT(at_least_once_in_a_growing_queue, 300) {
  blow(&(mproc_queue_options){.capacity = 2, .growing = 1}, IN_HAND, ANYBODY);
}

TEST_LIMIT(at_most_once_as_copies, 300) {
  blow(&(mproc_queue_options){.capacity = 16}, COPIES, ANYBODY);
}

TEST_LIMIT(at_least_once_by_wait, 300) {
  blow(&(mproc_queue_options){.capacity = 16}, BY_WAIT, ANYBODY);
}

TEST_LIMIT(at_least_once_until_task_done, 300) {
  blow(&(mproc_queue_options){.capacity = 16, .joinable = 1}, JOINABLE, ANYBODY);
}

TEST_LIMIT(at_most_once_many_at_a_time, 300) {
  blow(&(mproc_queue_options){.capacity = 16}, MANY, ANYBODY);
}

TEST_LIMIT(at_most_once_as_blocks, 300) {
  blow(&(mproc_queue_options){.capacity = 16}, BLOCKS, ANYBODY);
}

/* As long as no consumer dies nothing is lost, nothing comes twice, and all is in order. */
TEST_LIMIT(exactly_once_while_producers_die, 300) {
  blow(&(mproc_queue_options){.capacity = 16}, COPIES, 1U << PRODUCER | 1U << JOINER);
}
