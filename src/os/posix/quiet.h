/* System calls that report a failure by a signal besides their result (SIGPIPE, SIGXFSZ), made to
 * report it by the result only, whatever the host does with the signal. */
#ifndef MPX_OS_POSIX_QUIET_H
#define MPX_OS_POSIX_QUIET_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct mpx_quiet {
  sigset_t mask;    /* before */
  sigset_t pending; /* before: these are the host's, and stay */
} mpx_quiet;

/* Blocks both signals in the calling thread. */
void mpx_quiet_begin(mpx_quiet *quiet);
/* Takes the signal that a failed call raised, and restores the mask. Keeps errno. */
void mpx_quiet_end(const mpx_quiet *quiet, bool failed);

/* mpx_os_write between the two. */
int mpx_write_all(int fd, const void *data, size_t size);

#endif
