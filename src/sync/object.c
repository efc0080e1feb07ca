#include "sync/object.h"

#include "base/error.h"
#include "mproc/heap.h"
#include "os/crash_point.h"

#include <errno.h>
#include <string.h>

int mpx_object_alloc(size_t size, void **ret_object) {
  size_t lines = mpx_object_lines(size);
  void *object = mproc_heap_aligned_alloc(64, lines);
  if (!object)
    return mproc_last_error();
  memset(object, 0, lines);
  *ret_object = object;
  return 0;
}

int mpx_object_publish(void *object, mpx_kind kind) {
  /* release: who gets the pointer may use no better way to learn of it than the kind */
  atomic_store_explicit(&((mpx_object *)object)->kind, kind, memory_order_release);
  return 0;
}

int mpx_object_end(void *object, mpx_kind kind) {
  uint32_t seen = kind;
  if (!atomic_compare_exchange_strong(&((mpx_object *)object)->kind, &seen, 0))
    return mpx_fail(MPROC_ECLOSED, "another thread destroys the object");
  MPROC_CRASH_POINT("object.ended");
  return 0;
}

void mpx_object_keep(void *block) {
  mpx_header *header = mpx_family_header();
  uint32_t count = sizeof header->closed / sizeof header->closed[0];
  uint32_t at = atomic_fetch_add_explicit(&header->closed_hand, 1, memory_order_relaxed) % count;
  (void)mproc_heap_free(atomic_exchange(&header->closed[at], block));
}

int mpx_object_destroy(void *object, mpx_kind kind) {
  int r = mpx_object_end(object, kind);
  if (r == 0)
    mpx_object_keep(object);
  return r;
}

static bool is_kind(uint32_t word) {
  static const mpx_kind kinds[] = {MPX_KIND_LOCK,      MPX_KIND_RLOCK,     MPX_KIND_RWLOCK,
                                   MPX_KIND_SEMAPHORE, MPX_KIND_CONDITION, MPX_KIND_EVENT,
                                   MPX_KIND_BARRIER,   MPX_KIND_VALUE,     MPX_KIND_ARRAY,
                                   MPX_KIND_QUEUE,     MPX_KIND_CONNECTION};
  for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++)
    if (word == kinds[i])
      return true;
  return false;
}

int mpx_object_say_gone(const void *object) {
  return mpx_fail(MPROC_ECLOSED, "the object %p was destroyed", object);
}

int mpx_object_refuse(const void *object, mpx_kind kind) {
  mpx_thread self;
  int r = mpx_family_thread(&self);
  if (r < 0)
    return r;
  const mpx_header *header = mpx_family_header();
  if (!object)
    return mpx_fail(-EINVAL, "the object is NULL");
  if ((uintptr_t)object - (uintptr_t)header >= header->size || ((uintptr_t)object & 63) != 0)
    return mpx_fail(MPROC_EPOINTER,
                    "%p is no object of this family: it lies outside the shared heap, or inside "
                    "of something else",
                    object);
  uint32_t found = atomic_load_explicit(&((const mpx_object *)object)->kind, memory_order_relaxed);
  if (found == (uint32_t)kind)
    return 0;
  return is_kind(found) ? mpx_fail(-EINVAL, "the object %p is of another kind", object)
                        : mpx_object_say_gone(object);
}

int mpx_timeout_check(int timeout_ms) {
  return timeout_ms >= MPROC_FOREVER
             ? 0
             : mpx_fail(-EINVAL, "timeout_ms is %d; 0 tries, MPROC_FOREVER (-1) has no end",
                        timeout_ms);
}

int mpx_timeout_fail(int timeout_ms, const char *what) {
  return timeout_ms == 0 ? mpx_fail(-EAGAIN, "%s", what)
                         : mpx_fail(-ETIMEDOUT, "%s within %d ms", what, timeout_ms);
}
