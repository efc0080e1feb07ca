#define _POSIX_C_SOURCE 200809L

#include "digest.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 17 };

typedef struct worker {
  EVP_MD_CTX *context;
  unsigned char *buffer;
} worker;

static int matches(int fd, const digest_file *file) {
  struct stat status;
  if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
    return 0;
  file_stamp stamp = stamp_of(&status);
  return stamp_equal(&stamp, &file->stamp);
}

/* Returns 1 when the whole file was read, 0 when it grows, -1 with errno. */
static int feed(const worker *w, int fd, const digest_file *file, uint64_t *bytes) {
  int64_t total = 0;
  while (total <= file->stamp.size_bytes) {
    ssize_t n = read(fd, w->buffer, BUFFER_BYTES);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0)
      return -1;
    if (n == 0)
      break;
    if (!EVP_DigestUpdate(w->context, w->buffer, (size_t)n))
      exit(WORKER_NO_DIGEST);
    total += n;
  }
  *bytes = (uint64_t)total;
  return total <= file->stamp.size_bytes;
}

static digest_result hash_file(const worker *w, const digest_file *file, uint64_t *bytes) {
  digest_result result = {.outcome = OUTCOME_CHANGED};
  /* O_NONBLOCK: a pipe that took the file's place must not stop the worker. */
  int fd = open(file->path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
  if (fd < 0) {
    if (errno == ENOENT || errno == ELOOP || errno == ENOTDIR)
      return result;
    return (digest_result){.outcome = OUTCOME_UNREADABLE, .error = errno};
  }
  if (matches(fd, file)) {
    /* NULL: the digest that the context was made for. */
    if (!EVP_DigestInit_ex(w->context, NULL, NULL))
      exit(WORKER_NO_DIGEST);
    int r = feed(w, fd, file, bytes);
    if (r < 0)
      result = (digest_result){.outcome = OUTCOME_UNREADABLE, .error = errno};
    else if (r > 0 && matches(fd, file)) {
      if (!EVP_DigestFinal_ex(w->context, result.digest, NULL))
        exit(WORKER_NO_DIGEST);
      result.outcome = OUTCOME_DONE;
    }
  }
  close(fd);
  return result;
}

static int hash_files(const worker *w, digest_job *job, worker_line *line) {
  if (!EVP_DigestInit_ex(w->context, EVP_sha256(), NULL))
    return WORKER_NO_DIGEST;
  for (;;) {
    size_t index = atomic_fetch_add_explicit(&job->next, 1, memory_order_relaxed);
    if (index >= job->file_count)
      return 0;
    atomic_store_explicit(&line->current, index + 1, memory_order_relaxed);
    uint64_t bytes = 0;
    job->results[index] = hash_file(w, &job->files[index], &bytes);
    atomic_fetch_add_explicit(&line->byte_count, bytes, memory_order_relaxed);
    atomic_fetch_add_explicit(&line->file_count, 1, memory_order_relaxed);
    atomic_store_explicit(&line->current, 0, memory_order_relaxed);
  }
}

int worker_main(void *arg, size_t size) {
  const worker_argument *argument = arg;
  digest_job *job = argument->job;
  worker_line *line = &job->workers[argument->number];
  (void)size;
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  atomic_store(&line->started_ns, (int64_t)now.tv_sec * 1000000000 + now.tv_nsec);

  worker w = {EVP_MD_CTX_new(), malloc(BUFFER_BYTES)};
  int code = w.context && w.buffer ? hash_files(&w, job, line) : WORKER_NO_MEMORY;
  free(w.buffer);
  EVP_MD_CTX_free(w.context);
  return code;
}
