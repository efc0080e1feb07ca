/* Value and Array. */
#include "harness.h"
#include "methods.h"
#include "processes.h"

#include <float.h>
#include <pthread.h>

enum { SOON_MS = 5000 };

typedef struct board {
  mproc_value *number, *real, *pointer;
  mproc_array *array;
  int rounds;
  _Atomic int waits;
} board;

typedef struct pair {
  int64_t left, right;
} pair;

static board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_value_create_int64(7, &b->number), 0);
  CHECK_EQ(mproc_value_create_double(0.5, &b->real), 0);
  CHECK_EQ(mproc_value_create_pointer(NULL, &b->pointer), 0);
  CHECK_EQ(mproc_array_create(3, sizeof(pair), &b->array), 0);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_value_destroy(b->number), 0);
  CHECK_EQ(mproc_value_destroy(b->real), 0);
  CHECK_EQ(mproc_value_destroy(b->pointer), 0);
  CHECK_EQ(mproc_array_destroy(b->array), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int64_t number_of(const board *b) {
  int64_t number;
  CHECK_EQ(mproc_value_get_int64(b->number, &number), 0);
  return number;
}

TEST(values_in_one_thread) {
  board *b = new_board();
  int64_t number;
  double real;
  void *pointer;
  CHECK_EQ(number_of(b), 7);
  CHECK_EQ(mproc_value_set_int64(b->number, INT64_MAX), 0);
  CHECK_EQ(mproc_value_add_int64(b->number, 1, &number), 0);
  CHECK_EQ(number, INT64_MAX);
  CHECK_EQ(number_of(b), INT64_MIN);
  number = 3;
  CHECK_EQ(mproc_value_compare_exchange_int64(b->number, &number, 4), 0);
  CHECK_EQ(number, INT64_MIN);
  CHECK_EQ(mproc_value_compare_exchange_int64(b->number, &number, 4), 1);
  CHECK_EQ(number_of(b), 4);
  CHECK_EQ(mproc_value_wait_int64(b->number, 5, &number, 0), 0);
  CHECK_EQ(number, 4);
  number = 99;
  CHECK_EQ(mproc_value_wait_int64(b->number, 4, &number, 0), -EAGAIN);
  CHECK_EQ(mproc_value_wait_int64(b->number, 4, &number, 60), -ETIMEDOUT);
  CHECK_EQ(number, 99);
  CHECK_EQ(mproc_value_add_double(b->real, 0.25, &real), 0);
  CHECK(real == 0.5);
  CHECK_EQ(mproc_value_set_double(b->real, -DBL_MAX), 0);
  CHECK_EQ(mproc_value_add_double(b->real, DBL_MAX, NULL), 0);
  CHECK_EQ(mproc_value_get_double(b->real, &real), 0);
  CHECK(real == 0);
  CHECK_EQ(mproc_value_get_pointer(b->pointer, &pointer), 0);
  CHECK(pointer == NULL);
  CHECK_EQ(mproc_value_set_pointer(b->pointer, b), 0);
  pointer = NULL;
  CHECK_EQ(mproc_value_compare_exchange_pointer(b->pointer, &pointer, NULL), 0);
  CHECK(pointer == b);
  CHECK_EQ(mproc_value_compare_exchange_pointer(b->pointer, &pointer, NULL), 1);
  free_board(b);
}

TEST(bad_values) {
  board *b = new_board();
  int64_t number = 1;
  double real;
  void *pointer = &number;
  CHECK_EQ(mproc_value_get_int64(b->real, &number), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "another type");
  CHECK_EQ(mproc_value_get_double(b->number, &real), -EINVAL);
  CHECK_EQ(mproc_value_add_int64(b->pointer, 1, NULL), -EINVAL);
  CHECK_EQ(mproc_value_set_pointer(b->pointer, &number), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "shared heap");
  CHECK_EQ(mproc_value_compare_exchange_pointer(b->pointer, &pointer, &number), -EINVAL);
  CHECK_EQ(mproc_value_create_pointer(&number, &b->pointer), -EINVAL);
  CHECK_EQ(mproc_value_get_int64(b->number, NULL), -EINVAL);
  CHECK_EQ(mproc_value_wait_int64(b->number, 7, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_value_wait_int64(b->number, 7, &number, -5), -EINVAL);
  CHECK_EQ(mproc_value_compare_exchange_int64(b->number, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_value_set_int64((mproc_value *)&number, 0), MPROC_EPOINTER);
  CHECK_EQ(mproc_value_create_int64(1, NULL), -EINVAL);
  CHECK_EQ(mproc_array_create(0, 8, &b->array), -EINVAL);
  CHECK_EQ(mproc_array_create(8, 0, &b->array), -EINVAL);
  CHECK_EQ(mproc_array_create(SIZE_MAX / 2, 4, &b->array), MPROC_EHEAPFULL);
  CHECK_EQ(mproc_array_create(SIZE_MAX / 2, 1, &b->array), MPROC_EHEAPFULL);
  CHECK_EQ(mproc_array_create(SIZE_MAX - 64, 1, &b->array), MPROC_EHEAPFULL);
  CHECK(mproc_array_items((mproc_array *)(void *)b->number) == NULL);
  CHECK(mproc_array_lock(NULL) == NULL);
  CHECK_EQ(mproc_array_count(NULL), 0);
  CHECK_EQ(mproc_value_destroy(NULL), 0);
  CHECK_EQ(mproc_array_destroy(NULL), 0);
  CHECK_EQ(number, 1);
  free_board(b);
}

/* Though the Array is known as one that was destroyed for a while. */
TEST(memory_of_an_array_is_free_at_once) {
  enum { SIZE = 1 << 20 };
  uint64_t before = heap_used();
  for (int i = 0; i < 8; i++) {
    mproc_array *array;
    CHECK_EQ(mproc_array_create(SIZE, 1, &array), 0);
    CHECK(heap_used() >= before + SIZE);
    CHECK_EQ(mproc_array_destroy(array), 0);
    CHECK(heap_used() < before + SIZE);
    CHECK(mproc_array_items(array) == NULL);
    CHECK_EQ(mproc_array_destroy(array), MPROC_ECLOSED);
  }
}

/* ---- several processes ----------------------------------------------------------------------- */

static int change(board *b) {
  pair *pairs = mproc_array_items(b->array);
  mproc_lock *lock = mproc_array_lock(b->array);
  for (int i = 0; i < b->rounds; i++) {
    int64_t seen = number_of(b);
    CHECK_EQ(mproc_value_add_int64(b->number, 2, NULL), 0);
    while (mproc_value_compare_exchange_int64(b->number, &seen, seen + 1) == 0)
      continue;
    CHECK_EQ(mproc_value_add_double(b->real, 0.5, NULL), 0);
    CHECK_EQ(mproc_lock_acquire(lock, 60000), 0);
    CHECK_EQ(pairs[2].left, -pairs[2].right);
    pairs[2].left++;
    pairs[2].right--;
    CHECK_EQ(mproc_lock_release(lock), 0);
  }
  return 0;
}

static int change_in_child(void *arg, size_t size) {
  (void)size;
  return change(*(board **)arg);
}

static void *change_in_thread(void *arg) {
  return change(arg) == 0 ? NULL : arg;
}

static void check_sums(const board *b, int times) {
  double real;
  pair *pairs = mproc_array_items(b->array);
  CHECK_EQ(number_of(b), 7 + 3 * times * b->rounds);
  CHECK_EQ(mproc_value_get_double(b->real, &real), 0);
  CHECK(real == 0.5 + 0.5 * times * b->rounds);
  CHECK_EQ(pairs[2].left, times * b->rounds);
  CHECK_EQ((uintptr_t)pairs % 64, 0);
  CHECK_EQ(mproc_array_count(b->array), 3);
  CHECK_EQ(mproc_array_item_size(b->array), sizeof(pair));
}

EACH_METHOD_LIMIT(nothing_is_lost, 60) {
  board *b = new_board();
  mproc_process *children[3];
  b->rounds = test_scale(5000);
  for (int i = 0; i < 3; i++)
    children[i] = start_by(method, change_in_child, &b, sizeof b);
  CHECK_EQ(change(b), 0);
  for (int i = 0; i < 3; i++)
    check_exited(children[i], 0);
  check_sums(b, 4);
  free_board(b);
}

TEST_LIMIT(nothing_is_lost_in_threads, 60) {
  board *b = new_board();
  pthread_t threads[4];
  b->rounds = test_scale(5000);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, change_in_thread, b), 0);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  check_sums(b, 4);
  free_board(b);
}

static int count_to(void *arg, size_t size) {
  board *b = *(board **)arg;
  int64_t seen = 7;
  (void)size;
  b->waits = 1;
  while (seen < 107) {
    int64_t last = seen;
    CHECK_EQ(mproc_value_wait_int64(b->number, last, &seen, SOON_MS), 0);
    CHECK(seen > last);
  }
  return 0;
}

EACH_METHOD(waiter_sees_each_change) {
  board *b = new_board();
  mproc_process *child = start_by(method, count_to, &b, sizeof b);
  AWAIT(b->waits && state_of(mproc_process_pid(child)) == 'S');
  CHECK_EQ(mproc_value_destroy(b->number), -EBUSY);
  for (int i = 0; i < 100; i++)
    CHECK_EQ(mproc_value_add_int64(b->number, 1, NULL), 0);
  check_exited(child, 0);
  CHECK_EQ(mproc_array_destroy(b->array), 0);
  CHECK_EQ(mproc_array_create(1, 1, &b->array), 0);
  free_board(b);
}

static int wait_for_one(void *arg, size_t size) {
  board *b = *(board **)arg;
  int64_t number = 0;
  (void)size;
  b->waits = 1;
  int r = mproc_value_wait_int64(b->number, 0, &number, MPROC_FOREVER);
  return r == 0 && number == 1 ? 0 : r == MPROC_ECLOSED ? 1 : 2;
}

/* A new value, 0, and who sleeps until it is another. */
static mproc_process *start_waiter(board *b, const char *method) {
  b->waits = 0;
  CHECK_EQ(mproc_value_create_int64(0, &b->number), 0);
  mproc_process *waiter = start_by(method, wait_for_one, &b, sizeof b);
  AWAIT(b->waits && state_of(mproc_process_pid(waiter)) == 'S');
  return waiter;
}

/* Whoever waited sees the change, though the value is gone when it comes to look. */
EACH_METHOD(value_that_is_set_and_destroyed) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  for (int i = 0; i < 10; i++) {
    mproc_process *waiter = start_waiter(b, method);
    CHECK_EQ(mproc_value_set_int64(b->number, 1), 0);
    while (mproc_value_destroy(b->number) == -EBUSY)
      sleep_ms(1);
    check_exited(waiter, 0);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* One who was stopped is not seen, and finds a value that was destroyed. */
TEST(value_that_is_destroyed_under_a_stopped_waiter) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  for (int is_set = 0; is_set < 2; is_set++) {
    mproc_process *waiter = start_waiter(b, "fork");
    CHECK_EQ(kill((pid_t)mproc_process_pid(waiter), SIGSTOP), 0);
    CHECK(stopped_within(mproc_process_pid(waiter), JOIN_MS));
    if (is_set)
      CHECK_EQ(mproc_value_set_int64(b->number, 1), 0);
    CHECK_EQ(mproc_value_destroy(b->number), 0);
    CHECK_EQ(kill((pid_t)mproc_process_pid(waiter), SIGCONT), 0);
    check_exited(waiter, is_set ? 0 : 1);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}
