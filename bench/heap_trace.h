/* The traces of the heap benchmarks, for any pair of functions; inlined, so that neither side
 * pays for a call through a pointer. C11 and C++17. */
#ifndef BENCH_HEAP_TRACE_H
#define BENCH_HEAP_TRACE_H

#ifdef __cplusplus
extern "C" {
#endif
#include "measure.h"
#ifdef __cplusplus
}
#endif

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TRACE_INLINE static inline __attribute__((always_inline))

typedef void *(*trace_alloc)(size_t size);
typedef void (*trace_free)(void *block);

/* Xorshift: every round and every allocator sees the same numbers. */
TRACE_INLINE uint64_t trace_random(uint64_t *state) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return *state;
}

/* 16 to 4096 bytes: five of eight below 256, two to 1024, one above; 560 on average. */
TRACE_INLINE size_t trace_size(uint64_t random) {
  uint64_t kind = random % 16, rest = random >> 8;
  if (kind < 10)
    return (size_t)(16 + rest % 240);
  return (size_t)(kind < 14 ? 256 + rest % 768 : 1024 + rest % 3073);
}

/* A set of `live` blocks: fill, then `count` times the end of a random block and a new one, then
 * drain. The first byte of each block is written. Returns a checksum, so that nothing is
 * optimised away. */
TRACE_INLINE uint64_t trace_fill(void **blocks, size_t live, uint64_t *state, trace_alloc alloc) {
  uint64_t bytes = 0;
  for (size_t i = 0; i < live; i++) {
    size_t size = trace_size(trace_random(state));
    blocks[i] = alloc(size);
    *(volatile char *)blocks[i] = 1;
    bytes += size;
  }
  return bytes;
}

TRACE_INLINE void trace_replace(void **blocks, size_t live, size_t count, uint64_t *state,
                                trace_alloc alloc, trace_free release) {
  for (size_t i = 0; i < count; i++) {
    uint64_t random = trace_random(state);
    size_t k = (size_t)((random >> 32) % live);
    release(blocks[k]);
    blocks[k] = alloc(trace_size(random));
    *(volatile char *)blocks[k] = 1;
  }
}

TRACE_INLINE void trace_drain(void **blocks, size_t live, trace_free release) {
  for (size_t i = 0; i < live; i++)
    release(blocks[i]);
}

/* Blocks of one size, `batch` at a time; `touch` writes to each page of them. */
TRACE_INLINE void trace_batches(void **blocks, size_t batch, size_t size, size_t count, int touch,
                                trace_alloc alloc, trace_free release) {
  for (size_t i = 0; i < count; i += batch) {
    for (size_t k = 0; k < batch; k++) {
      blocks[k] = alloc(size);
      for (size_t at = 0; at < (touch ? size : 1); at += 4096)
        ((volatile char *)blocks[k])[at] = 1;
    }
    for (size_t k = 0; k < batch; k++)
      release(blocks[k]);
  }
}

/* Nanoseconds for an allocation and a free. */
TRACE_INLINE double trace_time_mixed(void **blocks, size_t live, size_t count, trace_alloc alloc,
                                     trace_free release) {
  uint64_t state = 88172645463325252u;
  trace_fill(blocks, live, &state, alloc);
  double before = bench_now_us();
  trace_replace(blocks, live, count, &state, alloc, release);
  double us = bench_now_us() - before;
  trace_drain(blocks, live, release);
  return us * 1000 / (double)count;
}

TRACE_INLINE double trace_time_batches(void **blocks, size_t batch, size_t size, size_t count,
                                       int touch, trace_alloc alloc, trace_free release) {
  double before = bench_now_us();
  trace_batches(blocks, batch, size, count, touch, alloc, release);
  return (bench_now_us() - before) * 1000 / (double)count;
}

#endif
