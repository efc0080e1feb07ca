/* deny ERRNO COMMAND [ARGUMENT...]: executes the command on a kernel that seems to be older
 * (ENOSYS) or in a container that forbids what is newer (EPERM). See harness/seccomp.h.
 *
 *   MPROC_TEST_WRAPPER="build/dev/bin/deny ENOSYS" build/dev/bin/test_queue
 *   build/dev/bin/deny EPERM ctest --preset dev -L unit */
#define _GNU_SOURCE
#include "seccomp.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { REFUSED = 125, NOT_EXECUTED = 127 };

static int errno_of(const char *name) {
  static const struct {
    const char *name;
    int value;
  } known[] = {{"ENOSYS", ENOSYS}, {"EPERM", EPERM}, {"EACCES", EACCES}};
  for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
    if (strcmp(name, known[i].name) == 0)
      return known[i].value;
  return 0;
}

int main(int argc, char **argv) {
  int value = argc > 2 ? errno_of(argv[1]) : 0;
  if (value == 0) {
    fprintf(stderr, "usage: deny ENOSYS|EPERM|EACCES COMMAND [ARGUMENT...]\n");
    return REFUSED;
  }
  int r = seccomp_deny_newer(value);
  if (r < 0) {
    fprintf(stderr, "deny: no system call filter: %s\n", strerror(-r));
    return REFUSED;
  }
  /* A filter that lets everything pass would make every test pass. */
  if (syscall(SECCOMP_PIDFD_OPEN, getpid(), 0) >= 0 || errno != value) {
    fprintf(stderr, "deny: the filter has no effect\n");
    return REFUSED;
  }
  execvp(argv[2], argv + 2);
  fprintf(stderr, "deny: %s: %s\n", argv[2], strerror(errno));
  return NOT_EXECUTED;
}
