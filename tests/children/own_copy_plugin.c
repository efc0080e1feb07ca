/* A plugin with a copy of mproc linked into it, beside whatever the host has. */
#include "own_copy_plugin.h"

#include "one_of_each.h"

#include <mproc/mproc.h>

static int plugin_entry(void *arg, size_t size) {
  plugin_block *block = *(plugin_block **)arg;
  if (size != sizeof block || block->number != 6)
    return 98;
  block->number *= 7;
  return 17;
}

int plugin_run(const char *method, plugin_result *ret_result) {
  plugin_block *block = mproc_heap_alloc(sizeof *block);
  if (!block)
    return mproc_last_error();
  block->number = 6;
  mproc_process *process;
  mproc_process_options options = {.method = method};
  int r = mproc_process_create(&process, plugin_entry, &block, sizeof block, &options);
  if (r < 0)
    return r;
  r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  mproc_status status;
  if (r == 0)
    r = mproc_process_status(process, &status);
  (void)mproc_process_close(process);
  if (r == 0)
    *ret_result = (plugin_result){.code = status.code, .number = block->number, .heap = block};
  (void)mproc_heap_free(block);
  return r;
}

const char *plugin_error(void) {
  return mproc_error_detail();
}

int plugin_make(void **objects) {
  return make_one_of_each(objects);
}

int plugin_try(void *const *o, int *ret_results) {
  int64_t number;
  const int results[KINDS] = {
      [LOCK] = mproc_lock_locked(o[LOCK]),
      [RLOCK] = mproc_rlock_locked(o[RLOCK]),
      [RWLOCK] = mproc_rwlock_readers(o[RWLOCK]),
      [SEMAPHORE] = mproc_semaphore_value(o[SEMAPHORE]),
      [CONDITION] = mproc_condition_acquire(o[CONDITION], 0),
      [EVENT] = mproc_event_wait(o[EVENT], 0),
      [BARRIER] = mproc_barrier_wait(o[BARRIER], 0),
      [VALUE] = mproc_value_get_int64(o[VALUE], &number),
      [ARRAY] = mproc_array_items(o[ARRAY]) ? 0 : mproc_last_error(),
      [QUEUE] = mproc_queue_put(o[QUEUE], "a", 1, 0),
      [CONNECTION] = mproc_connection_send(o[CONNECTION], "a", 1, 0),
  };
  for (int i = 0; i < KINDS; i++)
    ret_results[i] = results[i];
  return 0;
}
