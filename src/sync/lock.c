/* Lock: a mutex that anybody may open. */
#include "sync/lock.h"

#include "base/error.h"
#include "sync/owner.h"

#include <errno.h>

int mproc_lock_create(mproc_lock **ret_lock) {
  void *lock;
  int r = mpx_check_not_null(ret_lock, "ret_lock");
  if (r == 0)
    r = mpx_object_alloc(sizeof(mproc_lock), &lock);
  if (r != 0)
    return r;
  *ret_lock = lock;
  return mpx_object_publish(lock, MPX_KIND_LOCK);
}

int mproc_lock_acquire(mproc_lock *lock, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(lock, MPX_KIND_LOCK, timeout_ms, &self);
  if (r < 0)
    return r;
  r = mpx_mutex_lock(&lock->mutex, lock, self, timeout_ms);
  return r < 0 ? mpx_mutex_fail(r, timeout_ms, "the lock") : r;
}

int mproc_lock_release(mproc_lock *lock) {
  mpx_thread self;
  int r = mpx_object_enter(lock, MPX_KIND_LOCK, &self); /* a stranger's fork must not open it */
  if (r < 0)
    return r;
  r = mpx_mutex_unlock_any(&lock->mutex, self);
  if (r == -EPERM)
    return mpx_fail(r, "the lock is open: it was released more often than acquired");
  return r < 0 ? mpx_mutex_fail(r, 0, "the lock") : 0;
}

int mproc_lock_consistent(mproc_lock *lock) {
  mpx_thread self;
  int r = mpx_object_enter(lock, MPX_KIND_LOCK, &self);
  return r < 0 ? r : mpx_mutex_repaired(&lock->mutex, self);
}

int mproc_lock_locked(const mproc_lock *lock) {
  int r = mpx_object_check(lock, MPX_KIND_LOCK);
  return r < 0 ? r : mpx_mutex_owner(&lock->mutex) != 0;
}

int mproc_lock_owner(const mproc_lock *lock, mproc_owner *ret_owner) {
  int r = mpx_object_check(lock, MPX_KIND_LOCK);
  return r < 0 ? r : mpx_owner_say(mpx_mutex_owner(&lock->mutex), ret_owner);
}

int mproc_lock_destroy(mproc_lock *lock) {
  if (!lock)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(lock, MPX_KIND_LOCK, &self);
  return r < 0 ? r : mpx_mutex_destroy(lock, MPX_KIND_LOCK, &lock->mutex, self);
}
