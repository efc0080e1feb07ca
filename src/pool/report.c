/* How a task failed, for callers. */
#include "base/error.h"
#include "pool/host.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void mpx_failure_show(const mpx_failure *failure, mproc_failure *ret_failure) {
  *ret_failure = (mproc_failure){.cause = failure->cause,
                                 .code = failure->code,
                                 .index = failure->index,
                                 .attempts = failure->attempts,
                                 .worker = failure->worker,
                                 .pid = failure->pid,
                                 .run_time_ns = failure->run_time_ns,
                                 .max_rss_bytes = failure->max_rss_bytes,
                                 .text = failure->text,
                                 .errors = mpx_failure_errors(failure)};
}

static void say_cause(const mproc_failure *failure, char *text, size_t size) {
  char name[32];
  const char *symbol = mproc_error_name(failure->code);
  switch (failure->cause) {
  case MPROC_CAUSE_ERROR:
    if (failure->code < 0)
      (void)snprintf(text, size, "returned %s%d (%s)", symbol ? symbol : "", failure->code,
                     mproc_strerror(failure->code));
    else
      (void)snprintf(text, size, "returned %d", failure->code);
    break;
  case MPROC_CAUSE_EXITED:
    (void)snprintf(text, size, "exited with code %d", failure->code);
    break;
  case MPROC_CAUSE_SIGNALED:
    (void)snprintf(text, size, "killed by %s",
                   mpx_os_signal_name(failure->code, name, sizeof name));
    break;
  case MPROC_CAUSE_TIMED_OUT:
    (void)snprintf(text, size, "timed out");
    break;
  case MPROC_CAUSE_CANCELLED:
    (void)snprintf(text, size, "cancelled");
    break;
  case MPROC_CAUSE_OUT_OF_MEMORY:
    (void)snprintf(text, size, "out of memory");
    break;
  case MPROC_CAUSE_INITIALIZER:
    (void)snprintf(text, size, "not run: no worker came up");
    break;
  case MPROC_CAUSE_POISONED:
    (void)snprintf(text, size, "killed as many workers as it may (the last with %d)",
                   failure->code);
    break;
  case MPROC_CAUSE_REPLACED:
    (void)snprintf(text, size, "executed another program in the worker's place");
    break;
  default:
    (void)snprintf(text, size, "did not fail");
  }
}

static void append(char *text, size_t size, const char *format, ...) MPROC_PRINTF(3, 4);

static void append(char *text, size_t size, const char *format, ...) {
  size_t used = strlen(text);
  va_list values;
  va_start(values, format);
  (void)vsnprintf(text + used, size - used, format, values);
  va_end(values);
}

static const char *const ordinals[] = {"second",  "third",  "fourth", "fifth", "sixth",
                                       "seventh", "eighth", "ninth",  "tenth"};

const char *mproc_strfailure(const mproc_failure *failure, char *buffer, size_t size) {
  if (!failure || !buffer || size == 0)
    return "";
  say_cause(failure, buffer, size);
  if (failure->text && failure->text[0])
    append(buffer, size, ": %s", failure->text);
  if (failure->run_time_ns >= 0)
    append(buffer, size, " after %.3g s", (double)failure->run_time_ns / 1e9);
  if (failure->attempts > 1 && failure->attempts <= 10)
    append(buffer, size, ", at the %s attempt", ordinals[failure->attempts - 2]);
  else if (failure->attempts > 10)
    append(buffer, size, ", at attempt %d", failure->attempts);
  if (failure->pid > 0)
    append(buffer, size, " (worker %d, process %lld)", failure->worker, (long long)failure->pid);
  return buffer;
}
