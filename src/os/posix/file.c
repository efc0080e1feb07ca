#define _GNU_SOURCE
#include "os/os.h"
#include "os/posix/descriptor.h"
#include "os/posix/quiet.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

int mpx_os_pipe(mproc_handle ret_ends[2]) {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) < 0)
    return -errno;
  ret_ends[0] = ends[0];
  ret_ends[1] = ends[1];
  return 0;
}

void mpx_os_close(mproc_handle handle) {
  int saved_errno = errno;
  /* After EINTR it is closed all the same. errno is written only where it must be: after a fork,
   * the first write to its page copies it. */
  if (handle != MPX_NO_HANDLE && close(mpx_descriptor(handle)) < 0)
    errno = saved_errno;
}

int mpx_write_all(int fd, const void *data, size_t size) {
  const char *next = data;
  while (size > 0) {
    ssize_t written = write(fd, next, size);
    if (written < 0 && errno == EINTR)
      continue;
    if (written < 0)
      return -errno;
    next += written;
    size -= (size_t)written;
  }
  return 0;
}

/* A reader that is gone is SIGPIPE, a file above RLIMIT_FSIZE SIGXFSZ: neither is worth the host's
 * life. */
int mpx_os_write(mproc_handle handle, const void *data, size_t size) {
  mpx_quiet quiet;
  mpx_quiet_begin(&quiet);
  int r = mpx_write_all(mpx_descriptor(handle), data, size);
  mpx_quiet_end(&quiet, r < 0);
  return r;
}

int64_t mpx_os_read(mproc_handle handle, void *data, size_t size) {
  size_t done = 0;
  while (done < size) {
    ssize_t count = read(mpx_descriptor(handle), (char *)data + done, size - done);
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

int64_t mpx_os_read_file(const char *path, char *buffer, size_t size) {
  if (size == 0)
    return -EINVAL;
  mpx_os_cancel_hold(); /* callers hold locks, or nothing that would close the descriptor */
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
  int64_t count = fd < 0 ? -errno : mpx_os_read(fd, buffer, size - 1);
  if (fd >= 0)
    (void)close(fd);
  mpx_os_cancel_release();
  if (count >= 0)
    buffer[count] = '\0';
  return count;
}

int mpx_os_open_append(const char *path, mproc_handle *ret_handle) {
  int fd;
  do
    fd = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOCTTY, S_IRUSR | S_IWUSR);
  while (fd < 0 && errno == EINTR);
  fd = mpx_above_streams(fd < 0 ? -errno : fd);
  if (fd < 0)
    return fd;
  *ret_handle = fd;
  return 0;
}

int mpx_os_stream_index(mproc_handle handle) {
  return handle >= STDIN_FILENO && handle <= STDERR_FILENO ? (int)handle : -1;
}

int mpx_os_set_inheritable(mproc_handle handle, bool inheritable) {
  int fd = mpx_descriptor(handle);
  if (mpx_os_stream_index(handle) >= 0)
    return 0;
  int flags = fcntl(fd, F_GETFD);
  if (flags < 0)
    return -errno;
  flags = inheritable ? flags & ~FD_CLOEXEC : flags | FD_CLOEXEC;
  return fcntl(fd, F_SETFD, flags) < 0 ? -errno : 0;
}

bool mpx_os_handle_is_open(mproc_handle handle) {
  return fcntl(mpx_descriptor(handle), F_GETFD) >= 0;
}

/* Not close-on-exec: these three are meant to be inherited. open takes the lowest free number, and
 * those below are open already. */
void mpx_os_stdio_ensure(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
    if (fcntl(fd, F_GETFD) >= 0)
      continue;
    int opened = open("/dev/null", O_RDWR | O_NOCTTY);
    if (opened > STDERR_FILENO)
      (void)close(opened);
  }
}
