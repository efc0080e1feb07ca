/* Barrier: all or none. Whoever waits stands in a roster; what became of the round is decided by
 * one CAS of the state, which all see who stand there. It is then written into their entries, so
 * that the next round can begin before they have gone; each takes his own entry away.
 *
 * The guard is for those who come, and for what follows a decision. Who waits needs none: he
 * reads the state, breaks the barrier when his time is over or the action's thread is dead, and
 * goes, whoever is stopped under the guard. */
#include "base/error.h"
#include "os/crash_point.h"
#include "sync/guard.h"
#include "sync/layout.h"

#include <errno.h>

static uint32_t state_of(const mproc_barrier *barrier) {
  /* acquire: pairs with the release in change */
  return atomic_load_explicit(&barrier->state, memory_order_acquire);
}

static uint32_t phase_of(const mproc_barrier *barrier) {
  return state_of(barrier) & MPX_PHASE;
}

static bool change(mproc_barrier *barrier, uint32_t seen, uint32_t phase) {
  return atomic_compare_exchange_strong_explicit(&barrier->state, &seen,
                                                 (seen & ~(uint32_t)MPX_PHASE) | phase,
                                                 memory_order_acq_rel, memory_order_relaxed);
}

int mproc_barrier_create(int parties, mproc_barrier **ret_barrier) {
  void *barrier;
  int r = mpx_check_not_null(ret_barrier, "ret_barrier");
  if (r == 0 && parties < 1)
    r = mpx_fail(-EINVAL, "a barrier is for at least 1 thread, not for %d", parties);
  if (r == 0)
    r = mpx_object_alloc(sizeof(mproc_barrier), &barrier);
  if (r != 0)
    return r;
  ((mproc_barrier *)barrier)->parties = parties;
  *ret_barrier = barrier;
  return mpx_object_publish(barrier, MPX_KIND_BARRIER);
}

/* ---- under the guard ------------------------------------------------------------------------- */

static void begin_round(mproc_barrier *barrier) {
  uint32_t round = state_of(barrier) & ~(uint32_t)MPX_PHASE;
  atomic_store_explicit(&barrier->state, (round + MPX_ROUND) | MPX_FILLING, memory_order_release);
}

static bool waits(const mpx_entry *entry) {
  /* acquire: pairs with the release in settle */
  return atomic_load_explicit(&entry->word, memory_order_acquire) == MPX_WAITS;
}

/* What was decided is told to all; a death in the middle leaves that to the next. */
static void settle(mproc_barrier *barrier) {
  uint32_t phase = phase_of(barrier);
  if (phase != MPX_OPENING && phase != MPX_BREAKING)
    return;
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&barrier->arrived, entry));)
    if (waits(entry)) {
      atomic_store_explicit(&entry->word, phase == MPX_OPENING ? MPX_PASSED : MPX_BROKEN,
                            memory_order_release);
      MPROC_CRASH_POINT("barrier.told_one");
    }
  barrier->come = 0;
  barrier->next = 0;
  if (phase == MPX_OPENING)
    begin_round(barrier);
  else
    (void)change(barrier, state_of(barrier), MPX_IS_BROKEN);
  mpx_turn_next(&barrier->turn, MPX_TURN_ALL);
}

static void break_it(mproc_barrier *barrier) {
  uint32_t seen;
  do {
    settle(barrier); /* what was decided before stays so */
    seen = state_of(barrier);
  } while (!change(barrier, seen, MPX_BREAKING));
  MPROC_CRASH_POINT("barrier.breaks");
  settle(barrier);
}

/* Who died is not there any more: another may come in his place. */
static int count_waiting(mproc_barrier *barrier) {
  int count = 0;
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&barrier->arrived, entry));)
    if (mpx_entry_is_dead(entry))
      mpx_entry_free(entry);
    else
      count += mpx_entry_thread(entry) != 0 && waits(entry);
  barrier->come = count;
  return count;
}

static int lock(mproc_barrier *barrier, mpx_thread self, int64_t deadline) {
  int r = mpx_guard_lock_of(barrier, MPX_KIND_BARRIER, &barrier->guard, self, deadline);
  if (r < 0)
    return r;
  settle(barrier);
  if (r == MPROC_OWNER_DIED) { /* some may have one number twice: the last gives new ones */
    (void)count_waiting(barrier);
    barrier->next = (uint32_t)barrier->parties;
  }
  return 0;
}

static void unlock(mproc_barrier *barrier) {
  mpx_guard_unlock(&barrier->guard);
}

static int say_broken(void) {
  return mpx_fail(
      MPROC_EBROKEN,
      "the barrier is broken: a thread ran out of time or died in it, or somebody broke "
      "or reset it; mproc_barrier_reset makes it whole");
}

/* ---- coming ---------------------------------------------------------------------------------- */

enum { OUT_OF_TIME = INT32_MIN }; /* nobody's number, and no code */

typedef struct party {
  mpx_thread self;
  mpx_entry *entry;
  bool is_last;
  int64_t deadline; /* 0: a try */
} party;

static bool actor_is_dead(const mproc_barrier *barrier) {
  return mpx_thread_is_dead(mpx_family_header(),
                            atomic_load_explicit(&barrier->actor, memory_order_relaxed));
}

/* Under the guard, until the last round's action is over. */
static int await_room(mproc_barrier *barrier, const party *one) {
  uint32_t seen;
  while (((seen = state_of(barrier)) & MPX_PHASE) == MPX_ACTING) {
    uint32_t turn = mpx_turn_prepare(&barrier->turn);
    if (actor_is_dead(barrier))
      (void)change(barrier, seen, MPX_BREAKING);
    if (state_of(barrier) != seen)
      continue;
    unlock(barrier);
    bool in_time = mpx_turn_sleep(&barrier->turn, turn, one->deadline);
    int r = mpx_object_check_again(barrier, MPX_KIND_BARRIER); /* its memory may be anything's */
    if (r == 0)
      r = lock(barrier, one->self, one->deadline);
    if (r < 0)
      return r;
    if (!in_time) {
      unlock(barrier);
      return OUT_OF_TIME;
    }
  }
  settle(barrier);
  return 0;
}

/* Before the last comes: when some that had numbers died, all get new ones. */
static void give_numbers(mproc_barrier *barrier) {
  if (barrier->next == (uint32_t)barrier->parties - 1)
    return;
  barrier->next = 0;
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&barrier->arrived, entry));)
    if (waits(entry))
      entry->count = barrier->next++;
}

/* With the guard held on success. */
static int arrive(mproc_barrier *barrier, party *one) {
  int r = lock(barrier, one->self, one->deadline);
  if (r == 0)
    r = await_room(barrier, one);
  if (r < 0)
    return r;
  one->is_last =
      barrier->come + 1 == barrier->parties && count_waiting(barrier) + 1 == barrier->parties;
  if (phase_of(barrier) != MPX_FILLING)
    r = say_broken();
  else if (one->deadline == 0 && !one->is_last)
    r = OUT_OF_TIME;
  else
    r = mpx_roster_reserve(&barrier->arrived, 0, &one->entry);
  if (!one->entry) {
    unlock(barrier);
    return r;
  }
  if (one->is_last)
    give_numbers(barrier);
  one->entry->count = barrier->next;
  mpx_entry_set(one->entry, one->self);
  barrier->next++;
  barrier->come++;
  return 0;
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Without the guard: PASSED, BROKEN, or WAITS while it is not decided. The state is read before the
 * word: as long as the word says WAITS, the state was that of this round. */
static uint32_t outcome(const mproc_barrier *barrier, const party *one, uint32_t *ret_state) {
  *ret_state = state_of(barrier);
  uint32_t word = atomic_load_explicit(&one->entry->word, memory_order_acquire);
  if (word != MPX_WAITS)
    return word;
  switch (*ret_state & MPX_PHASE) {
  case MPX_OPENING:
    return MPX_PASSED;
  case MPX_BREAKING:
    return MPX_BROKEN;
  default:
    return MPX_WAITS;
  }
}

static int leave(const party *one, uint32_t how) {
  int index = how == MPX_PASSED ? (int)one->entry->count : 0;
  mpx_entry_free(one->entry);
  return how == MPX_PASSED ? index : say_broken();
}

/* The last to come, with the guard held; lets go of it. */
static int lead(mproc_barrier *barrier, const party *one, int (*action)(void *), void *arg) {
  uint32_t state = state_of(barrier);
  int result = 0;
  atomic_store_explicit(&barrier->actor, one->self, memory_order_relaxed);
  bool has_guard = !change(barrier, state, action ? MPX_ACTING : MPX_OPENING) || !action;
  if (!has_guard) {
    unlock(barrier);
    MPROC_CRASH_POINT("barrier.acts");
    result = action(arg); /* meanwhile somebody may break it, or have the guard */
    (void)change(barrier, (state & ~(uint32_t)MPX_PHASE) | MPX_ACTING,
                 result < 0 ? MPX_BREAKING : MPX_OPENING);
  }
  MPROC_CRASH_POINT("barrier.opens");
  mpx_turn_next(&barrier->turn, MPX_TURN_ALL);
  uint32_t how = outcome(barrier, one, &state);
  if (has_guard || mpx_guard_try(&barrier->guard, one->self) >= 0) {
    settle(barrier);
    unlock(barrier);
  }
  int r = leave(one, how);
  return result < 0 ? mpx_fail(MPROC_EBROKEN, "the barrier's action returned %d", result) : r;
}

/* Without the guard. */
static int follow(mproc_barrier *barrier, party *one) {
  for (;;) {
    uint32_t state, turn = mpx_turn_prepare(&barrier->turn);
    uint32_t how = outcome(barrier, one, &state);
    if (how != MPX_WAITS)
      return leave(one, how);
    MPROC_CRASH_POINT("barrier.waits");
    bool in_time = true, breaks = false;
    if ((state & MPX_PHASE) == MPX_ACTING) {
      one->deadline = MPX_NEVER; /* all were here in time */
      breaks = actor_is_dead(barrier);
    }
    if (!breaks)
      in_time = mpx_turn_sleep(&barrier->turn, turn, one->deadline);
    if ((!breaks && in_time) || !change(barrier, state, MPX_BREAKING))
      continue;
    MPROC_CRASH_POINT("barrier.gives_up");
    mpx_turn_next(&barrier->turn, MPX_TURN_ALL);
    if (!in_time) {
      mpx_entry_free(one->entry);
      return OUT_OF_TIME;
    }
  }
}

int mproc_barrier_wait_action(mproc_barrier *barrier, int (*action)(void *arg), void *arg,
                              int timeout_ms) {
  party one = {.is_last = false};
  int r = mpx_object_enter_for(barrier, MPX_KIND_BARRIER, timeout_ms, &one.self);
  if (r < 0)
    return r;
  one.deadline = mpx_deadline_or_try(timeout_ms);
  r = arrive(barrier, &one);
  if (one.entry && one.is_last) {
    r = lead(barrier, &one, action, arg);
  } else if (one.entry) {
    unlock(barrier);
    r = follow(barrier, &one);
  }
  return r == OUT_OF_TIME ? mpx_timeout_fail(timeout_ms, "others did not come to the barrier") : r;
}

int mproc_barrier_wait(mproc_barrier *barrier, int timeout_ms) {
  return mproc_barrier_wait_action(barrier, NULL, NULL, timeout_ms);
}

/* ---- the rest -------------------------------------------------------------------------------- */

static int enter(const mproc_barrier *barrier, mproc_barrier **ret_barrier) {
  mpx_thread self;
  int r = mpx_object_enter(barrier, MPX_KIND_BARRIER, &self);
  if (r == 0)
    r = lock((mproc_barrier *)(uintptr_t)barrier, self, mpx_os_now() + MPX_GUARD_NS);
  if (r == 0)
    *ret_barrier = (mproc_barrier *)(uintptr_t)barrier;
  return r;
}

int mproc_barrier_abort(mproc_barrier *barrier) {
  int r = enter(barrier, &barrier);
  if (r < 0)
    return r;
  break_it(barrier);
  unlock(barrier);
  return 0;
}

int mproc_barrier_reset(mproc_barrier *barrier) {
  int r = enter(barrier, &barrier);
  if (r < 0)
    return r;
  break_it(barrier);
  begin_round(barrier);
  unlock(barrier);
  return 0;
}

int mproc_barrier_parties(const mproc_barrier *barrier) {
  int r = mpx_object_check(barrier, MPX_KIND_BARRIER);
  return r < 0 ? r : barrier->parties;
}

int mproc_barrier_n_waiting(const mproc_barrier *barrier) {
  mproc_barrier *own;
  int r = enter(barrier, &own);
  if (r < 0)
    return r;
  r = count_waiting(own);
  unlock(own);
  return r;
}

int mproc_barrier_broken(const mproc_barrier *barrier) {
  mpx_thread self;
  int r = mpx_object_enter(barrier, MPX_KIND_BARRIER, &self);
  return r < 0 ? r : phase_of(barrier) == MPX_BREAKING || phase_of(barrier) == MPX_IS_BROKEN;
}

/* Who was let go a moment ago goes in a moment; as pthread_barrier_destroy this waits for it. */
int mproc_barrier_destroy(mproc_barrier *barrier) {
  if (!barrier)
    return 0;
  for (int64_t until = mpx_os_now() + MPX_GUARD_NS;; mpx_os_sleep(MPX_NS_PER_MS / 10)) {
    int r = enter(barrier, &barrier);
    if (r < 0)
      return r;
    bool waits = count_waiting(barrier) > 0;
    if (!mpx_roster_next(&barrier->arrived, NULL))
      break;
    unlock(barrier);
    if (waits || mpx_os_now() >= until)
      return mpx_fail(-EBUSY, "somebody waits at the barrier");
  }
  (void)mpx_object_end(barrier, MPX_KIND_BARRIER);
  mpx_guard_close(&barrier->guard);            /* who is about to come does not */
  mpx_turn_next(&barrier->turn, MPX_TURN_ALL); /* who waits for room: the actor may have died */
  mpx_roster_fini(&barrier->arrived);
  mpx_object_keep(barrier);
  return 0;
}
