#include "mproc/log.h"

#include "base/error.h"
#include "base/log.h"
#include "os/os.h"
#include "process/settings.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Set by the program; a change while messages fly may give the old hook the new user. */
static mproc_log_hook *_Atomic log_hook;
static void *_Atomic log_user;

/* The file of MPROC_LOG, or none. A thread may be about to write to one that was just taken away:
 * were it closed, the number could be a file of the host's by then. So the last one who is inside
 * closes it. No lock, which a forked child could find closed for ever: it finds an open descriptor
 * at worst. */
#define UNDECIDED ((mproc_handle)-2)
static _Atomic mproc_handle log_handle = UNDECIDED, retired_handle = MPX_NO_HANDLE;
static _Atomic unsigned users; /* of log_handle, and RETIRED once it was taken away */
enum { RETIRED = 1 << 30 };

static void leave(void) {
  if (atomic_fetch_sub(&users, 1) == RETIRED + 1) /* who comes now finds no file */
    mpx_os_close(atomic_exchange(&retired_handle, MPX_NO_HANDLE));
}

/* There is one file at most in the life of a process: the variable is read once. */
static void retire_file(void) {
  users++;
  mproc_handle file = atomic_exchange(&log_handle, MPX_NO_HANDLE);
  if (file >= 0) {
    retired_handle = file;
    atomic_fetch_or(&users, RETIRED);
  }
  leave();
}

static void write_line(mproc_handle handle, mproc_log_level level, const char *message) {
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
  (void)mpx_os_write(handle, line, (size_t)length);
}

static void sink(mproc_log_level level, const char *message) {
  users++;
  mproc_handle file = log_handle; /* first: what replaces it is there before it goes */
  mproc_log_hook *hook = log_hook;
  if (!hook && file >= 0)
    write_line(file, level, message);
  else if (!hook && (int)level <= mpx_log_threshold)
    write_line(mpx_os_stderr(), level, message);
  leave();
  if (hook)
    hook(log_user, level, message);
}

void mpx_log_asked_for(const char *message) {
  if (mpx_log_threshold >= MPROC_LOG_ERROR)
    sink(MPROC_LOG_ERROR, message);
  else
    write_line(mpx_os_stderr(), MPROC_LOG_ERROR, message);
}

/* In this order nothing goes where neither the old nor the new setting sends it. */
void mproc_set_log(mproc_log_hook *hook, void *user, mproc_log_level level) {
  int threshold = (int)level > MPROC_LOG_OFF ? (int)level : MPROC_LOG_OFF;
  if (threshold < mpx_log_threshold)
    mpx_log_threshold = threshold;
  log_user = user;
  log_hook = hook;
  mpx_log_sink = sink;
  mpx_log_threshold = threshold;
  retire_file();
}

/* Of several threads that come here at once the first one's file is everybody's; what the program
 * sets meanwhile goes before it. */
static int set_from_environment(const char *path, mproc_log_level level) {
  mproc_handle file = MPX_NO_HANDLE, undecided = UNDECIDED;
  int unset = MPX_LOG_UNSET;
  int r = path ? mpx_os_open_append(path, &file) : 0;
  if (r < 0)
    return mpx_fail(r, "MPROC_LOG: cannot open '%s': %s", path, mproc_strerror(r));
  if (!atomic_compare_exchange_strong(&log_handle, &undecided, file))
    mpx_os_close(file);
  mpx_log_sink = sink;
  (void)atomic_compare_exchange_strong(&mpx_log_threshold, &unset, (int)level);
  return 0;
}

int mpx_log_from_environment(void) {
  static const char *const names[] = {[MPROC_LOG_ERROR] = "error",
                                      [MPROC_LOG_INFO] = "info",
                                      [MPROC_LOG_DEBUG] = "debug",
                                      [MPROC_LOG_TRACE] = "trace"};
  const char *wish = mpx_setting("MPROC_LOG");
  if (!wish || mpx_log_threshold != MPX_LOG_UNSET)
    return 0;
  const char *colon = strchr(wish, ':');
  size_t length = colon ? (size_t)(colon - wish) : strlen(wish);
  for (int level = MPROC_LOG_ERROR; level <= MPROC_LOG_TRACE; level++)
    if (strlen(names[level]) == length && strncmp(wish, names[level], length) == 0)
      return set_from_environment(colon ? colon + 1 : NULL, (mproc_log_level)level);
  return mpx_fail(-EINVAL,
                  "MPROC_LOG: '%s' is no level; use error, info, debug or trace, then "
                  ":FILE if you like",
                  wish);
}
