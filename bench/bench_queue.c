/* How many messages a second does the queue bring from process to process, beside what else does?
 *
 * In one run, interleaved: messages of 64 bytes, from 1, 2 and 4 producers to as many consumers,
 * through mproc_queue (one by one, in batches, got by begin and commit), Boost.Interprocess's
 * message_queue, a pipe, a POSIX mq, ZeroMQ's ipc, and a ring in shared memory that waits as ours
 * does but that a death would block. Then messages of 64 bytes to 1 MiB, copied, lying in the queue
 * itself, as blocks without a copy, and through a pipe.
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

enum { ROUNDS = 15, CAPACITY = 1024, SMALL = 64, MOST_WORKERS = 8 };
/* Divides among all producers and consumers, in batches. */
enum { WHOLE = MOST_WORKERS / 2 * QUEUE_BATCH };

void queue_die(const char *what) {
  (void)fprintf(stderr, "bench_queue: %s: %s\n", what, mproc_error_detail());
  exit(1);
}

/* ---- ours ------------------------------------------------------------------------------------ */

static void *create_queue(const mproc_queue_options *options) {
  mproc_queue *queue;
  if (mproc_queue_create(options, &queue) < 0)
    queue_die("mproc_queue_create");
  return queue;
}

static void *open_ours(const queue_setup *setup) {
  return create_queue(&(mproc_queue_options){.capacity = setup->capacity});
}

static void *open_inside(const queue_setup *setup) {
  return create_queue(
      &(mproc_queue_options){.capacity = setup->capacity, .message_size = setup->size});
}

static void put(void *queue, const queue_work *work) {
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    if (mproc_queue_put(queue, work->memory, work->size, MPROC_FOREVER) < 0)
      queue_die("mproc_queue_put");
  }
}

static void get(void *queue, const queue_work *work, queue_sum *sum) {
  for (uint64_t i = 0; i < work->count; i++) {
    size_t size;
    if (mproc_queue_get(queue, work->memory, work->size, &size, MPROC_FOREVER) < 0)
      queue_die("mproc_queue_get");
    queue_read(work->memory, size, sum);
  }
}

static int batch_of(uint64_t left) {
  return left < QUEUE_BATCH ? (int)left : QUEUE_BATCH;
}

static void put_many(void *queue, const queue_work *work) {
  for (uint64_t done = 0; done < work->count;) {
    int batch = batch_of(work->count - done);
    for (int i = 0; i < batch; i++)
      queue_write(work->memory + (size_t)i * work->size, work->size,
                  work->first + done + (uint64_t)i);
    if (mproc_queue_put_many(queue, work->memory, work->size, batch, MPROC_FOREVER) != batch)
      queue_die("mproc_queue_put_many");
    done += (uint64_t)batch;
  }
}

static void get_many(void *queue, const queue_work *work, queue_sum *sum) {
  for (uint64_t done = 0; done < work->count;) {
    int got = mproc_queue_get_many(queue, work->memory, work->size, batch_of(work->count - done),
                                   MPROC_FOREVER);
    if (got < 0)
      queue_die("mproc_queue_get_many");
    for (int i = 0; i < got; i++)
      queue_read(work->memory + (size_t)i * work->size, work->size, sum);
    done += (uint64_t)got;
  }
}

static void begin_and_commit(void *queue, const queue_work *work, queue_sum *sum) {
  for (uint64_t i = 0; i < work->count; i++) {
    mproc_message message;
    if (mproc_queue_get_begin(queue, &message, MPROC_FOREVER) < 0)
      queue_die("mproc_queue_get_begin");
    queue_read(message.data, message.size, sum);
    if (mproc_queue_get_commit(queue, &message) < 0)
      queue_die("mproc_queue_get_commit");
  }
}

/* Only the numbers are written: who makes a message in a block writes it once in any case. */
static void put_blocks(void *queue, const queue_work *work) {
  for (uint64_t i = 0; i < work->count; i++) {
    void *block = mproc_heap_alloc(work->size);
    if (!block)
      queue_die("mproc_heap_alloc");
    queue_write(block, work->size, work->first + i);
    if (mproc_queue_put_block(queue, block, work->size, MPROC_FOREVER) < 0)
      queue_die("mproc_queue_put_block");
  }
}

static void get_blocks(void *queue, const queue_work *work, queue_sum *sum) {
  for (uint64_t i = 0; i < work->count; i++) {
    void *block;
    size_t size;
    if (mproc_queue_get_block(queue, &block, &size, MPROC_FOREVER) < 0)
      queue_die("mproc_queue_get_block");
    queue_read(block, size, sum);
    if (mproc_heap_free(block) < 0)
      queue_die("mproc_heap_free");
  }
}

static void close_ours(void *queue) {
  if (mproc_queue_destroy(queue) < 0)
    queue_die("mproc_queue_destroy");
}

static const queue_peer ours = {
    .name = "mproc", .open = open_ours, .produce = put, .consume = get, .close = close_ours};
static const queue_peer ours_inside = {.name = "mproc, inside",
                                       .open = open_inside,
                                       .produce = put,
                                       .consume = get,
                                       .close = close_ours};
static const queue_peer ours_many = {.name = "mproc, many",
                                     .open = open_ours,
                                     .produce = put_many,
                                     .consume = get_many,
                                     .close = close_ours};
static const queue_peer ours_commit = {.name = "mproc, commit",
                                       .open = open_ours,
                                       .produce = put,
                                       .consume = begin_and_commit,
                                       .close = close_ours};
static const queue_peer ours_block = {.name = "mproc, block",
                                      .open = open_ours,
                                      .produce = put_blocks,
                                      .consume = get_blocks,
                                      .close = close_ours};

#ifndef BENCH_HAS_BOOST
const queue_peer queue_peer_boost = {.name = "Boost message_queue",
                                     .missing = "libboost-dev is not installed"};
#endif
#ifndef BENCH_HAS_ZMQ
const queue_peer queue_peer_zmq = {.name = "ZeroMQ ipc", .missing = "libzmq3-dev is not installed"};
#endif

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
  int pairs;
  uint64_t warm, count; /* of all pairs together */
  board *board;
} round_setup;

static void *memory_for(size_t size) {
  void *memory = calloc(size == SMALL ? QUEUE_BATCH : 1, size);
  if (!memory)
    queue_die("calloc");
  return memory;
}

static int work(int number, void *user) {
  const round_setup *r = user;
  const queue_peer *peer = r->peer;
  uint64_t pairs = (uint64_t)r->pairs, lane = (uint64_t)number / 2;
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
  bench_meet(&r->board->begun, 2 * r->pairs);
  own->begin = bench_now_us();
  if (is_producer)
    peer->produce(peers_own, &timed);
  else
    peer->consume(peers_own, &timed, &sum);
  own->end = bench_now_us();
  own->sum = sum;
  if (peer->leave) {
    bench_meet(&r->board->ended, 2 * r->pairs);
    peer->leave(peers_own);
  }
  free(memory);
  return 0;
}

static void compare(const round_setup *r) {
  uint64_t all = r->warm + r->count, numbers = all * (all - 1) / 2;
  queue_sum sum = {0, 0, 0};
  for (int i = 0; i < 2 * r->pairs; i++) {
    sum.count += r->board->reports[i].sum.count;
    sum.heads += r->board->reports[i].sum.heads;
    sum.tails += r->board->reports[i].sum.tails;
  }
  if (sum.count == all && sum.heads == numbers && sum.tails == numbers)
    return;
  (void)fprintf(stderr, "bench_queue: %s: %llu messages were put, and others arrived: %llu\n",
                r->peer->name, (unsigned long long)all, (unsigned long long)sum.count);
  exit(1);
}

/* Messages per us. */
static double run(const queue_peer *peer, queue_setup setup, int pairs, uint64_t count) {
  round_setup r = {.peer = peer, .setup = setup, .pairs = pairs, .count = count};
  r.warm = (count / 8 + WHOLE - 1) / WHOLE * WHOLE;
  r.board = mproc_heap_calloc(1, sizeof *r.board);
  if (!r.board)
    queue_die("mproc_heap_calloc");
  r.shared = peer->open(&setup);
  bench_run_workers(2 * pairs, work, &r);
  compare(&r);
  double begin = r.board->reports[0].begin, end = r.board->reports[0].end;
  for (int i = 1; i < 2 * pairs; i++) {
    begin = r.board->reports[i].begin < begin ? r.board->reports[i].begin : begin;
    end = r.board->reports[i].end > end ? r.board->reports[i].end : end;
  }
  peer->close(r.shared);
  (void)mproc_heap_free(r.board);
  return (double)count / (end - begin);
}

/* ---- short messages -------------------------------------------------------------------------- */

/* `batches`: how many times WHOLE messages, so that a round takes some ten milliseconds. */
static const struct contender {
  const queue_peer *peer;
  uint64_t batches;
} contenders[] = {{&ours, 3000},
                  {&ours_many, 6000},
                  {&ours_commit, 3000},
                  {&queue_peer_boost, 800},
                  {&queue_peer_pipe, 300},
                  {&queue_peer_mq, 100},
                  {&queue_peer_ring, 3000},
                  {&queue_peer_zmq, 800}};
enum { CONTENDERS = sizeof contenders / sizeof contenders[0], CROWDS = 3 };
static const int crowds[CROWDS] = {1, 2, 4};

static double rates[CROWDS][CONTENDERS][ROUNDS];

static bool takes_part(int contender, int crowd) {
  const queue_peer *peer = contenders[contender].peer;
  return !peer->missing && (crowds[crowd] == 1 || !peer->is_single);
}

static void measure_short(void) {
  const queue_setup setup = {SMALL, CAPACITY};
  for (int crowd = 0; crowd < CROWDS; crowd++)
    for (int round = 0; round < ROUNDS; round++)
      for (int i = 0; i < CONTENDERS; i++) {
        int c = (i + round) % CONTENDERS; /* nobody always comes after the same neighbour */
        if (takes_part(c, crowd))
          rates[crowd][c][round] =
              run(contenders[c].peer, setup, crowds[crowd], contenders[c].batches * WHOLE);
      }
}

static double rate_of(int crowd, int contender) {
  double sorted[ROUNDS];
  memcpy(sorted, rates[crowd][contender], sizeof sorted);
  return bench_median(sorted, ROUNDS);
}

static void report_short(FILE *json) {
  char fields[256];
  (void)printf("M messages/s of %d bytes, %d places\n\n%-22s %8s %8s %8s\n", SMALL, CAPACITY,
               "producers/consumers", "1/1", "2/2", "4/4");
  for (int c = 0; c < CONTENDERS; c++) {
    const queue_peer *peer = contenders[c].peer;
    if (peer->missing) {
      (void)printf("%-22s %s\n", peer->name, peer->missing);
      (void)snprintf(fields, sizeof fields, "\"missing\":\"%s\"", peer->missing);
      bench_json(json, "queue", peer->name, fields);
      continue;
    }
    (void)printf("%-22s", peer->name);
    size_t length = 0;
    for (int crowd = 0; crowd < CROWDS; crowd++) {
      if (!takes_part(c, crowd)) {
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
  if (a->missing || b->missing) {
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
  report_target(json, "T13", &ours, &queue_peer_boost, 0, 4);
  report_target(json, "T14", &ours, &queue_peer_boost, 1, 2.5);
  report_target(json, "T15", &ours_many, &queue_peer_boost, 0, 10);
  report_target(json, "T16", &ours, &queue_peer_pipe, 0, 8);
  report_target(json, "T16", &ours, &queue_peer_mq, 0, 20);
  report_target(json, "T17", &ours, &queue_peer_ring, 0, 0.6);
  report_target(json, "T17", &ours, &queue_peer_ring, 1, 0.6);
}

/* ---- messages of all sizes ------------------------------------------------------------------- */

/* As many places as hold 64 KiB, which is what a pipe holds, but at least 4. */
static const struct sort {
  size_t size, capacity;
  uint64_t count;
} sorts[] = {{64, 1024, 200000}, {1024, 64, 100000}, {65536, 4, 4000}, {1 << 20, 4, 200}};
static const queue_peer *const carriers[] = {&ours, &ours_inside, &ours_block, &queue_peer_pipe};
enum { SORTS = sizeof sorts / sizeof sorts[0], CARRIERS = sizeof carriers / sizeof carriers[0] };

static bool carries(int carrier, int sort) {
  return carriers[carrier] != &ours_inside || sorts[sort].size <= 65536;
}

static void measure_sizes(FILE *json) {
  char fields[160], name[64];
  (void)printf("\nus per message, 1/1\n\n%-12s", "bytes");
  for (int c = 0; c < CARRIERS; c++)
    (void)printf(" %14s", carriers[c]->name);
  (void)printf("\n");
  for (int s = 0; s < SORTS; s++) {
    double times[CARRIERS][ROUNDS];
    const queue_setup setup = {sorts[s].size, sorts[s].capacity};
    for (int round = 0; round < ROUNDS; round++)
      for (int i = 0; i < CARRIERS; i++) {
        int c = (i + round) % CARRIERS;
        times[c][round] = carries(c, s) ? 1 / run(carriers[c], setup, 1, sorts[s].count) : 0;
      }
    (void)printf("%-12zu", sorts[s].size);
    for (int c = 0; c < CARRIERS; c++) {
      double us = bench_median(times[c], ROUNDS);
      if (us > 0)
        (void)printf(" %14.3f", us);
      else
        (void)printf(" %14s", "-");
      (void)snprintf(name, sizeof name, "%zu bytes: %s", sorts[s].size, carriers[c]->name);
      (void)snprintf(fields, sizeof fields, "\"us_per_message\":%.4f,\"mb_per_s\":%.1f", us,
                     us > 0 ? (double)sorts[s].size / us : 0);
      if (us > 0)
        bench_json(json, "queue", name, fields);
    }
    (void)printf("\n");
  }
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
  measure_sizes(json);
  return json && fclose(json) != 0;
}
