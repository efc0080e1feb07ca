#define _DEFAULT_SOURCE /* fts */

#include "digest.h"

#include <errno.h>
#include <fts.h>
#include <stdlib.h>
#include <string.h>

enum { PATHS_BYTES = 1 << 16, FILES_FIRST = 1024 };

/* Paths lie one after the other in large blocks: a block for each would cost more than the path. */
typedef struct builder {
  file_list list;
  size_t capacity;
  char *paths;
  size_t paths_left;
} builder;

static char *store_path(builder *b, const char *path, size_t length) {
  if (b->paths_left <= length) {
    size_t size = length < PATHS_BYTES ? PATHS_BYTES : length + 1;
    char *block = mproc_heap_alloc(size);
    if (!block)
      return NULL;
    b->paths = block;
    b->paths_left = size;
  }
  char *copy = memcpy(b->paths, path, length + 1);
  b->paths += length + 1;
  b->paths_left -= length + 1;
  return copy;
}

static int grow(builder *b) {
  size_t capacity = b->capacity ? b->capacity * 2 : FILES_FIRST;
  digest_file *files = mproc_heap_calloc(capacity, sizeof *files);
  if (!files)
    return -1;
  if (b->list.count)
    memcpy(files, b->list.files, b->list.count * sizeof *files);
  mproc_heap_free(b->list.files);
  b->list.files = files;
  b->capacity = capacity;
  return 0;
}

static int add_file(builder *b, const FTSENT *found) {
  if (b->list.count == b->capacity && grow(b) < 0)
    return -1;
  char *path = store_path(b, found->fts_path, strlen(found->fts_path));
  if (!path)
    return -1;
  b->list.files[b->list.count++] = (digest_file){path, stamp_of(found->fts_statp)};
  b->list.byte_count += (uint64_t)found->fts_statp->st_size;
  return 0;
}

static int add(builder *b, const FTSENT *found) {
  char name[512];
  switch (found->fts_info) {
  case FTS_F:
    return add_file(b, found);
  case FTS_DEFAULT: /* devices, sockets and pipes come here too; fts calls only some files FTS_F */
    return S_ISREG(found->fts_statp->st_mode) ? add_file(b, found) : 0;
  case FTS_DNR:
  case FTS_ERR:
  case FTS_NS:
    b->list.unreadable_count++;
    print_error("cannot read %s: %s", printable(found->fts_path, name, sizeof name),
                strerror(found->fts_errno));
    return 0;
  case FTS_DC:
    print_error("%s is its own ancestor: left out", printable(found->fts_path, name, sizeof name));
    return 0;
  default:
    return 0;
  }
}

static int larger_first(const void *a, const void *b) {
  const file_stamp *x = &((const digest_file *)a)->stamp;
  const file_stamp *y = &((const digest_file *)b)->stamp;
  return (x->size_bytes < y->size_bytes) - (x->size_bytes > y->size_bytes);
}

int walk_tree(const char *directory, file_list *ret_list) {
  char *roots[] = {(char *)directory, NULL};
  FTS *tree = fts_open(roots, FTS_PHYSICAL | FTS_COMFOLLOW | FTS_NOCHDIR, NULL);
  if (!tree) {
    print_error("cannot read %s: %s", directory, strerror(errno));
    return -1;
  }

  builder b = {.capacity = 0};
  int r = 0;
  const FTSENT *found;
  while (r == 0 && (errno = 0, found = fts_read(tree)))
    r = add(&b, found);
  if (r < 0)
    print_mproc_error("cannot store the list of files");
  else if (errno) {
    print_error("cannot read %s: %s", directory, strerror(errno));
    r = -1;
  }
  fts_close(tree);
  if (r < 0)
    return -1;
  if (b.list.count)
    qsort(b.list.files, b.list.count, sizeof *b.list.files, larger_first);
  *ret_list = b.list;
  return 0;
}
