#define _GNU_SOURCE
#include "os/linux/anonymous_file.h"
#include "os/linux/kernel.h"
#include "os/os.h"
#include "os/posix/descriptor.h"
#include "os/posix/quiet.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Tmpfs obeys RLIMIT_FSIZE: above it, ftruncate raises SIGXFSZ besides returning EFBIG. */
static int set_size(int fd, size_t size) {
  if (size > (size_t)PTRDIFF_MAX)
    return -EFBIG;
  mpx_quiet quiet;
  mpx_quiet_begin(&quiet);
  int r = 0;
  while (ftruncate(fd, (off_t)size) < 0) {
    r = -errno;
    if (r != -EINTR)
      break;
    r = 0;
  }
  mpx_quiet_end(&quiet, r < 0);
  return r;
}

int mpx_os_segment_create(size_t size, mproc_handle *ret_handle) {
  bool sealable;
  int fd = mpx_anonymous_file("mproc", &sealable);
  if (fd < 0)
    return fd;
  int r = set_size(fd, size);
  if (r < 0)
    goto fail;
  /* Nobody's ftruncate may turn the family's memory into SIGBUS. */
  if (sealable &&
      fcntl(fd, MPX_F_ADD_SEALS, MPX_F_SEAL_SHRINK | MPX_F_SEAL_GROW | MPX_F_SEAL_SEAL) < 0) {
    if (!mpx_is_absent(errno)) {
      r = -errno;
      goto fail;
    }
    MPX_SAY_ONCE("no seals here: the size of the shared memory is protected by nothing");
  }
  *ret_handle = fd;
  return 0;
fail:
  (void)close(fd);
  return r;
}

int mpx_os_segment_identify(mproc_handle handle, mpx_segment_id *ret_id) {
  struct stat st;
  if (fstat(mpx_descriptor(handle), &st) < 0)
    return -errno;
  if (!S_ISREG(st.st_mode))
    return -EBADF;
  *ret_id = (mpx_segment_id){.device = st.st_dev, .inode = st.st_ino, .size = (uint64_t)st.st_size};
  return 0;
}

int mpx_os_segment_map(mproc_handle handle, void *address, size_t size) {
  void *mapped =
      mmap(address, size, PROT_READ | PROT_WRITE,
           MAP_SHARED | MAP_NORESERVE | MPX_MAP_FIXED_NOREPLACE, mpx_descriptor(handle), 0);
  if (mapped == MAP_FAILED)
    return -errno;
  if (mapped != address) { /* before 4.17 the address is a hint */
    (void)munmap(mapped, size);
    return -EEXIST;
  }
  /* A dump of the reservation takes seconds and fills the disk. */
  if (madvise(address, size, MPX_MADV_DONTDUMP) < 0)
    MPX_SAY_ONCE("the shared memory cannot be kept out of core dumps: they will be large and slow");
  return 0;
}

void mpx_os_segment_unmap(void *address, size_t size) {
  (void)munmap(address, size);
}
