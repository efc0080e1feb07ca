#define _GNU_SOURCE
#include "os/os.h"
#include "os/posix/descriptor.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

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
  char bytes[CMSG_SPACE(sizeof(int) * MPX_MESSAGE_HANDLES) + CMSG_SPACE(sizeof(struct ucred))];
} control_buffer;

/* Asked by a call that cannot succeed: a filter may come at any time. */
bool mpx_os_can_send_handles(void) {
  int ends[2];
  return socketpair(AF_UNIX, -1, 0, ends) < 0 && errno != ENOSYS && errno != EPERM &&
         errno != EACCES;
}

int mpx_os_channel_prove_senders(mproc_handle end) {
  int yes = 1;
  return setsockopt(mpx_descriptor(end), SOL_SOCKET, SO_PASSCRED, &yes, sizeof yes) < 0 ? -errno
                                                                                        : 0;
}

static void attach_handles(struct msghdr *message, control_buffer *control,
                           const mproc_handle *handles, size_t count) {
  if (count == 0)
    return;
  message->msg_control = control;
  message->msg_controllen = (socklen_t)CMSG_SPACE(sizeof(int) * count);
  memset(control, 0, message->msg_controllen);
  struct cmsghdr *header = CMSG_FIRSTHDR(message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = (socklen_t)CMSG_LEN(sizeof(int) * count);
  int *fds = (int *)(void *)CMSG_DATA(header);
  for (size_t i = 0; i < count; i++)
    fds[i] = mpx_descriptor(handles[i]);
}

int mpx_os_channel_post(mproc_handle end, const mpx_os_bytes *parts, size_t part_count,
                        const mproc_handle *handles, size_t handle_count, int64_t deadline) {
  enum { MAX_PARTS = 8 };
  struct iovec vectors[MAX_PARTS];
  control_buffer control;
  if (part_count > MAX_PARTS || handle_count > MPX_MESSAGE_HANDLES)
    return -EMSGSIZE;
  for (size_t i = 0; i < part_count; i++)
    vectors[i] =
        (struct iovec){.iov_base = (void *)(uintptr_t)parts[i].data, .iov_len = parts[i].size};
  struct msghdr message = {.msg_iov = vectors};
  message.msg_iovlen = (__typeof__(message.msg_iovlen))part_count; /* size_t, or musl's int */
  attach_handles(&message, &control, handles, handle_count);
  while (sendmsg(mpx_descriptor(end), &message, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) {
    mpx_poll_item room = {.handle = end, .writable = true};
    if (errno == EAGAIN && mpx_os_poll(&room, 1, deadline) == 0)
      return -ETIMEDOUT;
    if (errno == ETOOMANYREFS) { /* too many handles of this user are under way */
      if (mpx_os_now() >= deadline)
        return -ETIMEDOUT;
      mpx_os_sleep(MPX_NS_PER_MS);
    } else if (errno != EINTR && errno != EAGAIN) {
      /* the listener died with unread messages */
      return errno == ECONNRESET ? -EPIPE : -errno;
    }
  }
  return 0;
}

/* Of musl's macro: what it compares has the other sign. */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-conversion"
static struct cmsghdr *next_header(struct msghdr *message, struct cmsghdr *header) {
  return CMSG_NXTHDR(message, header);
}
#pragma GCC diagnostic pop

static void take_control(struct msghdr *message, mpx_received *received) {
  for (struct cmsghdr *header = CMSG_FIRSTHDR(message); header;
       header = next_header(message, header)) {
    const void *data = CMSG_DATA(header);
    if (header->cmsg_level != SOL_SOCKET)
      continue;
    if (header->cmsg_type == SCM_RIGHTS) {
      size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
      for (size_t i = 0; i < count && received->handle_count < MPX_MESSAGE_HANDLES; i++) {
        int fd;
        memcpy(&fd, (const char *)data + i * sizeof fd, sizeof fd);
        fd = mpx_above_streams(fd);
        if (fd >= 0)
          received->handles[received->handle_count++] = fd;
        else
          received->cut = true;
      }
    } else if (header->cmsg_type == SCM_CREDENTIALS) {
      struct ucred sender;
      memcpy(&sender, data, sizeof sender);
      received->pid = sender.pid;
      received->is_ours = sender.uid == getuid() && sender.gid == getgid();
    }
  }
}

int mpx_os_channel_take(mproc_handle end, void *data, size_t capacity, bool wait,
                        mpx_received *ret_received) {
  control_buffer control;
  struct iovec vector = {.iov_base = data, .iov_len = capacity};
  struct msghdr message = {.msg_iov = &vector,
                           .msg_iovlen = 1,
                           .msg_control = &control,
                           .msg_controllen = sizeof control};
  ssize_t r;
  do
    r = recvmsg(mpx_descriptor(end), &message, (wait ? 0 : MSG_DONTWAIT) | MSG_CMSG_CLOEXEC);
  while (r < 0 && errno == EINTR);
  if (r < 0)
    return -errno;
  if (r == 0 && message.msg_controllen == 0) /* an empty message still brings its sender's proof */
    return 0;
  ret_received->size = (size_t)r;
  ret_received->handle_count = 0;
  ret_received->cut = (message.msg_flags & MSG_CTRUNC) != 0;
  ret_received->is_ours = false;
  ret_received->pid = 0;
  take_control(&message, ret_received);
  return 1;
}
