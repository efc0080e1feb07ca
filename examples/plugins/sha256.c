/* SHA-256 of the file that an input names, as sha256sum prints it:
 *
 *   find . -type f -print0 | mproc map -0 ./sha256.so:sha256
 */
#include <errno.h>
#include <mproc/task.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUFFER_BYTES = 1 << 17 };

typedef struct hasher {
  EVP_MD_CTX *context;
  char buffer[BUFFER_BYTES];
  char *line;
} hasher;

/* Once in each worker: what each input needs, and need not be made for each. */
static int begin(void *arg, size_t size, void **ret_state) {
  hasher *h = malloc(sizeof *h);
  (void)arg;
  (void)size;
  if (!h)
    return 1;
  h->line = NULL;
  h->context = EVP_MD_CTX_new();
  *ret_state = h;
  return h->context ? 0 : 1;
}

static void end(void *state) {
  hasher *h = state;
  EVP_MD_CTX_free(h->context);
  free(h->line);
  free(h);
}

/* 0, or an errno value. */
static int hash_file(hasher *h, const char *path, unsigned char *digest) {
  FILE *file = fopen(path, "rb");
  if (!file)
    return errno;
  setvbuf(file, NULL, _IONBF, 0);
  int ok = EVP_DigestInit_ex(h->context, EVP_sha256(), NULL);
  errno = 0;
  for (size_t n; ok && (n = fread(h->buffer, 1, BUFFER_BYTES, file)) > 0;)
    ok = EVP_DigestUpdate(h->context, h->buffer, n);
  int error = ferror(file) ? errno ? errno : EIO : 0;
  fclose(file);
  if (!error && (!ok || !EVP_DigestFinal_ex(h->context, digest, NULL)))
    error = ENOTSUP;
  return error;
}

/* A backslash or a line break in a name is escaped; a backslash in front of the line says so. */
static size_t print_name(char *line, const char *path) {
  char *at = line;
  for (; *path; path++) {
    if (*path == '\\' || *path == '\n' || *path == '\r') {
      *at++ = '\\';
      *at++ = (char)(*path == '\n' ? 'n' : *path == '\r' ? 'r' : '\\');
    } else {
      *at++ = *path;
    }
  }
  return (size_t)(at - line);
}

static int sha256(mproc_task *task, const void *input, size_t size) {
  hasher *h = mproc_task_state(task);
  const char *path = input;
  unsigned char digest[EVP_MAX_MD_SIZE];
  if (strlen(path) != size)
    return mproc_task_fail(task, 1, "the name has a NUL byte");
  int error = hash_file(h, path, digest);
  if (error)
    return mproc_task_fail(task, 1, "%s", strerror(error));

  enum { HEX = 64 };
  char *line = realloc(h->line, 2 * size + HEX + 8);
  if (!line)
    return mproc_task_fail(task, 1, "out of memory");
  h->line = line;
  char *at = line;
  if (strpbrk(path, "\\\n\r"))
    *at++ = '\\';
  for (int i = 0; i < HEX / 2; i++)
    at += snprintf(at, 3, "%02x", digest[i]);
  memcpy(at, "  ", 2);
  at += 2 + print_name(at + 2, path);
  return mproc_task_result(task, line, (size_t)(at - line));
}

MPROC_TASK(sha256, .help = "SHA-256 of the file that the input names, as sha256sum prints it",
           .initializer = begin, .worker_exit = end);
