/* The allocator of the shared heap, in one process; deaths are tests/crash's business. */
#include "allocator_heap.h"

#include "base/error.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

static const mpx_caller me = {.member = 1ull << 32 | 1, .lane = 1};
static const mpx_caller other = {.member = 2ull << 32 | 1, .lane = 2};

/* ---- stand-ins for the system (linked with --wrap) ------------------------------------------- */

int __real_mpx_os_commit(void *start, size_t size);
int __wrap_mpx_os_commit(void *start, size_t size);
uint64_t __wrap_mpx_os_memory_headroom(void);

static _Atomic bool commit_fails;
static uint64_t headroom = UINT64_MAX;
static _Atomic size_t committed_at_once;
static _Atomic int headroom_looks;

int __wrap_mpx_os_commit(void *start, size_t size) {
  committed_at_once = size;
  return commit_fails ? -ENOMEM : __real_mpx_os_commit(start, size);
}

uint64_t __wrap_mpx_os_memory_headroom(void) {
  headroom_looks++;
  return headroom;
}

/* ---- arithmetic ------------------------------------------------------------------------------ */

TEST(every_size_has_the_smallest_class_that_holds_it) {
  for (uint32_t size = 1; size <= MPX_SMALL_SIZE; size++) {
    unsigned class = mpx_class_of(size);
    CHECK(class < MPX_CLASS_COUNT && mpx_size_classes[class].size >= size);
    CHECK(class == 0 || mpx_size_classes[class - 1].size < size);
  }
}

TEST(aligned_sizes_have_aligned_classes) {
  for (uint32_t alignment = 16; alignment <= MPX_SMALL_SIZE; alignment *= 2)
    for (uint32_t size = alignment; size <= MPX_SMALL_SIZE; size += alignment)
      CHECK_EQ(mpx_size_classes[mpx_class_of(size)].size % alignment, 0);
}

TEST(reciprocals_divide_exactly) {
  for (unsigned c = 0; c < MPX_CLASS_COUNT; c++) {
    const mpx_size_class *class = &mpx_size_classes[c];
    for (uint32_t offset = 0; offset < MPX_UNIT_SIZE; offset++)
      if (mpx_class_block(class, offset) != offset / class->size)
        CHECK_EQ(mpx_class_block(class, offset), offset / class->size);
    CHECK_EQ(class->capacity, MPX_UNIT_SIZE / class->size);
    CHECK_EQ((class->word_count - 1) * 64 + mpx_bit_count(class->last_word), class->capacity);
  }
}

static uint32_t find_naively(const bool *bits, uint32_t from, uint32_t limit, bool value) {
  while (from < limit && bits[from] != value)
    from++;
  return from < limit ? from : limit;
}

TEST(bitmap_agrees_with_an_array) {
  enum { BITS = 300 };
  static _Atomic uint64_t words[MPX_WORD_COUNT(BITS)];
  static bool bits[BITS];
  uint64_t seed = 7;
  for (int i = 0; i < 20000; i++) {
    uint32_t first = (uint32_t)(random_next(&seed) % BITS);
    uint32_t count = 1 + (uint32_t)(random_next(&seed) % (BITS - first));
    bool value = random_next(&seed) % 2;
    if (i % 4 == 0) {
      mpx_bits_write(words, first, count, value);
      for (uint32_t b = first; b < first + count; b++)
        bits[b] = value;
    }
    uint32_t limit = first + count;
    CHECK_EQ(mpx_bits_find(words, first, limit, value), find_naively(bits, first, limit, value));
    uint32_t start = first;
    while (start > 0 && !bits[start - 1])
      start--;
    CHECK_EQ(mpx_bits_clear_before(words, first), start);
    CHECK_EQ(mpx_bit_is_set(words, first), bits[first]);
  }
}

/* ---- blocks ---------------------------------------------------------------------------------- */

TEST(blocks_of_every_size) {
  mpx_allocator *heap = new_heap(64 * MIB);
  for (size_t size = 0; size < 200 * KIB; size = size < 64 ? size + 1 : size + size / 7) {
    unsigned char *blocks[3];
    for (int i = 0; i < 3; i++) {
      blocks[i] = allocate(heap, &me, size, i == 1);
      CHECK_EQ((uintptr_t)blocks[i] % 16, 0);
      CHECK(mpx_allocator_usable_size(heap, blocks[i]) >= (size ? size : 1));
      memset(blocks[i], i, mpx_allocator_usable_size(heap, blocks[i]));
    }
    check_heap(heap);
    for (int i = 0; i < 3; i++) {
      CHECK_EQ(blocks[i][0], i);
      CHECK_EQ(blocks[i][mpx_allocator_usable_size(heap, blocks[i]) - 1], i);
      CHECK_OK(mpx_allocator_free(heap, &other, blocks[i]));
      CHECK_EQ(mpx_allocator_usable_size(heap, blocks[i]), 0);
    }
  }
  check_empty_and_drop(heap);
}

TEST(alignments) {
  mpx_allocator *heap = new_heap(64 * MIB);
  void *blocks[17 * 12];
  int count = 0;
  for (size_t alignment = 1; alignment <= 65536; alignment *= 2)
    for (size_t size = 0; size < 200000; size = size * 3 + 7) {
      CHECK_OK(mpx_allocator_alloc(heap, &me, size, alignment, false, &blocks[count]));
      CHECK_EQ((uintptr_t)blocks[count] % alignment, 0);
      CHECK_EQ((uintptr_t)blocks[count] % 16, 0);
      CHECK(mpx_allocator_usable_size(heap, blocks[count]) >= size);
      count++;
    }
  check_heap(heap);
  while (count > 0)
    CHECK_OK(mpx_allocator_free(heap, &me, blocks[--count]));
  check_empty_and_drop(heap);
}

TEST(bad_requests) {
  mpx_allocator *heap = new_heap(4 * MIB);
  const mpx_caller nobody = {0};
  void *block = heap;
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 8, 3, false, &block), -EINVAL);
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 8, 131072, false, &block), -EINVAL);
  CHECK_EQ(mpx_allocator_alloc(heap, &nobody, 8, 0, true, &block), -EINVAL);
  CHECK_EQ(mpx_allocator_alloc(heap, &me, SIZE_MAX, 0, false, &block), MPROC_EHEAPFULL);
  CHECK_EQ(mpx_allocator_alloc(heap, &me, SIZE_MAX - 5, 4096, false, &block), MPROC_EHEAPFULL);
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 4 * MIB + 1, 0, false, &block), MPROC_EHEAPFULL);
  CHECK_CONTAINS(mproc_error_detail(), "heap_size");
  CHECK(block == heap);
  mpx_allocator *none = NULL;
  CHECK_EQ(mpx_allocator_init(heap, heap, 65537, &none), -EINVAL);
  CHECK_EQ(mpx_allocator_reap(heap, &me, me.member), -EINVAL);
  CHECK_EQ(mpx_allocator_reap(heap, &me, 0), -EINVAL);
  check_empty_and_drop(heap);
}

TEST(bad_pointers_are_refused) {
  mpx_allocator *heap = new_heap(4 * MIB);
  char *small = allocate(heap, &me, 100, false);
  char *large = allocate(heap, &me, 200 * KIB, false);
  char *end = (char *)mpx_unit_data(heap, heap->unit_count);
  int local;
  void *bad[] = {NULL,      &local,     heap,         heap->data - 1, end,         small + 16,
                 small + 1, large + 16, large + 4096, large + 65536,  end - 65536, small + 112};
  for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
    CHECK_EQ(mpx_allocator_free(heap, &me, bad[i]), MPROC_EPOINTER);
    CHECK_EQ(mpx_allocator_share(heap, bad[i]), MPROC_EPOINTER);
    CHECK_EQ(mpx_allocator_usable_size(heap, bad[i]), 0);
  }
  CHECK_EQ(mpx_allocator_free(heap, &me, &local), MPROC_EPOINTER);
  CHECK_CONTAINS(mproc_error_detail(), "not in the shared heap");
  CHECK_OK(mpx_allocator_free(heap, &me, small));
  CHECK_EQ(mpx_allocator_free(heap, &me, small), MPROC_EPOINTER);
  CHECK_CONTAINS(mproc_error_detail(), "freed before");
  CHECK_OK(mpx_allocator_free(heap, &me, large));
  CHECK_EQ(mpx_allocator_free(heap, &me, large), MPROC_EPOINTER);
  CHECK_EQ(mpx_allocator_share(heap, large), MPROC_EPOINTER);
  check_empty_and_drop(heap);
}

TEST(contains_means_inside_one_block) {
  mpx_allocator *heap = new_heap(4 * MIB);
  char *small = allocate(heap, &me, 100, false);
  char *next = allocate(heap, &me, 100, false);
  char *large = allocate(heap, &me, 200 * KIB, true);
  CHECK(mpx_allocator_contains(heap, small, 112));
  CHECK(mpx_allocator_contains(heap, small + 50, 62));
  CHECK(!mpx_allocator_contains(heap, small + 50, 63));
  CHECK(next == small + 112 && !mpx_allocator_contains(heap, next + 112, 1));
  CHECK(mpx_allocator_contains(heap, large, 200 * KIB));
  CHECK(mpx_allocator_contains(heap, large + 150 * KIB, 50 * KIB));
  CHECK(!mpx_allocator_contains(heap, large + 150 * KIB, 50 * KIB + 1));
  CHECK(!mpx_allocator_contains(heap, large + 1, SIZE_MAX));
  CHECK(!mpx_allocator_contains(heap, large + 300 * KIB, 1));
  CHECK(!mpx_allocator_contains(heap, heap->data - 1, 1));
  CHECK_OK(mpx_allocator_free(heap, &me, large));
  CHECK(!mpx_allocator_contains(heap, large + 100 * KIB, 1));
  CHECK(!mpx_allocator_contains(heap, large, 1));
  drop_heap(heap);
}

TEST(figures_add_up) {
  mpx_allocator *heap = new_heap(16 * MIB);
  void *a = allocate(heap, &me, 100, false);
  void *b = allocate(heap, &me, 1000, true);
  void *c = allocate(heap, &me, 100000, true);
  mproc_heap_statistics s = figures(heap);
  CHECK_EQ(s.limit_bytes, 16 * MIB);
  CHECK_EQ(s.block_count, 3);
  CHECK_EQ(s.used_bytes, 112 + 1024 + 25 * 4096);
  CHECK_EQ(s.owned_bytes, 1024 + 25 * 4096);
  CHECK_EQ(s.committed_bytes, 16384 + 16384 + 25 * 4096);
  CHECK_OK(mpx_allocator_share(heap, b));
  CHECK_OK(mpx_allocator_share(heap, b));
  CHECK_EQ(figures(heap).owned_bytes, 25 * 4096);
  CHECK_OK(mpx_allocator_share(heap, c));
  CHECK_EQ(figures(heap).owned_bytes, 0);
  CHECK_OK(mpx_allocator_free(heap, &me, a));
  CHECK_OK(mpx_allocator_free(heap, &me, b));
  CHECK_OK(mpx_allocator_free(heap, &me, c));
  CHECK_EQ(figures(heap).repair_count, 0);
  check_empty_and_drop(heap);
}

/* ---- members --------------------------------------------------------------------------------- */

TEST(reaping_gives_back_what_was_owned_and_only_that) {
  enum { COUNT = 400 };
  mpx_allocator *heap = new_heap(256 * MIB);
  static void *blocks[COUNT][4]; /* mine, the family's, shared by me, another's */
  static size_t sizes[COUNT];
  uint64_t seed = 3;
  for (int i = 0; i < COUNT; i++) {
    sizes[i] = random_size(&seed);
    for (int k = 0; k < 4; k++) {
      blocks[i][k] = allocate(heap, k == 3 ? &other : &me, sizes[i], k != 1);
      put_stamp(blocks[i][k], sizes[i], (uint64_t)i * 4 + (uint64_t)k);
    }
    CHECK_OK(mpx_allocator_share(heap, blocks[i][2]));
  }
  CHECK_OK(mpx_allocator_reap(heap, &other, me.member));
  check_heap(heap);
  CHECK_EQ(figures(heap).block_count, 3 * COUNT);
  CHECK_OK(mpx_allocator_reap(heap, &other, me.member));
  CHECK_EQ(figures(heap).block_count, 3 * COUNT);
  for (int i = 0; i < COUNT; i++) {
    CHECK_EQ(mpx_allocator_usable_size(heap, blocks[i][0]), 0);
    for (int k = 1; k < 4; k++) {
      CHECK(has_stamp(blocks[i][k], sizes[i], (uint64_t)i * 4 + (uint64_t)k));
      CHECK_OK(mpx_allocator_free(heap, &other, blocks[i][k]));
    }
  }
  check_empty_and_drop(heap);
}

TEST(slabs_of_the_dead_serve_the_family) {
  mpx_allocator *heap = new_heap(4 * MIB);
  void *kept = allocate(heap, &me, 64, true);
  (void)allocate(heap, &me, 64, true);
  CHECK_OK(mpx_allocator_share(heap, kept));
  CHECK_OK(mpx_allocator_reap(heap, &other, me.member));
  void *block = allocate(heap, &me, 64, false);
  CHECK_EQ((uintptr_t)block / MPX_UNIT_SIZE, (uintptr_t)kept / MPX_UNIT_SIZE);
  CHECK_OK(mpx_allocator_free(heap, &me, kept));
  CHECK_OK(mpx_allocator_free(heap, &me, block));
  check_empty_and_drop(heap);
}

/* ---- limits ---------------------------------------------------------------------------------- */

TEST(full_heap_says_so_and_recovers) {
  mpx_allocator *heap = new_heap(4 * MIB);
  static void *blocks[100000];
  static const size_t sizes[] = {70000, 5000, 400, 16};
  for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
    size_t count = 0;
    while (count < 100000 &&
           mpx_allocator_alloc(heap, &me, sizes[k], 0, count % 2, &blocks[count]) == 0)
      count++;
    if (count < 100000) {
      CHECK_EQ(mproc_last_error(), MPROC_EHEAPFULL);
      CHECK_CONTAINS(mproc_error_detail(), "limit of 4194304 bytes");
      CHECK_CONTAINS(mproc_error_detail(), "heap_size");
      CHECK(count * sizes[k] > 2 * MIB);
    }
    check_heap(heap);
    while (count > 0)
      CHECK_OK(mpx_allocator_free(heap, &me, blocks[--count]));
    check_heap(heap);
  }
  check_empty_and_drop(heap);
}

/* What other arenas have in store is found before the heap is called full. */
TEST(room_in_other_arenas_is_found) {
  mpx_allocator *heap = new_heap(128 * MIB);
  CHECK_EQ(heap->arena_count, 8);
  static void *spare[8];
  for (uint32_t lane = 0; lane < 8; lane++) {
    mpx_caller caller = member(lane);
    spare[lane] = allocate(heap, &caller, 1000, false);
  }
  static void *units[2048];
  size_t count = 0;
  while (mpx_allocator_alloc(heap, &me, 65536, 0, false, &units[count]) == 0)
    count++;
  CHECK_EQ(count, 2048 - 8);
  static void *blocks[8 * 64];
  size_t fits = 0;
  while (mpx_allocator_alloc(heap, &me, 1000, 0, false, &blocks[fits]) == 0)
    fits++;
  CHECK_EQ(fits, 8 * 63);
  while (fits > 0)
    CHECK_OK(mpx_allocator_free(heap, &me, blocks[--fits]));
  for (uint32_t lane = 0; lane < 8; lane++)
    CHECK_OK(mpx_allocator_free(heap, &me, spare[lane]));
  /* Eight slabs wait empty, of a class that nobody wants now. */
  for (uint32_t i = 0; i < 8; i++)
    spare[i] = allocate(heap, &me, 65536, false);
  for (uint32_t i = 0; i < 8; i++)
    CHECK_OK(mpx_allocator_free(heap, &me, spare[i]));
  while (count > 0)
    CHECK_OK(mpx_allocator_free(heap, &me, units[--count]));
  check_empty_and_drop(heap);
}

TEST(no_memory_is_told_and_leaves_nothing) {
  mpx_allocator *heap = new_heap(64 * MIB);
  void *block;
  commit_fails = true;
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 100, 0, false, &block), -ENOMEM);
  CHECK_CONTAINS(mproc_error_detail(), "no memory for");
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 100, 0, true, &block), -ENOMEM);
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 3 * MIB, 0, false, &block), -ENOMEM);
  commit_fails = false;
  void *first = allocate(heap, &me, 3 * MIB, false);
  commit_fails = true;
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 3 * MIB, 0, true, &block), -ENOMEM);
  commit_fails = false;
  check_heap(heap);
  CHECK_EQ(figures(heap).block_count, 1);
  CHECK_OK(mpx_allocator_free(heap, &me, first));
  check_empty_and_drop(heap);
}

TEST(cgroup_is_asked_before_it_kills) {
  mpx_allocator *heap = new_heap(512 * MIB);
  void *block;
  headroom = 100 * MIB;
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 99 * MIB, 0, false, &block), -ENOMEM);
  CHECK_CONTAINS(mproc_error_detail(), "cgroup");
  CHECK_CONTAINS(mproc_error_detail(), "memory.max");
  block = allocate(heap, &me, 97 * MIB, false);
  headroom = 3 * MIB;
  void *second;
  CHECK_EQ(mpx_allocator_alloc(heap, &me, 30 * MIB, 0, false, &second), -ENOMEM);
  CHECK_OK(mpx_allocator_free(heap, &me, block));
  check_heap(heap);
  /* Not on the hot path: some looks for thousands of slabs. */
  headroom = UINT64_MAX;
  headroom_looks = 0;
  for (int i = 0; i < 100; i++)
    block = allocate(heap, &me, MIB, false);
  CHECK(headroom_looks <= 4);
  drop_heap(heap);
}

/* ---- memory ---------------------------------------------------------------------------------- */

static size_t resident_bytes(mpx_allocator *heap) {
  size_t page = mpx_os_page_size(), pages = heap->unit_count * (size_t)MPX_UNIT_SIZE / page;
  unsigned char *map = calloc(pages, 1);
  CHECK(map && mincore(heap->data, pages * page, map) == 0);
  size_t count = 0;
  for (size_t i = 0; i < pages; i++)
    count += map[i] & 1;
  free(map);
  return count * page;
}

TEST(memory_is_there_before_a_block_and_gone_after_it) {
  mpx_allocator *heap = new_heap(256 * MIB);
  CHECK_EQ(resident_bytes(heap), 0);
  void *large = allocate(heap, &me, 40 * MIB, false);
  CHECK_EQ(resident_bytes(heap), 40 * MIB);
  CHECK_OK(mpx_allocator_free(heap, &me, large));
  CHECK_EQ(resident_bytes(heap), 0);
  void *small = allocate(heap, &me, 64, false);
  CHECK_EQ(resident_bytes(heap), 16 * KIB);
  CHECK_EQ(committed_at_once, 16 * KIB);
  CHECK_OK(mpx_allocator_free(heap, &me, small));
  CHECK_EQ(resident_bytes(heap), figures(heap).committed_bytes);
  static void *blocks[50000];
  for (size_t i = 0; i < 50000; i++)
    blocks[i] = allocate(heap, &me, 16 + i % 3000, i % 2);
  CHECK_EQ(resident_bytes(heap), figures(heap).committed_bytes);
  for (size_t i = 0; i < 50000; i++)
    CHECK_OK(mpx_allocator_free(heap, &me, blocks[i]));
  CHECK_EQ(resident_bytes(heap), figures(heap).committed_bytes);
  CHECK(figures(heap).committed_bytes <= 8 * MIB);
  CHECK_OK(mpx_allocator_trim(heap, &me));
  CHECK_EQ(resident_bytes(heap), 0);
  check_empty_and_drop(heap);
}

TEST(a_block_that_comes_and_goes_costs_no_system_call) {
  mpx_allocator *heap = new_heap(256 * MIB);
  static const size_t sizes[] = {16, 64, 1000, 5000, 30000, 40000, 1 << 20, 3 << 20};
  for (size_t k = 0; k < sizeof sizes / sizeof sizes[0]; k++) {
    for (int i = 0; i < 10; i++) {
      if (i == 1)
        committed_at_once = 0;
      CHECK_OK(mpx_allocator_free(heap, &me, allocate(heap, &me, sizes[k], k % 2)));
    }
    CHECK_EQ(committed_at_once, 0);
  }
  check_empty_and_drop(heap);
}

/* ---- much of everything ---------------------------------------------------------------------- */

enum { LIVE = 3000 };

static void random_operations(mpx_allocator *heap, uint64_t seed, int count, bool verify) {
  mpx_caller caller = member((uint32_t)seed);
  void **blocks = calloc(LIVE, sizeof *blocks);
  size_t *sizes = calloc(LIVE, sizeof *sizes);
  CHECK(blocks && sizes);
  for (int i = 0; i < count; i++) {
    size_t k = (size_t)(random_next(&seed) % LIVE);
    if (blocks[k]) {
      CHECK(has_stamp(blocks[k], sizes[k], (uint64_t)(uintptr_t)blocks[k]));
      CHECK_OK(mpx_allocator_free(heap, &caller, blocks[k]));
      blocks[k] = NULL;
    } else {
      sizes[k] = random_size(&seed);
      blocks[k] = allocate(heap, &caller, sizes[k], seed >> 20 & 1);
      put_stamp(blocks[k], sizes[k], (uint64_t)(uintptr_t)blocks[k]);
      if (seed >> 21 & 1)
        CHECK_OK(mpx_allocator_share(heap, blocks[k]));
    }
    if (verify && i % 500 == 0)
      check_heap(heap);
  }
  for (size_t k = 0; k < LIVE; k++)
    if (blocks[k]) {
      CHECK(has_stamp(blocks[k], sizes[k], (uint64_t)(uintptr_t)blocks[k]));
      CHECK_OK(mpx_allocator_free(heap, &caller, blocks[k]));
    }
  free(blocks);
  free(sizes);
}

TEST_LIMIT(random_operations_keep_everything_consistent, 60) {
  for (uint64_t seed = 1; seed <= 3; seed++) {
    mpx_allocator *heap = new_heap(192 * MIB);
    random_operations(heap, seed, test_scale(20000), true);
    check_empty_and_drop(heap);
  }
}

static mpx_allocator *threads_heap;

static void *thread_body(void *seed) {
  random_operations(threads_heap, (uint64_t)(uintptr_t)seed, test_scale(40000), false);
  return NULL;
}

TEST_LIMIT(threads_share_the_heap, 60) {
  threads_heap = new_heap(512 * MIB);
  pthread_t threads[4];
  for (uintptr_t i = 0; i < 4; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, thread_body, (void *)(i + 1)), 0);
  for (int i = 0; i < 200; i++)
    check_heap(threads_heap);
  for (int i = 0; i < 4; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  check_empty_and_drop(threads_heap);
}

/* ---- the largest heap ------------------------------------------------------------------------ */

TEST(heap_of_256_gib) {
  SKIP_UNDER_VALGRIND("valgrind maps no 256 GiB");
  mpx_allocator *heap = new_heap((size_t)256 << 30);
  CHECK_EQ(heap->unit_count, 4u << 20);
  char *low = allocate(heap, &me, 100, false);
  /* All of the address space but the last unit, without memory behind it. */
  uint64_t state = mpx_state(MPX_UNIT_RUN, 0, 0, heap->unit_count - 2);
  uint32_t first;
  CHECK_OK(mpx_units_take(heap, state, me.member, (uint64_t)(heap->unit_count - 2) * MPX_UNIT_SIZE,
                          &first));
  char *high = allocate(heap, &other, 65536, true);
  CHECK_EQ(high - (char *)heap->data, ((ptrdiff_t)256 << 30) - 65536);
  memset(high, 1, 65536);
  CHECK(figures(heap).used_bytes > (uint64_t)255 << 30);
  check_heap(heap);
  CHECK_OK(mpx_allocator_reap(heap, &other, me.member));
  CHECK_OK(mpx_allocator_free(heap, &me, high));
  CHECK_OK(mpx_allocator_free(heap, &me, low));
  check_empty_and_drop(heap);
}
