/* Pipe: two connections, between which messages go, and handles.
 *
 * What it is  A pair of connections in the shared heap: what is sent at one is received at the
 *             other. A pointer to either is valid in every process of the family. Messages are
 *             bytes, of any size, and keep their bounds.
 * Ends        Each connection belongs to one process: to the one that used it last, at first to the
 *             one that made the pipe. When that ends, or closes it, the other receives what was
 *             sent and then MPROC_ECLOSED; to send is MPROC_ECLOSED at once. A process that is
 *             killed is noticed within 100 ms. Give a connection to the process that shall use it
 *             (mproc_connection_give), so that its death is noticed before it has used it, too.
 * Ownership   Data is copied in and out. A pipe goes back to the heap when both connections are
 *             closed, or when one is and the process of the other has ended.
 * Threads     one that sends and one that receives at a time, of one process at a time.
 * After fork  the child may use any pointer to a connection, which belongs to it from then on. A
 *             child made by a fork() that mproc does not know gets MPROC_EFOREIGN.
 * Errors      of every function: MPROC_EPOINTER, MPROC_ECLOSED, MPROC_EFOREIGN, -EINVAL (another
 *             kind of object, a negative timeout). Of each that waits: -ETIMEDOUT, or -EAGAIN for a
 *             try. In a thread's first call also -EAGAIN (24,576 others of the family use
 *             mproc). */
#ifndef MPROC_PIPE_H
#define MPROC_PIPE_H

#include "version.h"
#include "wait.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_connection mproc_connection;

typedef struct mproc_pipe_options {
  int simplex;     /* non-zero: the first connection only receives, the second only sends */
  size_t capacity; /* messages that may be under way in each direction. 0: 64 */
  size_t
      message_size; /* bytes of a message that takes no block of the heap; as in queue.h. 0: 112 */
  uint64_t reserved[8]; /* must be zero */
} mproc_pipe_options;

#ifdef __cplusplus
extern "C" {
#endif

/* Makes a pipe; both connections are the caller's. Options may be NULL. MPROC_EHEAPFULL, -ENOMEM,
 * -EINVAL. */
MPROC_API MPROC_NODISCARD int mproc_pipe_create(const mproc_pipe_options *options,
                                                mproc_connection **ret_first,
                                                mproc_connection **ret_second);

/* The connection is that process's from now on: one of the family, after its start, by its number
 * in the caller's pid namespace, if it is there or was started from there. -ESRCH: it has ended, or
 * no process of the family is called so. */
MPROC_API int mproc_connection_give(mproc_connection *connection, int64_t pid);

/* Sends a copy of `size` bytes, 0 too; waits for room. MPROC_ECLOSED: the other end is. -EBADF:
 * this end only receives. MPROC_EHEAPFULL, -ENOMEM: no room for a long message. */
MPROC_API MPROC_NODISCARD int mproc_connection_send(mproc_connection *connection, const void *data,
                                                    size_t size, int timeout_ms);

/* Receives the next message as a block of the heap, which is the caller's: mproc_heap_free. NULL
 * for a message of 0 bytes. MPROC_ECLOSED: the other end is, and nothing is left. -EBADF: this end
 * only sends. */
MPROC_API MPROC_NODISCARD int mproc_connection_recv(mproc_connection *connection, void **ret_data,
                                                    size_t *ret_size, int timeout_ms);

/* The same into a buffer. *ret_size, unless NULL, is the message's size. -EMSGSIZE: it is longer
 * than `capacity`; it stays, and *ret_size says how long it is. */
MPROC_API MPROC_NODISCARD int mproc_connection_recv_into(mproc_connection *connection, void *buffer,
                                                         size_t capacity, size_t *ret_size,
                                                         int timeout_ms);

/* 1: there is something to receive, which may be the end; 0: not within `timeout_ms`. */
MPROC_API int mproc_connection_poll(mproc_connection *connection, int timeout_ms);

/* Hands over a copy of a descriptor; waits until the other end has received it. The caller's own
 * stays open. Handles and messages have no order among each other; a try waits up to 50 ms for the
 * other end to meet it. After -ETIMEDOUT the other end may have it nevertheless. Both
 * must see the same pid and network namespace. Errors as send; -EBADF also when `handle` is not
 * open; -EMFILE; -ENOSYS: not on this system (Linux has it). */
MPROC_API MPROC_NODISCARD int mproc_connection_send_handle(mproc_connection *connection,
                                                           mproc_handle handle, int timeout_ms);

/* Receives one: a new descriptor, close-on-exec and above 2, which is the caller's. -EMFILE: no
 * room; what was sent is not lost. */
MPROC_API MPROC_NODISCARD int mproc_connection_recv_handle(mproc_connection *connection,
                                                           mproc_handle *ret_handle,
                                                           int timeout_ms);

/* Closes this end, for every process: there is one, not a copy in each as with descriptors. So the
 * parent must not close the end that its child uses. A later use of it is MPROC_ECLOSED. NULL does
 * nothing and returns 0. -EBUSY: a thread waits in it. */
MPROC_API int mproc_connection_close(mproc_connection *connection);

#ifdef __cplusplus
}
#endif
#endif
