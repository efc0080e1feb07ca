/* The word below every lock: who owns it, and what became of that.
 *
 *   0 | DIED | WAITED                 nobody owns it
 *   thread | DIED | WAITED            that thread does
 *
 * One CAS takes the word and says who took it, so that no death leaves it in between. WAITED: who
 * releases it wakes somebody; whoever slept keeps it set, for others may sleep still. DIED: an
 * owner ended with what the lock guards half changed; it stays until an owner has repaired that.
 *
 * A killed owner is noticed by its life (heap/table.h), not by the kernel's list of robust locks,
 * which holds 2,048. */
#ifndef MPX_SYNC_MUTEX_H
#define MPX_SYNC_MUTEX_H

#include "heap/table.h"
#include "mproc/sync.h"
#include "sync/object.h"
#include "sync/sleep.h"

#include <stdatomic.h>

#define MPX_MUTEX_DIED ((uint64_t)1)
#define MPX_MUTEX_WAITED ((uint64_t)2)

typedef struct mpx_mutex {
  _Atomic uint64_t word; /* whoever takes and releases it, by CAS */
} mpx_mutex;

/* Until `deadline`; 0 tries. `object`, unless NULL, is what the mutex is in: it is looked at after
 * each sleep, as it may be gone, and the memory be anything's. 0: taken. 1: taken, and what it
 * guards needs repair. -EAGAIN, -ETIMEDOUT, MPROC_ECLOSED: not taken, and mpx_mutex_fail says why.
 */
int mpx_mutex_lock_until(mpx_mutex *mutex, const void *object, mpx_thread self, int64_t deadline);

static inline int mpx_mutex_lock(mpx_mutex *mutex, const void *object, mpx_thread self,
                                 int timeout_ms) {
  uint64_t open = 0;
  /* acquire: pairs with the release of mpx_mutex_unlock */
  if (atomic_compare_exchange_strong_explicit(&mutex->word, &open, self, memory_order_acquire,
                                              memory_order_relaxed))
    return 0;
  return mpx_mutex_lock_until(mutex, object, self, mpx_deadline_or_try(timeout_ms));
}

/* As above until nobody has it, without taking it: others who want it notice nothing. What a dead
 * owner had is opened, and says that he died. */
int mpx_mutex_await(mpx_mutex *mutex, const void *object, int64_t deadline);

int mpx_mutex_fail(int code, int timeout_ms, const char *what);

/* The owner opens it. */
void mpx_mutex_unlock_own(mpx_mutex *mutex);
/* Anybody does: an owner who is dead by then has died with it. -EPERM: it is open.
 * MPROC_ECLOSED. */
int mpx_mutex_unlock_any(mpx_mutex *mutex, mpx_thread self);

/* For the functions that say so to a caller: what a dead owner left is repaired. -EPERM, -EINVAL;
 * says why. */
int mpx_mutex_repaired(mpx_mutex *mutex, mpx_thread self);
/* Takes the mutex for good, or finds that somebody has: MPROC_ECLOSED for all others. -EBUSY: held;
 * says why. */
int mpx_mutex_close(mpx_mutex *mutex, mpx_thread self);
/* The same by its owner. */
void mpx_mutex_close_own(mpx_mutex *mutex);
/* The same, and its object goes with it. */
int mpx_mutex_destroy(void *object, mpx_kind kind, mpx_mutex *mutex, mpx_thread self);

static inline mpx_thread mpx_mutex_owner(const mpx_mutex *mutex) {
  return atomic_load_explicit(&mutex->word, memory_order_relaxed) & ~MPX_THREAD_FLAGS;
}

#endif
