/* A queue from inside: a chain of rings, of which all but the last are sealed or about to be.
 *
 * What the queue has in the heap belongs to it, not to a process: its rings and the blocks of long
 * messages are owned by a name that no process has. So a death in the middle of an allocation costs
 * a block until the queue is destroyed, and not for good. */
#ifndef MPX_IPC_QUEUE_H
#define MPX_IPC_QUEUE_H

#include "heap/allocator.h"
#include "ipc/ring.h"
#include "mproc/queue.h"
#include "sync/notice.h"
#include "sync/object.h"

/* What lies in a slot: mpx_ring_slot.where. */
enum {
  MPX_MESSAGE_INSIDE,
  MPX_MESSAGE_BLOCK, /* a pointer to a block of the queue's */
  MPX_MESSAGE_GIVEN, /* a pointer to a block that a caller gave */
  MPX_MESSAGE_GONE   /* nothing any more: the message is somebody's who may be dead */
};

/* A ring grows into the next: the chain. */
typedef struct mpx_link {
  _Atomic(struct mpx_link *) next; /* by CAS from NULL, any producer */
  _Alignas(64) mpx_ring ring;
} mpx_link;

struct mproc_queue {
  mpx_object object;
  bool growing, joinable; /* creator, like the next */
  uint32_t inside;        /* bytes of a message that fit into a slot */
  _Atomic uint32_t closed;
  _Atomic uint64_t dropped, delivered_again, lost; /* whoever repaired */
  _Atomic int64_t looked_at;             /* for the dead, by who is never long without news */
  _Atomic mpx_thread destroyer;          /* by CAS, from 0 or the dead; 0 by himself, on -EBUSY,
                                            and what it was where there is no queue any more */
  _Alignas(64) _Atomic(mpx_link *) last; /* producers' ring; forward only, by CAS */
  mpx_notice not_full;
  _Alignas(64) _Atomic(mpx_link *) first; /* consumers' ring; forward only, by CAS */
  mpx_notice not_empty;
  mpx_turn drained; /* a message is done with, and somebody joins */
};

#define MPX_TAKING_MASK (((uint32_t)1 << 24) - 1)

/* A ring of that many slots does not grow any more. */
enum { MPX_QUEUE_MOST_LOG2 = 24 };

static inline mpx_link *mpx_link_next(mpx_link *link) {
  return atomic_load_explicit(&link->next, memory_order_acquire);
}

/* How long one rests (turn_wait.h) who went on *in_a_row times without waiting, which begin anew:
 * while the other side uses a quarter of the ring, and not so long that anybody would notice. */
static inline int64_t mpx_queue_rest_ns(const mproc_queue *queue, uint32_t *in_a_row) {
  enum { ROW = 8, SLOT_NS = 32, MOST_NS = 6000 };
  bool is_row = *in_a_row >= ROW;
  *in_a_row = 0;
  if (!is_row)
    return 0;
  const mpx_link *link = atomic_load_explicit(&queue->last, memory_order_acquire);
  int64_t ns = SLOT_NS * (int64_t)mpx_ring_count(&link->ring) / 4;
  return ns < MOST_NS ? ns : MOST_NS;
}

/* A slot that the calling thread has. */
typedef struct mpx_place {
  mpx_link *link;
  uint64_t position;
} mpx_place;

static inline mpx_ring_slot *mpx_place_slot(const mpx_place *place) {
  return mpx_ring_at(&place->link->ring, place->position);
}

/* As whom the queue owns what it has. */
mpx_caller mpx_queue_owner(const mproc_queue *queue);
/* A ring of 2^log2_count slots, not in the chain yet. Says why not. */
int mpx_queue_add_ring(mproc_queue *queue, unsigned log2_count, mpx_link **ret_link);

/* -EAGAIN: full, or the next place is in somebody's hands and `may_pass` is false, see ring.h.
 * MPROC_ECLOSED. Others: a growing queue that cannot grow, said why. */
int mpx_queue_claim(mproc_queue *queue, mpx_thread self, bool may_pass, mpx_place *ret_place);
/* -EAGAIN: empty. MPROC_ECLOSED: closed and empty. */
int mpx_queue_take(mproc_queue *queue, mpx_thread self, mpx_place *ret_place);
/* The message is done with. */
void mpx_queue_finish(mproc_queue *queue, const mpx_place *place);
/* Slots of the dead, in all rings. */
void mpx_queue_repair(mproc_queue *queue, mpx_thread self);
/* The same unless somebody did within the last MPX_LOOK_NS: for those who are never long without
 * news. */
void mpx_queue_repair_in_time(mproc_queue *queue, mpx_thread self);

/* From here on the message is the caller's, and no death brings it back. */
static inline void mpx_message_forget(mpx_ring_slot *slot) {
  atomic_signal_fence(memory_order_seq_cst); /* who is killed has done all before, or less */
  slot->where = MPX_MESSAGE_GONE;
  atomic_signal_fence(memory_order_seq_cst);
}

/* Whether get, or put, would not wait right now. */
bool mpx_queue_can_get(mproc_queue *queue, mpx_thread self);
bool mpx_queue_can_put(mproc_queue *queue);

static inline void *mpx_message_block(const mpx_ring_slot *slot) {
  return *(void *const *)(const void *)slot->data;
}

/* Compares everything, for tests: -EIO, and the detail says what is wrong. */
int mpx_queue_check(mproc_queue *queue);

#endif
