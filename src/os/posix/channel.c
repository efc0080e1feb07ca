#define _GNU_SOURCE
#include "os/os.h"
#include "os/posix/descriptor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

/* How long a reader that is stopped may keep a writer waiting. */
#define PATIENCE_NS (5 * MPX_NS_PER_S)

int mpx_os_channel(mproc_handle ret_ends[2]) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
    return -errno;
  ret_ends[0] = ends[0];
  ret_ends[1] = ends[1];
  return 0;
}

typedef union control_buffer {
  struct cmsghdr header; /* for its alignment */
  char bytes[CMSG_SPACE(sizeof(int))];
} control_buffer;

int mpx_os_channel_send(mproc_handle end, const void *data, size_t size, mproc_handle handle) {
  control_buffer control;
  struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  int fd = mpx_descriptor(handle);
  if (handle != MPX_NO_HANDLE) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = sizeof control;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
  }
  int64_t deadline = mpx_os_now() + PATIENCE_NS;
  ssize_t r;
  while ((r = sendmsg(mpx_descriptor(end), &message, MSG_NOSIGNAL | MSG_DONTWAIT)) < 0) {
    mpx_poll_item room = {.handle = end, .writable = true};
    if (errno == EAGAIN && mpx_os_poll(&room, 1, deadline) == 0)
      return -ETIMEDOUT;
    if (errno != EINTR && errno != EAGAIN)
      break;
  }
  if (r < 0 && errno == ECONNRESET) /* the listener died with unread messages */
    return -EPIPE;
  return r < 0 ? -errno : 0;
}

int mpx_os_channel_receive(mproc_handle end, void *data, size_t size, mproc_handle *ret_handle) {
  control_buffer control;
  struct iovec part = {.iov_base = data, .iov_len = size};
  struct msghdr message = {
      .msg_iov = &part, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
  ssize_t r;
  do
    r = recvmsg(mpx_descriptor(end), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  while (r < 0 && errno == EINTR);
  if (r <= 0)
    return r < 0 ? -errno : 0;
  if ((size_t)r != size)
    return -EBADMSG;
  int fd = -1;
  struct cmsghdr *header = CMSG_FIRSTHDR(&message);
  if (header && header->cmsg_type == SCM_RIGHTS && header->cmsg_len == CMSG_LEN(sizeof fd))
    memcpy(&fd, CMSG_DATA(header), sizeof fd);
  *ret_handle = fd;
  return 1;
}
