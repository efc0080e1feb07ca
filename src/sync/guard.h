/* A mutex of ours inside an object, held for an instant, around what is right after any death. */
#ifndef MPX_SYNC_GUARD_H
#define MPX_SYNC_GUARD_H

#include "sync/mutex.h"

/* How long a function without a timeout waits for it. */
#define MPX_GUARD_NS (1000 * MPX_NS_PER_MS)

/* Until `deadline` (0: a try), but for 100 ms in any case: an instant is no wait. `object` as of
 * mpx_mutex_lock_until. 0, or MPROC_OWNER_DIED (marked as repaired: the caller does it).
 * -ETIMEDOUT, or -EAGAIN for a try: a thread is stopped inside of the object; says so.
 * MPROC_ECLOSED: the object was destroyed. */
int mpx_guard_lock(mpx_mutex *guard, const void *object, mpx_thread self, int64_t deadline);

/* The same of an object where who comes in waits: if the guard's owner died destroying it, nobody
 * comes in any more. */
int mpx_guard_lock_of(const void *object, mpx_kind kind, mpx_mutex *guard, mpx_thread self,
                      int64_t deadline);

/* For those who can do without: as above, waits for no living thread and says nothing. */
int mpx_guard_try(mpx_mutex *guard, mpx_thread self);

static inline void mpx_guard_unlock(mpx_mutex *guard) {
  mpx_mutex_unlock_own(guard);
}

/* The owner lets go of it for good: MPROC_ECLOSED for all others. */
static inline void mpx_guard_close(mpx_mutex *guard) {
  mpx_mutex_close_own(guard);
}

#endif
