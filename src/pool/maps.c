/* Giving maps to the pool. */
#include "base/error.h"
#include "pool/host.h"

#include <errno.h>
#include <string.h>

enum { ALIGNMENT = 16 };

static int overflow(const char *what) {
  return mpx_fail(MPROC_EHEAPFULL, "the %s are more bytes than any heap has; is the count right?",
                  what);
}

static int make_map(mproc_pool *pool, const mpx_map *filled, mpx_map **ret_map) {
  void *block;
  uint32_t slots = filled->count < MPX_PIECES_MOST ? (uint32_t)filled->count : MPX_PIECES_MOST;
  size_t size = sizeof(mpx_map) + (slots + 1) * sizeof(uint64_t);
  int r = mpx_board_alloc(pool->board, size, &block);
  if (r < 0)
    return r;
  mpx_map *map = memset(block, 0, size);
  map->count = filled->count;
  map->base = filled->base;
  map->input_size = filled->input_size;
  map->output_size = filled->output_size;
  map->slots = slots;
  *ret_map = map;
  return 0;
}

/* Each input as apply has it, all in one block. */
static int copy_each(mproc_pool *pool, mpx_map *map, const mproc_bytes *each) {
  size_t table = map->count * sizeof(mproc_bytes), total = table;
  void *block, *results;
  if (map->count > SIZE_MAX / 64)
    return overflow("inputs");
  for (uint64_t i = 0; i < map->count; i++) {
    if (each[i].size && !each[i].data)
      return mpx_fail(-EINVAL, "inputs[%llu].data is NULL, but its size is %zu",
                      (unsigned long long)i, each[i].size);
    if (each[i].size > SIZE_MAX / 2 - total)
      return overflow("inputs");
    total += (each[i].size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
  }
  int r = mpx_board_alloc(pool->board, total + 1, &block);
  if (r < 0)
    return r;
  mproc_bytes *copy = block;
  map->each = copy;
  char *at = (char *)block + table;
  for (uint64_t i = 0; i < map->count; i++) {
    copy[i] = (mproc_bytes){.data = each[i].size ? at : NULL, .size = each[i].size};
    if (each[i].size)
      memcpy(at, each[i].data, each[i].size);
    at[each[i].size] = '\0';
    at += (each[i].size + ALIGNMENT) / ALIGNMENT * ALIGNMENT;
  }
  r = mpx_board_alloc(pool->board, map->count * sizeof(mpx_result) + 1, &results);
  if (r == 0)
    map->results = memset(results, 0, map->count * sizeof(mpx_result));
  return r;
}

static int place_inputs(mproc_pool *pool, mpx_map *map, mproc_future *future, const void *inputs) {
  void *block;
  if (!inputs || mpx_is_in_heap(inputs)) {
    map->inputs = inputs;
    return 0;
  }
  if (map->input_size > SIZE_MAX / (map->count + 1))
    return overflow("inputs");
  int r = mpx_board_alloc(pool->board, map->count * map->input_size + 1, &block);
  if (r < 0)
    return r;
  map->inputs = memcpy(block, inputs, map->count * map->input_size);
  future->copied_inputs = true;
  return 0;
}

static int place_outputs(mproc_pool *pool, mpx_map *map, mproc_future *future, void *outputs) {
  void *block;
  if (!outputs || mpx_is_in_heap(outputs)) {
    map->outputs = outputs;
    return 0;
  }
  if (map->output_size > SIZE_MAX / (map->count + 1))
    return overflow("outputs");
  future->copy_size = map->count * map->output_size;
  int r = mpx_board_alloc(pool->board, future->copy_size + 1, &block);
  if (r < 0)
    return r;
  map->outputs = memset(block, 0, future->copy_size);
  future->copy_to = outputs;
  return 0;
}

static int fill(mproc_pool *pool, mproc_future *future, const mpx_map *filled,
                const mproc_bytes *each, void *outputs) {
  int r = make_map(pool, filled, &future->map);
  if (r < 0)
    return r;
  mpx_map *map = future->map;
  mpx_job *job = future->job;
  map->job = job;
  map->group = future->options.group;
  map->guarded = future->options.guarded != 0;
  job->kind = MPX_JOB_MAP;
  job->map = map;
  if (filled->each)
    return copy_each(pool, map, each);
  r = place_inputs(pool, map, future, filled->inputs);
  return r < 0 ? r : place_outputs(pool, map, future, outputs);
}

int mpx_map_submit(mproc_pool *pool, mproc_task_function *function, const mpx_map *filled,
                   const mproc_bytes *each, void *outputs, mproc_future **ret_future,
                   const mproc_submit_options *options) {
  mproc_submit_options taken;
  mproc_future *future;
  int r = mpx_submit_take_options(pool, options, &taken);
  if (r == 0)
    r = mpx_submit_begin(pool, (uintptr_t)function, &taken, &future);
  if (r < 0)
    return r;
  bool is_dropped = r > 0;
  r = is_dropped ? 0 : fill(pool, future, filled, each, outputs);
  if (r < 0) {
    mpx_submit_undo(pool, future);
    return r;
  }
  mpx_submit_hand_over(future, ret_future);
  if (is_dropped)
    return 0;
  mpx_submit_end(pool, future);
  if (filled->count == 0) /* nobody would find that all of it is over */
    mpx_map_check(pool->board, future->map, MPX_NOBODY);
  return 0;
}

static int check_map(mproc_task_function *function, const void *inputs, size_t input_size,
                     const void *outputs, size_t output_size) {
  if (!function)
    return mpx_fail(-EINVAL, "the function is NULL");
  if (!inputs && input_size)
    return mpx_fail(-EINVAL, "inputs is NULL, but input_size is %zu", input_size);
  if (outputs && !output_size)
    return mpx_fail(-EINVAL, "output_size is 0, but there are outputs");
  return 0;
}

static int submit_part(mproc_pool *pool, mproc_task_function *function, const void *inputs,
                       size_t input_size, void *outputs, size_t output_size, uint64_t count,
                       uint64_t base, mproc_future **ret_future,
                       const mproc_submit_options *options) {
  const mpx_map filled = {.count = count,
                          .base = base,
                          .inputs = inputs,
                          .input_size = input_size,
                          .output_size = output_size};
  int r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  r = mpx_map_submit(pool, function, &filled, NULL, outputs, ret_future, options);
  mpx_pool_leave(pool);
  return r;
}

/* What the place of a piece can say. */
#define COUNT_MOST ((uint64_t)UINT32_MAX)

int mproc_pool_map_async(mproc_pool *pool, mproc_task_function *function, const void *inputs,
                         size_t input_size, void *outputs, size_t output_size, uint64_t count,
                         mproc_future **ret_future, const mproc_submit_options *options) {
  int r = check_map(function, inputs, input_size, outputs, output_size);
  if (r < 0)
    return r;
  if (count > COUNT_MOST)
    return mpx_fail(-EINVAL, "%llu inputs; one asynchronous map has at most %llu: make several",
                    (unsigned long long)count, (unsigned long long)COUNT_MOST);
  return submit_part(pool, function, inputs, input_size, outputs, output_size, count, 0, ret_future,
                     options);
}

/* More than that go in rounds; a failure keeps the later ones from nothing. */
int mproc_pool_map(mproc_pool *pool, mproc_task_function *function, const void *inputs,
                   size_t input_size, void *outputs, size_t output_size, uint64_t count,
                   const mproc_submit_options *options) {
  int r = check_map(function, inputs, input_size, outputs, output_size), failed = 0;
  for (uint64_t base = 0; r == 0 && (base < count || base == 0); base += COUNT_MOST) {
    mproc_future *future;
    uint64_t part = count - base < COUNT_MOST ? count - base : COUNT_MOST;
    const char *from = inputs ? (const char *)inputs + base * input_size : NULL;
    char *to = outputs ? (char *)outputs + base * output_size : NULL;
    r = submit_part(pool, function, from, input_size, to, output_size, part, base, &future,
                    options);
    if (r < 0)
      break;
    r = mproc_future_wait(future, MPROC_FOREVER);
    mproc_future_destroy(future);
    if (r == MPROC_ETASK) {
      failed = r;
      r = 0;
    }
  }
  return r < 0 ? r : failed;
}

int mproc_pool_map_bytes(mproc_pool *pool, mproc_task_function *function, const mproc_bytes *inputs,
                         uint64_t count, mproc_future **ret_future,
                         const mproc_submit_options *options) {
  static const mproc_bytes none;
  const mpx_map filled = {.count = count, .each = inputs ? inputs : &none};
  int r = mpx_check_not_null(ret_future, "ret_future");
  if (r == 0 && count)
    r = mpx_check_not_null(inputs, "inputs");
  if (r == 0 && !function)
    r = mpx_fail(-EINVAL, "the function is NULL");
  if (r == 0 && count > COUNT_MOST)
    r = mpx_fail(-EINVAL, "%llu inputs; one map has at most %llu", (unsigned long long)count,
                 (unsigned long long)COUNT_MOST);
  if (r < 0 || (r = mpx_pool_enter(pool)) < 0)
    return r;
  r = mpx_map_submit(pool, function, &filled, filled.each, NULL, ret_future, options);
  mpx_pool_leave(pool);
  return r;
}
