/* How fast does the queue bring messages from process to process, beside what else does?
 *
 * In one run, interleaved: messages of 64 bytes, from 1, 2 and 4 producers to as many consumers,
 * through mproc_queue (one by one, in batches, got by begin and commit), Boost.Interprocess's
 * message_queue, a pipe, a socketpair, a POSIX mq, ZeroMQ's ipc, CPython's multiprocessing.Queue,
 * and a ring in shared memory that waits as ours does but that a death would block. Then one
 * message there and back (queue_latency.c). Then messages of 8 bytes to 1 MiB, ours copied, lying
 * in the queue itself, and as blocks without a copy.
 *
 * The processes are made for each round; before the clock runs, an eighth more messages went the
 * same way, so the memory is touched. The time is from the first one's begin to the last one's end.
 * Each message has its number at both ends: count and sums are compared. Ratios are medians of
 * those of each round; the targets are those of docs/design/targets.md. */
#define _GNU_SOURCE
#include "measure.h"
#include "queue_peers.h"
#include "workers.h"

#include <mproc/mproc.h>

#include <stdlib.h>

enum { ROUNDS = 15, CAPACITY = 1024, MOST_WORKERS = 8 };
/* Divides among all producers and consumers, in batches. */
enum { WHOLE = MOST_WORKERS / 2 * QUEUE_BATCH };

void queue_die(const char *what) {
  (void)fprintf(stderr, "bench_queue: %s: %s\n", what, mproc_error_detail());
  exit(1);
}

#ifndef BENCH_HAS_BOOST
const queue_peer queue_peer_boost = {.name = "Boost message_queue",
                                     .missing = "libboost-dev is not installed"};
#endif
#ifndef BENCH_HAS_ZMQ
const queue_peer queue_peer_zmq = {.name = "ZeroMQ ipc", .missing = "libzmq3-dev is not installed"};
#endif

const char *queue_refuses(const queue_peer *peer, const queue_setup *setup) {
  if (peer->missing)
    return peer->missing;
  if (peer->is_single && setup->pairs > 1)
    return "one producer and one consumer only";
  return peer->refuses ? peer->refuses(setup) : NULL;
}

void queue_compare(const queue_peer *peer, const queue_sum *sum, uint64_t all) {
  uint64_t numbers = all * (all - 1) / 2;
  if (sum->count == all && sum->heads == numbers && sum->tails == numbers)
    return;
  (void)fprintf(stderr, "bench_queue: %s: %llu messages were put, and others arrived: %llu\n",
                peer->name, (unsigned long long)all, (unsigned long long)sum->count);
  exit(1);
}

/* ---- one round ------------------------------------------------------------------------------- */

typedef struct report {
  double begin, end;
  queue_sum sum;
} report;

typedef struct board { /* shared */
  atomic_int begun, ended;
  report reports[MOST_WORKERS];
} board;

typedef struct round_setup {
  const queue_peer *peer;
  void *shared;
  queue_setup setup;
  uint64_t warm, count; /* of all pairs together */
  board *board;
} round_setup;

static void *memory_for(size_t size) {
  void *memory = calloc(size <= QUEUE_SMALL ? QUEUE_BATCH : 1, size);
  if (!memory)
    queue_die("calloc");
  return memory;
}

static int work(int number, void *user) {
  const round_setup *r = user;
  const queue_peer *peer = r->peer;
  uint64_t pairs = (uint64_t)r->setup.pairs, lane = (uint64_t)number / 2;
  bool is_producer = number % 2 == 0;
  report *own = &r->board->reports[number];
  void *memory = memory_for(r->setup.size);
  const queue_work warm = {r->setup.size, lane * (r->warm / pairs), r->warm / pairs, memory};
  const queue_work timed = {r->setup.size, r->warm + lane * (r->count / pairs), r->count / pairs,
                            memory};
  void *peers_own = peer->enter ? peer->enter(r->shared, is_producer) : r->shared;
  queue_sum sum = {0, 0, 0};
  if (is_producer)
    peer->produce(peers_own, &warm);
  else
    peer->consume(peers_own, &warm, &sum);
  bench_meet(&r->board->begun, 2 * r->setup.pairs);
  own->begin = bench_now_us();
  if (is_producer)
    peer->produce(peers_own, &timed);
  else
    peer->consume(peers_own, &timed, &sum);
  own->end = bench_now_us();
  own->sum = sum;
  if (peer->leave) {
    bench_meet(&r->board->ended, 2 * r->setup.pairs);
    peer->leave(peers_own);
  }
  free(memory);
  return 0;
}

/* Messages per us. */
static double run_workers(round_setup *r, queue_sum *ret_sum) {
  int workers = 2 * r->setup.pairs;
  r->board = mproc_heap_calloc(1, sizeof *r->board);
  if (!r->board)
    queue_die("mproc_heap_calloc");
  r->shared = r->peer->open(&r->setup);
  bench_run_workers(workers, work, r);
  double begin = r->board->reports[0].begin, end = r->board->reports[0].end;
  for (int i = 0; i < workers; i++) {
    const report *one = &r->board->reports[i];
    begin = one->begin < begin ? one->begin : begin;
    end = one->end > end ? one->end : end;
    ret_sum->count += one->sum.count;
    ret_sum->heads += one->sum.heads;
    ret_sum->tails += one->sum.tails;
  }
  r->peer->close(r->shared);
  (void)mproc_heap_free(r->board);
  return (double)r->count / (end - begin);
}

static double run(const queue_peer *peer, queue_setup setup, uint64_t count) {
  round_setup r = {.peer = peer, .setup = setup, .count = count};
  queue_sum sum = {0, 0, 0};
  r.warm = (count / 8 + WHOLE - 1) / WHOLE * WHOLE;
  double rate =
      peer->program ? peer->program->rate(&setup, r.warm, count, &sum) : run_workers(&r, &sum);
  queue_compare(peer, &sum, r.warm + count);
  return rate;
}

/* ---- short messages -------------------------------------------------------------------------- */

/* `batches`: how many times WHOLE messages, so that a round takes some ten milliseconds. */
static const struct contender {
  const queue_peer *peer;
  uint64_t batches;
} contenders[] = {{&queue_ours, 3000},      {&queue_ours_many, 6000}, {&queue_ours_commit, 3000},
                  {&queue_peer_boost, 800}, {&queue_peer_pipe, 300},  {&queue_peer_socketpair, 300},
                  {&queue_peer_mq, 100},    {&queue_peer_ring, 3000}, {&queue_peer_zmq, 800},
                  {&queue_peer_python, 50}};
enum { CONTENDERS = sizeof contenders / sizeof contenders[0], CROWDS = 3 };
static const int crowds[CROWDS] = {1, 2, 4};

static double rates[CROWDS][CONTENDERS][ROUNDS];

static const char *refuses(int contender, int crowd) {
  return queue_refuses(contenders[contender].peer,
                       &(queue_setup){QUEUE_SMALL, CAPACITY, crowds[crowd]});
}

static void measure_short(void) {
  int order[CONTENDERS];
  for (int c = 0; c < CONTENDERS; c++)
    order[c] = c;
  for (int crowd = 0; crowd < CROWDS; crowd++)
    for (int round = 0; round < ROUNDS; round++) {
      bench_shuffle(order, CONTENDERS);
      for (int i = 0; i < CONTENDERS; i++) {
        int c = order[i];
        if (!refuses(c, crowd))
          rates[crowd][c][round] =
              run(contenders[c].peer, (queue_setup){QUEUE_SMALL, CAPACITY, crowds[crowd]},
                  contenders[c].batches * WHOLE);
      }
    }
}

static double rate_of(int crowd, int contender) {
  double sorted[ROUNDS];
  memcpy(sorted, rates[crowd][contender], sizeof sorted);
  return bench_median(sorted, ROUNDS);
}

static void report_short(FILE *json) {
  char fields[256];
  (void)printf("M messages/s of %d bytes, %d places\n\n%-22s %8s %8s %8s\n", QUEUE_SMALL, CAPACITY,
               "producers/consumers", "1/1", "2/2", "4/4");
  for (int c = 0; c < CONTENDERS; c++) {
    const queue_peer *peer = contenders[c].peer;
    const char *missing = refuses(c, 0);
    if (missing) {
      (void)printf("%-22s %s\n", peer->name, missing);
      (void)snprintf(fields, sizeof fields, "\"missing\":\"%s\"", missing);
      bench_json(json, "queue", peer->name, fields);
      continue;
    }
    (void)printf("%-22s", peer->name);
    size_t length = 0;
    for (int crowd = 0; crowd < CROWDS; crowd++) {
      if (refuses(c, crowd)) {
        (void)printf(" %8s", "-");
        continue;
      }
      (void)printf(" %8.2f", rate_of(crowd, c));
      length +=
          (size_t)snprintf(fields + length, sizeof fields - length, "%s\"messages_per_us_%d\":%.3f",
                           length ? "," : "", crowds[crowd], rate_of(crowd, c));
    }
    (void)printf("\n");
    bench_json(json, "queue", peer->name, fields);
  }
}

static int index_of(const queue_peer *peer) {
  int c = 0;
  while (contenders[c].peer != peer)
    c++;
  return c;
}

static void report_target(FILE *json, const char *target, const queue_peer *a, const queue_peer *b,
                          int crowd, double bar) {
  char fields[128], name[96];
  double ratios[ROUNDS];
  int x = index_of(a), y = index_of(b);
  (void)snprintf(name, sizeof name, "%s: %s / %s, %d/%d", target, a->name, b->name, crowds[crowd],
                 crowds[crowd]);
  if (refuses(x, crowd) || refuses(y, crowd)) {
    (void)printf("%-56s not measured\n", name);
    return;
  }
  for (int round = 0; round < ROUNDS; round++)
    ratios[round] = rates[crowd][x][round] / rates[crowd][y][round];
  double ratio = bench_median(ratios, ROUNDS);
  (void)printf("%-56s %6.2fx, target %4.1fx: %s\n", name, ratio, bar,
               ratio >= bar ? "met" : "missed");
  (void)snprintf(fields, sizeof fields, "\"ratio\":%.3f,\"target\":%.1f,\"met\":%s", ratio, bar,
                 ratio >= bar ? "true" : "false");
  bench_json(json, "queue", name, fields);
}

static void report_targets(FILE *json) {
  (void)printf("\n");
  report_target(json, "T13", &queue_ours, &queue_peer_boost, 0, 4);
  report_target(json, "T14", &queue_ours, &queue_peer_boost, 1, 2.5);
  report_target(json, "T15", &queue_ours_many, &queue_peer_boost, 0, 10);
  report_target(json, "T16", &queue_ours, &queue_peer_pipe, 0, 8);
  report_target(json, "T16", &queue_ours, &queue_peer_mq, 0, 20);
  report_target(json, "T17", &queue_ours, &queue_peer_ring, 0, 0.6);
  report_target(json, "T17", &queue_ours, &queue_peer_ring, 1, 0.6);
}

/* ---- messages of all sizes ------------------------------------------------------------------- */

/* As many places as hold 64 KiB, which is what a pipe holds, but 4 to 1,024. */
static const struct sort {
  size_t size, capacity;
  uint64_t batches; /* of WHOLE messages, for ours */
} sorts[] = {{8, 1024, 1600}, {64, 1024, 1600}, {1024, 64, 800}, {65536, 4, 32}, {1 << 20, 4, 2}};
/* The first is what the others are compared with. */
static const struct carrier {
  const queue_peer *peer;
  uint64_t slower; /* so many times fewer messages, so that its rounds do not take that longer */
} carriers[] = {{&queue_ours, 1},       {&queue_ours_inside, 1}, {&queue_ours_block, 1},
                {&queue_peer_boost, 2}, {&queue_peer_pipe, 8},   {&queue_peer_socketpair, 8},
                {&queue_peer_mq, 16},   {&queue_peer_zmq, 4},    {&queue_peer_python, 64}};
enum { SORTS = sizeof sorts / sizeof sorts[0], CARRIERS = sizeof carriers / sizeof carriers[0] };
enum { SORTS_OF_CROWDS = SORTS - 1 }; /* the longest from 1 to 1 only */

static double times[CARRIERS][SORTS][ROUNDS]; /* us per message */
static const char *refusals[CARRIERS][SORTS]; /* NULL: it was measured */

static void measure_sort(int s, int pairs) {
  int order[CARRIERS];
  const queue_setup setup = {sorts[s].size, sorts[s].capacity, pairs};
  for (int c = 0; c < CARRIERS; c++) {
    order[c] = c;
    refusals[c][s] = queue_refuses(carriers[c].peer, &setup);
  }
  for (int round = 0; round < ROUNDS; round++) {
    bench_shuffle(order, CARRIERS);
    for (int i = 0; i < CARRIERS; i++) {
      int c = order[i];
      uint64_t batches = sorts[s].batches / carriers[c].slower;
      if (!refusals[c][s])
        times[c][s][round] = 1 / run(carriers[c].peer, setup, (batches ? batches : 1) * WHOLE);
    }
  }
}

static void report_cell(FILE *json, int c, int s, int pairs) {
  char fields[160], name[96];
  double ratios[ROUNDS], sorted[ROUNDS];
  (void)snprintf(name, sizeof name, "%zu bytes, %d/%d: %s", sorts[s].size, pairs, pairs,
                 carriers[c].peer->name);
  if (refusals[c][s]) {
    (void)printf(" %16s", "-");
    (void)snprintf(fields, sizeof fields, "\"missing\":\"%s\"", refusals[c][s]);
  } else {
    for (int round = 0; round < ROUNDS; round++)
      ratios[round] = times[c][s][round] / times[0][s][round];
    memcpy(sorted, times[c][s], sizeof sorted);
    double us = bench_median(sorted, ROUNDS), ratio = bench_median(ratios, ROUNDS);
    (void)printf(" %8.3f %6.2fx", us, ratio);
    (void)snprintf(fields, sizeof fields,
                   "\"us_per_message\":%.4f,\"mb_per_s\":%.1f,\"ratio\":%.3f", us,
                   (double)sorts[s].size / us, ratio);
  }
  bench_json(json, "queue", name, fields);
}

static void measure_sizes(FILE *json, int pairs) {
  int count = pairs == 1 ? SORTS : SORTS_OF_CROWDS;
  (void)printf("\nus per message, %d/%d, and so many times what %s takes\n\n%-20s", pairs, pairs,
               carriers[0].peer->name, "bytes");
  for (int s = 0; s < count; s++) {
    (void)printf(" %16zu", sorts[s].size);
    measure_sort(s, pairs);
  }
  (void)printf("\n");
  for (int c = 0; c < CARRIERS; c++) {
    (void)printf("%-20s", carriers[c].peer->name);
    for (int s = 0; s < count; s++)
      report_cell(json, c, s, pairs);
    (void)printf("\n");
  }
  for (int c = 0; c < CARRIERS; c++)
    for (int s = 0; s < count; s++)
      if (refusals[c][s] && (s == 0 || refusals[c][s] != refusals[c][s - 1]))
        (void)printf("%s, from %zu bytes on: %s\n", carriers[c].peer->name, sorts[s].size,
                     refusals[c][s]);
  (void)fflush(stdout);
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    queue_die("mproc_init");
  FILE *json = bench_open_json(argc, argv);
  char machine[160];
  bench_machine(machine, sizeof machine);
  (void)printf("queue: %s; medians of %d interleaved rounds\n", machine, ROUNDS);
  (void)fflush(stdout);
  measure_short();
  report_short(json);
  report_targets(json);
  (void)fflush(stdout);
  queue_measure_latency(json);
  measure_sizes(json, 1);
  measure_sizes(json, 2);
  return json && fclose(json) != 0;
}
