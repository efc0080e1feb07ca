#define _GNU_SOURCE
#include "os/linux/anonymous_file.h"
#include "os/os.h"
#include "os/posix/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

/* O_APPEND is of the open file, so it holds for every copy of the descriptor: nobody keeps a place
 * of his own, and after a clearing none writes behind a hole. */
int mpx_os_spool_create(mproc_handle *ret_spool) {
  bool sealable;
  int fd = mpx_anonymous_file("mproc-spool", &sealable);
  if (fd < 0)
    return fd;
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_APPEND) < 0) {
    int r = -errno;
    (void)close(fd);
    return r;
  }
  *ret_spool = fd;
  return 0;
}

int64_t mpx_os_spool_size(mproc_handle spool) {
  struct stat st;
  return fstat(mpx_descriptor(spool), &st) < 0 ? -errno : st.st_size;
}

/* It may be cleared meanwhile: then less is read. */
int64_t mpx_os_spool_tail(mproc_handle spool, int64_t from, void *data, size_t capacity) {
  int64_t size = mpx_os_spool_size(spool);
  if (size < 0)
    return size;
  if (from < 0 || from > size) /* cleared since: all of it is newer */
    from = 0;
  if ((uint64_t)(size - from) > capacity)
    from = size - (int64_t)capacity;
  size_t wanted = (size_t)(size - from), done = 0;
  while (done < wanted) {
    ssize_t count = pread(mpx_descriptor(spool), (char *)data + done, wanted - done,
                          (off_t)(from + (int64_t)done));
    if (count < 0 && errno == EINTR)
      continue;
    if (count < 0)
      return -errno;
    if (count == 0)
      break;
    done += (size_t)count;
  }
  return (int64_t)done;
}

int mpx_os_spool_clear(mproc_handle spool) {
  while (ftruncate(mpx_descriptor(spool), 0) < 0)
    if (errno != EINTR)
      return -errno;
  return 0;
}
