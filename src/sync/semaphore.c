/* Semaphore: a number of permits. Tracked, each permit is a word that says who has it. */
#include "base/error.h"
#include "os/crash_point.h"
#include "sync/layout.h"

#include <errno.h>

static int check_options(int value, const mproc_semaphore_options *options) {
  int r = mpx_check_reserved(options->reserved, "mproc_semaphore_options");
  int most = options->tracked ? MPX_SEMAPHORE_MOST_TRACKED : MPX_SEMAPHORE_MOST;
  if (r == 0 && (value < 0 || value > most))
    r = mpx_fail(-EINVAL, "a%s semaphore has 0 to %d permits, not %d",
                 options->tracked ? " tracked" : "", most, value);
  return r;
}

int mproc_semaphore_create(int value, const mproc_semaphore_options *options,
                           mproc_semaphore **ret_semaphore) {
  static const mproc_semaphore_options defaults;
  const mproc_semaphore_options *o = options ? options : &defaults;
  mproc_semaphore *semaphore;
  void *memory;
  int r = mpx_check_not_null(ret_semaphore, "ret_semaphore");
  if (r == 0)
    r = check_options(value, o);
  size_t owners = o->tracked ? (size_t)(r < 0 ? 0 : value) : 0;
  if (r == 0)
    r = mpx_object_alloc(sizeof *semaphore + owners * sizeof(mpx_thread), &memory);
  if (r != 0)
    return r;
  semaphore = memory;
  semaphore->first = value;
  semaphore->bounded = o->bounded || o->tracked;
  semaphore->tracked = o->tracked != 0;
  atomic_store_explicit(&semaphore->value, value, memory_order_relaxed);
  *ret_semaphore = semaphore;
  return mpx_object_publish(semaphore, MPX_KIND_SEMAPHORE);
}

/* ---- taking ---------------------------------------------------------------------------------- */

static bool take_counted(mproc_semaphore *semaphore) {
  int32_t seen = atomic_load_explicit(&semaphore->value, memory_order_relaxed);
  while (seen > 0)
    /* acquire: pairs with the release of who gave the permit */
    if (atomic_compare_exchange_weak_explicit(&semaphore->value, &seen, seen - 1,
                                              memory_order_acquire, memory_order_relaxed))
      return true;
  return false;
}

/* 0, MPROC_OWNER_DIED, or -EBUSY. The claim and the claimant are one CAS. */
static int take_tracked(mproc_semaphore *semaphore, mpx_thread self, bool from_the_dead) {
  for (int32_t i = 0; i < semaphore->first; i++) {
    mpx_thread seen = atomic_load_explicit(&semaphore->owners[i], memory_order_relaxed);
    if (seen != 0 && !(from_the_dead && mpx_thread_is_dead(mpx_family_header(), seen)))
      continue;
    bool died = seen != 0;
    if (atomic_compare_exchange_strong_explicit(&semaphore->owners[i], &seen, self,
                                                memory_order_acquire, memory_order_relaxed)) {
      MPROC_CRASH_POINT("semaphore.taken");
      return died ? MPROC_OWNER_DIED : 0;
    }
  }
  return -EBUSY;
}

static int take(mproc_semaphore *semaphore, mpx_thread self) {
  if (!semaphore->tracked)
    return take_counted(semaphore) ? 0 : -EBUSY;
  int r = take_tracked(semaphore, self, false);
  return r == -EBUSY ? take_tracked(semaphore, self, true) : r;
}

static bool has_more(mproc_semaphore *semaphore) {
  if (!semaphore->tracked)
    return atomic_load_explicit(&semaphore->value, memory_order_relaxed) > 0;
  for (int32_t i = 0; i < semaphore->first; i++)
    if (atomic_load_explicit(&semaphore->owners[i], memory_order_relaxed) == 0)
      return true;
  return false;
}

/* Who was woken takes it. -EBUSY: there is none. */
static int take_when_woken(mproc_semaphore *semaphore, mpx_thread self) {
  int r = take(semaphore, self);
  if (r != -EBUSY && has_more(semaphore)) /* whoever should have taken that may have died */
    mpx_turn_next(&semaphore->turn, 1);
  return r;
}

int mproc_semaphore_acquire(mproc_semaphore *semaphore, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(semaphore, MPX_KIND_SEMAPHORE, timeout_ms, &self);
  if (r < 0)
    return r;
  r = take(semaphore, self);
  if (r != -EBUSY)
    return r;
  if (timeout_ms == 0)
    return mpx_timeout_fail(timeout_ms, "the semaphore has no permit left");
  int64_t deadline = mpx_deadline(mpx_os_now(), timeout_ms);
  for (;;) {
    uint32_t turn = mpx_turn_prepare(&semaphore->turn);
    r = take_when_woken(semaphore, self);
    if (r != -EBUSY)
      return r;
    if (mpx_object_check_again(semaphore, MPX_KIND_SEMAPHORE) < 0)
      return MPROC_ECLOSED;
    MPROC_CRASH_POINT("semaphore.waits");
    if (!mpx_turn_sleep(&semaphore->turn, turn, deadline))
      return mpx_timeout_fail(timeout_ms, "the semaphore got no permit");
    MPROC_CRASH_POINT("semaphore.woken");
    /* before the next mark: its memory may be anything's. A permit that was given counts also if
     * the semaphore was destroyed at once */
    if (mpx_turn_may_look(semaphore, MPX_KIND_SEMAPHORE, &semaphore->turn, turn))
      r = take_when_woken(semaphore, self);
    if (r != -EBUSY)
      return r;
    if (mpx_object_check_again(semaphore, MPX_KIND_SEMAPHORE) < 0)
      return MPROC_ECLOSED;
  }
}

/* ---- giving ---------------------------------------------------------------------------------- */

static int give_counted(mproc_semaphore *semaphore, int count) {
  int32_t most = semaphore->bounded ? semaphore->first : MPX_SEMAPHORE_MOST;
  int32_t seen = atomic_load_explicit(&semaphore->value, memory_order_relaxed);
  do
    if (count > most - seen)
      return mpx_fail(-EOVERFLOW, "%d permits more than the %d that are left would be above %d",
                      count, seen, most);
  while (!atomic_compare_exchange_weak(&semaphore->value, &seen, seen + count));
  return 0;
}

static int give_tracked(mproc_semaphore *semaphore, mpx_thread self, int count) {
  int own = 0;
  for (int32_t i = 0; i < semaphore->first; i++)
    own += atomic_load_explicit(&semaphore->owners[i], memory_order_relaxed) == self;
  if (own < count)
    return mpx_fail(-EPERM, "the calling thread has %d permits of the tracked semaphore, not %d",
                    own, count);
  int left = count;
  for (int32_t i = 0; i < semaphore->first && left > 0; i++) {
    mpx_thread seen = atomic_load_explicit(&semaphore->owners[i], memory_order_relaxed);
    if (seen != self)
      continue;
    MPROC_CRASH_POINT("semaphore.gives");
    /* by CAS: a handler of this thread may give it meanwhile, and then it is another's */
    left -= atomic_compare_exchange_strong(&semaphore->owners[i], &seen, 0);
  }
  return left < count ? 0 : mpx_fail(-EPERM, "a signal handler has given what the thread had");
}

int mproc_semaphore_release(mproc_semaphore *semaphore, int count) {
  mpx_thread self;
  int r = mpx_object_enter(semaphore, MPX_KIND_SEMAPHORE, &self);
  if (r < 0)
    return r;
  if (count < 1)
    return mpx_fail(-EINVAL, "%d permits cannot be given; at least 1", count);
  r = semaphore->tracked ? give_tracked(semaphore, self, count) : give_counted(semaphore, count);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("semaphore.given");
  mpx_turn_next(&semaphore->turn, count);
  return 0;
}

/* ---- the rest -------------------------------------------------------------------------------- */

int mproc_semaphore_value(const mproc_semaphore *semaphore) {
  int r = mpx_object_check(semaphore, MPX_KIND_SEMAPHORE);
  if (r < 0)
    return r;
  if (!semaphore->tracked)
    return atomic_load_explicit(&semaphore->value, memory_order_relaxed);
  int left = 0;
  for (int32_t i = 0; i < semaphore->first; i++)
    left += atomic_load_explicit(&semaphore->owners[i], memory_order_relaxed) == 0;
  return left;
}

int mproc_semaphore_destroy(mproc_semaphore *semaphore) {
  if (!semaphore)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(semaphore, MPX_KIND_SEMAPHORE, &self);
  if (r < 0)
    return r;
  if (mpx_turn_is_used(&semaphore->turn))
    return mpx_fail(-EBUSY, "somebody waits for the semaphore");
  for (int32_t i = 0; semaphore->tracked && i < semaphore->first; i++) {
    mpx_thread owner = atomic_load_explicit(&semaphore->owners[i], memory_order_relaxed);
    if (owner && !mpx_thread_is_dead(mpx_family_header(), owner))
      return mpx_fail(-EBUSY, "somebody has a permit of the semaphore");
  }
  return mpx_turn_destroy(semaphore, MPX_KIND_SEMAPHORE, &semaphore->turn);
}
