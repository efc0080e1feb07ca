#include "sync/turn.h"

#include "os/crash_point.h"

/* Fewer slept than were to be woken: the mark goes, unless there was a turn meanwhile: then false.
 * Who fell asleep between the two wakes without being seen is let go by the second. */
static bool wipe_mark(mpx_turn *turn, uint32_t seen) {
  if (!atomic_compare_exchange_strong(&turn->word, &seen, (seen + MPX_TURN_STEP) & ~1U))
    return false;
  mpx_os_word_wake_all(&turn->word);
  return true;
}

/* If a process is killed in between, sleepers look by themselves. */
void mpx_turn_wake(mpx_turn *turn, int count) {
  uint32_t seen = atomic_fetch_add(&turn->word, MPX_TURN_STEP) + MPX_TURN_STEP;
  MPROC_CRASH_POINT("turn.counted");
  if (mpx_os_word_wake(&turn->word, count) < count)
    (void)wipe_mark(turn, seen);
}

/* Whether the mark is that of somebody who sleeps; else it goes. */
static bool keeps_mark(mpx_turn *turn) {
  for (;;) {
    uint32_t seen = atomic_load(&turn->word);
    if (!(seen & MPX_TURN_WAITED))
      return false;
    if (mpx_turn_has_sleepers(turn))
      return true;
    if (wipe_mark(turn, seen))
      return false;
  }
}

/* Who was woken a moment ago, or looks right now, does not sleep, and sets the mark again before he
 * does. A word that is 0 had no mark ever, as wiping one counts a turn; nor need anybody be awaited
 * there. */
bool mpx_turn_gets_sleepers(mpx_turn *const *turns, int count, int64_t grace_ns) {
  bool had_any = false;
  for (int i = 0; i < count; i++) {
    if (keeps_mark(turns[i]))
      return true;
    had_any |= atomic_load(&turns[i]->word) != 0;
  }
  for (int64_t end = mpx_os_now() + grace_ns; had_any;) {
    for (int i = 0; i < count; i++)
      if (mpx_turn_is_waited(turns[i]))
        return true;
    if (mpx_os_now() >= end)
      return false;
    mpx_os_sleep(MPX_TURN_GRACE_NS / 20);
  }
  return false;
}

bool mpx_turn_is_used(mpx_turn *turn) {
  return mpx_turn_is_waited(turn) && mpx_turn_gets_sleepers(&turn, 1, MPX_TURN_GRACE_NS);
}

bool mpx_turn_may_look(const void *object, mpx_kind kind, const mpx_turn *turn, uint32_t seen) {
  uint32_t found = atomic_load(&((const mpx_object *)object)->kind);
  return found == (uint32_t)kind || (found == 0 && (int32_t)(atomic_load(&turn->word) - seen) > 0);
}

int mpx_turn_destroy(void *object, mpx_kind kind, mpx_turn *turn) {
  int r = mpx_object_end(object, kind);
  if (r < 0)
    return r;
  mpx_turn_next(turn, MPX_TURN_ALL);
  mpx_object_keep(object);
  return 0;
}
