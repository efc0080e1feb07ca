/* The check of a queue, for tests. */
#include "base/error.h"
#include "ipc/queue.h"
#include "mproc/heap.h"
#include "sync/check.h"

#include <errno.h>

typedef struct message_check {
  mproc_queue *queue;
  const mpx_ring *ring;
  int r;
} message_check;

static bool check_message(uint64_t position, mpx_slot_phase phase, void *user) {
  message_check *check = user;
  const mpx_ring_slot *slot = mpx_ring_at(check->ring, position);
  const char *wrong = NULL;
  if (phase == MPX_RING_CLAIMED || (phase == MPX_RING_TAKEN && slot->where == MPX_MESSAGE_GONE))
    return true;
  if (slot->where >= MPX_MESSAGE_GONE)
    wrong = "has no message";
  else if (slot->where == MPX_MESSAGE_INSIDE && slot->size > check->queue->inside)
    wrong = "has a message larger than itself";
  else if (slot->where != MPX_MESSAGE_INSIDE &&
           mproc_heap_usable_size(mpx_message_block(slot)) < slot->size)
    wrong = "has a message in no block of its size";
  else if (slot->where == MPX_MESSAGE_BLOCK && slot->size <= check->queue->inside)
    wrong = "has a message in a block that is smaller than itself";
  if (wrong)
    check->r = mpx_ring_damaged(position, wrong);
  return check->r == 0;
}

/* Of what the ring's slots are found by. */
static int check_link(const mproc_queue *queue, mpx_link *link) {
  mpx_allocator *allocator = mpx_family_header()->allocator;
  size_t head = sizeof(mpx_link);
  if (!mpx_allocator_contains(allocator, link, head) || link->ring.log2_count < 1 ||
      link->ring.log2_count > MPX_QUEUE_MOST_LOG2)
    return mpx_fail(-EIO, "ring %p of the queue is none", (void *)link);
  size_t size = offsetof(mpx_link, ring) + mpx_ring_size(link->ring.log2_count, queue->inside);
  if (!mpx_allocator_contains(allocator, link, size) ||
      link->ring.stride != mpx_ring_stride(queue->inside))
    return mpx_fail(-EIO, "ring %p of the queue is no block of its size", (void *)link);
  return 0;
}

static int check_ring(mproc_queue *queue, mpx_link *link) {
  const mpx_link *next = mpx_link_next(link);
  message_check check = {queue, &link->ring, 0};
  int r = mpx_ring_check(&link->ring, next || atomic_load(&queue->closed));
  if (r == 0)
    (void)mpx_ring_look(&link->ring, check_message, &check);
  if (r == 0 && check.r == 0 && next &&
      (!queue->growing || next->ring.log2_count != link->ring.log2_count + 1))
    return mpx_fail(-EIO, "ring %p of the queue cannot have grown from the one before",
                    (void *)next);
  return r < 0 ? r : check.r;
}

/* A producer that made a ring may have died before it went on to it, and consumers be there. */
static int check_last(mproc_queue *queue) {
  mpx_link *link = atomic_load(&queue->last);
  for (; link; link = mpx_link_next(link)) {
    int r = check_link(queue, link);
    if (r < 0 || link == atomic_load(&queue->first))
      return r;
  }
  return mpx_fail(-EIO, "the producers' ring of the queue is not in its chain");
}

int mpx_queue_check(mproc_queue *queue) {
  int r = mpx_object_check(queue, MPX_KIND_QUEUE);
  mpx_link *link = r == 0 ? atomic_load(&queue->first) : NULL;
  bool has_last = false;
  for (; r == 0 && link;
       link = mpx_link_next(link)) { /* it ends: each is larger than the one before */
    has_last |= link == atomic_load(&queue->last);
    r = check_link(queue, link);
    if (r == 0 && mpx_link_next(link))
      r = check_link(queue, mpx_link_next(link));
    if (r == 0)
      r = check_ring(queue, link);
    if (r < 0)
      return r;
  }
  if (r == 0)
    r = mpx_notice_check(&queue->not_full);
  if (r == 0)
    r = mpx_notice_check(&queue->not_empty);
  return r < 0 || has_last ? r : check_last(queue);
}
