/* A part of a case that must have a process of its own: a limit, a filter, a death. */
#ifndef MPROC_TEST_IN_CHILD_H
#define MPROC_TEST_IN_CHILD_H

#include "harness.h"

#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `body` in a forked child and returns its wait status. A failed CHECK ends it with code 1. */
static inline int status_of_child(void (*body)(void)) {
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    body();
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(pid, &status, 0), pid);
  return status;
}

static inline void in_child(void (*body)(void)) {
  CHECK_EQ(status_of_child(body), 0);
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif
#ifndef UNDER_SANITIZER
#define UNDER_SANITIZER 0
#endif

#endif
