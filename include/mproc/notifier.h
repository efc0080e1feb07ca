/* Notifier: a descriptor that tells an event loop when objects of the heap may be ready.
 *
 * What it is  Something for poll, epoll, libuv or any other loop that waits for descriptors: it is
 *             readable when one of its objects may have become ready in the sense of mproc_wait.
 * Use         When it is readable: first mproc_notifier_reset(), then take what is there by tries
 *             until -EAGAIN. What comes later makes it readable again. It becomes readable 10 times
 *             a second in any case, since a process killed when it is about to tell us tells
 *             nobody: so a loop needs no timer of its own.
 * Ownership   Private to the process that made it; the objects are borrowed, and cannot be
 *             destroyed as long as it listens to them.
 * Threads     one at a time.
 * After fork  the child has no use of it but to destroy it; there the descriptor is closed. */
#ifndef MPROC_NOTIFIER_H
#define MPROC_NOTIFIER_H

#include "version.h"
#include "wait.h"

#include <stddef.h>

typedef struct mproc_notifier mproc_notifier;

#ifdef __cplusplus
extern "C" {
#endif

/* Listens to the objects of `count` items (MPROC_WAIT_EVENT, _QUEUE, _QUEUE_ROOM, _CONNECTION).
 * Processes and descriptors have handles of their own. -EINVAL: another kind, no item. -EMFILE:
 * three descriptors are needed. -ENOSYS: not on this system (Linux has it); use mproc_wait there.
 * Errors of the objects as mproc_wait. */
MPROC_API MPROC_NODISCARD int mproc_notifier_create(const mproc_wait_item *items, size_t count,
                                                    mproc_notifier **ret_notifier);

/* The descriptor, borrowed: to wait until it is readable, and for nothing else. -1 of NULL. */
MPROC_API mproc_handle mproc_notifier_handle(const mproc_notifier *notifier);

/* Makes it unreadable, until something happens after this call. Returns how many of its objects are
 * ready now. MPROC_ENOTCREATOR: in a child. MPROC_ECLOSED: one of them is gone, as a pipe whose
 * end another process had used goes when that is dead. */
MPROC_API int mproc_notifier_reset(mproc_notifier *notifier);

/* Listens no more, and closes the descriptor. NULL does nothing. */
MPROC_API void mproc_notifier_destroy(mproc_notifier *notifier);

#ifdef __cplusplus
}
#endif
#endif
