#define _POSIX_C_SOURCE 200809L
#include "os/crash_point.h"

#if MPX_CRASH_POINTS
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static atomic_int passes;

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
  if (pass == nth || (pass > nth && signal_number == SIGKILL))
    (void)kill(getpid(), signal_number); /* raise() of some libc hits the parent of a vfork */
}
#else
typedef int mpx_crash_points_are_compiled_out;
#endif
