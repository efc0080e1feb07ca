/* Maps: of every count and size, in place and copied, with inputs that fail, guarded, cancelled. */
#include "each_method.h"
#include "harness.h"
#include "pools.h"

enum { LARGE = 100003 };

/* ---- numbers --------------------------------------------------------------------------------- */

/* Adds what was in the output before, so that its state is seen. */
static int square(mproc_task *task, const void *input, size_t size) {
  int64_t number, *output = mproc_task_output(task);
  CHECK_EQ(size, sizeof number);
  CHECK_EQ(mproc_task_output_size(task), sizeof *output);
  memcpy(&number, input, sizeof number);
  *output += number * number + (int64_t)mproc_task_index(task);
  return 0;
}

/* Into places that are `before`: to 0 is added where they are copied, else to that. */
static void check_squares(mproc_pool *pool, int64_t *inputs, int64_t *outputs, uint64_t count,
                          int64_t before, int64_t added) {
  for (uint64_t i = 0; i < count; i++)
    inputs[i] = (int64_t)i - 500, outputs[i] = before;
  outputs[count] = 77;
  CHECK_EQ(
      mproc_pool_map(pool, square, inputs, sizeof *inputs, outputs, sizeof *outputs, count, NULL),
      0);
  for (uint64_t i = 0; i < count; i++)
    if (outputs[i] != inputs[i] * inputs[i] + (int64_t)i + added)
      test_fail(__FILE__, __LINE__, "outputs", "%llu of %llu is %lld", (unsigned long long)i,
                (unsigned long long)count, (long long)outputs[i]);
  CHECK_EQ(outputs[count], 77);
  CHECK(count == 0 || inputs[count - 1] == (int64_t)count - 501);
}

static const uint64_t counts[] = {0, 1, 2, 3, 1000, LARGE};

EACH_METHOD(maps_of_every_count) {
  const size_t bytes = (LARGE + 1) * sizeof(int64_t);
  int64_t *shared_in = mproc_heap_alloc(bytes), *shared_out = mproc_heap_alloc(bytes);
  int64_t *own_in = malloc(bytes), *own_out = malloc(bytes);
  mproc_pool *pool = pool_of(method, 2);
  uint64_t done = 0;
  for (size_t i = 0; i < sizeof counts / sizeof counts[0]; i++) {
    uint64_t count = counts[i] == LARGE ? (uint64_t)test_scale(LARGE) : counts[i];
    check_squares(pool, shared_in, shared_out, count, 5, 5);
    check_squares(pool, own_in, own_out, count, 5, 0);
    check_squares(pool, own_in, shared_out, count, 5, 5);
    check_squares(pool, shared_in, own_out, count, 5, 0);
    done += 4 * count;
    CHECK_EQ(stats_of(pool).done, done);
  }
  CHECK_EQ(mproc_heap_free(shared_in), 0);
  CHECK_EQ(mproc_heap_free(shared_out), 0);
  free(own_in);
  free(own_out);
  end_pool(pool);
}

TEST(million_inputs) {
  enum { MILLION = 1000000 };
  mproc_pool *pool = pool_of("fork", 2);
  CHECK_EQ(mproc_pool_map(pool, do_nothing, NULL, 0, NULL, 0, (uint64_t)test_scale(MILLION), NULL),
           0);
  CHECK_EQ(stats_of(pool).done, test_scale(MILLION));
  CHECK_EQ(worker_of(pool, 0).done + worker_of(pool, 1).done, test_scale(MILLION));
  end_pool(pool);
}

/* ---- where things lie ------------------------------------------------------------------------ */

typedef struct place {
  const void *input, *output;
  board *b;
} place;

static int be_in_place(mproc_task *task, const void *input, size_t size) {
  const place *own = input;
  CHECK_EQ(size, sizeof *own);
  CHECK(own->input == input);
  CHECK(own->output == mproc_task_output(task));
  own->b->over++;
  return 0;
}

TEST(shared_memory_is_used_in_place) {
  enum { COUNT = 500 };
  board *b = new_board();
  place *inputs = mproc_heap_calloc(COUNT, sizeof *inputs);
  char *outputs = mproc_heap_calloc(COUNT, 3);
  mproc_pool *pool = pool_of("fork", 2);
  for (int i = 0; i < COUNT; i++)
    inputs[i] = (place){&inputs[i], outputs + 3 * (ptrdiff_t)i, b};
  CHECK_EQ(mproc_pool_map(pool, be_in_place, inputs, sizeof *inputs, outputs, 3, COUNT, NULL), 0);
  CHECK_EQ(b->over, COUNT);
  /* A part of a block, from the middle of it. */
  CHECK_EQ(
      mproc_pool_map(pool, be_in_place, inputs + 7, sizeof *inputs, outputs + 21, 3, 100, NULL), 0);
  CHECK_EQ(b->over, COUNT + 100);
  CHECK_EQ(mproc_heap_free(inputs), 0);
  CHECK_EQ(mproc_heap_free(outputs), 0);
  end_pool(pool);
  free_board(b);
}

/* task.h says so of what the pool copied. */
static int check_copy(mproc_task *task, const void *input, size_t size) {
  if ((uintptr_t)input % 16 != 0)
    return mproc_task_fail(task, 1, "is not aligned to 16");
  if (((const char *)input)[size] != '\0')
    return mproc_task_fail(task, 2, "no NUL follows");
  return 0;
}

TEST(copied_bytes_are_aligned_and_end_with_nul) {
  char bytes[300];
  mproc_bytes inputs[300];
  mproc_future *future = NULL;
  mproc_pool *pool = pool_of("fork", 1);
  memset(bytes, 'x', sizeof bytes);
  for (size_t i = 0; i < 300; i++) {
    inputs[i] = (mproc_bytes){bytes, i + 1};
    CHECK_EQ(mproc_pool_apply(pool, check_copy, bytes, i + 1, NULL, 0, NULL, NULL), 0);
  }
  CHECK_EQ(mproc_pool_map_bytes(pool, check_copy, inputs, 300, &future, NULL), 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  mproc_future_destroy(future);
  end_pool(pool);
}

/* Half of them by mproc_task_output, half by mproc_task_result. */
static int add_index(mproc_task *task, const void *input, size_t size) {
  unsigned char bytes[4096], *output = mproc_task_output(task);
  CHECK_EQ(mproc_task_output_size(task), size);
  for (size_t i = 0; i < size; i++)
    bytes[i] = (unsigned char)(((const unsigned char *)input)[i] + mproc_task_index(task));
  if (mproc_task_index(task) % 2)
    return mproc_task_result(task, bytes, size);
  CHECK_EQ(mproc_task_result(task, bytes, size + 1), -EINVAL);
  CHECK_EQ(mproc_task_result(task, bytes, size - 1), -EINVAL);
  memcpy(output, bytes, size);
  return 0;
}

static void check_items(mproc_pool *pool, unsigned char *inputs, unsigned char *outputs,
                        size_t size, uint64_t count, const mproc_submit_options *options) {
  for (size_t i = 0; i < size * count; i++)
    inputs[i] = (unsigned char)(i * 31 + i / 256), outputs[i] = 0xee;
  outputs[size * count] = 0xee;
  CHECK_EQ(mproc_pool_map(pool, add_index, inputs, size, outputs, size, count, options), 0);
  for (size_t i = 0; i < size * count; i++)
    if (outputs[i] != (unsigned char)(inputs[i] + i / size))
      test_fail(__FILE__, __LINE__, "outputs", "byte %zu of item %zu of %zu", i % size, i / size,
                size);
  CHECK_EQ(outputs[size * count], 0xee);
}

static const size_t item_sizes[] = {1, 4, 8, 24, 64, 4096};
enum { SIZES = sizeof item_sizes / sizeof item_sizes[0], ITEMS = 257, BYTES = ITEMS * 4096 + 1 };

EACH_METHOD(items_of_every_size) {
  const mproc_submit_options guarded = {.guarded = 1};
  unsigned char *shared = mproc_heap_alloc(BYTES), *shared_out = mproc_heap_alloc(BYTES);
  unsigned char *own = malloc(BYTES), *own_out = malloc(BYTES);
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < SIZES; i++) {
    check_items(pool, shared, shared_out, item_sizes[i], ITEMS, NULL);
    check_items(pool, own, own_out, item_sizes[i], ITEMS, NULL);
    check_items(pool, shared, shared_out, item_sizes[i], ITEMS, &guarded);
    check_items(pool, own, own_out, item_sizes[i], ITEMS, &guarded);
  }
  CHECK_EQ(mproc_heap_free(shared), 0);
  CHECK_EQ(mproc_heap_free(shared_out), 0);
  free(own);
  free(own_out);
  end_pool(pool);
}

TEST(groups_of_every_size) {
  static const size_t groups[] = {1, 2, 7, 256, 257, 1000, SIZE_MAX};
  unsigned char inputs[ITEMS * 8], outputs[ITEMS * 8 + 1];
  mproc_pool *pool = pool_of("fork", 3);
  for (size_t i = 0; i < sizeof groups / sizeof groups[0]; i++) {
    const mproc_submit_options options = {.group = groups[i]};
    check_items(pool, inputs, outputs, 8, ITEMS, &options);
  }
  end_pool(pool);
}

/* The first input waits for all the others. */
static int hold_first(mproc_task *task, const void *input, size_t size) {
  board *b = *(board *const *)input;
  CHECK_EQ(size, sizeof b);
  if (mproc_task_index(task) == 0)
    AWAIT(b->over == 99);
  b->over++;
  return 0;
}

TEST(groups_of_one_hold_no_others_up) {
  board *b = new_board(), *inputs[100];
  const mproc_submit_options by_one = {.group = 1};
  mproc_pool *pool = pool_of("fork", 2);
  for (int i = 0; i < 100; i++)
    inputs[i] = b;
  CHECK_EQ(mproc_pool_map(pool, hold_first, inputs, sizeof b, NULL, 0, 100, &by_one), 0);
  CHECK_EQ(b->over, 100);
  end_pool(pool);
  free_board(b);
}

static int put_index(mproc_task *task, const void *input, size_t size) {
  uint64_t index = mproc_task_index(task);
  CHECK(input == NULL);
  CHECK_EQ(size, 0);
  return mproc_task_result(task, &index, sizeof index);
}

static int add_to_board(mproc_task *task, const void *input, size_t size) {
  const job *own = input;
  CHECK_EQ(size, sizeof *own);
  CHECK(mproc_task_output(task) == NULL);
  CHECK_EQ(mproc_task_output_size(task), 0);
  own->b->over += own->number;
  return 0;
}

EACH_METHOD(without_inputs_and_without_outputs) {
  enum { COUNT = 5000 };
  board *b = new_board();
  static uint64_t outputs[COUNT];
  static job inputs[COUNT];
  mproc_pool *pool = pool_of(method, 2);
  CHECK_EQ(mproc_pool_map(pool, put_index, NULL, 0, outputs, sizeof *outputs, COUNT, NULL), 0);
  for (int i = 0; i < COUNT; i++) {
    CHECK_EQ(outputs[i], i);
    inputs[i] = (job){b, i, 0};
  }
  CHECK_EQ(mproc_pool_map(pool, add_to_board, inputs, sizeof *inputs, NULL, 0, COUNT, NULL), 0);
  CHECK_EQ(b->over, COUNT * (COUNT - 1) / 2);
  end_pool(pool);
  free_board(b);
}

/* ---- inputs that fail ------------------------------------------------------------------------ */

enum { FAILING = 1000, EVERY = 7, OFFSET = 3, FAILURES = (FAILING + EVERY - 1 - OFFSET) / EVERY };

static bool is_to_fail(uint64_t index) {
  return index % EVERY == OFFSET;
}

static int fail_some(mproc_task *task, const void *input, size_t size) {
  uint64_t index = mproc_task_index(task);
  if (is_to_fail(index))
    return mproc_task_fail(task, (int)index + 1, "input %d", (int)index);
  return square(task, input, size);
}

static void check_failures(mproc_future *future) {
  static bool is_named[FAILING];
  memset(is_named, 0, sizeof is_named);
  CHECK_EQ(mproc_future_failures(future), FAILURES);
  for (uint64_t i = 0; i < FAILURES; i++) {
    mproc_failure failure;
    char text[32];
    CHECK_EQ(mproc_future_failure(future, i, &failure), 0);
    CHECK(failure.index < FAILING && is_to_fail(failure.index));
    CHECK(!is_named[failure.index]);
    is_named[failure.index] = true;
    CHECK_EQ(failure.cause, MPROC_CAUSE_ERROR);
    CHECK_EQ(failure.code, failure.index + 1);
    CHECK_EQ(failure.attempts, 1);
    CHECK(failure.worker == 0 || failure.worker == 1);
    CHECK(failure.pid > 0);
    snprintf(text, sizeof text, "input %d", (int)failure.index);
    CHECK_STR(failure.text, text);
  }
  CHECK_EQ(mproc_future_failure(future, FAILURES, &(mproc_failure){0}), -ENOENT);
}

EACH_METHOD(failed_inputs_are_reported) {
  static int64_t inputs[FAILING], outputs[FAILING];
  mproc_pool *pool = pool_of(method, 2);
  mproc_future *future = NULL;
  uint64_t finished, count;
  char text[32];
  for (int i = 0; i < FAILING; i++)
    inputs[i] = i;
  CHECK_EQ(mproc_pool_map(pool, fail_some, inputs, 8, outputs, 8, FAILING, NULL), MPROC_ETASK);
  snprintf(text, sizeof text, "%d", FAILURES);
  CHECK_CONTAINS(mproc_error_detail(), text); /* how many */
  CHECK_CONTAINS(mproc_error_detail(), "input ");
  CHECK_EQ(stats_of(pool).done, FAILING - FAILURES);
  CHECK_EQ(stats_of(pool).failed, FAILURES);
  memset(outputs, 0, sizeof outputs);
  CHECK_EQ(mproc_pool_map_async(pool, fail_some, inputs, 8, outputs, 8, FAILING, &future, NULL), 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  for (int i = 0; i < FAILING; i++)
    if (!is_to_fail((uint64_t)i))
      CHECK_EQ(outputs[i], i * i + i);
  CHECK_EQ(mproc_future_progress(future, &finished, &count), 0);
  CHECK_EQ(finished, FAILING);
  CHECK_EQ(count, FAILING);
  check_failures(future);
  mproc_future_destroy(future);
  end_pool(pool);
}

static int fail_once(mproc_task *task, const void *input, size_t size) {
  if (is_to_fail(mproc_task_index(task)) && mproc_task_attempt(task) == 1)
    return 9;
  return square(task, input, size);
}

TEST(failed_inputs_are_tried_again) {
  static int64_t inputs[FAILING], outputs[FAILING];
  const mproc_submit_options again = {.retries = 1};
  mproc_pool *pool = pool_of("fork", 2);
  CHECK_EQ(mproc_pool_map(pool, fail_once, inputs, 8, outputs, 8, FAILING, &again), 0);
  for (int i = 0; i < FAILING; i++)
    CHECK_EQ(outputs[i], i);
  CHECK_EQ(stats_of(pool).retried, FAILURES);
  CHECK_EQ(stats_of(pool).done, FAILING);
  CHECK_EQ(stats_of(pool).failed, 0);
  end_pool(pool);
}

/* ---- guards ---------------------------------------------------------------------------------- */

enum { GUARDED = 40, BEFORE = 11, BEHIND = 25, FAR_BEHIND = 30 };

/* Three of them write one byte, or a few, past their places. */
static int write_past(mproc_task *task, const void *input, size_t size) {
  unsigned char *output = mproc_task_output(task);
  size_t own = mproc_task_output_size(task);
  (void)input, (void)size;
  memset(output, 1 + (int)mproc_task_index(task), own);
  if (mproc_task_index(task) == BEFORE)
    output[-1] = 0xaa;
  if (mproc_task_index(task) == BEHIND)
    output[own] = 0xaa;
  if (mproc_task_index(task) == FAR_BEHIND)
    memset(output + own, 0, 8);
  return 0;
}

static void check_guards(mproc_pool *pool, unsigned char *outputs, size_t size) {
  const mproc_submit_options options = {.guarded = 1};
  mproc_future *future = NULL;
  bool found[GUARDED] = {false};
  memset(outputs, 0xee, size * (GUARDED + 2));
  outputs += size;
  CHECK_EQ(
      mproc_pool_map_async(pool, write_past, NULL, 0, outputs, size, GUARDED, &future, &options),
      0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  CHECK_EQ(mproc_future_failures(future), 3);
  for (uint64_t i = 0; i < 3; i++) {
    mproc_failure failure;
    CHECK_EQ(mproc_future_failure(future, i, &failure), 0);
    CHECK(failure.index < GUARDED);
    found[failure.index] = true;
  }
  CHECK(found[BEFORE] && found[BEHIND] && found[FAR_BEHIND]);
  for (size_t i = 0; i < GUARDED; i++)
    for (size_t k = 0; k < size && !found[i]; k++)
      CHECK_EQ(outputs[i * size + k], 1 + i);
  for (size_t k = 0; k < size; k++)
    CHECK(outputs[GUARDED * size + k] == 0xee && outputs[k - size] == 0xee);
  mproc_future_destroy(future);
}

EACH_METHOD(guarded_outputs) {
  unsigned char *shared = mproc_heap_alloc(4096 * (GUARDED + 2));
  unsigned char *own = malloc(4096 * (GUARDED + 2));
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < SIZES; i++) {
    check_guards(pool, shared, item_sizes[i]);
    check_guards(pool, own, item_sizes[i]);
  }
  check_works(pool);
  CHECK_EQ(mproc_heap_free(shared), 0);
  free(own);
  end_pool(pool);
}

static int add_ten(mproc_task *task, const void *input, size_t size) {
  (void)input, (void)size;
  *(int64_t *)mproc_task_output(task) += 10;
  return 0;
}

TEST(guarded_outputs_have_their_state_from_before) {
  const mproc_submit_options options = {.guarded = 1};
  int64_t *shared = mproc_heap_alloc(100 * sizeof *shared);
  mproc_pool *pool = pool_of("fork", 2);
  for (int i = 0; i < 100; i++)
    shared[i] = i;
  CHECK_EQ(mproc_pool_map(pool, add_ten, NULL, 0, shared, sizeof *shared, 100, &options), 0);
  for (int i = 0; i < 100; i++)
    CHECK_EQ(shared[i], i + 10);
  CHECK_EQ(mproc_heap_free(shared), 0);
  end_pool(pool);
}

/* ---- of any length --------------------------------------------------------------------------- */

enum { LENGTHS = 150, LONGEST = 200000 };

static size_t length_of(uint64_t i) {
  return i == 100 ? LONGEST : (size_t)(i * 37 % 100);
}

/* Twice, but for those that fail. */
static int double_bytes(mproc_task *task, const void *input, size_t size) {
  if (size == 37)
    return mproc_task_fail(task, 1, "no room for %zu", size);
  char *bytes = malloc(2 * size + 1);
  if (size)
    memcpy(bytes, input, size), memcpy(bytes + size, input, size);
  int r = mproc_task_result(task, bytes, 2 * size);
  free(bytes);
  return r;
}

static void check_doubled(mproc_future *future) {
  for (uint64_t i = 0; i < LENGTHS; i++) {
    size_t length = length_of(i);
    mproc_bytes result = {"?", 99};
    int r = mproc_future_result_at(future, i, &result);
    CHECK_EQ(r, length == 37 ? MPROC_ETASK : 0);
    if (r < 0)
      continue;
    CHECK_EQ(result.size, 2 * length);
    CHECK((result.data == NULL) == (length == 0));
    const unsigned char *bytes = result.data;
    for (size_t k = 0; k < 2 * length; k++)
      if (bytes[k] != (unsigned char)(i + k % length * 3))
        test_fail(__FILE__, __LINE__, "result", "byte %zu of %d", k, (int)i);
  }
  CHECK_EQ(mproc_future_result_at(future, LENGTHS, &(mproc_bytes){0}), -EINVAL);
}

EACH_METHOD(bytes_of_every_length) {
  mproc_bytes inputs[LENGTHS];
  unsigned char *bytes[LENGTHS];
  mproc_future *future = NULL;
  mproc_pool *pool = pool_of(method, 2);
  int failing = 0;
  for (uint64_t i = 0; i < LENGTHS; i++) {
    inputs[i].size = length_of(i);
    bytes[i] = inputs[i].size ? malloc(inputs[i].size) : NULL;
    inputs[i].data = bytes[i];
    for (size_t k = 0; k < inputs[i].size; k++)
      bytes[i][k] = (unsigned char)(i + k * 3);
    failing += inputs[i].size == 37;
  }
  CHECK_EQ(mproc_pool_map_bytes(pool, double_bytes, inputs, LENGTHS, &future, NULL), 0);
  for (int i = 0; i < LENGTHS; i++) { /* they were copied */
    if (bytes[i])
      memset(bytes[i], '?', inputs[i].size);
    free(bytes[i]);
  }
  memset(inputs, 0, sizeof inputs);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  CHECK_EQ(mproc_future_failures(future), failing);
  check_doubled(future);
  check_works(pool);
  check_doubled(future);
  mproc_future_destroy(future);
  future = NULL;
  CHECK_EQ(mproc_pool_map_bytes(pool, double_bytes, NULL, 0, &future, NULL), 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  mproc_future_destroy(future);
  end_pool(pool);
}

TEST(results_before_they_are_there) {
  board *b = new_board();
  const job own = {b, 5, 0};
  const mproc_bytes inputs[3] = {{&own, sizeof own}, {&own, sizeof own}, {&own, sizeof own}};
  mproc_bytes result;
  mproc_failure failure;
  mproc_future *future = NULL;
  mproc_pool *pool = pool_of("fork", 2);
  CHECK_EQ(mproc_pool_map_bytes(pool, hold, inputs, 3, &future, NULL), 0);
  CHECK_EQ(mproc_future_result_at(future, 0, &result), -EAGAIN);
  CHECK_EQ(mproc_future_failure(future, 0, &failure), -EAGAIN);
  CHECK_EQ(mproc_future_is_done(future), 0);
  open_gate(b, 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  for (uint64_t i = 0; i < 3; i++) {
    CHECK_EQ(mproc_future_result_at(future, i, &result), 0);
    CHECK(result.size == 8 && memcmp(result.data, &own.number, 8) == 0);
  }
  mproc_future_destroy(future);
  end_pool(pool);
  free_board(b);
}

/* ---- several at once, progress, cancel ------------------------------------------------------- */

EACH_METHOD(several_maps_at_once) {
  enum { MAPS = 5, COUNT = 3000 };
  static int64_t inputs[COUNT], outputs[MAPS][COUNT];
  mproc_future *futures[MAPS];
  mproc_pool *pool = pool_of(method, 2);
  int64_t *shared = mproc_heap_calloc(COUNT, sizeof *shared);
  for (int i = 0; i < COUNT; i++)
    inputs[i] = i;
  for (int m = 0; m < MAPS; m++)
    CHECK_EQ(mproc_pool_map_async(pool, square, inputs, 8, m ? outputs[m] : shared, 8, COUNT,
                                  &futures[m], NULL),
             0);
  check_works(pool);
  CHECK_EQ(mproc_future_wait_all(futures, MAPS, JOIN_MS), 0);
  for (int m = 0; m < MAPS; m++) {
    CHECK_EQ(mproc_future_wait(futures[m], 0), 0);
    for (int64_t i = 0; i < COUNT; i++)
      CHECK_EQ((m ? outputs[m] : shared)[i], i * i + i);
    mproc_future_destroy(futures[m]);
  }
  CHECK_EQ(mproc_heap_free(shared), 0);
  end_pool(pool);
}

static struct {
  int calls;
  uint64_t last;
  pthread_t thread;
} seen;

enum { STEPS = 60, STEP_MS = 20 };

static void on_progress(uint64_t finished, uint64_t count, void *user) {
  CHECK(user == &seen);
  CHECK(pthread_equal(pthread_self(), seen.thread));
  CHECK_EQ(count, STEPS);
  CHECK(finished > seen.last && finished <= count);
  seen.last = finished;
  seen.calls++;
}

static int take_time(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  sleep_ms(STEP_MS);
  return 0;
}

EACH_METHOD(progress_grows_to_the_end) {
  const mproc_submit_options options = {.progress = on_progress, .user = &seen, .group = 1};
  mproc_pool *pool = pool_of(method, 2);
  seen.thread = pthread_self();
  check_works(pool);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_pool_map(pool, take_time, NULL, 0, NULL, 0, STEPS, &options), 0);
  int64_t took = now_ms() - begin;
  CHECK(took >= STEPS * STEP_MS / 2);
  CHECK(seen.calls >= 3);
  CHECK(seen.calls <= took / 100 + 2);
  CHECK_EQ(seen.last, STEPS);
  end_pool(pool);
}

enum { PASSING = 20 };

/* The first to come are done, the others are held. */
static int hold_later(mproc_task *task, const void *input, size_t size) {
  board *b = *(board *const *)input;
  (void)task;
  CHECK_EQ(size, sizeof b);
  if (b->begun++ >= PASSING)
    CHECK_EQ(mproc_event_wait(b->gates[0], 4 * JOIN_MS), 0);
  b->over++;
  return 0;
}

EACH_METHOD(cancelled_map_ends) {
  enum { COUNT = 300 };
  const mproc_submit_options by_one = {.group = 1};
  mproc_future *future = NULL;
  mproc_failure failure;
  uint64_t finished, count;
  board *b = new_board(), *inputs[COUNT];
  mproc_pool *pool = pool_of(method, 2);
  for (int i = 0; i < COUNT; i++)
    inputs[i] = b;
  CHECK_EQ(
      mproc_pool_map_async(pool, hold_later, inputs, sizeof b, NULL, 0, COUNT, &future, &by_one),
      0);
  AWAIT(b->over == PASSING && b->begun == PASSING + 2);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_future_progress(future, &finished, &count), 0);
  CHECK(finished <= PASSING && count == COUNT);
  for (int i = 0; i < 2; i++)
    CHECK_EQ(mproc_future_cancel(future), 0);
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  CHECK(UNDER_SANITIZER || test_under_valgrind() || now_ms() - begin < 5000);
  CHECK_EQ(mproc_future_cancel(future), 0);
  CHECK_EQ(b->begun, PASSING + 2);
  CHECK_EQ(mproc_future_failures(future), COUNT - PASSING);
  for (uint64_t i = 0; i < COUNT - PASSING; i++) {
    CHECK_EQ(mproc_future_failure(future, i, &failure), 0);
    CHECK_EQ(failure.cause, MPROC_CAUSE_CANCELLED);
  }
  CHECK_EQ(stats_of(pool).cancelled, COUNT - PASSING);
  CHECK_EQ(stats_of(pool).done, PASSING);
  mproc_future_destroy(future);
  check_works(pool);
  CHECK_EQ(mproc_pool_map(pool, do_nothing, NULL, 0, NULL, 0, 1000, NULL), 0);
  CHECK_EQ(b->begun, PASSING + 2);
  end_pool(pool);
  free_board(b);
}
