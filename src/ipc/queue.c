/* Queue: making and closing one, its chain of rings, its dead. */
#include "ipc/queue.h"

#include "base/error.h"
#include "mproc/heap.h"
#include "os/crash_point.h"

#include <errno.h>
#include <string.h>

enum {
  DEFAULT_CAPACITY = 1024,
  DEFAULT_INSIDE = 112,
  LEAST_INSIDE = sizeof(void *),
  MOST_INSIDE = 65536
};

/* No slot of the process table has such a number. */
mpx_caller mpx_queue_owner(const mproc_queue *queue) {
  return (mpx_caller){.member = (uint64_t)1 << 63 | (uintptr_t)queue, .lane = 0};
}

int mpx_queue_add_ring(mproc_queue *queue, unsigned log2_count, mpx_link **ret_link) {
  const mpx_caller owner = mpx_queue_owner(queue);
  size_t size = offsetof(mpx_link, ring) + mpx_ring_size(log2_count, queue->inside);
  void *memory;
  int r = mpx_allocator_alloc(mpx_family_header()->allocator, &owner, size, 64, true, &memory);
  if (r < 0)
    return r;
  memset(memory, 0, size);
  mpx_link *link = memory;
  mpx_ring_init(&link->ring, log2_count, queue->inside);
  *ret_link = link;
  return 0;
}

static int check_options(const mproc_queue_options *options) {
  int r = mpx_check_reserved(options->reserved, "mproc_queue_options");
  if (r == 0 && options->capacity > (size_t)1 << MPX_QUEUE_MOST_LOG2)
    r = mpx_fail(-EINVAL, "a capacity of %zu messages is more than %zu", options->capacity,
                 (size_t)1 << MPX_QUEUE_MOST_LOG2);
  if (r == 0 && options->message_size > MOST_INSIDE)
    r = mpx_fail(-EINVAL,
                 "a message_size of %zu bytes is more than %d; longer messages may be put all the "
                 "same, and lie in blocks of their own",
                 options->message_size, MOST_INSIDE);
  return r;
}

static unsigned log2_above(size_t count) {
  unsigned log2 = 1; /* with one slot its laps could not be told apart */
  while ((size_t)1 << log2 < count)
    log2++;
  return log2;
}

int mproc_queue_create(const mproc_queue_options *options, mproc_queue **ret_queue) {
  static const mproc_queue_options defaults;
  const mproc_queue_options *o = options ? options : &defaults;
  void *memory;
  mpx_link *link;
  int r = mpx_check_not_null(ret_queue, "ret_queue");
  if (r == 0)
    r = check_options(o);
  if (r == 0)
    r = mpx_object_alloc(sizeof(mproc_queue), &memory);
  if (r != 0)
    return r;
  mproc_queue *queue = memory;
  size_t inside = o->message_size ? o->message_size : DEFAULT_INSIDE;
  queue->inside = (uint32_t)(inside < LEAST_INSIDE ? LEAST_INSIDE : inside);
  queue->growing = o->growing != 0;
  queue->joinable = o->joinable != 0;
  r = mpx_queue_add_ring(queue, log2_above(o->capacity ? o->capacity : DEFAULT_CAPACITY), &link);
  if (r < 0) {
    (void)mproc_heap_free(memory);
    return r;
  }
  atomic_store_explicit(&queue->first, link, memory_order_relaxed);
  atomic_store_explicit(&queue->last, link, memory_order_relaxed);
  *ret_queue = queue;
  return mpx_object_publish(queue, MPX_KIND_QUEUE);
}

/* ---- the chain ------------------------------------------------------------------------------- */

static void forward(_Atomic(mpx_link *) *end, mpx_link *from, mpx_link *to) {
  (void)atomic_compare_exchange_strong(end, &from, to);
}

static bool can_grow(const mproc_queue *queue, const mpx_link *link) {
  return queue->growing && link->ring.log2_count < MPX_QUEUE_MOST_LOG2;
}

/* Twice as large. Who dies before the ring is in the chain leaves it to the queue's end. */
static int grow(mproc_queue *queue, mpx_link *link) {
  mpx_link *none = NULL, *more;
  int r = mpx_queue_add_ring(queue, link->ring.log2_count + 1, &more);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("queue.ring_made");
  if (!atomic_compare_exchange_strong(&link->next, &none, more))
    (void)mproc_heap_free(more);
  return 0;
}

int mpx_queue_claim(mproc_queue *queue, mpx_thread self, bool may_pass, mpx_place *ret_place) {
  for (;;) {
    mpx_link *link = atomic_load_explicit(&queue->last, memory_order_acquire);
    mpx_link *next = queue->growing ? mpx_link_next(link) : NULL;
    if (next) { /* what was put by now is in the ring before, or will not be */
      forward(&queue->last, link, next);
      continue;
    }
    if (atomic_load(&queue->closed)) /* after a ring that we added, see mpx_queue_take */
      return MPROC_ECLOSED;
    int r =
        mpx_ring_claim(&link->ring, self, may_pass && !can_grow(queue, link), &ret_place->position);
    ret_place->link = link;
    if (r == -EAGAIN && can_grow(queue, link))
      r = grow(queue, link);
    else if (r == 0 && atomic_load(&queue->closed)) {
      /* since we looked: who had all slots has been told the end without a seal */
      mpx_queue_finish(queue, ret_place);
      return MPROC_ECLOSED;
    } else if (r != -EPIPE)
      return r;
    if (r < 0 && r != -EPIPE)
      return r;
  }
}

/* Nothing more comes into a ring that has a next one, or whose queue is closed. */
static bool has_ended(mproc_queue *queue, mpx_link *link) {
  return mpx_link_next(link) || atomic_load_explicit(&queue->closed, memory_order_acquire);
}

/* The rings before one that has a message. */
typedef struct earlier {
  mpx_link *first, *end;
} earlier;

static bool is_not_full(uint64_t position, mpx_slot_phase phase, void *user) {
  (void)position;
  *(bool *)user = phase != MPX_RING_FULL;
  return *(bool *)user;
}

/* Who put the message that was found may have put one into an earlier ring, since our look. */
static bool have_nothing(void *user) {
  const earlier *rings = user;
  bool is_empty = true;
  for (mpx_link *link = rings->first; is_empty && link != rings->end; link = mpx_link_next(link))
    (void)mpx_ring_look(&link->ring, is_not_full, &is_empty);
  return is_empty;
}

static int take_from(mproc_queue *queue, mpx_link *first, mpx_thread self, mpx_place *place) {
  mpx_link *link = place->link;
  earlier rings = {first, link};
  mpx_ring_may_take *may_take = link == first ? NULL : have_nothing;
  int r = mpx_ring_take(&link->ring, self, may_take, &rings, &place->position);
  if (r == -EAGAIN && has_ended(queue, link) && mpx_ring_seal(&link->ring))
    r = mpx_ring_take(&link->ring, self, may_take, &rings, &place->position);
  if (r == -EDEADLK) /* nothing comes but what the caller itself gives back */
    return has_ended(queue, link) ? -EPIPE : -EAGAIN;
  return r;
}

/* Others have a message in hand: who gets one after the other never waits, so somebody looks for
 * the dead all the same. */
static void look_meanwhile(mproc_queue *queue, mpx_link *first, mpx_thread self,
                           const mpx_place *place) {
  uint64_t floor = atomic_load_explicit(&place->link->ring.floor, memory_order_relaxed);
  if (place->link != first || place->position != floor)
    mpx_queue_repair_in_time(queue, self);
}

/* Who has a message of an earlier ring in hand delays nobody: the ring stays in the chain until all
 * of it is done with. */
int mpx_queue_take(mproc_queue *queue, mpx_thread self, mpx_place *ret_place) {
  mpx_link *first = atomic_load_explicit(&queue->first, memory_order_acquire);
  mpx_place place = {first, 0};
  int result = MPROC_ECLOSED;
  while (place.link) {
    int r = take_from(queue, first, self, &place);
    if (r == 0) {
      *ret_place = place;
      look_meanwhile(queue, first, self, &place);
      return 0;
    }
    if (r == -ESTALE) {
      place.link = first;
      result = MPROC_ECLOSED;
      continue;
    }
    if (r == -EAGAIN)
      result = r;
    mpx_link *link = place.link;
    /* not acquire: who adds a ring looks whether the queue is closed after it, as we before */
    place.link = atomic_load(&link->next);
    if (r == -EPIPE && link == first && place.link && mpx_ring_look(&link->ring, NULL, NULL) == 0) {
      forward(&queue->first, link, place.link);
      first = place.link;
    }
  }
  return result;
}

/* ---- done with ------------------------------------------------------------------------------- */

/* A message inside needs no such step: who dies before its slot is free has not got it. */
static void free_block(mpx_ring_slot *slot) {
  void *block = mpx_message_block(slot);
  if (slot->where != MPX_MESSAGE_BLOCK && slot->where != MPX_MESSAGE_GIVEN)
    return;
  mpx_message_forget(slot); /* before: nobody frees it twice, or gets it, whoever dies here */
  MPROC_CRASH_POINT("queue.block_forgotten");
  (void)mproc_heap_free(block);
}

void mpx_queue_finish(mproc_queue *queue, const mpx_place *place) {
  free_block(mpx_place_slot(place));
  mpx_ring_finish(&place->link->ring, place->position);
  mpx_notice_tell(&queue->not_full, 1);
  mpx_turn_tell(&queue->drained, MPX_TURN_ALL);
  if (atomic_load(&queue->closed)) /* it may have been the last */
    mpx_notice_next(&queue->not_empty, MPX_TURN_ALL);
}

static bool inherit(mpx_ring_slot *slot, mpx_slot_phase phase) {
  if (phase == MPX_RING_TAKEN)
    return slot->where != MPX_MESSAGE_GONE;
  free_block(slot);
  return false;
}

void mpx_queue_repair(mproc_queue *queue, mpx_thread self) {
  mpx_link *link = atomic_load_explicit(&queue->first, memory_order_acquire);
  for (; link; link = mpx_link_next(link)) {
    mpx_ring_losses losses = mpx_ring_repair(&link->ring, self, inherit);
    if (losses.slots == 0)
      continue;
    atomic_fetch_add_explicit(&queue->dropped, losses.dropped, memory_order_relaxed);
    atomic_fetch_add_explicit(&queue->delivered_again, losses.delivered, memory_order_relaxed);
    atomic_fetch_add_explicit(&queue->lost, losses.slots - losses.dropped - losses.delivered,
                              memory_order_relaxed);
    mpx_notice_next(&queue->not_full, MPX_TURN_ALL);
    mpx_notice_next(&queue->not_empty, MPX_TURN_ALL);
    mpx_turn_next(&queue->drained, MPX_TURN_ALL);
  }
}

void mpx_queue_repair_in_time(mproc_queue *queue, mpx_thread self) {
  int64_t now = mpx_os_now_coarse(),
          last = atomic_load_explicit(&queue->looked_at, memory_order_relaxed);
  int64_t since = now - last; /* negative: by a clock of another namespace */
  if ((since < 0 || since >= MPX_LOOK_NS) &&
      atomic_compare_exchange_strong(&queue->looked_at, &last, now))
    mpx_queue_repair(queue, self);
}

/* ---- looking --------------------------------------------------------------------------------- */

typedef struct counts {
  uint64_t full, in_hand, capacity;
} counts;

static bool count_slot(uint64_t position, mpx_slot_phase phase, void *user) {
  counts *all = user;
  (void)position;
  all->full += phase == MPX_RING_FULL;
  all->in_hand += phase == MPX_RING_CLAIMED || phase == MPX_RING_TAKEN;
  return true;
}

static counts count_all(const mproc_queue *queue) {
  counts all = {0, 0, 0};
  mpx_link *link = atomic_load_explicit(&queue->first, memory_order_acquire);
  for (; link; link = mpx_link_next(link)) {
    (void)mpx_ring_look(&link->ring, count_slot, &all);
    all.capacity += mpx_ring_count(&link->ring);
  }
  return all;
}

int64_t mproc_queue_size(const mproc_queue *queue) {
  int r = mpx_object_check(queue, MPX_KIND_QUEUE);
  return r < 0 ? r : (int64_t)count_all(queue).full;
}

int mproc_queue_stats(const mproc_queue *queue, mproc_queue_statistics *ret_statistics) {
  int r = mpx_check_not_null(ret_statistics, "ret_statistics");
  if (r == 0)
    r = mpx_object_check(queue, MPX_KIND_QUEUE);
  if (r < 0)
    return r;
  counts all = count_all(queue);
  *ret_statistics = (mproc_queue_statistics){
      .messages = all.full,
      .in_hand = all.in_hand,
      .capacity = all.capacity,
      .dropped = atomic_load_explicit(&queue->dropped, memory_order_relaxed),
      .delivered_again = atomic_load_explicit(&queue->delivered_again, memory_order_relaxed),
      .lost = atomic_load_explicit(&queue->lost, memory_order_relaxed)};
  return 0;
}

typedef struct chance {
  const mpx_ring *ring;
  mpx_thread self;
  bool is_full, may_be; /* a message is there; others have one, or will */
} chance;

static bool find_chance(uint64_t position, mpx_slot_phase phase, void *user) {
  chance *c = user;
  c->is_full |= phase == MPX_RING_FULL;
  c->may_be |= !mpx_ring_has(c->ring, position, c->self);
  return !c->is_full;
}

bool mpx_queue_can_get(mproc_queue *queue, mpx_thread self) {
  chance c = {.self = self};
  bool closed = atomic_load_explicit(&queue->closed, memory_order_acquire);
  for (mpx_link *link = atomic_load_explicit(&queue->first, memory_order_acquire);
       link && !c.is_full; link = mpx_link_next(link)) {
    c.ring = &link->ring;
    (void)mpx_ring_look(&link->ring, find_chance, &c);
  }
  return c.is_full || (closed && !c.may_be);
}

bool mpx_queue_can_put(mproc_queue *queue) {
  mpx_link *last = atomic_load_explicit(&queue->last, memory_order_acquire);
  return can_grow(queue, last) || atomic_load_explicit(&queue->closed, memory_order_acquire) ||
         mpx_ring_has_room(&last->ring);
}

/* ---- the end --------------------------------------------------------------------------------- */

int mproc_queue_close(mproc_queue *queue) {
  mpx_thread self;
  int r = mpx_object_enter(queue, MPX_KIND_QUEUE, &self);
  if (r < 0)
    return r;
  atomic_store(&queue->closed, 1);
  MPROC_CRASH_POINT("queue.closed");
  mpx_notice_next(&queue->not_full, MPX_TURN_ALL);
  mpx_notice_next(&queue->not_empty, MPX_TURN_ALL);
  return 0;
}

/* What callers gave, and nobody got, is freed one by one; the rest goes with its owner. */
static bool free_given(uint64_t position, mpx_slot_phase phase, void *user) {
  mpx_ring_slot *slot = mpx_ring_at(user, position);
  if (phase == MPX_RING_FULL && slot->where == MPX_MESSAGE_GIVEN)
    free_block(slot);
  return true;
}

/* One at a time, from before the first look into the rings: they go at once. Who was stopped on the
 * way here may find somebody's memory: what was there, and looks like a dead one's name, is put
 * back. */
static int begin_to_destroy(mproc_queue *queue, mpx_thread self) {
  mpx_thread seen = 0, own = self;
  MPROC_CRASH_POINT("queue.destroys");
  while (!atomic_compare_exchange_strong(&queue->destroyer, &seen, self)) {
    int r = mpx_object_check(queue, MPX_KIND_QUEUE);
    if (r < 0)
      return r;
    if (seen != 0 && !mpx_thread_is_dead(mpx_family_header(), seen))
      return mpx_fail(-EBUSY, "another thread destroys the queue");
  }
  int r = mpx_object_check(queue, MPX_KIND_QUEUE); /* the dead one may have come to the end */
  if (r < 0)
    (void)atomic_compare_exchange_strong(&queue->destroyer, &own, seen);
  return r;
}

static bool has_sleepers(mproc_queue *queue) {
  return mpx_turn_has_sleepers(&queue->not_empty.turn) ||
         mpx_turn_has_sleepers(&queue->not_full.turn) || mpx_turn_has_sleepers(&queue->drained);
}

static bool is_in_use(mproc_queue *queue, mpx_thread self) {
  if (has_sleepers(queue)) /* the repair wakes all, and one may be slow */
    return true;
  int64_t from = mpx_os_now();
  mpx_queue_repair(queue, self);
  /* who is up may go through all slots, too, for the dead, for his own, or for somebody's */
  int64_t grace_ns = MPX_TURN_GRACE_NS + 4 * (mpx_os_now() - from);
  /* counted last: who was woken, and does not sleep any more, may have what he was woken for */
  return mpx_notice_are_used(&queue->not_empty, &queue->not_full, &queue->drained, grace_ns) ||
         count_all(queue).in_hand > 0;
}

int mproc_queue_destroy(mproc_queue *queue) {
  if (!queue)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(queue, MPX_KIND_QUEUE, &self);
  if (r == 0)
    r = begin_to_destroy(queue, self);
  if (r < 0)
    return r;
  if (is_in_use(queue, self)) {
    atomic_store(&queue->destroyer, 0);
    return mpx_fail(-EBUSY, "somebody waits for the queue, or has a message of it in hand");
  }
  r = mpx_object_end(queue, MPX_KIND_QUEUE);
  if (r < 0)
    return r;
  mpx_notice_next(&queue->not_empty, MPX_TURN_ALL); /* who came since we looked */
  mpx_notice_next(&queue->not_full, MPX_TURN_ALL);
  mpx_turn_next(&queue->drained, MPX_TURN_ALL);
  mpx_link *link = atomic_load(&queue->first);
  for (; link; link = mpx_link_next(link))
    (void)mpx_ring_look(&link->ring, free_given, &link->ring);
  const mpx_caller caller = {.member = mpx_family_self(), .lane = 0};
  mpx_member owner = mpx_queue_owner(queue).member;
  mpx_notice_fini(&queue->not_empty);
  mpx_notice_fini(&queue->not_full);
  /* before: with the block goes the address that is its rings' owner, to the next queue there */
  r = mpx_allocator_reap(mpx_family_header()->allocator, &caller, owner);
  MPROC_CRASH_POINT("queue.reaped");
  mpx_object_keep(queue);
  return r;
}
