/* A part of a case that must have a process of its own: a limit, a filter, a death. */
#ifndef MPROC_TEST_IN_CHILD_H
#define MPROC_TEST_IN_CHILD_H

#include "harness.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `body` in a forked child. A failed CHECK ends it with code 1. */
static inline pid_t fork_child(void (*body)(void)) {
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    body();
    _exit(0);
  }
  return pid;
}

/* Waits for a child of this process and returns its wait status. */
static inline int status_of(pid_t pid) {
  int status;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

static inline int status_of_child(void (*body)(void)) {
  return status_of(fork_child(body));
}

static inline void in_child(void (*body)(void)) {
  CHECK_EQ(status_of_child(body), 0);
}

#endif
