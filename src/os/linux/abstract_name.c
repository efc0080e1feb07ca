#define _GNU_SOURCE
#include "os/linux/abstract_name.h"
#include "os/linux/kernel.h"
#include "os/posix/descriptor.h"

#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

socklen_t mpx_abstract_name(const char *prefix, uint32_t number, struct sockaddr_un *ret_address) {
  static const char digits[] = "0123456789abcdef";
  size_t length = strlen(prefix);
  memset(ret_address, 0, sizeof *ret_address);
  ret_address->sun_family = AF_UNIX;
  char *at = ret_address->sun_path + 1; /* after the 0 that makes it abstract */
  memcpy(at, prefix, length);
  at += length;
  for (int shift = 28; shift >= 0; shift -= 4)
    *at++ = digits[number >> shift & 15];
  return (socklen_t)(at - (char *)ret_address);
}

int mpx_abstract_socket(int type) {
  if (MPX_PORTABLE)
    return -ENOSYS;
  int fd = mpx_above_streams(socket(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd >= 0)
    return fd;
  return mpx_is_absent(errno) || errno == EAFNOSUPPORT ? -ENOSYS : -errno;
}

int mpx_bind_abstract(int fd, const char *prefix, uint32_t *ret_number) {
  static _Atomic uint32_t last;
  struct sockaddr_un address;
  for (;;) {
    /* processes begin far from each other */
    uint32_t number = (uint32_t)getpid() * 2654435761U + atomic_fetch_add(&last, 1);
    socklen_t size = mpx_abstract_name(prefix, number, &address);
    if (number == 0)
      continue;
    *ret_number = number;
    if (bind(fd, (struct sockaddr *)&address, size) == 0)
      return 0;
    if (errno != EADDRINUSE)
      return -errno;
  }
}
