/* What an object embeds, as its first member, to be waited for by mproc_wait(). */
#ifndef MPX_SYNC_WAITABLE_H
#define MPX_SYNC_WAITABLE_H

#include "mproc/wait.h"

#include <stdbool.h>
#include <stdint.h>

typedef struct mpx_waitable {
  _Atomic uint32_t kind; /* the mproc_wait_kind it answers to; 0 once the object is closed */
  /* 1: ready. 0: not; then *ret_handle becomes readable when it is, and *ret_recheck says that the
   * handle may be late, so that poll must be called every 100 ms all the same. Negative: an error,
   * said why. */
  int (*poll)(struct mpx_waitable *self, mproc_handle *ret_handle, bool *ret_recheck);
} mpx_waitable;

#endif
