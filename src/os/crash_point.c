#define _POSIX_C_SOURCE 200809L
#include "os/crash_point.h"

#if MPX_CRASH_POINTS
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { LONGEST = 64 };

static atomic_int passes;

/* In one write, so that no two lines mix. */
static void log_hit(const char *name, size_t length) {
  const char *path = getenv("MPROC_CRASH_LOG");
  char line[LONGEST];
  if (!path || length >= LONGEST)
    return;
  int fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0)
    return;
  memcpy(line, name, length);
  line[length] = '\n';
  ssize_t written = write(fd, line, length + 1);
  (void)written; /* the comparison finds what is missing */
  (void)close(fd);
}

void mpx_crash_point(const char *name) {
  const char *wanted = getenv("MPROC_CRASH");
  size_t length = strlen(name);
  if (!wanted || strncmp(wanted, name, length) != 0)
    return;
  const char *rest = wanted + length;
  if (*rest != '\0' && *rest != ':')
    return;
  int signal_number = SIGKILL;
  if (strncmp(rest, ":stop", 5) == 0) {
    signal_number = SIGSTOP;
    rest += 5;
  }
  int nth = *rest == ':' ? atoi(rest + 1) : 1;
  /* A child that shares our memory until its exec counts in it too: it must not save the next
   * one. */
  int pass = atomic_fetch_add(&passes, 1) + 1;
  if (pass == nth || (pass > nth && signal_number == SIGKILL)) {
    int old_errno = errno;
    if (signal_number == SIGKILL) /* who was only stopped there has shown little */
      log_hit(name, length);
    (void)kill(getpid(), signal_number); /* raise() of some libc hits the parent of a vfork */
    errno = old_errno;
  }
}
#else
typedef int mpx_crash_points_are_compiled_out;
#endif
