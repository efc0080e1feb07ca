#define _GNU_SOURCE
#include "os/linux/anonymous_file.h"

#include "os/linux/kernel.h"
#include "os/os.h"
#include "os/posix/descriptor.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#if MPX_PORTABLE || !defined(SYS_memfd_create)
static int memory_file(const char *name) {
  (void)name;
  return -ENOSYS;
}
#else
static int memory_file(const char *name) {
  const unsigned flags = MPX_MFD_CLOEXEC | MPX_MFD_ALLOW_SEALING;
  long fd = syscall(SYS_memfd_create, name, flags | MPX_MFD_NOEXEC_SEAL);
  if (fd < 0 && errno == EINVAL) /* before 6.3 */
    fd = syscall(SYS_memfd_create, name, flags);
  return fd < 0 ? -errno : (int)fd;
}
#endif

static int unnamed_file_in(const char *directory) {
  int fd = open(directory, O_TMPFILE | O_RDWR | O_CLOEXEC | O_EXCL, S_IRUSR | S_IWUSR);
  if (fd >= 0)
    return fd;
  if (errno == EMFILE || errno == ENFILE)
    return -errno;

  size_t size = strlen(directory) + sizeof "/mproc-XXXXXX";
  char *path = malloc(size);
  if (!path)
    return -ENOMEM;
  (void)snprintf(path, size, "%s/mproc-XXXXXX", directory);
  fd = mkostemp(path, O_CLOEXEC);
  int r = fd < 0 || unlink(path) < 0 ? -errno : 0;
  free(path);
  if (r < 0 && fd >= 0)
    (void)close(fd);
  return r < 0 ? r : fd;
}

int mpx_anonymous_file(const char *name, bool *ret_sealable) {
  int fd = mpx_above_streams(memory_file(name));
  if (fd >= 0 || !mpx_is_absent(-fd)) {
    if (fd >= 0)
      *ret_sealable = true;
    return fd;
  }

  const char *chosen = mpx_os_is_secure() ? NULL : getenv("TMPDIR");
  const char *directories[] = {"/dev/shm", chosen && *chosen ? chosen : "/tmp", "/tmp"};
  for (size_t i = 0; i < sizeof directories / sizeof *directories; i++) {
    fd = mpx_above_streams(unnamed_file_in(directories[i]));
    if (fd >= 0) {
      MPX_SAY_ONCE("no memfd here: memory is shared through an unnamed file in %s", directories[i]);
      *ret_sealable = false;
      return fd;
    }
    if (fd == -EMFILE || fd == -ENFILE)
      return fd;
  }
  return fd;
}

bool mpx_has_memfd(void) {
  int fd = memory_file("mproc");
  if (fd < 0)
    return false;
  (void)close(fd);
  return true;
}
