/* Processes use one heap at random and are killed at random: nobody hangs, no block is handed
 * out twice, and in the end not a byte is lost.
 *
 * A worker keeps its books in shared memory: what it has, and what it is about to share or to
 * free. A block is allocated owned, written down, and shared then: so the books of a dead worker
 * tell all that it leaves to the family, except that the last block may have gone or not. */
#include "allocator_heap.h"
#include "in_child.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORKERS = 4, THREADS = 2, LIVE = 400, DOUBTS = 20000, MAILBOXES = 16 };

typedef struct book {
  void *_Atomic blocks[LIVE];
  void *_Atomic sharing;
  void *_Atomic ending;
  _Atomic uint64_t steps;
} book;

typedef struct world {
  mpx_allocator *heap;
  atomic_bool stop;
  bool lossy; /* also the ways that may lose a block to a kill */
  book books[WORKERS][THREADS];
  void *_Atomic mailboxes[MAILBOXES]; /* where workers swap blocks, to free each other's */
  /* The parent's: blocks that dead workers may or may not have ended or shared. */
  void *doubts[DOUBTS];
  size_t doubt_count;
} world;

typedef struct actor {
  world *w;
  book *book;
  mpx_caller caller;
  uint64_t seed;
} actor;

static uint64_t stamp_of(const void *block) {
  return (uint64_t)(uintptr_t)block ^ 0x5a5a;
}

static void end_block(actor *a, void *block) {
  size_t size = mpx_allocator_usable_size(a->w->heap, block);
  CHECK(size > 0);
  CHECK(has_stamp(block, size, stamp_of(block)));
  put_stamp(block, size, 0);
  atomic_store(&a->book->ending, block);
  CHECK_OK(mpx_allocator_free(a->w->heap, &a->caller, block));
  atomic_store(&a->book->ending, NULL);
}

static void begin_block(actor *a, size_t k, size_t size) {
  bool direct = a->w->lossy && a->seed >> 30 & 1;
  void *block = allocate(a->w->heap, &a->caller, size, !direct);
  put_stamp(block, mpx_allocator_usable_size(a->w->heap, block), stamp_of(block));
  if (direct) {
    atomic_store(&a->book->blocks[k], block);
    return;
  }
  atomic_store(&a->book->sharing, block);
  CHECK_OK(mpx_allocator_share(a->w->heap, block));
  atomic_store(&a->book->blocks[k], block);
  atomic_store(&a->book->sharing, NULL);
}

/* Some owned blocks that nobody writes down: a reaper must find them. */
static void play_with_owned(actor *a) {
  void *blocks[20];
  int count = 1 + (int)(random_next(&a->seed) % 20);
  for (int i = 0; i < count; i++)
    blocks[i] = allocate(a->w->heap, &a->caller, random_size(&a->seed), true);
  for (int i = 0; i < count; i++)
    CHECK_OK(mpx_allocator_free(a->w->heap, &a->caller, blocks[i]));
}

static void act(actor *a) {
  size_t k = (size_t)(random_next(&a->seed) % LIVE);
  uint64_t dice = random_next(&a->seed) % 100;
  void *block = atomic_load(&a->book->blocks[k]);
  if (dice == 0) {
    play_with_owned(a);
  } else if (block && dice < 10 && a->w->lossy) {
    atomic_store(&a->book->blocks[k], NULL);
    block = atomic_exchange(&a->w->mailboxes[dice], block); /* a kill here loses one or two */
    atomic_store(&a->book->blocks[k], block);
  } else if (block) {
    atomic_store(&a->book->ending, block);
    atomic_store(&a->book->blocks[k], NULL);
    end_block(a, block);
  } else {
    begin_block(a, k, random_size(&a->seed));
  }
  atomic_fetch_add_explicit(&a->book->steps, 1, memory_order_relaxed);
}

static void *act_until_stopped(void *argument) {
  actor *a = argument;
  while (!atomic_load_explicit(&a->w->stop, memory_order_relaxed))
    act(a);
  return NULL;
}

/* One worker: THREADS threads of one member. */
static void work(world *w, int number, uint32_t life) {
  pthread_t threads[THREADS];
  actor actors[THREADS];
  for (uint32_t i = 0; i < THREADS; i++) {
    actors[i] = (actor){w, &w->books[number][i], member(life), life * 2654435761u + i * 40503u + 1};
    actors[i].caller.lane = (uint32_t)number * THREADS + i;
    CHECK_EQ(pthread_create(&threads[i], NULL, act_until_stopped, &actors[i]), 0);
  }
  for (int i = 0; i < THREADS; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
}

static pid_t start(void (*body)(world *, int, uint32_t), world *w, int number, uint32_t life) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    body(w, number, life);
    _exit(0);
  }
  return pid;
}

static void doubt(world *w, book *b) {
  void *sharing = atomic_exchange(&b->sharing, NULL), *ending = atomic_exchange(&b->ending, NULL);
  CHECK(w->doubt_count + 2 <= DOUBTS);
  if (sharing)
    w->doubts[w->doubt_count++] = sharing;
  if (ending)
    w->doubts[w->doubt_count++] = ending;
}

static void reap(world *w, int number, uint32_t life) {
  (void)number;
  mpx_caller caller = member(1000000 + life);
  CHECK_OK(mpx_allocator_reap(w->heap, &caller, member(life).member));
}

static void sleep_for(uint64_t ns) {
  nanosleep(&(struct timespec){.tv_nsec = (long)ns}, NULL);
}

/* Kills a worker, or the reaper of one, and starts another in its place. */
static void kill_one(world *w, pid_t *pids, uint32_t *lives, uint32_t life, uint64_t *seed) {
  int number = (int)(random_next(seed) % WORKERS);
  CHECK(kill(pids[number], SIGKILL) == 0);
  CHECK(WIFSIGNALED(status_of(pids[number])));
  for (int i = 0; i < THREADS; i++)
    doubt(w, &w->books[number][i]);
  if (life % 3 == 0) {
    pid_t reaper = start(reap, w, number, lives[number]);
    sleep_for(random_next(seed) % 300000);
    CHECK(kill(reaper, SIGKILL) == 0);
    (void)status_of(reaper);
    reap(w, number, 1000000 + lives[number]);
  }
  reap(w, number, lives[number]);
  lives[number] = life;
  pids[number] = start(work, w, number, life);
}

static bool is_in_a_book(const world *w, const void *block) {
  for (int n = 0; n < WORKERS * THREADS; n++)
    for (int k = 0; k < LIVE; k++)
      if (w->books[n / THREADS][n % THREADS].blocks[k] == block)
        return true;
  for (int k = 0; k < MAILBOXES; k++)
    if (w->mailboxes[k] == block)
      return true;
  return false;
}

/* Frees all that the books know of; returns the blocks left. */
static uint64_t settle(world *w) {
  actor a = {w, &w->books[0][0], member(3000000), 1};
  CHECK_EQ(figures(w->heap).owned_bytes, 0);
  for (size_t i = 0; i < w->doubt_count; i++)
    if (mpx_allocator_usable_size(w->heap, w->doubts[i]) > 0 && !is_in_a_book(w, w->doubts[i]))
      CHECK_OK(mpx_allocator_free(w->heap, &a.caller, w->doubts[i]));
  for (int n = 0; n < WORKERS * THREADS; n++)
    for (int k = 0; k < LIVE; k++)
      if (w->books[n / THREADS][n % THREADS].blocks[k])
        end_block(&a, w->books[n / THREADS][n % THREADS].blocks[k]);
  for (int k = 0; k < MAILBOXES; k++)
    if (w->mailboxes[k])
      end_block(&a, w->mailboxes[k]);
  check_heap(w->heap);
  return figures(w->heap).block_count;
}

static void storm(int kills, bool lossy) {
  size_t size = (sizeof(world) / MPX_UNIT_SIZE + 1) * MPX_UNIT_SIZE;
  world *w = shared_memory(size);
  w->heap = new_heap(512 * MIB);
  w->lossy = lossy;
  pid_t pids[WORKERS];
  uint32_t lives[WORKERS];
  uint64_t seed = (uint64_t)time(NULL) * 2 + 1;
  printf("# seed %llu\n", (unsigned long long)seed);
  for (int i = 0; i < WORKERS; i++) {
    lives[i] = (uint32_t)i + 1;
    pids[i] = start(work, w, i, lives[i]);
  }
  for (int i = 0; i < kills; i++) {
    sleep_for(random_next(&seed) % 4000000);
    kill_one(w, pids, lives, (uint32_t)(WORKERS + 1 + i), &seed);
    if (i % 20 == 0)
      check_heap(w->heap);
  }
  atomic_store(&w->stop, true);
  for (int i = 0; i < WORKERS; i++)
    CHECK_EQ(status_of(pids[i]), 0);
  uint64_t steps = 0;
  for (int n = 0; n < WORKERS * THREADS; n++)
    steps += w->books[n / THREADS][n % THREADS].steps;
  uint64_t lost = settle(w);
  printf("# %d kills, %llu steps, %llu repairs, %llu blocks lost, %llu KiB kept in reserve\n",
         kills, (unsigned long long)steps, (unsigned long long)figures(w->heap).repair_count,
         (unsigned long long)lost, (unsigned long long)figures(w->heap).committed_bytes / 1024);
  if (lossy) {
    /* At most what was in the hands of each thread that died: two blocks while it swapped them. */
    CHECK(lost <= (uint64_t)kills * THREADS * 2);
    drop_heap(w->heap);
  } else {
    CHECK_EQ(lost, 0);
    CHECK(figures(w->heap).committed_bytes <= 16 * MIB);
    check_empty_and_drop(w->heap);
  }
  CHECK(munmap(w, size) == 0);
}

TEST_LIMIT(kills_lose_nothing_that_is_shared_last, 120) {
  storm(test_scale(300), false);
}

TEST_LIMIT(kills_lose_at_most_what_was_in_hand, 120) {
  storm(test_scale(300), true);
}
