/* Pipes under random fire: two processes send messages and descriptors to each other; either is
 * stopped for a while, and one of them is killed, at any time. The other gets what was sent, whole
 * and in order, then the end; and in the end everything is gone. */
#include "harness.h"
#include "members.h"
#include "storm.h"

#include "ipc/connection.h"
#include "sync/check.h"

#include <stdatomic.h>
#include <stddef.h>

/* Pairs at a time: most of a round is waiting for the 50 ms look. */
enum { ROUNDS = 1000, PAIRS = 4, STOP_MS = 12, LIFE_MS = 20 };
enum { LONG_MS = 15000, MOST_BYTES = 3000, DRAIN_MS = 1000 };

/* In the shared heap. */
typedef struct board {
  mproc_connection *ends[2];
  mproc_event *event;       /* never set */
  _Atomic uint32_t sent[2]; /* messages, by the end's number: those whose send has returned */
  _Atomic uint32_t handles; /* received by anybody, in all rounds */
  _Atomic uint32_t messages;
} board;

typedef struct job {
  board *b;
  uint64_t self, seed;
} job;

typedef struct message {
  uint32_t number, size, sum;
  unsigned char bytes[MOST_BYTES];
} message;

enum { HEAD = offsetof(message, bytes) };

/* One end's work. */
typedef struct talk {
  board *b;
  uint32_t self;
  uint64_t seed;
  uint32_t received, handles_sent, last_handle;
  bool is_over;
} talk;

static uint32_t sum_of(const message *m) {
  uint32_t sum = m->number * 2654435761u + m->size;
  for (uint32_t i = 0; i < m->size; i++)
    sum = sum * 31 + m->bytes[i];
  return sum;
}

/* Nothing else can happen to one whose partner may be dead. */
static bool went_well(talk *t, int r) {
  t->is_over |= r == MPROC_ECLOSED;
  if (r != 0 && r != -EAGAIN && r != -ETIMEDOUT)
    CHECK_EQ(r, MPROC_ECLOSED);
  return r == 0;
}

static void send_message(talk *t) {
  message m = {.number = t->b->sent[t->self] + 1};
  m.size = random_below(&t->seed, random_below(&t->seed, 4) ? 80 : MOST_BYTES);
  for (uint32_t i = 0; i < m.size; i++)
    m.bytes[i] = (unsigned char)random_below(&t->seed, 256);
  m.sum = sum_of(&m);
  if (went_well(t, mproc_connection_send(t->b->ends[t->self], &m, HEAD + m.size, 1)))
    t->b->sent[t->self]++;
}

static bool receive_message(talk *t, int timeout_ms) {
  message m;
  size_t size;
  if (!went_well(t,
                 mproc_connection_recv_into(t->b->ends[t->self], &m, sizeof m, &size, timeout_ms)))
    return false;
  CHECK(size >= HEAD);
  CHECK_EQ(size, HEAD + m.size);
  CHECK_EQ(m.sum, sum_of(&m));
  CHECK_EQ(m.number, ++t->received);
  t->b->messages++;
  return true;
}

/* The read end of a pipe with a number in it. */
static void send_handle(talk *t) {
  int ends[2];
  uint32_t number = ++t->handles_sent;
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  CHECK_EQ(write(ends[1], &number, sizeof number), sizeof number);
  (void)went_well(t, mproc_connection_send_handle(t->b->ends[t->self], ends[0], 3));
  close(ends[0]);
  close(ends[1]);
}

static void receive_handle(talk *t) {
  mproc_handle handle;
  uint32_t number;
  if (!went_well(t, mproc_connection_recv_handle(t->b->ends[t->self], &handle, 3)))
    return;
  CHECK_EQ(read((int)handle, &number, sizeof number), sizeof number);
  CHECK(number > t->last_handle);
  t->last_handle = number;
  CHECK_EQ(close((int)handle), 0);
  t->b->handles++;
}

static void wait_for_something(talk *t) {
  mproc_wait_item items[] = {{.kind = MPROC_WAIT_CONNECTION, .object = t->b->ends[t->self]},
                             {.kind = MPROC_WAIT_EVENT, .object = t->b->event}};
  int r = mproc_wait(items, 2, 0, 2);
  CHECK(r == 1 || r == -ETIMEDOUT);
  CHECK(!items[1].ready);
}

static void do_something(talk *t) {
  switch (random_below(&t->seed, 8)) {
  case 0:
    send_handle(t);
    break;
  case 1:
    receive_handle(t);
    break;
  case 2:
    wait_for_something(t);
    break;
  case 3:
  case 4:
    (void)receive_message(t, (int)random_below(&t->seed, 3));
    break;
  default:
    send_message(t);
  }
}

/* Until the other is gone; then what it sent is all there. */
static int talk_until_the_end(void *arg, size_t size) {
  const job *j = arg;
  talk t = {.b = j->b, .self = (uint32_t)j->self, .seed = j->seed};
  int descriptors = descriptor_count();
  (void)size;
  while (!t.is_over)
    do_something(&t);
  while (receive_message(&t, LONG_MS))
    continue;
  CHECK(t.received >= t.b->sent[!t.self]);
  CHECK_EQ(descriptor_count(), descriptors);
  return 0;
}

/* Two ends, and which is killed. */
typedef struct pair {
  board *b;
  mproc_process *ends[2];
  unsigned victim;
} pair;

static void start_pair(pair *p, uint64_t *random) {
  static const mproc_pipe_options small = {.capacity = 4};
  board *b = p->b;
  CHECK_EQ(mproc_pipe_create(random_below(random, 2) ? &small : NULL, &b->ends[0], &b->ends[1]), 0);
  b->sent[0] = b->sent[1] = 0;
  for (unsigned i = 0; i < 2; i++) {
    const job j = {b, i, *random};
    const char *method = all_methods[random_below(random, 4) ? 0 : random_below(random, METHODS)];
    p->ends[i] = start_by(method, talk_until_the_end, &j, sizeof j);
    CHECK_EQ(mproc_connection_give(b->ends[i], mproc_process_pid(p->ends[i])), 0);
  }
  p->victim = random_below(random, 2);
}

static void send_signal(const pair *p, unsigned end, int signal_number) {
  CHECK_EQ(kill((pid_t)mproc_process_pid(p->ends[end]), signal_number), 0);
}

/* Nobody, the victim, or the survivor is stopped: the latter before the death and after it. */
static void strike(pair *p, uint64_t *random) {
  unsigned how = random_below(random, 4), survivor = !p->victim;
  if (how == 1)
    send_signal(p, p->victim, SIGSTOP);
  if (how >= 2)
    send_signal(p, survivor, SIGSTOP);
  if (how)
    sleep_ms((int)random_below(random, STOP_MS));
  if (how == 2)
    send_signal(p, survivor, SIGCONT);
  CHECK_EQ(mproc_process_kill(p->ends[p->victim]), 0);
  if (how == 3) {
    sleep_ms((int)random_below(random, STOP_MS));
    send_signal(p, survivor, SIGCONT);
  }
}

static void end_pair(pair *p) {
  check_killed(p->ends[p->victim], SIGKILL);
  check_exited(p->ends[!p->victim], 0);
  for (int i = 0; i < 2; i++)
    check_is_whole(mpx_connection_check(p->b->ends[i]));
  CHECK_EQ(mproc_connection_close(p->b->ends[0]), 0);
  CHECK_EQ(mproc_connection_close(p->b->ends[1]), MPROC_ECLOSED); /* it came back with the first */
}

static void play_round(pair *pairs, int count, uint64_t *random) {
  for (int i = 0; i < count; i++)
    start_pair(&pairs[i], random);
  for (int i = 0; i < count; i++) {
    sleep_ms((int)random_below(random, LIFE_MS));
    strike(&pairs[i], random);
  }
  for (int i = 0; i < count; i++)
    end_pair(&pairs[i]);
}

static bool can_hand_over(void) {
  mproc_connection *first, *second;
  mproc_handle handle;
  CHECK_EQ(mproc_pipe_create(NULL, &first, &second), 0);
  int r = mproc_connection_recv_handle(first, &handle, 0);
  CHECK_EQ(mproc_connection_close(first), 0);
  CHECK_EQ(mproc_connection_close(second), 0);
  return r != -ENOSYS;
}

TEST_LIMIT(one_end_is_killed, 600) {
  if (!can_hand_over())
    SKIP("descriptors cannot be handed over on this system");
  check_family_works();
  drain_closed();
  check_alone(DRAIN_MS);
  const holdings before = count_holdings();
  pair pairs[PAIRS];
  uint64_t random = storm_seed() | 1;
  uint32_t messages = 0, handles = 0;
  mproc_event *never_set;
  CHECK_EQ(mproc_event_create(&never_set), 0);
  for (int i = 0; i < PAIRS; i++) {
    CHECK((pairs[i].b = mproc_heap_calloc(1, sizeof(board))) != NULL);
    pairs[i].b->event = never_set;
  }
  int rounds = test_scale(ROUNDS);
  for (int left = rounds; left > 0; left -= PAIRS)
    play_round(pairs, left < PAIRS ? left : PAIRS, &random);
  for (int i = 0; i < PAIRS; i++) {
    messages += pairs[i].b->messages;
    handles += pairs[i].b->handles;
    CHECK_EQ(mproc_heap_free(pairs[i].b), 0);
  }
  printf("# %d rounds: %u messages, %u descriptors\n", rounds, messages, handles);
  CHECK(rounds < ROUNDS || (messages > 0 && handles > 0));
  check_is_whole(mpx_event_check(never_set));
  CHECK_EQ(mproc_event_destroy(never_set), 0);
  drain_closed();
  check_drained(&before, DRAIN_MS, "the storm");
}
