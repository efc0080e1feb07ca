#include "sync/mutex.h"

#include "base/error.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "sync/guard.h"
#include "sync/object.h"
#include "sync/sleep.h"

#include <errno.h>

/* How long a guard is awaited at least: much longer than anybody keeps it who runs. */
#define LEAST_NS (100 * MPX_NS_PER_MS)
#define GONE (~(uint64_t)0) /* no thread is called so */

static bool is_owned(uint64_t word) {
  return (word & ~MPX_THREAD_FLAGS) != 0;
}

/* Free, or its owner is dead: then it is ours. `keep`: WAITED when we slept. Returns -EBUSY when
 * somebody has it, MPROC_ECLOSED when there is no lock any more. */
static int try_once(mpx_mutex *mutex, mpx_thread self, uint64_t keep, bool look_for_death) {
  uint64_t seen = atomic_load_explicit(&mutex->word, memory_order_relaxed);
  for (;;) {
    uint64_t wanted = self | keep | (seen & MPX_THREAD_FLAGS);
    if (seen == GONE)
      return MPROC_ECLOSED;
    if (is_owned(seen)) {
      if (!look_for_death || !mpx_thread_is_dead(mpx_family_header(), seen & ~MPX_THREAD_FLAGS))
        return -EBUSY;
      wanted |= MPX_MUTEX_DIED;
      MPROC_CRASH_POINT("mutex.found_dead");
    }
    /* acquire: pairs with the release of the owner, or with the last thing a dead one did */
    if (atomic_compare_exchange_weak_explicit(&mutex->word, &seen, wanted, memory_order_acquire,
                                              memory_order_relaxed)) {
      MPROC_CRASH_POINT("mutex.taken");
      return (wanted & MPX_MUTEX_DIED) != 0;
    }
  }
}

/* Says that somebody sleeps. False: there is no owner any more. */
static bool mark_waited(mpx_mutex *mutex, uint64_t *ret_word) {
  uint64_t seen = atomic_load_explicit(&mutex->word, memory_order_relaxed);
  while (is_owned(seen) && seen != GONE) {
    *ret_word = seen | MPX_MUTEX_WAITED;
    if ((seen & MPX_MUTEX_WAITED) ||
        atomic_compare_exchange_weak_explicit(&mutex->word, &seen, *ret_word, memory_order_relaxed,
                                              memory_order_relaxed))
      return true;
  }
  return false;
}

/* What an object is, and whether it is so still. */
static uint32_t kind_of(const mpx_object *object) {
  return object ? atomic_load_explicit(&object->kind, memory_order_relaxed) : 0;
}

int mpx_mutex_lock_until(mpx_mutex *mutex, const void *object, mpx_thread self, int64_t deadline) {
  uint32_t kind = kind_of(object);
  int r = try_once(mutex, self, 0, deadline == 0);
  if (r != -EBUSY)
    return r;
  if (deadline == 0)
    return -EAGAIN;
  _Atomic uint32_t *low = mpx_low_half(&mutex->word);
  mpx_os_word_spin(low, atomic_load_explicit(low, memory_order_relaxed), MPX_SPIN_NS);
  for (uint64_t keep = 0;; keep = MPX_MUTEX_WAITED) {
    uint64_t word;
    r = try_once(mutex, self, keep, true);
    if (r != -EBUSY)
      return r;
    if (!mark_waited(mutex, &word))
      continue;
    MPROC_CRASH_POINT("mutex.waits");
    if (!mpx_sleep(low, (uint32_t)word, deadline))
      return -ETIMEDOUT;
    MPROC_CRASH_POINT("mutex.woken");
    if (kind_of(object) != kind)
      return MPROC_ECLOSED;
  }
}

/* Who sleeps here, and does not take the mutex, has used up the one wake of its release, which may
 * have been another's: it wakes the next. */
static int end_await(_Atomic uint32_t *low, bool wakes) {
  if (wakes)
    mpx_os_word_wake(low, 1);
  return 0;
}

int mpx_mutex_await(mpx_mutex *mutex, const void *object, int64_t deadline) {
  uint32_t kind = kind_of(object);
  _Atomic uint32_t *low = mpx_low_half(&mutex->word);
  for (bool again = false;; again = true) { /* again: it has slept, or may have */
    /* acquire: pairs with the release of the owner */
    uint64_t word, seen = atomic_load_explicit(&mutex->word, memory_order_acquire);
    if (seen == GONE)
      return MPROC_ECLOSED;
    if (!is_owned(seen))
      return end_await(low, again);
    if (mpx_thread_is_dead(mpx_family_header(), seen & ~MPX_THREAD_FLAGS)) {
      if (!atomic_compare_exchange_strong_explicit(&mutex->word, &seen, MPX_MUTEX_DIED,
                                                   memory_order_acq_rel, memory_order_relaxed))
        continue;
      MPROC_CRASH_POINT("mutex.opened_for_dead");
      return end_await(low, again || (seen & MPX_MUTEX_WAITED));
    }
    if (deadline == 0)
      return -EAGAIN;
    if (!again)
      mpx_os_word_spin(low, (uint32_t)seen, MPX_SPIN_NS);
    if (!mark_waited(mutex, &word))
      continue;
    MPROC_CRASH_POINT("mutex.awaits");
    if (!mpx_sleep(low, (uint32_t)word, deadline))
      return -ETIMEDOUT;
    MPROC_CRASH_POINT("mutex.awaited");
    if (kind_of(object) != kind)
      return MPROC_ECLOSED;
  }
}

/* If the owner dies between the two, nobody is woken: who sleeps looks by itself. */
static bool open_with(mpx_mutex *mutex, uint64_t seen, uint64_t died) {
  /* release: pairs with the acquire of the next owner */
  if (!atomic_compare_exchange_strong_explicit(&mutex->word, &seen, died, memory_order_release,
                                               memory_order_relaxed))
    return false;
  MPROC_CRASH_POINT("mutex.released");
  if (seen & MPX_MUTEX_WAITED)
    mpx_os_word_wake(mpx_low_half(&mutex->word), 1);
  return true;
}

int mpx_mutex_unlock_any(mpx_mutex *mutex, mpx_thread self) {
  for (;;) {
    uint64_t seen = atomic_load_explicit(&mutex->word, memory_order_relaxed);
    mpx_thread owner = seen & ~MPX_THREAD_FLAGS;
    if (seen == GONE)
      return MPROC_ECLOSED;
    if (owner == 0)
      return -EPERM;
    bool died = owner != self && mpx_thread_is_dead(mpx_family_header(), owner);
    if (open_with(mutex, seen, died ? MPX_MUTEX_DIED : seen & MPX_MUTEX_DIED))
      return 0;
  }
}

void mpx_mutex_unlock_own(mpx_mutex *mutex) {
  uint64_t seen;
  do /* somebody may say meanwhile that he sleeps */
    seen = atomic_load_explicit(&mutex->word, memory_order_relaxed);
  while (!open_with(mutex, seen, seen & MPX_MUTEX_DIED));
}

int mpx_mutex_fail(int code, int timeout_ms, const char *what) {
  if (code == MPROC_ECLOSED)
    return mpx_fail(code, "%s was destroyed", what);
  return timeout_ms == 0 ? mpx_fail(code, "%s is held", what)
                         : mpx_fail(code, "%s was not released within %d ms", what, timeout_ms);
}

int mpx_mutex_repaired(mpx_mutex *mutex, mpx_thread self) {
  if (mpx_mutex_owner(mutex) != self)
    return mpx_fail(-EPERM, "the calling thread does not hold the lock that it has repaired");
  uint64_t before = atomic_fetch_and_explicit(&mutex->word, ~MPX_MUTEX_DIED, memory_order_relaxed);
  return before & MPX_MUTEX_DIED
             ? 0
             : mpx_fail(-EINVAL, "there is nothing to repair: no owner died with the lock");
}

int mpx_mutex_close(mpx_mutex *mutex, mpx_thread self) {
  int r = mpx_mutex_owner(mutex) == self ? -EAGAIN : mpx_mutex_lock(mutex, NULL, self, 0);
  if (r >= 0) {
    mpx_mutex_close_own(mutex);
    MPROC_CRASH_POINT("mutex.closed");
  }
  /* closed: by one who has died destroying the object, or is at it, see mpx_object_end */
  if (r >= 0 || r == MPROC_ECLOSED)
    return 0;
  return mpx_fail(-EBUSY, "somebody holds the lock; release it first");
}

void mpx_mutex_close_own(mpx_mutex *mutex) {
  atomic_store(&mutex->word, GONE); /* who waits, and has not been woken yet, is told */
  mpx_os_word_wake_all(mpx_low_half(&mutex->word));
}

int mpx_mutex_destroy(void *object, mpx_kind kind, mpx_mutex *mutex, mpx_thread self) {
  int r = mpx_mutex_close(mutex, self);
  return r < 0 ? r : mpx_object_destroy(object, kind);
}

static int repaired(mpx_mutex *guard, int r) {
  if (r == MPROC_OWNER_DIED)
    atomic_fetch_and_explicit(&guard->word, ~MPX_MUTEX_DIED, memory_order_relaxed);
  return r;
}

int mpx_guard_lock(mpx_mutex *guard, const void *object, mpx_thread self, int64_t deadline) {
  int64_t least = deadline == MPX_NEVER ? 0 : mpx_os_now() + LEAST_NS;
  int r = mpx_mutex_lock_until(guard, object, self, deadline < least ? least : deadline);
  if (r >= 0)
    return repaired(guard, r);
  if (r == MPROC_ECLOSED)
    return mpx_mutex_fail(r, 0, "the object");
  return mpx_fail(deadline == 0 ? -EAGAIN : r,
                  "a thread is stopped, by a signal or a debugger, inside of the object; it must "
                  "go on or be killed first");
}

int mpx_guard_lock_of(const void *object, mpx_kind kind, mpx_mutex *guard, mpx_thread self,
                      int64_t deadline) {
  int r = mpx_guard_lock(guard, object, self, deadline);
  int ended = r == MPROC_OWNER_DIED ? mpx_object_check(object, kind) : 0;
  if (ended < 0)
    mpx_guard_close(guard);
  return ended < 0 ? ended : r;
}

int mpx_guard_try(mpx_mutex *guard, mpx_thread self) {
  return repaired(guard, mpx_mutex_lock_until(guard, NULL, self, 0));
}
