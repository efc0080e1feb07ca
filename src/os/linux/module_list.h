/* The modules that are loaded now: what the loader knows of them. */
#ifndef MPX_OS_LINUX_MODULE_LIST_H
#define MPX_OS_LINUX_MODULE_LIST_H

#include "os/linux/elf_identity.h"

#define MPX_MAX_SEGMENTS 8

typedef struct mpx_loaded {
  bool is_main;
  uintptr_t base;
  uintptr_t segments[MPX_MAX_SEGMENTS]; /* where each begins */
  size_t segment_count;
  mpx_elf_identity identity;
} mpx_loaded;

/* The main program comes first: index 0. False past the last. */
bool mpx_loaded_at(size_t index, mpx_loaded *ret_loaded);
bool mpx_loaded_holding(const void *address, mpx_loaded *ret_loaded);

#endif
