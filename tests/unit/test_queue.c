/* Queue: messages of every size, in order, through every function, between processes. */
#include "harness.h"
#include "methods.h"
#include "processes.h"
#include "queue_board.h"

#include <pthread.h>

enum { PRODUCERS = 3, CONSUMERS = 3 };

/* What a producer puts: who, and which. Longer ones are filled up with a pattern. */
typedef struct item {
  int32_t producer, number;
} item;

/* ---- one thread ------------------------------------------------------------------------------ */

TEST(first_in_first_out) {
  const mproc_queue_options options = {.capacity = 8};
  board *b = new_board(&options);
  size_t size;
  for (int lap = 0; lap < 100; lap++) {
    for (int i = 0; i < 8; i++)
      CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, i % 2 ? 0 : MPROC_FOREVER), 0);
    CHECK_EQ(size_of(b), 8);
    CHECK_EQ(mproc_queue_put(b->queue, &lap, sizeof lap, 0), -EAGAIN);
    for (int i = 0; i < 8; i++) {
      int got = -1;
      CHECK_EQ(mproc_queue_get(b->queue, &got, sizeof got, &size, i % 2 ? 0 : MPROC_FOREVER), 0);
      CHECK_EQ(got, i);
      CHECK_EQ(size, sizeof got);
    }
    CHECK_EQ(mproc_queue_get(b->queue, &lap, sizeof lap, NULL, 0), -EAGAIN);
  }
  int64_t begin = now_ms();
  CHECK_EQ(mproc_queue_get(b->queue, &size, sizeof size, NULL, 70), -ETIMEDOUT);
  CHECK(now_ms() - begin >= 69);
  for (int i = 0; i < 8; i++)
    CHECK_EQ(mproc_queue_put(b->queue, NULL, 0, 0), 0);
  begin = now_ms();
  CHECK_EQ(mproc_queue_put(b->queue, NULL, 0, 70), -ETIMEDOUT);
  CHECK(now_ms() - begin >= 69);
  free_board(b);
}

static unsigned char pattern(size_t size, size_t i) {
  return (unsigned char)(size * 31 + i * 7 + i / 251);
}

static void check_pattern(const unsigned char *bytes, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != pattern(size, i))
      test_fail(__FILE__, __LINE__, "pattern", "byte %zu of %zu", i, size);
}

static const size_t sizes[] = {0, 1, 7, 8, 111, 112, 113, 1000, 4096, 70000, 1 << 20};
enum { SIZES = sizeof sizes / sizeof sizes[0] };

TEST(messages_of_every_size) {
  board *b = new_board(NULL);
  unsigned char *bytes = malloc(1 << 20), *back = malloc(1 << 20);
  uint64_t used = heap_used();
  for (int round = 0; round < 3; round++) {
    for (int i = 0; i < SIZES; i++) {
      for (size_t k = 0; k < sizes[i]; k++)
        bytes[k] = pattern(sizes[i], k);
      CHECK_EQ(mproc_queue_put(b->queue, bytes, sizes[i], 0), 0);
    }
    for (int i = 0; i < SIZES; i++) {
      size_t size = 99;
      if (sizes[i]) {
        CHECK_EQ(mproc_queue_get(b->queue, back, sizes[i] - 1, &size, 0), -EMSGSIZE);
        CHECK_EQ(size, sizes[i]);
      }
      if (round == 0) {
        CHECK_EQ(mproc_queue_get(b->queue, back, 1 << 20, &size, 0), 0);
        check_pattern(back, sizes[i]);
      } else if (round == 1) {
        void *block = back;
        CHECK_EQ(mproc_queue_get_block(b->queue, &block, &size, 0), 0);
        CHECK((block == NULL) == (sizes[i] == 0));
        check_pattern(block, sizes[i]);
        CHECK_EQ(mproc_heap_free(block), 0);
      } else {
        mproc_message message;
        CHECK_EQ(mproc_queue_get_begin(b->queue, &message, 0), 0);
        size = message.size;
        check_pattern(message.data, sizes[i]);
        CHECK_EQ(mproc_queue_get_commit(b->queue, &message), 0);
        CHECK_EQ(mproc_queue_get_commit(b->queue, &message), -EINVAL);
      }
      CHECK_EQ(size, sizes[i]);
    }
  }
  CHECK_EQ(heap_used(), used);
  free(bytes);
  free(back);
  free_board(b);
}

/* What is in it when it is destroyed goes with it. */
TEST(destroyed_with_messages) {
  uint64_t used = heap_used();
  for (int round = 0; round < 3; round++) {
    board *b = new_board(NULL);
    unsigned char *bytes = calloc(1, 100000);
    for (int i = 0; i < 50; i++) {
      CHECK_EQ(mproc_queue_put(b->queue, bytes, (size_t)i * 2000, 0), 0);
      void *block = i % 2 ? mproc_heap_alloc(300) : mproc_heap_alloc_owned(3000);
      CHECK_EQ(mproc_queue_put_block(b->queue, block, 300, 0), 0);
    }
    free(bytes);
    free_board(b);
  }
  for (int i = 0; i < 64; i++) /* those that were destroyed last are kept for a while */
    free_board(new_board(&(mproc_queue_options){.capacity = 2}));
  AWAIT(heap_used() <= used + 64 * 512);
}

TEST(block_goes_from_hand_to_hand) {
  board *b = new_board(NULL);
  char *block = mproc_heap_alloc_owned(5000), *same;
  size_t size;
  snprintf(block, 5000, "hello");
  CHECK_EQ(mproc_queue_put_block(b->queue, block, 6, 0), 0);
  CHECK_EQ(mproc_queue_get_block(b->queue, (void **)&same, &size, 0), 0);
  CHECK(same == block);
  CHECK_EQ(size, 6);
  CHECK_STR(same, "hello");
  CHECK_EQ(mproc_queue_put_block(b->queue, same, 5000, 0), 0);
  char copy[5008];
  CHECK_EQ(mproc_queue_get(b->queue, copy, sizeof copy, &size, 0), 0); /* and frees it */
  CHECK_EQ(mproc_heap_usable_size(same), 0);
  int here;
  CHECK_EQ(mproc_queue_put_block(b->queue, &here, sizeof here, 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_queue_put_block(b->queue, NULL, 4, 0), -EINVAL);
  block = mproc_heap_alloc(16);
  CHECK_EQ(mproc_queue_put_block(b->queue, block, 100000, 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_queue_put_block(b->queue, block + 8, 1, 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  CHECK_EQ(mproc_queue_put_block(b->queue, block, 8, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_heap_free(block), 0); /* still the caller's */
  free_board(b);
}

TEST(many_at_once) {
  const mproc_queue_options options = {.capacity = 64};
  board *b = new_board(&options);
  int numbers[100], back[100];
  for (int i = 0; i < 100; i++)
    numbers[i] = i;
  CHECK_EQ(mproc_queue_get_many(b->queue, back, sizeof(int), 100, 0), -EAGAIN);
  CHECK_EQ(mproc_queue_put_many(b->queue, numbers, sizeof(int), 100, 0), 64);
  CHECK_EQ(mproc_queue_put_many(b->queue, numbers, sizeof(int), 100, 0), -EAGAIN);
  CHECK_EQ(mproc_queue_get_many(b->queue, back, sizeof(int), 10, 0), 10);
  CHECK_EQ(mproc_queue_put_many(b->queue, numbers + 64, sizeof(int), 36, 50), 10);
  CHECK_EQ(mproc_queue_get_many(b->queue, back + 10, sizeof(int), 90, 0), 64);
  for (int i = 0; i < 74; i++)
    CHECK_EQ(back[i], i);
  CHECK_EQ(mproc_queue_put_many(b->queue, numbers, sizeof(int), 0, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get_many(b->queue, back, sizeof(int), -1, 0), -EINVAL);
  CHECK_EQ(mproc_queue_put(b->queue, numbers, 400, 0), 0);
  CHECK_EQ(mproc_queue_get_many(b->queue, back, sizeof(int), 5, 0), -EMSGSIZE);
  free_board(b);
}

TEST(message_in_hand) {
  const mproc_queue_options options = {.capacity = 2};
  board *b = new_board(&options);
  mproc_message first, second;
  mproc_queue_statistics statistics;
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &first, 0), 0);
  CHECK_EQ(mproc_queue_stats(b->queue, &statistics), 0);
  CHECK_EQ(statistics.messages, 1);
  CHECK_EQ(statistics.in_hand, 1);
  CHECK_EQ(statistics.capacity, 2);
  CHECK_EQ(mproc_queue_put(b->queue, &first, sizeof first, 0), -EAGAIN); /* it keeps its place */
  CHECK_EQ(mproc_queue_join(b->queue, 0), -EAGAIN);
  CHECK_EQ(mproc_queue_destroy(b->queue), -EBUSY);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &second, 0), 0);
  CHECK_EQ(*(const int *)second.data, 1);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &second, 0), -EAGAIN);
  CHECK_EQ(mproc_queue_get_abort(b->queue, &first), 0);
  CHECK_EQ(mproc_queue_get_abort(b->queue, &first), -EINVAL);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &first, 0), 0);
  CHECK_EQ(*(const int *)first.data, 0);
  CHECK_EQ(mproc_queue_get_commit(b->queue, &second), 0);
  CHECK_EQ(mproc_queue_get_commit(b->queue, &first), 0);
  CHECK_EQ(mproc_queue_join(b->queue, 0), 0);
  CHECK_EQ(mproc_queue_task_done(b->queue), -EINVAL);
  free_board(b);
}

TEST(joinable) {
  const mproc_queue_options options = {.joinable = 1};
  board *b = new_board(&options);
  int number;
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(mproc_queue_join(b->queue, 0), -EAGAIN);
    CHECK_EQ(mproc_queue_task_done(b->queue), 0);
  }
  CHECK_EQ(mproc_queue_join(b->queue, MPROC_FOREVER), 0);
  CHECK_EQ(mproc_queue_task_done(b->queue), -EINVAL);
  void *block;
  size_t size;
  CHECK_EQ(mproc_queue_get_block(b->queue, &block, &size, 0), -EINVAL);
  free_board(b);
}

static int64_t of_the_worker; /* plain: the queue alone says when it is right */

static void *work_off(void *arg) {
  board *b = arg;
  int number;
  while (mproc_queue_get(b->queue, &number, sizeof number, NULL, SOON_MS) == 0) {
    of_the_worker += number;
    CHECK_EQ(mproc_queue_task_done(b->queue), 0);
  }
  return NULL;
}

/* Who was told that all is done sees all that was done; ThreadSanitizer watches. */
TEST(join_sees_what_was_done) {
  const mproc_queue_options options = {.joinable = 1};
  board *b = new_board(&options);
  pthread_t worker;
  CHECK_EQ(pthread_create(&worker, NULL, work_off, b), 0);
  for (int i = 0; i < 1000; i++) {
    int r;
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, SOON_MS), 0);
    while ((r = mproc_queue_join(b->queue, 0)) == -EAGAIN)
      sched_yield();
    CHECK_EQ(r, 0);
    CHECK_EQ(of_the_worker, (int64_t)i * (i + 1) / 2);
  }
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  CHECK_EQ(pthread_join(worker, NULL), 0);
  free_board(b);
}

TEST(closed_queue_is_drained) {
  board *b = new_board(NULL);
  int number;
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_queue_close(b->queue), 0);
  CHECK_EQ(mproc_queue_put(b->queue, &number, sizeof number, 0), MPROC_ECLOSED);
  CHECK_CONTAINS(mproc_error_detail(), "closed");
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, MPROC_FOREVER), 0);
  CHECK_EQ(number, 2);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, MPROC_FOREVER), MPROC_ECLOSED);
  CHECK_EQ(mproc_queue_put(b->queue, &number, sizeof number, MPROC_FOREVER), MPROC_ECLOSED);
  free_board(b);
}

TEST(growing) {
  const mproc_queue_options options = {.capacity = 4, .growing = 1};
  board *b = new_board(&options);
  int number, next = 0;
  for (int lap = 1; lap < 200; lap++) { /* longer and longer, never empty */
    for (int i = 0; i < 20; i++, b->rounds++)
      CHECK_EQ(mproc_queue_put(b->queue, &b->rounds, sizeof(int), 0), 0);
    for (int i = 0; i < 15; i++, next++) {
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
      CHECK_EQ(number, next);
    }
  }
  CHECK_EQ(size_of(b), b->rounds - next);
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  for (; next < b->rounds; next++) {
    CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
    CHECK_EQ(number, next);
  }
  CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), MPROC_ECLOSED);
  free_board(b);
}

TEST(bad_arguments) {
  board *b = new_board(NULL);
  int64_t here = 0;
  mproc_queue *queue, *gone;
  mproc_message message = {.place = {1, 2}};
  const mproc_queue_options wrong[] = {
      {.capacity = (1 << 24) + 1}, {.message_size = 65537}, {.reserved = {[7] = 1}}};
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_queue_create(&wrong[i], &queue), -EINVAL);
  CHECK_EQ(mproc_queue_create(NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_queue_put(NULL, &here, 8, 0), -EINVAL);
  CHECK_EQ(mproc_queue_put(b->queue, NULL, 8, 0), -EINVAL);
  CHECK_EQ(mproc_queue_put(b->queue, &here, 8, -2), -EINVAL);
  CHECK_EQ(mproc_queue_put(b->queue, &here, (size_t)1 << 33, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get(b->queue, NULL, 8, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get((mproc_queue *)&here, &here, 8, NULL, 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_queue_get_begin(b->queue, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get_commit(b->queue, NULL), -EINVAL);
  CHECK_EQ(mproc_queue_get_commit(b->queue, &message), -EINVAL);
  CHECK_EQ(mproc_queue_get_abort(b->queue, &message), -EINVAL);
  CHECK_EQ(mproc_queue_stats(b->queue, NULL), -EINVAL);
  CHECK_EQ(mproc_queue_destroy(NULL), 0);
  gone = b->queue;
  CHECK_EQ(mproc_queue_destroy(gone), 0);
  CHECK_EQ(mproc_queue_put(gone, &here, 8, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_queue_get(gone, &here, 8, NULL, MPROC_FOREVER), MPROC_ECLOSED);
  CHECK_EQ(mproc_queue_destroy(gone), MPROC_ECLOSED);
  CHECK_EQ(mproc_queue_create(NULL, &b->queue), 0);
  free_board(b);
}

/* ---- several processes ----------------------------------------------------------------------- */

enum { ONE_BY_ONE, MANY, LONG, IN_HAND, WAYS };

static void produce(board *b) {
  int own = b->number++;
  unsigned char bytes[300] = {0};
  for (int i = 0; i < b->rounds; i++) {
    item one = {own, i};
    size_t size = b->how == LONG ? 100 + (size_t)(i % 200) : sizeof one;
    if (b->how == MANY) {
      item some[16];
      int count = b->rounds - i < 16 ? b->rounds - i : 16;
      for (int k = 0; k < count; k++)
        some[k] = (item){own, i + k};
      for (int done = 0, r; done < count; done += r) {
        r = mproc_queue_put_many(b->queue, some + done, sizeof one, count - done, 60000);
        CHECK(r > 0);
      }
      i += count - 1;
      continue;
    }
    memcpy(bytes, &one, sizeof one);
    bytes[size - 1] |= 0; /* to its end */
    CHECK_EQ(mproc_queue_put(b->queue, bytes, size, 60000), 0);
  }
}

static void take_item(board *b, const item *one, int *last) {
  CHECK(one->producer >= 0 && one->producer < PRODUCERS);
  b->lost_order += one->number <= last[one->producer];
  last[one->producer] = one->number;
  b->sum += one->number;
  b->count++;
}

static void consume(board *b) {
  int last[PRODUCERS] = {-1, -1, -1};
  for (;;) {
    unsigned char bytes[300];
    mproc_message message;
    item some[16];
    int count = 1, r;
    if (b->how == MANY) {
      r = count = mproc_queue_get_many(b->queue, some, sizeof some[0], 16, 60000);
    } else if (b->how == IN_HAND) {
      r = mproc_queue_get_begin(b->queue, &message, 60000);
      if (r == 0)
        memcpy(some, message.data, sizeof some[0]);
      if (r == 0)
        CHECK_EQ(mproc_queue_get_commit(b->queue, &message), 0);
    } else {
      r = mproc_queue_get(b->queue, bytes, sizeof bytes, NULL, 60000);
      memcpy(some, bytes, sizeof some[0]);
    }
    if (r == MPROC_ECLOSED)
      return;
    CHECK_OK(r);
    for (int i = 0; i < count; i++)
      take_item(b, &some[i], last);
  }
}

static int produce_in_child(void *arg, size_t size) {
  (void)size;
  produce(*(board **)arg);
  return 0;
}

static int consume_in_child(void *arg, size_t size) {
  (void)size;
  consume(*(board **)arg);
  return 0;
}

static void *produce_in_thread(void *arg) {
  produce(arg);
  return NULL;
}

static void *consume_in_thread(void *arg) {
  consume(arg);
  return NULL;
}

static const mproc_queue_options sorts[] = {
    {.capacity = 1024}, {.capacity = 2}, {.capacity = 4, .growing = 1}};
enum { SORTS = 3 };

static void check_all_came(const board *b) {
  int64_t n = b->rounds;
  CHECK_EQ(b->count, PRODUCERS * n);
  CHECK_EQ(b->sum, PRODUCERS * (n * (n - 1) / 2));
  CHECK_EQ(b->lost_order, 0);
}

EACH_METHOD_LIMIT(nothing_is_lost_or_doubled, 120) {
  for (int sort = 0; sort < SORTS; sort++)
    for (int how = 0; how < WAYS; how++) {
      board *b = new_board(&sorts[sort]);
      mproc_process *producers[PRODUCERS], *consumers[CONSUMERS];
      b->how = how;
      b->rounds = test_scale(sort == 1 ? 1000 : 4000);
      for (int i = 0; i < CONSUMERS; i++)
        consumers[i] = start_by(method, consume_in_child, &b, sizeof b);
      for (int i = 0; i < PRODUCERS; i++)
        producers[i] = start_by(method, produce_in_child, &b, sizeof b);
      for (int i = 0; i < PRODUCERS; i++)
        check_exited(producers[i], 0);
      CHECK_EQ(mproc_queue_join(b->queue, 60000), 0);
      CHECK_EQ(mproc_queue_close(b->queue), 0);
      for (int i = 0; i < CONSUMERS; i++)
        check_exited(consumers[i], 0);
      check_all_came(b);
      free_board(b);
    }
}

TEST_LIMIT(nothing_is_lost_or_doubled_between_threads, 120) {
  for (int sort = 0; sort < SORTS; sort++)
    for (int how = 0; how < WAYS; how++) {
      board *b = new_board(&sorts[sort]);
      pthread_t producers[PRODUCERS], consumers[CONSUMERS];
      b->how = how;
      b->rounds = test_scale(sort == 1 ? 1000 : 4000);
      for (int i = 0; i < CONSUMERS; i++)
        CHECK_EQ(pthread_create(&consumers[i], NULL, consume_in_thread, b), 0);
      for (int i = 0; i < PRODUCERS; i++)
        CHECK_EQ(pthread_create(&producers[i], NULL, produce_in_thread, b), 0);
      for (int i = 0; i < PRODUCERS; i++)
        CHECK_EQ(pthread_join(producers[i], NULL), 0);
      CHECK_EQ(mproc_queue_close(b->queue), 0);
      for (int i = 0; i < CONSUMERS; i++)
        CHECK_EQ(pthread_join(consumers[i], NULL), 0);
      check_all_came(b);
      free_board(b);
    }
}

/* ---- who waits ------------------------------------------------------------------------------- */

static int wait_for_message(void *arg, size_t size) {
  board *b = *(board **)arg;
  int number = -1;
  (void)size;
  b->go++;
  int r = b->how ? mproc_queue_put(b->queue, &number, sizeof number, MPROC_FOREVER)
                 : mproc_queue_get(b->queue, &number, sizeof number, NULL, MPROC_FOREVER);
  return r == MPROC_ECLOSED ? 100 : r == 0 ? b->how ? 50 : number : 101;
}

EACH_METHOD(close_lets_all_go_who_wait) {
  for (int how = 0; how < 2; how++) {
    const mproc_queue_options options = {.capacity = 2};
    board *b = new_board(&options);
    mproc_process *waiters[4];
    b->how = how;
    for (int i = 0; how && i < 2; i++)
      CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
    for (int i = 0; i < 4; i++)
      waiters[i] = start_by(method, wait_for_message, &b, sizeof b);
    AWAIT(b->go == 4);
    CHECK_EQ(mproc_queue_close(b->queue), 0);
    for (int i = 0; i < 4; i++)
      check_exited(waiters[i], 100);
    free_board(b);
  }
}

EACH_METHOD(dead_waiters_disturb_nobody) {
  for (int how = 0; how < 2; how++) {
    const mproc_queue_options options = {.capacity = 2};
    board *b = new_board(&options);
    mproc_process *dead[3], *alive;
    int number = 7;
    b->how = how;
    for (int i = 0; how && i < 2; i++)
      CHECK_EQ(mproc_queue_put(b->queue, &number, sizeof number, 0), 0);
    for (int i = 0; i < 3; i++)
      dead[i] = start_by(method, wait_for_message, &b, sizeof b);
    alive = start_by(method, wait_for_message, &b, sizeof b);
    AWAIT(b->go == 4);
    sleep_ms(20);
    for (int i = 0; i < 3; i++)
      kill_child(dead[i]);
    if (how)
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
    else
      CHECK_EQ(mproc_queue_put(b->queue, &number, sizeof number, 0), 0);
    check_exited(alive, how ? 50 : 7);
    free_board(b);
  }
}

/* ---- death ----------------------------------------------------------------------------------- */

static int take_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_message message;
  (void)size;
  for (int i = 0; i < 3; i++)
    CHECK_EQ(mproc_queue_get_begin(b->queue, &message, 0), 0);
  raise(SIGKILL);
  return 0;
}

EACH_METHOD(messages_in_a_dead_hand_are_there_again) {
  for (int how = 0; how < 2; how++) {
    board *b = new_board(NULL);
    char bytes[500] = {0};
    mproc_queue_statistics statistics;
    for (int i = 0; i < 5; i++) {
      bytes[0] = (char)i;
      CHECK_EQ(mproc_queue_put(b->queue, bytes, how ? sizeof bytes : 1, 0), 0);
    }
    check_killed(start_by(method, take_and_die, &b, sizeof b), SIGKILL);
    int seen = 0;
    for (int i = 0; i < 5; i++) {
      CHECK_EQ(mproc_queue_get(b->queue, bytes, sizeof bytes, NULL, i ? SOON_MS : 0), 0);
      seen |= 1 << bytes[0];
    }
    CHECK_EQ(seen, 31);
    CHECK_EQ(mproc_queue_get(b->queue, bytes, sizeof bytes, NULL, 0), -EAGAIN);
    CHECK_EQ(mproc_queue_stats(b->queue, &statistics), 0);
    CHECK_EQ(statistics.delivered_again, 3);
    CHECK_EQ(statistics.dropped, 0);
    CHECK_EQ(statistics.in_hand, 0);
    free_board(b);
  }
}

/* Nobody has time to wait: one after the other is put and got. */
EACH_METHOD(messages_in_a_dead_hand_are_there_again_in_traffic) {
  static const mproc_queue_options in_traffic[] = {{.capacity = 65536},
                                                   {.capacity = 2, .growing = 1}};
  for (int sort = 0; sort < 2; sort++) {
    board *b = new_board(&in_traffic[sort]);
    int numbers[10] = {0}, number = -1;
    CHECK_EQ(mproc_queue_put_many(b->queue, numbers, sizeof number, 10, 0), 10);
    check_killed(start_by(method, take_and_die, &b, sizeof b), SIGKILL);
    for (int64_t since = now_ms(); size_of(b) != 10; sleep_ms(1)) {
      CHECK_EQ(mproc_queue_put(b->queue, &number, sizeof number, 0), 0);
      CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
      CHECK(now_ms() - since < SOON_MS);
    }
    free_board(b);
  }
}

static int wait_with_block(void *arg, size_t size) {
  board *b = *(board **)arg;
  void *block = mproc_heap_alloc_owned(5000);
  (void)size;
  CHECK(block != NULL);
  b->go = 1;
  return mproc_queue_put_block(b->queue, block, 5000, MPROC_FOREVER);
}

/* The block that it would have put goes with it. */
EACH_METHOD(dies_waiting_with_a_block) {
  const mproc_queue_options options = {.capacity = 2};
  board *b = new_board(&options);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &i, sizeof i, 0), 0);
  uint64_t used = heap_used();
  mproc_process *child = start_by(method, wait_with_block, &b, sizeof b);
  AWAIT(b->go);
  sleep_ms(20);
  kill_child(child);
  AWAIT(heap_used() < used + 5000);
  free_board(b);
}

/* ---- destroyed under those who wait ---------------------------------------------------------- */

enum { GETS, PUTS, JOINS, WAITS };

static int wait_in_queue(void *arg, size_t size) {
  board *b = *(board **)arg;
  char byte = 1;
  (void)size;
  b->go = 1;
  int r = b->how == GETS   ? mproc_queue_get(b->queue, &byte, 1, NULL, 2 * SOON_MS)
          : b->how == PUTS ? mproc_queue_put(b->queue, &byte, 1, 2 * SOON_MS)
                           : mproc_queue_join(b->queue, 2 * SOON_MS);
  return r == MPROC_ECLOSED ? 0 : r == -ETIMEDOUT ? 1 : 2;
}

static mproc_process *start_waiter(board *b, int how) {
  const char byte = 0;
  b->how = how;
  for (int i = 0; i < 2 && how != GETS; i++)
    CHECK_EQ(mproc_queue_put(b->queue, &byte, 1, 0), 0);
  mproc_process *child = start_by("fork", wait_in_queue, &b, sizeof b);
  AWAIT(b->go && state_of(mproc_process_pid(child)) == 'S');
  return child;
}

/* A stopped one sleeps at nothing that could be seen; it touches no ring that is gone. */
TEST_LIMIT(destroyed_under_a_stopped_waiter, 60) {
  const mproc_queue_options options = {.capacity = 2};
  for (int how = 0; how < WAITS; how++) {
    board *b = new_board(&options);
    mproc_process *child = start_waiter(b, how);
    CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGSTOP), 0);
    CHECK(stopped_within(mproc_process_pid(child), JOIN_MS));
    CHECK_EQ(mproc_queue_destroy(b->queue), 0);
    CHECK_EQ(kill((pid_t)mproc_process_pid(child), SIGCONT), 0);
    check_exited(child, 0);
    CHECK_EQ(mproc_heap_free(b), 0);
  }
}

/* No attempt wakes the waiter, so that the next one would come before it sleeps again. */
TEST_LIMIT(not_destroyed_by_many_attempts, 60) {
  const mproc_queue_options options = {.capacity = 2};
  for (int how = 0; how < WAITS; how++) {
    board *b = new_board(&options);
    mproc_process *child = start_waiter(b, how);
    for (int i = 0; i < 20; i++)
      CHECK_EQ(mproc_queue_destroy(b->queue), -EBUSY);
    kill_child(child);
    free_board(b);
  }
}
