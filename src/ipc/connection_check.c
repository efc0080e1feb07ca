/* The check of a pipe by one of its ends, for tests. */
#include "ipc/connection.h"

#include "base/error.h"
#include "mproc/heap.h"
#include "sync/check.h"

#include <errno.h>

static int damaged(const char *what, uint64_t found) {
  return mpx_fail(-EIO, "%s: 0x%llx", what, (unsigned long long)found);
}

/* Where a descriptor is awaited. A dead receiver leaves both words, and a sender takes the second;
 * a dead sender leaves its own. */
static int check_incoming(const mproc_connection *end) {
  mpx_thread receiver = atomic_load(&end->incoming.receiver);
  mpx_thread sender = atomic_load(&end->incoming.sender);
  uint64_t mailbox = atomic_load(&end->incoming.mailbox);
  if (receiver && !mpx_thread_existed(mpx_family_header(), receiver))
    return damaged("a thread that never was awaits a descriptor", receiver);
  if (receiver && !end->in)
    return damaged("a thread awaits a descriptor at the end that only sends", receiver);
  if (sender && !mpx_thread_existed(mpx_family_header(), sender))
    return damaged("a thread that never was sends a descriptor", sender);
  if (sender && !end->in)
    return damaged("a thread sends a descriptor to the end that only sends", sender);
  if (mailbox && !receiver)
    return damaged("nobody's mailbox awaits a descriptor", mailbox);
  if (mailbox && (uint32_t)mailbox == 0)
    return damaged("a mailbox of no process awaits a descriptor", mailbox);
  return 0;
}

static int check_queue(mproc_queue *queue) {
  int r = queue ? mpx_queue_check(queue) : 0;
  if (r < 0 && r != -EIO)
    return mpx_fail(-EIO, "a direction of the pipe is no queue: %p", (void *)queue);
  if (r == 0 && queue && (queue->growing || queue->joinable))
    return mpx_fail(-EIO, "a direction of the pipe is a queue of another sort: %p", (void *)queue);
  return r;
}

/* Of one whose bit is set, or whose user lives and is not at it, all is over. */
static int check_end(const mproc_connection *end, bool is_closed) {
  uint32_t kind = atomic_load(&end->object.kind);
  mpx_member user = atomic_load(&end->user);
  if (!mpx_member_existed(mpx_family_header(), user))
    return damaged("an end of the pipe is of a process that never was", user);
  if (kind != 0 && kind != MPX_KIND_CONNECTION)
    return damaged("an end of the pipe is no connection", kind);
  if (kind != 0 && is_closed)
    return damaged("an end of the pipe is closed and open", kind);
  if (kind == 0 && !is_closed && !mpx_member_is_dead(mpx_family_header(), user))
    return damaged("an end of the pipe is half closed by a process that lives", user);
  if (is_closed && ((end->in && !atomic_load(&end->in->closed)) ||
                    (end->out && !atomic_load(&end->out->closed))))
    return mpx_fail(-EIO, "an end of the pipe is closed, and a direction is not");
  return check_incoming(end);
}

static int check_block(const mproc_connection *connection, const mpx_pipe_block **ret_block) {
  const mproc_connection *other = connection->other;
  const char *first = (const char *)(connection < other ? connection : other);
  const char *second = (const char *)(connection < other ? other : connection);
  const mpx_pipe_block *block = (const mpx_pipe_block *)(const void *)first;
  if (second - first != offsetof(mpx_pipe_block, second) ||
      mproc_heap_usable_size(block) < sizeof *block)
    return mpx_fail(-EIO, "the connection's other end is elsewhere: %p", (const void *)other);
  if (other->other != connection)
    return mpx_fail(-EIO, "the connection's other end has another one: %p",
                    (const void *)other->other);
  if (!mpx_is_zero(&block->first + 1, offsetof(mpx_pipe_block, second) - sizeof block->first) ||
      !mpx_is_zero(&block->second + 1, offsetof(mpx_pipe_block, closed) -
                                           offsetof(mpx_pipe_block, second) -
                                           sizeof block->second) ||
      !mpx_is_zero(&block->closed + 1,
                   sizeof *block - offsetof(mpx_pipe_block, closed) - sizeof block->closed))
    return mpx_fail(-EIO, "somebody wrote behind the end of a connection");
  *ret_block = block;
  return 0;
}

int mpx_connection_check(const mproc_connection *connection) {
  const mpx_pipe_block *block = NULL;
  int r = mpx_object_check(connection, MPX_KIND_CONNECTION);
  if (r == 0)
    r = check_block(connection, &block);
  if (!block)
    return r;
  uint32_t closed = atomic_load(&block->closed);
  if (block->first.in != block->second.out || block->first.out != block->second.in)
    return mpx_fail(-EIO, "the pipe's directions do not meet");
  if (!block->first.in || block->first.in == block->first.out)
    return mpx_fail(-EIO, "the pipe has no direction of its own to its first end");
  if (closed >= MPX_PIPE_BOTH)
    return damaged("the pipe is open and closed", closed);
  r = check_queue(block->first.in);
  if (r == 0)
    r = check_queue(block->first.out);
  if (r == 0)
    r = check_end(&block->first, (closed & MPX_PIPE_FIRST) != 0);
  return r < 0 ? r : check_end(&block->second, (closed & MPX_PIPE_SECOND) != 0);
}
