#include "ipc/ring.h"

#include "base/assert.h"
#include "base/error.h"
#include "heap/family.h"
#include "heap/pages.h"
#include "os/crash_point.h"

#include <errno.h>

/* A word: phase in 3 bits, lap in 22, the owner's generation in 23, its cell + 1 in 16. */
enum { LAP_SHIFT = 3, LAP_BITS = 22, OWNER_SHIFT = 25, OWNER_BITS = 23, CELL_SHIFT = 48 };
#define PHASE_MASK ((uint64_t)7)
#define LAP_MASK (((uint64_t)1 << LAP_BITS) - 1)
#define OWNER_MASK (((uint64_t)1 << OWNER_BITS) - 1)

static uint64_t word_of(mpx_slot_phase phase, uint64_t lap) {
  return (uint64_t)phase | (lap & LAP_MASK) << LAP_SHIFT;
}

static uint64_t word_by(mpx_slot_phase phase, uint64_t lap, mpx_thread self) {
  return word_of(phase, lap) | (self >> 2 & OWNER_MASK) << OWNER_SHIFT |
         self >> CELL_SHIFT << CELL_SHIFT;
}

static mpx_slot_phase phase_of(uint64_t word) {
  return (mpx_slot_phase)(word & PHASE_MASK);
}

static uint64_t lap_of(uint64_t word) {
  return word >> LAP_SHIFT & LAP_MASK;
}

static bool owner_is_dead(uint64_t word) {
  mpx_thread owner = word >> CELL_SHIFT << CELL_SHIFT | (word >> OWNER_SHIFT & OWNER_MASK) << 2;
  return mpx_thread_is_dead_by(mpx_family_header(), owner, OWNER_BITS);
}

static uint64_t with_lap(uint64_t word, uint64_t lap) {
  return (word & ~(LAP_MASK << LAP_SHIFT)) | (lap & LAP_MASK) << LAP_SHIFT;
}

static uint64_t lap_at(const mpx_ring *ring, uint64_t position) {
  return position >> ring->log2_count & LAP_MASK;
}

/* Whether the slot is still in use from the lap before. Laps are compared in a circle: half of them
 * are ahead. */
static bool is_behind(uint64_t word, uint64_t lap) {
  return ((lap_of(word) - lap) & LAP_MASK) > LAP_MASK / 2;
}

static bool is_held(uint64_t word) {
  return phase_of(word) == MPX_RING_CLAIMED || phase_of(word) == MPX_RING_TAKEN;
}

size_t mpx_ring_stride(size_t message_size) {
  return (size_t)mpx_round_up(sizeof(mpx_ring_slot) + message_size, 16);
}

size_t mpx_ring_size(unsigned log2_count, size_t message_size) {
  return sizeof(mpx_ring) + (mpx_ring_stride(message_size) << log2_count);
}

void mpx_ring_init(mpx_ring *ring, unsigned log2_count, size_t message_size) {
  ring->log2_count = log2_count;
  ring->stride = (uint32_t)mpx_ring_stride(message_size);
}

/* By CAS, here and for the floor: a store by one who was stopped before it would take the hint back
 * by any number of laps, and half a circle of them looks like the future. In one order with the
 * slots: who joins takes a tail that has not moved for a sign that nobody has claimed. */
static void help(_Atomic uint64_t *hint, uint64_t to) {
  uint64_t seen = atomic_load(hint);
  if (seen < to)
    (void)atomic_compare_exchange_strong(hint, &seen, to);
}

/* The slot is the caller's, who has done with it what it wanted. Its lap may have been moved on.
 * Release: pairs with the acquire of who has the slot next. Each change of a word is a sequentially
 * consistent read-modify-write: who then looks whether somebody waits needs no fence. */
static void let_go(mpx_ring *ring, uint64_t position, mpx_slot_phase phase, uint64_t laps) {
  _Atomic uint64_t *word = &mpx_ring_at(ring, position)->word;
  uint64_t seen = atomic_load_explicit(word, memory_order_relaxed);
  while (!atomic_compare_exchange_weak(word, &seen, word_of(phase, lap_of(seen) + laps)))
    continue;
}

/* ---- producers ------------------------------------------------------------------------------- */

/* Whether somebody has the slot since the lap just before. */
static bool is_held_over(uint64_t word, uint64_t lap) {
  return is_held(word) && lap_of(word) == ((lap - 1) & LAP_MASK);
}

/* Where to come to past the slots that are held over, from `position` on; `position` itself if a
 * message is first, or all are held. */
static uint64_t after_held(const mpx_ring *ring, uint64_t position) {
  for (uint64_t next = position; next < position + mpx_ring_count(ring); next++) {
    uint64_t lap = lap_at(ring, next), seen = atomic_load(&mpx_ring_at(ring, next)->word);
    if (!is_held_over(seen, lap))
      return is_behind(seen, lap) ? position : next;
  }
  return position;
}

/* Past a slot that was seen at *position in use since an earlier lap: its owner keeps it, in this
 * one. `*until`: as far as after_held is known. False: there is nothing to come to. */
static bool pass(mpx_ring *ring, uint64_t *position, uint64_t seen, uint64_t *until) {
  if (!is_held(seen))
    return false;
  uint64_t lap = lap_at(ring, *position);
  if (!is_held_over(seen, lap)) { /* the tail was read half a circle of laps ago */
    *position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
    return true;
  }
  if (*position >= *until)
    *until = after_held(ring, *position);
  if (*position >= *until)
    return false;
  if (atomic_compare_exchange_strong(&mpx_ring_at(ring, *position)->word, &seen,
                                     with_lap(seen, lap))) {
    MPROC_CRASH_POINT("ring.passed");
    /* nothing is left before it, and consumers may be few: half a circle of laps is too far */
    help(&ring->floor, *position - mpx_ring_count(ring) + 1);
  }
  return true;
}

int mpx_ring_claim(mpx_ring *ring, mpx_thread self, bool may_pass, uint64_t *ret_position) {
  uint64_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed), until = 0;
  for (;;) {
    mpx_ring_slot *slot = mpx_ring_at(ring, position);
    uint64_t lap = lap_at(ring, position), wanted = word_of(MPX_RING_FREE, lap);
    /* acquire: pairs with the release of mpx_ring_finish; the consumer has read its message */
    uint64_t seen = atomic_load_explicit(&slot->word, memory_order_acquire);
    if (seen == wanted) {
      if (!atomic_compare_exchange_strong(&slot->word, &seen, word_by(MPX_RING_CLAIMED, lap, self)))
        continue;
      MPROC_CRASH_POINT("ring.claimed");
      help(&ring->tail, position + 1);
      *ret_position = position;
      return 0;
    }
    if (phase_of(seen) == MPX_RING_SEALED)
      return -EPIPE;
    if (!is_behind(seen, lap))
      position++;
    else if (!may_pass || !pass(ring, &position, seen, &until))
      return -EAGAIN;
  }
}

bool mpx_ring_has_room(const mpx_ring *ring) {
  uint64_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed);
  for (;; position++) {
    uint64_t lap = lap_at(ring, position);
    uint64_t seen = atomic_load(&mpx_ring_at(ring, position)->word);
    if (seen == word_of(MPX_RING_FREE, lap))
      return true;
    if (phase_of(seen) == MPX_RING_SEALED)
      return false;
    if (is_behind(seen, lap))
      return after_held(ring, position) > position;
  }
}

void mpx_ring_publish(mpx_ring *ring, uint64_t position) {
  MPROC_CRASH_POINT("ring.filled");
  let_go(ring, position, MPX_RING_FULL, 0);
  MPROC_CRASH_POINT("ring.published");
}

/* ---- consumers ------------------------------------------------------------------------------- */

/* What was passed over because a producer had it: whether it holds a message by now, and where. */
static bool find_published(const mpx_ring *ring, uint64_t from, uint64_t to,
                           uint64_t *ret_position) {
  for (uint64_t position = from; position < to; position++)
    if (atomic_load_explicit(&mpx_ring_at(ring, position)->word, memory_order_acquire) ==
        word_of(MPX_RING_FULL, lap_at(ring, position))) {
      *ret_position = position;
      return true;
    }
  return false;
}

/* Nothing is left at `position`, which the caller has seen, or done. */
static void raise_floor(mpx_ring *ring, uint64_t position) {
  if (atomic_load_explicit(&ring->floor, memory_order_relaxed) == position)
    /* release: pairs with the acquire in true_floor */
    (void)atomic_compare_exchange_strong_explicit(&ring->floor, &position, position + 1,
                                                  memory_order_release, memory_order_relaxed);
}

/* Where the search stands. */
typedef struct search {
  uint64_t position;
  uint64_t passed; /* the first slot that a producer had when we came by */
  uint64_t own;    /* slots in a row that the caller has taken */
  bool in_flight;  /* somebody else has a message, or will have one */
} search;

/* 0: the slot holds a message, seen as *ret_seen. -EAGAIN, -EDEADLK, -EPIPE: there is none. */
static int find_message(mpx_ring *ring, mpx_thread self, search *at, uint64_t *ret_seen) {
  for (;; at->position++) {
    uint64_t lap = lap_at(ring, at->position);
    /* acquire: pairs with the release of mpx_ring_publish */
    uint64_t seen =
        atomic_load_explicit(&mpx_ring_at(ring, at->position)->word, memory_order_acquire);
    if (lap_of(seen) != lap) {
      if (is_behind(seen, lap)) /* once round: all is in somebody's hands */
        return at->own == mpx_ring_count(ring) ? -EDEADLK : -EAGAIN;
      raise_floor(ring, at->position);
      at->own = 0;
      continue;
    }
    *ret_seen = seen;
    if (phase_of(seen) == MPX_RING_FULL)
      return 0;
    if (phase_of(seen) == MPX_RING_FREE)
      return -EAGAIN;
    if (phase_of(seen) == MPX_RING_SEALED)
      return at->in_flight ? -EAGAIN : -EPIPE;
    bool is_own = seen == word_by(MPX_RING_TAKEN, lap, self);
    at->own = is_own ? at->own + 1 : 0;
    at->in_flight |= !is_own;
    if (phase_of(seen) == MPX_RING_CLAIMED && at->passed > at->position)
      at->passed = at->position;
  }
}

static int take(mpx_ring *ring, mpx_thread self, mpx_ring_may_take *may_take, void *user,
                search *at) {
  for (;;) {
    uint64_t seen;
    int r = find_message(ring, self, at, &seen);
    if (r < 0)
      return r;
    if (at->passed < at->position && find_published(ring, at->passed, at->position, &at->position))
      continue; /* the earlier one first: it may be of the same producer */
    if (may_take && !may_take(user))
      return -ESTALE;
    if (atomic_compare_exchange_strong(&mpx_ring_at(ring, at->position)->word, &seen,
                                       word_by(MPX_RING_TAKEN, lap_at(ring, at->position), self)))
      return 0;
  }
}

int mpx_ring_take(mpx_ring *ring, mpx_thread self, mpx_ring_may_take *may_take, void *user,
                  uint64_t *ret_position) {
  search at = {.position = atomic_load_explicit(&ring->floor, memory_order_relaxed),
               .passed = UINT64_MAX};
  int r = take(ring, self, may_take, user, &at);
  if (r == 0) {
    MPROC_CRASH_POINT("ring.taken");
    *ret_position = at.position;
  }
  /* a lap before us nothing is left, though what was passed by just before its lap ended was seen
   * at both places, and held up the floor */
  if (at.position > mpx_ring_count(ring))
    help(&ring->floor, at.position - mpx_ring_count(ring));
  return r;
}

void mpx_ring_finish(mpx_ring *ring, uint64_t position) {
  MPROC_CRASH_POINT("ring.read");
  let_go(ring, position, MPX_RING_FREE, 1);
  MPROC_CRASH_POINT("ring.finished");
  raise_floor(ring, position);
}

void mpx_ring_give_back(mpx_ring *ring, uint64_t position) {
  let_go(ring, position, MPX_RING_FULL, 0);
}

/* ---- the end, and the dead ------------------------------------------------------------------- */

bool mpx_ring_seal(mpx_ring *ring) {
  uint64_t position = atomic_load_explicit(&ring->tail, memory_order_relaxed), until = 0;
  for (;;) {
    _Atomic uint64_t *word = &mpx_ring_at(ring, position)->word;
    uint64_t lap = lap_at(ring, position), seen = atomic_load(word);
    if (phase_of(seen) == MPX_RING_SEALED)
      return true;
    if (is_behind(seen, lap)) {
      if (!pass(ring, &position, seen, &until))
        return false;
    } else if (seen != word_of(MPX_RING_FREE, lap))
      position++;
    else if (atomic_compare_exchange_strong(word, &seen, word_of(MPX_RING_SEALED, lap)))
      return true;
  }
}

/* Where who looks at all slots begins. Acquire: pairs with raise_floor, as who joins reads what was
 * done with the others. */
static uint64_t first_of(const mpx_ring *ring) {
  return atomic_load_explicit(&ring->floor, memory_order_acquire);
}

/* Whether nothing at this position or behind it is in use. What is ahead of its position was passed
 * by since the look began, or the floor is behind: whatever its lap, each slot is looked at
 * once. */
static bool is_past_end(const mpx_ring *ring, uint64_t position, uint64_t seen) {
  return seen == word_of(MPX_RING_FREE, lap_at(ring, position)) ||
         seen == word_of(MPX_RING_SEALED, lap_at(ring, position));
}

/* The slot is taken over first: of several who repair, one does; and when he dies as well, it is a
 * slot of the dead again. */
static bool take_over(mpx_ring_slot *slot, uint64_t seen, mpx_thread self) {
  uint64_t own = word_by(phase_of(seen), lap_of(seen), self);
  return atomic_compare_exchange_strong(&slot->word, &seen, own);
}

mpx_ring_losses mpx_ring_repair(mpx_ring *ring, mpx_thread self, mpx_ring_inherit *inherit) {
  mpx_ring_losses losses = {0};
  uint64_t first = first_of(ring);
  for (uint64_t position = first; position < first + mpx_ring_count(ring); position++) {
    mpx_ring_slot *slot = mpx_ring_at(ring, position);
    uint64_t seen = atomic_load(&slot->word);
    if (is_past_end(ring, position, seen))
      break;
    bool claimed = phase_of(seen) == MPX_RING_CLAIMED;
    if (!is_held(seen) || !owner_is_dead(seen))
      continue;
    if (!take_over(slot, seen, self)) { /* somebody passed it by, or took it over: look again */
      position--;
      continue;
    }
    MPROC_CRASH_POINT("ring.taken_over");
    losses.slots++;
    if (inherit(slot, phase_of(seen))) {
      mpx_ring_give_back(ring, position);
      losses.delivered++;
    } else {
      mpx_ring_finish(ring, position);
      losses.dropped += claimed;
    }
  }
  return losses;
}

/* ---- looking --------------------------------------------------------------------------------- */

uint64_t mpx_ring_look(const mpx_ring *ring, mpx_ring_visit *visit, void *user) {
  uint64_t first = first_of(ring), count = 0;
  for (uint64_t position = first; position < first + mpx_ring_count(ring); position++) {
    uint64_t seen = atomic_load(&mpx_ring_at(ring, position)->word);
    if (is_past_end(ring, position, seen))
      break;
    if (phase_of(seen) == MPX_RING_FREE || phase_of(seen) == MPX_RING_SEALED)
      continue;
    count++;
    if (visit && !visit(position, phase_of(seen), user))
      break;
  }
  return count;
}

bool mpx_ring_has(const mpx_ring *ring, uint64_t position, mpx_thread self) {
  uint64_t seen = atomic_load_explicit(&mpx_ring_at(ring, position)->word, memory_order_relaxed);
  return seen == word_by(MPX_RING_TAKEN, lap_of(seen), self);
}

int mpx_ring_damaged(uint64_t position, const char *what) {
  return mpx_fail(-EIO, "slot %llu of the ring %s", (unsigned long long)position, what);
}

static int check_slot(const mpx_ring *ring, uint64_t position, bool has_ended, bool *is_past_end) {
  const mpx_ring_slot *slot = mpx_ring_at(ring, position);
  uint64_t lap = lap_at(ring, position), seen = atomic_load(&slot->word);
  bool is_over = lap_of(seen) == ((lap + 1) & LAP_MASK), has_owner = seen >> OWNER_SHIFT != 0;
  mpx_slot_phase phase = phase_of(seen);
  if (phase > MPX_RING_SEALED)
    return mpx_ring_damaged(position, "is in no phase");
  if (lap_of(seen) != lap && !is_over)
    return mpx_ring_damaged(position, "is of another lap");
  if (is_over && phase != MPX_RING_FREE)
    return mpx_ring_damaged(position, "is in use a lap too early");
  if (has_owner != is_held(seen))
    return mpx_ring_damaged(position, has_owner ? "has an owner" : "has no owner");
  if (*is_past_end && (is_over || phase != MPX_RING_FREE))
    return mpx_ring_damaged(position, "is in use behind one that never was");
  if (is_over || (phase != MPX_RING_FREE && phase != MPX_RING_SEALED))
    return 0;
  if (!*is_past_end && position < atomic_load(&ring->tail))
    return mpx_ring_damaged(position, "was never used, and the tail is past it");
  if (phase == MPX_RING_SEALED && !has_ended)
    return mpx_ring_damaged(position, "is sealed, and nothing has ended");
  *is_past_end = true;
  return 0;
}

/* The first position that is not done with. The floor may be more than a lap behind it: who
 * finishes a later slot does not raise it, and who finished its own may have died before. */
static uint64_t true_floor(const mpx_ring *ring) {
  uint64_t position = atomic_load(&ring->floor);
  for (;; position++) {
    uint64_t lap = lap_at(ring, position), seen = atomic_load(&mpx_ring_at(ring, position)->word);
    if (lap_of(seen) == lap || is_behind(seen, lap))
      return position;
  }
}

int mpx_ring_check(const mpx_ring *ring, bool has_ended) {
  uint64_t first = true_floor(ring);
  bool is_past_end = false;
  int r = 0;
  if (atomic_load(&ring->tail) > first + mpx_ring_count(ring))
    return mpx_fail(-EIO, "the ring's tail is more than a lap before its floor");
  for (uint64_t i = 0; i < mpx_ring_count(ring) && r == 0; i++)
    r = check_slot(ring, first + i, has_ended, &is_past_end);
  return r;
}
