/* Connections: making, giving, closing; the end of the other end; messages. */
#include "ipc/connection.h"

#include "base/error.h"
#include "mproc/heap.h"
#include "os/crash_point.h"

#include <errno.h>

enum { DEFAULT_CAPACITY = 64 };

static mpx_pipe_block *block_of(mproc_connection *end, uint32_t *ret_bit) {
  bool is_first = end < end->other;
  *ret_bit = is_first ? MPX_PIPE_FIRST : MPX_PIPE_SECOND;
  return (mpx_pipe_block *)(void *)(is_first ? end : end->other);
}

static int make_queues(const mproc_pipe_options *o, mpx_pipe_block *block) {
  const mproc_queue_options options = {.capacity = o->capacity ? o->capacity : DEFAULT_CAPACITY,
                                       .message_size = o->message_size};
  mproc_queue *back = NULL;
  int r = mproc_queue_create(&options, &block->first.in);
  if (r < 0)
    return r;
  if (!o->simplex)
    r = mproc_queue_create(&options, &back);
  if (r < 0) {
    (void)mproc_queue_destroy(block->first.in);
    return r;
  }
  block->second.out = block->first.in;
  block->second.in = block->first.out = back;
  return 0;
}

int mproc_pipe_create(const mproc_pipe_options *options, mproc_connection **ret_first,
                      mproc_connection **ret_second) {
  static const mproc_pipe_options defaults;
  const mproc_pipe_options *o = options ? options : &defaults;
  void *memory;
  int r = mpx_check_not_null(ret_first, "ret_first");
  if (r == 0)
    r = mpx_check_not_null(ret_second, "ret_second");
  if (r == 0)
    r = mpx_check_reserved(o->reserved, "mproc_pipe_options");
  if (r == 0)
    r = mpx_object_alloc(sizeof(mpx_pipe_block), &memory);
  if (r != 0)
    return r;
  mpx_pipe_block *block = memory;
  r = make_queues(o, block);
  if (r < 0) {
    (void)mproc_heap_free(memory);
    return r;
  }
  block->first.other = &block->second;
  block->second.other = &block->first;
  atomic_store_explicit(&block->first.user, mpx_family_self(), memory_order_relaxed);
  atomic_store_explicit(&block->second.user, mpx_family_self(), memory_order_relaxed);
  (void)mpx_object_publish(&block->first, MPX_KIND_CONNECTION);
  (void)mpx_object_publish(&block->second, MPX_KIND_CONNECTION);
  *ret_first = &block->first;
  *ret_second = &block->second;
  return 0;
}

/* ---- whose it is ----------------------------------------------------------------------------- */

int mpx_connection_use(mproc_connection *connection, mpx_thread *ret_self) {
  int r = mpx_object_enter(connection, MPX_KIND_CONNECTION, ret_self);
  mpx_member self = mpx_family_self();
  if (r == 0 && atomic_load_explicit(&connection->user, memory_order_relaxed) != self)
    atomic_store_explicit(&connection->user, self, memory_order_relaxed);
  return r;
}

int mpx_connection_enter(mproc_connection *connection, bool sends, int timeout_ms,
                         mpx_thread *ret_self) {
  int r = mpx_connection_use(connection, ret_self);
  if (r == 0)
    r = mpx_timeout_check(timeout_ms);
  if (r == 0 && !(sends ? connection->out : connection->in))
    r = mpx_fail(-EBADF, "this end of a simplex pipe only %s", sends ? "receives" : "sends");
  return r;
}

int mproc_connection_give(mproc_connection *connection, int64_t pid) {
  mpx_thread self;
  int r = mpx_object_enter(connection, MPX_KIND_CONNECTION, &self);
  if (r < 0)
    return r;
  mpx_member member = mpx_table_find(mpx_family_header(), pid);
  if (!member)
    return mpx_fail(-ESRCH, "%lld is no process of this family, or has ended", (long long)pid);
  atomic_store_explicit(&connection->user, member, memory_order_relaxed);
  return 0;
}

/* A child that is dead before it has taken its slot counts as alive in the table, for its parent to
 * bury. */
static bool has_ended(mpx_member member) {
  mpx_header *header = mpx_family_header();
  if (mpx_member_is_dead(header, member))
    return true;
  mpx_slot *slot = mpx_table_slot(header, member);
  int64_t pid = slot && mpx_table_is_claimed(header, member) ? mpx_slot_pid(slot) : 0;
  return pid && !mpx_os_process_is_alive(pid, -1);
}

bool mpx_connection_is_over(mproc_connection *connection) {
  mproc_connection *other = connection->other;
  return atomic_load_explicit(&other->object.kind, memory_order_relaxed) != MPX_KIND_CONNECTION ||
         has_ended(atomic_load_explicit(&other->user, memory_order_relaxed));
}

int mpx_connection_say_over(void) {
  return mpx_fail(MPROC_ECLOSED, "the other end of the pipe is closed, or its process has ended");
}

static void close_queues(mproc_connection *connection) {
  if (connection->in)
    (void)mproc_queue_close(connection->in);
  MPROC_CRASH_POINT("connection.half_closed");
  if (connection->out)
    (void)mproc_queue_close(connection->out);
}

void mpx_connection_look(mproc_connection *connection) {
  if (mpx_connection_is_over(connection))
    close_queues(connection);
}

/* A clock may be another's: of another namespace. */
void mpx_connection_look_in_time(mproc_connection *connection) {
  int64_t now = mpx_os_now();
  int64_t left = atomic_load_explicit(&connection->look_at, memory_order_relaxed) - now;
  if (left > 0 && left <= MPX_LOOK_NS)
    return;
  mpx_connection_look(connection);
  atomic_store_explicit(&connection->look_at, now + MPX_LOOK_NS, memory_order_relaxed);
}

/* ---- messages -------------------------------------------------------------------------------- */

/* A wait in slices, between which one looks whether the other end is still there. */
typedef struct slices {
  mproc_connection *connection;
  int64_t deadline; /* 0: a try */
  int ms;           /* of the slice */
  bool is_last;
} slices;

static slices slices_of(mproc_connection *connection, int timeout_ms) {
  slices s = {.connection = connection, .deadline = mpx_deadline_or_try(timeout_ms)};
  s.ms = timeout_ms == 0 ? 0 : (int)(MPX_LOOK_NS / MPX_NS_PER_MS);
  if (timeout_ms > 0 && timeout_ms < s.ms)
    s.ms = timeout_ms;
  return s;
}

/* `r` is how the last slice ended. Whether there is another. */
static bool next_slice(slices *s, int r) {
  if ((r != -ETIMEDOUT && r != -EAGAIN) || s->is_last)
    return false;
  mpx_connection_look(s->connection);
  int64_t left = s->deadline - mpx_os_now();
  s->is_last = left <= 0;
  if (s->is_last)
    s->ms = 0;
  else if (left < s->ms * MPX_NS_PER_MS)
    s->ms = (int)(left / MPX_NS_PER_MS) + 1;
  return true;
}

static int end_of(int r, int timeout_ms, const char *what) {
  if (r == MPROC_ECLOSED)
    return mpx_connection_say_over();
  return r == -EAGAIN || r == -ETIMEDOUT ? mpx_timeout_fail(timeout_ms, what) : r;
}

int mproc_connection_send(mproc_connection *connection, const void *data, size_t size,
                          int timeout_ms) {
  mpx_thread self;
  int r = mpx_connection_enter(connection, true, timeout_ms, &self);
  if (r < 0)
    return r;
  mpx_connection_look_in_time(connection); /* nobody else would, as long as there is room */
  slices s = slices_of(connection, timeout_ms);
  do
    r = mproc_queue_put(connection->out, data, size, s.ms);
  while (next_slice(&s, r));
  return end_of(r, timeout_ms, "the other end has made no room");
}

int mproc_connection_recv(mproc_connection *connection, void **ret_data, size_t *ret_size,
                          int timeout_ms) {
  mpx_thread self;
  int r = mpx_connection_enter(connection, false, timeout_ms, &self);
  if (r < 0)
    return r;
  slices s = slices_of(connection, timeout_ms);
  do
    r = mproc_queue_get_block(connection->in, ret_data, ret_size, s.ms);
  while (next_slice(&s, r));
  return end_of(r, timeout_ms, "nothing was sent");
}

int mproc_connection_recv_into(mproc_connection *connection, void *buffer, size_t capacity,
                               size_t *ret_size, int timeout_ms) {
  mpx_thread self;
  int r = mpx_connection_enter(connection, false, timeout_ms, &self);
  if (r < 0)
    return r;
  slices s = slices_of(connection, timeout_ms);
  do
    r = mproc_queue_get(connection->in, buffer, capacity, ret_size, s.ms);
  while (next_slice(&s, r));
  return end_of(r, timeout_ms, "nothing was sent");
}

int mproc_connection_poll(mproc_connection *connection, int timeout_ms) {
  mpx_thread self;
  int r = mpx_connection_enter(connection, false, timeout_ms, &self);
  if (r < 0)
    return r;
  mproc_wait_item item = {.kind = MPROC_WAIT_CONNECTION, .object = connection};
  r = mproc_wait(&item, 1, 1, timeout_ms);
  return r == -ETIMEDOUT || r == -EAGAIN ? 0 : r;
}

/* ---- closing --------------------------------------------------------------------------------- */

static bool is_alive(mpx_thread thread) {
  return thread && !mpx_thread_is_dead(mpx_family_header(), thread);
}

/* Who hands over a descriptor, or is handed one, sleeps at what the kernel has. */
static bool is_waited_in(mproc_connection *connection) {
  return is_alive(atomic_load(&connection->incoming.receiver)) ||
         is_alive(atomic_load(&connection->other->incoming.sender)) ||
         mpx_notice_are_used(connection->in ? &connection->in->not_empty : NULL,
                             connection->out ? &connection->out->not_full : NULL, NULL,
                             MPX_TURN_GRACE_NS);
}

static void free_pipe(mpx_pipe_block *block) {
  (void)mproc_queue_destroy(block->first.in);
  (void)mproc_queue_destroy(block->first.out);
  mpx_object_keep(block);
}

/* Whoever puts the 0 there closes the end. */
static bool takes_closing(mproc_connection *connection) {
  uint32_t kind = MPX_KIND_CONNECTION;
  return atomic_compare_exchange_strong(&connection->object.kind, &kind, 0);
}

/* Whether the other end is ours to close: its process has ended, and nobody else does so. One that
 * died of doing so has left it to us; one who is still at it has it (mpx_connection_use). */
static bool inherits_closing(mproc_connection *other) {
  if (!has_ended(atomic_load(&other->user)))
    return false;
  return takes_closing(other) || has_ended(atomic_load(&other->user));
}

int mproc_connection_close(mproc_connection *connection) {
  if (!connection)
    return 0;
  mpx_thread self;
  int r = mpx_connection_use(connection, &self);
  if (r < 0)
    return r;
  if (is_waited_in(connection))
    return mpx_fail(-EBUSY, "a thread waits in the connection");
  uint32_t bit;
  mpx_pipe_block *block = block_of(connection, &bit);
  if (!takes_closing(connection))
    return mpx_fail(MPROC_ECLOSED, "the connection is being closed already");
  uint32_t bits = inherits_closing(connection->other) ? MPX_PIPE_BOTH : bit;
  close_queues(connection);
  MPROC_CRASH_POINT("connection.closed");
  uint32_t before = atomic_fetch_or(&block->closed, bits);
  if (before != MPX_PIPE_BOTH && (before | bits) == MPX_PIPE_BOTH)
    free_pipe(block);
  return 0;
}
