#include "heap/arena.h"

#include "base/error.h"
#include "heap/unit_list.h"
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

/* ---- lists of slabs -------------------------------------------------------------------------- */

mpx_unit_list *mpx_arena_list(mpx_arena *arena, unsigned class_index, mpx_member owner) {
  if (owner == 0)
    return &arena->classes[class_index].room;
  uint64_t hash = (owner * MPX_CLASS_COUNT + class_index) * 0x9e3779b97f4a7c15u;
  return &arena->owned_room[hash >> 58];
}

static mpx_unit_list *list_of(mpx_allocator *a, const mpx_unit *unit) {
  uint64_t state = mpx_unit_state(unit);
  return mpx_arena_list(arena_of(a, state), mpx_state_class(state), mpx_word_load(&unit->owner));
}

/* Below, false means damaged: the arena must be computed again. */

static bool begin_room(mpx_allocator *a, uint32_t unit) {
  return mpx_list_push(a, list_of(a, &a->units[unit]), MPX_LINK_ROOM, unit);
}

static bool end_room(mpx_allocator *a, uint32_t unit) {
  return mpx_list_remove(a, list_of(a, &a->units[unit]), MPX_LINK_ROOM, unit);
}

static bool begin_idle(mpx_allocator *a, uint32_t unit) {
  mpx_arena *arena = arena_of(a, mpx_unit_state(&a->units[unit]));
  arena->idle_count++;
  return mpx_list_push(a, &arena->idle, MPX_LINK_IDLE, unit);
}

static bool end_idle(mpx_allocator *a, uint32_t unit) {
  mpx_arena *arena = arena_of(a, mpx_unit_state(&a->units[unit]));
  arena->idle_count--;
  return mpx_list_remove(a, &arena->idle, MPX_LINK_IDLE, unit);
}

/* The first slab of a class and owner in a list: of the family's all are, of an owner's some. */
static inline bool find_in_list(mpx_allocator *a, uint32_t first, uint64_t state, mpx_member owner,
                                uint32_t *ret_unit) {
  uint32_t unit = first;
  for (uint32_t seen = 0; unit != MPX_NO_UNIT; seen++) {
    if (unit >= a->unit_count || seen > a->unit_count)
      return false;
    const mpx_unit *u = &a->units[unit];
    uint64_t is = mpx_unit_state(u);
    if (is == state && mpx_word_load(&u->owner) == owner)
      break;
    if (mpx_state_kind(is) != MPX_UNIT_SLAB || mpx_state_arena(is) != mpx_state_arena(state))
      return false;
    unit = u->links[MPX_LINK_ROOM].next;
  }
  *ret_unit = unit;
  return true;
}

/* ---- lock and repair ------------------------------------------------------------------------- */

/* No slab at all. */
static void clear(mpx_arena *arena) {
  arena->idle_count = 0;
  mpx_list_clear(&arena->idle);
  for (unsigned class_index = 0; class_index < MPX_CLASS_COUNT; class_index++) {
    mpx_list_clear(&arena->classes[class_index].room);
    mpx_word_store(&arena->classes[class_index].blocks, 0);
  }
  for (unsigned i = 0; i < MPX_OWNED_LISTS; i++)
    mpx_list_clear(&arena->owned_room[i]);
}

int mpx_arena_init(mpx_arena *arena) {
  clear(arena);
  return mpx_os_robust_init(&arena->lock);
}

/* Blocks at the start of a slab whose memory is all there. */
static uint32_t backed_blocks(const mpx_allocator *a, uint32_t unit, const mpx_size_class *cls) {
  uint32_t blocks = mpx_backed(a, unit) * MPX_STEP / cls->size;
  return blocks < cls->capacity ? blocks : cls->capacity;
}

/* The full value of word `w` of a slab's bitmap. */
static uint64_t full_word(const mpx_size_class *cls, uint32_t w) {
  return w + 1 == cls->word_count ? cls->last_word : ~(uint64_t)0;
}

/* Derived fields of a slab from its bitmaps. */
static void recount(mpx_allocator *a, uint32_t unit, const mpx_size_class *cls) {
  mpx_unit *u = &a->units[unit];
  u->vacant = 0;
  u->used_count = 0;
  for (uint32_t w = 0; w < cls->word_count; w++) {
    uint64_t used = mpx_word_load(&u->used[w]) & full_word(cls, w);
    u->used_count += mpx_bit_count(used);
    if (used != full_word(cls, w))
      u->vacant |= 1ull << w;
  }
  u->backed_count = backed_blocks(a, unit, cls);
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

/* Truth and derived fields of a slab after a death. */
static void restore(mpx_allocator *a, uint32_t unit, const mpx_size_class *cls) {
  mpx_unit *u = &a->units[unit];
  for (uint32_t w = 0; w < cls->word_count; w++) {
    uint64_t owned = mpx_word_load(&u->owned[w]), used = mpx_word_load(&u->used[w]);
    if (owned & ~used) /* the process died while it began or ended an owned block */
      mpx_word_store(&u->owned[w], owned & used);
  }
  recount(a, unit, cls);
  if (u->used_count < cls->capacity)
    (void)begin_room(a, unit);
  if (u->used_count == 0)
    (void)begin_idle(a, unit);
}

void mpx_arena_rebuild(mpx_allocator *a, unsigned index) {
  undo_pending(a, index);
  clear(&a->arenas[index]);
  /* Other arenas' units change meanwhile; none becomes or ceases to be ours. From the end, so that
   * the lists begin with low addresses. */
  for (uint32_t unit = a->unit_count; unit-- > 0;) {
    if (!mpx_is_described(a, unit))
      continue;
    uint64_t state = mpx_unit_state(&a->units[unit]);
    unsigned class_index = mpx_state_class(state);
    if (mpx_state_kind(state) != MPX_UNIT_SLAB || mpx_state_arena(state) != index ||
        class_index >= MPX_CLASS_COUNT)
      continue;
    restore(a, unit, &mpx_size_classes[class_index]);
    mpx_counter_add(&a->arenas[index].classes[class_index].blocks, a->units[unit].used_count);
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

/* A new slab without a block, in its lists. If the process dies before they have it, the repairer
 * finds it by its state. DAMAGED, MPROC_EHEAPFULL, -ENOMEM; says why. */
static int add_slab(mpx_allocator *a, uint64_t state, mpx_member owner, uint32_t *ret_unit) {
  uint32_t unit;
  int r = mpx_units_take(a, state, owner, 0, &unit);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("heap.slab.taken");
  recount(a, unit, &mpx_size_classes[mpx_state_class(state)]);
  *ret_unit = unit;
  return begin_room(a, unit) && begin_idle(a, unit) ? 0 : DAMAGED;
}

/* Backs block number `block` of a slab, and some more. */
static int back_slab(mpx_allocator *a, uint32_t unit, const mpx_size_class *cls, uint32_t block) {
  uint32_t page = (uint32_t)(a->page_size / MPX_STEP);
  uint32_t old = mpx_backed(a, unit);
  uint32_t least = ((block + 1) * cls->size + MPX_STEP - 1) / MPX_STEP;
  uint32_t most = (cls->capacity * cls->size + MPX_STEP - 1) / MPX_STEP;
  uint32_t steps = old + FIRST_STEPS > least ? old + FIRST_STEPS : least;
  steps = ((steps < most ? steps : most) + page - 1) / page * page;
  int r = mpx_units_back(a, mpx_unit_data(a, unit) + (size_t)old * MPX_STEP,
                         (size_t)(steps - old) * MPX_STEP);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("heap.slab.backed");
  mpx_set_backed(a, unit, steps);
  a->units[unit].backed_count = backed_blocks(a, unit, cls);
  return 0;
}

/* The slab to allocate from, with a free block that has memory. */
static inline int choose(mpx_allocator *a, uint64_t state, mpx_member owner, bool grow,
                         uint32_t *ret_unit, uint32_t *ret_block) {
  const mpx_size_class *cls = &mpx_size_classes[mpx_state_class(state)];
  const mpx_unit_list *list = mpx_arena_list(arena_of(a, state), mpx_state_class(state), owner);
  uint32_t unit;
  if (!find_in_list(a, list->first, state, owner, &unit))
    return DAMAGED;
  if (unit == MPX_NO_UNIT) {
    int r = grow ? add_slab(a, state, owner, &unit) : MPROC_EHEAPFULL;
    if (r != 0)
      return r;
  }
  const mpx_unit *u = &a->units[unit];
  uint32_t w = u->vacant ? mpx_lowest_bit(u->vacant) : cls->word_count;
  uint64_t free = w < cls->word_count ? ~mpx_word_load(&u->used[w]) & full_word(cls, w) : 0;
  if (free == 0)
    return DAMAGED;
  uint32_t block = w * 64 + mpx_lowest_bit(free);
  *ret_unit = unit;
  *ret_block = block;
  return block < u->backed_count ? 0 : back_slab(a, unit, cls, block);
}

int mpx_arena_alloc(mpx_allocator *a, unsigned index, unsigned class_index, mpx_member owner,
                    bool grow, void **ret_block) {
  mpx_arena *arena = &a->arenas[index];
  const mpx_size_class *cls = &mpx_size_classes[class_index];
  uint64_t state = mpx_state(MPX_UNIT_SLAB, class_index, index, 1);
  uint32_t unit = MPX_NO_UNIT, block = 0; /* set whenever r is 0: gcc cannot see it */
  int r = DAMAGED;
  for (int attempt = 0; attempt < 2 && r == DAMAGED; attempt++) {
    r = choose(a, state, owner, grow, &unit, &block);
    if (r == DAMAGED)
      mpx_arena_rebuild(a, index);
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
  bool sound = u->used_count != 0 || end_idle(a, unit);
  if (used == full_word(cls, w))
    u->vacant &= ~(1ull << w);
  mpx_counter_add(&arena->classes[class_index].blocks, 1);
  if (++u->used_count == cls->capacity)
    sound = end_room(a, unit) && sound;
  MPROC_CRASH_POINT("heap.alloc.counted");
  mpx_word_store(&arena->pending, 0);
  if (!sound)
    mpx_arena_rebuild(a, index);
  *ret_block = mpx_unit_data(a, unit) + (size_t)block * cls->size;
  return 0;
}

/* ---- the end of blocks ----------------------------------------------------------------------- */

int mpx_arena_release_idle(mpx_allocator *a, const mpx_caller *caller, unsigned index,
                           uint32_t *ret_closing) {
  uint32_t unit = a->arenas[index].idle.last;
  *ret_closing = MPX_NO_UNIT;
  if (unit == MPX_NO_UNIT)
    return 0;
  uint64_t state = unit < a->unit_count ? mpx_unit_state(&a->units[unit]) : 0;
  if (mpx_state_kind(state) != MPX_UNIT_SLAB || mpx_state_arena(state) != index ||
      mpx_state_class(state) >= MPX_CLASS_COUNT || a->units[unit].used_count != 0 ||
      !end_idle(a, unit) || !end_room(a, unit)) {
    mpx_arena_rebuild(a, index);
    return 0;
  }
  MPROC_CRASH_POINT("heap.slab.unlisted");
  int r = mpx_units_release(a, caller, unit, state, ret_closing);
  MPROC_CRASH_POINT("heap.slab.released");
  if (r < 0) /* damaged: a slab in no list, harms nobody */
    return 0;
  return 1;
}

/* A slab has lost its last block. It stays, so that a block that comes and goes costs no unit each
 * time; the one that has been idle for longest goes when there are too many. */
static bool keep_idle(mpx_allocator *a, const mpx_caller *caller, uint32_t unit,
                      uint32_t *ret_closing) {
  unsigned index = mpx_state_arena(mpx_unit_state(&a->units[unit]));
  if (!begin_idle(a, unit))
    return false;
  if (a->arenas[index].idle_count > a->idle_limit)
    (void)mpx_arena_release_idle(a, caller, index, ret_closing);
  return true;
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
  const mpx_size_class *cls = &mpx_size_classes[mpx_state_class(state)];
  clear_bit(u->used, block); /* the end of the block */
  MPROC_CRASH_POINT("heap.free.unused");
  if (mpx_word_load(&u->owner) != 0)
    clear_bit(u->owned, block);
  u->vacant |= 1ull << block / 64;
  mpx_counter_add(&arena->classes[mpx_state_class(state)].blocks, -(uint64_t)1);
  MPROC_CRASH_POINT("heap.free.counted");
  bool sound = u->used_count-- != cls->capacity || begin_room(a, unit);
  if (u->used_count == 0)
    sound = keep_idle(a, caller, unit, ret_closing) && sound;
  if (!sound)
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
  const mpx_size_class *cls = &mpx_size_classes[mpx_state_class(state)];
  mpx_arena *arena = arena_of(a, state);
  uint32_t old_count = u->used_count;
  bool sound =
      (old_count == cls->capacity || end_room(a, unit)) && (old_count != 0 || end_idle(a, unit));
  /* A kill before the last store leaves the slab to the next reaper, and what it counts to the
   * repair. */
  for (uint32_t w = 0; w < cls->word_count; w++) {
    uint64_t owned = mpx_word_load(&u->owned[w]);
    mpx_word_store(&u->used[w], mpx_word_load(&u->used[w]) & ~owned);
    MPROC_CRASH_POINT("heap.reap.unused");
    mpx_word_store(&u->owned[w], 0);
  }
  MPROC_CRASH_POINT("heap.reap.cleared");
  mpx_word_store(&u->owner, 0);
  mpx_units_unmark_owned(a, unit);
  MPROC_CRASH_POINT("heap.reap.disowned");
  recount(a, unit, cls);
  mpx_counter_add(&arena->classes[mpx_state_class(state)].blocks,
                  (uint64_t)u->used_count - old_count);
  if (u->used_count < cls->capacity)
    sound = begin_room(a, unit) && sound;
  if (u->used_count == 0)
    sound = keep_idle(a, caller, unit, ret_closing) && sound;
  if (!sound)
    mpx_arena_rebuild(a, mpx_state_arena(state));
  return 0;
}
