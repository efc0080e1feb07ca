#define _GNU_SOURCE
#include "map_work.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <zlib.h>

enum { LEVEL = 6 };

/* All of a file; NULL: not to be had. */
static unsigned char *read_file(const char *path, size_t *ret_size) {
  struct stat about;
  FILE *file = fopen(path, "re");
  unsigned char *bytes = NULL;
  if (file && fstat(fileno(file), &about) == 0 && about.st_size >= 0) {
    *ret_size = (size_t)about.st_size;
    bytes = malloc(*ret_size + 1);
    if (bytes && fread(bytes, 1, *ret_size, file) != *ret_size) {
      free(bytes);
      bytes = NULL;
    }
  }
  if (file)
    (void)fclose(file);
  return bytes;
}

int map_pack(const char *path, char *line, size_t size) {
  size_t before;
  int length = -1;
  unsigned char *bytes = read_file(path, &before);
  if (!bytes)
    return -1;
  uLongf after = compressBound(before);
  unsigned char *packed = malloc(after);
  if (packed && compress2(packed, &after, bytes, before, LEVEL) == Z_OK)
    length = snprintf(line, size, "%zu %lu %s", before, (unsigned long)after, path);
  free(packed);
  free(bytes);
  return length;
}

int map_digest(const char *path, char *line, size_t size) {
  unsigned char sum[EVP_MAX_MD_SIZE];
  char text[2 * EVP_MAX_MD_SIZE + 1] = "";
  unsigned int sum_size = 0;
  size_t bytes_size;
  unsigned char *bytes = read_file(path, &bytes_size);
  if (!bytes)
    return -1;
  int good = EVP_Digest(bytes, bytes_size, sum, &sum_size, EVP_sha256(), NULL);
  free(bytes);
  for (unsigned int i = 0; i < sum_size; i++)
    (void)snprintf(text + (size_t)2 * i, 3, "%02x", sum[i]);
  return good == 1 ? snprintf(line, size, "%s %s", text, path) : -1;
}
