/* The check that other tests of queues rely on: healthy ones pass in every state, and one that was
 * broken in a single place does not. */
#include "harness.h"
#include "members.h"
#include "processes.h"

#include "heap/family.h"
#include "ipc/queue.h"

#include <mproc/error.h>

/* As in ring.c. */
enum { PHASE_BITS = 3, LAP_SHIFT = 3, OWNER_SHIFT = 25 };
#define LAP ((uint64_t)1 << LAP_SHIFT)
#define PHASES (((uint64_t)1 << PHASE_BITS) - 1)
#define OWNER ((uint64_t)1 << OWNER_SHIFT)

enum { PLACES = 8, FIRST = 2 * PLACES + 3, LONGER = 500 };

static void check_passes(mproc_queue *queue) {
  check_is_whole(mpx_queue_check(queue));
}

/* ---- healthy --------------------------------------------------------------------------------- */

static void put(mproc_queue *queue, size_t size) {
  static const char bytes[5000];
  CHECK_EQ(mproc_queue_put(queue, bytes, size, 0), 0);
}

static void put_given(mproc_queue *queue) {
  CHECK_EQ(mproc_queue_put_block(queue, mproc_heap_alloc_owned(100), 100, 0), 0);
}

static void get(mproc_queue *queue) {
  char bytes[5000];
  CHECK_EQ(mproc_queue_get(queue, bytes, sizeof bytes, NULL, 0), 0);
}

static void live_through(mproc_queue *queue, bool joinable) {
  mproc_message messages[3];
  for (int lap = 0; lap < 30; lap++) {
    for (int i = 0; i < 6; i++) {
      put(queue, (size_t)(i * lap * 10));
      check_passes(queue);
    }
    put_given(queue);
    for (int i = 0; i < 3; i++) {
      CHECK_EQ(mproc_queue_get_begin(queue, &messages[i], 0), 0);
      check_passes(queue);
    }
    CHECK_EQ(mproc_queue_get_commit(queue, &messages[1]), 0);
    check_passes(queue);
    CHECK_EQ(mproc_queue_get_abort(queue, &messages[0]), 0);
    check_passes(queue);
    CHECK_EQ(mproc_queue_get_commit(queue, &messages[2]), 0);
    for (int i = 0; i < 5; i++) {
      get(queue);
      check_passes(queue);
      if (joinable)
        CHECK_EQ(mproc_queue_task_done(queue), 0);
    }
  }
}

static void live_with_one_in_hand(mproc_queue *queue, bool gives_back) {
  mproc_message message;
  put(queue, 10);
  CHECK_EQ(mproc_queue_get_begin(queue, &message, 0), 0);
  for (int i = 0; i < 5 * PLACES; i++) {
    put(queue, 10);
    check_passes(queue);
    get(queue);
    check_passes(queue);
  }
  if (gives_back) {
    CHECK_EQ(mproc_queue_get_abort(queue, &message), 0);
    check_passes(queue);
    get(queue);
  } else {
    CHECK_EQ(mproc_queue_get_commit(queue, &message), 0);
  }
  check_passes(queue);
}

TEST(healthy_queues_pass) {
  const mproc_queue_options sorts[] = {{.capacity = PLACES},
                                       {.capacity = PLACES, .joinable = 1},
                                       {.capacity = 2, .growing = 1},
                                       {.capacity = PLACES, .message_size = 1},
                                       {.capacity = PLACES, .message_size = 4000}};
  for (size_t i = 0; i < sizeof sorts / sizeof sorts[0]; i++) {
    mproc_queue *queue;
    CHECK_EQ(mproc_queue_create(&sorts[i], &queue), 0);
    check_passes(queue);
    live_through(queue, sorts[i].joinable);
    for (int k = 0; !sorts[i].joinable && k < 2; k++)
      live_with_one_in_hand(queue, k == 1);
    for (int k = 0; k < PLACES; k++)
      put(queue, 200);
    check_passes(queue);
    CHECK_EQ(mproc_queue_close(queue), 0);
    for (int k = 0; k < PLACES; k++, check_passes(queue))
      get(queue);
    if (!sorts[i].joinable) { /* sealed by now */
      char byte;
      CHECK_EQ(mproc_queue_get(queue, &byte, 1, NULL, 0), MPROC_ECLOSED);
      check_passes(queue);
    }
    while (mproc_queue_task_done(queue) == 0)
      check_passes(queue);
    CHECK_EQ(mproc_queue_destroy(queue), 0);
  }
}

/* ---- broken in one place --------------------------------------------------------------------- */

/* A queue with a ring of eight places, gone round twice, in which FIRST is in hand, then come one
 * message inside, one in a block of the queue, one in a given block, one inside, and three free
 * places; `next` has two messages. */
typedef struct patient {
  mproc_queue *queue;
  mpx_link *link, *next;
} patient;

static mpx_ring_slot *at(const patient *p, uint64_t position) {
  return mpx_ring_at(&p->link->ring, position);
}

static mproc_message in_hand;

static patient new_patient(bool grown) {
  const mproc_queue_options options = {.capacity = PLACES, .growing = grown};
  patient p = {NULL, NULL, NULL};
  CHECK_EQ(mproc_queue_create(&options, &p.queue), 0);
  p.link = p.queue->first;
  for (int i = 0; i < FIRST; i++) {
    put(p.queue, 10);
    get(p.queue);
  }
  put(p.queue, 10);
  CHECK_EQ(mproc_queue_get_begin(p.queue, &in_hand, 0), 0);
  put(p.queue, 112);
  put(p.queue, LONGER);
  put_given(p.queue);
  put(p.queue, 0);
  for (int i = 0; grown && i < 5; i++)
    put(p.queue, 10);
  p.next = p.link->next;
  CHECK((p.next != NULL) == grown);
  return p;
}

static void no_phase(patient *p) {
  at(p, FIRST + 1)->word |= 7;
}

static void a_lap_before(patient *p) {
  at(p, FIRST + 2)->word -= LAP;
}

static void many_laps_ahead(patient *p) {
  at(p, FIRST + 2)->word += 5 * LAP;
}

static void in_use_too_early(patient *p) {
  at(p, FIRST + 1)->word += LAP;
}

static void nobody_has_it(patient *p) {
  at(p, FIRST)->word &= OWNER - 1;
}

static void somebody_has_it(patient *p) {
  at(p, FIRST + 3)->word |= OWNER;
}

static void somebody_has_a_free_one(patient *p) {
  at(p, FIRST + 6)->word |= OWNER;
}

static void too_large(patient *p) {
  at(p, FIRST + 1)->size = 113;
}

static void too_large_in_hand(patient *p) {
  at(p, FIRST)->size = 1 << 20;
}

static void where_nothing_is(patient *p) {
  at(p, FIRST + 4)->where = MPX_MESSAGE_GONE;
}

static void where_nobody_knows(patient *p) {
  at(p, FIRST + 4)->where = 17;
}

static void name_block(patient *p, uint64_t position, void *block) {
  memcpy(at(p, position)->data, &block, sizeof block);
}

static void outside_of_the_heap(patient *p) {
  name_block(p, FIRST + 2, &in_hand);
}

static void inside_of_a_block(patient *p) {
  name_block(p, FIRST + 2, (char *)mpx_message_block(at(p, FIRST + 2)) + 16);
}

static void no_block(patient *p) {
  name_block(p, FIRST + 3, NULL);
}

static void block_too_short(patient *p) {
  at(p, FIRST + 3)->size = 5000;
}

static void small_one_in_a_block(patient *p) {
  at(p, FIRST + 2)->size = 20;
}

static void a_hole(patient *p) {
  at(p, FIRST + 2)->word &= ~PHASES;
}

static void behind_a_hole(patient *p) {
  at(p, FIRST + 6)->word |= MPX_RING_FULL;
}

static void sealed(patient *p) {
  at(p, FIRST + 5)->word |= MPX_RING_SEALED;
}

static void sealed_behind_a_hole(patient *p) {
  p->queue->closed = 1;
  at(p, FIRST + 6)->word |= MPX_RING_SEALED;
}

static void tail_past_a_free_one(patient *p) {
  p->link->ring.tail = FIRST + 7;
}

static void tail_far_ahead(patient *p) {
  p->link->ring.tail = FIRST + 1000;
}

static void floor_past_a_message(patient *p) {
  p->link->ring.floor = FIRST + 2;
}

static void floor_far_ahead(patient *p) {
  p->link->ring.floor += 1000;
}

static void other_stride(patient *p) {
  p->link->ring.stride += 16;
}

static void other_count(patient *p) {
  p->link->ring.log2_count = 12;
}

static void senseless_count(patient *p) {
  p->link->ring.log2_count = 64;
}

static void last_in_no_block(patient *p) {
  p->queue->last = (mpx_link *)(void *)&in_hand;
}

static void last_in_another(patient *p) {
  p->queue->last = (mpx_link *)((char *)p->link + 64);
}

static void first_in_no_block(patient *p) {
  p->queue->first = (mpx_link *)(void *)&in_hand;
}

static void next_in_no_block(patient *p) {
  p->link->next = (mpx_link *)(void *)&in_hand;
}

static void next_is_itself(patient *p) {
  p->link->next = p->link;
}

static void has_not_grown(patient *p) {
  p->queue->growing = false;
}

static void hole_in_the_next(patient *p) {
  mpx_ring_at(&p->next->ring, 0)->word &= ~PHASES;
}

static void no_phase_in_the_next(patient *p) {
  mpx_ring_at(&p->next->ring, 1)->word |= 6;
}

static void guard_of_nobody(patient *p) {
  p->queue->not_full.guard.word = UINT64_MAX - 3;
}

static void listeners_in_no_chunk(patient *p) {
  p->queue->not_empty.bells.first = (mpx_chunk *)(void *)p->link;
}

static const struct damage {
  const char *name;
  void (*do_it)(patient *p);
  bool grown;
  const char *said;
} damages[] = {
    {"no phase", no_phase, false, "slot 20 of the ring is in no phase"},
    {"a lap before", a_lap_before, false, "slot 21 of the ring is of another lap"},
    {"many laps ahead", many_laps_ahead, false, "slot 21 of the ring is of another lap"},
    {"in use too early", in_use_too_early, false, "slot 20 of the ring is in use a lap too early"},
    {"nobody has it", nobody_has_it, false, "slot 19 of the ring has no owner"},
    {"somebody has it", somebody_has_it, false, "slot 22 of the ring has an owner"},
    {"somebody has a free one", somebody_has_a_free_one, false, "slot 25 of the ring has an owner"},
    {"too large", too_large, false, "slot 20 of the ring has a message larger than itself"},
    {"too large in hand", too_large_in_hand, false,
     "slot 19 of the ring has a message larger than itself"},
    {"where nothing is", where_nothing_is, false, "slot 23 of the ring has no message"},
    {"where nobody knows", where_nobody_knows, false, "slot 23 of the ring has no message"},
    {"outside of the heap", outside_of_the_heap, false,
     "slot 21 of the ring has a message in no block"},
    {"inside of a block", inside_of_a_block, false,
     "slot 21 of the ring has a message in no block"},
    {"no block", no_block, false, "slot 22 of the ring has a message in no block"},
    {"block too short", block_too_short, false, "slot 22 of the ring has a message in no block"},
    {"small one in a block", small_one_in_a_block, false,
     "slot 21 of the ring has a message in a block"},
    {"a hole", a_hole, false, "slot 21 of the ring was never used"},
    {"behind a hole", behind_a_hole, false, "slot 25 of the ring is in use behind one"},
    {"sealed", sealed, false, "slot 24 of the ring is sealed"},
    {"sealed behind a hole", sealed_behind_a_hole, false, "slot 25 of the ring is in use behind"},
    {"tail past a free one", tail_past_a_free_one, false, "slot 24 of the ring was never used"},
    {"tail far ahead", tail_far_ahead, false, "the ring's tail"},
    {"floor past a message", floor_past_a_message, false, "slot 27 of the ring is of another lap"},
    {"floor far ahead", floor_far_ahead, false, "of the ring is of another lap"},
    {"other stride", other_stride, false, "no block of its size"},
    {"other count", other_count, false, "no block of its size"},
    {"senseless count", senseless_count, false, "ring"},
    {"last in no block", last_in_no_block, false, "ring"},
    {"last in another", last_in_another, false, "ring"},
    {"first in no block", first_in_no_block, false, "ring"},
    {"next in no block", next_in_no_block, true, "ring"},
    {"next is itself", next_is_itself, true, "cannot have grown"},
    {"has not grown", has_not_grown, true, "cannot have grown"},
    {"hole in the next", hole_in_the_next, true, "slot 0 of the ring was never used"},
    {"guard of nobody", guard_of_nobody, false, "the guard is held by a thread that never was"},
    {"listeners in no chunk", listeners_in_no_chunk, false, "which is no chunk"},
    {"no phase in the next", no_phase_in_the_next, true, "slot 1 of the ring is in no phase"},
};

static size_t bytes_of(const mpx_link *link) {
  return link ? mproc_heap_usable_size(link) : 0;
}

static char *copy_of(const void *start, size_t size) {
  char *copy = malloc(size + 1);
  CHECK(copy != NULL);
  if (size)
    memcpy(copy, start, size);
  return copy;
}

static void check_finds(const struct damage *damage) {
  patient p = new_patient(damage->grown);
  check_passes(p.queue);
  size_t size = bytes_of(p.link), next_size = bytes_of(p.next);
  char *queue = copy_of(p.queue, sizeof *p.queue), *link = copy_of(p.link, size);
  char *next = copy_of(p.next, next_size);
  damage->do_it(&p);
  int r = mpx_queue_check(p.queue);
  if (r == 0 || !strstr(mproc_error_detail(), damage->said))
    fprintf(stderr, "# %s:\n", damage->name);
  CHECK_EQ(r, -EIO);
  CHECK_CONTAINS(mproc_error_detail(), damage->said);
  memcpy((void *)p.queue, queue, sizeof *p.queue);
  memcpy((void *)p.link, link, size);
  if (p.next)
    memcpy((void *)p.next, next, next_size);
  check_passes(p.queue);
  CHECK_EQ(mproc_queue_get_commit(p.queue, &in_hand), 0);
  CHECK_EQ(mproc_queue_destroy(p.queue), 0);
  free(queue);
  free(link);
  free(next);
}

TEST(damage_is_found) {
  for (size_t i = 0; i < sizeof damages / sizeof damages[0]; i++)
    check_finds(&damages[i]);
}

/* ---- clocks ---------------------------------------------------------------------------------- */

enum { IN_DEAD_HANDS = 20 };

static int take_many_and_die(void *arg, size_t size) {
  mproc_message message;
  (void)size;
  for (int i = 0; i < IN_DEAD_HANDS; i++)
    CHECK_EQ(mproc_queue_get_begin(*(mproc_queue **)arg, &message, 0), 0);
  raise(SIGKILL);
  return 0;
}

/* The last one who looked for the dead has a clock of his own: of another time namespace. */
TEST(looks_beside_a_clock_that_is_ahead) {
  mproc_queue *queue;
  mproc_queue_statistics statistics;
  CHECK_EQ(mproc_queue_create(NULL, &queue), 0);
  for (int i = 0; i <= IN_DEAD_HANDS; i++)
    put(queue, 1);
  mproc_process *child = start_by("fork", take_many_and_die, &queue, sizeof queue);
  AWAIT(is_gone(mproc_process_pid(child)));
  atomic_store(&queue->looked_at, mpx_os_now() + 3600 * MPX_NS_PER_S);
  get(queue);
  CHECK_EQ(mproc_queue_stats(queue, &statistics), 0);
  CHECK_EQ(statistics.delivered_again, IN_DEAD_HANDS);
  check_killed(child, SIGKILL);
  CHECK_EQ(mproc_queue_destroy(queue), 0);
}
