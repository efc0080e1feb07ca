/* What one thread wrote before it told another, the other sees: plain data, that ThreadSanitizer
 * watches. And a signal handler that sets an event in the middle of a set or clear of its thread's
 * own, while another process waits for it. */
#include "harness.h"
#include "processes.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>

enum { SOON_MS = 5000, ROUNDS = 5000, SIZE = 64 };

typedef struct board {
  mproc_event *to, *fro;
  mproc_value *value;
  mproc_queue *queue, *back;
  mproc_connection *ends[2];
  int64_t data[2]; /* plain: by whose turn it is */
  int rounds;
  _Atomic int64_t went_on;
  _Atomic int stop;
} board;

static board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_event_create(&b->to), 0);
  CHECK_EQ(mproc_event_create(&b->fro), 0);
  CHECK_EQ(mproc_value_create_int64(0, &b->value), 0);
  CHECK_EQ(mproc_queue_create(NULL, &b->queue), 0);
  CHECK_EQ(mproc_queue_create(NULL, &b->back), 0);
  b->rounds = test_scale(ROUNDS);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_event_destroy(b->to), 0);
  CHECK_EQ(mproc_event_destroy(b->fro), 0);
  CHECK_EQ(mproc_value_destroy(b->value), 0);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_queue_destroy(b->back), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void with_partner(board *b, void *(*partner)(void *), void (*self)(board *)) {
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, partner, b), 0);
  self(b);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void *answer_events(void *arg) {
  board *b = arg;
  for (int i = 0; i < b->rounds; i++) {
    CHECK_EQ(mproc_event_wait(b->to, SOON_MS), 0);
    CHECK_EQ(mproc_event_clear(b->to), 0);
    CHECK_EQ(b->data[0], i);
    b->data[1] = b->data[0] * 2;
    CHECK_EQ(mproc_event_set(b->fro), 0);
  }
  return NULL;
}

static void ask_by_events(board *b) {
  for (int i = 0; i < b->rounds; i++) {
    b->data[0] = i;
    CHECK_EQ(mproc_event_set(b->to), 0);
    CHECK_EQ(mproc_event_wait(b->fro, SOON_MS), 0);
    CHECK_EQ(mproc_event_clear(b->fro), 0);
    CHECK_EQ(b->data[1], 2 * (int64_t)i);
  }
}

TEST_LIMIT(data_goes_with_an_event, 60) {
  board *b = new_board();
  with_partner(b, answer_events, ask_by_events);
  free_board(b);
}

/* Whoever asks sees it, too, without having waited. */
static void ask_without_waiting(board *b) {
  for (int i = 0; i < b->rounds; i++) {
    b->data[0] = i;
    CHECK_EQ(mproc_event_set(b->to), 0);
    AWAIT(mproc_event_is_set(b->fro) == 1);
    CHECK_EQ(mproc_event_clear(b->fro), 0);
    CHECK_EQ(b->data[1], 2 * (int64_t)i);
  }
}

TEST_LIMIT(data_goes_with_an_event_that_is_looked_at, 60) {
  board *b = new_board();
  b->rounds = test_scale(500);
  with_partner(b, answer_events, ask_without_waiting);
  free_board(b);
}

/* ---- a value --------------------------------------------------------------------------------- */

static void take_turns(board *b, int self) {
  int64_t now;
  CHECK_EQ(mproc_value_get_int64(b->value, &now), 0);
  for (int i = 0; i < b->rounds; i++) {
    while (now % 2 != self)
      CHECK_EQ(mproc_value_wait_int64(b->value, now, &now, SOON_MS), 0);
    CHECK_EQ(b->data[0], now);
    b->data[0]++;
    CHECK_EQ(mproc_value_add_int64(b->value, 1, NULL), 0);
    now++;
  }
}

static void *take_odd_turns(void *arg) {
  take_turns(arg, 1);
  return NULL;
}

static void take_even_turns(board *b) {
  take_turns(b, 0);
}

TEST_LIMIT(data_goes_with_a_value, 60) {
  board *b = new_board();
  with_partner(b, take_odd_turns, take_even_turns);
  CHECK_EQ(b->data[0], 2 * (int64_t)b->rounds);
  free_board(b);
}

/* ---- blocks ---------------------------------------------------------------------------------- */

static void *answer_blocks(void *arg) {
  board *b = arg;
  for (int i = 0; i < b->rounds; i++) {
    void *block;
    size_t size;
    CHECK_EQ(mproc_queue_get_block(b->queue, &block, &size, SOON_MS), 0);
    int *numbers = block;
    for (size_t k = 0; k < size / sizeof(int); k++) {
      CHECK_EQ(numbers[k], i + (int)k);
      numbers[k] = -numbers[k];
    }
    CHECK_EQ(mproc_queue_put_block(b->back, block, size, SOON_MS), 0);
  }
  return NULL;
}

static void give_block(board *b, int number) {
  int *numbers = mproc_heap_alloc_owned(SIZE * sizeof(int));
  CHECK(numbers != NULL);
  for (int k = 0; k < SIZE; k++)
    numbers[k] = number + k;
  CHECK_EQ(mproc_queue_put_block(b->queue, numbers, SIZE * sizeof(int), SOON_MS), 0);
}

/* A few are under way at a time. */
static void ask_by_blocks(board *b) {
  for (int given = 0, i = 0; i < b->rounds; i++) {
    for (; given < b->rounds && given < i + 4; given++)
      give_block(b, given);
    void *block;
    size_t size;
    CHECK_EQ(mproc_queue_get_block(b->back, &block, &size, SOON_MS), 0);
    for (int k = 0; k < SIZE; k++)
      CHECK_EQ(((int *)block)[k], -(i + k));
    CHECK_EQ(mproc_heap_free(block), 0);
  }
}

TEST_LIMIT(data_goes_with_a_block, 60) {
  board *b = new_board();
  with_partner(b, answer_blocks, ask_by_blocks);
  free_board(b);
}

/* ---- a pipe ---------------------------------------------------------------------------------- */

static void *answer_by_pipe(void *arg) {
  board *b = arg;
  for (int i = 0, number; i < b->rounds; i++) {
    CHECK_EQ(mproc_connection_recv_into(b->ends[1], &number, sizeof number, NULL, SOON_MS), 0);
    CHECK_EQ(number, i);
    CHECK_EQ(b->data[0], i);
    b->data[1] = b->data[0] * 2;
    CHECK_EQ(mproc_connection_send(b->ends[1], &number, sizeof number, SOON_MS), 0);
  }
  return NULL;
}

static void ask_by_pipe(board *b) {
  for (int i = 0, number; i < b->rounds; i++) {
    b->data[0] = i;
    CHECK_EQ(mproc_connection_send(b->ends[0], &i, sizeof i, SOON_MS), 0);
    CHECK_EQ(mproc_connection_recv_into(b->ends[0], &number, sizeof number, NULL, SOON_MS), 0);
    CHECK_EQ(b->data[1], 2 * (int64_t)i);
  }
}

TEST_LIMIT(data_goes_with_a_pipe, 60) {
  board *b = new_board();
  CHECK_EQ(mproc_pipe_create(NULL, &b->ends[0], &b->ends[1]), 0);
  with_partner(b, answer_by_pipe, ask_by_pipe);
  CHECK_EQ(mproc_connection_close(b->ends[0]), 0);
  CHECK_EQ(mproc_connection_close(b->ends[1]), 0);
  free_board(b);
}

/* ---- in a signal handler --------------------------------------------------------------------- */

static mproc_event *of_the_handler;
static _Atomic int handled;

static void set_in_handler(int number) {
  (void)number;
  int saved = errno;
  if (mproc_event_set(of_the_handler) != 0)
    abort();
  handled++;
  errno = saved;
}

static void set_timer(int interval_us) {
  const struct itimerval timer = {.it_interval = {.tv_usec = interval_us},
                                  .it_value = {.tv_usec = interval_us}};
  CHECK_EQ(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static int count_sets(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  while (!b->stop) {
    CHECK_EQ(mproc_event_wait(b->to, SOON_MS), 0);
    b->went_on++;
  }
  return 0;
}

/* First the handler comes in the middle of sets and clears, then only it sets; in the end a set
 * outside of it still lets the waiter go. */
static void interrupt_sets(board *b, int rounds) {
  for (int64_t since = handled, was = b->went_on; handled - since < rounds || b->went_on == was;) {
    CHECK_EQ(mproc_event_set(b->to), 0);
    CHECK_EQ(mproc_event_clear(b->to), 0);
  }
  for (int i = 0; i < rounds; i++) {
    int64_t since = handled, was = b->went_on, end = now_ms() + SOON_MS;
    while (handled == since || b->went_on == was) {
      CHECK_EQ(mproc_event_clear(b->to), 0);
      CHECK(now_ms() < end);
    }
  }
}

TEST_LIMIT(handler_sets_in_the_middle_of_set_and_clear, 60) {
  board *b = new_board();
  const struct sigaction action = {.sa_handler = set_in_handler, .sa_flags = SA_RESTART};
  of_the_handler = b->to;
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  mproc_process *waiter = start_by("spawn", count_sets, &b, sizeof b);
  set_timer(300);
  interrupt_sets(b, test_scale(500));
  set_timer(0);
  CHECK(signal(SIGALRM, SIG_IGN) != SIG_ERR); /* valgrind keeps one for a while */
  CHECK_EQ(mproc_event_clear(b->to), 0);
  AWAIT(state_of(mproc_process_pid(waiter)) == 'S');
  b->stop = 1;
  CHECK_EQ(mproc_event_set(b->to), 0);
  check_exited(waiter, 0);
  free_board(b);
}
