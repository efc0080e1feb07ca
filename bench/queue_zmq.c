/* ZeroMQ's ipc transport, for bench_queue: PUSH to PULL. A consumer prefetches what others could
 * have got, so there is one; what it has not read when the producer leaves may be lost. */
#include "queue_peers.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <zmq.h>

typedef struct route {
  char address[64];
  int places; /* at either end: half of the capacity */
} route;

/* Of this worker: one for all its sockets. */
static void *context;
static int sockets;

static void *open_route(const queue_setup *setup) {
  static int routes;
  route *r = calloc(1, sizeof *r);
  if (!r)
    queue_die("calloc");
  (void)snprintf(r->address, sizeof r->address, "ipc:///tmp/bench_queue.%ld.%d", (long)getpid(),
                 routes++);
  r->places = (int)(setup->capacity / 2);
  return r;
}

/* A context's threads do not survive a fork, so each worker has one. */
static void *enter_route(void *shared, bool is_producer) {
  const route *r = shared;
  const int option = is_producer ? ZMQ_SNDHWM : ZMQ_RCVHWM;
  if (sockets++ == 0)
    context = zmq_ctx_new();
  void *socket = context ? zmq_socket(context, is_producer ? ZMQ_PUSH : ZMQ_PULL) : NULL;
  if (!socket || zmq_setsockopt(socket, option, &r->places, sizeof r->places) < 0 ||
      (is_producer ? zmq_bind(socket, r->address) : zmq_connect(socket, r->address)) < 0)
    queue_die(zmq_strerror(zmq_errno()));
  return socket;
}

static void produce(void *socket, const queue_work *work) {
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    if (zmq_send(socket, work->memory, work->size, 0) < 0)
      queue_die(zmq_strerror(zmq_errno()));
  }
}

static void consume(void *socket, const queue_work *work, queue_sum *sum) {
  for (uint64_t i = 0; i < work->count; i++) {
    int n = zmq_recv(socket, work->memory, work->size, 0);
    if (n < 0)
      queue_die(zmq_strerror(zmq_errno()));
    queue_read(work->memory, (size_t)n, sum);
  }
}

static void leave_route(void *socket) {
  (void)zmq_close(socket);
  if (--sockets == 0)
    (void)zmq_ctx_term(context);
}

static void close_route(void *shared) {
  route *r = shared;
  (void)unlink(r->address + sizeof "ipc://" - 1);
  free(r);
}

const queue_peer queue_peer_zmq = {.name = "ZeroMQ ipc",
                                   .is_single = true,
                                   .open = open_route,
                                   .enter = enter_route,
                                   .produce = produce,
                                   .consume = consume,
                                   .leave = leave_route,
                                   .close = close_route};
