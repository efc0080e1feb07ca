/* The log's gate: a level test, and a sink that the layer above installs. */
#ifndef MPX_BASE_LOG_H
#define MPX_BASE_LOG_H

#include "mproc/log.h"

/* A threshold that lets nothing pass, and that MPROC_LOG may still replace. */
#define MPX_LOG_UNSET (-1)

/* Writer: mproc_set_log and the reading of MPROC_LOG (process/log.c). A stale read by another
 * thread costs one message. */
extern _Atomic int mpx_log_threshold;
extern void (*_Atomic mpx_log_sink)(mproc_log_level level, const char *message);

/* Formats and hands one line to the sink. Keeps errno. Not async-signal-safe. */
void mpx_log_write(mproc_log_level level, const char *format, ...) MPROC_PRINTF(2, 3);

#define mpx_log(level, ...)                                                                        \
  do {                                                                                             \
    if ((int)(level) <= mpx_log_threshold)                                                         \
      mpx_log_write((level), __VA_ARGS__);                                                         \
  } while (0)

#endif
