/* Objects of the heap as `mproc_wait` and notifiers see them. */
#ifndef MPX_IPC_WATCH_H
#define MPX_IPC_WATCH_H

#include "mproc/wait.h"
#include "sync/notice.h"
#include "sync/object.h"

typedef struct mpx_watch {
  mpx_kind kind;
  /* 1: ready. 0: not. -EBADF: it will never be, said why. `look_after` the dead, too. */
  int (*is_ready)(void *object, mpx_thread self, bool look_after);
  mpx_notice *(*notice)(void *object);
} mpx_watch;

/* NULL for items that are no objects of the heap. */
const mpx_watch *mpx_watch_of(mproc_wait_kind kind);

#endif
