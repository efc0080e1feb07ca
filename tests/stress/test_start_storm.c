/* A tree of starters under random fire: each node starts two more by random methods, some as
 * daemons, and anybody is killed at any time. Nothing hangs, and in the end everything is gone. */
#include "harness.h"
#include "members.h"

#include <glob.h>
#include <pthread.h>
#include <stdatomic.h>

enum { DEPTH = 3, NODES = 64, NODE_MS = 10000 };

typedef struct board {
  _Atomic int count;
  _Atomic int64_t pids[NODES]; /* who began to run in this round, in order */
  _Atomic int hung;
} board;

typedef struct node {
  board *b;
  int depth;
  unsigned seed;
} node;

static unsigned random_below(unsigned *seed, unsigned limit) {
  *seed = *seed * 1664525u + 1013904223u;
  return (*seed >> 8) % limit;
}

static void sign_in(board *b) {
  int place = b->count++;
  if (place < NODES)
    b->pids[place] = getpid();
}

static int live(void *arg, size_t size);

/* A start may fail when what it starts is shot at once: with that error, and no other. */
static mproc_process *try_start(const node *parent, unsigned *seed, const char *method) {
  const node child = {.b = parent->b, .depth = parent->depth - 1, .seed = *seed};
  const mproc_process_options options = {
      .method = method ? method : all_methods[random_below(seed, METHODS)],
      .daemon = random_below(seed, 4) == 0};
  mproc_process *process = create_with(&options, live, &child, sizeof child);
  int r = mproc_process_start(process);
  if (r == 0)
    return process;
  CHECK_EQ(r, MPROC_EBOOT);
  CHECK_EQ(mproc_process_close(process), 0);
  return NULL;
}

/* ThreadSanitizer forbids threads in a child that was forked while its parent had some. */
static void *start_one_in_a_thread(void *argument) {
  node self = *(node *)argument;
  return try_start(&self, &self.seed, TEST_HAS_TSAN ? "spawn" : NULL);
}

static void join_in_time(board *b, mproc_process *process) {
  mproc_status status;
  if (!process)
    return;
  if (mproc_process_join(process, NODE_MS) != 0) {
    b->hung++;
    (void)mproc_process_kill(process);
    (void)mproc_process_join(process, NODE_MS);
  }
  CHECK_EQ(mproc_process_status(process, &status), 0);
  CHECK(status.state == MPROC_STATE_EXITED || status.state == MPROC_STATE_SIGNALED);
  if (status.state == MPROC_STATE_EXITED)
    CHECK_EQ(status.code, 0);
  CHECK_EQ(mproc_process_close(process), 0);
}

static int live(void *arg, size_t size) {
  node self = *(node *)arg;
  pthread_t thread;
  void *second = NULL;
  (void)size;
  sign_in(self.b);
  char *owned = mproc_heap_alloc_owned(1 + random_below(&self.seed, 200000));
  char *shared = mproc_heap_alloc_owned(100);
  CHECK(owned && shared);
  if (self.depth > 0) {
    mproc_process *first = try_start(&self, &self.seed, NULL);
    CHECK_EQ(pthread_create(&thread, NULL, start_one_in_a_thread, &self), 0);
    CHECK_EQ(pthread_join(thread, &second), 0);
    join_in_time(self.b, first);
    join_in_time(self.b, second);
  } else {
    sleep_ms((int)random_below(&self.seed, 10));
  }
  CHECK_EQ(mproc_heap_free(shared), 0);
  return 0;
}

/* ---- the case -------------------------------------------------------------------------------- */

static void shoot(board *b, unsigned *seed, int shots) {
  for (int i = 0; i < shots; i++) {
    sleep_ms((int)random_below(seed, 6));
    int count = b->count < NODES ? b->count : NODES;
    int64_t pid = count > 0 ? b->pids[random_below(seed, (unsigned)count)] : 0;
    if (pid > 0 && getpgid((pid_t)pid) == getpgrp()) /* no stranger with a pid used again */
      (void)kill((pid_t)pid, SIGKILL);
  }
}

/* Only pids of this round are on the board, and the runner, which collects orphans, gives none
 * of them away before they are dead: what is shot is one of the tree. */
static void one_round(board *b, unsigned *seed) {
  mproc_process *roots[METHODS];
  b->count = 0;
  for (int i = 0; i < NODES; i++)
    b->pids[i] = 0;
  for (int i = 0; i < METHODS; i++) {
    const node root = {.b = b, .depth = DEPTH, .seed = *seed + (unsigned)i};
    roots[i] = start_by(all_methods[i], live, &root, sizeof root);
  }
  shoot(b, seed, 1 + (int)random_below(seed, 12));
  for (int i = 0; i < METHODS; i++)
    join_in_time(b, roots[i]);
  CHECK_EQ(b->hung, 0);
}

/* ThreadSanitizer makes a file when a program starts, and unlinks it at once, if nobody shoots. */
static void remove_files_of_tsan(void) {
  glob_t found;
  if (glob(test_tmp_path("tsan.rodata.*"), 0, NULL, &found) != 0)
    return;
  for (size_t i = 0; i < found.gl_pathc; i++)
    (void)unlink(found.gl_pathv[i]);
  globfree(&found);
}

TEST_LIMIT(starts_under_fire, 600) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  unsigned seed = (unsigned)getpid();
  printf("# seed %u\n", seed);
  fflush(stdout);
  check_family_works();
  check_alone(NODE_MS);
  const holdings before = count_holdings();
  for (int rounds = test_scale(300); rounds > 0; rounds--) {
    one_round(b, &seed);
    check_drained(&before, NODE_MS, "a round");
  }
  check_family_works();
  CHECK_EQ(mproc_heap_free(b), 0);
  if (TEST_HAS_TSAN)
    remove_files_of_tsan();
}

/* ---- several starters in one process --------------------------------------------------------- */

enum { STARTERS = 8 };

static void *start_many(void *argument) {
  unsigned seed = (unsigned)(uintptr_t)argument;
  for (int i = test_scale(60); i > 0; i--) {
    const int code = (int)random_below(&seed, 200);
    check_exited(
        start_by(all_methods[random_below(&seed, METHODS)], return_code, &code, sizeof code), code);
  }
  return NULL;
}

TEST_LIMIT(eight_starters_at_once, 300) {
  pthread_t threads[STARTERS];
  check_family_works();
  check_alone(NODE_MS);
  const holdings before = count_holdings();
  for (int i = 0; i < STARTERS; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, start_many, (void *)(uintptr_t)(i + 1)), 0);
  for (int i = 0; i < STARTERS; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  check_drained(&before, NODE_MS, "many starts");
}
