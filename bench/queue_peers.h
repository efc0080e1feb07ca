/* Ways to bring messages from process to process, each behind the same five functions, so that
 * bench_queue can measure one after the other. Who cannot go on ends the program. */
#ifndef BENCH_QUEUE_PEERS_H
#define BENCH_QUEUE_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { QUEUE_BATCH = 32, QUEUE_SMALL = 64 };

typedef struct queue_setup {
  size_t size, capacity; /* bytes of a message; messages */
  int pairs;             /* so many producers, and as many consumers */
} queue_setup;

/* What one worker does: its messages bear the numbers from `first` on. */
typedef struct queue_work {
  size_t size;
  uint64_t first, count;
  unsigned char *memory; /* its own: for QUEUE_BATCH messages of QUEUE_SMALL bytes, or a long one */
} queue_work;

/* What arrived: how many, and the sums of the numbers at both ends of the messages. */
typedef struct queue_sum {
  uint64_t count, heads, tails;
} queue_sum;

/* One that has its own program measures a whole round itself, and has none of the five functions:
 * `warm` messages, then `count`, for which the clock runs. */
typedef struct queue_program {
  /* Messages per us; *ret_sum is what arrived. */
  double (*rate)(const queue_setup *setup, uint64_t warm, uint64_t count, queue_sum *ret_sum);
  /* There and back: median us; ret_sums[] is what arrived there and here. */
  double (*trip)(const queue_setup *setup, uint64_t warm, uint64_t count, queue_sum ret_sums[2]);
} queue_program;

typedef struct queue_peer {
  const char *name;
  const char *missing;                              /* why it does not take part; NULL: it does */
  bool is_single;                                   /* one producer and one consumer only */
  const char *(*refuses)(const queue_setup *setup); /* why it cannot carry these; NULL: all can */
  void *(*open)(const queue_setup *setup);          /* before the workers are made, by fork */
  void *(*enter)(void *shared, bool is_producer);   /* in a worker; NULL: `shared` serves */
  void (*produce)(void *own, const queue_work *work);
  void (*consume)(void *own, const queue_work *work, queue_sum *sum);
  void (*leave)(void *own); /* in a worker, when all are done; NULL: nothing */
  void (*close)(void *shared);
  const queue_program *program; /* NULL: the functions above */
} queue_peer;

#ifdef __cplusplus
extern "C" {
#endif
extern const queue_peer queue_ours, queue_ours_inside, queue_ours_many, queue_ours_commit,
    queue_ours_block;
extern const queue_peer queue_peer_boost, queue_peer_pipe, queue_peer_socketpair, queue_peer_mq,
    queue_peer_ring, queue_peer_place, queue_peer_zmq, queue_peer_python;

/* Why it does not carry these messages, or NULL. */
const char *queue_refuses(const queue_peer *peer, const queue_setup *setup);

/* Ends the program unless the messages 0 to `all` - 1 arrived, each once. */
void queue_compare(const queue_peer *peer, const queue_sum *sum, uint64_t all);

/* Measures round trips of one message, and reports them. */
void queue_measure_latency(FILE *json);

/* Ends the program. */
void queue_die(const char *what);
#ifdef __cplusplus
}
#endif

static inline void queue_write(unsigned char *message, size_t size, uint64_t number) {
  memcpy(message, &number, sizeof number);
  memcpy(message + size - sizeof number, &number, sizeof number);
}

static inline void queue_read(const unsigned char *message, size_t size, queue_sum *sum) {
  uint64_t head, tail;
  memcpy(&head, message, sizeof head);
  memcpy(&tail, message + size - sizeof tail, sizeof tail);
  sum->count++;
  sum->heads += head;
  sum->tails += tail;
}

#endif
