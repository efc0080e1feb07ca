/* Our queue, for bench_queue: one by one, in batches, begun and committed, in blocks. */
#include "queue_peers.h"

#include <mproc/mproc.h>

#include <stdlib.h>

enum { INSIDE_MOST = 65536 };

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

static const char *refuses_inside(const queue_setup *setup) {
  return setup->size > INSIDE_MOST ? "longer than a message in the queue may be" : NULL;
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

static const char *refuses_many(const queue_setup *setup) {
  return setup->size > QUEUE_SMALL ? "a batch of them does not fit into the memory" : NULL;
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

const queue_peer queue_ours = {
    .name = "mproc", .open = open_ours, .produce = put, .consume = get, .close = close_ours};
const queue_peer queue_ours_inside = {.name = "mproc, inside",
                                      .refuses = refuses_inside,
                                      .open = open_inside,
                                      .produce = put,
                                      .consume = get,
                                      .close = close_ours};
const queue_peer queue_ours_many = {.name = "mproc, many",
                                    .refuses = refuses_many,
                                    .open = open_ours,
                                    .produce = put_many,
                                    .consume = get_many,
                                    .close = close_ours};
const queue_peer queue_ours_commit = {.name = "mproc, commit",
                                      .open = open_ours,
                                      .produce = put,
                                      .consume = begin_and_commit,
                                      .close = close_ours};
const queue_peer queue_ours_block = {.name = "mproc, block",
                                     .open = open_ours,
                                     .produce = put_blocks,
                                     .consume = get_blocks,
                                     .close = close_ours};
