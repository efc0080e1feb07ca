/* Array: plain memory with a lock. */
#include "base/error.h"
#include "sync/layout.h"

#include "mproc/heap.h"

#include <errno.h>

int mproc_array_create(size_t count, size_t size, mproc_array **ret_array) {
  void *memory;
  int r = mpx_check_not_null(ret_array, "ret_array");
  if (r == 0 && (count == 0 || size == 0))
    r = mpx_fail(-EINVAL, "an array has at least one item of at least one byte");
  if (r == 0 && size && count > SIZE_MAX / 2 / size)
    r = mpx_fail(MPROC_EHEAPFULL, "%zu items of %zu bytes are more than any heap holds", count,
                 size);
  if (r == 0)
    r = mpx_object_alloc(sizeof(mproc_array), &memory);
  if (r != 0)
    return r;
  mproc_array *array = memory;
  r = mpx_object_alloc(count * size, &array->items);
  if (r == 0)
    r = mproc_lock_create(&array->lock);
  if (r < 0) {
    (void)mproc_heap_free(array->items);
    (void)mproc_heap_free(array);
    return r;
  }
  array->count = count;
  array->size = size;
  *ret_array = array;
  return mpx_object_publish(array, MPX_KIND_ARRAY);
}

static const mproc_array *recognize(const mproc_array *array) {
  return mpx_object_check(array, MPX_KIND_ARRAY) == 0 ? array : NULL;
}

void *mproc_array_items(const mproc_array *array) {
  return recognize(array) ? array->items : NULL;
}

size_t mproc_array_count(const mproc_array *array) {
  return recognize(array) ? array->count : 0;
}

size_t mproc_array_item_size(const mproc_array *array) {
  return recognize(array) ? array->size : 0;
}

mproc_lock *mproc_array_lock(const mproc_array *array) {
  return recognize(array) ? array->lock : NULL;
}

int mproc_array_destroy(mproc_array *array) {
  if (!array)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(array, MPX_KIND_ARRAY, &self);
  /* a caller may have destroyed it, by mproc_array_lock: its memory may be anything's */
  bool has_lock = r == 0 && mpx_object_check(array->lock, MPX_KIND_LOCK) == 0;
  if (has_lock)
    r = mpx_mutex_close(&array->lock->mutex, self);
  if (r == 0)
    r = mpx_object_end(array, MPX_KIND_ARRAY);
  if (r < 0)
    return r;
  if (has_lock)
    (void)mpx_object_destroy(array->lock, MPX_KIND_LOCK);
  r = mproc_heap_free(array->items);
  mpx_object_keep(array); /* last: nobody reads it after that */
  return r;
}
