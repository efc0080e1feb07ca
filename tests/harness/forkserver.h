/* What tests of the forkserver need: who the server is, and how it is asked. */
#ifndef MPROC_TEST_FORKSERVER_H
#define MPROC_TEST_FORKSERVER_H

#include "harness.h"
#include "processes.h"
#include "programs.h"

#include <stdatomic.h>
#include <sys/socket.h>

enum { GONE_MS = 1000 };

/* In the shared heap; entries get a pointer to it. */
typedef struct board {
  _Atomic int64_t pid, server, asker;
  _Atomic int64_t pids[16];
  _Atomic int count, go, code;
  char text[512];
} board;

static inline board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  return b;
}

static inline mproc_process *ask(mproc_entry *entry, const void *arg, size_t size) {
  return start_by("forkserver", entry, arg, size);
}

static inline mproc_process *ask_context(const mproc_context *context, mproc_entry *entry,
                                         const void *arg, size_t size) {
  const mproc_process_options options = {.context = context, .method = "forkserver"};
  return start_with(&options, entry, arg, size);
}

/* ---- the server ------------------------------------------------------------------------------ */

static inline int say_server(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->pid = getpid();
  b->server = getppid();
  return 0;
}

/* The server of a context, started if there is none; NULL: the default one. */
static inline int64_t server_of(const mproc_context *context) {
  board *b = new_board();
  check_exited(ask_context(context, say_server, &b, sizeof b), 0);
  int64_t server = b->server;
  CHECK(server > 1);
  CHECK_EQ(mproc_heap_free(b), 0);
  return server;
}

static inline mproc_context *new_context(mproc_preload *const *preload, size_t count, int spares) {
  const mproc_context_options options = {
      .method = "forkserver", .preload = preload, .preload_count = count, .spares = spares};
  mproc_context *context = NULL;
  CHECK_EQ(mproc_context_create(&context, &options), 0);
  return context;
}

static inline void stop_process(int64_t pid) {
  CHECK_EQ(kill((pid_t)pid, SIGSTOP), 0);
  CHECK(stopped_within(pid, JOIN_MS));
}

static inline void kill_process(int64_t pid) {
  CHECK_EQ(kill((pid_t)pid, SIGKILL), 0);
  CHECK(gone_within(pid, JOIN_MS));
}

/* The askers' end of the doors: the sockets of this process that keep the bounds of messages, in
 * the order in which they were made: the door first, then that of the spares. */
static inline int find_doors(int *doors, int limit) {
  int count = 0;
  for (int fd = 3; fd < 1024 && count < limit; fd++) {
    int type = 0;
    socklen_t size = sizeof type;
    if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET)
      doors[count++] = fd;
  }
  return count;
}

#endif
