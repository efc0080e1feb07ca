/* Sizes in whole units, ranges in whole pages. */
#ifndef MPX_PAGES_H
#define MPX_PAGES_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t mpx_round_up(uint64_t value, uint64_t unit) {
  return (value + unit - 1) / unit * unit;
}

typedef struct mpx_pages {
  void *start;
  size_t size;
} mpx_pages;

/* The pages on which [start, start + size) lies. */
static inline mpx_pages mpx_pages_of(const void *start, size_t size, size_t page_size) {
  uintptr_t first = (uintptr_t)start / page_size * page_size;
  uintptr_t end = (uintptr_t)mpx_round_up((uintptr_t)start + size, page_size);
  return (mpx_pages){(void *)first, end - first};
}

#endif
