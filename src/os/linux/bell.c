/* A bell is a datagram socket with an abstract name: it needs no file, ends with its process, and
 * whoever knows the name can send to it. Abstract names are Linux's own. */
#define _GNU_SOURCE
#include "os/linux/abstract_name.h"
#include "os/os.h"
#include "os/posix/descriptor.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

enum { SOCKET, TIMER };
/* Far more than a queue of the kernel holds by default. */
enum { MOST_RINGS = 1000 };

static int add_to(int set, int fd) {
  struct epoll_event event = {.events = EPOLLIN};
  return epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* The handle becomes a set of the socket and a timer. */
static int add_timer(mpx_os_bell *bell, int64_t look_ns) {
  const struct timespec period = {.tv_sec = (time_t)(look_ns / MPX_NS_PER_S),
                                  .tv_nsec = (long)(look_ns % MPX_NS_PER_S)};
  const struct itimerspec times = {.it_interval = period, .it_value = period};
  int timer = mpx_above_streams(timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
  if (timer < 0)
    return -errno;
  bell->parts[TIMER] = timer;
  if (timerfd_settime(timer, 0, &times, NULL) < 0)
    return -errno;
  int set = mpx_above_streams(epoll_create1(EPOLL_CLOEXEC));
  if (set < 0)
    return -errno;
  bell->handle = set;
  int r = add_to(set, mpx_descriptor(bell->parts[SOCKET]));
  return r < 0 ? r : add_to(set, timer);
}

int mpx_os_bell_create(int64_t look_ns, mpx_os_bell *ret_bell) {
  mpx_os_bell bell = {.handle = MPX_NO_HANDLE, .parts = {MPX_NO_HANDLE, MPX_NO_HANDLE}};
  int fd = mpx_abstract_socket(SOCK_DGRAM);
  if (fd < 0)
    return fd;
  bell.parts[SOCKET] = fd;
  int r = mpx_bind_abstract(fd, "mproc-bell-", &bell.name);
  if (r == 0 && look_ns > 0)
    r = add_timer(&bell, look_ns);
  if (r < 0) {
    mpx_os_bell_close(&bell);
    return r;
  }
  if (look_ns == 0)
    bell.handle = fd;
  *ret_bell = bell;
  return 0;
}

void mpx_os_bell_hush(const mpx_os_bell *bell) {
  char drain[16];
  /* not for ever: a stranger may ring all the time */
  for (int i = 0; i < MOST_RINGS; i++)
    if (recv(mpx_descriptor(bell->parts[SOCKET]), drain, sizeof drain, 0) < 0)
      break;
  if (bell->parts[TIMER] != MPX_NO_HANDLE)
    (void)!read(mpx_descriptor(bell->parts[TIMER]), drain, sizeof drain);
}

void mpx_os_bell_close(const mpx_os_bell *bell) {
  if (bell->handle != bell->parts[SOCKET])
    mpx_os_close(bell->handle);
  mpx_os_close(bell->parts[SOCKET]);
  mpx_os_close(bell->parts[TIMER]);
}

void mpx_os_bell_ring(uint32_t name) {
  if (name == MPX_OS_NO_BELL)
    return;
  int saved_errno = errno;
  mpx_os_cancel_hold(); /* callers set an event, or have a message */
  struct sockaddr_un address;
  socklen_t size = mpx_abstract_name("mproc-bell-", name, &address);
  int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd >= 0) {
    (void)sendto(fd, "", 1, MSG_NOSIGNAL, (struct sockaddr *)&address, size);
    (void)close(fd);
  }
  mpx_os_cancel_release();
  errno = saved_errno;
}
