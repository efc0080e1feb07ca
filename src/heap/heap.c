/* mproc_heap_*: the allocator, for whoever is a member. */
#include "mproc/heap.h"

#include "base/error.h"
#include "heap/allocator.h"
#include "heap/family.h"
#include "heap/pages.h"

#include <errno.h>
#include <string.h>

enum { DEFAULT_ALIGNMENT = 16 };

/* The allocator and the calling thread as its caller. Says why not. */
static int enter(mpx_allocator **ret_allocator, mpx_caller *ret_caller) {
  uint32_t cell;
  int r = mpx_family_enter(&cell);
  if (r < 0)
    return r;
  *ret_allocator = mpx_family_header()->allocator;
  *ret_caller = (mpx_caller){.member = mpx_family_self(), .lane = cell};
  return 0;
}

static void *allocate(size_t size, size_t alignment, bool owned) {
  mpx_allocator *allocator;
  mpx_caller caller;
  void *block;
  int r = enter(&allocator, &caller);
  if (r < 0)
    return NULL;
  r = mpx_allocator_alloc(allocator, &caller, size, alignment, owned, &block);
  if (r == MPROC_EHEAPFULL) { /* the dead whose parents died too may hold some */
    mpx_family_sweep(true);
    r = mpx_allocator_alloc(allocator, &caller, size, alignment, owned, &block);
  }
  return r < 0 ? NULL : block;
}

void *mproc_heap_alloc(size_t size) {
  return allocate(size, DEFAULT_ALIGNMENT, false);
}

void *mproc_heap_alloc_owned(size_t size) {
  return allocate(size, DEFAULT_ALIGNMENT, true);
}

void *mproc_heap_aligned_alloc(size_t alignment, size_t size) {
  if (alignment == 0 || (alignment & (alignment - 1)) != 0 || alignment > 65536) {
    (void)mpx_fail(-EINVAL, "alignment %zu is no power of two up to 65536", alignment);
    return NULL;
  }
  return allocate(size, alignment, false);
}

void *mproc_heap_calloc(size_t count, size_t size) {
  if (size && count > SIZE_MAX / size) {
    (void)mpx_fail(MPROC_EHEAPFULL,
                   "%zu blocks of %zu bytes are more than any heap holds; is the count right?",
                   count, size);
    return NULL;
  }
  void *block = mproc_heap_alloc(count * size);
  return block ? memset(block, 0, count * size) : NULL;
}

int mproc_heap_share(void *block) {
  mpx_allocator *allocator;
  mpx_caller caller;
  int r = enter(&allocator, &caller);
  return r < 0 ? r : mpx_allocator_share(allocator, block);
}

int mproc_heap_free(void *block) {
  mpx_allocator *allocator;
  mpx_caller caller;
  if (!block)
    return 0;
  int r = enter(&allocator, &caller);
  return r < 0 ? r : mpx_allocator_free(allocator, &caller, block);
}

size_t mproc_heap_usable_size(const void *block) {
  mpx_header *header = mpx_family_header();
  return header && block ? mpx_allocator_usable_size(header->allocator, block) : 0;
}

int mproc_heap_prefault(void *start, size_t size) {
  mpx_allocator *allocator;
  mpx_caller caller;
  int r = enter(&allocator, &caller);
  if (r < 0)
    return r;
  if (!mpx_allocator_contains(allocator, start, size))
    return mpx_fail(MPROC_EPOINTER,
                    "%p and the %zu bytes from it are not inside one block of the heap", start,
                    size);
  mpx_pages pages = mpx_pages_of(start, size, mpx_os_page_size());
  r = mpx_os_prefault(pages.start, pages.size);
  return r < 0 ? mpx_fail_code(r, "mproc_heap_prefault") : 0;
}

int mproc_heap_stats(mproc_heap_statistics *ret_statistics) {
  mpx_allocator *allocator;
  mpx_caller caller;
  int r = mpx_check_not_null(ret_statistics, "ret_statistics");
  if (r == 0)
    r = enter(&allocator, &caller);
  if (r == 0)
    mpx_allocator_stats(allocator, ret_statistics);
  return r;
}
