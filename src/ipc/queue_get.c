/* Getting: take a slot, read it, finish it. */
#include "base/error.h"
#include "ipc/queue.h"
#include "ipc/turn_wait.h"
#include "mproc/heap.h"

#include <errno.h>
#include <string.h>

static int say_ended(void) {
  return mpx_fail(MPROC_ECLOSED, "the queue is closed, and empty");
}

/* What the calling thread has of all queues: task_done need not look for more. A child has its
 * parent's number as well, and looks in vain. */
static _Thread_local uint32_t in_hand MPX_TLS_MODEL;

/* Without having waited. */
static _Thread_local uint32_t in_a_row MPX_TLS_MODEL;

static int take_now(mproc_queue *queue, mpx_thread self, mpx_place *ret_place) {
  int r = mpx_queue_take(queue, self, ret_place);
  in_hand += r == 0;
  in_a_row += r == 0;
  return r;
}

static void finish(mproc_queue *queue, const mpx_place *place) {
  in_hand--;
  mpx_queue_finish(queue, place);
}

static int take(mproc_queue *queue, mpx_thread self, int timeout_ms, mpx_place *ret_place) {
  int r = take_now(queue, self, ret_place);
  if (r == 0)
    return 0;
  mpx_ipc_wait wait = mpx_ipc_wait_for(&queue->not_empty.turn, timeout_ms);
  wait.rest_ns = mpx_queue_rest_ns(queue, &in_a_row);
  for (;; r = take_now(queue, self, ret_place)) {
    if (r == MPROC_ECLOSED)
      return say_ended();
    if (r == 0 && wait.has_slept) /* each sleep may be shorter than the time between two looks */
      mpx_queue_repair_in_time(queue, self);
    if (r != -EAGAIN)
      return r;
    if (!mpx_ipc_wait_more(&wait))
      return mpx_timeout_fail(timeout_ms, "the queue got no message");
    r = mpx_object_check_again(queue,
                               MPX_KIND_QUEUE); /* destroyed while we slept: no ring is left */
    if (r < 0)
      return r;
    if (wait.is_time_to_look) {
      mpx_ipc_wait_mark(&wait);
      mpx_queue_repair(queue, self);
    }
  }
}

static const void *data_of(const mpx_ring_slot *slot) {
  return slot->where == MPX_MESSAGE_INSIDE ? slot->data : mpx_message_block(slot);
}

/* The message stays in its slot when the call returns. Producers may pass it by now. */
static void keep(mproc_queue *queue, const mpx_place *place) {
  static _Thread_local uint32_t number MPX_TLS_MODEL;
  mpx_place_slot(place)->taking = number++ & MPX_TAKING_MASK;
  if (mpx_turn_is_waited(&queue->not_full.turn) && mpx_queue_can_put(queue))
    mpx_notice_wake(&queue->not_full, 1);
}

/* The message is there again; who waits for one may take it. */
static void give_back(mproc_queue *queue, const mpx_place *place) {
  in_hand--;
  mpx_ring_give_back(&place->link->ring, place->position);
  mpx_notice_tell(&queue->not_empty, 1);
}

static int copy_out(mproc_queue *queue, const mpx_place *place, void *buffer, size_t capacity,
                    size_t *ret_size) {
  const mpx_ring_slot *slot = mpx_place_slot(place);
  size_t size = slot->size;
  if (size > capacity) {
    give_back(queue, place);
    if (ret_size)
      *ret_size = size;
    return mpx_fail(-EMSGSIZE, "the message has %zu bytes, the buffer %zu", size, capacity);
  }
  if (size)
    memcpy(buffer, data_of(slot), size);
  if (ret_size)
    *ret_size = size;
  if (queue->joinable)
    keep(queue, place);
  else
    finish(queue, place);
  return 0;
}

int mproc_queue_get(mproc_queue *queue, void *buffer, size_t capacity, size_t *ret_size,
                    int timeout_ms) {
  mpx_thread self;
  mpx_place place;
  int r = mpx_object_enter_for(queue, MPX_KIND_QUEUE, timeout_ms, &self);
  if (r == 0 && capacity)
    r = mpx_check_not_null(buffer, "buffer");
  if (r == 0)
    r = take(queue, self, timeout_ms, &place);
  return r < 0 ? r : copy_out(queue, &place, buffer, capacity, ret_size);
}

int mproc_queue_get_many(mproc_queue *queue, void *buffer, size_t size, int count, int timeout_ms) {
  mpx_thread self;
  mpx_place place;
  int done = 0, r = mpx_object_enter_for(queue, MPX_KIND_QUEUE, timeout_ms, &self);
  if (r == 0 && size)
    r = mpx_check_not_null(buffer, "buffer");
  if (r == 0 && count < 1)
    r = mpx_fail(-EINVAL, "%d messages cannot be got; at least 1", count);
  while (r == 0 && done < count) {
    r = done == 0 ? take(queue, self, timeout_ms, &place) : take_now(queue, self, &place);
    if (r == 0)
      r = copy_out(queue, &place, (char *)buffer + (size_t)done * size, size, NULL);
    done += r == 0;
  }
  return done > 0 ? done : r;
}

/* A copy of the caller's own. It is the process's until it holds the message. */
static int copy_to_block(const mpx_ring_slot *slot, void **ret_block) {
  void *block = mproc_heap_alloc_owned(slot->size);
  if (!block)
    return mproc_last_error();
  memcpy(block, data_of(slot), slot->size);
  (void)mproc_heap_share(block);
  *ret_block = block;
  return 0;
}

int mproc_queue_get_block(mproc_queue *queue, void **ret_block, size_t *ret_size, int timeout_ms) {
  mpx_thread self;
  mpx_place place;
  int r = mpx_object_enter_for(queue, MPX_KIND_QUEUE, timeout_ms, &self);
  if (r == 0)
    r = mpx_check_not_null(ret_block, "ret_block");
  if (r == 0)
    r = mpx_check_not_null(ret_size, "ret_size");
  if (r == 0 && queue->joinable)
    r = mpx_fail(-EINVAL, "a message of a joinable queue stays in it until it is done with; use "
                          "mproc_queue_get or mproc_queue_get_begin");
  if (r == 0)
    r = take(queue, self, timeout_ms, &place);
  if (r < 0)
    return r;
  mpx_ring_slot *slot = mpx_place_slot(&place);
  void *block = NULL;
  if (slot->where == MPX_MESSAGE_GIVEN) { /* from here on it goes with us, not with the queue */
    block = mpx_message_block(slot);
    mpx_message_forget(slot);
  } else if (slot->size) {
    r = copy_to_block(slot, &block);
  }
  if (r < 0) {
    give_back(queue, &place);
    return r;
  }
  *ret_block = block;
  *ret_size = slot->size;
  finish(queue, &place);
  return 0;
}

/* ---- in hand --------------------------------------------------------------------------------- */

int mproc_queue_get_begin(mproc_queue *queue, mproc_message *ret_message, int timeout_ms) {
  mpx_thread self;
  mpx_place place;
  int r = mpx_object_enter_for(queue, MPX_KIND_QUEUE, timeout_ms, &self);
  if (r == 0)
    r = mpx_check_not_null(ret_message, "ret_message");
  if (r == 0)
    r = take(queue, self, timeout_ms, &place);
  if (r < 0)
    return r;
  const mpx_ring_slot *slot = mpx_place_slot(&place);
  keep(queue, &place);
  *ret_message = (mproc_message){.data = slot->size ? data_of(slot) : NULL,
                                 .size = slot->size,
                                 .place = {(uintptr_t)place.link, place.position, slot->taking}};
  return 0;
}

/* Whether the place is one of the queue's that the calling thread has. */
static int check_in_hand(mproc_queue *queue, const mproc_message *message, mpx_place *ret_place) {
  mpx_thread self;
  int r = mpx_object_enter(queue, MPX_KIND_QUEUE, &self);
  if (r == 0)
    r = mpx_check_not_null(message, "message");
  if (r < 0)
    return r;
  mpx_link *link = atomic_load_explicit(&queue->first, memory_order_acquire);
  while (link && (uintptr_t)link != message->place[0])
    link = atomic_load_explicit(&link->next, memory_order_acquire);
  const mpx_place place = {link, message->place[1]};
  if (!link || !mpx_ring_has(&link->ring, place.position, self) ||
      mpx_place_slot(&place)->taking != message->place[2])
    return mpx_fail(-EINVAL, "the calling thread does not have this message of the queue in hand");
  *ret_place = place;
  return 0;
}

int mproc_queue_get_commit(mproc_queue *queue, const mproc_message *message) {
  mpx_place place;
  int r = check_in_hand(queue, message, &place);
  if (r == 0)
    finish(queue, &place);
  return r;
}

int mproc_queue_get_abort(mproc_queue *queue, const mproc_message *message) {
  mpx_place place;
  int r = check_in_hand(queue, message, &place);
  if (r == 0)
    give_back(queue, &place);
  return r;
}

/* The message that the calling thread took first, of those it has. */
typedef struct oldest {
  mpx_thread self;
  uint32_t seen;  /* of those in hand */
  mpx_link *link; /* where we look */
  mpx_place place;
} oldest;

/* Numbers are compared in a circle: half of them are ahead. */
static bool is_before(const mpx_ring_slot *one, const mpx_ring_slot *other) {
  return ((one->taking - other->taking) & MPX_TAKING_MASK) > MPX_TAKING_MASK / 2;
}

static bool find_oldest(uint64_t position, mpx_slot_phase phase, void *user) {
  oldest *own = user;
  const mpx_place place = {own->link, position};
  if (phase != MPX_RING_TAKEN || !mpx_ring_has(&own->link->ring, position, own->self))
    return true;
  if (!own->place.link || is_before(mpx_place_slot(&place), mpx_place_slot(&own->place)))
    own->place = place;
  return ++own->seen < in_hand;
}

int mproc_queue_task_done(mproc_queue *queue) {
  mpx_thread self;
  int r = mpx_object_enter(queue, MPX_KIND_QUEUE, &self);
  if (r < 0)
    return r;
  if (!queue->joinable)
    return mpx_fail(-EINVAL, "the queue is not joinable; set mproc_queue_options.joinable");
  oldest own = {.self = self, .link = atomic_load_explicit(&queue->first, memory_order_acquire)};
  for (; own.link && own.seen < in_hand; own.link = mpx_link_next(own.link))
    (void)mpx_ring_look(&own.link->ring, find_oldest, &own);
  if (!own.place.link)
    return mpx_fail(-EINVAL,
                    "task_done was called more often than the calling thread got a message");
  finish(queue, &own.place);
  return 0;
}

/* ---- all done -------------------------------------------------------------------------------- */

/* How many places were claimed, from `link` on. */
static uint64_t count_claims(mpx_link *link) {
  uint64_t count = 0;
  for (; link; link = mpx_link_next(link))
    count += atomic_load(&link->ring.tail);
  return count;
}

/* A message that was put behind our look, by one who then finished what we had yet to see, is told
 * by the tail, which moves before a put returns: a look counts if nothing was put meanwhile. */
static bool is_drained(mproc_queue *queue) {
  mpx_link *first = atomic_load_explicit(&queue->first, memory_order_acquire);
  uint64_t claims, before = count_claims(first);
  while (true) {
    for (mpx_link *link = first; link; link = mpx_link_next(link))
      if (mpx_ring_look(&link->ring, NULL, NULL) > 0)
        return false;
    claims = count_claims(first);
    if (claims == before)
      return true;
    before = claims;
  }
}

int mproc_queue_join(mproc_queue *queue, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(queue, MPX_KIND_QUEUE, timeout_ms, &self);
  if (r < 0)
    return r;
  mpx_ipc_wait wait = mpx_ipc_wait_for(&queue->drained, timeout_ms);
  while (!is_drained(queue)) {
    if (!mpx_ipc_wait_more(&wait))
      return mpx_timeout_fail(timeout_ms, "messages of the queue were not done with");
    r = mpx_object_check_again(queue, MPX_KIND_QUEUE); /* as above */
    if (r < 0)
      return r;
    mpx_ipc_wait_mark(&wait); /* is_drained goes through all, too */
    if (wait.is_time_to_look)
      mpx_queue_repair(queue, self);
  }
  return 0;
}
