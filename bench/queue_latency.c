/* How long does one message take there and back? For bench_queue.
 *
 * One process puts a message of 64 bytes into a queue, another gets it and puts its number into a
 * second queue, from which the first gets it: nobody has anything else to do. The bare one is two
 * places in shared memory, looked at as often as the queue does before it sleeps. */
#define _GNU_SOURCE
#include "measure.h"
#include "queue_peers.h"
#include "workers.h"

#include <mproc/mproc.h>

enum { ROUNDS = 15, TRIPS = 1000, WARM = TRIPS / 8, PLACES = 8 };

static const queue_setup setup = {QUEUE_SMALL, PLACES, 1};
/* The first is what the others are compared with. */
static const queue_peer *const travellers[] = {
    &queue_peer_place,      &queue_ours,    &queue_peer_boost, &queue_peer_pipe,
    &queue_peer_socketpair, &queue_peer_mq, &queue_peer_zmq,   &queue_peer_python};
enum { TRAVELLERS = sizeof travellers / sizeof travellers[0] };

typedef struct trip_board { /* shared */
  atomic_int begun, ended;
  double us;         /* median */
  queue_sum sums[2]; /* what arrived there and here */
} trip_board;

typedef struct trip_round {
  const queue_peer *peer;
  void *ways[2]; /* there and back */
  trip_board *board;
} trip_round;

static void ping(const queue_peer *peer, void *out, void *in, trip_board *board) {
  unsigned char message[QUEUE_SMALL] = {0};
  double us[TRIPS];
  queue_sum sum = {0, 0, 0}; /* not on the board: the other one writes there too */
  for (uint64_t i = 0; i < WARM + TRIPS; i++) {
    const queue_work one = {sizeof message, i, 1, message};
    double before = bench_now_us();
    peer->produce(out, &one);
    peer->consume(in, &one, &sum);
    if (i >= WARM)
      us[i - WARM] = bench_now_us() - before;
  }
  board->us = bench_median(us, TRIPS);
  board->sums[1] = sum;
}

static void pong(const queue_peer *peer, void *out, void *in, trip_board *board) {
  unsigned char message[QUEUE_SMALL] = {0};
  queue_sum sum = {0, 0, 0};
  for (uint64_t i = 0; i < WARM + TRIPS; i++) {
    queue_work one = {sizeof message, 0, 1, message};
    uint64_t before = sum.heads;
    peer->consume(in, &one, &sum);
    one.first = sum.heads - before;
    peer->produce(out, &one);
  }
  board->sums[0] = sum;
}

static int travel(int number, void *user) {
  const trip_round *r = user;
  const queue_peer *peer = r->peer;
  void *out = r->ways[number], *in = r->ways[1 - number];
  if (peer->enter) {
    out = peer->enter(out, true);
    in = peer->enter(in, false);
  }
  bench_meet(&r->board->begun, 2);
  (number == 0 ? ping : pong)(peer, out, in, r->board);
  if (peer->leave) {
    bench_meet(&r->board->ended, 2);
    peer->leave(out);
    peer->leave(in);
  }
  return 0;
}

static double travel_there_and_back(const queue_peer *peer, queue_sum ret_sums[2]) {
  trip_round r = {.peer = peer, .board = mproc_heap_calloc(1, sizeof *r.board)};
  if (!r.board)
    queue_die("mproc_heap_calloc");
  for (int i = 0; i < 2; i++)
    r.ways[i] = peer->open(&setup);
  bench_run_workers(2, travel, &r);
  for (int i = 0; i < 2; i++)
    peer->close(r.ways[i]);
  double us = r.board->us;
  memcpy(ret_sums, r.board->sums, sizeof r.board->sums);
  (void)mproc_heap_free(r.board);
  return us;
}

static double time_trip(const queue_peer *peer) {
  queue_sum sums[2];
  double us = peer->program ? peer->program->trip(&setup, WARM, TRIPS, sums)
                            : travel_there_and_back(peer, sums);
  for (int i = 0; i < 2; i++)
    queue_compare(peer, &sums[i], WARM + TRIPS);
  return us;
}

static void report(FILE *json, const queue_peer *peer, double *us, const double *bare_us) {
  char fields[128], name[64];
  double ratios[ROUNDS];
  (void)snprintf(name, sizeof name, "round trip: %s", peer->name);
  const char *missing = queue_refuses(peer, &setup);
  if (missing) {
    (void)printf("%-22s %s\n", peer->name, missing);
    (void)snprintf(fields, sizeof fields, "\"missing\":\"%s\"", missing);
  } else {
    for (int round = 0; round < ROUNDS; round++)
      ratios[round] = us[round] / bare_us[round];
    double ratio = bench_median(ratios, ROUNDS);
    double median = bench_median(us, ROUNDS);
    (void)printf("%-22s %8.2f %7.2fx\n", peer->name, median, ratio);
    (void)snprintf(fields, sizeof fields, "\"us\":%.3f,\"ratio\":%.3f", median, ratio);
  }
  bench_json(json, "queue", name, fields);
}

void queue_measure_latency(FILE *json) {
  static double us[TRAVELLERS][ROUNDS];
  double bare_us[ROUNDS];
  int order[TRAVELLERS];
  for (int t = 0; t < TRAVELLERS; t++)
    order[t] = t;
  for (int round = 0; round < ROUNDS; round++) {
    bench_shuffle(order, TRAVELLERS);
    for (int i = 0; i < TRAVELLERS; i++) {
      const queue_peer *peer = travellers[order[i]];
      if (!queue_refuses(peer, &setup))
        us[order[i]][round] = time_trip(peer);
    }
  }
  (void)printf("\nus of a round trip of %d bytes (medians of %d in each round), and so many times"
               " the first\n\n",
               QUEUE_SMALL, TRIPS);
  memcpy(bare_us, us[0], sizeof bare_us);
  for (int t = 0; t < TRAVELLERS; t++)
    report(json, travellers[t], us[t], bare_us);
  (void)fflush(stdout);
}
