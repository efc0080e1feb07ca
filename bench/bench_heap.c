/* What does a block of the shared heap cost beside malloc, and how much memory stands behind it?
 *
 * In one run, interleaved: glibc's malloc and mproc_heap_alloc, one thread, on the same traces.
 * Memory has been touched by earlier rounds; the first round of each case is left out. Crash
 * safety is on, as always. Two members at a time share the heap in the last case. */
#include "heap_trace.h"

#include <mproc/mproc.h>

#ifdef __GLIBC__
#include <malloc.h>
#endif
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

enum { ROUNDS = 15, LIVE = 5000, MANY = 100000, OPERATIONS = 300000 };

static void *blocks[MANY];
static FILE *json;

static void die(const char *what) {
  (void)fprintf(stderr, "bench_heap: %s: %s\n", what, mproc_error_detail());
  exit(1);
}

static void *alloc_mproc(size_t size) {
  void *block = mproc_heap_alloc(size);
  if (!block)
    die("mproc_heap_alloc");
  return block;
}

static void free_mproc(void *block) {
  if (mproc_heap_free(block) < 0)
    die("mproc_heap_free");
}

static void *alloc_owned(size_t size) {
  void *block = mproc_heap_alloc_owned(size);
  if (!block)
    die("mproc_heap_alloc_owned");
  return block;
}

static void *alloc_glibc(size_t size) {
  void *block = malloc(size);
  if (!block)
    die("malloc");
  return block;
}

static void free_glibc(void *block) {
  free(block);
}

/* ---- time ------------------------------------------------------------------------------------ */

#define MIXED(live) trace_time_mixed(blocks, live, OPERATIONS, alloc, release)
#define BATCHES(batch, size, count, touch)                                                         \
  trace_time_batches(blocks, batch, size, count, touch, alloc, release)

typedef struct heap_case {
  const char *name;
  double (*glibc)(void);
  double (*mproc)(void);
} heap_case;

#define CASE(name, expression, alloc_ours)                                                         \
  static double name##_glibc(void) {                                                               \
    trace_alloc alloc = alloc_glibc;                                                               \
    trace_free release = free_glibc;                                                               \
    return expression;                                                                             \
  }                                                                                                \
  static double name##_mproc(void) {                                                               \
    trace_alloc alloc = alloc_ours;                                                                \
    trace_free release = free_mproc;                                                               \
    return expression;                                                                             \
  }

CASE(mixed, MIXED(LIVE), alloc_mproc)
CASE(many, MIXED(MANY), alloc_mproc)
CASE(owned, MIXED(LIVE), alloc_owned)
CASE(pair, BATCHES(1, 64, OPERATIONS, 0), alloc_mproc)
CASE(batch, BATCHES(1000, 64, OPERATIONS, 0), alloc_mproc)
CASE(page, BATCHES(100, 4096, OPERATIONS / 10, 0), alloc_mproc)
CASE(megabyte, BATCHES(1, 1 << 20, 3000, 0), alloc_mproc)
CASE(large, BATCHES(1, 64 << 20, 2, 1), alloc_mproc)

static const heap_case cases[] = {
    {"mixed, 5,000 live", mixed_glibc, mixed_mproc},
    {"mixed, 100,000 live", many_glibc, many_mproc},
    {"mixed, 5,000 live, owned", owned_glibc, owned_mproc},
    {"64 B, one at a time", pair_glibc, pair_mproc},
    {"64 B, 1,000 at a time", batch_glibc, batch_mproc},
    {"4 KiB, 100 at a time", page_glibc, page_mproc},
    {"1 MiB, one at a time", megabyte_glibc, megabyte_mproc},
    {"64 MiB, every page written", large_glibc, large_mproc},
};

static void measure_time(void) {
  (void)printf("%-28s %12s %12s %8s\n", "ns for alloc + free", "malloc", "mproc", "ratio");
  for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
    bench_pair found = bench_compare(cases[c].mproc, cases[c].glibc, ROUNDS);
    (void)printf("%-28s %12.1f %12.1f %8.2f\n", cases[c].name, found.second, found.first,
                 found.ratio);
    char fields[160];
    (void)snprintf(fields, sizeof fields, "\"malloc_ns\":%.1f,\"mproc_ns\":%.1f,\"ratio\":%.3f",
                   found.second, found.first, found.ratio);
    bench_json(json, "heap", cases[c].name, fields);
  }
}

/* ---- memory ---------------------------------------------------------------------------------- */

static double committed(void) {
  mproc_heap_statistics s;
  if (mproc_heap_stats(&s) < 0)
    die("mproc_heap_stats");
  return (double)s.committed_bytes;
}

/* What glibc holds of the system: the heap and what it mapped, less what it held before. */
static double held_by_glibc(void) {
#ifdef __GLIBC__
  struct mallinfo2 info = mallinfo2();
  return (double)(info.arena + info.hblkhd);
#else
  return 0; /* nobody tells */
#endif
}

static void report_memory(const char *name, double glibc, double mproc, double live) {
  (void)printf("%-28s %12.2f %12.2f\n", name, glibc / live, mproc / live);
  char fields[160];
  (void)snprintf(fields, sizeof fields, "\"malloc_of_live\":%.3f,\"mproc_of_live\":%.3f",
                 glibc / live, mproc / live);
  bench_json(json, "heap", name, fields);
}

/* Bytes held for each live byte at three moments: full, half of the blocks gone, refilled. */
TRACE_INLINE void hold(size_t live, double held[3], double bytes[3], double (*look)(void),
                       trace_alloc alloc, trace_free release) {
  uint64_t state = 362436069u;
  double before = look();
  size_t *sizes = calloc(live, sizeof *sizes);
  for (size_t round = 0; round < 20; round++)
    for (size_t i = 0; i < live; i++) {
      uint64_t random = trace_random(&state);
      size_t k = round == 0 ? i : (size_t)((random >> 32) % live);
      if (round != 0)
        release(blocks[k]);
      sizes[k] = trace_size(random);
      blocks[k] = alloc(sizes[k]);
    }
  bytes[0] = bytes[1] = bytes[2] = 0;
  for (size_t i = 0; i < live; i++)
    bytes[0] += (double)sizes[i];
  held[0] = look() - before;
  for (size_t i = 0; i < live / 2; i++)
    release(blocks[i]);
  for (size_t i = live / 2; i < live; i++)
    bytes[1] += (double)sizes[i];
  held[1] = look() - before;
  for (size_t i = 0; i < live / 2; i++)
    blocks[i] = alloc(sizes[i]);
  bytes[2] = bytes[0];
  held[2] = look() - before;
  trace_drain(blocks, live, release);
  free(sizes);
}

static void measure_memory(void) {
  double glibc[3], mproc[3], bytes[3];
  hold(MANY, glibc, bytes, held_by_glibc, alloc_glibc, free_glibc);
  hold(MANY, mproc, bytes, committed, alloc_mproc, free_mproc);
  (void)printf("\n%-28s %12s %12s\n", "bytes held per live byte", "malloc", "mproc");
  report_memory("100,000 live, after churn", glibc[0], mproc[0], bytes[0]);
  report_memory("a random half freed", glibc[1], mproc[1], bytes[1]);
  report_memory("and allocated again", glibc[2], mproc[2], bytes[2]);
  (void)printf("%-28s %12.1f %12.1f  MB\n\n", "all freed, still held", held_by_glibc() / 1e6,
               committed() / 1e6);
}

/* ---- two members at a time ------------------------------------------------------------------- */

typedef struct duel {
  atomic_int ready;
  double ns;          /* of the child */
  void *_Atomic lane; /* a block on its way from the parent to the child */
} duel;

static void meet(duel *d, int parties) {
  atomic_fetch_add(&d->ready, 1);
  while (atomic_load(&d->ready) < parties)
    ;
}

static int mix_in_child(void *argument, size_t size) {
  duel *d = *(duel **)argument;
  (void)size;
  meet(d, 2);
  d->ns = mixed_mproc();
  return 0;
}

/* The child frees what the parent allocates. */
static int free_in_child(void *argument, size_t size) {
  duel *d = *(duel **)argument;
  (void)size;
  meet(d, 2);
  for (int i = 0; i < OPERATIONS; i++) {
    void *block;
    while (!(block = atomic_exchange_explicit(&d->lane, NULL, memory_order_acquire)))
      ;
    free_mproc(block);
  }
  return 0;
}

static double hand_over(duel *d) {
  double before = bench_now_us();
  for (int i = 0; i < OPERATIONS; i++) {
    void *block = alloc_mproc(64), *nothing = NULL;
    while (!atomic_compare_exchange_weak_explicit(&d->lane, &nothing, block, memory_order_release,
                                                  memory_order_relaxed))
      nothing = NULL;
  }
  return (bench_now_us() - before) * 1000 / OPERATIONS;
}

static void measure_two(void) {
  double alone[ROUNDS], together[ROUNDS], handed[ROUNDS];
  duel *d = alloc_mproc(sizeof *d);
  for (int round = 0; round < ROUNDS; round++) {
    alone[round] = mixed_mproc();
    for (int crossed = 0; crossed < 2; crossed++) {
      *d = (duel){.ns = 0};
      mproc_process *child;
      mproc_process_options options = {.method = "fork"};
      if (mproc_process_create(&child, crossed ? free_in_child : mix_in_child, &d, sizeof d,
                               &options) < 0 ||
          mproc_process_start(child) < 0)
        die("mproc_process_start");
      meet(d, 2);
      double ns = crossed ? hand_over(d) : mixed_mproc();
      if (mproc_process_join(child, MPROC_FOREVER) < 0 || mproc_process_close(child) < 0)
        die("mproc_process_join");
      if (crossed)
        handed[round] = ns;
      else
        together[round] = (ns + d->ns) / 2;
    }
  }
  double one = bench_median(alone, ROUNDS), two = bench_median(together, ROUNDS);
  double cross = bench_median(handed, ROUNDS);
  (void)printf("\nmixed, alone %.1f ns; two members at once %.1f ns each (%.2fx)\n", one, two,
               two / one);
  (void)printf("64 B from one member to another that frees it: %.1f ns\n", cross);
  char fields[160];
  (void)snprintf(fields, sizeof fields, "\"alone_ns\":%.1f,\"two_ns\":%.1f,\"handed_ns\":%.1f", one,
                 two, cross);
  bench_json(json, "heap", "two members", fields);
  free_mproc(d);
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    die("mproc_init");
  json = bench_open_json(argc, argv);
  char machine[160];
  bench_machine(machine, sizeof machine);
  (void)printf("heap: %s; medians of %d interleaved rounds\n", machine, ROUNDS);
  measure_memory();
  measure_time();
  measure_two();
  return json && fclose(json) != 0;
}
