/* A turn that can be heard by a bell, too: what is waited for in company with other objects, or
 * with handles. Who waits for it alone sleeps at the turn.
 *
 *   whoever waits                               whoever changes
 *     mpx_notice_listen(): an entry                changes it
 *     mpx_notice_prepare() sets the mark           mpx_notice_next(): the mark is set? counts the
 *     looks; not yet                               turn, wakes sleepers, rings each entry's bell
 *     polls the bell, for MPX_LOOK_NS at most
 *
 * Entries are read without the guard, by signal handlers too; one that is reused at that instant
 * costs a ring for nobody. */
#ifndef MPX_SYNC_NOTICE_H
#define MPX_SYNC_NOTICE_H

#include "sync/mutex.h"
#include "sync/roster.h"
#include "sync/turn.h"

typedef struct mpx_notice {
  mpx_turn turn;
  mpx_mutex guard;  /* of the list of entries, not of what is in them */
  mpx_roster bells; /* entry.word: the name of a bell */
} mpx_notice;

void mpx_notice_wake(mpx_notice *notice, int count);

/* Lets at most `count` sleepers look again, and all who listen; as mpx_turn_tell. [child]: usable
 * in a signal handler. */
static inline void mpx_notice_tell(mpx_notice *notice, int count) {
  if (mpx_turn_is_waited(&notice->turn))
    mpx_notice_wake(notice, count);
}

/* The same, as mpx_turn_next. */
static inline void mpx_notice_next(mpx_notice *notice, int count) {
  atomic_thread_fence(memory_order_seq_cst);
  mpx_notice_tell(notice, count);
}

/* The bell of that name rings from now on, until mpx_entry_free_of(owner) or the end of `owner`: a
 * thread, or a process by mpx_notice_process. `self` is the calling thread. Says why not. */
int mpx_notice_listen(mpx_notice *notice, mpx_thread self, mpx_thread owner, uint32_t bell,
                      mpx_entry **ret_entry);
mpx_thread mpx_notice_process(mpx_member member);
/* The process of such a name; 0 for a thread's. */
mpx_member mpx_notice_member(mpx_thread owner);

/* Before each look: what changes after it rings. */
static inline void mpx_notice_prepare(mpx_notice *notice) {
  (void)mpx_turn_prepare(&notice->turn);
}

/* Whether somebody who lives sleeps or listens: mpx_turn_is_used. */
bool mpx_notice_is_used(mpx_notice *notice);
/* The same of several, NULL where there is none, and of who was there and was woken, too: he may be
 * on his way into what goes. mpx_turn_gets_sleepers. */
bool mpx_notice_are_used(mpx_notice *one, mpx_notice *other, mpx_turn *turn, int64_t grace_ns);
void mpx_notice_fini(mpx_notice *notice);

#endif
