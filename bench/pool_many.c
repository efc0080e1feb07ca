/* Maps, for bench_pool: tasks that do nothing, that are of very different length, that copy. */
#define _GNU_SOURCE
#include "measure.h"
#include "pool_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- map ------------------------------------------------------------------------------------- */

enum { CALLS = 1000000 };

static uint64_t *numbers, *sums; /* CALLS each, in the shared heap */

static int nothing(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  return 0;
}

static int call_nothing(void *output, const void *input, size_t size) {
  (void)output, (void)input, (void)size;
  return 0;
}

static int add_one(mproc_task *task, const void *input, size_t size) {
  (void)size;
  *(uint64_t *)mproc_task_output(task) = *(const uint64_t *)input + 1;
  return 0;
}

static int call_add_one(void *output, const void *input, size_t size) {
  (void)size;
  *(uint64_t *)output = *(const uint64_t *)input + 1;
  return 0;
}

/* ns per call. */
static double map_nothing(int group) {
  const mproc_submit_options options = {.group = (size_t)group};
  double before = bench_now_us();
  pool_must(
      mproc_pool_map(pool_ours(), nothing, numbers, sizeof *numbers, NULL, 0, CALLS, &options),
      "mproc_pool_map");
  return (bench_now_us() - before) * 1000 / CALLS;
}

static double map_add_one(int group) {
  const mproc_submit_options options = {.group = (size_t)group};
  memset(sums, 0, CALLS * sizeof *sums);
  double before = bench_now_us();
  pool_must(mproc_pool_map(pool_ours(), add_one, numbers, sizeof *numbers, sums, sizeof *sums,
                           CALLS, &options),
            "mproc_pool_map");
  double us = bench_now_us() - before;
  for (uint64_t i = 0; i < CALLS; i++)
    if (sums[i] != numbers[i] + 1)
      pool_die("a sum is wrong");
  return us * 1000 / CALLS;
}

static double openmp_nothing_here(int chunk) {
  return pool_openmp(call_nothing, (const char *)numbers, sizeof *numbers, (char *)sums, 0, CALLS,
                     chunk);
}

static double openmp_add_one_here(int chunk) {
  return pool_openmp(call_add_one, (const char *)numbers, sizeof *numbers, (char *)sums,
                     sizeof *sums, CALLS, chunk);
}

static double openmp_nothing(int chunk) {
  return pool_in_child(openmp_nothing_here, chunk) * 1000 / CALLS;
}

static double openmp_add_one(int chunk) {
  return pool_in_child(openmp_add_one_here, chunk) * 1000 / CALLS;
}

static const pool_contender nothings[] = {
    {"mproc, own grouping", map_nothing, 0, NULL},
    {"mproc, group 1", map_nothing, 1, NULL},
    {"mproc, group 16", map_nothing, 16, NULL},
    {"mproc, group 256", map_nothing, 256, NULL},
    {"OpenMP dynamic,1", openmp_nothing, 1, pool_openmp_missing},
    {"OpenMP dynamic,16", openmp_nothing, 16, pool_openmp_missing},
    {"OpenMP dynamic,256", openmp_nothing, 256, pool_openmp_missing}};
static const pool_target nothing_targets[] = {{"T8", 0, 4, 0.5}, {"T9", 0, 5, 1.1}};

static const pool_contender adders[] = {
    {"mproc, own grouping", map_add_one, 0, NULL},
    {"mproc, group 16", map_add_one, 16, NULL},
    {"mproc, group 256", map_add_one, 256, NULL},
    {"OpenMP dynamic,1", openmp_add_one, 1, pool_openmp_missing},
    {"OpenMP dynamic,16", openmp_add_one, 16, pool_openmp_missing},
    {"OpenMP dynamic,256", openmp_add_one, 256, pool_openmp_missing}};

void pool_measure_map(void) {
  numbers = pool_must_have(mproc_heap_calloc(CALLS, sizeof *numbers), "numbers");
  sums = pool_must_have(mproc_heap_calloc(CALLS, sizeof *sums), "sums");
  for (uint64_t i = 0; i < CALLS; i++)
    numbers[i] = i;
  pool_ask(&(pool_question){.name = "map",
                            .what = "1,000,000 calls through a pointer that do nothing",
                            .unit = "ns_per_call",
                            .contenders = nothings,
                            .count = sizeof nothings / sizeof nothings[0],
                            .targets = nothing_targets,
                            .target_count = sizeof nothing_targets / sizeof nothing_targets[0]});
  pool_ask(&(pool_question){.name = "map, add",
                            .what = "1,000,000 calls that write a number + 1",
                            .unit = "ns_per_call",
                            .contenders = adders,
                            .count = sizeof adders / sizeof adders[0]});
  (void)mproc_heap_free(numbers);
  (void)mproc_heap_free(sums);
}

/* ---- uneven ---------------------------------------------------------------------------------- */

enum { UNEVEN = 4000, MEAN_STEPS = 40000 };

static uint64_t *lengths, *ends; /* UNEVEN each, in the shared heap */

static uint64_t walk(uint64_t steps) {
  uint64_t x = steps;
  for (uint64_t i = 0; i < steps; i++)
    x = x * 6364136223846793005u + 1442695040888963407u;
  return x;
}

static int walk_task(mproc_task *task, const void *input, size_t size) {
  (void)size;
  *(uint64_t *)mproc_task_output(task) = walk(*(const uint64_t *)input);
  return 0;
}

static int call_walk(void *output, const void *input, size_t size) {
  (void)size;
  *(uint64_t *)output = walk(*(const uint64_t *)input);
  return 0;
}

static double map_uneven(int group) {
  const mproc_submit_options options = {.group = (size_t)group};
  double before = bench_now_us();
  pool_must(mproc_pool_map(pool_ours(), walk_task, lengths, sizeof *lengths, ends, sizeof *ends,
                           UNEVEN, &options),
            "mproc_pool_map");
  return (bench_now_us() - before) / 1000;
}

static double openmp_uneven_here(int chunk) {
  return pool_openmp(call_walk, (const char *)lengths, sizeof *lengths, (char *)ends, sizeof *ends,
                     UNEVEN, chunk);
}

static double openmp_uneven(int chunk) {
  return pool_in_child(openmp_uneven_here, chunk) / 1000;
}

static const pool_contender walkers[] = {
    {"mproc, own grouping", map_uneven, 0, NULL},
    {"mproc, group 1", map_uneven, 1, NULL},
    {"OpenMP dynamic,1", openmp_uneven, 1, pool_openmp_missing},
    {"OpenMP dynamic,16", openmp_uneven, 16, pool_openmp_missing}};
static const pool_target walker_targets[] = {{"T10", 0, 2, 1.05}};

void pool_measure_uneven(void) {
  lengths = pool_must_have(mproc_heap_calloc(UNEVEN, sizeof *lengths), "lengths");
  ends = pool_must_have(mproc_heap_calloc(UNEVEN, sizeof *ends), "ends");
  for (int i = 0; i < UNEVEN; i++) /* quantiles of the distribution, the longest first */
    lengths[i] = (uint64_t)(-log((i + 0.5) / UNEVEN) * MEAN_STEPS);
  pool_ask(&(pool_question){.name = "uneven",
                            .what = "4,000 tasks, exponential, the longest first",
                            .unit = "ms",
                            .contenders = walkers,
                            .count = sizeof walkers / sizeof walkers[0],
                            .targets = walker_targets,
                            .target_count = sizeof walker_targets / sizeof walker_targets[0]});
  (void)mproc_heap_free(lengths);
  (void)mproc_heap_free(ends);
}

/* ---- memory ---------------------------------------------------------------------------------- */

enum { PIECE = 65536, PIECES = 4096 };
#define WHOLE ((size_t)PIECE * PIECES)

static char *shared_in, *shared_out, *private_in, *private_out;

static int copy(mproc_task *task, const void *input, size_t size) {
  memcpy(mproc_task_output(task), input, size);
  return 0;
}

static int call_copy(void *output, const void *input, size_t size) {
  memcpy(output, input, size);
  return 0;
}

static double map_copy(char *in, char *out) {
  double before = bench_now_us();
  pool_must(mproc_pool_map(pool_ours(), copy, in, PIECE, out, PIECE, PIECES, NULL),
            "mproc_pool_map");
  double us = bench_now_us() - before;
  for (size_t i = 0; i < WHOLE; i += PIECE)
    if (out[i] != in[i])
      pool_die("a copy is wrong");
  return us / 1000;
}

static double map_shared(int argument) {
  (void)argument;
  return map_copy(shared_in, shared_out);
}

static double map_private(int argument) {
  (void)argument;
  return map_copy(private_in, private_out);
}

static double openmp_copy_here(int chunk) {
  return pool_openmp(call_copy, shared_in, PIECE, shared_out, PIECE, PIECES, chunk);
}

static double openmp_copy(int chunk) {
  return pool_in_child(openmp_copy_here, chunk) / 1000;
}

static const pool_contender copiers[] = {
    {"mproc, memory of the heap", map_shared, 0, NULL},
    {"mproc, private memory", map_private, 0, NULL},
    {"OpenMP dynamic,1, the heap's", openmp_copy, 1, pool_openmp_missing}};

void pool_measure_memory(void) {
  shared_in = pool_must_have(mproc_heap_alloc(WHOLE), "256 MiB");
  shared_out = pool_must_have(mproc_heap_alloc(WHOLE), "256 MiB");
  private_in = pool_must_have(malloc(WHOLE), "malloc");
  private_out = pool_must_have(malloc(WHOLE), "malloc");
  for (size_t i = 0; i < WHOLE; i++)
    shared_in[i] = private_in[i] = (char)(i / PIECE + i);
  memset(shared_out, 0, WHOLE);
  memset(private_out, 0, WHOLE);
  pool_ask(&(pool_question){.name = "memory",
                            .what = "256 MiB copied by tasks of 64 KiB",
                            .unit = "ms",
                            .contenders = copiers,
                            .count = sizeof copiers / sizeof copiers[0]});
  (void)mproc_heap_free(shared_in);
  (void)mproc_heap_free(shared_out);
  free(private_in);
  free(private_out);
}
