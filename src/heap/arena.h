/* Arenas: slabs of small blocks. A slab is one unit with blocks of one class, of one owner or of
 * the family; slabs with room are in the lists of their arena. */
#ifndef MPX_HEAP_ARENA_H
#define MPX_HEAP_ARENA_H

#include "heap/allocator_layout.h"

#include <stdbool.h>

int mpx_arena_init(mpx_arena *arena);

/* A taker that finds the former owner dead computes the arena again. -EIO, says why. */
int mpx_arena_lock(mpx_allocator *a, unsigned index);
/* As above; -EBUSY when somebody alive holds it. */
int mpx_arena_trylock(mpx_allocator *a, unsigned index);
void mpx_arena_unlock(mpx_allocator *a, unsigned index);

/* All below: the caller holds the lock of the arena. */

/* A block of a class for `owner` (0: the family). `grow`: from a new slab if need be.
 * MPROC_EHEAPFULL, -ENOMEM; says why. */
int mpx_arena_alloc(mpx_allocator *a, unsigned index, unsigned class_index, mpx_member owner,
                    bool grow, void **ret_block);

/* Ends the block at `offset` of a unit that was seen in `state`. MPROC_EPOINTER, says nothing.
 * Here and below *ret_closing is a run to close after unlocking (mpx_units_close), or
 * MPX_NO_UNIT. */
int mpx_arena_free(mpx_allocator *a, const mpx_caller *caller, uint32_t unit, uint64_t state,
                   uint32_t offset, uint32_t *ret_closing);

/* Hands a block to the family. MPROC_EPOINTER, says nothing. */
int mpx_arena_share(mpx_allocator *a, uint32_t unit, uint64_t state, uint32_t offset);

/* Ends the owned blocks of a slab, seen in `state`, if it is still `dead`'s; it becomes the
 * family's. */
int mpx_arena_disown(mpx_allocator *a, const mpx_caller *caller, uint32_t unit, uint64_t state,
                     mpx_member dead, uint32_t *ret_closing);

/* Gives up the slab that has been without a block for longest: 1, or 0 when there is none. */
int mpx_arena_release_idle(mpx_allocator *a, const mpx_caller *caller, unsigned index,
                           uint32_t *ret_closing);

/* Computes all that is derived in the arena and its slabs. */
void mpx_arena_rebuild(mpx_allocator *a, unsigned index);

/* Where the slab belongs while it has room. */
mpx_unit_list *mpx_arena_list(mpx_arena *arena, unsigned class_index, mpx_member owner);

/* The number of the block that starts at `offset` of a slab in `state`, or UINT32_MAX. */
static inline uint32_t mpx_block_at(uint64_t state, uint32_t offset) {
  unsigned class_index = mpx_state_class(state);
  if (class_index >= MPX_CLASS_COUNT)
    return UINT32_MAX;
  const mpx_size_class *cls = &mpx_size_classes[class_index];
  uint32_t block = mpx_class_block(cls, offset);
  return block < cls->capacity && block * cls->size == offset ? block : UINT32_MAX;
}

#endif
