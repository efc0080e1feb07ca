/* The bells of this process (os/os.h): whoever waits for objects of the heap and for handles at
 * once, or lets another loop wait, hears by one of them that an object may be ready. A forked child
 * closes the copies of its parent's. */
#ifndef MPX_SYNC_BELL_H
#define MPX_SYNC_BELL_H

#include "base/list.h"
#include "os/os.h"

/* All zeros is none. */
typedef struct mpx_bell {
  mpx_os_bell os;
  mpx_list link; /* under the list's lock */
} mpx_bell;

/* Stays where it is until it is closed. Codes as mpx_os_bell_create. */
int mpx_bell_open(mpx_bell *bell, int64_t look_ns);
/* A mailbox in the same list; parts[0] is free for a channel. */
int mpx_bell_open_mailbox(mpx_bell *bell);
/* A place in the list without anything yet. */
void mpx_bell_keep(mpx_bell *bell);
void mpx_bell_close(mpx_bell *bell);
/* Around the change of a handle in the list. */
void mpx_bell_lock(void);
void mpx_bell_unlock(void);
/* Of the parent: closed here, and their objects hear nothing any more. */
void mpx_bell_reset_in_child(void);

#endif
