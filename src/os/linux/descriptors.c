/* Which descriptors survive an exec. Async-signal-safe. */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LAST_NUMBER = 65536 };

static void mark(int fd) {
  if (fd > 2)
    (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
}

#if !MPX_PORTABLE
static int mark_by_range(void) {
  enum { NR_CLOSE_RANGE = 436, CLOSE_RANGE_ON_EXEC = 4 };
  return syscall(NR_CLOSE_RANGE, 3, ~0U, CLOSE_RANGE_ON_EXEC) < 0 ? -errno : 0;
}
#else
static int mark_by_range(void) {
  return -ENOSYS;
}
#endif

/* readdir would take malloc's locks: the raw system call instead. */
static int mark_by_listing(void) {
  struct entry {
    uint64_t inode;
    int64_t offset;
    unsigned short length;
    unsigned char type;
    char name[];
  };
  _Alignas(8) char buffer[4096];
  int directory = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0)
    return -errno;
  long size;
  while ((size = syscall(SYS_getdents64, directory, buffer, sizeof buffer)) > 0)
    for (long at = 0; at < size;) {
      const struct entry *entry = (const struct entry *)(const void *)(buffer + at);
      int fd = 0;
      for (const char *c = entry->name; *c >= '0' && *c <= '9'; c++)
        fd = fd * 10 + (*c - '0');
      mark(fd);
      at += entry->length;
    }
  (void)close(directory);
  return 0;
}

/* Without /proc, or without a free descriptor to read it with. The limit says nothing: it may be
 * 2^30 in a container, and lower than what was opened before it was set. */
static void mark_by_number(void) {
  for (int fd = 3; fd < LAST_NUMBER; fd++)
    mark(fd);
}

int mpx_os_keep_only(const mproc_handle *keep, size_t count) {
  if (mark_by_range() < 0 && mark_by_listing() < 0)
    mark_by_number();
  for (size_t i = 0; i < count; i++)
    if (fcntl((int)keep[i], F_SETFD, 0) < 0)
      return -errno;
  return 0;
}
