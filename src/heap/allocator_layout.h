/* What the allocator keeps in shared memory. README.md beside this file has the protocol.
 *
 * Each field is truth or derived. Truth changes by single stores, in an order such that a kill
 * between any two of them leaves a state that means something. Derived fields are computed again
 * from truth by whoever takes a lock whose owner died; until then nobody looks at them, since
 * nobody has the lock.
 *
 * Nothing that is read from here is used as an index before its bounds are checked. */
#ifndef MPX_HEAP_ALLOCATOR_LAYOUT_H
#define MPX_HEAP_ALLOCATOR_LAYOUT_H

#include "heap/allocator.h"
#include "heap/bitmap.h"
#include "heap/size_class.h"
#include "os/os.h"

#define MPX_ALLOCATOR_MAGIC 0x6d70726f63686561u /* "mprochea" */
#define MPX_NO_UNIT UINT32_MAX
#define MPX_ARENA_MAX 8u /* a power of two */
#define MPX_OWNED_LISTS 64u
#define MPX_RUN_HINTS 32u
#define MPX_STEP 4096u /* grain of `backed`; a page is a multiple of it */

typedef enum mpx_unit_kind {
  MPX_UNIT_FREE,   /* both bitmaps are clear; also the inner units of a run */
  MPX_UNIT_SLAB,   /* small blocks of one class */
  MPX_UNIT_RUN,    /* first unit of a large block */
  MPX_UNIT_CLOSING /* first unit of a run that its owner is returning to the system */
} mpx_unit_kind;

/* A unit's state in one word, so that one store changes all of it: kind, class and arena of a slab,
 * count of units. */
static inline uint64_t mpx_state(mpx_unit_kind kind, unsigned class_index, unsigned arena,
                                 uint32_t count) {
  return (uint64_t)kind | (uint64_t)class_index << 8 | (uint64_t)arena << 16 |
         (uint64_t)count << 32;
}
static inline mpx_unit_kind mpx_state_kind(uint64_t state) {
  return (mpx_unit_kind)(state & 0xff);
}
static inline unsigned mpx_state_class(uint64_t state) {
  return state >> 8 & 0xff;
}
static inline unsigned mpx_state_arena(uint64_t state) {
  return state >> 16 & 0xff;
}
static inline uint32_t mpx_state_count(uint64_t state) {
  return (uint32_t)(state >> 32);
}

typedef struct mpx_unit_link {
  uint32_t next; /* MPX_NO_UNIT at the ends */
  uint32_t previous;
} mpx_unit_link;

typedef struct mpx_unit_list {
  uint32_t first; /* the latest; MPX_NO_UNIT: empty */
  uint32_t last;
} mpx_unit_list;

typedef enum mpx_link_kind {
  MPX_LINK_ROOM, /* slabs of one arena, class and owner with used_count < capacity */
  MPX_LINK_IDLE  /* slabs of one arena with used_count == 0 */
} mpx_link_kind;

/* The descriptor of a unit. Its size is an odd number of cache lines, so that the heads of many
 * units do not compete for the same sets of a cache.
 *
 * `state` changes under the map's lock only, and from or to SLAB under the arena's lock too. Of
 * a slab all else is written under the lock of its arena, of other units under the map's lock,
 * except where noted. What is atomic is also read without a lock. */
typedef struct mpx_unit {
  /* Truth. The owner is an mpx_member, or 0: the family. Both it and the bytes that the user of a
   * run may use are stored before `state`. The owner is stored without a lock once: when the
   * maker of a run hands it to the family, before anybody else has heard of it. */
  _Alignas(64) _Atomic uint64_t state;
  _Atomic uint64_t owner;
  _Atomic uint64_t run_bytes;
  /* Derived, of a slab. */
  uint64_t vacant;        /* bit w: word w of `used` has a free block */
  mpx_unit_link links[2]; /* by mpx_link_kind; in use if and only if the slab is in such a list */
  uint32_t used_count;    /* blocks */
  uint32_t backed_count;  /* blocks whose memory is there: the first ones */
  /* Truth, of a slab. A block exists when its bit in `used` is set; a set bit in `owned` counts
   * only then. An owned block gets its bit in `owned` first and loses it last. */
  _Atomic uint64_t used[MPX_UNIT_SIZE / 16 / 64];
  _Atomic uint64_t owned[MPX_UNIT_SIZE / 16 / 64]; /* all clear while `owner` is 0 */
} mpx_unit;

/* Slabs of all classes, under one lock. A thread prefers the arena of its lane. */
typedef struct mpx_arena {
  _Alignas(64) mpx_os_robust lock;
  /* Truth: the block being allocated, (unit << 12 | number) + 1, else 0. Set before the block's
   * bit and cleared when the block is complete: a kill between takes the block back. */
  _Atomic uint64_t pending;
  /* Derived. */
  uint32_t idle_count; /* slabs in `idle` */
  mpx_unit_list idle;
  struct {
    mpx_unit_list room;      /* the family's slabs with room */
    _Atomic uint64_t blocks; /* of all owners */
  } classes[MPX_CLASS_COUNT];
  mpx_unit_list owned_room[MPX_OWNED_LISTS]; /* owned slabs with room, by owner and class */
} mpx_arena;

/* Which units are taken, under one lock. Lock order: arena, then map. */
typedef struct mpx_unit_map {
  _Alignas(64) mpx_os_robust lock;
  /* All derived. */
  uint32_t dirty_steps; /* MPX_STEPs that back free units */
  uint32_t hand;        /* where the next memory to return to the system is looked for */
  _Atomic uint64_t run_count;
  _Atomic uint64_t run_bytes;
  uint32_t hints[MPX_RUN_HINTS]; /* [k]: no stretch of 2^k free units begins before this unit */
} mpx_unit_map;

struct mpx_allocator {
  /* Written by mpx_allocator_init only, as are the pointers below. */
  uint64_t magic;
  unsigned char *data;
  mpx_unit *units;
  uint32_t unit_count;
  uint32_t arena_count; /* a power of two */
  uint32_t idle_limit;  /* slabs without a block that an arena keeps */
  uint32_t dirty_limit; /* MPX_STEPs kept in free units; twice as many after a burst */
  size_t page_size;

  /* Truth, of each unit: see mpx_backed and mpx_is_described. Written under the lock that covers
   * the unit's descriptor; by the owner alone while he fills or closes a run. */
  _Atomic uint8_t *backing;
  /* Derived, a bit per unit: taken. Written under the map's lock. */
  _Atomic uint64_t *busy;
  /* A bit per unit: its `owner` may be other than 0, which is where a reaper looks. Set before the
   * owner and cleared after it, by atomic operations under whatever lock covers the owner. */
  _Atomic uint64_t *owned;

  /* Bytes until the cgroup is asked again. Any member; a lost update shifts the next look. */
  _Alignas(64) _Atomic uint64_t commit_credit;
  _Atomic uint64_t repair_count; /* any member */
  mpx_unit_map map;
  mpx_arena arenas[MPX_ARENA_MAX];
};

/* In `backing`: the lower bits count the MPX_STEPs at the start of the unit that have memory,
 * the upper one says that the unit's descriptor has. */
enum { MPX_BACKED_STEPS = 0x1f, MPX_DESCRIBED = 0x80 };

static inline uint32_t mpx_backed(const mpx_allocator *a, uint32_t unit) {
  return atomic_load_explicit(&a->backing[unit], memory_order_relaxed) & MPX_BACKED_STEPS;
}

static inline void mpx_set_backed(mpx_allocator *a, uint32_t unit, uint32_t steps) {
  uint32_t flag = atomic_load_explicit(&a->backing[unit], memory_order_relaxed) & MPX_DESCRIBED;
  atomic_store_explicit(&a->backing[unit], (uint8_t)(steps | flag), memory_order_release);
}

/* Whether there is a descriptor to look at. A kind other than FREE implies it. */
static inline bool mpx_is_described(const mpx_allocator *a, uint32_t unit) {
  return atomic_load_explicit(&a->backing[unit], memory_order_relaxed) & MPX_DESCRIBED;
}

/* Pairs with the release in mpx_word_store. */
static inline uint64_t mpx_unit_state(const mpx_unit *unit) {
  return atomic_load_explicit(&unit->state, memory_order_acquire);
}

static inline unsigned char *mpx_unit_data(const mpx_allocator *a, uint32_t unit) {
  return a->data + (size_t)unit * MPX_UNIT_SIZE;
}

#endif
