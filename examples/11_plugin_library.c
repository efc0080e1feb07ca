/* The library of 11_plugin.c. It is not linked with mproc: an entry is a plain function. */
#include <stddef.h>
#include <stdio.h>

int plugin_square(void *arg, size_t size);

int plugin_square(void *arg, size_t size) {
  int number = *(int *)arg;
  (void)size;
  printf("plugin: %d squared is %d\n", number, number * number);
  return 0;
}
