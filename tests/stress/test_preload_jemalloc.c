/* jemalloc as the malloc of the whole program: threads allocate in a preload function and again in
 * workers. Its locks are taken around a fork by atfork handlers, so no worker finds one held. */
#include "preload.h"

#include <jemalloc/jemalloc.h>
#include <pthread.h>

enum { THREADS = 4, BLOCKS = 64, ROUNDS = 10 };

typedef struct share {
  int number, first, sum;
} share;

/* Blocks of many sizes live side by side, and keep what was written to them. */
static bool churn(unsigned seed) {
  unsigned char *blocks[BLOCKS] = {NULL};
  size_t sizes[BLOCKS] = {0};
  bool good = true;
  for (int i = 0; i < ROUNDS * BLOCKS && good; i++) {
    seed = seed * 1664525u + 1013904223u;
    size_t at = (seed >> 8) % BLOCKS, size = 1 + (seed >> 16) % 20000;
    good = !blocks[at] || (blocks[at][0] == at && blocks[at][sizes[at] - 1] == at);
    free(blocks[at]);
    blocks[at] = malloc(size);
    sizes[at] = size;
    if (!blocks[at])
      return false;
    blocks[at][0] = blocks[at][size - 1] = (unsigned char)at;
  }
  for (int i = 0; i < BLOCKS; i++)
    free(blocks[i]);
  return good;
}

static void *do_share(void *argument) {
  share *s = argument;
  int *parts = malloc(PARTS * sizeof *parts);
  for (int part = s->first; parts && part < PARTS; part += THREADS) {
    parts[part] = part_of(s->number, part);
    s->sum += churn((unsigned)(s->number + part)) ? parts[part] : PARTS * 97;
  }
  free(parts);
  return NULL;
}

static int sum_by_threads(int number) {
  pthread_t threads[THREADS];
  share shares[THREADS];
  int sum = 0;
  for (int i = 0; i < THREADS; i++) {
    shares[i] = (share){.number = number, .first = i};
    CHECK_EQ(pthread_create(&threads[i], NULL, do_share, &shares[i]), 0);
  }
  for (int i = 0; i < THREADS; i++) {
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
    sum += shares[i].sum;
  }
  return sum;
}

static int preload_threads(void) {
  return answer_from(sum_by_threads(7)) != answer_of(7);
}

static int work(void *arg, size_t size) {
  (void)size;
  return answer_from(sum_by_threads(*(int *)arg));
}

/* Its own count of what this thread was given grows. */
static bool is_in_charge(void) {
  uint64_t before = 0, after = 0;
  size_t size = sizeof before;
  if (mallctl("thread.allocated", &before, &size, NULL, 0) != 0)
    return false;
  void *volatile block = malloc(5000);
  free(block);
  return mallctl("thread.allocated", &after, &size, NULL, 0) == 0 && after >= before + 5000;
}

static void skip_where_malloc_is_another(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  SKIP("sanitizers have a malloc of their own");
#endif
  SKIP_UNDER_VALGRIND("valgrind has a malloc of its own");
  CHECK(is_in_charge());
}

/* Threads that were joined are no threads left behind. */
TEST_LIMIT(threads_that_ended, 120) {
  mproc_preload *const preload[] = {preload_threads};
  skip_where_malloc_is_another();
  check_preload(preload, 1, "", work);
}

static void *allocate_for_ever(void *argument) {
  for (unsigned seed = 0;; seed++)
    if (!churn(seed))
      abort();
  return argument;
}

static int preload_busy_threads(void) {
  pthread_t thread;
  for (int i = 0; i < 2; i++)
    if (pthread_create(&thread, NULL, allocate_for_ever, NULL) != 0)
      return 1;
  return 0;
}

/* The server forks while its other threads are in malloc. */
TEST_LIMIT(threads_that_go_on, 120) {
  mproc_preload *const preload[] = {preload_threads, preload_busy_threads};
  skip_where_malloc_is_another();
  check_preload(preload, 2, "left 2 threads behind", work);
}

static int preload_background_thread(void) {
  bool on = true;
  return mallctl("background_thread", NULL, NULL, &on, sizeof on);
}

/* jemalloc has a thread of its own, and makes another one in workers. */
TEST_LIMIT(thread_of_jemalloc, 120) {
  mproc_preload *const preload[] = {preload_background_thread, preload_threads};
  skip_where_malloc_is_another();
  check_preload(preload, 2, "behind in the forkserver", work);
}
