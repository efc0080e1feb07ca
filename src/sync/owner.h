/* Who holds something, for people. */
#ifndef MPX_SYNC_OWNER_H
#define MPX_SYNC_OWNER_H

#include "heap/table.h"
#include "mproc/sync.h"

/* `thread` 0: nobody. */
int mpx_owner_say(mpx_thread thread, mproc_owner *ret_owner);

#endif
