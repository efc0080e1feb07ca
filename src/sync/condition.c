/* Condition: whoever waits stands in a roster and sleeps on a word of his own, so that a
 * notification goes to one who is alive, the one that has waited longest.
 *
 * An entry is there from before the lock is let go until after it is held again. A waiter that is
 * killed in between, having been told, leaves an entry that says so: others who wait find it when
 * they look, and tell the next, the heir.
 *
 * A notification has a number, which stands in the entry of whoever was told. The one store that
 * tells the heir passes it on: from then on two entries bear the number, and that of the dead may
 * be freed at any time, by whoever finds it so, or by the heir before its own. Until then the dead
 * one's stays, so that no death in between loses the notification. */
#include "base/error.h"
#include "os/crash_point.h"
#include "sync/guard.h"
#include "sync/layout.h"

#include "mproc/heap.h"

#include <errno.h>

enum { NOT_TOLD = MPROC_OWNER_DIED + 1 };

int mproc_condition_create(const mproc_condition_options *options,
                           mproc_condition **ret_condition) {
  static const mproc_condition_options defaults;
  const mproc_condition_options *o = options ? options : &defaults;
  mproc_condition *condition;
  mproc_rlock *rlock = o->rlock;
  void *memory;
  int r = mpx_check_not_null(ret_condition, "ret_condition");
  if (r == 0)
    r = mpx_check_reserved(o->reserved, "mproc_condition_options");
  if (r == 0 && o->lock && o->rlock)
    r = mpx_fail(-EINVAL, "a condition has one lock: options.lock or options.rlock, not both");
  if (r == 0 && o->lock)
    r = mpx_object_check(o->lock, MPX_KIND_LOCK);
  if (r == 0 && o->rlock)
    r = mpx_object_check(o->rlock, MPX_KIND_RLOCK);
  if (r == 0)
    r = mpx_object_alloc(sizeof *condition, &memory);
  if (r != 0)
    return r;
  condition = memory;
  if (!o->lock && !rlock)
    r = mproc_rlock_create(&rlock);
  if (r < 0) {
    (void)mproc_heap_free(memory);
    return r;
  }
  condition->lock = o->lock;
  condition->rlock = rlock;
  condition->has_own = !o->lock && !o->rlock;
  *ret_condition = condition;
  return mpx_object_publish(condition, MPX_KIND_CONDITION);
}

/* ---- its lock -------------------------------------------------------------------------------- */

int mproc_condition_acquire(mproc_condition *condition, int timeout_ms) {
  int r = mpx_object_check(condition, MPX_KIND_CONDITION);
  if (r < 0)
    return r;
  return condition->lock ? mproc_lock_acquire(condition->lock, timeout_ms)
                         : mproc_rlock_acquire(condition->rlock, timeout_ms);
}

int mproc_condition_release(mproc_condition *condition) {
  int r = mpx_object_check(condition, MPX_KIND_CONDITION);
  if (r < 0)
    return r;
  return condition->lock ? mproc_lock_release(condition->lock)
                         : mproc_rlock_release(condition->rlock);
}

int mproc_condition_consistent(mproc_condition *condition) {
  int r = mpx_object_check(condition, MPX_KIND_CONDITION);
  if (r < 0)
    return r;
  return condition->lock ? mproc_lock_consistent(condition->lock)
                         : mproc_rlock_consistent(condition->rlock);
}

/* As mpx_object_enter, for a thread that holds the lock. */
static int enter_held(mproc_condition *condition, mpx_thread *ret_self) {
  int r = mpx_object_enter(condition, MPX_KIND_CONDITION, ret_self);
  if (r < 0 || mpx_mutex_owner(mpx_condition_mutex(condition)) == *ret_self)
    return r;
  return mpx_fail(-EPERM, "the calling thread does not hold the condition's lock");
}

/* 0, or as mpx_guard_lock; what a dead one left needs no repair. */
static int lock_guard(mproc_condition *condition, mpx_thread self, int64_t deadline) {
  int r = mpx_guard_lock_of(condition, MPX_KIND_CONDITION, &condition->guard, self, deadline);
  return r < 0 ? r : 0;
}

/* ---- telling --------------------------------------------------------------------------------- */

static uint32_t word_of(const mpx_entry *entry) {
  /* acquire: pairs with the release in tell */
  return atomic_load_explicit(&entry->word, memory_order_acquire);
}

static bool is_told(const mpx_entry *entry) {
  return mpx_is_told(word_of(entry));
}

static uint64_t news_of(const mpx_entry *entry) {
  return atomic_load_explicit(&entry->news, memory_order_relaxed);
}

/* Under the guard: who has waited longest and is alive. Forgets the dead whom it meets. */
static mpx_entry *find_oldest(mproc_condition *condition) {
  mpx_entry *oldest = NULL;
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&condition->waiters, entry));) {
    if (word_of(entry) != MPX_WAITS || (oldest && entry->number > oldest->number))
      continue;
    if (mpx_entry_is_dead(entry))
      mpx_entry_free(entry);
    else
      oldest = entry;
  }
  return oldest;
}

/* Under the guard: tells the oldest the notification `news`. False: nobody waits. */
static bool tell(mproc_condition *condition, uint32_t how, uint64_t news) {
  mpx_entry *entry;
  uint32_t seen;
  do {
    entry = find_oldest(condition);
    if (!entry)
      return false;
    atomic_store_explicit(&entry->news, news, memory_order_relaxed);
    MPROC_CRASH_POINT("condition.tells");
    seen = MPX_WAITS; /* release: pairs with the acquire in word_of */
  } while (!atomic_compare_exchange_strong_explicit(&entry->word, &seen, how, memory_order_release,
                                                    memory_order_relaxed));
  MPROC_CRASH_POINT("condition.told");
  mpx_os_word_wake(&entry->word, 1);
  return true;
}

static bool has_heir(mproc_condition *condition, const mpx_entry *of) {
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&condition->waiters, entry));)
    if (entry != of && is_told(entry) && news_of(entry) == news_of(of))
      return true;
  return false;
}

/* Under the guard: forgets the dead, and tells others what they had been told, if anybody waits.
 * An heir may leave meanwhile: it frees the dead one's entry, then its own, so that who does not
 * find the heir's looks whether the dead one's is still there. */
static void pass_on(mproc_condition *condition) {
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&condition->waiters, entry));) {
    if (!mpx_entry_is_dead(entry))
      continue;
    if (is_told(entry) && !has_heir(condition, entry) && mpx_entry_thread(entry) != 0)
      (void)tell(condition, MPX_HEIR, news_of(entry));
    MPROC_CRASH_POINT("condition.passed_on");
    mpx_entry_free(entry);
  }
}

static int notify(mproc_condition *condition, int count) {
  mpx_thread self;
  int told = 0, r = enter_held(condition, &self);
  if (r == 0)
    r = lock_guard(condition, self, mpx_os_now() + MPX_GUARD_NS);
  if (r < 0)
    return r;
  pass_on(condition);
  while (told < count && tell(condition, MPX_TOLD, condition->next_number++))
    told++;
  mpx_guard_unlock(&condition->guard);
  return told;
}

int mproc_condition_notify(mproc_condition *condition, int count) {
  if (count < 1)
    return mpx_fail(-EINVAL, "%d waiters cannot be notified; at least 1", count);
  return notify(condition, count);
}

int mproc_condition_notify_all(mproc_condition *condition) {
  return notify(condition, INT32_MAX);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static int stand_in(mproc_condition *condition, mpx_thread self, int64_t deadline,
                    mpx_entry **ret_entry) {
  int r = lock_guard(condition, self, deadline);
  if (r < 0)
    return r;
  r = mpx_roster_reserve(&condition->waiters, condition->next_number++, ret_entry);
  if (r == 0)
    mpx_entry_set(*ret_entry, self);
  mpx_guard_unlock(&condition->guard);
  return r;
}

/* What a dead waiter had been told is told to another. Who holds the guard looks itself. */
static void look_after_others(mproc_condition *condition, mpx_thread self) {
  if (mpx_guard_try(&condition->guard, self) < 0)
    return;
  pass_on(condition);
  mpx_guard_unlock(&condition->guard);
}

/* Looks before it gives up as well: many short waits are as good as a long one. */
static void await_word(mproc_condition *condition, mpx_entry *entry, mpx_thread self,
                       int64_t deadline) {
  int64_t looked = mpx_os_now();
  for (bool in_time = true; in_time && word_of(entry) == MPX_WAITS;) {
    MPROC_CRASH_POINT("condition.waits");
    in_time = mpx_sleep(&entry->word, MPX_WAITS, deadline);
    MPROC_CRASH_POINT("condition.woken");
    int64_t now = mpx_os_now();
    if (in_time && now - looked < MPX_LOOK_NS)
      continue;
    look_after_others(condition, self);
    looked = now;
  }
}

/* The lock is held again: from now on nobody else needs to know what we were told. Without the
 * guard, so that nobody can keep us here. Returns whether we were told. */
static bool step_out(mproc_condition *condition, mpx_entry *own) {
  uint32_t seen = MPX_WAITS;
  bool told = !atomic_compare_exchange_strong_explicit(&own->word, &seen, MPX_LEFT,
                                                       memory_order_acquire, memory_order_acquire);
  if (seen == MPX_HEIR)
    for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&condition->waiters, entry));) {
      /* read first: an entry that became another's since then is not freed */
      mpx_thread thread = mpx_entry_thread(entry);
      if (entry != own && is_told(entry) && news_of(entry) == news_of(own))
        (void)mpx_entry_free_of(entry, thread);
    }
  mpx_entry_free(own);
  return told;
}

/* It may have been destroyed while nobody held it, and its memory be anything's. */
static int take_back(mproc_condition *condition, mpx_thread self) {
  int r = condition->lock ? mpx_object_check_again(condition->lock, MPX_KIND_LOCK)
                          : mpx_object_check_again(condition->rlock, MPX_KIND_RLOCK);
  if (r < 0)
    return MPROC_ECLOSED;
  const void *object = condition->lock ? (void *)condition->lock : (void *)condition->rlock;
  return mpx_mutex_lock_until(mpx_condition_mutex(condition), object, self, MPX_NEVER);
}

/* As mproc_condition_wait, but NOT_TOLD when the time is over. */
static int wait_until(mproc_condition *condition, mpx_thread self, int64_t deadline) {
  uint32_t depth = condition->rlock ? condition->rlock->depth : 0;
  mpx_entry *entry;
  int r = stand_in(condition, self, deadline, &entry);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("condition.stands");
  if (condition->rlock)
    condition->rlock->depth = 1; /* as any release leaves it */
  mpx_mutex_unlock_own(mpx_condition_mutex(condition));
  await_word(condition, entry, self, deadline);
  r = take_back(condition, self);
  if (r >= 0 && condition->rlock)
    condition->rlock->depth = depth;
  MPROC_CRASH_POINT("condition.back");
  bool told = step_out(condition, entry);
  if (r < 0)
    return mpx_mutex_fail(r, MPROC_FOREVER, "the condition's lock");
  return r == 0 && !told ? NOT_TOLD : r;
}

int mproc_condition_wait(mproc_condition *condition, int timeout_ms) {
  mpx_thread self;
  int r = enter_held(condition, &self);
  if (r == 0)
    r = mpx_timeout_check(timeout_ms);
  if (r == 0)
    r = wait_until(condition, self, mpx_deadline_or_try(timeout_ms));
  return r == NOT_TOLD ? mpx_timeout_fail(timeout_ms, "the condition was not notified") : r;
}

int mproc_condition_wait_for(mproc_condition *condition, int (*predicate)(void *arg), void *arg,
                             int timeout_ms) {
  mpx_thread self;
  int r = mpx_check_not_null((const void *)(uintptr_t)predicate, "predicate");
  if (r == 0)
    r = enter_held(condition, &self);
  if (r == 0)
    r = mpx_timeout_check(timeout_ms);
  if (r < 0)
    return r;
  int64_t deadline = mpx_deadline_or_try(timeout_ms);
  for (bool is_over = false;;) {
    int result = predicate(arg);
    if (result || is_over)
      return result;
    r = wait_until(condition, self, deadline);
    if (r < 0)
      return r;
    is_over = mpx_os_now() >= deadline; /* what a dead owner left hides whether we were told */
  }
}

int mproc_condition_destroy(mproc_condition *condition) {
  if (!condition)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(condition, MPX_KIND_CONDITION, &self);
  if (r == 0)
    r = lock_guard(condition, self, mpx_os_now() + MPX_GUARD_NS);
  if (r < 0)
    return r;
  pass_on(condition);
  if (mpx_roster_next(&condition->waiters, NULL))
    r = mpx_fail(-EBUSY, "somebody waits for the condition");
  else if (condition->has_own)
    r = mpx_mutex_close(&condition->rlock->mutex, self);
  if (r < 0) {
    mpx_guard_unlock(&condition->guard);
    return r;
  }
  (void)mpx_object_end(condition, MPX_KIND_CONDITION);
  mpx_guard_close(&condition->guard); /* who is about to stand in does not */
  mpx_roster_fini(&condition->waiters);
  if (condition->has_own)
    (void)mpx_object_destroy(condition->rlock, MPX_KIND_RLOCK);
  mpx_object_keep(condition);
  return 0;
}
