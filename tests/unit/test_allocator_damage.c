/* Damaged metadata: the self-check finds each kind, and no kind makes a call crash, hang or hand
 * out a block twice. What is derived heals by itself. */
#include "allocator_heap.h"

#include <stdlib.h>

static const mpx_caller me = {.member = 1ull << 32 | 1, .lane = 0};

enum { COUNT = 600 };

/* A heap with something of everything, and the places to damage. */
typedef struct world {
  mpx_allocator *heap;
  void *blocks[COUNT];
  uint32_t slab;  /* the family's, with room, first in its list */
  uint32_t full;  /* the family's, without room */
  uint32_t owned; /* mine */
  uint32_t run;   /* the family's, of several units */
  uint32_t spare; /* a free unit that was in use */
} world;

static uint32_t unit_of(const mpx_allocator *heap, const void *block) {
  return (uint32_t)(((uintptr_t)block - (uintptr_t)heap->data) / MPX_UNIT_SIZE);
}

static world make_world(void) {
  world w = {.heap = new_heap(16 * MIB)};
  for (int i = 0; i < COUNT; i++)
    w.blocks[i] = allocate(w.heap, &me, i < 300 ? 1000 : 4000, i >= 300);
  void *run = allocate(w.heap, &me, 300 * KIB, false);
  void *gone = allocate(w.heap, &me, 100 * KIB, false);
  w.spare = unit_of(w.heap, gone);
  CHECK_OK(mpx_allocator_free(w.heap, &me, gone));
  w.slab = w.heap->arenas[0].classes[mpx_class_of(1000)].room.first;
  w.full = unit_of(w.heap, w.blocks[0]);
  w.owned = unit_of(w.heap, w.blocks[COUNT - 1]);
  w.run = unit_of(w.heap, run);
  CHECK(w.slab != w.full && w.slab != MPX_NO_UNIT);
  check_heap(w.heap);
  return w;
}

static mpx_unit *slab(world *w) {
  return &w->heap->units[w->slab];
}
static mpx_unit *run(world *w) {
  return &w->heap->units[w->run];
}

/* ---- the damages ----------------------------------------------------------------------------- */

static void a_used_bit_lost(world *w) {
  slab(w)->used[0] &= ~(uint64_t)2;
}
static void a_used_bit_appears(world *w) {
  slab(w)->used[0] |= 1ull << 63;
}
static void a_used_bit_past_the_end(world *w) {
  slab(w)->used[40] = 1;
}
static void an_owned_bit_without_owner(world *w) {
  slab(w)->owned[0] |= 1;
}
static void an_owned_bit_without_block(world *w) {
  mpx_unit *u = &w->heap->units[w->owned];
  u->owned[0] |= 1ull << 15;
  u->used[0] &= ~(1ull << 15);
}
static void the_owner_of_a_slab(world *w) {
  slab(w)->owner = 77;
}
static void the_class_of_a_slab(world *w) {
  slab(w)->state ^= 1 << 8;
}
static void an_impossible_class(world *w) {
  slab(w)->state |= 0xff << 8;
}
static void an_impossible_arena(world *w) {
  slab(w)->state |= 0xff << 16;
}
static void an_impossible_kind(world *w) {
  slab(w)->state |= 0x80;
}
static void a_slab_called_free(world *w) {
  slab(w)->state = MPX_UNIT_FREE;
}
static void a_free_unit_called_slab(world *w) {
  w->heap->units[w->spare].state = mpx_state(MPX_UNIT_SLAB, 3, 0, 1);
}
static void a_run_too_long(world *w) {
  run(w)->state = mpx_state(MPX_UNIT_RUN, 0, 0, UINT32_MAX);
}
static void a_run_over_its_neighbours(world *w) {
  w->heap->units[w->run + 2].state = mpx_state(MPX_UNIT_SLAB, 3, 0, 1);
  w->heap->backing[w->run + 2] |= MPX_DESCRIBED;
}
static void a_run_too_short(world *w) {
  run(w)->state = mpx_state(MPX_UNIT_RUN, 0, 0, 1);
}
static void the_length_of_a_run(world *w) {
  run(w)->run_bytes = UINT64_MAX;
}
static void the_backing_of_a_run(world *w) {
  mpx_set_backed(w->heap, w->run + 1, 3);
}
static void the_backing_of_a_slab(world *w) {
  mpx_set_backed(w->heap, w->slab, 0);
}
static void too_much_backing(world *w) {
  mpx_set_backed(w->heap, w->run + 1, 31);
}
static void a_reaper_misled(world *w) {
  w->heap->owned[w->owned / 64] = 0;
}
static void the_head(world *w) {
  w->heap->magic++;
}

static void a_count(world *w) {
  slab(w)->used_count--;
}
static void a_count_of_memory(world *w) {
  slab(w)->backed_count = 65;
}
static void a_summary(world *w) {
  slab(w)->vacant = 0;
}
static void a_summary_past_the_end(world *w) {
  slab(w)->vacant = 1ull << 63;
}
static void a_list_that_leaves_the_heap(world *w) {
  w->heap->arenas[0].classes[mpx_class_of(1000)].room.first = 0x7fffffff;
}
static void a_list_that_is_a_ring(world *w) {
  slab(w)->links[MPX_LINK_ROOM].next = w->slab;
}
static void a_list_with_a_full_slab(world *w) {
  w->heap->arenas[0].classes[mpx_class_of(1000)].room.first = w->full;
}
static void a_list_with_a_run(world *w) {
  w->heap->arenas[0].classes[mpx_class_of(1000)].room.first = w->run;
}
static void a_lost_list(world *w) {
  w->heap->arenas[0].classes[mpx_class_of(1000)].room.first = MPX_NO_UNIT;
}
static void a_backward_link(world *w) {
  slab(w)->links[MPX_LINK_ROOM].previous = 5;
}
static void a_count_of_blocks(world *w) {
  w->heap->arenas[0].classes[5].blocks = 9;
}
static void a_count_of_idle_slabs(world *w) {
  w->heap->arenas[0].idle_count++;
}
static void a_pending_block(world *w) {
  w->heap->arenas[0].pending = 12345;
}
static void a_busy_bit_lost(world *w) {
  mpx_bits_write(w->heap->busy, w->run + 1, 1, false);
}
static void a_busy_bit_appears(world *w) {
  mpx_bits_write(w->heap->busy, w->spare, 1, true);
}
static void a_count_of_runs(world *w) {
  w->heap->map.run_count++;
}
static void a_count_of_dirty_memory(world *w) {
  w->heap->map.dirty_steps += 7;
}
static void a_hint(world *w) {
  w->heap->map.hints[0] = w->heap->unit_count;
}

typedef struct damage {
  const char *name;
  void (*make)(world *w);
} damage;

#define D(name)                                                                                    \
  { #name, name }
static const damage truth[] = {
    D(a_used_bit_lost),
    D(a_used_bit_appears),
    D(a_used_bit_past_the_end),
    D(the_owner_of_a_slab),
    D(an_owned_bit_without_owner),
    D(an_owned_bit_without_block),
    D(the_class_of_a_slab),
    D(an_impossible_class),
    D(an_impossible_arena),
    D(an_impossible_kind),
    D(a_slab_called_free),
    D(a_free_unit_called_slab),
    D(a_run_too_long),
    D(a_run_over_its_neighbours),
    D(a_run_too_short),
    D(the_length_of_a_run),
    D(the_backing_of_a_run),
    D(the_backing_of_a_slab),
    D(too_much_backing),
    D(a_reaper_misled),
    D(the_head),
};
static const damage derived[] = {
    D(a_count),
    D(a_count_of_memory),
    D(a_summary),
    D(a_summary_past_the_end),
    D(a_list_that_leaves_the_heap),
    D(a_list_that_is_a_ring),
    D(a_list_with_a_full_slab),
    D(a_list_with_a_run),
    D(a_lost_list),
    D(a_backward_link),
    D(a_count_of_blocks),
    D(a_count_of_idle_slabs),
    D(a_pending_block),
    D(a_busy_bit_lost),
    D(a_busy_bit_appears),
    D(a_count_of_runs),
    D(a_count_of_dirty_memory),
    D(a_hint),
};
enum { TRUTHS = sizeof truth / sizeof truth[0], DERIVED = sizeof derived / sizeof derived[0] };

static void check_found(const damage *d, world *w) {
  int r = mpx_allocator_check(w->heap);
  printf("# %s: %s\n", d->name, r < 0 ? mproc_error_detail() : "not found");
  CHECK(r < 0);
}

TEST(every_damage_is_found) {
  for (int i = 0; i < TRUTHS + DERIVED; i++) {
    const damage *d = i < TRUTHS ? &truth[i] : &derived[i - TRUTHS];
    world w = make_world();
    d->make(&w);
    check_found(d, &w);
    drop_heap(w.heap);
  }
}

/* Blocks that were handed out before the damage are not handed out again. */
static bool is_old(const world *w, const void *block, size_t size) {
  for (int i = 0; i < COUNT; i++) {
    uintptr_t old = (uintptr_t)w->blocks[i], new = (uintptr_t)block;
    if (new < old + (i < 300 ? 1000u : 4000u) && old < new + size)
      return true;
  }
  return false;
}

/* Uses the heap in every way, whatever comes back. */
static void use(world *w, bool check_overlap) {
  static const size_t sizes[] = {1000, 4000, 64, 16, 300 * KIB, 70000};
  for (int round = 0; round < 40; round++)
    for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
      void *block;
      if (mpx_allocator_alloc(w->heap, &me, sizes[k], 0, round % 3 == 0, &block) < 0)
        continue;
      CHECK((unsigned char *)block >= w->heap->data);
      CHECK((unsigned char *)block + sizes[k] <= mpx_unit_data(w->heap, w->heap->unit_count));
      CHECK(!check_overlap || !is_old(w, block, sizes[k]));
      memset(block, 0xee, sizes[k]);
      if (round % 3 == 1)
        (void)mpx_allocator_share(w->heap, block);
      if (round % 2)
        (void)mpx_allocator_free(w->heap, &me, block);
    }
  for (int i = 0; i < COUNT; i++)
    (void)mpx_allocator_free(w->heap, &me, w->blocks[i]);
  mproc_heap_statistics s;
  mpx_allocator_stats(w->heap, &s);
  const mpx_caller other = member(2);
  (void)mpx_allocator_reap(w->heap, &other, me.member);
  (void)mpx_allocator_trim(w->heap, &other);
}

TEST(no_damage_crashes_or_hangs) {
  for (int i = 0; i < TRUTHS + DERIVED; i++) {
    const damage *d = i < TRUTHS ? &truth[i] : &derived[i - TRUTHS];
    world w = make_world();
    d->make(&w);
    use(&w, i >= TRUTHS);
    drop_heap(w.heap);
  }
}

/* As after a death: who takes the locks computes what is derived again. */
TEST(what_is_derived_can_be_computed_again) {
  for (int i = 0; i < DERIVED; i++) {
    world w = make_world();
    derived[i].make(&w);
    for (unsigned k = 0; k < w.heap->arena_count; k++) {
      CHECK_OK(mpx_arena_lock(w.heap, k));
      mpx_arena_rebuild(w.heap, k);
      mpx_arena_unlock(w.heap, k);
    }
    CHECK_OK(mpx_units_lock(w.heap));
    mpx_units_rebuild(w.heap);
    mpx_units_unlock(w.heap);
    printf("# %s\n", derived[i].name);
    check_heap(w.heap);
    drop_heap(w.heap);
  }
}

/* Random bytes all over the metadata, except the locks and what is never written after the
 * birth. */
TEST_LIMIT(noise_does_not_crash, 30) {
  for (uint64_t seed = 1; seed <= (uint64_t)test_scale(200); seed++) {
    world w = make_world();
    uint64_t state = seed * 77;
    for (int i = 0; i < 40; i++) {
      uint64_t r = random_next(&state);
      mpx_unit *u = &w.heap->units[r % 60];
      uint64_t noise = random_next(&state);
      switch ((r >> 32) % 8) {
      case 0:
        u->state = noise & 0xffffffff0f0703u;
        break;
      case 1:
        u->vacant = noise;
        break;
      case 2:
        u->links[noise >> 40 & 1].next = (uint32_t)noise & 127;
        break;
      case 3:
        u->used_count = (uint32_t)noise & 127;
        break;
      case 4:
        u->used[noise % 64] = random_next(&state);
        break;
      case 5:
        w.heap->arenas[0].classes[noise % MPX_CLASS_COUNT].room.first = (uint32_t)(noise >> 20);
        break;
      case 6:
        w.heap->backing[noise % 60] = (uint8_t)(noise >> 20);
        break;
      default:
        w.heap->map.hints[noise % MPX_RUN_HINTS] = (uint32_t)(noise >> 20);
      }
    }
    use(&w, false);
    (void)mpx_allocator_check(w.heap);
    drop_heap(w.heap);
  }
}
