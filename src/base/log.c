#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

_Atomic int mpx_log_threshold = MPX_LOG_UNSET;
void (*_Atomic mpx_log_sink)(mproc_log_level level, const char *message);

void mpx_log_write(mproc_log_level level, const char *format, ...) {
  void (*sink)(mproc_log_level, const char *) = mpx_log_sink;
  if (!sink)
    return;
  int saved_errno = errno;
  char message[512];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(message, sizeof message, format, args);
  va_end(args);
  sink(level, message);
  errno = saved_errno;
}
