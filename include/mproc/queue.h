/* Queue: messages between the processes of a family, that no death loses or blocks.
 *
 * What it is  A queue in the shared heap, for any number of producers and consumers: a pointer to
 *             it is valid in every process of the family. Messages are bytes, of any size; short
 *             ones lie in the queue itself, long ones in blocks of the heap. There is no feeder
 *             thread, so an exit needs no drain.
 * Death       A message that was put is there. A producer that dies inside put has put nothing, or
 *             all of it. What a consumer that dies has begun to get and not committed (of a
 *             joinable queue: what it has not called task_done for) is there again, and others that
 *             get messages get it within 100 ms; where producers have come round to its place
 *             meanwhile, behind at most as many messages as the queue has places. So get_begin and
 *             get_commit deliver a message at least once; plain get delivers it at most once: what
 *             it has returned to a consumer that dies is gone, and what it was about to return is
 *             gone, or there again.
 * Order       first in, first out: what one thread has put, each consumer gets in that order. A
 *             message that is there again comes when it is found; so does one that stays because
 *             get could not hand it out.
 * Ownership   data is copied in and out, except by the functions that name a block. The queue
 *             belongs to the family until it is destroyed.
 * Threads     any thread of any member, any function, except destroy.
 * After fork  as for all members; a child made by a fork() that mproc does not know gets
 *             MPROC_EFOREIGN.
 * Errors      of every function: MPROC_EPOINTER (not in the heap of this family), MPROC_ECLOSED
 *             (destroyed; or closed, see there), MPROC_EFOREIGN, -EINVAL (another kind of object, a
 *             negative timeout). Of each that waits: -ETIMEDOUT, or -EAGAIN for a try. In
 *             a thread's first call also -EAGAIN (24,576 others of the family use mproc). */
#ifndef MPROC_QUEUE_H
#define MPROC_QUEUE_H

#include "version.h"
#include "wait.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_queue mproc_queue;

typedef struct mproc_queue_options {
  size_t capacity;      /* messages, rounded up to a power of two, up to 2^24. 0: 1,024.
                          Fewer for a while when one is kept: see get_begin */
  size_t message_size;  /* bytes that a message may have to lie in the queue itself, up to 65,536;
                          each of `capacity` places has them. 0: 112 */
  int growing;          /* non-zero: a full queue grows by doubling instead of making put wait */
  int joinable;         /* non-zero: plain get leaves a message unfinished until
                          mproc_queue_task_done, as Python's JoinableQueue; but it keeps its place
                          until then: where tasks put tasks, let the queue grow */
  uint64_t reserved[8]; /* must be zero */
} mproc_queue_options;

/* A message that was begun to get, and is still the queue's. */
typedef struct mproc_message {
  const void *data; /* borrowed until commit or abort, aligned to 16; NULL when size is 0 */
  size_t size;
  uint64_t place[3]; /* the queue's own */
} mproc_message;

typedef struct mproc_queue_statistics {
  uint64_t messages;        /* that nobody has begun to get */
  uint64_t in_hand;         /* begun and not finished, or being put right now */
  uint64_t capacity;        /* places, all in all */
  uint64_t dropped;         /* puts that died on the way: never confirmed to anybody */
  uint64_t delivered_again; /* messages that a dead consumer had in hand */
  uint64_t lost;            /* messages in blocks that one was just done with, or about to return */
  uint64_t reserved[7];     /* zero: room for figures to come */
} mproc_queue_statistics;

#ifdef __cplusplus
extern "C" {
#endif

/* Makes an empty one. Options may be NULL. MPROC_EHEAPFULL, -ENOMEM, -EINVAL. */
MPROC_API MPROC_NODISCARD int mproc_queue_create(const mproc_queue_options *options,
                                                 mproc_queue **ret_queue);

/* Puts a copy of `size` bytes, 0 too; waits for a free place. When it returns 0 the message is
 * there, whatever becomes of the caller. MPROC_ECLOSED: closed; MPROC_EHEAPFULL, -ENOMEM: no room
 * for a long message, or for a growing queue to grow. */
MPROC_API MPROC_NODISCARD int mproc_queue_put(mproc_queue *queue, const void *data, size_t size,
                                              int timeout_ms);

/* Puts `count` messages of `size` bytes each, one behind the other in memory, at less cost than one
 * by one. Returns how many, at least 1: fewer than `count` when time ran out, the queue was closed,
 * or the heap has no room for a long message. Errors as put, when not one was. */
MPROC_API MPROC_NODISCARD int mproc_queue_put_many(mproc_queue *queue, const void *data,
                                                   size_t size, int count, int timeout_ms);

/* Puts a block of the shared heap without a copy: the first `size` bytes of it are the message. On
 * success the queue has taken the block, and nobody owns it any more (mproc_heap_alloc_owned): who
 * gets the message gets it, or the queue frees it. Else it is whose it was. MPROC_EPOINTER: no
 * block, or shorter than `size`, or `size` is 0. */
MPROC_API MPROC_NODISCARD int mproc_queue_put_block(mproc_queue *queue, void *block, size_t size,
                                                    int timeout_ms);

/* Gets a copy of the next message; waits for one. *ret_size, unless NULL, is its size. -EMSGSIZE:
 * it is longer than `capacity`; it stays, and *ret_size says how long it is. MPROC_ECLOSED: the
 * queue is closed and empty. */
MPROC_API MPROC_NODISCARD int mproc_queue_get(mproc_queue *queue, void *buffer, size_t capacity,
                                              size_t *ret_size, int timeout_ms);

/* Gets up to `count` messages of at most `size` bytes each, one behind the other in memory, `size`
 * bytes apart; for messages of one size, as it does not say which are shorter. Waits for the first
 * only. Returns how many. -EMSGSIZE: the first is longer. */
MPROC_API MPROC_NODISCARD int mproc_queue_get_many(mproc_queue *queue, void *buffer, size_t size,
                                                   int count, int timeout_ms);

/* Gets the next message as a block of the heap: without a copy if it was put as a block. The block
 * is the caller's, to be freed by mproc_heap_free; NULL for a message of 0 bytes. MPROC_EHEAPFULL,
 * -ENOMEM: no room for a copy; the message stays. -EINVAL: the queue is joinable. */
MPROC_API MPROC_NODISCARD int mproc_queue_get_block(mproc_queue *queue, void **ret_block,
                                                    size_t *ret_size, int timeout_ms);

/* Begins to get the next message: it can be read where it lies, others do not get it, and it is the
 * queue's until commit. If the calling thread ends before, the message is there again. It keeps one
 * of the queue's places, and producers go on with the others; when it is committed late, its place
 * is empty until they come round to it. */
MPROC_API MPROC_NODISCARD int mproc_queue_get_begin(mproc_queue *queue, mproc_message *ret_message,
                                                    int timeout_ms);

/* The message is done with, and gone. -EINVAL: the calling thread does not have it in hand. */
MPROC_API int mproc_queue_get_commit(mproc_queue *queue, const mproc_message *message);

/* The message is there again, for others too. -EINVAL as commit. */
MPROC_API int mproc_queue_get_abort(mproc_queue *queue, const mproc_message *message);

/* Of a joinable queue: the oldest message that the calling thread got, or began to get, is done
 * with. -EINVAL: it has none in hand, or the queue is not joinable. */
MPROC_API int mproc_queue_task_done(mproc_queue *queue);

/* Waits until every message is done with: got (joinable: and task_done) or committed. Whoever
 * joined may not destroy the queue at once: who did the last may be inside still, in the last steps
 * of get, task_done or commit. Join the processes or threads first. */
MPROC_API MPROC_NODISCARD int mproc_queue_join(mproc_queue *queue, int timeout_ms);

/* Nobody puts any more: put returns MPROC_ECLOSED, also to those who wait. What is there can be
 * got; then get returns MPROC_ECLOSED. Closing again does nothing. */
MPROC_API int mproc_queue_close(mproc_queue *queue);

/* How many messages nobody has begun to get: it may be another number when you read it. */
MPROC_API int64_t mproc_queue_size(const mproc_queue *queue);

/* Figures; those of the moment may be over when you read them. */
MPROC_API int mproc_queue_stats(const mproc_queue *queue, mproc_queue_statistics *ret_statistics);

/* Gives it back to the heap, with the messages in it. NULL does nothing and returns 0. -EBUSY:
 * somebody waits, or has a message in hand, or another thread is about to destroy it. One who waits
 * and is stopped (SIGSTOP) is not seen, and gets MPROC_ECLOSED when it goes on. Only who sleeps in
 * put, get or join is told so: what the messages lie in goes at once, so that nobody may be on the
 * way inside any function of the queue meanwhile: put and get of every sort, commit, abort and
 * task_done (which look at it still when the message is done with), join, close, size, stats and
 * mproc_wait. */
MPROC_API int mproc_queue_destroy(mproc_queue *queue);

#ifdef __cplusplus
}
#endif
#endif
