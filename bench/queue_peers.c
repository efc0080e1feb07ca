/* Peers of bench_queue that every Linux has: pipe, socketpair, POSIX mq. */
#define _GNU_SOURCE
#include "queue_peers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <mqueue.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

/* ---- pipe: blocking write and read of one message each --------------------------------------- */

static const char *refuses_pipe(const queue_setup *setup) {
  return setup->pairs > 1 && setup->size > PIPE_BUF ? "writes of more than PIPE_BUF mix" : NULL;
}

static void *open_pipe(const queue_setup *setup) {
  int *ends = malloc(2 * sizeof *ends);
  if (!ends || pipe2(ends, O_CLOEXEC) < 0)
    queue_die("pipe");
  (void)fcntl(ends[1], F_SETPIPE_SZ, (int)(setup->size * setup->capacity)); /* if it may be */
  return ends;
}

static void write_pipe(void *shared, const queue_work *work) {
  const int *ends = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    for (size_t done = 0; done < work->size;) {
      ssize_t n = write(ends[1], work->memory + done, work->size - done);
      if (n < 0)
        queue_die("write");
      done += (size_t)n;
    }
  }
}

static void read_pipe(void *shared, const queue_work *work, queue_sum *sum) {
  const int *ends = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    for (size_t done = 0; done < work->size;) {
      ssize_t n = read(ends[0], work->memory + done, work->size - done);
      if (n <= 0)
        queue_die("read");
      done += (size_t)n;
    }
    queue_read(work->memory, work->size, sum);
  }
}

static void close_ends(void *shared) {
  int *ends = shared;
  (void)close(ends[0]);
  (void)close(ends[1]);
  free(ends);
}

const queue_peer queue_peer_pipe = {.name = "pipe",
                                    .refuses = refuses_pipe,
                                    .open = open_pipe,
                                    .produce = write_pipe,
                                    .consume = read_pipe,
                                    .close = close_ends};

/* ---- socketpair: SOCK_SEQPACKET keeps messages apart ----------------------------------------- */

enum { SOCKET_OVERHEAD = 1024 }; /* of a message in the kernel, about */

/* Room for `capacity` messages, as far as net.core.wmem_max lets it have that. */
static void *open_socketpair(const queue_setup *setup) {
  int *ends = malloc(2 * sizeof *ends);
  int room = (int)((setup->size + SOCKET_OVERHEAD) * setup->capacity);
  if (!ends || socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    queue_die("socketpair");
  (void)setsockopt(ends[1], SOL_SOCKET, SO_SNDBUF, &room, sizeof room);
  return ends;
}

static const char *refuses_socketpair(const queue_setup *setup) {
  int *ends = open_socketpair(setup);
  void *message = calloc(1, setup->size);
  bool fits = message && send(ends[1], message, setup->size, MSG_DONTWAIT) == (ssize_t)setup->size;
  free(message);
  close_ends(ends);
  return fits ? NULL : "longer than net.core.wmem_max allows";
}

static void send_socketpair(void *shared, const queue_work *work) {
  const int *ends = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    if (send(ends[1], work->memory, work->size, 0) != (ssize_t)work->size)
      queue_die("send");
  }
}

static void receive_socketpair(void *shared, const queue_work *work, queue_sum *sum) {
  const int *ends = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    if (recv(ends[0], work->memory, work->size, 0) != (ssize_t)work->size)
      queue_die("recv");
    queue_read(work->memory, work->size, sum);
  }
}

const queue_peer queue_peer_socketpair = {.name = "socketpair",
                                          .refuses = refuses_socketpair,
                                          .open = open_socketpair,
                                          .produce = send_socketpair,
                                          .consume = receive_socketpair,
                                          .close = close_ends};

/* ---- POSIX mq -------------------------------------------------------------------------------- */

static mqd_t create_mq(size_t places, size_t size) {
  static const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
  char name[64];
  struct mq_attr attributes = {.mq_maxmsg = (long)places, .mq_msgsize = (long)size};
  (void)snprintf(name, sizeof name, "/bench_queue.%ld", (long)getpid());
  mqd_t mq = mq_open(name, flags, 0600, &attributes);
  if (mq >= 0)
    (void)mq_unlink(name);
  return mq;
}

/* An ordinary user may have so many messages in one: 10, as Linux is set up. */
static size_t places_of_user(void) {
  size_t places = 10;
  FILE *file = fopen("/proc/sys/fs/mqueue/msg_max", "re");
  if (file && fscanf(file, "%zu", &places) != 1)
    places = 10;
  if (file)
    (void)fclose(file);
  return places;
}

/* With as many places as may be; -1: not one message of this size. */
static mqd_t try_mq(const queue_setup *setup) {
  static bool told;
  size_t most = places_of_user();
  mqd_t mq = create_mq(setup->capacity, setup->size);
  if (mq >= 0 || setup->capacity <= most)
    return mq;
  mq = create_mq(most, setup->size);
  if (mq >= 0 && !told) {
    (void)printf("(POSIX mq: %zu messages, more are not allowed here: fs.mqueue.msg_max)\n", most);
    told = true;
  }
  return mq;
}

static const char *refuses_mq(const queue_setup *setup) {
  mqd_t mq = try_mq(setup);
  if (mq < 0 && errno == EINVAL)
    return "longer than fs.mqueue.msgsize_max allows";
  if (mq < 0)
    return errno == EMFILE ? "more bytes than RLIMIT_MSGQUEUE allows" : "mq_open fails";
  (void)mq_close(mq);
  return NULL;
}

static void *open_mq(const queue_setup *setup) {
  mqd_t *mq = malloc(sizeof *mq);
  if (!mq || (*mq = try_mq(setup)) < 0)
    queue_die("mq_open");
  return mq;
}

static void send_mq(void *shared, const queue_work *work) {
  const mqd_t *mq = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    if (mq_send(*mq, (const char *)work->memory, work->size, 0) < 0)
      queue_die("mq_send");
  }
}

static void receive_mq(void *shared, const queue_work *work, queue_sum *sum) {
  const mqd_t *mq = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    ssize_t n = mq_receive(*mq, (char *)work->memory, work->size, NULL);
    if (n < 0)
      queue_die("mq_receive");
    queue_read(work->memory, (size_t)n, sum);
  }
}

static void close_mq(void *shared) {
  mqd_t *mq = shared;
  (void)mq_close(*mq);
  free(mq);
}

const queue_peer queue_peer_mq = {.name = "POSIX mq",
                                  .refuses = refuses_mq,
                                  .open = open_mq,
                                  .produce = send_mq,
                                  .consume = receive_mq,
                                  .close = close_mq};
