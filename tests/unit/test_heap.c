/* The public heap, across processes: pointers, ownership, death. */
#include "each_method.h"
#include "in_child.h"

#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/wait.h>

static mproc_heap_statistics figures(void) {
  mproc_heap_statistics now;
  CHECK_OK(mproc_heap_stats(&now));
  return now;
}

/* ---- one process ----------------------------------------------------------------------------- */

TEST(block_is_usable_and_comes_back) {
  uint64_t before = figures().used_bytes;
  char *block = mproc_heap_alloc(1000);
  CHECK(block != NULL);
  CHECK(mproc_heap_usable_size(block) >= 1000);
  CHECK_EQ((uintptr_t)block % 16, 0);
  memset(block, 7, mproc_heap_usable_size(block));
  CHECK(figures().used_bytes >= before + 1000);
  CHECK_EQ(figures().block_count, 1);
  CHECK_EQ(mproc_heap_free(block), 0);
  CHECK_EQ(figures().used_bytes, before);
}

TEST(size_zero_is_a_block_too) {
  void *block = mproc_heap_alloc(0);
  CHECK(block != NULL);
  CHECK_EQ(mproc_heap_free(block), 0);
  CHECK_EQ(mproc_heap_free(NULL), 0);
}

TEST(calloc_clears_and_notices_overflow) {
  unsigned char *dirty = mproc_heap_alloc(4096);
  memset(dirty, 0xff, 4096);
  CHECK_EQ(mproc_heap_free(dirty), 0);
  unsigned char *block = mproc_heap_calloc(64, 64);
  for (int i = 0; i < 4096; i++)
    CHECK_EQ(block[i], 0);
  CHECK_EQ(mproc_heap_free(block), 0);
  CHECK(mproc_heap_calloc(SIZE_MAX / 2, 3) == NULL);
  CHECK_EQ(mproc_last_error(), MPROC_EHEAPFULL);
}

TEST(aligned_blocks) {
  for (size_t alignment = 1; alignment <= 65536; alignment *= 2) {
    void *block = mproc_heap_aligned_alloc(alignment, 100);
    CHECK(block != NULL);
    CHECK_EQ((uintptr_t)block % alignment, 0);
    CHECK_EQ(mproc_heap_free(block), 0);
  }
  static const size_t bad[] = {0, 3, 131072};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    CHECK(mproc_heap_aligned_alloc(bad[i], 100) == NULL);
    CHECK_EQ(mproc_last_error(), -EINVAL);
    CHECK_CONTAINS(mproc_error_detail(), "power of two");
  }
}

TEST(pointers_that_are_no_blocks) {
  int local = 0;
  char *block = mproc_heap_alloc(100);
  CHECK_EQ(mproc_heap_free(&local), MPROC_EPOINTER);
  CHECK_EQ(mproc_heap_free(block + 16), MPROC_EPOINTER);
  CHECK_EQ(mproc_heap_share(block + 1), MPROC_EPOINTER);
  CHECK_EQ(mproc_heap_usable_size(block + 16), 0);
  CHECK_EQ(mproc_heap_usable_size(&local), 0);
  CHECK_EQ(mproc_heap_free(block), 0);
  CHECK_EQ(mproc_heap_free(block), MPROC_EPOINTER);
  CHECK(strlen(mproc_error_detail()) > 20);
}

TEST(prefault_maps_pages_of_a_block) {
  size_t size = 4 << 20;
  char *block = mproc_heap_alloc(size);
  CHECK_EQ(mproc_heap_prefault(block, size), 0);
  CHECK_EQ(mproc_heap_prefault(block + 5000, 100000), 0);
  CHECK_EQ(mproc_heap_prefault(block, size * 2), MPROC_EPOINTER);
  CHECK_EQ(mproc_heap_prefault(&size, 8), MPROC_EPOINTER);
  CHECK_EQ(mproc_heap_free(block), 0);
}

TEST(memory_goes_back_to_the_system) {
  const size_t size = (size_t)(test_under_valgrind() ? 48 : 256) << 20;
  char *block = mproc_heap_alloc(size);
  CHECK(block);
  memset(block, 1, size);
  CHECK(figures().committed_bytes >= size);
  CHECK_EQ(mproc_heap_free(block), 0);
  CHECK(figures().committed_bytes < size / 4);
}

/* ---- the family ------------------------------------------------------------------------------ */

typedef struct node {
  struct node *next;
  int value;
} node;

static int extend_list(void *arg, size_t size) {
  (void)size;
  node *list = *(node **)arg;
  int sum = 0;
  for (node *n = list; n; n = n->next)
    sum += n->value;
  node *added = mproc_heap_alloc(sizeof *added);
  *added = (node){.next = list->next, .value = sum};
  list->next = added;
  return sum;
}

EACH_METHOD(pointers_are_valid_everywhere) {
  node *list = NULL;
  for (int i = 1; i <= 10; i++) {
    node *n = mproc_heap_alloc(sizeof *n);
    *n = (node){.next = list, .value = i};
    list = n;
  }
  CHECK_EQ(run_child(method, extend_list, &list, sizeof list), 55);
  CHECK_EQ(list->next->value, 55);
  while (list) {
    node *next = list->next;
    CHECK_EQ(mproc_heap_free(list), 0);
    list = next;
  }
}

typedef struct takings {
  void *owned[64];
  void *shared;
  _Atomic int ready;
} takings;

static int take_and_stay(void *arg, size_t size) {
  (void)size;
  takings *mine = *(takings **)arg;
  for (int i = 0; i < 64; i++)
    mine->owned[i] = mproc_heap_alloc_owned((size_t)1 << (i % 20));
  mine->shared = mproc_heap_alloc_owned(5000);
  CHECK_EQ(mproc_heap_share(mine->shared), 0);
  memset(mine->shared, 42, 5000);
  mine->ready = 1;
  while (mine->ready)
    (void)pause();
  return 0;
}

EACH_METHOD(owned_blocks_of_a_killed_process_come_back) {
  takings *child = mproc_heap_calloc(1, sizeof *child);
  uint64_t before = figures().owned_bytes;
  mproc_process *process = start_child(method, take_and_stay, &child, sizeof child, NULL);
  while (!child->ready)
    (void)usleep(1000);
  CHECK(figures().owned_bytes > before + 1000000);
  kill_child(process);
  CHECK_EQ(figures().owned_bytes, before);
  for (int i = 0; i < 64; i++)
    CHECK_EQ(mproc_heap_free(child->owned[i]), MPROC_EPOINTER);
  CHECK_EQ(((char *)child->shared)[4999], 42);
  CHECK_EQ(mproc_heap_free(child->shared), 0);
  CHECK_EQ(mproc_heap_free(child), 0);
  CHECK_EQ(figures().block_count, 0);
}

static int fail_to_allocate(void *arg, size_t size) {
  (void)arg;
  (void)size;
  void *block = mproc_heap_alloc((size_t)1 << 50);
  return block == NULL && mproc_last_error() == MPROC_EHEAPFULL &&
                 strstr(mproc_error_detail(), "heap_size")
             ? 3
             : 4;
}

EACH_METHOD(limit_is_the_familys) {
  CHECK_EQ(run_child(method, fail_to_allocate, NULL, 0), 3);
}

/* ---- strangers ------------------------------------------------------------------------------- */

TEST(foreign_child_is_no_member) {
  char *block = mproc_heap_alloc(100);
  pid_t pid = fork();
  if (pid == 0) {
    mproc_heap_statistics now;
    bool right = mproc_heap_alloc(10) == NULL && mproc_last_error() == MPROC_EFOREIGN &&
                 mproc_heap_free(block) == MPROC_EFOREIGN &&
                 mproc_heap_share(block) == MPROC_EFOREIGN &&
                 mproc_heap_stats(&now) == MPROC_EFOREIGN && mproc_heap_usable_size(block) == 0 &&
                 strstr(mproc_error_detail(), "fork()");
    _exit(right ? 0 : 1);
  }
  CHECK_EQ(status_of(pid), 0);
  CHECK_EQ(mproc_heap_free(block), 0);
}
