/* FNV-1a: to tell things apart that nobody makes alike on purpose. */
#ifndef MPX_BASE_HASH_H
#define MPX_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define MPX_HASH_SEED 0xcbf29ce484222325ULL

/* The hash of what `sum` is the hash of, followed by these bytes. */
static inline uint64_t mpx_hash(uint64_t sum, const void *data, size_t size) {
  const unsigned char *bytes = data;
  for (size_t i = 0; i < size; i++)
    sum = (sum ^ bytes[i]) * 0x100000001b3ULL;
  return sum;
}

#endif
