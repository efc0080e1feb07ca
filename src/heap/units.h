/* Units: who has which 64 KiB of the data region, and which of them have memory. */
#ifndef MPX_HEAP_UNITS_H
#define MPX_HEAP_UNITS_H

#include "heap/allocator_layout.h"

/* Sets up an empty map. */
int mpx_units_init(mpx_allocator *a);

/* The map's lock; a taker that finds the former owner dead computes the map again. -EIO, says
 * why. */
int mpx_units_lock(mpx_allocator *a);
void mpx_units_unlock(mpx_allocator *a);

/* Computes the map again; under its lock. */
void mpx_units_rebuild(mpx_allocator *a);

/* Takes the first stretch of mpx_state_count(state) free units. They keep the memory that they
 * have. Takes the map's lock. MPROC_EHEAPFULL, -ENOMEM; says why. */
int mpx_units_take(mpx_allocator *a, uint64_t state, mpx_member owner, uint64_t run_bytes,
                   uint32_t *ret_first);

/* Gives units back whose first is in `state`; MPROC_EPOINTER when it is in another, says nothing.
 * When the reserve becomes too large, *ret_closing is a closing run of the caller, who calls
 * mpx_units_close() when it holds no lock any more; else MPX_NO_UNIT. Takes the map's lock. */
int mpx_units_release(mpx_allocator *a, const mpx_caller *caller, uint32_t first, uint64_t state,
                      uint32_t *ret_closing);

/* Makes a closing run of `dead`'s run or closing run, in the caller's name: 1; 0 when it is not
 * the dead's any more. Takes the map's lock. */
int mpx_units_take_over(mpx_allocator *a, const mpx_caller *caller, mpx_member dead,
                        uint32_t first);

/* Makes a closing run of the first free units at or after `from` that have memory; MPX_NO_UNIT when
 * there are none. Takes the map's lock. */
int mpx_units_take_dirty(mpx_allocator *a, const mpx_caller *caller, uint32_t from,
                         uint32_t *ret_closing);

/* Returns the memory of the caller's closing run to the system, and the units to the map. The
 * memory goes while no lock is held. */
int mpx_units_close(mpx_allocator *a, uint32_t first);

/* Backs [start, start + size) with memory, whole pages: -ENOMEM, says why. Asks the cgroup now
 * and then, since that kills where a system refuses. */
int mpx_units_back(mpx_allocator *a, void *start, size_t size);

/* How many blocks there are, small ones too, and their bytes. Takes no lock. */
void mpx_units_count_blocks(const mpx_allocator *a, uint64_t *ret_blocks, uint64_t *ret_bytes);

/* Whether a reaper looks at the unit. */
static inline void mpx_units_mark_owned(mpx_allocator *a, uint32_t unit) {
  atomic_fetch_or_explicit(&a->owned[unit / 64], 1ull << unit % 64, memory_order_release);
}
static inline void mpx_units_unmark_owned(mpx_allocator *a, uint32_t unit) {
  if (mpx_bit_is_set(a->owned, unit))
    atomic_fetch_and_explicit(&a->owned[unit / 64], ~(1ull << unit % 64), memory_order_release);
}

#endif
