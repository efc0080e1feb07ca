/* mproc_task_index() in functions that `mproc map` runs. The pool counts the inputs of each group
 * from 0; a function is to see the number of its input in the whole list. A library that calls it
 * comes here, because a program's functions go before those of its libraries. */
#define _GNU_SOURCE /* RTLD_NEXT */

#include "map.h"

#include <dlfcn.h>
#include <string.h>

typedef uint64_t task_index(const mproc_task *task);

uint64_t mproc_task_index(const mproc_task *task) {
  uint64_t index;
  if (map_worker_index(task, &index))
    return index;
  void *symbol = dlsym(RTLD_NEXT, "mproc_task_index"); /* of a pool that the function has made */
  task_index *next;
  memcpy(&next, &symbol, sizeof next);
  return next ? next(task) : 0;
}
