/* Heap: memory at one address in the whole family.
 *
 * What it is  A pointer into the heap is valid in every process that mproc started, directly or
 *             not, under every start method. Blocks may hold pointers to other blocks, never
 *             pointers to private memory. The first allocation or start makes the heap.
 * Ownership   A block belongs to the family until somebody frees it: the death of its creator
 *             changes nothing. A block of mproc_heap_alloc_owned() belongs to the calling process
 *             and is given back when that ends, however it ends, unless mproc_heap_share() made it
 *             the family's.
 * Threads     any function from any thread of any member; a process may be killed inside any of
 *             them.
 * After fork  a child of mproc is a member. A child of the host's own fork() is none: calls fail
 *             with MPROC_EFOREIGN. */
#ifndef MPROC_HEAP_H
#define MPROC_HEAP_H

#include "version.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_heap_statistics {
  uint64_t limit_bytes;     /* the heap's size, fixed at birth */
  uint64_t used_bytes;      /* in blocks handed out, rounding included */
  uint64_t owned_bytes;     /* of these, in blocks that belong to one process */
  uint64_t committed_bytes; /* backed by memory, mproc's own tables left out */
  uint64_t block_count;     /* blocks handed out */
  uint64_t repair_count;    /* times a lock was taken over from a dead process */
  uint64_t reserved[8];
} mproc_heap_statistics;

#ifdef __cplusplus
extern "C" {
#endif

/* Allocates `size` bytes (0 counts as 1), aligned to 16, contents undefined, for the family.
 * The memory is committed: writing to it does not fail later, short of a cgroup's limit.
 * Returns NULL on failure, with mproc_last_error(): MPROC_EHEAPFULL (the limit), -ENOMEM (the
 * system), MPROC_EADDRESS, MPROC_EFOREIGN; in a thread's first call also -EAGAIN (24,576 threads
 * of the family, or pthread keys), in a family's first one -EMFILE and -EFBIG (limits). */
MPROC_API MPROC_NODISCARD void *mproc_heap_alloc(size_t size);

/* As mproc_heap_alloc, filled with zeros; `count * size` that overflows is MPROC_EHEAPFULL. */
MPROC_API MPROC_NODISCARD void *mproc_heap_calloc(size_t count, size_t size);

/* As mproc_heap_alloc, aligned to `alignment`: a power of two up to 65536 (else -EINVAL). */
MPROC_API MPROC_NODISCARD void *mproc_heap_aligned_alloc(size_t alignment, size_t size);

/* As mproc_heap_alloc, for the calling process: given back when it ends. */
MPROC_API MPROC_NODISCARD void *mproc_heap_alloc_owned(size_t size);

/* Makes an owned block the family's; nothing happens to one that is already.
 * Errors: MPROC_EPOINTER, MPROC_EFOREIGN. */
MPROC_API int mproc_heap_share(void *block);

/* Gives a block back, from any member. NULL does nothing and returns 0.
 * Errors: MPROC_EPOINTER (outside the heap, not the start of a block, or freed before). */
MPROC_API int mproc_heap_free(void *block);

/* The bytes that may be used in a block: at least what was asked for. 0 for a pointer that is no
 * block. */
MPROC_API size_t mproc_heap_usable_size(const void *block);

/* Maps a range of the heap's pages into the calling process now, at about a third of the cost of
 * faulting them in one by one (1.9 us per 4 KiB page in a new child).
 * Errors: MPROC_EPOINTER (not inside one block), -ENOMEM. */
MPROC_API int mproc_heap_prefault(void *start, size_t size);

/* Fills in the state of the heap. The figures are consistent one by one, not as a whole, while
 * others allocate. Errors: MPROC_EADDRESS, MPROC_EFOREIGN. */
MPROC_API int mproc_heap_stats(mproc_heap_statistics *ret_statistics);

#ifdef __cplusplus
}
#endif
#endif
