#include "base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

_Atomic int mpx_log_threshold = MPROC_LOG_OFF;
void (*mpx_log_sink)(mproc_log_level level, const char *message);

void mpx_log_write(mproc_log_level level, const char *format, ...) {
  if (!mpx_log_sink)
    return;
  int saved_errno = errno;
  char message[512];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(message, sizeof message, format, args);
  va_end(args);
  mpx_log_sink(level, message);
  errno = saved_errno;
}
