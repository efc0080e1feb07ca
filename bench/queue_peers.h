/* Ways to bring messages from process to process, each behind the same five functions, so that
 * bench_queue can measure one after the other. Who cannot go on ends the program. */
#ifndef BENCH_QUEUE_PEERS_H
#define BENCH_QUEUE_PEERS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { QUEUE_BATCH = 32 };

typedef struct queue_setup {
  size_t size, capacity; /* bytes of a message; messages */
} queue_setup;

/* What one worker does: its messages bear the numbers from `first` on. */
typedef struct queue_work {
  size_t size;
  uint64_t first, count;
  unsigned char
      *memory; /* its own: for QUEUE_BATCH messages of the least size, for one of another */
} queue_work;

/* What arrived: how many, and the sums of the numbers at both ends of the messages. */
typedef struct queue_sum {
  uint64_t count, heads, tails;
} queue_sum;

typedef struct queue_peer {
  const char *name;
  const char *missing;                            /* why it does not take part; NULL: it does */
  bool is_single;                                 /* one producer and one consumer only */
  void *(*open)(const queue_setup *setup);        /* before the workers are made, by fork */
  void *(*enter)(void *shared, bool is_producer); /* in a worker; NULL: `shared` serves */
  void (*produce)(void *own, const queue_work *work);
  void (*consume)(void *own, const queue_work *work, queue_sum *sum);
  void (*leave)(void *own); /* in a worker, when all are done; NULL: nothing */
  void (*close)(void *shared);
} queue_peer;

#ifdef __cplusplus
extern "C" {
#endif
extern const queue_peer queue_peer_boost, queue_peer_pipe, queue_peer_mq, queue_peer_ring,
    queue_peer_zmq;

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
