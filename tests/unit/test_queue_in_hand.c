/* Queue: messages in hand for long, finished out of turn, given back, in rings that others left. */
#include "harness.h"
#include "methods.h"
#include "processes.h"
#include "queue_board.h"

#include <sched.h>
#include <sys/syscall.h>

static int hold_one(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_message message;
  (void)size;
  CHECK_EQ(mproc_queue_get_begin(b->queue, &message, 0), 0);
  b->go = 1;
  return sleep_for_long(NULL, 0);
}

/* A stopped consumer keeps what it has, and delays nobody. */
TEST(stopped_consumer_delays_nobody) {
  const mproc_queue_options options = {.capacity = 4};
  board *b = new_board(&options);
  int number;
  for (int i = 0; i < 4; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
  mproc_process *child = start_by("fork", hold_one, &b, sizeof b);
  AWAIT(b->go);
  CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(child), SOON_MS));
  for (int i = 1; i < 4; i++) {
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
    CHECK_EQ(number, i);
  }
  CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 200), -ETIMEDOUT);
  CHECK_EQ(mproc_queue_join(b->queue, 0), -EAGAIN);
  CHECK_EQ(mproc_queue_destroy(b->queue), -EBUSY);
  kill_child(child);
  CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
  CHECK_EQ(number, 0);
  CHECK_EQ(mproc_queue_join(b->queue, 0), 0);
  free_board(b);
}

/* Nobody waits long enough to look for the dead, and the dead one's place is passed by. */
EACH_METHOD(message_in_a_dead_hand_is_there_again_in_traffic) {
  for (size_t capacity = 2; capacity <= 32; capacity *= 2) {
    board *b = new_board(&(mproc_queue_options){.capacity = capacity});
    int number = 0;
    CHECK_EQ(mproc_queue_put(b->queue, &number, sizeof number, 0), 0);
    mproc_process *child = start_by(method, hold_one, &b, sizeof b);
    AWAIT(b->go);
    kill_child(child);
    int64_t since = now_ms();
    do {
      const int one = 1;
      if (size_of(b) == 0) /* else the next place may be that of the message that is there again */
        CHECK_EQ(mproc_queue_put(b->queue, &one, sizeof one, MPROC_FOREVER), 0);
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, MPROC_FOREVER), 0);
      CHECK(now_ms() - since < SOON_MS);
    } while (number != 0);
    free_board(b);
  }
}

/* ---- destroyed meanwhile --------------------------------------------------------------------- */

enum { NO_QUEUE = 7, NO_MORE };

/* The queue is not there, or nothing comes any more. */
static int code_of_end(void) {
  return strstr(mproc_error_detail(), "was destroyed") ? NO_QUEUE : NO_MORE;
}

static int hold_what_comes(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_message message;
  (void)size;
  b->go = 1;
  int r = mproc_queue_get_begin(b->queue, &message, MPROC_FOREVER);
  if (r == MPROC_ECLOSED)
    return code_of_end();
  CHECK_EQ(r, 0);
  AWAIT(b->release);
  return mproc_queue_get_commit(b->queue, &message) == 0 ? 0 : 1;
}

enum { PUT, PUT_TWICE, PUT_AND_CLOSE, WAYS };

/* It has got the message by the time at which the destroyer knows that nobody sleeps any more,
 * whatever else has come since. Who has no CPU for so long finds no queue; nobody has a message of
 * one that is gone. */
EACH_METHOD(message_that_came_to_a_sleeper_is_in_hand) {
  const char byte = 0;
  for (int how = 0; how < WAYS; how++) {
    int seen = 0;
    for (int i = 0; i < 10; i++) {
      board *b = new_board(NULL);
      mproc_process *child = start_by(method, hold_what_comes, &b, sizeof b);
      AWAIT(b->go && state_of(mproc_process_pid(child)) == 'S');
      CHECK_EQ(mproc_queue_put(b->queue, &byte, 1, 0), 0);
      if (how == PUT_TWICE)
        CHECK_EQ(mproc_queue_put(b->queue, &byte, 1, 0), 0);
      if (how == PUT_AND_CLOSE)
        CHECK_EQ(mproc_queue_close(b->queue), 0);
      int r = mproc_queue_destroy(b->queue);
      CHECK(r == 0 || r == -EBUSY);
      seen += r == -EBUSY;
      b->release = 1;
      check_exited(child, r == 0 ? NO_QUEUE : 0);
      if (r != 0)
        CHECK_EQ(mproc_queue_destroy(b->queue), 0);
      CHECK_EQ(mproc_heap_free(b), 0);
    }
    CHECK(seen > 0);
  }
}

/* Who was woken by the close is told of that, and not of the end that follows at once. */
EACH_METHOD(queue_that_is_closed_and_destroyed) {
  int told = 0;
  for (int i = 0; i < 10; i++) {
    board *b = new_board(NULL);
    mproc_process *child = start_by(method, hold_what_comes, &b, sizeof b);
    AWAIT(b->go && state_of(mproc_process_pid(child)) == 'S');
    for (int j = 0; j < 2; j++)
      CHECK_EQ(mproc_queue_close(b->queue), 0);
    while (mproc_queue_destroy(b->queue) == -EBUSY) /* it may look, or be about to go */
      sleep_ms(1);
    CHECK_EQ(mproc_heap_free(b), 0);
    mproc_status status = end_of(child);
    CHECK(status.code == NO_QUEUE || status.code == NO_MORE);
    told += status.code == NO_MORE;
  }
  CHECK(told > 0);
}

static int put_one_more(void *arg, size_t size) {
  board *b = *(board **)arg;
  const int more = 0;
  (void)size;
  b->release = 1;
  return mproc_queue_put(b->queue, &more, sizeof more, MPROC_FOREVER) == 0 ? 0 : 1;
}

/* Whether each look found the waiter. */
static bool is_seen_all_the_time(const char *method) {
  enum { PLACES = 1 << 18, FOR_MS = 500 };
  board *b = new_board(&(mproc_queue_options){.capacity = PLACES, .message_size = 8});
  char byte;
  int r = -EBUSY;
  for (int i = 0; i < PLACES; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &i, 1, 0), 0);
  mproc_process *child = start_by(method, put_one_more, &b, sizeof b);
  AWAIT(b->release && state_of(mproc_process_pid(child)) == 'S');
  for (int64_t end = now_ms() + FOR_MS; r == -EBUSY && now_ms() < end;)
    r = mproc_queue_destroy(b->queue);
  if (r == -EBUSY) {
    CHECK_EQ(mproc_queue_get(b->queue, &byte, 1, NULL, 0), 0);
    check_exited(child, 0);
    CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  } else {
    CHECK_EQ(r, 0);
    (void)end_of(child); /* without a CPU in the midst of the places, it may find anything there */
  }
  CHECK_EQ(mproc_heap_free(b), 0);
  return r == -EBUSY;
}

/* Who waits looks every 50 ms, and goes through all places: he is there as well as if he slept. In
 * one try of a few he has the CPU that he needs. */
EACH_METHOD(waiter_that_looks_is_seen) {
  for (int tries = 0; !is_seen_all_the_time(method); tries++)
    CHECK(tries < 4);
}

/* From now on by one CPU, the first that the caller may use. */
static void stay_on_one_cpu(void) {
  cpu_set_t all, one;
  size_t cpu = 0;
  CHECK_EQ(sched_getaffinity(0, sizeof all, &all), 0);
  while (!CPU_ISSET(cpu, &all))
    cpu++;
  CPU_ZERO(&one);
  CPU_SET(cpu, &one);
  CHECK_EQ(sched_setaffinity(0, sizeof one, &one), 0);
}

static int join_it(void *arg, size_t size) {
  board *b = *(board **)arg;
  const struct sched_param none = {0};
  (void)size;
  stay_on_one_cpu();
  CHECK_EQ(syscall(SYS_sched_setscheduler, 0, SCHED_IDLE, &none), 0); /* musl's only fails */
  b->release = 1;
  return mproc_queue_join(b->queue, MPROC_FOREVER) == 0 ? 0 : 1;
}

static void *keep_busy(void *arg) {
  board *b = arg;
  stay_on_one_cpu();
  while (b->release)
    b->number++;
  return NULL;
}

/* The destroyer finds what a dead one had, and wakes who waits: he waits all the same, and does so
 * though he gets no CPU for long once he is awake. */
EACH_METHOD(sleeper_that_a_destroyer_woke_is_seen) {
  const char byte = 0;
  char found;
  for (int i = 0; i < 10; i++) {
    board *b = new_board(NULL);
    pthread_t busy;
    CHECK_EQ(mproc_queue_put(b->queue, &byte, 1, 0), 0);
    mproc_process *holder = start_by(method, hold_one, &b, sizeof b);
    AWAIT(b->go);
    mproc_process *joiner = start_by(method, join_it, &b, sizeof b);
    AWAIT(b->release && state_of(mproc_process_pid(joiner)) == 'S');
    kill_child(holder);
    CHECK_EQ(pthread_create(&busy, NULL, keep_busy, b), 0);
    AWAIT(b->number > 0);
    CHECK_EQ(mproc_queue_destroy(b->queue), -EBUSY);
    b->release = 0;
    CHECK_EQ(pthread_join(busy, NULL), 0);
    CHECK_EQ(mproc_queue_get(b->queue, &found, 1, NULL, SOON_MS), 0);
    check_exited(joiner, 0);
    free_board(b);
  }
}

/* ---- in the hand of the dead ----------------------------------------------------------------- */

enum { LOOKS_MS = 100, LOOKS_MOST_MS = 10 * LOOKS_MS };

static board *board_of_a_dead_consumer(const char *method) {
  board *b = new_board(NULL);
  const int number = 0;
  CHECK_EQ(mproc_queue_put(b->queue, &number, sizeof number, 0), 0);
  mproc_process *child = start_by(method, hold_one, &b, sizeof b);
  AWAIT(b->go);
  kill_child(child);
  return b;
}

/* Many short waits are as good as a long one. */
EACH_METHOD(message_in_a_dead_hand_is_there_again_for_the_impatient) {
  board *b = board_of_a_dead_consumer(method);
  int number, tries = 0;
  while (mproc_queue_get(b->queue, &number, sizeof number, NULL, 5) == -ETIMEDOUT)
    CHECK(++tries < LOOKS_MOST_MS / 5);
  CHECK_EQ(number, 0);
  free_board(b);
}

/* `how`: ms between two. */
static int put_until_closed(void *arg, size_t size) {
  board *b = *(board **)arg;
  const int number = 1;
  (void)size;
  while (mproc_queue_put(b->queue, &number, sizeof number, SOON_MS) == 0)
    if (b->how > 0)
      sleep_ms(b->how);
  return 0;
}

/* Each message comes before its consumer has slept long enough to look. */
EACH_METHOD(message_in_a_dead_hand_is_there_again_in_slow_traffic) {
  board *b = board_of_a_dead_consumer(method);
  b->how = 30;
  mproc_process *producer = start_by(method, put_until_closed, &b, sizeof b);
  int number, count = 0;
  do
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
  while (number != 0 && ++count < 16);
  CHECK_EQ(number, 0);
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  check_exited(producer, 0);
  free_board(b);
}

/* Nobody ever waits, but many a message takes its consumer long. */
EACH_METHOD(message_in_a_dead_hand_is_there_again_in_a_backlog) {
  enum { MANY = 64, EACH_MS = 20 };
  board *b = board_of_a_dead_consumer(method);
  const int put = 1;
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &put, sizeof put, 0), 0);
  int number = 1, count = 0;
  for (; number != 0 && count < LOOKS_MS / EACH_MS * 2; count++) {
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
    sleep_ms(EACH_MS);
  }
  CHECK_EQ(number, 0);
  free_board(b);
}

/* Producers have passed the place by: it is there again behind what they have put before it. */
EACH_METHOD(message_in_a_dead_hand_that_was_passed_by) {
  enum { PLACES = 128 };
  const int first = 0;
  const mproc_queue_options options = {.capacity = PLACES};
  board *b = new_board(&options);
  CHECK_EQ(mproc_queue_put(b->queue, &first, sizeof first, 0), 0);
  mproc_process *child = start_by(method, hold_one, &b, sizeof b);
  AWAIT(b->go);
  mproc_process *producer = start_by(method, put_until_closed, &b, sizeof b);
  int number = 1, count = 0;
  for (int i = 0; i < PLACES + PLACES / 2; i++)
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
  AWAIT(size_of(b) == PLACES - 1); /* half a lap before its place, half a lap behind */
  kill_child(child);
  sleep_ms(LOOKS_MS);
  for (; number != 0 && count <= PLACES; count++) /* the first get finds it at the latest */
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
  CHECK_EQ(number, 0);
  CHECK(count > PLACES / 4);
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  check_exited(producer, 0);
  free_board(b);
}

/* A message in hand keeps one place, and no more: the others are used again and again. */
TEST(message_in_hand_for_many_laps) {
  const mproc_queue_options options = {.capacity = 4};
  for (int finish = 0; finish < 3; finish++) {
    board *b = new_board(&options);
    mproc_message first, second;
    mproc_queue_statistics statistics;
    for (int i = 0; i < 4; i++)
      CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
    CHECK_EQ(mproc_queue_get_begin(b->queue, &first, 0), 0);
    CHECK_EQ(mproc_queue_put(b->queue, &finish, sizeof finish, 0), -EAGAIN);
    for (int i = 1, number; i < 1000; i++) {
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
      CHECK_EQ(number, i);
      int next = i + 3;
      mproc_wait_item room = {.kind = MPROC_WAIT_QUEUE_ROOM, .object = b->queue};
      CHECK_EQ(mproc_wait(&room, 1, 0, 0), 1);
      CHECK_EQ(mproc_queue_put(b->queue, &next, sizeof next, 0), 0);
      CHECK_EQ(mproc_queue_put(b->queue, &next, sizeof next, i % 100 ? 0 : 10),
               i % 100 ? -EAGAIN : -ETIMEDOUT);
      CHECK_EQ(mproc_wait(&room, 1, 0, 0), -EAGAIN);
    }
    CHECK_EQ(*(const int *)first.data, 0);
    CHECK_EQ(mproc_queue_stats(b->queue, &statistics), 0);
    CHECK_EQ(statistics.messages, 3);
    CHECK_EQ(statistics.in_hand, 1);
    if (finish == 0)
      CHECK_EQ(mproc_queue_get_commit(b->queue, &first), 0);
    if (finish == 1)
      CHECK_EQ(mproc_queue_get_abort(b->queue, &first), 0);
    for (int i = 1000, number; i < 1003; i++) {
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
      if (finish == 1 && number == 0) /* it comes when it is found */
        CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
      CHECK_EQ(number, i);
    }
    CHECK_EQ(size_of(b), 0);
    CHECK_EQ(mproc_queue_close(b->queue), 0);
    CHECK_EQ(mproc_queue_get_begin(b->queue, &second, 0), MPROC_ECLOSED); /* with 0 in hand too */
    CHECK_EQ(mproc_queue_join(b->queue, 0), finish == 2 ? -EAGAIN : 0);
    if (finish == 2)
      CHECK_EQ(mproc_queue_get_commit(b->queue, &first), 0);
    CHECK_EQ(mproc_queue_get_commit(b->queue, &first), -EINVAL);
    free_board(b);
  }
}

/* Who has all of a closed queue in hand need not wait for itself. */
TEST(all_in_hand_of_a_closed_queue) {
  const mproc_queue_options options = {.capacity = 2};
  board *b = new_board(&options);
  mproc_message messages[2], more;
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
    CHECK_EQ(mproc_queue_get_begin(b->queue, &messages[i], 0), 0);
  }
  CHECK_EQ(mproc_queue_get_begin(b->queue, &more, 0), -EAGAIN);
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &more, MPROC_FOREVER), MPROC_ECLOSED);
  CHECK_EQ(mproc_queue_get_abort(b->queue, &messages[1]), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &messages[1], MPROC_FOREVER), 0);
  CHECK_EQ(mproc_queue_get_commit(b->queue, &messages[0]), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &more, MPROC_FOREVER), MPROC_ECLOSED);
  CHECK_EQ(mproc_queue_get_commit(b->queue, &messages[1]), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &more, MPROC_FOREVER), MPROC_ECLOSED);
  free_board(b);
}

/* A handle whose message is done with is no handle of the next one in that place. */
TEST(handle_of_an_earlier_message) {
  const mproc_queue_options options = {.capacity = 2};
  board *b = new_board(&options);
  mproc_message first, second;
  CHECK_EQ(mproc_queue_put(b->queue, NULL, 0, 0), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &first, 0), 0);
  CHECK_EQ(mproc_queue_get_abort(b->queue, &first), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &second, 0), 0); /* the same one again */
  CHECK_EQ(mproc_queue_get_commit(b->queue, &first), -EINVAL);
  CHECK_EQ(mproc_queue_get_commit(b->queue, &second), 0);
  free_board(b);
}

/* task_done is for the message that was got first, wherever it lies. */
TEST(task_done_in_the_order_of_getting) {
  const mproc_queue_options options = {.capacity = 4, .joinable = 1};
  board *b = new_board(&options);
  mproc_message first, second, third;
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &first, 0), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &second, 0), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &third, 0), 0);
  CHECK_EQ(mproc_queue_get_abort(b->queue, &first), 0);
  CHECK_EQ(mproc_queue_get_abort(b->queue, &second), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &first, 0), 0); /* 0, and 1 lies before the third */
  CHECK_EQ(mproc_queue_task_done(b->queue), 0);
  CHECK_EQ(mproc_queue_get_commit(b->queue, &third), -EINVAL);
  CHECK_EQ(mproc_queue_task_done(b->queue), 0);
  CHECK_EQ(mproc_queue_get_commit(b->queue, &first), -EINVAL);
  CHECK_EQ(mproc_queue_task_done(b->queue), -EINVAL);
  CHECK_EQ(size_of(b), 1);
  free_board(b);
}

/* The floor stays behind for a while: what is in the queue is seen nevertheless. */
TEST(messages_finished_out_of_turn) {
  const mproc_queue_options options = {.capacity = 4};
  board *b = new_board(&options);
  for (int round = 0; round < 50; round++) {
    mproc_message messages[4];
    for (int i = 0; i < 4; i++)
      CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
    for (int i = 0; i < 4; i++)
      CHECK_EQ(mproc_queue_get_begin(b->queue, &messages[i], 0), 0);
    for (int i = 0; i < 4; i++) /* another order each time */
      CHECK_EQ(mproc_queue_get_commit(b->queue, &messages[(3 - i + round) % 4]), 0);
    CHECK_EQ(mproc_queue_join(b->queue, 0), 0);
    for (int i = 0; i < 4; i++)
      CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
    CHECK_EQ(size_of(b), 4);
    CHECK_EQ(mproc_queue_join(b->queue, 0), -EAGAIN);
    for (int i = 0, number; i < 4; i++) {
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
      CHECK_EQ(number, i);
    }
    CHECK_EQ(size_of(b), 0);
  }
  free_board(b);
}

/* What is in hand when consumers go on to the next ring can be finished, or given back, later. */
TEST(growing_with_messages_in_hand) {
  for (int finished = 0; finished < 3; finished++)
    for (int aborted = 0; aborted < 2; aborted++) {
      const mproc_queue_options options = {.capacity = 2, .growing = 1};
      board *b = new_board(&options);
      mproc_message messages[20];
      for (int i = 0; i < 20; i++)
        CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
      for (int i = 0; i < 20; i++) {
        CHECK_EQ(mproc_queue_get_begin(b->queue, &messages[i], 0), 0);
        CHECK_EQ(*(const int *)messages[i].data, i);
        if (i < finished)
          CHECK_EQ(mproc_queue_get_commit(b->queue, &messages[i]), 0);
      }
      CHECK_EQ(mproc_queue_join(b->queue, 0), -EAGAIN);
      CHECK_EQ(mproc_queue_destroy(b->queue), -EBUSY);
      for (int i = finished; aborted && i < 20; i++)
        CHECK_EQ(mproc_queue_get_abort(b->queue, &messages[i]), 0);
      CHECK_EQ(size_of(b), aborted ? 20 - finished : 0);
      for (int i = finished; i < 20; i++) {
        if (aborted)
          CHECK_EQ(mproc_queue_get_begin(b->queue, &messages[i], 0), 0);
        CHECK_EQ(*(const int *)messages[i].data, i);
        CHECK_EQ(mproc_queue_get_commit(b->queue, &messages[i]), 0);
      }
      CHECK_EQ(mproc_queue_join(b->queue, 0), 0);
      free_board(b);
    }
}

/* Nor does it delay those who take from later rings. */
EACH_METHOD(stopped_consumer_of_a_growing_queue_delays_nobody) {
  for (int dies = 0; dies < 2; dies++) {
    const mproc_queue_options options = {.capacity = 2, .growing = 1};
    board *b = new_board(&options);
    int number;
    for (int i = 0; i < 20; i++)
      CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
    mproc_process *child = start_by(method, hold_one, &b, sizeof b);
    AWAIT(b->go);
    for (int i = 1; i < 20; i++) {
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
      CHECK_EQ(number, i);
    }
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), -EAGAIN);
    if (dies) {
      kill_child(child);
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
      CHECK_EQ(number, 0);
      CHECK_EQ(mproc_queue_close(b->queue), 0);
    } else {
      CHECK_EQ(mproc_queue_close(b->queue), 0);
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), -EAGAIN);
      kill_child(child);
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
      CHECK_EQ(number, 0);
    }
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), MPROC_ECLOSED);
    free_board(b);
  }
}

/* Its process goes on: as another program, or without the thread. */
enum { BY_EXEC, BY_THREAD, GOING_ON };

static void *take_two(void *arg) {
  board *b = arg;
  mproc_message message;
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(mproc_queue_get_begin(b->queue, &message, 0), 0);
    CHECK_EQ(*(const int *)message.data, i);
  }
  return NULL;
}

static int take_two_and_go_on(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  return take_and_go_on(take_two, b, b->how == BY_THREAD, &b->go, &b->release);
}

/* The messages are there again, and so is the place of each. */
EACH_METHOD(messages_of_one_that_executes_or_whose_thread_ends) {
  const mproc_queue_options options = {.capacity = 4};
  for (int how = 0; how < GOING_ON; how++) {
    board *b = new_board(&options);
    mproc_queue_statistics statistics;
    int number;
    b->how = how;
    for (int i = 0; i < 3; i++)
      CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
    mproc_process *child = start_by(method, take_two_and_go_on, &b, sizeof b);
    AWAIT(b->go);
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
    CHECK_EQ(number, 2);
    if (how == BY_EXEC)
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), -EAGAIN);
    b->release = 1;
    for (int i = 0; i < 2; i++) {
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS), 0);
      CHECK_EQ(number, i);
    }
    CHECK_EQ(mproc_queue_stats(b->queue, &statistics), 0);
    CHECK_EQ(statistics.in_hand, 0);
    CHECK_EQ(statistics.delivered_again, 2);
    CHECK_EQ(mproc_queue_join(b->queue, 0), 0);
    CHECK(!is_gone(mproc_process_pid(child)));
    kill_child(child);
    free_board(b);
  }
}
