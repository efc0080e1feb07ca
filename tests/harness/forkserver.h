/* What tests of the forkserver need: who the server is, what it has open, who its children are. */
#ifndef MPROC_TEST_FORKSERVER_H
#define MPROC_TEST_FORKSERVER_H

#include "harness.h"
#include "processes.h"

#include <stdatomic.h>
#include <sys/socket.h>

enum { GONE_MS = 1000, CHILDREN_MAX = 4096 };

/* A condition of another process; the case fails after JOIN_MS. */
#define AWAIT(condition)                                                                           \
  do {                                                                                             \
    int64_t await_end = now_ms() + JOIN_MS;                                                        \
    for (; !(condition); sleep_ms(1))                                                              \
      CHECK(now_ms() < await_end && #condition);                                                   \
  } while (0)

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

static inline int sleep_for_long(void *arg, size_t size) {
  (void)arg, (void)size;
  sleep_ms(30000);
  return 0;
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

/* The parent of a process; 0 when there is no such process. */
static inline int64_t parent_of(int64_t pid) {
  char path[64], text[512];
  long parent = 0;
  snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  ssize_t length = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
  if (fd >= 0)
    close(fd);
  text[length < 0 ? 0 : length] = '\0';
  const char *end = strrchr(text, ')');
  return end && sscanf(end + 1, " %*c %ld", &parent) == 1 ? parent : 0;
}

/* The children that live; zombies are not counted. */
static inline int children_of(int64_t parent, int64_t *pids, int limit) {
  DIR *folder = opendir("/proc");
  int count = 0;
  CHECK(folder != NULL);
  for (struct dirent *entry; (entry = readdir(folder));) {
    int64_t pid = atoll(entry->d_name);
    if (pid > 0 && parent_of(pid) == parent && !is_gone(pid) && count < limit)
      pids[count++] = pid;
  }
  closedir(folder);
  return count;
}

static inline int count_children(int64_t parent) {
  int64_t pids[CHILDREN_MAX];
  return children_of(parent, pids, CHILDREN_MAX);
}

static inline int descriptors_of(int64_t pid) {
  char path[64];
  int count = 0;
  snprintf(path, sizeof path, "/proc/%lld/fd", (long long)pid);
  DIR *folder = opendir(path);
  if (!folder)
    return -1;
  for (struct dirent *entry; (entry = readdir(folder));)
    count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

/* Anonymous resident memory in KiB: what a leak would make grow. */
static inline long resident_of(int64_t pid) {
  char path[64], line[256];
  long kib = -1;
  snprintf(path, sizeof path, "/proc/%lld/status", (long long)pid);
  FILE *file = fopen(path, "re");
  while (file && fgets(line, sizeof line, file))
    (void)sscanf(line, "RssAnon: %ld", &kib);
  if (file)
    fclose(file);
  return kib;
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
