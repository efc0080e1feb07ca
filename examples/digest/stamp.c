#define _POSIX_C_SOURCE 200809L

#include "digest.h"

static int64_t nanoseconds(struct timespec time) {
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

file_stamp stamp_of(const struct stat *status) {
  return (file_stamp){
      .device = (uint64_t)status->st_dev,
      .inode = (uint64_t)status->st_ino,
      .size_bytes = (int64_t)status->st_size,
      .modified_ns = nanoseconds(status->st_mtim),
      .changed_ns = nanoseconds(status->st_ctim),
  };
}

int stamp_equal(const file_stamp *a, const file_stamp *b) {
  return a->device == b->device && a->inode == b->inode && a->size_bytes == b->size_bytes &&
         a->modified_ns == b->modified_ns && a->changed_ns == b->changed_ns;
}
