/* RWLock: many readers, or one writer. The writer's word keeps new readers out; who reads stands in
 * a roster, so that the dead among them are known. */
#include "base/error.h"
#include "os/crash_point.h"
#include "sync/guard.h"
#include "sync/layout.h"
#include "sync/owner.h"

#include <errno.h>

int mproc_rwlock_create(mproc_rwlock **ret_rwlock) {
  void *rwlock;
  int r = mpx_check_not_null(ret_rwlock, "ret_rwlock");
  if (r == 0)
    r = mpx_object_alloc(sizeof(mproc_rwlock), &rwlock);
  if (r != 0)
    return r;
  *ret_rwlock = rwlock;
  return mpx_object_publish(rwlock, MPX_KIND_RWLOCK);
}

/* ---- readers --------------------------------------------------------------------------------- */

static int read_result(mproc_rwlock *rwlock) {
  uint64_t word = atomic_load_explicit(&rwlock->writer.word, memory_order_acquire);
  return word & MPX_MUTEX_DIED ? MPROC_OWNER_DIED : 0;
}

/* Under the guard: 0, or -EBUSY while there is a writer. */
static int try_to_read(mproc_rwlock *rwlock, mpx_thread self) {
  mpx_entry *entry;
  if (mpx_mutex_owner(&rwlock->writer) != 0)
    return -EBUSY;
  int r = mpx_roster_reserve(&rwlock->readers, 0, &entry);
  if (r < 0)
    return r;
  entry->count = 1;
  MPROC_CRASH_POINT("rwlock.reader");
  mpx_entry_set(entry, self);
  return read_result(rwlock);
}

static int read_again(mproc_rwlock *rwlock, mpx_entry *entry) {
  if (entry->count == UINT32_MAX)
    return mpx_fail(-EOVERFLOW, "the thread reads already, %u times", UINT32_MAX);
  entry->count++;
  return read_result(rwlock);
}

int mproc_rwlock_acquire_read(mproc_rwlock *rwlock, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(rwlock, MPX_KIND_RWLOCK, timeout_ms, &self);
  if (r < 0)
    return r;
  if (mpx_mutex_owner(&rwlock->writer) == self)
    return mpx_fail(-EDEADLK, "the calling thread writes; it cannot read as well");
  mpx_entry *entry = mpx_roster_find(&rwlock->readers, self);
  if (entry)
    return read_again(rwlock, entry);
  int64_t deadline = mpx_deadline_or_try(timeout_ms);
  for (;;) {
    r = mpx_guard_lock(&rwlock->guard, rwlock, self, deadline);
    if (r < 0)
      return r;
    r = try_to_read(rwlock, self);
    mpx_guard_unlock(&rwlock->guard);
    if (r != -EBUSY)
      return r;
    r = mpx_mutex_await(&rwlock->writer, rwlock, deadline);
    if (r < 0)
      return mpx_mutex_fail(r, timeout_ms, "the RWLock");
  }
}

/* ---- writers --------------------------------------------------------------------------------- */

/* Under the guard: whether somebody reads who is alive. */
static bool has_readers(mproc_rwlock *rwlock) {
  bool has = false;
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&rwlock->readers, entry));)
    if (mpx_entry_is_dead(entry))
      mpx_entry_free(entry);
    else
      has = has || mpx_entry_thread(entry) != 0;
  return has;
}

static int await_readers(mproc_rwlock *rwlock, mpx_thread self, int64_t deadline, int timeout_ms) {
  for (;;) {
    uint32_t turn = mpx_turn_prepare(&rwlock->turn);
    int r = mpx_guard_lock(&rwlock->guard, rwlock, self, deadline);
    if (r < 0)
      return r;
    bool has = has_readers(rwlock);
    mpx_guard_unlock(&rwlock->guard);
    if (!has)
      return 0;
    MPROC_CRASH_POINT("rwlock.awaits_readers");
    if (timeout_ms == 0 || !mpx_turn_sleep(&rwlock->turn, turn, deadline))
      return mpx_timeout_fail(timeout_ms, "readers did not release the RWLock");
  }
}

int mproc_rwlock_acquire_write(mproc_rwlock *rwlock, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(rwlock, MPX_KIND_RWLOCK, timeout_ms, &self);
  if (r < 0)
    return r;
  if (mpx_mutex_owner(&rwlock->writer) == self || mpx_roster_find(&rwlock->readers, self))
    return mpx_fail(-EDEADLK, "the calling thread holds the RWLock already; release it first");
  int64_t deadline = mpx_deadline_or_try(timeout_ms);
  int died = mpx_mutex_lock(&rwlock->writer, rwlock, self, timeout_ms);
  if (died < 0)
    return mpx_mutex_fail(died, timeout_ms, "the RWLock");
  MPROC_CRASH_POINT("rwlock.writer");
  r = await_readers(rwlock, self, deadline, timeout_ms);
  if (r < 0)
    mpx_mutex_unlock_own(&rwlock->writer);
  return r < 0 ? r : died;
}

/* ---- the rest -------------------------------------------------------------------------------- */

int mproc_rwlock_release(mproc_rwlock *rwlock) {
  mpx_thread self;
  int r = mpx_object_enter(rwlock, MPX_KIND_RWLOCK, &self);
  if (r < 0)
    return r;
  if (mpx_mutex_owner(&rwlock->writer) == self) {
    mpx_mutex_unlock_own(&rwlock->writer);
    return 0;
  }
  mpx_entry *entry = mpx_roster_find(&rwlock->readers, self);
  if (!entry)
    return mpx_fail(-EPERM, "the calling thread does not hold the RWLock");
  if (--entry->count == 0) {
    mpx_entry_free(entry);
    mpx_turn_next(&rwlock->turn, 1);
  }
  return 0;
}

int mproc_rwlock_consistent(mproc_rwlock *rwlock) {
  mpx_thread self;
  int r = mpx_object_enter(rwlock, MPX_KIND_RWLOCK, &self);
  return r < 0 ? r : mpx_mutex_repaired(&rwlock->writer, self);
}

int mproc_rwlock_readers(const mproc_rwlock *rwlock) {
  mpx_thread self;
  int count = 0, r = mpx_object_enter(rwlock, MPX_KIND_RWLOCK, &self);
  if (r < 0)
    return r;
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&rwlock->readers, entry));)
    count += mpx_entry_thread(entry) != 0 && !mpx_entry_is_dead(entry);
  return count;
}

int mproc_rwlock_owner(const mproc_rwlock *rwlock, mproc_owner *ret_owner) {
  int r = mpx_object_check(rwlock, MPX_KIND_RWLOCK);
  return r < 0 ? r : mpx_owner_say(mpx_mutex_owner(&rwlock->writer), ret_owner);
}

int mproc_rwlock_destroy(mproc_rwlock *rwlock) {
  if (!rwlock)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(rwlock, MPX_KIND_RWLOCK, &self);
  if (r < 0)
    return r;
  r = mpx_guard_lock(&rwlock->guard, rwlock, self, mpx_os_now() + MPX_GUARD_NS);
  if (r < 0)
    return r;
  r = has_readers(rwlock) ? mpx_fail(-EBUSY, "somebody reads; release the RWLock first")
                          : mpx_mutex_close(&rwlock->writer, self);
  if (r < 0) {
    mpx_guard_unlock(&rwlock->guard);
    return r;
  }
  (void)mpx_object_end(rwlock, MPX_KIND_RWLOCK);
  mpx_guard_close(&rwlock->guard);
  mpx_roster_fini(&rwlock->readers);
  mpx_object_keep(rwlock);
  return 0;
}
