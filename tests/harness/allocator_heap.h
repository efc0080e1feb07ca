/* A heap of its own for the tests of the allocator: shared by whatever the test forks. */
#ifndef MPROC_TEST_ALLOCATOR_HEAP_H
#define MPROC_TEST_ALLOCATOR_HEAP_H

#include "harness.h"

#include "heap/allocator_layout.h"
#include "heap/arena.h"
#include "heap/units.h"
#include "mproc/error.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)

/* Members as the process table would name them, each in a lane of its own. */
static inline mpx_caller member(uint32_t number) {
  return (mpx_caller){.member = (uint64_t)number << 32 | 1, .lane = number};
}

/* Shared zeroed memory, aligned to 64 KiB; size is a multiple of that. */
static inline void *shared_memory(size_t size) {
  char *p = mmap(NULL, size + MPX_UNIT_SIZE, PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(p != MAP_FAILED);
  size_t before = (MPX_UNIT_SIZE - (uintptr_t)p % MPX_UNIT_SIZE) % MPX_UNIT_SIZE;
  CHECK(before == 0 || munmap(p, before) == 0);
  CHECK(munmap(p + before + size, MPX_UNIT_SIZE - before) == 0);
  return p + before;
}

static inline mpx_allocator *new_heap(size_t data_size) {
  size_t overhead = mpx_allocator_overhead(data_size);
  char *metadata = shared_memory(overhead + data_size);
  mpx_allocator *heap;
  CHECK_OK(mpx_allocator_init(metadata, metadata + overhead, data_size, &heap));
  return heap;
}

static inline void drop_heap(mpx_allocator *heap) {
  size_t data_size = (size_t)heap->unit_count * MPX_UNIT_SIZE;
  CHECK(munmap(heap, mpx_allocator_overhead(data_size) + data_size) == 0);
}

static inline void *allocate(mpx_allocator *heap, const mpx_caller *caller, size_t size,
                             bool owned) {
  void *block = NULL;
  int r = mpx_allocator_alloc(heap, caller, size, 0, owned, &block);
  if (r < 0)
    printf("# %zu bytes: %s\n", size, mproc_error_detail());
  CHECK_OK(r);
  return block;
}

static inline void check_heap(mpx_allocator *heap) {
  int r = mpx_allocator_check(heap);
  if (r < 0)
    printf("# %s\n", mproc_error_detail());
  CHECK_OK(r);
}

static inline mproc_heap_statistics figures(mpx_allocator *heap) {
  mproc_heap_statistics s;
  mpx_allocator_stats(heap, &s);
  return s;
}

/* Nothing is left: no block, and after a trim no memory. The end of the heap. */
static inline void check_empty_and_drop(mpx_allocator *heap) {
  const mpx_caller caller = member(99);
  check_heap(heap);
  CHECK_EQ(figures(heap).block_count, 0);
  CHECK_EQ(figures(heap).used_bytes, 0);
  CHECK_EQ(figures(heap).owned_bytes, 0);
  CHECK_OK(mpx_allocator_trim(heap, &caller));
  check_heap(heap);
  CHECK_EQ(figures(heap).committed_bytes, 0);
  for (uint32_t u = 0; u < heap->unit_count; u++)
    if (mpx_is_described(heap, u))
      CHECK_EQ(mpx_unit_state(&heap->units[u]), MPX_UNIT_FREE);
  drop_heap(heap);
}

/* Xorshift: the same numbers from the same seed everywhere. */
static inline uint64_t random_next(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

/* Mostly small, some of a page, few of several units. */
static inline size_t random_size(uint64_t *state) {
  uint64_t r = random_next(state);
  switch (r % 32) {
  case 0:
    return (size_t)(1 + (r >> 8) % (400 * KIB));
  case 1:
  case 2:
    return (size_t)(1 + (r >> 8) % (40 * KIB));
  default:
    return (size_t)(1 + (r >> 8) % ((r >> 5) % 8 == 0 ? 4096 : 300));
  }
}

/* Stamps tell whether a block was handed out twice: the first and the last eight bytes. */
typedef struct stamp {
  uint64_t serial;
  uint64_t size;
} stamp;

static inline void put_stamp(void *block, size_t size, uint64_t serial) {
  unsigned char *bytes = block;
  stamp s = {serial, size};
  if (size >= 2 * sizeof s) {
    memcpy(bytes, &s, sizeof s);
    memcpy(bytes + size - sizeof s, &s, sizeof s);
  }
}

static inline bool has_stamp(const void *block, size_t size, uint64_t serial) {
  const unsigned char *bytes = block;
  stamp s = {serial, size};
  return size < 2 * sizeof s ||
         (memcmp(bytes, &s, sizeof s) == 0 && memcmp(bytes + size - sizeof s, &s, sizeof s) == 0);
}

#endif
