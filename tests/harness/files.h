/* Pipes and small files. */
#ifndef MPROC_TEST_FILES_H
#define MPROC_TEST_FILES_H

#include "harness.h"

#include <fcntl.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static inline void make_pipe(int ends[2]) {
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
}

/* Reads to the end of the file, closes it and returns the text. */
static inline const char *read_all(int fd, char *text, size_t size) {
  size_t used = 0;
  ssize_t count;
  while (used < size - 1 && (count = read(fd, text + used, size - 1 - used)) > 0)
    used += (size_t)count;
  text[used] = '\0';
  CHECK_EQ(close(fd), 0);
  return text;
}

/* NULL when there is no such file. */
static inline const char *read_file(const char *path, char *text, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  return fd < 0 ? NULL : read_all(fd, text, size);
}

/* Makes a file, a script for instance. */
static inline void write_file(const char *path, const char *text, mode_t mode) {
  int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(write(fd, text, strlen(text)), strlen(text));
  CHECK_EQ(fchmod(fd, mode), 0);
  CHECK_EQ(close(fd), 0);
}

static inline void copy_file(const char *from, const char *to, mode_t mode) {
  char block[65536];
  ssize_t size;
  int source = open(from, O_RDONLY | O_CLOEXEC);
  int target = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(source >= 0 && target >= 0);
  while ((size = read(source, block, sizeof block)) > 0)
    CHECK_EQ(write(target, block, (size_t)size), size);
  CHECK_EQ(size, 0);
  CHECK_EQ(fchmod(target, mode), 0);
  CHECK_EQ(close(source), 0);
  CHECK_EQ(close(target), 0);
}

#endif
