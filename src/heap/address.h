/* Where the family's segment may lie: addresses that no process of any of its kinds uses. */
#ifndef MPX_HEAP_ADDRESS_H
#define MPX_HEAP_ADDRESS_H

#include <stddef.h>
#include <stdint.h>

/* The nth candidate for a segment of `size` bytes; 0 after the last. Deterministic. */
uint64_t mpx_address_candidate(unsigned n, uint64_t size);

#endif
