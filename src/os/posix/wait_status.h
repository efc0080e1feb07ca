/* What wait4 and waitid say, in mproc's words. */
#ifndef MPX_OS_POSIX_WAIT_STATUS_H
#define MPX_OS_POSIX_WAIT_STATUS_H

#include "os/os.h"

struct rusage;

void mpx_take_wait_status(int status, mpx_exit *ret_exit);
void mpx_take_rusage(const struct rusage *usage, mpx_exit *ret_exit);

#endif
