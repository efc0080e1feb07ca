/* Wait: until any or all of several things are ready.
 *
 * What it is  One call over processes, descriptors, queues, events and connections.
 * Ready       means that the call which one would make next does not wait. Of an object that others
 *             use as well this may be over when you read it: use a try.
 * Ownership   Items and what they name are borrowed for the call.
 * Threads     any; several threads may wait for the same thing.
 * Cost        Waiting for objects of the heap takes one descriptor. Where there is none, or on
 *             systems other than Linux, they are looked at again every 10 ms.
 * After fork  a process is waited for by its creator only. */
#ifndef MPROC_WAIT_H
#define MPROC_WAIT_H

#include "version.h"

#include <stddef.h>
#include <stdint.h>

#define MPROC_FOREVER (-1) /* the timeout that never passes */

/* A descriptor, or a HANDLE on Windows. -1 is none. */
typedef intptr_t mproc_handle;

typedef enum mproc_wait_kind {
  MPROC_WAIT_PROCESS = 1,    /* object: a mproc_process; ready when it ended */
  MPROC_WAIT_READABLE = 2,   /* handle: ready when it can be read, is at its end or broken */
  MPROC_WAIT_WRITABLE = 3,   /* handle: ready when it can be written or is broken */
  MPROC_WAIT_EVENT = 4,      /* object: a mproc_event; ready when it is set */
  MPROC_WAIT_QUEUE = 5,      /* object: a mproc_queue; ready when get has something to return */
  MPROC_WAIT_QUEUE_ROOM = 6, /* object: a mproc_queue; ready when put has something to return */
  MPROC_WAIT_CONNECTION = 7  /* object: a mproc_connection; ready when recv has, an end too */
} mproc_wait_kind;

typedef struct mproc_wait_item {
  mproc_wait_kind kind;
  int ready;           /* written on return: 1 when ready, else 0 */
  void *object;        /* for the kinds that name an object */
  mproc_handle handle; /* for the kinds that name a handle; a sentinel is READABLE */
} mproc_wait_item;

#ifdef __cplusplus
extern "C" {
#endif

/* Waits until at least one item is ready, or all of them when `all` is non-zero, for at most
 * `timeout_ms` (MPROC_FOREVER, 0 = try). Returns the number of ready items and marks them.
 * Waiting for a process does not join it.
 * Errors: -ETIMEDOUT, -EAGAIN (a try that found too few ready), -EINVAL (no items, unknown kind, a
 * handle that is not open: the detail names the index; another negative timeout), -EBADF (a
 * connection that only sends), -ENOMEM, MPROC_ENOTSTARTED, MPROC_ENOTCREATOR, MPROC_ECLOSED,
 * MPROC_EPOINTER, MPROC_EFOREIGN; with objects of the heap, in a thread's first call, also -EAGAIN
 * (24,576 others of the family use mproc). `ready` is valid after -ETIMEDOUT and -EAGAIN too. A
 * thread that waits for objects of the heap is not cancelled meanwhile. */
MPROC_API MPROC_NODISCARD int mproc_wait(mproc_wait_item *items, size_t count, int all,
                                         int timeout_ms);

#ifdef __cplusplus
}
#endif
#endif
