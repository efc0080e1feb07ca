/* Log: what mproc decides and why, for those who ask. Off by default; nothing on a hot path.
 *
 * MPROC_LOG=error|info|debug|trace[:FILE] switches it on from outside (FILE is appended to;
 * standard error without one); ignored in programs with raised privileges.
 * Threads     the hook may be called from any thread, one call at a time per thread.
 * After fork  the child keeps hook and level; a spawned child has MPROC_LOG only. */
#ifndef MPROC_LOG_H
#define MPROC_LOG_H

#include "version.h"

typedef enum mproc_log_level {
  MPROC_LOG_OFF = 0,
  MPROC_LOG_ERROR = 1, /* a fault that no return value could tell; what MPROC_DEBUG finds */
  MPROC_LOG_INFO = 2,  /* start method in use and why, hazards, fall-backs taken */
  MPROC_LOG_DEBUG = 3, /* each start and exit */
  MPROC_LOG_TRACE = 4  /* each step of a start */
} mproc_log_level;

/* `message` is one line without newline, valid during the call. Must not call mproc. */
typedef void mproc_log_hook(void *user, mproc_log_level level, const char *message);

#ifdef __cplusplus
extern "C" {
#endif

/* Sends messages up to `level` to `hook` (NULL: one line each on standard error). Replaces what
 * MPROC_LOG said. `user` is borrowed for as long as the hook is set. */
MPROC_API void mproc_set_log(mproc_log_hook *hook, void *user, mproc_log_level level);

#ifdef __cplusplus
}
#endif
#endif
