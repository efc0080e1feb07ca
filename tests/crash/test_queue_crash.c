/* Queues: a process dies, or is stopped for a while, at each named place of a put or get. Its
 * partner, who puts and gets too, goes on; nothing comes torn, twice or not at all beyond what
 * docs/design/death.md says, and nothing is left of the dead. */
#include "harness.h"
#include "latency.h"
#include "letters.h"
#include "members.h"

#include "ipc/queue.h"

#include <stdatomic.h>

/* Who waits looks every 50 ms; the hang limit is for busy machines. A get waits for a while itself
 * when the dead one has got everything. */
enum { GET_MS = 100 };
enum { DRAIN_MS = 10000, ROUNDS_AFTER = 4, SOON_MS = 5000, STOP_MS = 200, FULL_MS = 100 };
enum { VICTIM, PARTNER, WRITERS, NUMBERS = 1 << 16, LONGEST = 3000 };

/* How both put and get. */
typedef enum way {
  INSIDE,
  LONG,   /* in blocks of the queue */
  GIVEN,  /* put as blocks, got as copies */
  BLOCKS, /* put and got as blocks */
  MANY,
  IN_HAND,
  LONG_IN_HAND,
  JOINABLE,
  GROWING, /* got as in IN_HAND */
  WAYS
} way;

static const char *const way_names[] = {"inside",  "long",         "given",    "blocks", "many",
                                        "in hand", "long in hand", "joinable", "growing"};

static const mproc_queue_options sorts[] = {
    [JOINABLE] = {.capacity = 8, .joinable = 1},
    [GROWING] = {.capacity = 2, .growing = 1},
};

/* In the shared heap. */
typedef struct board {
  mproc_queue *queue;
  way how;
  _Atomic int stop;
  _Atomic int64_t rounds[WRITERS];
  _Atomic int has_begun[WRITERS];
  _Atomic uint32_t confirmed[WRITERS];     /* the writer, after put returned */
  _Atomic uint8_t came[WRITERS][NUMBERS];  /* whoever got it, before it is done with */
  _Atomic uint32_t last[WRITERS][WRITERS]; /* by reader and writer: the number + 1 */
  _Atomic uint32_t out_of_order;           /* redelivered ones too */
} board;

typedef struct job {
  board *b;
  int64_t self;
} job;

static board *new_board(way how) {
  const mproc_queue_options options = {.capacity = 8};
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  b->how = how;
  CHECK_EQ(mproc_queue_create(how >= JOINABLE ? &sorts[how] : &options, &b->queue), 0);
  return b;
}

static bool is_at_least_once(const board *b) {
  return b->how >= IN_HAND;
}

static void check_soon(int64_t since) {
  int64_t took = now_ms() - since;
  if (!UNDER_SANITIZER && !test_under_valgrind())
    CHECK_EQ(took < SOON_MS ? 0 : took, 0);
}

/* ---- what both do ---------------------------------------------------------------------------- */

static size_t size_of(const board *b, uint32_t number) {
  bool is_long = b->how == LONG || b->how == GIVEN || b->how == BLOCKS || b->how == LONG_IN_HAND;
  return sizeof(letter) + (is_long          ? 100 + number * 37 % (LONGEST - 200)
                           : b->how == MANY ? 40
                                            : number % 96);
}

static void note(board *b, int self, const void *bytes, size_t size) {
  letter head = read_letter(bytes, size);
  CHECK(head.writer < WRITERS && head.number < NUMBERS);
  b->came[head.writer][head.number]++;
  if (head.number < b->last[self][head.writer])
    b->out_of_order++;
  b->last[self][head.writer] = head.number + 1;
}

static int get_copy(board *b, int self, int timeout_ms) {
  unsigned char bytes[LONGEST];
  size_t size;
  int r = mproc_queue_get(b->queue, bytes, sizeof bytes, &size, timeout_ms);
  if (r == 0)
    note(b, self, bytes, size);
  if (r == 0 && b->how == JOINABLE)
    CHECK_EQ(mproc_queue_task_done(b->queue), 0);
  return r;
}

static int get_block(board *b, int self, int timeout_ms) {
  void *block;
  size_t size;
  int r = mproc_queue_get_block(b->queue, &block, &size, timeout_ms);
  if (r == 0) {
    note(b, self, block, size);
    CHECK_EQ(mproc_heap_free(block), 0);
  }
  return r;
}

static int get_some(board *b, int self, int timeout_ms) {
  unsigned char bytes[4][64];
  size_t size = size_of(b, 0);
  int r = mproc_queue_get_many(b->queue, bytes, size, 4, timeout_ms);
  for (int i = 0; i < r; i++)
    note(b, self, (unsigned char *)bytes + (size_t)i * size, size);
  return r > 0 ? 0 : r;
}

static int get_in_hand(board *b, int self, int timeout_ms) {
  mproc_message message;
  int r = mproc_queue_get_begin(b->queue, &message, timeout_ms);
  if (r == 0) {
    note(b, self, message.data, message.size);
    CHECK_EQ(mproc_queue_get_commit(b->queue, &message), 0);
  }
  return r;
}

static int get_one(board *b, int self, int timeout_ms) {
  switch (b->how) {
  case BLOCKS:
    return get_block(b, self, timeout_ms);
  case MANY:
    return get_some(b, self, timeout_ms);
  case IN_HAND:
  case LONG_IN_HAND:
  case GROWING:
    return get_in_hand(b, self, timeout_ms);
  default:
    return get_copy(b, self, timeout_ms);
  }
}

/* Both may have filled it: then each gets something. */
static bool is_full(board *b, int self, int r, int64_t since) {
  if (r != -ETIMEDOUT)
    return false;
  check_soon(since);
  (void)get_one(b, self, 0);
  return true;
}

static void put_one(board *b, int self) {
  unsigned char bytes[LONGEST];
  uint32_t number = b->confirmed[self];
  size_t size = size_of(b, number);
  int64_t since = now_ms();
  void *block = NULL;
  int r;
  CHECK(number + 4 < NUMBERS);
  write_letter(bytes, (uint32_t)self, number, size);
  if (b->how == GIVEN || b->how == BLOCKS) {
    CHECK((block = mproc_heap_alloc_owned(size)) != NULL);
    memcpy(block, bytes, size);
  }
  do
    r = block ? mproc_queue_put_block(b->queue, block, size, FULL_MS)
              : mproc_queue_put(b->queue, bytes, size, FULL_MS);
  while (is_full(b, self, r, since));
  CHECK_EQ(r, 0);
  b->confirmed[self] = number + 1;
}

static void put_some(board *b, int self) {
  unsigned char bytes[3 * 64];
  size_t size = size_of(b, 0);
  uint32_t number = b->confirmed[self];
  int64_t since = now_ms();
  int r;
  for (uint32_t i = 0; i < 3; i++)
    write_letter(bytes + i * size, (uint32_t)self, number + i, size);
  do
    r = mproc_queue_put_many(b->queue, bytes, size, 3, FULL_MS);
  while (is_full(b, self, r, since));
  CHECK(r > 0);
  b->confirmed[self] = number + (uint32_t)r;
}

/* A growing queue grows in each of the first rounds. */
static void put_round(board *b, int self) {
  int64_t round = b->rounds[self];
  if (b->how == MANY)
    put_some(b, self);
  else
    for (int64_t count = b->how == GROWING ? 3 << (round < 5 ? round : 0) : 3; count > 0; count--)
      put_one(b, self);
}

/* The first is waited for: the other may get it, and die. */
static void get_round(board *b, int self) {
  int r = get_one(b, self, GET_MS);
  while (r == 0)
    r = get_one(b, self, 0);
  CHECK(r == -EAGAIN || r == -ETIMEDOUT);
}

static int go_on(void *arg, size_t size) {
  const job *j = arg;
  (void)size;
  j->b->has_begun[j->self] = 1;
  for (; !j->b->stop; j->b->rounds[j->self]++) {
    put_round(j->b, (int)j->self);
    get_round(j->b, (int)j->self);
    sleep_ms(1);
  }
  return 0;
}

static mproc_process *start_one(board *b, int self, const char *point, const char *method) {
  const job j = {b, self};
  if (point)
    setenv("MPROC_CRASH", point, 1);
  mproc_process *process = start_by(method, go_on, &j, sizeof j);
  unsetenv("MPROC_CRASH");
  return process;
}

/* ---- what must hold after it ----------------------------------------------------------------- */

static holdings before;

static void begin(void) {
  SKIP_WITHOUT_CRASH_POINTS();
  check_family_works();
  drain_closed();
  check_alone(DRAIN_MS);
  before = count_holdings();
}

static void check_whole(board *b) {
  check_is_whole(mpx_queue_check(b->queue));
}

static void await_rounds(const board *b, int self) {
  int64_t wanted = b->rounds[self] + ROUNDS_AFTER;
  AWAIT(b->has_begun[self]);
  int64_t since = now_ms();
  AWAIT(b->rounds[self] >= wanted);
  check_soon(since);
}

/* How often what was confirmed came: the `lost` last steps of a dead reader apart. */
static void check_deliveries(const board *b, uint32_t lost, uint32_t again) {
  uint32_t missing = 0, twice = 0;
  for (int writer = 0; writer < WRITERS; writer++)
    for (uint32_t i = 0; i < NUMBERS; i++) {
      int count = b->came[writer][i];
      CHECK(count == 0 || i <= b->confirmed[writer] + 2); /* put_many tells late */
      missing += count == 0 && i < b->confirmed[writer];
      twice += count > 1 ? (uint32_t)(count - 1) : 0;
    }
  CHECK(missing <= (is_at_least_once(b) ? 0 : lost));
  CHECK(twice <= (is_at_least_once(b) ? again : 0));
  CHECK(b->out_of_order <= again);
}

/* What a death at the point costs. */
typedef struct toll {
  uint32_t dropped, again, lost;
} toll;

static void check_end(board *b, toll expected, const char *what) {
  mproc_queue_statistics statistics;
  get_round(b, PARTNER);
  CHECK_EQ(mproc_queue_stats(b->queue, &statistics), 0);
  if (statistics.dropped != expected.dropped || statistics.delivered_again != expected.again)
    fprintf(stderr, "# after %s:\n", what);
  CHECK_EQ(statistics.messages, 0);
  CHECK_EQ(statistics.in_hand, 0);
  CHECK_EQ(statistics.dropped, expected.dropped);
  CHECK_EQ(statistics.delivered_again, expected.again);
  CHECK_EQ(mproc_queue_join(b->queue, 0), 0);
  check_whole(b);
  for (int i = 0; i < 40; i++) { /* each place once more */
    put_round(b, PARTNER);
    check_whole(b);
    get_round(b, PARTNER);
  }
  check_whole(b);
  check_deliveries(b, expected.lost, expected.again);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- dying ----------------------------------------------------------------------------------- */

/* nth 0: the partner comes when the victim is dead. */
static void dies_once(const char *point, int nth, way how, const char *method, toll expected) {
  char what[128];
  board *b = new_board(how);
  mproc_process *partner = NULL;
  snprintf(what, sizeof what, "%s:%d", point, nth ? nth : 1);
  if (nth)
    partner = start_one(b, PARTNER, NULL, method);
  check_killed(start_one(b, VICTIM, what, method), SIGKILL);
  if (!nth)
    partner = start_one(b, PARTNER, NULL, method);
  AWAIT(b->has_begun[PARTNER]);
  int64_t was = b->rounds[PARTNER];
  AWAIT_GOING_ON(b->rounds[PARTNER] > was, GET_MS, point);
  await_rounds(b, PARTNER);
  b->stop = 1;
  check_exited(partner, 0);
  snprintf(what, sizeof what, "%s:%d, %s, %s", point, nth, way_names[how], method);
  check_end(b, expected, what);
  drain_closed();
  check_drained(&before, DRAIN_MS, what);
}

/* At once, when slots are new, and after some laps. Processes are slow to begin under sanitizers:
 * there each way of using the queue has one method. */
static void dies_at(const char *point, way how, toll expected) {
  int number = 0;
  FOR_ALL_METHODS(method) {
    if (UNDER_SANITIZER && number++ != (int)how % 3)
      continue;
    dies_once(point, 0, how, method, expected);
    dies_once(point, 10, how, method, expected);
  }
  dies_once(point, 25, how, "fork", expected);
}

/* Alive: what it has in hand is its own, and it goes on where it was. */
static void stops_at(const char *point, int nth, way how) {
  char stop[64];
  board *b = new_board(how);
  mproc_process *partner = NULL;
  snprintf(stop, sizeof stop, "%s:stop:%d", point, nth);
  if (nth > 1)
    partner = start_one(b, PARTNER, NULL, "fork");
  mproc_process *victim = start_one(b, VICTIM, stop, "fork");
  CHECK(stopped_within(mproc_process_pid(victim), JOIN_MS));
  if (nth == 1)
    partner = start_one(b, PARTNER, NULL, "fork");
  sleep_ms(STOP_MS);
  CHECK_EQ(kill((pid_t)mproc_process_pid(victim), SIGCONT), 0);
  await_rounds(b, VICTIM);
  await_rounds(b, PARTNER);
  b->stop = 1;
  check_exited(victim, 0);
  check_exited(partner, 0);
  check_end(b, (toll){0, 0, 0}, stop);
  drain_closed();
  check_drained(&before, DRAIN_MS, stop);
}

static void in_ways(const char *point, unsigned ways, toll expected) {
  begin();
  for (int how = 0; how < WAYS; how++)
    if (ways & 1U << how) {
      toll paid = expected;
      if (how == MANY && expected.again + expected.lost) /* others went before in the same call */
        paid.lost += 3;
      dies_at(point, (way)how, paid);
      stops_at(point, 1, (way)how);
      stops_at(point, 5, (way)how);
    }
  latency_report(point);
}

#define WAY(name) (1U << (name))
#define ALL_WAYS ((1U << WAYS) - 1)
#define SHORT_ONES (WAY(INSIDE) | WAY(MANY) | WAY(IN_HAND) | WAY(JOINABLE) | WAY(GROWING))
#define OF_THE_QUEUE (WAY(LONG) | WAY(LONG_IN_HAND)) /* blocks that go with the queue */

TEST_LIMIT(dies_with_a_slot, 120) {
  in_ways("ring.claimed", ALL_WAYS, (toll){.dropped = 1});
}

TEST_LIMIT(dies_with_a_slot_that_it_filled, 120) {
  in_ways("ring.filled", ALL_WAYS, (toll){.dropped = 1});
}

TEST_LIMIT(dies_when_it_has_put, 120) {
  in_ways("ring.published", ALL_WAYS, (toll){0});
}

TEST_LIMIT(dies_with_a_block_for_a_message, 120) {
  in_ways("queue.block_made", OF_THE_QUEUE, (toll){.dropped = 1});
}

TEST_LIMIT(dies_when_it_has_taken_a_message, 120) {
  in_ways("ring.taken", ALL_WAYS, (toll){.again = 1});
}

TEST_LIMIT(dies_when_it_has_read_a_message, 120) {
  in_ways("ring.read", SHORT_ONES, (toll){.again = 1});
}

TEST_LIMIT(dies_when_it_has_read_and_freed_a_message, 120) {
  in_ways("ring.read", OF_THE_QUEUE | WAY(GIVEN), (toll){.lost = 1});
}

TEST_LIMIT(dies_when_it_is_about_to_free_a_message, 120) {
  in_ways("queue.block_forgotten", OF_THE_QUEUE, (toll){.lost = 1});
}

TEST_LIMIT(dies_when_a_slot_is_free_again, 120) {
  in_ways("ring.finished", SHORT_ONES | OF_THE_QUEUE | WAY(GIVEN), (toll){.lost = 1});
}

TEST_LIMIT(dies_when_it_has_made_a_ring, 120) {
  begin();
  FOR_ALL_METHODS(method)
  dies_once("queue.ring_made", 0, GROWING, method, (toll){0});
  stops_at("queue.ring_made", 1, GROWING);
}

/* ---- who looks after the dead, and dies ------------------------------------------------------ */

static int hold_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_message message;
  (void)size;
  CHECK_EQ(mproc_queue_get_begin(b->queue, &message, 0), 0);
  raise(SIGKILL);
  return 0;
}

static int put_once(void *arg, size_t size) {
  (void)size;
  put_one(*(board **)arg, VICTIM);
  return 0;
}

static int get_once(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  return get_one(b, VICTIM, 0) == 0 ? 0 : 1;
}

static void run_and_die(board *b, mproc_entry *entry, const char *point, const char *method) {
  if (point)
    setenv("MPROC_CRASH", point, 1);
  mproc_process *process = start_by(method, entry, &b, sizeof b);
  unsetenv("MPROC_CRASH");
  check_killed(process, SIGKILL);
}

/* The last of the dead leaves a slot with a block in it, or a message in hand. Whoever looks after
 * them dies at `point`, `times` in a row. */
static void die_looking(const char *point, int times, bool in_hand, toll expected) {
  begin();
  FOR_ALL_METHODS(method)
  for (int how = LONG; how <= LONG_IN_HAND; how += LONG_IN_HAND - LONG) {
    board *b = new_board((way)how);
    if (in_hand) {
      put_one(b, PARTNER);
      run_and_die(b, hold_and_die, NULL, method);
    } else {
      run_and_die(b, put_once, "ring.filled", method);
    }
    for (int i = 0; i < times; i++)
      run_and_die(b, get_once, point, method);
    latency taken = latency_begin();
    put_one(b, PARTNER);
    CHECK_EQ(get_one(b, PARTNER, SOON_MS), 0);
    if (in_hand)
      CHECK_EQ(get_one(b, PARTNER, SOON_MS), 0);
    latency_end(&taken, 0, point);
    check_end(b, expected, point);
    drain_closed();
    check_drained(&before, DRAIN_MS, point);
  }
}

TEST_LIMIT(dies_when_it_has_taken_over_a_message, 60) {
  die_looking("ring.taken_over", 1, true, (toll){.again = 1});
}

TEST_LIMIT(two_die_when_they_have_taken_over_a_message, 60) {
  die_looking("ring.taken_over", 2, true, (toll){.again = 1});
}

TEST_LIMIT(two_die_when_they_have_taken_over_a_slot, 60) {
  die_looking("ring.taken_over", 2, false, (toll){.dropped = 1});
}

TEST_LIMIT(dies_when_it_frees_what_the_dead_had_filled_in, 60) {
  die_looking("queue.block_forgotten", 1, false, (toll){.dropped = 1});
}

/* The slot is free, and not counted. */
TEST_LIMIT(dies_when_it_has_freed_a_slot_of_the_dead, 60) {
  die_looking("ring.finished", 1, false, (toll){0});
}

/* The floor stays behind: what comes after is seen all the same. */
TEST_LIMIT(dies_before_it_raises_the_floor, 60) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board(IN_HAND);
    mproc_message others[7];
    for (int i = 0; i < 8; i++)
      put_one(b, PARTNER);
    for (int i = 0; i < 7; i++) {
      CHECK_EQ(mproc_queue_get_begin(b->queue, &others[i], 0), 0);
      note(b, PARTNER, others[i].data, others[i].size);
    }
    CHECK_EQ(mproc_queue_get_abort(b->queue, &others[0]), 0);
    b->came[PARTNER][0] = 0;
    run_and_die(b, get_once, "ring.finished", method);
    for (int i = 1; i < 7; i++)
      CHECK_EQ(mproc_queue_get_commit(b->queue, &others[i]), 0);
    run_and_die(b, put_once, "ring.published", method);
    CHECK_EQ(mproc_queue_size(b->queue), 2);
    CHECK_EQ(mproc_queue_join(b->queue, 0), -EAGAIN);
    check_whole(b);
    b->confirmed[VICTIM] = 1;
    check_end(b, (toll){0}, method);
    drain_closed();
    check_drained(&before, DRAIN_MS, method);
  }
}

/* The place keeps its owner; who comes next goes on from there, and what is given back comes. */
TEST_LIMIT(dies_when_it_has_passed_a_place_by, 60) {
  begin();
  FOR_ALL_METHODS(method) for (int gives_back = 0; gives_back < 2; gives_back++) {
    board *b = new_board(IN_HAND);
    mproc_message first;
    for (int i = 0; i < 8; i++)
      put_one(b, PARTNER);
    CHECK_EQ(mproc_queue_get_begin(b->queue, &first, 0), 0);
    CHECK_EQ(get_one(b, PARTNER, 0), 0);
    run_and_die(b, put_once, "ring.passed", method);
    check_whole(b);
    put_one(b, PARTNER);
    CHECK_EQ(mproc_queue_size(b->queue), 7);
    if (gives_back) {
      CHECK_EQ(mproc_queue_get_abort(b->queue, &first), 0);
    } else {
      note(b, PARTNER, first.data, first.size);
      CHECK_EQ(mproc_queue_get_commit(b->queue, &first), 0);
    }
    check_whole(b);
    get_round(b, PARTNER);
    CHECK(b->out_of_order <= 1);
    b->out_of_order = 0;
    check_end(b, (toll){0}, method);
    drain_closed();
    check_drained(&before, DRAIN_MS, method);
  }
}

/* A dead producer's place is passed by too, until somebody looks for the dead. */
TEST_LIMIT(dies_with_a_slot_that_others_pass_by, 60) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board(INSIDE);
    run_and_die(b, put_once, "ring.filled", method);
    for (int i = 0; i < 100; i++) {
      CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, SOON_MS), 0);
      int number;
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
      CHECK_EQ(number, i);
    }
    check_whole(b);
    get_round(b, PARTNER);
    check_end(b, (toll){.dropped = 1}, method);
    drain_closed();
    check_drained(&before, DRAIN_MS, method);
  }
}

/* ---- closing --------------------------------------------------------------------------------- */

static int put_into_closed(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  return mproc_queue_put(b->queue, b, 1, MPROC_FOREVER) == MPROC_ECLOSED ? 0 : 1;
}

/* It did not see that the queue was closed. Others may have been told the end when it has a place:
 * so it looks again, and gives it up. */
TEST_LIMIT(claims_when_it_was_closed, 60) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board(INSIDE);
    setenv("MPROC_CRASH", "ring.claimed:stop", 1);
    mproc_process *process = start_by(method, put_into_closed, &b, sizeof b);
    unsetenv("MPROC_CRASH");
    CHECK(stopped_within(mproc_process_pid(process), JOIN_MS));
    CHECK_EQ(mproc_queue_close(b->queue), 0);
    CHECK_EQ(get_one(b, PARTNER, 0), -EAGAIN); /* its message might come */
    CHECK_EQ(kill((pid_t)mproc_process_pid(process), SIGCONT), 0);
    check_exited(process, 0);
    CHECK_EQ(get_one(b, PARTNER, MPROC_FOREVER), MPROC_ECLOSED);
    check_whole(b);
    CHECK_EQ(mproc_queue_destroy(b->queue), 0);
    CHECK_EQ(mproc_heap_free(b), 0);
    drain_closed();
    check_drained(&before, DRAIN_MS, method);
  }
}

static int wait_for_end(void *arg, size_t size) {
  const job *j = arg;
  int number = 0, r;
  (void)size;
  j->b->rounds[j->self]++;
  if (j->self == VICTIM)
    r = mproc_queue_put(j->b->queue, &number, sizeof number, MPROC_FOREVER);
  else
    r = mproc_queue_get(j->b->queue, &number, sizeof number, NULL, MPROC_FOREVER);
  return r == MPROC_ECLOSED ? 0 : 1;
}

static int close_queue(void *arg, size_t size) {
  (void)size;
  return mproc_queue_close((*(board **)arg)->queue) == 0 ? 0 : 1;
}

static void close_while(int waits, const char *method) {
  board *b = new_board(INSIDE);
  const job waiter = {b, waits};
  for (int i = 0; waits == VICTIM && i < 8; i++)
    put_one(b, PARTNER);
  mproc_process *process = start_by(method, wait_for_end, &waiter, sizeof waiter);
  AWAIT(b->rounds[waits] == 1);
  sleep_ms(10);
  run_and_die(b, close_queue, "queue.closed", method);
  latency told = latency_begin();
  check_exited(process, 0);
  latency_end(&told, 0, "queue.closed");
  for (int i = 0; waits == VICTIM && i < 8; i++)
    CHECK_EQ(get_one(b, PARTNER, 0), 0);
  CHECK_EQ(get_one(b, PARTNER, MPROC_FOREVER), MPROC_ECLOSED);
  CHECK_EQ(mproc_queue_put(b->queue, NULL, 0, MPROC_FOREVER), MPROC_ECLOSED);
  check_whole(b);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
  drain_closed();
  check_drained(&before, DRAIN_MS, method);
}

TEST_LIMIT(dies_when_it_has_closed, 60) {
  begin();
  FOR_ALL_METHODS(method) {
    close_while(PARTNER, method);
    close_while(VICTIM, method);
  }
}
