/* A turnstile: sleeping until something else than one word has changed.
 *
 *   whoever waits                          whoever changes
 *     looks; not yet                         changes it
 *     seen = mpx_turn_prepare()              mpx_turn_next()
 *     looks again; not yet
 *     mpx_turn_sleep(seen)
 *
 * The word counts turns and says whether anybody may sleep, so that a change which nobody awaits
 * costs a load, and a fence at most. A dead waiter leaves nothing but that mark, which the next
 * turn finds to be stale. */
#ifndef MPX_SYNC_TURN_H
#define MPX_SYNC_TURN_H

#include "sync/object.h"
#include "sync/sleep.h"

enum { MPX_TURN_WAITED = 1, MPX_TURN_STEP = 2, MPX_TURN_ALL = INT32_MAX };

typedef struct mpx_turn {
  _Atomic uint32_t word; /* by any thread, RMW only */
} mpx_turn;

static inline uint32_t mpx_turn_prepare(mpx_turn *turn) {
  uint32_t seen = atomic_fetch_or(&turn->word, MPX_TURN_WAITED) | MPX_TURN_WAITED;
  /* pairs with mpx_turn_tell, and the fence in mpx_turn_next: the look that follows, relaxed too,
   * is after the mark. Data do not pass by fences, so that ThreadSanitizer, which knows none,
   * misses nothing. */
  atomic_thread_fence(memory_order_seq_cst);
  return seen;
}

/* As mpx_sleep; after it, look again. */
static inline bool mpx_turn_sleep(mpx_turn *turn, uint32_t seen, int64_t deadline) {
  return mpx_sleep(&turn->word, seen, deadline);
}

static inline bool mpx_turn_is_waited(const mpx_turn *turn) {
  return (atomic_load(&turn->word) & MPX_TURN_WAITED) != 0;
}
void mpx_turn_wake(mpx_turn *turn, int count);
static inline bool mpx_turn_has_sleepers(mpx_turn *turn) {
  return mpx_turn_is_waited(turn) && mpx_os_word_sleepers(&turn->word) > 0;
}

/* How long somebody who is awake may take to sleep again, where he looks at a few words. */
#define MPX_TURN_GRACE_NS (2 * MPX_NS_PER_MS)
/* Whether somebody sleeps at one of them, or was there and comes back to sleep within `grace_ns`:
 * one who is stopped does not. The marks may be gone after it: who listens to a notice is looked
 * for by others. */
bool mpx_turn_gets_sleepers(mpx_turn *const *turns, int count, int64_t grace_ns);
/* The same within MPX_TURN_GRACE_NS, where nobody need be awaited who was woken by a turn: the end
 * does him no harm. */
bool mpx_turn_is_used(mpx_turn *turn);

/* After a sleep: whether a look at the object finds what was the object's, also if that was
 * destroyed meanwhile, as its block stays what it is for a while: the turn went on since `seen`.
 * Other data hardly look so, and zeros do not. */
bool mpx_turn_may_look(const void *object, mpx_kind kind, const mpx_turn *turn, uint32_t seen);

/* Lets at most `count` sleepers look again, where the change was a sequentially consistent
 * read-modify-write: either the waiter sees it when it looks again, or we see its mark.
 * [child]: usable in a signal handler. */
static inline void mpx_turn_tell(mpx_turn *turn, int count) {
  if (mpx_turn_is_waited(turn))
    mpx_turn_wake(turn, count);
}

/* The same after any other change. */
static inline void mpx_turn_next(mpx_turn *turn, int count) {
  atomic_thread_fence(memory_order_seq_cst);
  mpx_turn_tell(turn, count);
}

/* As mpx_object_destroy; who has come since mpx_turn_is_used said no is told. */
int mpx_turn_destroy(void *object, mpx_kind kind, mpx_turn *turn);

#endif
