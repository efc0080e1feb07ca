#define _POSIX_C_SOURCE 200809L
#include "os/os.h"
#include "os/posix/descriptor.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>

#define ON_STACK 16

static int poll_until(struct pollfd *fds, size_t count, int64_t deadline_ns) {
  for (;;) {
    int64_t left = mpx_remaining(deadline_ns, mpx_os_now());
    int r = poll(fds, (nfds_t)count, mpx_poll_ms(left));
    if (r > 0)
      return r;
    if (r < 0 && errno != EINTR)
      return -errno;
    if (left == 0 && r == 0)
      return 0;
  }
}

/* In the same order. */
static int take_results(mpx_poll_item *items, size_t count, const struct pollfd *fds) {
  int found = 0;
  for (size_t i = 0; i < count; i++) {
    items[i].invalid = items[i].ready = false;
    if (items[i].handle == MPX_NO_HANDLE)
      continue;
    items[i].invalid = fds->fd < 0 || (fds->revents & POLLNVAL);
    items[i].ready = !items[i].invalid && fds->revents != 0;
    found += items[i].invalid || items[i].ready;
    fds++;
  }
  return found;
}

int mpx_os_poll(mpx_poll_item *items, size_t count, int64_t deadline_ns) {
  struct pollfd on_stack[ON_STACK];
  struct pollfd *fds = on_stack;
  if (count > ON_STACK) {
    fds = calloc(count, sizeof *fds);
    if (!fds)
      return -ENOMEM;
  }
  size_t used = 0; /* poll(2) counts what it skips against the limit of descriptors */
  for (size_t i = 0; i < count; i++) {
    if (items[i].handle == MPX_NO_HANDLE)
      continue;
    fds[used] = (struct pollfd){.fd = mpx_descriptor(items[i].handle),
                                .events = items[i].writable ? POLLOUT : POLLIN};
    if (fds[used++].fd < 0) /* poll(2) would skip it */
      deadline_ns = 0;
  }
  int r = poll_until(fds, used, deadline_ns);
  if (r >= 0)
    r = take_results(items, count, fds);
  if (fds != on_stack)
    free(fds);
  return r;
}
