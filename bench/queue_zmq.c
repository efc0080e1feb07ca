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

typedef struct socket_of {
  void *context, *socket;
} socket_of;

static void *open_route(const queue_setup *setup) {
  route *r = calloc(1, sizeof *r);
  if (!r)
    queue_die("calloc");
  (void)snprintf(r->address, sizeof r->address, "ipc:///tmp/bench_queue.%ld", (long)getpid());
  r->places = (int)(setup->capacity / 2);
  return r;
}

/* Its threads do not survive a fork, so each worker has a context. */
static void *enter_route(void *shared, bool is_producer) {
  const route *r = shared;
  socket_of *s = calloc(1, sizeof *s);
  if (!s || !(s->context = zmq_ctx_new()) ||
      !(s->socket = zmq_socket(s->context, is_producer ? ZMQ_PUSH : ZMQ_PULL)) ||
      zmq_setsockopt(s->socket, is_producer ? ZMQ_SNDHWM : ZMQ_RCVHWM, &r->places,
                     sizeof r->places) < 0 ||
      (is_producer ? zmq_bind(s->socket, r->address) : zmq_connect(s->socket, r->address)) < 0)
    queue_die(zmq_strerror(zmq_errno()));
  return s;
}

static void produce(void *own, const queue_work *work) {
  const socket_of *s = own;
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    if (zmq_send(s->socket, work->memory, work->size, 0) < 0)
      queue_die(zmq_strerror(zmq_errno()));
  }
}

static void consume(void *own, const queue_work *work, queue_sum *sum) {
  const socket_of *s = own;
  for (uint64_t i = 0; i < work->count; i++) {
    int n = zmq_recv(s->socket, work->memory, work->size, 0);
    if (n < 0)
      queue_die(zmq_strerror(zmq_errno()));
    queue_read(work->memory, (size_t)n, sum);
  }
}

static void leave_route(void *own) {
  socket_of *s = own;
  (void)zmq_close(s->socket);
  (void)zmq_ctx_term(s->context);
  free(s);
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
