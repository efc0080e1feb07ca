#include "entry_library.h"

static int add(void *arg, size_t size) {
  return size == 1 ? *(unsigned char *)arg + LIBRARY_NUMBER : 99;
}

/* Without relocations of the data segment a library would be the same at every address. */
static library_function *const entries[] = {add, library_entry};

int library_entry(void *arg, size_t size) {
  return add(arg, size);
}

library_function *library_static_entry(void) {
  return entries[0];
}
