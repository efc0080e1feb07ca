/* Wait: until any or all of several things are ready.
 *
 * What it is  One call over processes, descriptors and (with later headers) queues, events and
 *             connections.
 * Ownership   Items and what they name are borrowed for the call.
 * Threads     any; several threads may wait for the same thing.
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
  MPROC_WAIT_PROCESS = 1,  /* object: a mproc_process; ready when it ended */
  MPROC_WAIT_READABLE = 2, /* handle: ready when it can be read, is at its end or broken */
  MPROC_WAIT_WRITABLE = 3  /* handle: ready when it can be written or is broken */
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
 * handle that is not open: the detail names the index; another negative timeout),
 * -ENOMEM, MPROC_ENOTSTARTED, MPROC_ENOTCREATOR, MPROC_ECLOSED. `ready` is valid after -ETIMEDOUT
 * and -EAGAIN too. */
MPROC_API MPROC_NODISCARD int mproc_wait(mproc_wait_item *items, size_t count, int all,
                                         int timeout_ms);

#ifdef __cplusplus
}
#endif
#endif
