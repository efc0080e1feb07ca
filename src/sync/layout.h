/* The objects from inside, each for its own functions; and for the checks, which see all of them.
 * Lock and RLock are in lock.h. */
#ifndef MPX_SYNC_LAYOUT_H
#define MPX_SYNC_LAYOUT_H

#include "sync/lock.h"
#include "sync/notice.h"
#include "sync/object.h"
#include "sync/roster.h"
#include "sync/turn.h"

#include "mproc/sync.h"
#include "mproc/value.h"

struct mproc_rwlock {
  mpx_object object;
  mpx_mutex guard;    /* of who comes in, and of a writer's look at who is in */
  mpx_mutex writer;   /* also held by one who waits for readers to go */
  mpx_roster readers; /* entry.count: how often its thread reads */
  mpx_turn turn;      /* a reader went */
};

enum { MPX_SEMAPHORE_MOST = 1 << 30, MPX_SEMAPHORE_MOST_TRACKED = 4096 };

struct mproc_semaphore {
  mpx_object object;
  int32_t first;               /* creator: what it began with */
  bool bounded, tracked;       /* creator */
  _Atomic int32_t value;       /* what is left, by CAS; of a tracked one unused */
  mpx_turn turn;               /* a permit was given back */
  _Atomic mpx_thread owners[]; /* of tracked permits, by CAS: 0 is one that is left */
};

/* entry.word of a condition, by CAS from WAITS: TOLD and HEIR (told what a dead one had been told)
 * under the guard, LEFT by its thread, whose time is over. That one needs no guard, so that nobody
 * who is stopped under it keeps a waiter from leaving. */
enum { MPX_WAITS, MPX_TOLD, MPX_HEIR, MPX_LEFT };

struct mproc_condition {
  mpx_object object;
  mpx_mutex guard;    /* of the number, of who comes and who is told */
  mpx_roster waiters; /* entry.number: the order; entry.news: the notification that it was told */
  uint64_t next_number;
  mproc_lock *lock; /* creator: one of the two */
  mproc_rlock *rlock;
  bool has_own; /* creator: the RLock goes with us */
};

static inline bool mpx_is_told(uint32_t word) {
  return word == MPX_TOLD || word == MPX_HEIR;
}

static inline mpx_mutex *mpx_condition_mutex(const mproc_condition *condition) {
  return condition->lock ? &condition->lock->mutex : &condition->rlock->mutex;
}

/* Of an event's state, which counts how often it was set, so that who waits notices a set that is
 * cleared at once. */
enum { MPX_EVENT_IS_SET = 1, MPX_EVENT_STEP = 2 };

struct mproc_event {
  mpx_object object;
  _Atomic uint32_t state; /* by CAS, any thread; release on set, acquire in wait and is_set */
  mpx_notice notice;
};

/* entry.word of a barrier, from MPX_WAITS, written under the guard. */
enum { MPX_PASSED = 1, MPX_BROKEN };

/* The lowest bits of a barrier's state; the others count rounds, so that nobody breaks the next one
 * for his own.
 *   FILLING  others are awaited              to ACTING, OPENING (guard), BREAKING (anybody)
 *   ACTING   the last to come is in its action   to OPENING (the actor), BREAKING (anybody)
 *   OPENING  all may pass                    to FILLING (guard), when all are told
 *   BREAKING nobody may                      to IS_BROKEN (guard), when all are told
 *   IS_BROKEN                                to FILLING (guard), by a reset */
enum {
  MPX_FILLING,
  MPX_ACTING,
  MPX_OPENING,
  MPX_BREAKING,
  MPX_IS_BROKEN,
  MPX_PHASE = 7,
  MPX_ROUND = 8
};

struct mproc_barrier {
  mpx_object object;
  mpx_turn turn;
  mpx_mutex guard;
  mpx_roster arrived; /* entry.count: what wait returns, right once the state is not FILLING */
  _Atomic uint32_t state;
  int32_t parties;          /* creator */
  int32_t come;             /* guard: this round's entries; some may be of the dead, or free */
  uint32_t next;            /* guard: how many numbers were given in this round */
  _Atomic mpx_thread actor; /* guard, before ACTING */
};

enum { MPX_VALUE_INT64, MPX_VALUE_DOUBLE, MPX_VALUE_POINTER };

struct mproc_value {
  mpx_object object;
  uint32_t type; /* creator */
  _Atomic uint64_t bits;
  mpx_turn turn; /* it was changed */
};

struct mproc_array {
  mpx_object object;
  mproc_lock *lock; /* creator */
  size_t count, size;
  void *items; /* apart: they go back to the heap at once, the object after a while */
};

#endif
