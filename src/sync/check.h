/* Checks of objects, for tests: each compares everything that has to agree while nobody is inside.
 * Threads may sleep there, and may have died at any point of it. 0; -EIO, and the detail says what
 * is wrong; or as mpx_object_check. They change nothing, and take no lock. */
#ifndef MPX_SYNC_CHECK_H
#define MPX_SYNC_CHECK_H

#include "sync/notice.h"
#include "sync/object.h"
#include "sync/roster.h"

#include "mproc/sync.h"
#include "mproc/value.h"

#include <stddef.h>

int mpx_lock_check(const mproc_lock *lock);
int mpx_rlock_check(const mproc_rlock *rlock);
int mpx_rwlock_check(const mproc_rwlock *rwlock);
int mpx_semaphore_check(const mproc_semaphore *semaphore);
int mpx_condition_check(const mproc_condition *condition); /* and its lock */
int mpx_event_check(const mproc_event *event);
int mpx_barrier_check(const mproc_barrier *barrier);
int mpx_value_check(const mproc_value *value);
int mpx_array_check(const mproc_array *array); /* and its lock */

/* ---- what they are built of ------------------------------------------------------------------ */

bool mpx_is_zero(const void *start, size_t size);

/* That it is an object in a block of its size, and that nobody wrote behind its end. */
int mpx_object_check_block(const void *object, mpx_kind kind, size_t size);
/* `what` it is, for the text. */
int mpx_mutex_check(const mpx_mutex *mutex, const char *what);
/* Nobody who lives has it, for longer than it takes to look after the dead. */
int mpx_guard_check(const mpx_mutex *guard);
/* The chunks, then each entry that counts: `visit` returns what is wrong with it, or NULL. */
typedef const char *mpx_entry_visit(const mpx_roster *roster, const mpx_entry *entry, void *user);
int mpx_roster_check(const mpx_roster *roster, mpx_entry_visit *visit, void *user);
/* Whether an entry after this one is of the same thread. */
bool mpx_entry_has_twin(const mpx_roster *roster, const mpx_entry *entry);
int mpx_notice_check(const mpx_notice *notice);

#endif
