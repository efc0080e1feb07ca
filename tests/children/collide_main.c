/* A program whose start-up takes an address for itself, as a large mapping of a library may: that
 * of the shared heap, which it knows from its parent. COLLIDE_AT is the address, COLLIDE_LOG a file
 * with one byte for each try, COLLIDE_TIMES how many of them collide. Prints what a start gave. */
#define _GNU_SOURCE
#include <mproc/mproc.h>

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

__attribute__((constructor)) static void take_address(void) {
  const char *at = getenv("COLLIDE_AT"), *times = getenv("COLLIDE_TIMES");
  struct stat log;
  if (!at || !times)
    return;
  int fd = open(getenv("COLLIDE_LOG"), O_WRONLY | O_APPEND | O_CLOEXEC);
  if (fd < 0 || write(fd, "x", 1) != 1 || fstat(fd, &log) < 0)
    abort();
  (void)close(fd);
  if (log.st_size <= strtol(times, NULL, 10))
    (void)mmap((void *)(uintptr_t)strtoull(at, NULL, 16), 4096, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
}

static int run(void *arg, size_t size) {
  (void)arg, (void)size;
  return 7;
}

int main(int argc, char **argv) {
  char at[32];
  if (mproc_init(&argc, &argv, NULL) < 0 || argc != 4)
    return 2;
  void *block = mproc_heap_alloc(1);
  (void)snprintf(at, sizeof at, "%llx", (unsigned long long)(uintptr_t)block & ~0xfffffULL);
  if (setenv("COLLIDE_AT", at, 1) < 0 || setenv("COLLIDE_TIMES", argv[2], 1) < 0 ||
      setenv("COLLIDE_LOG", argv[3], 1) < 0 || mproc_set_start_method(argv[1], 0) < 0)
    return 3;
  int r = mproc_run(run, NULL, 0);
  (void)printf("%d %s\n", r, r < 0 ? mproc_error_detail() : "");
  return mproc_heap_free(block) < 0;
}
