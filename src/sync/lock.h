/* Lock and RLock from inside: a condition lets go of either, whatever its depth. */
#ifndef MPX_SYNC_LOCK_H
#define MPX_SYNC_LOCK_H

#include "sync/mutex.h"
#include "sync/object.h"

#include "mproc/sync.h"

struct mproc_lock {
  mpx_object object;
  mpx_mutex mutex;
};

struct mproc_rlock {
  mpx_object object;
  mpx_mutex mutex;
  uint32_t depth; /* the owner */
};

#endif
