/* A process dies at each named point of the allocator while another one goes on: then the heap is
 * consistent, what the dead one owned comes back, and not a byte is lost. */
#include "allocator_heap.h"
#include "in_child.h"

#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { BLOCKS = 210, NEVER_HIT = 3 };

/* What the victim had, in shared memory, so that it outlives the victim. */
typedef struct ledger {
  void *_Atomic family[BLOCKS]; /* blocks of the family that the victim knew of */
  void *_Atomic sharing;        /* being handed to the family */
  void *_Atomic ending;         /* being freed */
  _Atomic uint64_t progress;    /* of the bystander */
  atomic_bool stop;
} ledger;

typedef struct world {
  mpx_allocator *heap;
  ledger *ledger;
  pid_t bystander;
} world;

static const mpx_caller us = {.member = 1ull << 40 | 1, .lane = 0};
static const mpx_caller victim = {.member = 2ull << 40 | 1, .lane = 1};
static const mpx_caller third = {.member = 3ull << 40 | 1, .lane = 1};
static const mpx_caller bystander = {.member = 4ull << 40 | 1, .lane = 2};

/* ---- the victim ------------------------------------------------------------------------------ */

static void end_block(world *w, void *block) {
  atomic_store(&w->ledger->ending, block);
  CHECK_OK(mpx_allocator_free(w->heap, &victim, block));
  atomic_store(&w->ledger->ending, NULL);
}

static void share_block(world *w, int slot, void *block) {
  atomic_store(&w->ledger->sharing, block);
  CHECK_OK(mpx_allocator_share(w->heap, block));
  atomic_store(&w->ledger->family[slot], block);
  atomic_store(&w->ledger->sharing, NULL);
}

static size_t size_of_slot(int slot) {
  static const size_t sizes[] = {1000, 1000, 40, 1000, 9000, 1000, 1000};
  return slot == 0 ? MIB : slot == 1 ? 100 * KIB : sizes[slot % 7];
}

/* By every way through the allocator: slabs come and go, some blocks stay owned. */
static void live_once(world *w) {
  for (int i = 0; i < BLOCKS; i++) {
    size_t size = size_of_slot(i);
    void *owned = allocate(w->heap, &victim, size, true);
    if (i % 3 == 0)
      share_block(w, i, owned);
    else if (i % 3 == 1)
      end_block(w, owned);
    if (i % 3 != 0)
      atomic_store(&w->ledger->family[i], allocate(w->heap, &victim, size, false));
  }
  for (int i = 0; i < BLOCKS; i++) {
    void *block = atomic_exchange(&w->ledger->family[i], NULL);
    end_block(w, block);
  }
  CHECK_OK(mpx_allocator_trim(w->heap, &victim));
}

static void live(world *w) {
  for (int i = 0; i < 20; i++)
    live_once(w);
}

/* Runs `body` in a process that is to die at `point`, or by itself when that is NULL. */
static void die_in(world *w, const char *point, int nth, void (*body)(world *)) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    char text[128];
    snprintf(text, sizeof text, "%s:%d", point, nth);
    if (point)
      setenv("MPROC_CRASH", text, 1);
    body(w);
    if (!point)
      raise(SIGKILL);
    _exit(NEVER_HIT);
  }
  int status = status_of(pid);
  if (!WIFSIGNALED(status))
    printf("# %s:%d ended by itself, code %d\n", point, nth, WEXITSTATUS(status));
  CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
}

/* ---- the bystander --------------------------------------------------------------------------- */

static void stand_by(world *w) {
  enum { LIVE = 300 };
  static void *blocks[LIVE];
  static size_t sizes[LIVE];
  uint64_t seed = 5;
  while (!atomic_load(&w->ledger->stop)) {
    size_t k = (size_t)(random_next(&seed) % LIVE);
    if (blocks[k]) {
      CHECK(has_stamp(blocks[k], sizes[k], k));
      CHECK_OK(mpx_allocator_free(w->heap, &bystander, blocks[k]));
    }
    sizes[k] = 1 + (size_t)(random_next(&seed) % 3000);
    blocks[k] = allocate(w->heap, &bystander, sizes[k], k % 2);
    put_stamp(blocks[k], sizes[k], k);
    atomic_fetch_add(&w->ledger->progress, 1);
  }
  for (size_t k = 0; k < LIVE; k++)
    if (blocks[k])
      CHECK_OK(mpx_allocator_free(w->heap, &bystander, blocks[k]));
}

static void wait_for_progress(world *w, uint64_t steps) {
  uint64_t target = atomic_load(&w->ledger->progress) + steps;
  while (atomic_load(&w->ledger->progress) < target)
    nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
}

static world make_world(void) {
  world w = {.heap = new_heap(64 * MIB), .ledger = shared_memory(MPX_UNIT_SIZE)};
  w.bystander = fork();
  CHECK(w.bystander >= 0);
  if (w.bystander == 0) {
    stand_by(&w);
    _exit(0);
  }
  wait_for_progress(&w, 100);
  return w;
}

/* The bystander goes on, and ends without having seen anything strange. */
static void end_bystander(world *w) {
  wait_for_progress(w, 500);
  atomic_store(&w->ledger->stop, true);
  CHECK_EQ(status_of(w->bystander), 0);
}

/* Every block that the dead one knew of is there, everything else is not. */
static void settle(world *w, bool shared) {
  check_heap(w->heap);
  CHECK_EQ(figures(w->heap).owned_bytes, 0);
  for (int i = 0; i < BLOCKS; i++)
    if (w->ledger->family[i] && w->ledger->family[i] != w->ledger->sharing)
      CHECK_OK(mpx_allocator_free(w->heap, &us, w->ledger->family[i]));
  if (w->ledger->sharing && shared)
    CHECK_OK(mpx_allocator_free(w->heap, &us, w->ledger->sharing));
  else if (w->ledger->sharing)
    CHECK_EQ(mpx_allocator_usable_size(w->heap, w->ledger->sharing), 0);
  if (w->ledger->ending)
    CHECK_EQ(mpx_allocator_usable_size(w->heap, w->ledger->ending), 0);
}

static void end_world(world *w) {
  check_empty_and_drop(w->heap);
  CHECK(munmap(w->ledger, MPX_UNIT_SIZE) == 0);
}

/* ---- the points ------------------------------------------------------------------------------ */

static void crash_at(const char *point, int nth) {
  world w = make_world();
  die_in(&w, point, nth, live);
  wait_for_progress(&w, 200);
  check_heap(w.heap);
  CHECK_OK(mpx_allocator_reap(w.heap, &us, victim.member));
  check_heap(w.heap);
  end_bystander(&w);
  settle(&w, strcmp(point, "heap.share.done") == 0 || strcmp(point, "heap.share.run") == 0);
  if (strcmp(point, "heap.run.done") == 0) {
    /* The one instant that loses a block: it was the family's before its allocation returned. */
    CHECK_EQ(figures(w.heap).block_count, 1);
    drop_heap(w.heap);
    CHECK(munmap(w.ledger, MPX_UNIT_SIZE) == 0);
    return;
  }
  if (strncmp(point, "heap.run.", 9) != 0)
    CHECK(figures(w.heap).repair_count > 0);
  end_world(&w);
}

TEST_LIMIT(a_death_at_each_point_loses_nothing, 120) {
  static const char *const points[] = {
      "heap.alloc.pending",   "heap.alloc.owned",  "heap.alloc.used",    "heap.alloc.counted",
      "heap.slab.taken",      "heap.slab.backed",  "heap.slab.unlisted", "heap.slab.released",
      "heap.free.unused",     "heap.free.counted", "heap.share.found",   "heap.share.done",
      "heap.unit.published",  "heap.unit.mapped",  "heap.unit.freed",    "heap.unit.owner_changed",
      "heap.run.taken",       "heap.run.backed",   "heap.run.closing",   "heap.run.unbacked",
      "heap.run.decommitted",
  };
  static const int nths[] = {1, 2, 9};
  SKIP_WITHOUT_CRASH_POINTS();
  for (size_t i = 0; i < sizeof points / sizeof points[0]; i++)
    for (size_t k = 0; k < sizeof nths / sizeof nths[0]; k++)
      if (nths[k] < 9 || strncmp(points[i], "heap.run.", 9) != 0)
        crash_at(points[i], nths[k]);
  crash_at("heap.share.run", 1);
  crash_at("heap.run.taken", 3); /* the first that is to be the family's */
}

TEST(the_instant_that_loses_a_block) {
  SKIP_WITHOUT_CRASH_POINTS();
  crash_at("heap.run.done", 3); /* the first two are owned and come back */
}

static void take_owned(world *w) {
  for (int i = 0; i < 300; i++)
    put_stamp(allocate(w->heap, &victim, 500, true), 500, 1);
  (void)allocate(w->heap, &victim, MIB, true);
}

static void reap_victim(world *w) {
  CHECK_OK(mpx_allocator_reap(w->heap, &third, victim.member));
}

TEST_LIMIT(a_reaper_may_die_too, 60) {
  static const char *const points[] = {"heap.reap.unused",   "heap.reap.cleared",
                                       "heap.reap.disowned", "heap.unit.owner_changed",
                                       "heap.run.closing",   "heap.run.decommitted"};
  SKIP_WITHOUT_CRASH_POINTS();
  for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
    world w = make_world();
    die_in(&w, NULL, 1, take_owned);
    die_in(&w, points[i], 1, reap_victim);
    wait_for_progress(&w, 200);
    CHECK_OK(mpx_allocator_reap(w.heap, &us, victim.member));
    CHECK_OK(mpx_allocator_reap(w.heap, &us, third.member));
    end_bystander(&w);
    settle(&w, false);
    end_world(&w);
  }
}

static void allocate_once(world *w) {
  (void)mpx_units_lock(w->heap);
  mpx_units_unlock(w->heap);
  (void)mpx_arena_lock(w->heap, victim.lane);
  mpx_arena_unlock(w->heap, victim.lane);
}

/* The lock of the dead one goes to one who dies while it repairs, and so on. */
TEST_LIMIT(a_repairer_may_die_too, 60) {
  SKIP_WITHOUT_CRASH_POINTS();
  for (int nth = 1; nth <= 60; nth += 7) {
    world w = make_world();
    end_bystander(&w);                       /* it would repair before us */
    die_in(&w, "heap.unit.mapped", 4, live); /* the first three are runs */
    die_in(&w, "heap.map.half_rebuilt", nth, allocate_once);
    die_in(&w, "heap.map.half_rebuilt", nth + 2, allocate_once);
    die_in(&w, "heap.arena.half_rebuilt", 1, allocate_once);
    die_in(&w, "heap.arena.half_rebuilt", 1, allocate_once);
    CHECK_OK(mpx_allocator_reap(w.heap, &us, victim.member));
    settle(&w, false);
    end_world(&w);
  }
}

/* A stopped process is alive and keeps its arena; who allocates takes another one. */
TEST(a_stopped_holder_delays_no_allocation) {
  SKIP_WITHOUT_CRASH_POINTS();
  mpx_allocator *heap = new_heap(64 * MIB);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    setenv("MPROC_CRASH", "heap.alloc.used:stop", 1);
    (void)allocate(heap, &victim, 100, true);
    _exit(0);
  }
  int status;
  CHECK_EQ(waitpid(pid, &status, WUNTRACED), pid);
  CHECK(WIFSTOPPED(status));
  void *block = allocate(heap, &third, 100, false);
  CHECK_OK(mpx_allocator_free(heap, &third, block));
  CHECK(figures(heap).limit_bytes == 64 * MIB);
  kill(pid, SIGCONT);
  CHECK_EQ(status_of(pid), 0);
  CHECK_OK(mpx_allocator_reap(heap, &us, victim.member));
  check_empty_and_drop(heap);
}

/* ---- every instruction ----------------------------------------------------------------------- */

/* One step of a member's life, and how many blocks of the family there are before and after it. */
typedef struct step {
  const char *name;
  void (*prepare)(mpx_allocator *heap);
  void (*run)(mpx_allocator *heap);
  uint64_t before, after;
} step;

static void *prepared[80];

static void prepare_nothing(mpx_allocator *heap) {
  (void)heap;
}
static void prepare_own_slab(mpx_allocator *heap) {
  prepared[0] = allocate(heap, &victim, 500, true);
}
static void prepare_family_slab(mpx_allocator *heap) {
  prepared[0] = allocate(heap, &victim, 500, false);
}
static void prepare_two_slabs(mpx_allocator *heap) {
  for (int i = 0; i < 34; i++)
    prepared[i] = allocate(heap, &victim, 2000, false);
  for (int i = 0; i < 31; i++)
    CHECK_OK(mpx_allocator_free(heap, &victim, prepared[i]));
}
static void prepare_run(mpx_allocator *heap) {
  prepared[0] = allocate(heap, &victim, 300 * KIB, false);
}
static void prepare_own_run(mpx_allocator *heap) {
  prepared[0] = allocate(heap, &victim, 300 * KIB, true);
}
static void prepare_dead(mpx_allocator *heap) {
  for (int i = 0; i < 3; i++)
    prepared[i] = allocate(heap, &third, 500, true);
  prepared[3] = allocate(heap, &third, 100 * KIB, true);
  CHECK_OK(mpx_allocator_share(heap, prepared[1]));
}

static void run_alloc(mpx_allocator *heap) {
  (void)allocate(heap, &victim, 500, false);
}
static void run_alloc_owned(mpx_allocator *heap) {
  (void)allocate(heap, &victim, 500, true);
}
static void run_alloc_run(mpx_allocator *heap) {
  (void)allocate(heap, &victim, 300 * KIB, false);
}
static void run_free(mpx_allocator *heap) {
  CHECK_OK(mpx_allocator_free(heap, &victim, prepared[0]));
}
static void run_free_last(mpx_allocator *heap) {
  CHECK_OK(mpx_allocator_free(heap, &victim, prepared[31]));
}
static void run_share(mpx_allocator *heap) {
  CHECK_OK(mpx_allocator_share(heap, prepared[0]));
}
static void run_reap(mpx_allocator *heap) {
  CHECK_OK(mpx_allocator_reap(heap, &victim, third.member));
}

/* The victim dies after `count` instructions of the step, or lives when it has fewer. Returns
 * how many it was let to do. */
static long die_after(mpx_allocator *heap, const step *s, long count) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    clearenv(); /* where the crash points look each time they are passed */
    s->prepare(heap);
    if (ptrace(PTRACE_TRACEME, 0, NULL, NULL) < 0)
      _exit(NEVER_HIT);
    raise(SIGSTOP);
    s->run(heap);
    _exit(0);
  }
  int status = status_of(pid);
  if (!WIFSTOPPED(status))
    SKIP("ptrace is not allowed here");
  long done = 0;
  while (done < count && WIFSTOPPED(status)) {
    CHECK(ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) == 0);
    status = status_of(pid);
    done++;
  }
  if (WIFSTOPPED(status)) {
    CHECK(kill(pid, SIGKILL) == 0);
    (void)status_of(pid);
  } else {
    CHECK_EQ(status, 0);
  }
  return done;
}

/* The heap of a step is small and poor in reserve, so that it takes all the long ways. Adds to
 * *effects when the step had its effect. */
static long survive_death_after(const step *s, long count, long *effects) {
  mpx_allocator *heap = new_heap(2 * MIB);
  heap->dirty_limit = 4;
  heap->idle_limit = 0;
  heap->commit_credit = 256 * MIB; /* no reading of the cgroup's files */
  long instructions = die_after(heap, s, count);
  check_heap(heap);
  CHECK_OK(mpx_allocator_reap(heap, &us, victim.member));
  CHECK_OK(mpx_allocator_reap(heap, &us, third.member));
  check_heap(heap);
  mproc_heap_statistics f = figures(heap);
  if (f.block_count != s->before && f.block_count != s->after)
    printf("# %s, %ld instructions: %llu blocks\n", s->name, count,
           (unsigned long long)f.block_count);
  CHECK(f.block_count == s->before || f.block_count == s->after);
  *effects += f.block_count == s->after;
  CHECK_EQ(f.owned_bytes, 0);
  /* What is backed serves blocks or waits in the reserve. */
  CHECK_OK(mpx_allocator_trim(heap, &us));
  CHECK(f.block_count > 0 || figures(heap).committed_bytes == 0);
  check_heap(heap);
  drop_heap(heap);
  return instructions;
}

TEST_LIMIT(a_death_at_any_instruction_loses_nothing, 120) {
  static const step steps[] = {
      {"alloc", prepare_family_slab, run_alloc, 1, 2},
      {"alloc, new slab", prepare_nothing, run_alloc, 0, 1},
      {"alloc owned", prepare_own_slab, run_alloc_owned, 0, 0},
      {"alloc owned, new slab", prepare_nothing, run_alloc_owned, 0, 0},
      {"free", prepare_family_slab, run_free, 1, 0},
      {"free owned", prepare_own_slab, run_free, 0, 0},
      {"free, slab goes", prepare_two_slabs, run_free_last, 3, 2},
      {"share", prepare_own_slab, run_share, 0, 1},
      {"alloc run", prepare_nothing, run_alloc_run, 0, 1},
      {"free run", prepare_run, run_free, 1, 0},
      {"free owned run", prepare_own_run, run_free, 0, 0},
      {"share run", prepare_own_run, run_share, 0, 1},
      {"reap", prepare_dead, run_reap, 1, 1},
  };
  const char *all = getenv("MPROC_TEST_EVERY_INSTRUCTION");
  uint64_t seed = (uint64_t)time(NULL);
  printf("# seed %llu; MPROC_TEST_EVERY_INSTRUCTION=1 tries them all\n", (unsigned long long)seed);
  for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
    long effects = 0, length = survive_death_after(&steps[i], LONG_MAX, &effects);
    long tries = all ? length : test_scale(12);
    for (long k = 0; k < tries; k++)
      survive_death_after(&steps[i], all ? k : (long)(random_next(&seed) % (uint64_t)length),
                          &effects);
    printf("# %s: %ld deaths in %ld instructions, %ld after the effect\n", steps[i].name, tries,
           length, effects - 1);
    fflush(stdout);
  }
}
