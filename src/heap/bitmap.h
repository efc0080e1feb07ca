/* Bitmaps in shared memory. Writers hold the lock that covers the bitmap; readers need none. A word
 * changes by one store, so that who dies between two stores leaves each word old or new. */
#ifndef MPX_HEAP_BITMAP_H
#define MPX_HEAP_BITMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define MPX_WORD_COUNT(bits) (((bits) + 63) / 64)

/* For all three: not for 0, except the count. */
static inline unsigned mpx_lowest_bit(uint64_t word) {
  return (unsigned)__builtin_ctzll(word);
}
static inline unsigned mpx_highest_bit(uint64_t word) {
  return 63u - (unsigned)__builtin_clzll(word);
}
static inline unsigned mpx_bit_count(uint64_t word) {
  return (unsigned)__builtin_popcountll(word);
}

static inline uint64_t mpx_word_load(const _Atomic uint64_t *word) {
  return atomic_load_explicit(word, memory_order_relaxed);
}

/* Release, so that no compiler or processor moves it before an earlier store: what the order of two
 * truths promises, it promises to the repairer of a dead writer. Plain moves on x86. */
static inline void mpx_word_store(_Atomic uint64_t *word, uint64_t value) {
  atomic_store_explicit(word, value, memory_order_release);
}

/* Adds modulo 2^64 to a counter that only the holder of its lock writes. */
static inline void mpx_counter_add(_Atomic uint64_t *counter, uint64_t value) {
  atomic_store_explicit(counter, mpx_word_load(counter) + value, memory_order_relaxed);
}

static inline bool mpx_bit_is_set(const _Atomic uint64_t *words, uint32_t bit) {
  return mpx_word_load(&words[bit / 64]) >> bit % 64 & 1;
}

/* Sets or clears bits [first, first + count). */
static inline void mpx_bits_write(_Atomic uint64_t *words, uint32_t first, uint32_t count,
                                  bool value) {
  for (uint32_t end = first + count; first < end;) {
    uint32_t from = first % 64;
    uint32_t length = end - first < 64 - from ? end - first : 64 - from;
    uint64_t mask = ~0ull >> (64 - length) << from;
    uint64_t old = mpx_word_load(&words[first / 64]);
    mpx_word_store(&words[first / 64], value ? old | mask : old & ~mask);
    first += length;
  }
}

/* The first bit from `from` on that equals `value`, or `limit` when there is none before it. */
static inline uint32_t mpx_bits_find(const _Atomic uint64_t *words, uint32_t from, uint32_t limit,
                                     bool value) {
  const uint64_t flip = value ? 0 : ~0ull;
  while (from < limit) {
    uint64_t word = (mpx_word_load(&words[from / 64]) ^ flip) >> from % 64;
    if (word != 0) {
      from += mpx_lowest_bit(word);
      return from < limit ? from : limit;
    }
    from += 64 - from % 64;
  }
  return limit;
}

/* The start of the stretch of clear bits that ends before `end`: `end` when the bit before is
 * set. */
static inline uint32_t mpx_bits_clear_before(const _Atomic uint64_t *words, uint32_t end) {
  while (end > 0) {
    uint32_t at = (end - 1) % 64;
    uint64_t word = mpx_word_load(&words[(end - 1) / 64]) << (63 - at);
    if (word != 0)
      return end - (63 - mpx_highest_bit(word));
    end -= at + 1;
  }
  return 0;
}

#endif
