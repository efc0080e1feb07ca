#include "heap/allocator.h"

#include "base/error.h"
#include "heap/allocator_layout.h"
#include "heap/arena.h"
#include "heap/pages.h"
#include "heap/units.h"
#include "os/crash_point.h"

#include <errno.h>

enum {
  UNITS_PER_ARENA = 256,   /* a small heap has fewer arenas, so that they do not hoard its units */
  RESERVE_SHARE = 32,      /* of the heap's size: what may be kept of memory that nobody uses, */
  RESERVE_BYTES = 4 << 20, /* but at most this in free units */
  IDLE_SLABS = 16,         /* and so many slabs in an arena */
  ALLOC_SPINS = 16,        /* looks at a busy arena before another one is tried */
  FREE_SPINS = 200         /* looks at a busy arena before the kernel is asked to wait */
};

/* ---- set-up ---------------------------------------------------------------------------------- */

/* The parts of the metadata, in this order, each aligned to a page of any system: 64 KiB. */
typedef struct parts {
  uint64_t backing, busy, owned, units, end;
} parts;

static parts parts_of(uint64_t unit_count) {
  parts p;
  p.backing = mpx_round_up(sizeof(mpx_allocator), 64);
  p.busy = mpx_round_up(p.backing + unit_count, 64);
  p.owned = p.busy + mpx_round_up(MPX_WORD_COUNT(unit_count) * 8, 64);
  p.units = mpx_round_up(p.owned + MPX_WORD_COUNT(unit_count) * 8, MPX_UNIT_SIZE);
  p.end = mpx_round_up(p.units + unit_count * sizeof(mpx_unit), MPX_UNIT_SIZE);
  return p;
}

size_t mpx_allocator_overhead(size_t data_size) {
  return (size_t)parts_of(data_size / MPX_UNIT_SIZE).end;
}

static uint32_t smaller(uint64_t x, uint64_t y) {
  return (uint32_t)(x < y ? x : y);
}

int mpx_allocator_init(void *metadata, void *data, size_t data_size,
                       mpx_allocator **ret_allocator) {
  uint64_t unit_count = data_size / MPX_UNIT_SIZE;
  if (data_size % MPX_UNIT_SIZE != 0 || unit_count == 0 || unit_count >= MPX_NO_UNIT / 2 ||
      ((uintptr_t)data | (uintptr_t)metadata) % MPX_UNIT_SIZE != 0)
    return mpx_fail(-EINVAL, "the shared heap needs whole units of 64 KiB, aligned to that");
  parts p = parts_of(unit_count);
  int r = mpx_os_commit(metadata, p.units);
  if (r < 0)
    return mpx_fail(r, "the system gives no memory for the tables of the shared heap: %s",
                    mproc_strerror(r));
  unsigned char *base = metadata;
  mpx_allocator *a = metadata;
  a->data = data;
  a->units = (mpx_unit *)(void *)(base + p.units);
  a->backing = (_Atomic uint8_t *)(base + p.backing);
  a->busy = (_Atomic uint64_t *)(void *)(base + p.busy);
  a->owned = (_Atomic uint64_t *)(void *)(base + p.owned);
  a->unit_count = (uint32_t)unit_count;
  a->arena_count = MPX_ARENA_MAX;
  while (a->arena_count > 1 && unit_count < (uint64_t)a->arena_count * UNITS_PER_ARENA)
    a->arena_count /= 2;
  a->dirty_limit = smaller(data_size / RESERVE_SHARE, RESERVE_BYTES) / MPX_STEP;
  a->idle_limit = smaller(unit_count / RESERVE_SHARE / a->arena_count, IDLE_SLABS - 1) + 1;
  a->page_size = mpx_os_page_size();
  a->magic = MPX_ALLOCATOR_MAGIC;
  r = mpx_units_init(a);
  for (unsigned i = 0; i < a->arena_count && r == 0; i++)
    r = mpx_arena_init(&a->arenas[i]);
  if (r < 0)
    return mpx_fail_code(r, "cannot set up the locks of the shared heap");
  *ret_allocator = a;
  return 0;
}

/* ---- locks ----------------------------------------------------------------------------------- */

static inline void relax(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb");
#endif
}

/* Looks a few times before it sleeps: a holder is done within some 20 ns, a sleep costs
 * microseconds. */
static int lock_arena(mpx_allocator *a, unsigned index) {
  for (int i = 0; i < FREE_SPINS; i++) {
    int r = mpx_arena_trylock(a, index);
    if (r != -EBUSY)
      return r;
    relax();
  }
  return mpx_arena_lock(a, index);
}

/* Locks the lane's arena, or another when that is busy. Returns its index. */
static int lock_some_arena(mpx_allocator *a, uint32_t lane) {
  unsigned mask = a->arena_count - 1, home = lane & mask;
  int r = mpx_arena_trylock(a, home);
  for (int i = 0; r == -EBUSY && i < ALLOC_SPINS; i++) {
    relax();
    r = mpx_arena_trylock(a, home);
  }
  unsigned index = home;
  while (r == -EBUSY && (index = (index + 1) & mask) != home)
    r = mpx_arena_trylock(a, index);
  if (r == -EBUSY)
    r = mpx_arena_lock(a, index);
  return r < 0 ? r : (int)index;
}

static void unlock_arena(mpx_allocator *a, unsigned index, uint32_t closing) {
  mpx_arena_unlock(a, index);
  if (closing != MPX_NO_UNIT)
    (void)mpx_units_close(a, closing);
}

/* ---- small blocks ---------------------------------------------------------------------------- */

/* When no unit is left, or no memory: blocks in slabs of other arenas, then what is kept in
 * reserve. */
static int alloc_small_anywhere(mpx_allocator *a, const mpx_caller *caller, unsigned class_index,
                                mpx_member owner, void **ret_block) {
  for (bool trimmed = false;; trimmed = true) {
    int r = MPROC_EHEAPFULL;
    for (unsigned i = 0; i < a->arena_count && r < 0; i++) {
      if (mpx_arena_lock(a, i) < 0)
        continue;
      r = mpx_arena_alloc(a, i, class_index, owner, trimmed && i + 1 == a->arena_count, ret_block);
      mpx_arena_unlock(a, i);
    }
    if (r == 0 || trimmed)
      return r;
    r = mpx_allocator_trim(a, caller);
    if (r < 0)
      return r;
  }
}

static int alloc_small(mpx_allocator *a, const mpx_caller *caller, size_t size, bool owned,
                       void **ret_block) {
  unsigned class_index = mpx_class_of(size);
  mpx_member owner = owned ? caller->member : 0;
  int index = lock_some_arena(a, caller->lane);
  if (index < 0)
    return index;
  int r = mpx_arena_alloc(a, (unsigned)index, class_index, owner, true, ret_block);
  mpx_arena_unlock(a, (unsigned)index);
  if (r == MPROC_EHEAPFULL || r == -ENOMEM)
    r = alloc_small_anywhere(a, caller, class_index, owner, ret_block);
  return r;
}

/* ---- large blocks ---------------------------------------------------------------------------- */

/* Backs a run that only its owner knows of yet, from the first page on that has no memory. */
static int back_run(mpx_allocator *a, uint32_t first, uint64_t bytes) {
  uint32_t count = (uint32_t)((bytes + MPX_UNIT_SIZE - 1) / MPX_UNIT_SIZE);
  uint64_t gap = bytes;
  for (uint32_t i = 0; i < count && gap == bytes; i++) {
    uint64_t here = (uint64_t)i * MPX_UNIT_SIZE + (uint64_t)mpx_backed(a, first + i) * MPX_STEP;
    if (here < bytes && here < (uint64_t)(i + 1) * MPX_UNIT_SIZE)
      gap = here;
  }
  if (gap == bytes)
    return 0;
  int r = mpx_units_back(a, mpx_unit_data(a, first) + gap, bytes - gap);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("heap.run.backed");
  for (uint32_t i = 0; i < count; i++) {
    uint32_t steps =
        smaller((bytes - (uint64_t)i * MPX_UNIT_SIZE) / MPX_STEP, MPX_UNIT_SIZE / MPX_STEP);
    if (mpx_backed(a, first + i) < steps)
      mpx_set_backed(a, first + i, steps);
  }
  return 0;
}

static int release_run(mpx_allocator *a, const mpx_caller *caller, uint32_t first, uint64_t state) {
  uint32_t closing;
  int r = mpx_units_release(a, caller, first, state, &closing);
  return closing != MPX_NO_UNIT ? mpx_units_close(a, closing) : r;
}

/* The run belongs to the caller until it is complete: a kill leaves it to the caller's reaper. */
static int alloc_run(mpx_allocator *a, const mpx_caller *caller, size_t size, bool owned,
                     void **ret_block) {
  uint64_t bytes = mpx_round_up(size, a->page_size);
  uint64_t count = (bytes + MPX_UNIT_SIZE - 1) / MPX_UNIT_SIZE;
  uint64_t state = mpx_state(MPX_UNIT_RUN, 0, 0, smaller(count, UINT32_MAX));
  uint32_t first;
  int r = mpx_units_take(a, state, caller->member, bytes, &first);
  if (r < 0)
    return r;
  MPROC_CRASH_POINT("heap.run.taken");
  r = back_run(a, first, bytes);
  if (r < 0) {
    (void)release_run(a, caller, first, state);
    return r;
  }
  if (!owned && caller->member != 0) {
    mpx_word_store(&a->units[first].owner, 0); /* the family's from this instant on */
    mpx_units_unmark_owned(a, first);
  }
  MPROC_CRASH_POINT("heap.run.done");
  *ret_block = mpx_unit_data(a, first);
  return 0;
}

static int share_run(mpx_allocator *a, uint32_t first, uint64_t state) {
  int r = mpx_units_lock(a);
  if (r < 0)
    return r;
  if (mpx_unit_state(&a->units[first]) == state) {
    mpx_word_store(&a->units[first].owner, 0); /* the instant of the hand-over */
    MPROC_CRASH_POINT("heap.share.run");
    mpx_units_unmark_owned(a, first);
  } else {
    r = MPROC_EPOINTER;
  }
  mpx_units_unlock(a);
  return r;
}

/* ---- entry points ---------------------------------------------------------------------------- */

int mpx_allocator_alloc(mpx_allocator *a, const mpx_caller *caller, size_t size, size_t alignment,
                        bool owned, void **ret_block) {
  if (size == 0)
    size = 1;
  if (alignment != 0) {
    if (alignment > MPX_UNIT_SIZE || (alignment & (alignment - 1)) != 0)
      return mpx_fail(-EINVAL, "an alignment of %zu is no power of two up to 65536", alignment);
    size = size <= SIZE_MAX - alignment ? (size + alignment - 1) & ~(alignment - 1) : SIZE_MAX;
  }
  if (owned && caller->member == 0)
    return mpx_fail(-EINVAL, "only a member of the family can own a block");
  if (size <= MPX_SMALL_SIZE)
    return alloc_small(a, caller, size, owned, ret_block);
  if (size > (uint64_t)a->unit_count * MPX_UNIT_SIZE)
    return mpx_fail(MPROC_EHEAPFULL,
                    "a block of %zu bytes is larger than the whole shared heap (%llu bytes); give "
                    "mproc_init() a larger heap_size",
                    size, (unsigned long long)a->unit_count * MPX_UNIT_SIZE);
  int r = alloc_run(a, caller, size, owned, ret_block);
  if ((r == MPROC_EHEAPFULL || r == -ENOMEM) && mpx_allocator_trim(a, caller) > 0)
    r = alloc_run(a, caller, size, owned, ret_block);
  return r;
}

/* Where a pointer points. The state was read without a lock: whoever takes the lock reads it
 * again. */
typedef struct place {
  uint32_t unit;
  uint32_t offset;
  uint64_t state;
} place;

/* False when it points to nothing that can be a block. */
static inline bool locate(mpx_allocator *a, const void *block, place *ret_place) {
  uint64_t offset = (uintptr_t)block - (uintptr_t)a->data;
  if (offset >= (uint64_t)a->unit_count * MPX_UNIT_SIZE)
    return false;
  ret_place->unit = (uint32_t)(offset / MPX_UNIT_SIZE);
  ret_place->offset = offset % MPX_UNIT_SIZE;
  ret_place->state = mpx_unit_state(&a->units[ret_place->unit]);
  switch (mpx_state_kind(ret_place->state)) {
  case MPX_UNIT_SLAB:
    return mpx_state_arena(ret_place->state) < a->arena_count;
  case MPX_UNIT_RUN:
    return ret_place->offset == 0;
  default:
    return false;
  }
}

static int fail_pointer(mpx_allocator *a, const void *block) {
  uint64_t offset = (uintptr_t)block - (uintptr_t)a->data;
  if (offset >= (uint64_t)a->unit_count * MPX_UNIT_SIZE)
    return mpx_fail(MPROC_EPOINTER,
                    "%p is not in the shared heap (%p to %p); give what malloc returned to free()",
                    block, (void *)a->data, (void *)mpx_unit_data(a, a->unit_count));
  return mpx_fail(
      MPROC_EPOINTER,
      "%p is not the start of a block of the shared heap, or was freed before; give the "
      "pointer that mproc_heap_alloc() returned, once",
      block);
}

int mpx_allocator_free(mpx_allocator *a, const mpx_caller *caller, void *block) {
  place p;
  int r = MPROC_EPOINTER;
  if (locate(a, block, &p)) {
    if (mpx_state_kind(p.state) == MPX_UNIT_RUN) {
      r = release_run(a, caller, p.unit, p.state);
    } else {
      uint32_t closing;
      r = lock_arena(a, mpx_state_arena(p.state));
      if (r < 0)
        return r;
      r = mpx_arena_free(a, caller, p.unit, p.state, p.offset, &closing);
      unlock_arena(a, mpx_state_arena(p.state), closing);
    }
  }
  return r == MPROC_EPOINTER ? fail_pointer(a, block) : r;
}

int mpx_allocator_share(mpx_allocator *a, void *block) {
  place p;
  int r = MPROC_EPOINTER;
  if (locate(a, block, &p)) {
    if (mpx_state_kind(p.state) == MPX_UNIT_RUN) {
      r = share_run(a, p.unit, p.state);
    } else {
      r = lock_arena(a, mpx_state_arena(p.state));
      if (r < 0)
        return r;
      r = mpx_arena_share(a, p.unit, p.state, p.offset);
      mpx_arena_unlock(a, mpx_state_arena(p.state));
    }
  }
  return r == MPROC_EPOINTER ? fail_pointer(a, block) : r;
}

size_t mpx_allocator_usable_size(mpx_allocator *a, const void *block) {
  place p;
  if (!locate(a, block, &p))
    return 0;
  if (mpx_state_kind(p.state) == MPX_UNIT_RUN)
    return (size_t)mpx_word_load(&a->units[p.unit].run_bytes);
  uint32_t number = mpx_block_at(p.state, p.offset);
  if (number == UINT32_MAX || !mpx_bit_is_set(a->units[p.unit].used, number))
    return 0;
  return mpx_size_classes[mpx_state_class(p.state)].size;
}

bool mpx_allocator_contains(mpx_allocator *a, const void *start, size_t size) {
  uint64_t offset = (uintptr_t)start - (uintptr_t)a->data;
  if (offset >= (uint64_t)a->unit_count * MPX_UNIT_SIZE)
    return false;
  uint32_t unit = (uint32_t)(offset / MPX_UNIT_SIZE);
  uint64_t state = 0, room;
  /* The inner units of a run are free ones; what is before them tells. */
  while ((!mpx_is_described(a, unit) || (state = mpx_unit_state(&a->units[unit])) == 0) && unit > 0)
    unit--;
  offset -= (uint64_t)unit * MPX_UNIT_SIZE;
  unsigned class_index = mpx_state_class(state);
  if (mpx_state_kind(state) == MPX_UNIT_RUN) {
    room = mpx_word_load(&a->units[unit].run_bytes);
  } else if (mpx_state_kind(state) == MPX_UNIT_SLAB && offset < MPX_UNIT_SIZE &&
             class_index < MPX_CLASS_COUNT) {
    uint32_t block = mpx_class_block(&mpx_size_classes[class_index], (uint32_t)offset);
    offset -= (uint64_t)block * mpx_size_classes[class_index].size;
    if (block >= mpx_size_classes[class_index].capacity ||
        !mpx_bit_is_set(a->units[unit].used, block))
      return false;
    room = mpx_size_classes[class_index].size;
  } else {
    return false;
  }
  return offset <= room && size <= room - offset;
}

/* ---- the dead, the reserve, the figures ------------------------------------------------------ */

static int reap_unit(mpx_allocator *a, const mpx_caller *caller, uint32_t unit, mpx_member dead) {
  uint64_t state = mpx_unit_state(&a->units[unit]);
  int r;
  if (mpx_state_kind(state) == MPX_UNIT_SLAB && mpx_state_arena(state) < a->arena_count) {
    uint32_t closing;
    r = mpx_arena_lock(a, mpx_state_arena(state));
    if (r < 0)
      return r;
    r = mpx_arena_disown(a, caller, unit, state, dead, &closing);
    unlock_arena(a, mpx_state_arena(state), closing);
    return r;
  }
  r = mpx_units_take_over(a, caller, dead, unit);
  return r > 0 ? mpx_units_close(a, unit) : r;
}

int mpx_allocator_reap(mpx_allocator *a, const mpx_caller *caller, mpx_member dead) {
  if (dead == 0 || dead == caller->member)
    return mpx_fail(-EINVAL, "only the blocks of another member can be reaped");
  int result = 0;
  for (uint32_t u = 0; (u = mpx_bits_find(a->owned, u, a->unit_count, true)) < a->unit_count; u++) {
    if (mpx_word_load(&a->units[u].owner) != dead)
      continue;
    int r = reap_unit(a, caller, u, dead);
    if (r < 0)
      result = r;
  }
  return result;
}

int mpx_allocator_trim(mpx_allocator *a, const mpx_caller *caller) {
  int found = 0;
  for (unsigned i = 0; i < a->arena_count; i++) {
    for (int r = 1; r > 0; found |= r > 0) {
      uint32_t closing;
      r = mpx_arena_lock(a, i);
      if (r < 0)
        return r;
      r = mpx_arena_release_idle(a, caller, i, &closing);
      unlock_arena(a, i, closing);
    }
  }
  for (uint32_t u = 0;; u++, found = 1) {
    int r = mpx_units_take_dirty(a, caller, u, &u);
    if (r < 0 || u == MPX_NO_UNIT)
      return r < 0 ? r : found;
    r = mpx_units_close(a, u);
    if (r < 0)
      return r;
  }
}

/* Bytes of the unit that belong to a member: by its bitmaps, since counts are under a lock. */
static uint64_t owned_bytes(const mpx_unit *u) {
  uint64_t state = mpx_unit_state(u), blocks = 0;
  unsigned class_index = mpx_state_class(state);
  if (mpx_word_load(&u->owner) == 0)
    return 0;
  if (mpx_state_kind(state) == MPX_UNIT_RUN)
    return mpx_word_load(&u->run_bytes);
  if (mpx_state_kind(state) != MPX_UNIT_SLAB || class_index >= MPX_CLASS_COUNT)
    return 0;
  for (uint32_t w = 0; w < mpx_size_classes[class_index].word_count; w++)
    blocks += mpx_bit_count(mpx_word_load(&u->owned[w]) & mpx_word_load(&u->used[w]));
  return blocks * mpx_size_classes[class_index].size;
}

void mpx_allocator_stats(mpx_allocator *a, mproc_heap_statistics *ret_statistics) {
  mproc_heap_statistics s = {.limit_bytes = (uint64_t)a->unit_count * MPX_UNIT_SIZE};
  mpx_units_count_blocks(a, &s.block_count, &s.used_bytes);
  uint64_t steps = 0;
  for (uint32_t u = 0; u < a->unit_count; u++)
    steps += mpx_backed(a, u);
  s.committed_bytes = steps * MPX_STEP;
  for (uint32_t u = 0; (u = mpx_bits_find(a->owned, u, a->unit_count, true)) < a->unit_count; u++)
    s.owned_bytes += owned_bytes(&a->units[u]);
  s.repair_count = atomic_load_explicit(&a->repair_count, memory_order_relaxed);
  *ret_statistics = s;
}
