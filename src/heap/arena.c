#include "heap/arena.h"

#include "base/error.h"
#include "heap/units.h"
#include "os/crash_point.h"

#include <errno.h>

enum {
  FIRST_STEPS = 4,        /* MPX_STEPs by which the backing of a slab grows */
  BLOCKS_PER_UNIT = 4096, /* of the smallest class; a power of two */
  DAMAGED = 1             /* something derived makes no sense: compute it again */
};

static mpx_arena *arena_of(mpx_allocator *a, uint64_t state) {
  return &a->arenas[mpx_state_arena(state) % MPX_ARENA_MAX];
}

/* ---- lists of slabs with room ---------------------------------------------------------------- */

uint32_t *mpx_arena_list(mpx_arena *arena, unsigned class, mpx_member owner) {
  if (owner == 0)
    return &arena->classes[class].room;
  uint64_t hash = (owner * MPX_CLASS_COUNT + class) * 0x9e3779b97f4a7c15u;
  return &arena->owned_room[hash >> 58];
}

static uint32_t *list_of(mpx_allocator *a, const mpx_unit *unit) {
  uint64_t state = mpx_unit_state(unit);
  return mpx_arena_list(arena_of(a, state), mpx_state_class(state), mpx_word_load(&unit->owner));
}

static bool is_end_or_valid(const mpx_allocator *a, uint32_t unit) {
  return unit < a->unit_count || unit == MPX_NO_UNIT;
}

static void link_unit(mpx_allocator *a, uint32_t unit) {
  uint32_t *list = list_of(a, &a->units[unit]);
  if (!is_end_or_valid(a, *list))
    return; /* found by the next search */
  a->units[unit].previous = MPX_NO_UNIT;
  a->units[unit].next = *list;
  if (*list != MPX_NO_UNIT)
    a->units[*list].previous = unit;
  *list = unit;
}

/* DAMAGED when the neighbours do not point back. */
static int unlink_unit(mpx_allocator *a, uint32_t unit) {
  uint32_t *list = list_of(a, &a->units[unit]);
  uint32_t next = a->units[unit].next, previous = a->units[unit].previous;
  if (!is_end_or_valid(a, next) || !is_end_or_valid(a, previous))
    return DAMAGED;
  uint32_t *from = previous == MPX_NO_UNIT ? list : &a->units[previous].next;
  if (*from != unit || (next != MPX_NO_UNIT && a->units[next].previous != unit))
    return DAMAGED;
  *from = next;
  if (next != MPX_NO_UNIT)
    a->units[next].previous = previous;
  return 0;
}

/* The first slab of a class and owner in a list, other than `except`. DAMAGED, or 0 and MPX_NO_UNIT
 * when there is none. */
static inline int find_in_list(mpx_allocator *a, uint32_t from, uint64_t state, mpx_member owner,
                               uint32_t except, uint32_t *ret_unit) {
  uint32_t unit = from;
  for (uint32_t seen = 0; unit != MPX_NO_UNIT; seen++) {
    if (unit >= a->unit_count || seen > a->unit_count)
      return DAMAGED;
    const mpx_unit *u = &a->units[unit];
    uint64_t is = mpx_unit_state(u);
    if (is == state && mpx_word_load(&u->owner) == owner && unit != except)
      break;
    if (mpx_state_kind(is) != MPX_UNIT_SLAB || mpx_state_arena(is) != mpx_state_arena(state))
      return DAMAGED;
    unit = u->next;
  }
  *ret_unit = unit;
  return 0;
}

/* ---- lock and repair ------------------------------------------------------------------------- */

int mpx_arena_init(mpx_arena *arena) {
  for (unsigned class = 0; class < MPX_CLASS_COUNT; class ++)
    arena->classes[class].room = MPX_NO_UNIT;
  for (unsigned i = 0; i < MPX_OWNED_LISTS; i++)
    arena->owned_room[i] = MPX_NO_UNIT;
  return mpx_os_robust_init(&arena->lock);
}

/* Blocks at the start of a slab whose memory is all there. */
static uint32_t backed_blocks(const mpx_allocator *a, uint32_t unit, const mpx_size_class *class) {
  uint32_t blocks = mpx_backed(a, unit) * MPX_STEP / class->size;
  return blocks < class->capacity ? blocks : class->capacity;
}

/* The full value of word `w` of a slab's bitmap. */
static uint64_t full_word(const mpx_size_class *class, uint32_t w) {
  return w + 1 == class->word_count ? class->last_word : ~(uint64_t)0;
}

/* Derived fields of a slab from its bitmaps. */
static void recount(mpx_allocator *a, uint32_t unit, const mpx_size_class *class) {
  mpx_unit *u = &a->units[unit];
  u->vacant = 0;
  u->used_count = 0;
  for (uint32_t w = 0; w < class->word_count; w++) {
    uint64_t used = mpx_word_load(&u->used[w]) & full_word(class, w);
    u->used_count += mpx_bit_count(used);
    if (used != full_word(class, w))
      u->vacant |= 1ull << w;
  }
  u->backed_count = backed_blocks(a, unit, class);
}

/* Takes back the block that the dead owner of the lock had not completed. */
static void undo_pending(mpx_allocator *a, unsigned index) {
  mpx_arena *arena = &a->arenas[index];
  uint64_t pending = mpx_word_load(&arena->pending) - 1;
  uint64_t unit = pending / BLOCKS_PER_UNIT;
  uint32_t block = pending % BLOCKS_PER_UNIT;
  if (unit < a->unit_count && mpx_is_described(a, (uint32_t)unit)) {
    mpx_unit *u = &a->units[unit];
    uint64_t state = mpx_unit_state(u);
    if (mpx_state_kind(state) == MPX_UNIT_SLAB && mpx_state_arena(state) == index)
      mpx_word_store(&u->used[block / 64],
                     mpx_word_load(&u->used[block / 64]) & ~(1ull << block % 64));
  }
  MPROC_CRASH_POINT("heap.arena.half_rebuilt");
  mpx_word_store(&arena->pending, 0);
}

void mpx_arena_rebuild(mpx_allocator *a, unsigned index) {
  mpx_arena *arena = &a->arenas[index];
  undo_pending(a, index);
  arena->idle_steps = 0;
  for (unsigned class = 0; class < MPX_CLASS_COUNT; class ++) {
    arena->classes[class].room = MPX_NO_UNIT;
    mpx_word_store(&arena->classes[class].blocks, 0);
  }
  for (unsigned i = 0; i < MPX_OWNED_LISTS; i++)
    arena->owned_room[i] = MPX_NO_UNIT;
  /* Other arenas' units change meanwhile; none becomes or ceases to be ours. From the end, so
   * that the lists begin with low addresses. */
  for (uint32_t unit = a->unit_count; unit-- > 0;) {
    if (!mpx_is_described(a, unit))
      continue;
    mpx_unit *u = &a->units[unit];
    uint64_t state = mpx_unit_state(u);
    unsigned class = mpx_state_class(state);
    if (mpx_state_kind(state) != MPX_UNIT_SLAB || mpx_state_arena(state) != index ||
        class >= MPX_CLASS_COUNT)
      continue;
    for (uint32_t w = 0; w < mpx_size_classes[class].word_count; w++) {
      uint64_t stale = mpx_word_load(&u->owned[w]) & ~mpx_word_load(&u->used[w]);
      if (stale != 0) /* its owner died while it took or ended the block */
        mpx_word_store(&u->owned[w], mpx_word_load(&u->owned[w]) & ~stale);
    }
    recount(a, unit, &mpx_size_classes[class]);
    mpx_counter_add(&arena->classes[class].blocks, u->used_count);
    if (u->used_count == 0)
      arena->idle_steps += mpx_backed(a, unit);
    if (u->used_count < mpx_size_classes[class].capacity)
      link_unit(a, unit);
  }
}

/* What to do with the result of a lock. */
static int locked(mpx_allocator *a, unsigned index, int r) {
  if (r == 0 || r == -EBUSY)
    return r;
  if (r < 0)
    return mpx_fail(-EIO, "the shared heap is damaged: arena %u cannot be locked (%s)", index,
                    mproc_strerror(r));
  mpx_arena_rebuild(a, index);
  atomic_fetch_add_explicit(&a->repair_count, 1, memory_order_relaxed);
  return 0;
}

int mpx_arena_lock(mpx_allocator *a, unsigned index) {
  return locked(a, index, mpx_os_robust_lock(&a->arenas[index].lock));
}

int mpx_arena_trylock(mpx_allocator *a, unsigned index) {
  return locked(a, index, mpx_os_robust_trylock(&a->arenas[index].lock));
}

void mpx_arena_unlock(mpx_allocator *a, unsigned index) {
  mpx_os_robust_unlock(&a->arenas[index].lock);
}

/* ---- allocation ------------------------------------------------------------------------------ */

/* A new slab, empty and without memory of its own, in its list. If the process dies before the
 * list has it, the repairer finds it by its state. */
static int add_slab(mpx_allocator *a, uint64_t state, mpx_member owner, uint32_t *ret_unit) {
  uint32_t unit;
  int r = mpx_units_take(a, state, owner, 0, &unit);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("heap.slab.taken");
  recount(a, unit, &mpx_size_classes[mpx_state_class(state)]);
  arena_of(a, state)->idle_steps += mpx_backed(a, unit);
  link_unit(a, unit);
  *ret_unit = unit;
  return 0;
}

/* Backs block number `block` of a slab, and some more. */
static int back_slab(mpx_allocator *a, uint32_t unit, const mpx_size_class *class, uint32_t block) {
  uint32_t page = (uint32_t)(a->page_size / MPX_STEP);
  uint32_t old = mpx_backed(a, unit);
  uint32_t least = ((block + 1) * class->size + MPX_STEP - 1) / MPX_STEP;
  uint32_t most = (class->capacity * class->size + MPX_STEP - 1) / MPX_STEP;
  uint32_t steps = old + FIRST_STEPS > least ? old + FIRST_STEPS : least;
  steps = ((steps < most ? steps : most) + page - 1) / page * page;
  int r = mpx_units_back(a, mpx_unit_data(a, unit) + (size_t)old * MPX_STEP,
                         (size_t)(steps - old) * MPX_STEP);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("heap.slab.backed");
  mpx_set_backed(a, unit, steps);
  mpx_unit *u = &a->units[unit];
  u->backed_count = backed_blocks(a, unit, class);
  if (u->used_count == 0)
    arena_of(a, mpx_unit_state(u))->idle_steps += steps - old;
  return 0;
}

/* The slab to allocate from, with a free block that has memory. */
static inline int choose(mpx_allocator *a, uint64_t state, mpx_member owner, bool grow,
                         uint32_t *ret_unit, uint32_t *ret_block) {
  const mpx_size_class *class = &mpx_size_classes[mpx_state_class(state)];
  uint32_t *list = mpx_arena_list(arena_of(a, state), mpx_state_class(state), owner);
  uint32_t unit;
  if (find_in_list(a, *list, state, owner, MPX_NO_UNIT, &unit) != 0)
    return DAMAGED;
  if (unit == MPX_NO_UNIT) {
    int r = grow ? add_slab(a, state, owner, &unit) : MPROC_EHEAPFULL;
    if (r < 0)
      return r;
  }
  const mpx_unit *u = &a->units[unit];
  uint32_t w = u->vacant ? mpx_lowest_bit(u->vacant) : class->word_count;
  uint64_t free = w < class->word_count ? ~mpx_word_load(&u->used[w]) & full_word(class, w) : 0;
  if (free == 0)
    return DAMAGED;
  uint32_t block = w * 64 + mpx_lowest_bit(free);
  *ret_unit = unit;
  *ret_block = block;
  return block < u->backed_count ? 0 : back_slab(a, unit, class, block);
}

int mpx_arena_alloc(mpx_allocator *a, unsigned index, unsigned class, mpx_member owner, bool grow,
                    void **ret_block) {
  mpx_arena *arena = &a->arenas[index];
  const mpx_size_class *info = &mpx_size_classes[class];
  uint64_t state = mpx_state(MPX_UNIT_SLAB, class, index, 1);
  uint32_t unit, block;
  int r = choose(a, state, owner, grow, &unit, &block);
  if (r == DAMAGED) {
    mpx_arena_rebuild(a, index);
    r = choose(a, state, owner, grow, &unit, &block);
  }
  if (r != 0)
    return r == DAMAGED ? mpx_fail(-EIO, "the shared heap is damaged: arena %u", index) : r;

  mpx_unit *u = &a->units[unit];
  uint32_t w = block / 64;
  uint64_t bit = 1ull << block % 64;
  /* From here to the end of the order a kill takes the block back: the repairer reads `pending`,
   * the owner's reaper the bits. */
  mpx_word_store(&arena->pending, (uint64_t)unit * BLOCKS_PER_UNIT + block + 1);
  MPROC_CRASH_POINT("heap.alloc.pending");
  if (owner != 0)
    mpx_word_store(&u->owned[w], mpx_word_load(&u->owned[w]) | bit);
  MPROC_CRASH_POINT("heap.alloc.owned");
  uint64_t used = mpx_word_load(&u->used[w]) | bit;
  mpx_word_store(&u->used[w], used);
  MPROC_CRASH_POINT("heap.alloc.used");
  if (u->used_count == 0)
    arena->idle_steps -= mpx_backed(a, unit);
  if (used == full_word(info, w))
    u->vacant &= ~(1ull << w);
  mpx_counter_add(&arena->classes[class].blocks, 1);
  int damaged = ++u->used_count == info->capacity ? unlink_unit(a, unit) : 0;
  MPROC_CRASH_POINT("heap.alloc.counted");
  mpx_word_store(&arena->pending, 0);
  if (damaged)
    mpx_arena_rebuild(a, index);
  *ret_block = mpx_unit_data(a, unit) + (size_t)block * info->size;
  return 0;
}

/* ---- the end of blocks ----------------------------------------------------------------------- */

/* Whether a slab without a block stays: as the only one with room, while it is small or the
 * arena has few such. So a block that comes and goes costs no unit each time. */
static bool is_worth_keeping(mpx_allocator *a, uint32_t unit) {
  const mpx_unit *u = &a->units[unit];
  mpx_arena *arena = arena_of(a, mpx_unit_state(u));
  uint32_t other;
  if (find_in_list(a, *list_of(a, u), mpx_unit_state(u), mpx_word_load(&u->owner), unit, &other) !=
      0)
    return true;
  if (other != MPX_NO_UNIT)
    return false;
  return mpx_backed(a, unit) <= FIRST_STEPS || arena->idle_steps <= a->idle_limit;
}

/* Gives up a slab that has no block and is in no list. False: it stays one, since the map is
 * damaged. */
static bool release_slab(mpx_allocator *a, const mpx_caller *caller, uint32_t unit,
                         uint32_t *ret_closing) {
  mpx_arena *arena = arena_of(a, mpx_unit_state(&a->units[unit]));
  uint32_t steps = mpx_backed(a, unit);
  MPROC_CRASH_POINT("heap.slab.unlisted");
  int r = mpx_units_release(a, caller, unit, mpx_unit_state(&a->units[unit]), ret_closing);
  if (r < 0) {
    link_unit(a, unit);
    return false;
  }
  MPROC_CRASH_POINT("heap.slab.released");
  arena->idle_steps -= steps;
  return true;
}

static int release_if_idle(mpx_allocator *a, const mpx_caller *caller, uint32_t unit,
                           uint32_t *ret_closing) {
  if (is_worth_keeping(a, unit))
    return 0;
  int damaged = unlink_unit(a, unit);
  if (!damaged)
    (void)release_slab(a, caller, unit, ret_closing);
  return damaged;
}

/* The number of the live block at `offset` of a slab that is still in `state`, or UINT32_MAX. */
static inline uint32_t live_block(const mpx_unit *u, uint64_t state, uint32_t offset) {
  uint32_t block = mpx_block_at(state, offset);
  if (block == UINT32_MAX || mpx_unit_state(u) != state || !mpx_bit_is_set(u->used, block))
    return UINT32_MAX;
  return block;
}

static void clear_bit(_Atomic uint64_t *words, uint32_t bit) {
  mpx_word_store(&words[bit / 64], mpx_word_load(&words[bit / 64]) & ~(1ull << bit % 64));
}

int mpx_arena_free(mpx_allocator *a, const mpx_caller *caller, uint32_t unit, uint64_t state,
                   uint32_t offset, uint32_t *ret_closing) {
  mpx_unit *u = &a->units[unit];
  mpx_arena *arena = arena_of(a, state);
  uint32_t block = live_block(u, state, offset);
  *ret_closing = MPX_NO_UNIT;
  if (block == UINT32_MAX)
    return MPROC_EPOINTER;
  const mpx_size_class *class = &mpx_size_classes[mpx_state_class(state)];
  clear_bit(u->used, block); /* the end of the block */
  MPROC_CRASH_POINT("heap.free.unused");
  if (mpx_word_load(&u->owner) != 0)
    clear_bit(u->owned, block);
  u->vacant |= 1ull << block / 64;
  mpx_counter_add(&arena->classes[mpx_state_class(state)].blocks, -(uint64_t)1);
  MPROC_CRASH_POINT("heap.free.counted");
  int damaged = 0;
  if (u->used_count-- == class->capacity)
    link_unit(a, unit);
  if (u->used_count == 0) {
    arena->idle_steps += mpx_backed(a, unit);
    damaged = release_if_idle(a, caller, unit, ret_closing);
  }
  if (damaged)
    mpx_arena_rebuild(a, mpx_state_arena(state));
  return 0;
}

int mpx_arena_share(mpx_allocator *a, uint32_t unit, uint64_t state, uint32_t offset) {
  mpx_unit *u = &a->units[unit];
  uint32_t block = live_block(u, state, offset);
  if (block == UINT32_MAX)
    return MPROC_EPOINTER;
  MPROC_CRASH_POINT("heap.share.found");
  if (mpx_word_load(&u->owner) != 0)
    clear_bit(u->owned, block); /* the instant of the hand-over */
  MPROC_CRASH_POINT("heap.share.done");
  return 0;
}

int mpx_arena_disown(mpx_allocator *a, const mpx_caller *caller, uint32_t unit, uint64_t state,
                     mpx_member dead, uint32_t *ret_closing) {
  mpx_unit *u = &a->units[unit];
  *ret_closing = MPX_NO_UNIT;
  if (mpx_unit_state(u) != state || mpx_word_load(&u->owner) != dead ||
      mpx_state_class(state) >= MPX_CLASS_COUNT)
    return 0;
  const mpx_size_class *class = &mpx_size_classes[mpx_state_class(state)];
  mpx_arena *arena = arena_of(a, state);
  uint32_t old_count = u->used_count;
  int damaged = old_count < class->capacity ? unlink_unit(a, unit) : 0;
  /* A kill before the last store leaves the slab to the next reaper, and what it counts to the
   * repair. */
  for (uint32_t w = 0; w < class->word_count; w++) {
    uint64_t owned = mpx_word_load(&u->owned[w]);
    mpx_word_store(&u->used[w], mpx_word_load(&u->used[w]) & ~owned);
    MPROC_CRASH_POINT("heap.reap.unused");
    mpx_word_store(&u->owned[w], 0);
  }
  MPROC_CRASH_POINT("heap.reap.cleared");
  mpx_word_store(&u->owner, 0);
  mpx_units_unmark_owned(a, unit);
  MPROC_CRASH_POINT("heap.reap.disowned");
  if (damaged) {
    mpx_arena_rebuild(a, mpx_state_arena(state));
    return 0;
  }
  recount(a, unit, class);
  mpx_counter_add(&arena->classes[mpx_state_class(state)].blocks,
                  (uint64_t)u->used_count - old_count);
  if (u->used_count < class->capacity)
    link_unit(a, unit);
  if (u->used_count == 0) {
    arena->idle_steps += old_count != 0 ? mpx_backed(a, unit) : 0;
    if (release_if_idle(a, caller, unit, ret_closing) != 0)
      mpx_arena_rebuild(a, mpx_state_arena(state));
  }
  return 0;
}

/* The first slab without a block in a list. */
static uint32_t find_idle(mpx_allocator *a, unsigned index, uint32_t unit) {
  for (uint32_t seen = 0; unit < a->unit_count && seen < a->unit_count; seen++) {
    uint64_t state = mpx_unit_state(&a->units[unit]);
    if (mpx_state_kind(state) != MPX_UNIT_SLAB || mpx_state_arena(state) != index ||
        mpx_state_class(state) >= MPX_CLASS_COUNT)
      break; /* damaged: found by the next search */
    if (a->units[unit].used_count == 0)
      return unit;
    unit = a->units[unit].next;
  }
  return MPX_NO_UNIT;
}

int mpx_arena_release_idle(mpx_allocator *a, const mpx_caller *caller, unsigned index,
                           uint32_t *ret_closing) {
  mpx_arena *arena = &a->arenas[index];
  uint32_t unit = MPX_NO_UNIT;
  *ret_closing = MPX_NO_UNIT;
  for (unsigned class = 0; class < MPX_CLASS_COUNT && unit == MPX_NO_UNIT; class ++)
    unit = find_idle(a, index, arena->classes[class].room);
  for (unsigned i = 0; i < MPX_OWNED_LISTS && unit == MPX_NO_UNIT; i++)
    unit = find_idle(a, index, arena->owned_room[i]);
  return unit != MPX_NO_UNIT && unlink_unit(a, unit) == 0 &&
         release_slab(a, caller, unit, ret_closing);
}
