/* System calls that report a failure by a signal besides their result (SIGPIPE, SIGXFSZ), made to
 * report it by the result only, whatever the host does with the signal. */
#ifndef MPX_OS_POSIX_QUIET_H
#define MPX_OS_POSIX_QUIET_H

#include <signal.h>
#include <stdbool.h>

typedef struct mpx_quiet {
  int signal;
  bool was_pending; /* then it is the host's, and stays */
  sigset_t mask;
} mpx_quiet;

/* Blocks `signal_number` in the calling thread. */
void mpx_quiet_begin(mpx_quiet *quiet, int signal_number);
/* Takes the signal if the call raised it, and restores the mask. Keeps errno. */
void mpx_quiet_end(const mpx_quiet *quiet);

#endif
