/* What tests of queues share with the processes that they start: a queue, and who is where. */
#ifndef MPROC_TEST_QUEUE_BOARD_H
#define MPROC_TEST_QUEUE_BOARD_H

#include "harness.h"
#include "processes.h"

#include <stdatomic.h>

enum { SOON_MS = 5000 };

typedef struct board {
  mproc_queue *queue;
  int rounds, how;
  _Atomic int go, release, number;
  _Atomic int64_t sum, count, lost_order;
  mproc_queue *results;
} board;

static inline board *new_board(const mproc_queue_options *options) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_queue_create(options, &b->queue), 0);
  return b;
}

static inline void free_board(board *b) {
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static inline int64_t size_of(const board *b) {
  return mproc_queue_size(b->queue);
}

#endif
