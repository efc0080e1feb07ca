/* A thread of the host that waits for any child all the time. */
#ifndef MPROC_TEST_TAKER_H
#define MPROC_TEST_TAKER_H

#include "harness.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/wait.h>

typedef struct taker {
  pthread_t thread;
  _Atomic bool must_end;
  _Atomic int64_t taken; /* the last child that it got; 0: none */
  int flags;
} taker;

static inline void *take_all_children(void *argument) {
  taker *self = argument;
  while (!self->must_end) {
    pid_t pid = waitpid(-1, NULL, WNOHANG | self->flags);
    if (pid > 0)
      self->taken = pid;
  }
  return NULL;
}

/* `flags` for waitpid: __WALL takes clones too that send no signal. */
static inline void start_taker(taker *self, int flags) {
  *self = (taker){.flags = flags};
  CHECK_EQ(pthread_create(&self->thread, NULL, take_all_children, self), 0);
}

static inline void stop_taker(taker *self) {
  self->must_end = true;
  CHECK_EQ(pthread_join(self->thread, NULL), 0);
}

#endif
