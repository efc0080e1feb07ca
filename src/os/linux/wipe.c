#define _GNU_SOURCE
#include "os/linux/kernel.h"
#include "os/os.h"

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

#define MAX_REGIONS 8

/* Regions that the kernel does not wipe: the child's atfork handler does. A child of a raw clone is
 * then not wiped, for which there is no help. */
static struct {
  void *memory;
  size_t size;
} regions[MAX_REGIONS];
static atomic_size_t region_count;
static pthread_once_t handler_once = PTHREAD_ONCE_INIT;
static int handler_result;

static void wipe_regions(void) {
  size_t count = atomic_load_explicit(&region_count, memory_order_relaxed);
  for (size_t i = 0; i < count && i < MAX_REGIONS; i++)
    if (regions[i].memory)
      memset(regions[i].memory, 0, regions[i].size);
}

static void install_handler(void) {
  handler_result = -pthread_atfork(NULL, NULL, wipe_regions);
}

static int wipe_by_handler(void *memory, size_t size) {
  (void)pthread_once(&handler_once, install_handler);
  if (handler_result < 0)
    return handler_result;
  size_t i = atomic_fetch_add_explicit(&region_count, 1, memory_order_relaxed);
  if (i >= MAX_REGIONS)
    return -ENOMEM;
  regions[i].size = size;
  regions[i].memory = memory;
  return 0;
}

static bool wipe_by_kernel(void *memory, size_t size) {
#if MPX_PORTABLE
  (void)memory;
  (void)size;
  return false;
#else
  /* Some emulators accept any advice and do nothing. */
  if (madvise(memory, size, -1) == 0)
    return false;
  return madvise(memory, size, MPX_MADV_WIPEONFORK) == 0;
#endif
}

int mpx_os_wiped_alloc(size_t size, void **ret_memory) {
  size_t page = mpx_os_page_size();
  if (size == 0 || size > SIZE_MAX - page)
    return -EINVAL;
  size = (size + page - 1) / page * page;
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return -errno;
  if (!wipe_by_kernel(memory, size)) {
    MPX_SAY_ONCE("no MADV_WIPEONFORK here: only children of fork() itself are told from members");
    int r = wipe_by_handler(memory, size);
    if (r < 0) {
      (void)munmap(memory, size);
      return r;
    }
  }
  *ret_memory = memory;
  return 0;
}
