/* What does a task cost in a pool of processes, beside what else runs tasks?
 *
 * In one run, interleaved, in as many workers, or threads, as there are CPUs:
 *   map     1,000,000 calls that do nothing, and that add 1, beside OpenMP schedule(dynamic,N)
 *   uneven  tasks of exponentially distributed length, the longest first, beside OpenMP
 *   memory  256 MiB copied by tasks of 64 KiB, in place in the shared heap, beside OpenMP
 *   apply   one task there and back, beside a bare ping-pong of two processes
 *   async   tasks that do nothing, submitted one by one, beside libuv's and GLib's thread pools,
 *           CPython's Pool, joblib and loky
 *   replacement  from the SIGKILL of the only worker to the next result
 *
 * Our pool stays for the whole run; each peer gets a process of its own in each round, in which a
 * first pass warms up and touches the memory: the same buffers as ours, which our workers have
 * touched before too. Ratios are medians of those of each round; the targets are those of
 * docs/design/targets.md. BENCH_ROUNDS=N makes fewer rounds, BENCH_ONLY=NAME asks one question. */
#define _GNU_SOURCE
#include "measure.h"
#include "pool_parts.h"
#include "queue_peers.h"
#include "workers.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ROUNDS = 15, MOST_ROUNDS = 1000, MOST_CONTENDERS = 16, REST_NS = 3000000 };

static FILE *json;
static int rounds = ROUNDS;

void pool_die(const char *what) {
  (void)fprintf(stderr, "bench_pool: %s: %s\n", what, mproc_error_detail());
  exit(1);
}

void queue_die(const char *what) { /* of the bare ping-pong */
  pool_die(what);
}

int pool_workers(void) {
  static int workers;
  if (workers == 0)
    workers = mproc_cpu_count();
  return workers;
}

mproc_pool *pool_ours(void) {
  static mproc_pool *pool;
  if (!pool) {
    const mproc_pool_options options = {.workers = pool_workers()};
    pool_must(mproc_pool_create(&pool, &options), "mproc_pool_create");
  }
  return pool;
}

/* ---- a process of its own -------------------------------------------------------------------- */

typedef struct child_work {
  double (*run)(int argument);
  int argument;
  double *figure; /* shared */
} child_work;

static int run_in_child(int number, void *user) {
  const child_work *work = user;
  (void)number;
  *work->figure = work->run(work->argument);
  return 0;
}

double pool_in_child(double (*run)(int argument), int argument) {
  child_work work = {run, argument, pool_must_have(mproc_heap_calloc(1, sizeof(double)), "heap")};
  bench_run_workers(1, run_in_child, &work);
  double figure = *work.figure;
  (void)mproc_heap_free(work.figure);
  return figure;
}

/* ---- questions ------------------------------------------------------------------------------- */

static const char *missing(const pool_contender *contender) {
  return contender->missing ? contender->missing() : NULL;
}

static double median_of(const double *figures) {
  double sorted[MOST_ROUNDS];
  memcpy(sorted, figures, (size_t)rounds * sizeof *sorted);
  return bench_median(sorted, (size_t)rounds);
}

static double ratio_of(const double *first, const double *second) {
  double ratios[MOST_ROUNDS];
  for (int round = 0; round < rounds; round++)
    ratios[round] = first[round] / second[round];
  return bench_median(ratios, (size_t)rounds);
}

static void report_contender(const pool_question *q, int c, double (*figures)[MOST_ROUNDS]) {
  const pool_contender *contender = &q->contenders[c];
  char fields[160], name[96];
  const char *why = missing(contender);
  (void)snprintf(name, sizeof name, "%s: %s", q->name, contender->name);
  if (why) {
    (void)printf("  %-34s %s\n", contender->name, why);
    (void)snprintf(fields, sizeof fields, "\"missing\":\"%s\"", why);
  } else {
    double median = median_of(figures[c]), ratio = ratio_of(figures[c], figures[0]);
    (void)printf("  %-34s %12.3f %8.2fx\n", contender->name, median, ratio);
    (void)snprintf(fields, sizeof fields, "\"%s\":%.4f,\"ratio\":%.3f", q->unit, median, ratio);
  }
  bench_json(json, "pool", name, fields);
}

static void report_target(const pool_question *q, const pool_target *target,
                          double (*figures)[MOST_ROUNDS]) {
  const pool_contender *first = &q->contenders[target->first];
  const pool_contender *second = &q->contenders[target->second];
  char fields[96], name[128];
  (void)snprintf(name, sizeof name, "%s: %s / %s", target->name, first->name, second->name);
  if (missing(first) || missing(second)) {
    (void)printf("  %-64s not measured\n", name);
    return;
  }
  double ratio = ratio_of(figures[target->first], figures[target->second]);
  bool met = q->is_rate ? ratio >= target->bar : ratio <= target->bar;
  (void)printf("  %-64s %6.2fx, target %s %.2fx: %s\n", name, ratio,
               q->is_rate ? ">=" : "<=", target->bar, met ? "met" : "missed");
  (void)snprintf(fields, sizeof fields, "\"ratio\":%.3f,\"target\":%.2f,\"met\":%s", ratio,
                 target->bar, met ? "true" : "false");
  bench_json(json, "pool", name, fields);
}

void pool_ask(const pool_question *q) {
  static double figures[MOST_CONTENDERS][MOST_ROUNDS];
  int order[MOST_CONTENDERS];
  for (int c = 0; c < q->count; c++)
    order[c] = c;
  for (int round = -1; round < rounds; round++) { /* the first one warms up */
    bench_shuffle(order, q->count);
    for (int i = 0; i < q->count; i++) {
      const pool_contender *contender = &q->contenders[order[i]];
      if (missing(contender))
        continue;
      (void)nanosleep(&(struct timespec){.tv_nsec = REST_NS}, NULL); /* who spins, sleeps then */
      double figure = contender->run(contender->argument);
      if (round >= 0)
        figures[order[i]][round] = figure;
    }
  }
  (void)printf("\n%s: %s; %s, and so many times the first\n\n", q->name, q->what, q->unit);
  for (int c = 0; c < q->count; c++)
    report_contender(q, c, figures);
  for (int t = 0; t < q->target_count; t++)
    report_target(q, &q->targets[t], figures);
  (void)fflush(stdout);
}

static const struct part {
  const char *name;
  void (*measure)(void);
} parts[] = {{"map", pool_measure_map},       {"uneven", pool_measure_uneven},
             {"memory", pool_measure_memory}, {"apply", pool_measure_apply},
             {"async", pool_measure_async},   {"replacement", pool_measure_replacement}};

int main(int argc, char **argv) {
  char machine[160];
  pool_must(mproc_init(&argc, &argv, NULL), "mproc_init");
  json = bench_open_json(argc, argv);
  const char *wish = getenv("BENCH_ROUNDS"), *only = getenv("BENCH_ONLY");
  if (wish && atoi(wish) > 0)
    rounds = atoi(wish) < MOST_ROUNDS ? atoi(wish) : MOST_ROUNDS;
  bench_machine(machine, sizeof machine);
  (void)printf("pool: %s; %d workers, medians of %d interleaved rounds\n", machine, pool_workers(),
               rounds);
  (void)fflush(stdout);
  for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
    if (!only || strcmp(only, parts[i].name) == 0)
      parts[i].measure();
  pool_must(mproc_pool_destroy(pool_ours()), "mproc_pool_destroy");
  return json && fclose(json) != 0;
}
