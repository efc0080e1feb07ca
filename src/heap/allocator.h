/* The allocator of the shared heap: blocks for a family whose members may be killed at any
 * instruction, also in here.
 *
 *   metadata   an mpx_allocator and a descriptor of each unit, on pages apart from the blocks
 *   data       units of 64 KiB: slabs of small blocks, and runs of units for large ones
 *
 * Any thread of any member may call any function. The caller says who it is: a kill in the
 * middle leaves every half-done thing either undone, or in that member's name until it is
 * reaped. README.md beside this file tells how; allocator_layout.h has the shared structs. */
#ifndef MPX_HEAP_ALLOCATOR_H
#define MPX_HEAP_ALLOCATOR_H

#include "heap/table.h"
#include "mproc/heap.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* In shared memory, at one address in all processes. */
typedef struct mpx_allocator mpx_allocator;

/* Who calls. With member 0 (tests; a family about to be born) nothing can be owned, and a kill
 * inside a call on a large block leaks that block. Threads with different lanes, such as the
 * numbers of their cells, disturb each other less. */
typedef struct mpx_caller {
  mpx_member member;
  uint32_t lane;
} mpx_caller;

/* Bytes of metadata for a data region of `data_size` bytes, both multiples of 64 KiB. Most of it
 * stays untouched: what is used costs 1.7 % of the slabs, one page for some large block, 10 bits
 * for each unit of the region. */
size_t mpx_allocator_overhead(size_t data_size);

/* Makes an allocator in fresh zeroed memory, both parts aligned to 64 KiB. -ENOMEM, -EINVAL;
 * says why. */
int mpx_allocator_init(void *metadata, void *data, size_t data_size, mpx_allocator **ret_allocator);

/* A block of `size` bytes (0 counts as 1), backed by memory, aligned to `alignment`: a power of
 * two up to 64 KiB; 0: 16. It belongs to the calling member, or to the family. Says why not:
 * MPROC_EHEAPFULL (the heap's limit), -ENOMEM (the system's or the cgroup's), -EINVAL. */
int mpx_allocator_alloc(mpx_allocator *allocator, const mpx_caller *caller, size_t size,
                        size_t alignment, bool owned, void **ret_block);

/* Gives a block back, whoever it belongs to. MPROC_EPOINTER, says why. */
int mpx_allocator_free(mpx_allocator *allocator, const mpx_caller *caller, void *block);

/* The block is the family's from one instant in this call on. MPROC_EPOINTER, says why. */
int mpx_allocator_share(mpx_allocator *allocator, void *block);

/* 0 for a pointer that is no block. Takes no lock. */
size_t mpx_allocator_usable_size(mpx_allocator *allocator, const void *block);

/* Whether [start, start + size) lies inside one block. Takes no lock. */
bool mpx_allocator_contains(mpx_allocator *allocator, const void *start, size_t size);

/* Gives back what belongs to `dead`, which will never run again. A reaper that is killed leaves the
 * rest: call it again until it has returned once. Any number of reapers at a time. */
int mpx_allocator_reap(mpx_allocator *allocator, const mpx_caller *caller, mpx_member dead);

/* Returns memory that is kept in reserve to the system. */
int mpx_allocator_trim(mpx_allocator *allocator, const mpx_caller *caller);

/* Takes no lock: usable by a supervisor while a member is stopped inside an allocation. */
void mpx_allocator_stats(mpx_allocator *allocator, mproc_heap_statistics *ret_statistics);

/* Compares everything with everything under all locks, for tests: -EIO, and the detail says what is
 * wrong. */
int mpx_allocator_check(mpx_allocator *allocator);

#endif
