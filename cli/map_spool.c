/* Output of commands that a worker's memory is not to hold: in files without a name. The worker
 * writes one and keeps it open; the main program maps it through /proc, by the number that the
 * worker has for it. A file goes with the last of both, however they end. */
#define _GNU_SOURCE /* O_TMPFILE, madvise */

#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Of a worker: files that the main program may not have mapped yet. */
typedef struct offer {
  map_spool *spool;
  int fd;
} offer;

static struct offers {
  offer *list;
  size_t count, capacity;
} offers;

const char *map_spool_folder(void) {
  const char *folder = getenv("TMPDIR");
  return folder && *folder ? folder : "/tmp";
}

int map_spool_open(void) {
  const char *folder = map_spool_folder();
#ifdef O_TMPFILE
  int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
  if (fd >= 0 || (errno != EOPNOTSUPP && errno != EISDIR && errno != ENOENT))
    return fd < 0 ? -errno : fd;
#endif
  map_buffer path = {0};
  map_append_text(&path, folder);
  map_append(&path, "/mproc-map-XXXXXX", sizeof "/mproc-map-XXXXXX");
  int named = mkostemp(path.data, O_CLOEXEC);
  int error = errno;
  if (named >= 0)
    (void)unlink(path.data);
  map_release(&path);
  return named < 0 ? -error : named;
}

int map_spool_write(int fd, const char *data, size_t size) {
  while (size > 0) {
    ssize_t n = write(fd, data, size);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return errno;
    data += n;
    size -= (size_t)n;
  }
  return 0;
}

map_spool *map_spool_offer(int fd, size_t size) {
  struct stat status;
  map_spool *spool = fstat(fd, &status) == 0 ? mproc_heap_calloc(1, sizeof *spool) : NULL;
  if (!spool)
    return NULL;
  spool->pid = getpid();
  spool->fd = fd;
  spool->device = status.st_dev;
  spool->inode = status.st_ino;
  spool->size = size;
  if (offers.count == offers.capacity) {
    size_t capacity = offers.capacity ? 2 * offers.capacity : 16;
    offer *list = map_alloc(capacity, sizeof *list);
    if (offers.count)
      memcpy(list, offers.list, offers.count * sizeof *list);
    free(offers.list);
    offers.list = list;
    offers.capacity = capacity;
  }
  offers.list[offers.count++] = (offer){spool, fd};
  return spool;
}

void map_spool_close_taken(void) {
  size_t left = 0;
  for (size_t i = 0; i < offers.count; i++) {
    offer *o = &offers.list[i];
    /* acquire: pairs with the release in map_spool_take, after which it looks at it no more */
    if (!atomic_load_explicit(&o->spool->taken, memory_order_acquire)) {
      offers.list[left++] = *o;
      continue;
    }
    close(o->fd);
    mproc_heap_free(o->spool);
  }
  offers.count = left;
}

/* Not the file of somebody who has got the number of a worker that died. */
static int open_offered(const map_spool *spool) {
  char path[64];
  struct stat status;
  snprintf(path, sizeof path, "/proc/%ld/fd/%d", (long)spool->pid, spool->fd);
  int fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
  if (fd < 0)
    return -1;
  if (fstat(fd, &status) == 0 && status.st_dev == spool->device && status.st_ino == spool->inode &&
      (uint64_t)status.st_size >= spool->size)
    return fd;
  close(fd);
  errno = ESTALE;
  return -1;
}

int map_spool_take(map_spool *spool, mproc_bytes *ret_bytes) {
  int error = 0;
  int fd = open_offered(spool);
  /* writable, so that its room can be given back before the worker closes it */
  void *data =
      fd < 0 ? MAP_FAILED : mmap(NULL, spool->size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (data == MAP_FAILED)
    error = errno;
  else
    *ret_bytes = (mproc_bytes){data, spool->size};
  if (fd >= 0)
    close(fd);
  /* release: pairs with the acquire in map_spool_close_taken, which frees the block */
  atomic_store_explicit(&spool->taken, 1, memory_order_release);
  return error;
}

void map_spool_give_back(const mproc_bytes *bytes) {
  void *data = (void *)(uintptr_t)bytes->data;
  if (!data)
    return;
#ifdef MADV_REMOVE
  (void)madvise(data, bytes->size, MADV_REMOVE); /* the worker may be idle for long */
#endif
  (void)munmap(data, bytes->size);
}
