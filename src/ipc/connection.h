/* A connection from inside: one end of a pipe, made of a queue for each direction. */
#ifndef MPX_IPC_CONNECTION_H
#define MPX_IPC_CONNECTION_H

#include "ipc/queue.h"
#include "mproc/pipe.h"

/* One direction's place where handles change hands: the receiver's mailbox. */
typedef struct mpx_handover {
  _Atomic mpx_thread sender;   /* itself, while it sends a handle; 0: nobody does */
  _Atomic mpx_thread receiver; /* itself, while it waits for a handle; 0: nobody does */
  _Atomic uint64_t mailbox;    /* the same; 0 also by a sender who finds the receiver dead */
  mpx_turn turn;               /* it does now */
} mpx_handover;

struct mproc_connection {
  mpx_object object;
  mproc_connection *other; /* creator, like the next */
  mproc_queue *in, *out;   /* NULL: not in this direction */
  _Atomic mpx_member user; /* whose it is: whoever uses it, and whoever gives it away */
  _Atomic int64_t look_at; /* when to look whether the other end is there; any user */
  mpx_handover incoming;
};

/* Of mpx_pipe_block.closed. */
enum { MPX_PIPE_FIRST = 1, MPX_PIPE_SECOND = 2, MPX_PIPE_BOTH = 3 };

/* Both ends. */
typedef struct mpx_pipe_block {
  _Alignas(64) mproc_connection first;
  _Alignas(64) mproc_connection second;
  /* a bit for each end, by whoever has closed it, last of all; who sets the last one frees the
   * block */
  _Atomic uint32_t closed;
} mpx_pipe_block;

/* A connection as the caller's from now on. */
int mpx_connection_use(mproc_connection *connection, mpx_thread *ret_self);
/* The same for a function that sends, or receives, and may wait. -EBADF: not at this end. */
int mpx_connection_enter(mproc_connection *connection, bool sends, int timeout_ms,
                         mpx_thread *ret_self);
/* Closes both directions if the other end's process has ended. */
void mpx_connection_look(mproc_connection *connection);
/* The same unless somebody did within the last MPX_LOOK_NS: for those who never wait for long. */
void mpx_connection_look_in_time(mproc_connection *connection);
/* Whether the other end is closed, or its process has ended. */
bool mpx_connection_is_over(mproc_connection *connection);
int mpx_connection_say_over(void);

/* Compares everything of the pipe of which this is an open end, its queues too, for tests; as the
 * checks of sync/check.h. */
int mpx_connection_check(const mproc_connection *connection);

#endif
