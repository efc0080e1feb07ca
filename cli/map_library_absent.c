/* For static builds: they can load no library. */
#include "map.h"

int map_function_find(map_function *function, const char *target, int status) {
  (void)function;
  map_error("%s: this build cannot load libraries: it is static; commands work", target);
  return status;
}

void map_function_release(map_function *function) {
  (void)function;
}

const mproc_task_descriptor *map_function_load(const char *path, const char *name) {
  (void)path;
  (void)name;
  return NULL;
}

int map_function_check(const char *target) {
  return map_function_find(NULL, target, CLI_FAILED);
}
