/* What the parts of bench_pool share: questions, who answers them, and how they are put. */
#ifndef BENCH_POOL_PARTS_H
#define BENCH_POOL_PARTS_H

#include <mproc/mproc.h>

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* One that takes part: `run` does a round and returns its figure. */
typedef struct pool_contender {
  const char *name;
  double (*run)(int argument);
  int argument;
  const char *(*missing)(void); /* why it does not take part; NULL, or returns NULL: it does */
} pool_contender;

/* The first one's figure is to be at most `bar` times the second's; of rates, at least. */
typedef struct pool_target {
  const char *name;
  int first, second; /* contenders */
  double bar;
} pool_target;

typedef struct pool_question {
  const char *name, *what, *unit;
  bool is_rate;
  const pool_contender *contenders;
  int count;
  const pool_target *targets;
  int target_count;
} pool_question;

/* Interleaved rounds, in a new order each; prints medians, ratios to the first, and targets. */
void pool_ask(const pool_question *question);

/* A pool of as many workers as there are CPUs, made at the first call: it stays. */
mproc_pool *pool_ours(void);
int pool_workers(void);

/* Runs it in a process of its own, which has no thread yet, and returns what it returned. */
double pool_in_child(double (*run)(int argument), int argument);

/* Ends the program. */
void pool_die(const char *what);

static inline void pool_must(int result, const char *what) {
  if (result < 0)
    pool_die(what);
}

static inline void *pool_must_have(void *memory, const char *what) {
  if (!memory)
    pool_die(what);
  return memory;
}

/* ---- the parts ------------------------------------------------------------------------------- */

void pool_measure_map(void);
void pool_measure_uneven(void);
void pool_measure_memory(void);
void pool_measure_apply(void);
void pool_measure_async(void);
void pool_measure_replacement(void);

/* A call for each of `count` inputs, in as many threads as there are CPUs; us of a second pass. */
typedef int pool_call(void *output, const void *input, size_t size);
double pool_openmp(pool_call *call, const char *inputs, size_t input_size, char *outputs,
                   size_t output_size, int64_t count, int chunk);
const char *pool_openmp_missing(void);

/* M tasks per second. */
double pool_libuv(int tasks);
const char *pool_libuv_missing(void);
double pool_glib(int tasks);
const char *pool_glib_missing(void);
double pool_python_async(int tasks);
double pool_python_map(int tasks);
const char *pool_python_missing(void);
double pool_joblib(int tasks);
const char *pool_joblib_missing(void);
double pool_loky(int tasks);
const char *pool_loky_missing(void);

#endif
