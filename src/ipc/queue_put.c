/* Putting: claim a slot, fill it, publish it. */
#include "base/error.h"
#include "ipc/queue.h"
#include "ipc/turn_wait.h"
#include "mproc/heap.h"
#include "os/crash_point.h"

#include <errno.h>
#include <string.h>

/* Where a message comes from. */
typedef struct source {
  const void *data;
  size_t size;
  void *block; /* a block that is given; then `data` is not read */
} source;

static int say_closed(void) {
  return mpx_fail(MPROC_ECLOSED, "the queue is closed: nothing can be put any more");
}

/* Once recorded, the block goes with the slot. */
static int copy_into_block(mproc_queue *queue, mpx_ring_slot *slot, const source *from) {
  const mpx_caller owner = mpx_queue_owner(queue);
  void *block;
  int r = mpx_allocator_alloc(mpx_family_header()->allocator, &owner, from->size, 0, true, &block);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("queue.block_made");
  memcpy(slot->data, &block, sizeof block);
  atomic_signal_fence(memory_order_seq_cst); /* if we die in between, `where` names no block */
  slot->where = MPX_MESSAGE_BLOCK;
  memcpy(block, from->data, from->size);
  return 0;
}

static int fill(mproc_queue *queue, mpx_ring_slot *slot, const source *from) {
  slot->size = (uint32_t)from->size;
  slot->where = MPX_MESSAGE_INSIDE;
  if (from->block) {
    int r = mproc_heap_share(from->block); /* not before: who dies waiting takes it along */
    if (r < 0)
      return r;
    memcpy(slot->data, &from->block, sizeof from->block);
    atomic_signal_fence(memory_order_seq_cst); /* as above */
    slot->where = MPX_MESSAGE_GIVEN;
    return 0;
  }
  if (from->size > queue->inside)
    return copy_into_block(queue, slot, from);
  if (from->size)
    memcpy(slot->data, from->data, from->size);
  return 0;
}

/* Puts without having waited. */
static _Thread_local uint32_t in_a_row MPX_TLS_MODEL;

/* Without waking anybody. -EAGAIN, MPROC_ECLOSED without a text. */
static int put_now(mproc_queue *queue, mpx_thread self, const source *from, bool may_pass) {
  mpx_place place;
  int r = mpx_queue_claim(queue, self, may_pass, &place);
  if (r < 0)
    return r;
  in_a_row++;
  r = fill(queue, mpx_place_slot(&place), from);
  if (r == 0)
    mpx_ring_publish(&place.link->ring, place.position);
  else
    mpx_queue_finish(queue, &place); /* a place without a message */
  return r;
}

static int put_waiting(mproc_queue *queue, mpx_thread self, const source *from, int timeout_ms) {
  mpx_ipc_wait wait = mpx_ipc_wait_for(&queue->not_full.turn, timeout_ms);
  wait.rest_ns = mpx_queue_rest_ns(queue, &in_a_row);
  for (;;) {
    int r = put_now(queue, self, from, mpx_ipc_wait_is_long(&wait));
    if (r == MPROC_ECLOSED)
      return say_closed();
    /* one who finishes may make room for several, and wakes one */
    if (r == 0 && wait.has_slept && mpx_queue_can_put(queue))
      mpx_notice_tell(&queue->not_full, 1);
    if (r != -EAGAIN)
      return r;
    if (!mpx_ipc_wait_more(&wait))
      return mpx_timeout_fail(timeout_ms, "the queue got no free place");
    r = mpx_object_check_again(queue,
                               MPX_KIND_QUEUE); /* destroyed while we slept: no ring is left */
    if (r < 0)
      return r;
    if (wait.is_time_to_look) {
      mpx_ipc_wait_mark(&wait);
      mpx_queue_repair(queue, self);
    }
  }
}

static int check_data(const void *data, size_t size) {
  if (size > UINT32_MAX)
    return mpx_fail(-EINVAL, "a message of %zu bytes is more than %u", size, UINT32_MAX);
  return size ? mpx_check_not_null(data, "data") : 0;
}

int mproc_queue_put(mproc_queue *queue, const void *data, size_t size, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(queue, MPX_KIND_QUEUE, timeout_ms, &self);
  if (r == 0)
    r = check_data(data, size);
  if (r < 0)
    return r;
  const source from = {data, size, NULL};
  r = put_now(queue, self, &from, false);
  if (r == -EAGAIN || r == MPROC_ECLOSED)
    r = put_waiting(queue, self, &from, timeout_ms);
  if (r == 0)
    mpx_notice_tell(&queue->not_empty, 1);
  return r;
}

int mproc_queue_put_many(mproc_queue *queue, const void *data, size_t size, int count,
                         int timeout_ms) {
  mpx_thread self;
  int done = 0, told = 0, r = mpx_object_enter_for(queue, MPX_KIND_QUEUE, timeout_ms, &self);
  if (r == 0)
    r = check_data(data, size);
  if (r == 0 && count < 1)
    r = mpx_fail(-EINVAL, "%d messages cannot be put; at least 1", count);
  while (r == 0 && done < count) {
    const source from = {(const char *)data + (size_t)done * size, size, NULL};
    r = put_now(queue, self, &from, false);
    if (r == -EAGAIN || r == MPROC_ECLOSED) {
      mpx_notice_tell(&queue->not_empty, done - told); /* so that somebody makes room */
      told = done;
      r = put_waiting(queue, self, &from, timeout_ms);
    }
    done += r == 0;
  }
  if (done > told)
    mpx_notice_tell(&queue->not_empty, done - told);
  return done > 0 ? done : r;
}

int mproc_queue_put_block(mproc_queue *queue, void *block, size_t size, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(queue, MPX_KIND_QUEUE, timeout_ms, &self);
  if (r == 0)
    r = mpx_check_not_null(block, "block");
  if (r < 0 || !block)
    return r;
  if (size == 0 || size > UINT32_MAX || mproc_heap_usable_size(block) < size)
    return mpx_fail(MPROC_EPOINTER, "%p is no block of the heap with %zu bytes", block, size);
  const source from = {NULL, size, block};
  r = put_waiting(queue, self, &from, timeout_ms);
  if (r == 0)
    mpx_notice_tell(&queue->not_empty, 1);
  return r;
}
