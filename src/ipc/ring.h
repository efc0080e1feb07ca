/* A ring of slots for messages, between any number of producers and consumers that may die at any
 * instruction.
 *
 * Everything that decides stands in the word of a slot, which changes by CAS as a whole: the lap in
 * which the slot is used, what state it is in, and who has it.
 *
 *   FREE -> CLAIMED by a producer -> FULL -> TAKEN by a consumer -> FREE of the next lap
 *                  \ dead: FREE of the next lap      \ dead, or given back: FULL
 *   FREE -> SEALED: nobody claims this slot or a later one any more
 *   CLAIMED, TAKEN -> the same of the next lap: producers pass it by, its owner keeps it
 *
 * So a claim and its claimant are one store: nobody can have claimed and not be known. Producers
 * claim in the order of positions. `tail` and `floor` are hints, which may be old: whoever finds
 * them so goes on from there and helps them forward. A slot's owner is known by its index, not by
 * its lap, which others may have moved on.
 *
 * Consumers begin at the floor each time and pass over what others have in hand, so that a stopped
 * one delays nobody; a later message of the same producer is not taken before an earlier one. */
#ifndef MPX_IPC_RING_H
#define MPX_IPC_RING_H

#include "heap/table.h"

typedef enum mpx_slot_phase {
  MPX_RING_FREE,
  MPX_RING_CLAIMED,
  MPX_RING_FULL,
  MPX_RING_TAKEN,
  MPX_RING_SEALED
} mpx_slot_phase;

/* What a slot has besides: the producer's and the consumer's, by turns, whoever has the slot. */
typedef struct mpx_ring_slot {
  _Atomic uint64_t word;
  uint32_t size;        /* of the message */
  uint32_t where : 8;   /* 0: in `data`; else what a queue makes of it */
  uint32_t taking : 24; /* what a queue numbers those by that a thread keeps */
  unsigned char data[];
} mpx_ring_slot;

typedef struct mpx_ring {
  uint32_t log2_count;                 /* creator, like all but the hints */
  uint32_t stride;                     /* bytes from slot to slot */
  _Alignas(64) _Atomic uint64_t tail;  /* producers: no FREE slot is before it, mostly */
  _Alignas(64) _Atomic uint64_t floor; /* consumers: nothing is left before it, for sure */
  /* the slots follow, on a cache line of their own: the struct fills its lines */
} mpx_ring;

/* Bytes from slot to slot, for messages of `message_size` bytes. */
size_t mpx_ring_stride(size_t message_size);
/* Bytes of a ring of 2^log2_count slots for messages of `message_size` bytes. */
size_t mpx_ring_size(unsigned log2_count, size_t message_size);
/* In zeroed memory. */
void mpx_ring_init(mpx_ring *ring, unsigned log2_count, size_t message_size);

static inline uint64_t mpx_ring_count(const mpx_ring *ring) {
  return (uint64_t)1 << ring->log2_count;
}

static inline mpx_ring_slot *mpx_ring_at(const mpx_ring *ring, uint64_t position) {
  uint64_t index = position & (mpx_ring_count(ring) - 1);
  return (mpx_ring_slot *)(void *)((uintptr_t)(ring + 1) + index * ring->stride);
}

/* The next slot is the caller's, to be filled and published: 0. -EAGAIN: all are in use, or the
 * next one is, and `may_pass` is false: for those who have not waited, since most are done with
 * soon, and a place that was passed stays empty for a lap. -EPIPE: the ring was sealed. */
int mpx_ring_claim(mpx_ring *ring, mpx_thread self, bool may_pass, uint64_t *ret_position);
/* Whether a claim that may pass would find one right now. */
bool mpx_ring_has_room(const mpx_ring *ring);
void mpx_ring_publish(mpx_ring *ring, uint64_t position);

/* Asked when a message was found, just before it is taken. */
typedef bool mpx_ring_may_take(void *user);
/* The oldest message that nobody has is the caller's: 0. -EAGAIN: there is none now. -EDEADLK: the
 * caller has taken all slots itself. -EPIPE: there will be none: the ring was sealed, and nobody
 * else has one that could come back. -ESTALE: `may_take`, unless NULL, said no. */
int mpx_ring_take(mpx_ring *ring, mpx_thread self, mpx_ring_may_take *may_take, void *user,
                  uint64_t *ret_position);
/* The slot is free again. */
void mpx_ring_finish(mpx_ring *ring, uint64_t position);
/* The message is there again, for others too. */
void mpx_ring_give_back(mpx_ring *ring, uint64_t position);

/* Nothing is to come after what was claimed so far. False: there is no free slot, try again. */
bool mpx_ring_seal(mpx_ring *ring);

/* Whether what a dead consumer had taken is there again; what a dead producer had claimed never is,
 * and what it had put into the slot is given back here. */
typedef bool mpx_ring_inherit(mpx_ring_slot *slot, mpx_slot_phase phase);
typedef struct mpx_ring_losses {
  uint32_t slots;     /* in all */
  uint32_t dropped;   /* claims of the dead, never published */
  uint32_t delivered; /* messages that the dead had taken, which are there again */
} mpx_ring_losses;
/* Looks for slots of the dead. */
mpx_ring_losses mpx_ring_repair(mpx_ring *ring, mpx_thread self, mpx_ring_inherit *inherit);

/* Calls `visit` for each slot in use until it returns false, and returns how many it was called
 * for. What was in use when it began, and still is when it ends, is seen. What it sees may be
 * over. */
typedef bool mpx_ring_visit(uint64_t position, mpx_slot_phase phase, void *user);
uint64_t mpx_ring_look(const mpx_ring *ring, mpx_ring_visit *visit, void *user);
/* Whether the calling thread has taken this slot, in whichever lap, and has not let go of it. */
bool mpx_ring_has(const mpx_ring *ring, uint64_t position, mpx_thread self);

/* Compares everything but the messages: -EIO, and the detail says what is wrong. Only while nobody
 * is inside. A ring is sealed only if something `has_ended`. */
int mpx_ring_check(const mpx_ring *ring, bool has_ended);
/* -EIO, in the same words. */
int mpx_ring_damaged(uint64_t position, const char *what);

#endif
