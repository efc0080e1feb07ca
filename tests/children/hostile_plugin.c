/* A library with an entry; PLUGIN_CODE makes two builds of it that are not the same. */
#include <stddef.h>

int plugin_entry(void *arg, size_t size);
int plugin_entry(void *arg, size_t size) {
  (void)arg, (void)size;
  return PLUGIN_CODE;
}
