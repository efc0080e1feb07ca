#include "mproc/log.h"

#include "base/error.h"
#include "base/log.h"
#include "os/os.h"
#include "process/settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Set once from the environment or by the program; a change while messages fly may mix the two. */
static mproc_log_hook *log_hook;
static void *log_user;
static mproc_handle log_handle = MPX_NO_HANDLE;

static void write_line(mproc_log_level level, const char *message) {
  static const char *const names[] = {"off", "error", "info", "debug", "trace"};
  char line[600];
  int length = snprintf(line, sizeof line, "mproc[%lld] %s: %s\n", (long long)mpx_os_pid(),
                        names[level], message);
  if (length < 0)
    return;
  if ((size_t)length >= sizeof line) {
    length = sizeof line - 1;
    line[length - 1] = '\n';
  }
  (void)mpx_os_write(log_handle == MPX_NO_HANDLE ? mpx_os_stderr() : log_handle, line,
                     (size_t)length);
}

static void sink(mproc_log_level level, const char *message) {
  if (log_hook)
    log_hook(log_user, level, message);
  else
    write_line(level, message);
}

void mproc_set_log(mproc_log_hook *hook, void *user, mproc_log_level level) {
  mpx_os_close(log_handle);
  log_handle = MPX_NO_HANDLE;
  log_hook = hook;
  log_user = user;
  mpx_log_sink = sink;
  mpx_log_threshold = (int)level;
}

int mpx_log_from_environment(void) {
  static const char *const names[] = {[MPROC_LOG_ERROR] = "error",
                                      [MPROC_LOG_INFO] = "info",
                                      [MPROC_LOG_DEBUG] = "debug",
                                      [MPROC_LOG_TRACE] = "trace"};
  static bool done;
  const char *wish = mpx_setting("MPROC_LOG");
  if (done || !wish || mpx_log_sink)
    return 0;
  const char *colon = strchr(wish, ':');
  size_t length = colon ? (size_t)(colon - wish) : strlen(wish);
  for (int level = MPROC_LOG_ERROR; level <= MPROC_LOG_TRACE; level++) {
    if (strlen(names[level]) != length || strncmp(wish, names[level], length) != 0)
      continue;
    mproc_handle file = MPX_NO_HANDLE;
    int r = colon ? mpx_os_open_append(colon + 1, &file) : 0;
    if (r < 0)
      return mpx_fail(r, "MPROC_LOG: cannot open '%s': %s", colon + 1, mproc_strerror(r));
    mproc_set_log(NULL, NULL, (mproc_log_level)level);
    log_handle = file;
    done = true;
    return 0;
  }
  return mpx_fail(-EINVAL,
                  "MPROC_LOG: '%s' is no level; use error, info, debug or trace, then "
                  ":FILE if you like",
                  wish);
}
