#include "sync/turn.h"

#include "os/crash_point.h"

/* Nobody sleeps: the mark goes, unless somebody has come by meanwhile. Who fell asleep between the
 * two wakes without being seen is let go by the second. */
static void wipe_mark(mpx_turn *turn, uint32_t seen) {
  if (atomic_compare_exchange_strong(&turn->word, &seen, (seen + MPX_TURN_STEP) & ~1U))
    mpx_os_word_wake_all(&turn->word);
}

/* The mark outlives a wake that found somebody, also if that was the last: who destroys the object
 * then knows that there is one who is up and may have been promised something. The next turn finds
 * it stale. If a process is killed in between, sleepers look by themselves. */
void mpx_turn_wake(mpx_turn *turn, int count) {
  uint32_t seen = atomic_fetch_add(&turn->word, MPX_TURN_STEP) + MPX_TURN_STEP;
  MPROC_CRASH_POINT("turn.counted");
  if (mpx_os_word_wake(&turn->word, count) == 0)
    wipe_mark(turn, seen);
}

/* Who was woken a moment ago, or looks right now, does not sleep: the mark goes, and who is up sets
 * it again before he sleeps. */
bool mpx_turn_has_sleepers(mpx_turn *turn) {
  uint32_t seen = atomic_load(&turn->word);
  if (!(seen & MPX_TURN_WAITED))
    return false;
  if (mpx_os_word_sleepers(&turn->word) > 0)
    return true;
  wipe_mark(turn, seen);
  for (int64_t end = mpx_os_now() + MPX_TURN_GRACE_NS; !mpx_turn_is_waited(turn);) {
    if (mpx_os_now() >= end)
      return false;
    mpx_os_sleep(MPX_TURN_GRACE_NS / 20);
  }
  return true;
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
