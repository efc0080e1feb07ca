#define _GNU_SOURCE
#include "os/linux/abstract_name.h"
#include "os/os.h"
#include "os/posix/descriptor.h"

int mpx_os_mailbox_create(mproc_handle *ret_mailbox, uint32_t *ret_name) {
  enum { BACKLOG = 16 };
  int fd = mpx_abstract_socket(SOCK_SEQPACKET);
  if (fd < 0)
    return fd;
  int r = mpx_bind_abstract(fd, "mproc-mail-", ret_name);
  if (r == 0 && listen(fd, BACKLOG) < 0)
    r = -errno;
  if (r < 0) {
    (void)close(fd);
    return r;
  }
  *ret_mailbox = fd;
  return 0;
}

/* Who connected, or listened, proved by the kernel. 0 is everybody of other pid namespaces. */
static bool is_peer(int fd, int64_t pid) {
  struct ucred peer;
  socklen_t size = sizeof peer;
  return pid > 0 && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 && peer.pid == pid;
}

int mpx_os_mailbox_accept(mproc_handle mailbox, int64_t pid, mproc_handle *ret_end) {
  int fd =
      mpx_above_streams(accept4(mpx_descriptor(mailbox), NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (fd < 0)
    return -errno;
  if (!is_peer(fd, pid)) {
    (void)close(fd);
    return -EAGAIN;
  }
  *ret_end = fd;
  return 0;
}

int mpx_os_mailbox_connect(uint32_t name, int64_t pid, mproc_handle *ret_end) {
  struct sockaddr_un address;
  socklen_t size = mpx_abstract_name("mproc-mail-", name, &address);
  int fd = mpx_abstract_socket(SOCK_SEQPACKET);
  if (fd < 0)
    return fd;
  int r = connect(fd, (struct sockaddr *)&address, size) < 0 ? -errno : 0;
  if (r == 0 && !is_peer(fd, pid))
    r = -ECONNREFUSED;
  if (r < 0) {
    (void)close(fd);
    return r;
  }
  *ret_end = fd;
  return 0;
}
