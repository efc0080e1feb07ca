/* What this very process may ask of the kernel: nothing new in the portable build, and less on an
 * older kernel or under a filter. For cases whose subject is such a facility. */
#ifndef MPROC_TEST_FACILITIES_H
#define MPROC_TEST_FACILITIES_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

static inline int facilities_pidfd(void) {
  return MPX_PORTABLE ? -1 : (int)syscall(434 /* pidfd_open */, getpid(), 0);
}

static inline bool has_pidfds(void) {
  int fd = facilities_pidfd();
  if (fd >= 0)
    (void)close(fd);
  return fd >= 0;
}

/* Whether the kernel remembers how a process ended after somebody else took its status:
 * PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15. The request is older than the flag, and of a
 * living process nothing tells whether the flag is known: the version decides. */
static inline bool has_exit_info(void) {
  struct utsname name;
  int major = 0, minor = 0;
  uint64_t info[8] = {0};
  int fd = facilities_pidfd();
  bool answers = fd >= 0 && syscall(SYS_ioctl, fd, _IOWR(0xFF, 11, uint64_t[8]), info) == 0;
  if (fd >= 0)
    (void)close(fd);
  return answers && uname(&name) == 0 && sscanf(name.release, "%d.%d", &major, &minor) == 2 &&
         (major > 6 || (major == 6 && minor >= 15));
}

/* For the tests' own use, in the portable build too. */
static inline bool kernel_has_memfds(void) {
  int fd = memfd_create("probe", MFD_CLOEXEC);
  if (fd >= 0)
    (void)close(fd);
  return fd >= 0;
}

static inline bool has_memfds(void) {
  return !MPX_PORTABLE && kernel_has_memfds();
}

static inline bool has_wipe_on_fork(void) {
  size_t size = (size_t)sysconf(_SC_PAGESIZE);
  void *page = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  bool has = !MPX_PORTABLE && page != MAP_FAILED && madvise(page, size, 18) == 0;
  if (page != MAP_FAILED)
    (void)munmap(page, size);
  return has;
}

#endif
