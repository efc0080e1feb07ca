#define _GNU_SOURCE
#include "os/linux/anonymous_file.h"
#include "os/linux/kernel.h"
#include "os/os.h"
#include "os/posix/descriptor.h"
#include "os/posix/quiet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define ALL_SEALS (MPX_F_SEAL_SEAL | MPX_F_SEAL_SHRINK | MPX_F_SEAL_GROW | MPX_F_SEAL_WRITE)

/* The nearest thing to a seal on an ordinary file: no descriptor that could write to it. */
static int reopen_read_only(int fd) {
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
  int reopened = open(path, O_RDONLY | O_CLOEXEC);
  if (reopened < 0)
    return fd; /* without /proc the original must do */
  (void)close(fd);
  return reopened;
}

int mpx_os_seal_create(const char *name, const mpx_os_bytes *parts, size_t count,
                       mproc_handle *ret_handle) {
  bool sealable;
  int fd = mpx_anonymous_file(name, &sealable);
  if (fd < 0)
    return fd;
  int r = 0;
  mpx_quiet quiet;
  mpx_quiet_begin(&quiet);
  for (size_t i = 0; i < count && r == 0; i++)
    r = mpx_write_all(fd, parts[i].data, parts[i].size);
  mpx_quiet_end(&quiet, r < 0);
  if (r == 0 && sealable && fcntl(fd, MPX_F_ADD_SEALS, ALL_SEALS) < 0)
    r = -errno;
  if (r < 0) {
    (void)close(fd);
    return r;
  }
  *ret_handle = sealable ? fd : reopen_read_only(fd);
  return 0;
}

/* Unsealed is acceptable only where nobody can make a memfd, and then from an unnamed private file
 * only. A mere ability to pass a descriptor must not be enough to forge a boot record. */
static bool is_trusted(int fd, const struct stat *st) {
  if (!S_ISREG(st->st_mode) || st->st_uid != geteuid())
    return false;
#if !MPX_PORTABLE
  int seals = fcntl(fd, MPX_F_GET_SEALS);
  if (seals >= 0 && (seals & ALL_SEALS) == ALL_SEALS)
    return true;
  if (mpx_has_memfd())
    return false;
#else
  (void)fd;
#endif
  return st->st_nlink == 0 && (st->st_mode & (S_IRWXG | S_IRWXO)) == 0;
}

int mpx_os_seal_read(mproc_handle handle, const void **ret_data, size_t *ret_size) {
  static const char nothing[1];
  int fd = mpx_descriptor(handle);
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  if (!is_trusted(fd, &st))
    return -EBADMSG;
  size_t size = (size_t)st.st_size;
  const void *data = nothing;
  if (size > 0) {
    data = mmap(NULL, size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED)
      return -errno;
  }
  *ret_data = data;
  *ret_size = size;
  return 0;
}

void mpx_os_seal_release(const void *data, size_t size) {
  if (size > 0)
    (void)munmap((void *)(uintptr_t)data, size);
}
