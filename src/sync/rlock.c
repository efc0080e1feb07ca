/* RLock: a mutex that its owner may take again. */
#include "sync/lock.h"

#include "base/error.h"
#include "sync/owner.h"

#include <errno.h>

int mproc_rlock_create(mproc_rlock **ret_rlock) {
  void *rlock;
  int r = mpx_check_not_null(ret_rlock, "ret_rlock");
  if (r == 0)
    r = mpx_object_alloc(sizeof(mproc_rlock), &rlock);
  if (r != 0)
    return r;
  *ret_rlock = rlock;
  return mpx_object_publish(rlock, MPX_KIND_RLOCK);
}

static int acquire_again(mproc_rlock *rlock) {
  if (rlock->depth == UINT32_MAX)
    return mpx_fail(-EOVERFLOW, "the RLock was acquired %u times", UINT32_MAX);
  rlock->depth++;
  return atomic_load_explicit(&rlock->mutex.word, memory_order_relaxed) & MPX_MUTEX_DIED
             ? MPROC_OWNER_DIED
             : 0;
}

int mproc_rlock_acquire(mproc_rlock *rlock, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(rlock, MPX_KIND_RLOCK, timeout_ms, &self);
  if (r < 0)
    return r;
  if (mpx_mutex_owner(&rlock->mutex) == self)
    return acquire_again(rlock);
  r = mpx_mutex_lock(&rlock->mutex, rlock, self, timeout_ms);
  if (r < 0)
    return mpx_mutex_fail(r, timeout_ms, "the RLock");
  rlock->depth = 1; /* whatever a dead owner left */
  return r;
}

int mproc_rlock_release(mproc_rlock *rlock) {
  mpx_thread self;
  int r = mpx_object_enter(rlock, MPX_KIND_RLOCK, &self);
  if (r < 0)
    return r;
  if (mpx_mutex_owner(&rlock->mutex) != self)
    return mpx_fail(-EPERM, "the calling thread does not hold the RLock");
  if (rlock->depth > 1)
    rlock->depth--;
  else
    mpx_mutex_unlock_own(&rlock->mutex);
  return 0;
}

int mproc_rlock_consistent(mproc_rlock *rlock) {
  mpx_thread self;
  int r = mpx_object_enter(rlock, MPX_KIND_RLOCK, &self);
  return r < 0 ? r : mpx_mutex_repaired(&rlock->mutex, self);
}

int mproc_rlock_locked(const mproc_rlock *rlock) {
  int r = mpx_object_check(rlock, MPX_KIND_RLOCK);
  return r < 0 ? r : mpx_mutex_owner(&rlock->mutex) != 0;
}

int mproc_rlock_owner(const mproc_rlock *rlock, mproc_owner *ret_owner) {
  int r = mpx_object_check(rlock, MPX_KIND_RLOCK);
  return r < 0 ? r : mpx_owner_say(mpx_mutex_owner(&rlock->mutex), ret_owner);
}

int mproc_rlock_destroy(mproc_rlock *rlock) {
  if (!rlock)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(rlock, MPX_KIND_RLOCK, &self);
  return r < 0 ? r : mpx_mutex_destroy(rlock, MPX_KIND_RLOCK, &rlock->mutex, self);
}
