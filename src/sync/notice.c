#include "sync/notice.h"

#include "heap/family.h"
#include "os/crash_point.h"
#include "sync/guard.h"
#include "sync/object.h"

void mpx_notice_wake(mpx_notice *notice, int count) {
  mpx_turn_wake(&notice->turn, count);
  MPROC_CRASH_POINT("notice.woken");
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&notice->bells, entry));) {
    MPROC_CRASH_POINT("notice.rings");
    mpx_os_bell_ring(atomic_load_explicit(&entry->word, memory_order_relaxed));
  }
}

enum { IS_PROCESS = 1, GENERATION_SHIFT = 2, SLOT_SHIFT = 48 }; /* bits that no thread's name has */

mpx_thread mpx_notice_process(mpx_member member) {
  return (member >> 32) << SLOT_SHIFT | (member & UINT32_MAX) << GENERATION_SHIFT | IS_PROCESS;
}

mpx_member mpx_notice_member(mpx_thread owner) {
  return owner & IS_PROCESS ? owner >> SLOT_SHIFT << 32 | (uint32_t)(owner >> GENERATION_SHIFT) : 0;
}

static bool is_dead(mpx_thread owner) {
  mpx_header *header = mpx_family_header();
  mpx_member member = mpx_notice_member(owner);
  return member ? mpx_member_is_dead(header, member) : mpx_thread_is_dead(header, owner);
}

/* Whether somebody is left; the dead are forgotten. */
static bool has_listeners(mpx_notice *notice) {
  bool found = false;
  for (mpx_entry *entry = NULL; (entry = mpx_roster_next(&notice->bells, entry));) {
    mpx_thread owner = mpx_entry_thread(entry);
    if (owner && is_dead(owner))
      (void)mpx_entry_free_of(entry, owner);
    else
      found |= owner != 0;
  }
  return found;
}

int mpx_notice_listen(mpx_notice *notice, mpx_thread self, mpx_thread owner, uint32_t bell,
                      mpx_entry **ret_entry) {
  int r = mpx_guard_lock(&notice->guard, NULL, self, mpx_os_now());
  if (r < 0)
    return r;
  (void)has_listeners(notice);
  r = mpx_roster_reserve(&notice->bells, 0, ret_entry);
  if (r == 0) {
    atomic_store_explicit(&(*ret_entry)->word, bell, memory_order_relaxed);
    mpx_entry_set(*ret_entry, owner);
  }
  MPROC_CRASH_POINT("notice.listens");
  mpx_guard_unlock(&notice->guard);
  return r;
}

/* Marked: one who came a moment ago may have lost his mark to who looked for sleepers. */
static bool is_heard(mpx_notice *notice) {
  if (!notice || !has_listeners(notice))
    return false;
  mpx_notice_prepare(notice);
  return true;
}

bool mpx_notice_is_used(mpx_notice *notice) {
  return is_heard(notice) || mpx_turn_is_used(&notice->turn) || is_heard(notice);
}

bool mpx_notice_are_used(mpx_notice *one, mpx_notice *other, mpx_turn *turn, int64_t grace_ns) {
  mpx_turn *turns[3];
  int count = 0;
  if (one)
    turns[count++] = &one->turn;
  if (other)
    turns[count++] = &other->turn;
  if (turn)
    turns[count++] = turn;
  if (is_heard(one) || is_heard(other))
    return true;
  bool found = mpx_turn_gets_sleepers(turns, count, grace_ns);
  found |= is_heard(one);
  found |= is_heard(other);
  return found;
}

/* Somebody may be ringing still who made that happen for which the object was kept: the list stays
 * as it is, and its chunks as long as the object itself. */
void mpx_notice_fini(mpx_notice *notice) {
  mpx_roster_fini(&notice->bells);
}
