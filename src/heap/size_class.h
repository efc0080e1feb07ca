/* Size classes: blocks of at most 32 KiB are rounded up to one of 40 sizes.
 *
 * Steps of 16 bytes to 128, then four to each doubling: no block wastes more than a fifth of itself
 * above 128 bytes. A size that is a multiple of a power of two falls into a class that is one too,
 * so that an aligned block needs no class of its own. */
#ifndef MPX_HEAP_SIZE_CLASS_H
#define MPX_HEAP_SIZE_CLASS_H

#include "heap/bitmap.h"

#include <stddef.h>
#include <stdint.h>

#define MPX_UNIT_SIZE 65536u  /* bytes of a unit, the grain of the data region */
#define MPX_SMALL_SIZE 32768u /* largest block that lives in a slab */
#define MPX_CLASS_COUNT 40u

typedef struct mpx_size_class {
  uint32_t size;       /* bytes of a block */
  uint32_t capacity;   /* blocks in a unit; at least 2 */
  uint32_t reciprocal; /* ceil(2^32 / size): divides any offset in a unit without a division */
  uint32_t word_count; /* words of a bitmap of `capacity` bits */
  uint64_t last_word;  /* the last of these words when every block is taken */
} mpx_size_class;

#define MPX_CLASS(size)                                                                            \
  {                                                                                                \
    (size), MPX_UNIT_SIZE / (size), (uint32_t)((0x100000000u + (size)-1) / (size)),                \
        (MPX_UNIT_SIZE / (size) + 63) / 64, ~0ull >> (63 - (MPX_UNIT_SIZE / (size)-1) % 64)        \
  }
#define MPX_DOUBLING(base)                                                                         \
  MPX_CLASS((base) / 4 * 5), MPX_CLASS((base) / 4 * 6), MPX_CLASS((base) / 4 * 7),                 \
      MPX_CLASS((base)*2)

static const mpx_size_class mpx_size_classes[MPX_CLASS_COUNT] = {
    MPX_CLASS(16ull),      MPX_CLASS(32ull),      MPX_CLASS(48ull),      MPX_CLASS(64ull),
    MPX_CLASS(80ull),      MPX_CLASS(96ull),      MPX_CLASS(112ull),     MPX_CLASS(128ull),
    MPX_DOUBLING(128ull),  MPX_DOUBLING(256ull),  MPX_DOUBLING(512ull),  MPX_DOUBLING(1024ull),
    MPX_DOUBLING(2048ull), MPX_DOUBLING(4096ull), MPX_DOUBLING(8192ull), MPX_DOUBLING(16384ull),
};

#undef MPX_DOUBLING
#undef MPX_CLASS

/* The smallest class that holds `size` bytes; 1 <= size <= MPX_SMALL_SIZE. No branch: the
 * highest bit of the last byte's offset says which doubling, the two bits after it which
 * quarter; below 128 the one "doubling" has eight steps. */
static inline unsigned mpx_class_of(size_t size) {
  uint32_t last = (uint32_t)size - 1;
  unsigned top = mpx_highest_bit(last | 64); /* 6 to 14 */
  return (top - 6) * 4 + (last >> (top - 2));
}

/* The number of the block that holds byte `offset` of a unit. Exact: the error of the reciprocal,
 * below size / 2^32 in relative terms, times an offset below 2^16 stays below 1 / size. */
static inline uint32_t mpx_class_block(const mpx_size_class *cls, uint32_t offset) {
  return (uint32_t)(((uint64_t)offset * cls->reciprocal) >> 32);
}

#endif
