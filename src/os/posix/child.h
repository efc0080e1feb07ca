/* A new child, before anybody else knows of it. */
#ifndef MPX_OS_POSIX_CHILD_H
#define MPX_OS_POSIX_CHILD_H

#include "os/os.h"

/* Gives it a pidfd as its sentinel, or one that says "ended" when the host reaped it already. */
int mpx_child_name(mpx_child *child);
/* Ends and reaps it; also one that has ended. */
void mpx_child_discard(mpx_child *child);

#endif
