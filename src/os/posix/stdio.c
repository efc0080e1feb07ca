#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdio_ext.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef __GLIBC__
/* The head of glibc's list of streams: exported, declared nowhere. Weak, should it vanish. */
extern FILE *_IO_list_all __attribute__((weak));
#endif

/* glibc's fields are public, and reading them does not fault in a page of its code: every new child
 * asks this of every stream. */
static size_t pending_bytes(FILE *stream) {
#ifdef __GLIBC__
  if (stream->_mode <= 0) /* not wide */
    return (size_t)(stream->_IO_write_ptr - stream->_IO_write_base);
#endif
  return __fpending(stream);
}

/* Whether writing `pending` bytes would wait for somebody. What is left in the buffer is not lost:
 * the parent writes it later, and a forked child drops its copy. */
static bool would_wait(FILE *stream, size_t pending) {
  int fd = fileno(stream);
  struct stat st;
  if (fd < 0 || fstat(fd, &st) < 0)
    return true;
  if (S_ISREG(st.st_mode))
    return false;
  struct pollfd item = {.fd = fd, .events = POLLOUT};
  if (poll(&item, 1, 0) != 1 || item.revents != POLLOUT)
    return true;
  return pending > PIPE_BUF && !S_ISCHR(st.st_mode); /* only so much is sure to fit */
}

/* A stream that is being read has nothing pending, and fflush would move its offset. */
static void flush_at_once(FILE *stream) {
  if (pending_bytes(stream) == 0 || ftrylockfile(stream) != 0)
    return;
  size_t pending = __fpending(stream);
  if (pending > 0 && !would_wait(stream, pending))
    (void)fflush(stream);
  funlockfile(stream);
}

void mpx_os_stdio_flush(void) {
  flush_at_once(stdout);
  flush_at_once(stderr);
}

/* Memory streams have no descriptor: their bytes are this process's own. */
static void drop(FILE *stream) {
  if (pending_bytes(stream) > 0 && fileno(stream) >= 0)
    __fpurge(stream);
}

static void finish(FILE *stream) {
  if (pending_bytes(stream) == 0 || ftrylockfile(stream) != 0)
    return;
  if (__fpending(stream) > 0)
    (void)fflush(stream);
  funlockfile(stream);
}

static bool is_free(FILE *stream) {
  if (ftrylockfile(stream) != 0)
    return false;
  funlockfile(stream);
  return true;
}

/* Only in a child that has one thread: fork has given every lock of stdio back. */
void mpx_os_stdio_drop(void) {
#ifdef __GLIBC__
  if (&_IO_list_all) {
    for (FILE *stream = _IO_list_all; stream; stream = stream->_chain)
      drop(stream);
    return;
  }
#endif
  drop(stdout);
  drop(stderr);
}

void mpx_os_stdio_finish(void) {
#ifdef __GLIBC__
  if (&_IO_list_all) {
    for (FILE *stream = _IO_list_all; stream; stream = stream->_chain)
      finish(stream);
    return;
  }
#endif
  finish(stdout);
  finish(stderr);
  /* Flushing all streams waits for their locks. Those that a thread sits on are nearly always the
   * standard ones: if they are free, take the rest for free as well. */
  if (is_free(stdin) && is_free(stdout) && is_free(stderr))
    (void)fflush(NULL);
}
