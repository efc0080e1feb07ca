/* Slots, cells and life words: who is dead and who only looks like it. */
#include "harness.h"
#include "in_child.h"
#include "members.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/resource.h>

enum { ALONE_MS = 1000 };

/* In the shared heap. */
typedef struct board {
  _Atomic mpx_member member; /* of a child that is a member, or of its stranger */
  _Atomic int word;
  _Atomic int deaths, rounds;
  void *owned;
} board;

static board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  return b;
}

static mpx_member await_member(board *b) {
  AWAIT(b->member != 0);
  return b->member;
}

static bool dead_within(mpx_member member, int ms) {
  for (int64_t end = now_ms() + ms; !mpx_member_is_dead(mpx_family_header(), member); sleep_ms(1))
    if (now_ms() > end)
      return false;
  return true;
}

static int held_cells(mpx_member member) {
  mpx_header *header = mpx_family_header();
  int count = 0;
  for (uint32_t i = 0; i < MPX_SLOT_COUNT + header->pool_used; i++)
    count += mpx_cell_at(header, i)->owner == (member | MPX_CELL_HELD);
  return count;
}

static int own_and_sleep(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->owned = mproc_heap_alloc_owned(1000000);
  b->member = mpx_family_self();
  sleep_ms(20000);
  return 0;
}

/* ---- one by one ------------------------------------------------------------------------------ */

TEST(killed_process_is_dead_before_it_is_joined) {
  board *b = new_board();
  FOR_ALL_METHODS(method) {
    b->member = 0;
    mproc_process *process = start_by(method, own_and_sleep, &b, sizeof b);
    mpx_member member = await_member(b);
    sleep_ms(20);
    CHECK(!mpx_member_is_dead(mpx_family_header(), member));
    CHECK_EQ(kill((pid_t)mproc_process_pid(process), SIGKILL), 0);
    CHECK(dead_within(member, JOIN_MS)); /* a zombie: nobody has waited for it */
    CHECK(gone_within(mproc_process_pid(process), 1000));
    if (strcmp(method, "forkserver") != 0) /* whose server does wait for it */
      CHECK_EQ(state_of(mproc_process_pid(process)), 'Z');
    check_killed(process, SIGKILL);
    CHECK(mpx_table_slot(mpx_family_header(), member) == NULL);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
  check_alone(ALONE_MS);
}

TEST(stopped_process_is_alive) {
  board *b = new_board();
  FOR_ALL_METHODS(method) {
    b->member = 0;
    mproc_process *process = start_by(method, own_and_sleep, &b, sizeof b);
    mpx_member member = await_member(b);
    pid_t pid = (pid_t)mproc_process_pid(process);
    CHECK_EQ(kill(pid, SIGSTOP), 0);
    CHECK(stopped_within(pid, 1000));
    CHECK(!dead_within(member, 200));
    mpx_family_sweep(true);
    CHECK(mpx_table_slot(mpx_family_header(), member) != NULL);
    CHECK_EQ(kill(pid, SIGKILL), 0);
    check_killed(process, SIGKILL);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int exec_another_program(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->owned = mproc_heap_alloc_owned(1000000);
  b->member = mpx_family_self();
  execl("/bin/sleep", "sleep", "20", (char *)NULL);
  return 1;
}

/* Its pid, its pidfd and its parent say that it lives; as a member it is dead. */
TEST(process_that_execs_is_a_dead_member) {
  board *b = new_board();
  FOR_ALL_METHODS(method) {
    b->member = 0;
    mproc_process *process = start_by(method, exec_another_program, &b, sizeof b);
    CHECK(dead_within(await_member(b), JOIN_MS));
    CHECK_EQ(mproc_process_is_alive(process), 1);
    kill_child(process);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void *wait_for_word(void *argument) {
  board *b = argument;
  uint32_t cell;
  CHECK_EQ(mpx_family_enter(&cell), 0);
  b->member = mpx_family_self();
  while (b->word == 0)
    sleep_ms(1);
  if (TEST_HAS_TSAN) /* whose own thread would keep the process alive */
    _exit(0);
  return NULL;
}

static int leave_main_thread(void *arg, size_t size) {
  pthread_t thread;
  (void)size;
  CHECK_EQ(pthread_create(&thread, NULL, wait_for_word, *(board **)arg), 0);
  CHECK_EQ(pthread_detach(thread), 0);
  pthread_exit(NULL);
}

/* The thread that was the process's proof of life is gone, the process is not. */
TEST(process_without_its_first_thread_is_alive) {
  board *b = new_board();
  FOR_ALL_METHODS(method) {
#ifndef __GLIBC__ /* musl 1.2: a forked process never ends once its first thread has left */
    if (strcmp(method, "spawn") != 0)
      continue;
#endif
    b->member = 0;
    b->word = 0;
    mproc_process *process = start_by(method, leave_main_thread, &b, sizeof b);
    mpx_member member = await_member(b);
    CHECK(!dead_within(member, 200));
    b->word = 1;
    CHECK(dead_within(member, JOIN_MS));
    CHECK_EQ(end_of(process).state, MPROC_STATE_EXITED);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void *sleep_without_a_cell(void *argument) {
  board *b = argument;
  while (b->word == 0)
    sleep_ms(1);
  raise(SIGKILL);
  return NULL;
}

static int leave_no_cell(void *arg, size_t size) {
  board *b = *(board **)arg;
  pthread_t thread;
  (void)size;
  CHECK_EQ(pthread_create(&thread, NULL, sleep_without_a_cell, b), 0);
  CHECK_EQ(pthread_detach(thread), 0);
  b->member = mpx_family_self();
  pthread_exit(NULL);
}

/* All its cells were given back: pid and start time decide. */
TEST(process_without_cells_is_alive) {
  board *b = new_board();
  FOR_ALL_METHODS(method) {
    b->member = 0;
    b->word = 0;
    mproc_process *process = start_by(method, leave_no_cell, &b, sizeof b);
    mpx_member member = await_member(b);
    CHECK(!dead_within(member, 200));
    CHECK_EQ(held_cells(member), 0);
    b->word = 1;
    CHECK(dead_within(member, JOIN_MS));
    check_killed(process, SIGKILL);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- generations ----------------------------------------------------------------------------- */

static int tell_member(void *arg, size_t size) {
  (*(board **)arg)->member = mpx_family_self();
  (void)size;
  return 0;
}

TEST(slots_are_used_again_under_another_name) {
  board *b = new_board();
  mpx_member last = 0;
  check_family_works(); /* the forkserver takes its slot */
  for (int round = 0; round < 20; round++)
    FOR_ALL_METHODS(method) {
      check_exited(start_by(method, tell_member, &b, sizeof b), 0);
      CHECK(b->member != last);
      if (last)
        CHECK_EQ(mpx_member_slot(b->member), mpx_member_slot(last));
      last = b->member;
      CHECK(mpx_table_slot(mpx_family_header(), last) == NULL);
      CHECK(mpx_member_is_dead(mpx_family_header(), last));
    }
  check_alone(ALONE_MS);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* Names come out of shared memory, where anybody may have written: none of them may do harm. */
TEST(nonsense_names_nobody) {
  static const mpx_member nonsense[] = {0,
                                        1,
                                        UINT64_MAX,
                                        (uint64_t)MPX_SLOT_COUNT << 32,
                                        (uint64_t)(MPX_SLOT_COUNT + 1) << 32 | 1,
                                        1ULL << 63};
  heap_used();
  mpx_header *header = mpx_family_header();
  mpx_member old = mpx_member_make(mpx_member_slot(mpx_family_self()), 77);
  for (size_t i = 0; i <= sizeof nonsense / sizeof nonsense[0]; i++) {
    mpx_member member = i < sizeof nonsense / sizeof nonsense[0] ? nonsense[i] : old;
    CHECK(mpx_table_slot(header, member) == NULL);
    CHECK(mpx_member_is_dead(header, member));
    CHECK(!mpx_table_release(header, member));
    mpx_family_bury(member);
  }
  CHECK(mpx_cell_at(header, MPX_SLOT_COUNT + MPX_POOL_COUNT) == NULL);
  CHECK_EQ(used_slots(), 1);
}

/* ---- many threads ---------------------------------------------------------------------------- */

enum { MANY_THREADS = 3000 };

static pthread_barrier_t all_are_in;

static void *enter_and_wait(void *argument) {
  uint32_t cell;
  CHECK_EQ(mpx_family_enter(&cell), 0);
  *(uint32_t *)argument = cell;
  pthread_barrier_wait(&all_are_in);
  pthread_barrier_wait(&all_are_in);
  return NULL;
}

static void start_threads(pthread_t *threads, uint32_t *cells, int count) {
  pthread_attr_t attributes;
  CHECK_EQ(pthread_attr_init(&attributes), 0);
  CHECK_EQ(pthread_attr_setstacksize(&attributes, 256 * 1024), 0);
  CHECK_EQ(pthread_barrier_init(&all_are_in, NULL, (unsigned)count + 1), 0);
  for (int i = 0; i < count; i++)
    CHECK_EQ(pthread_create(&threads[i], &attributes, enter_and_wait, &cells[i]), 0);
  pthread_barrier_wait(&all_are_in);
  CHECK_EQ(pthread_attr_destroy(&attributes), 0);
}

static void check_each_has_a_cell(const uint32_t *cells, int count) {
  static bool taken[MPX_SLOT_COUNT + MPX_POOL_COUNT];
  memset(taken, 0, sizeof taken);
  for (int i = 0; i < count; i++) {
    CHECK(!taken[cells[i]]);
    taken[cells[i]] = true;
  }
}

/* Twice: the second time with cells that were used before. */
TEST_LIMIT(three_thousand_threads, 60) {
  static pthread_t threads[MANY_THREADS];
  static uint32_t cells[MANY_THREADS];
  uint32_t cell;
  CHECK_EQ(mpx_family_enter(&cell), 0);
  for (int round = 0; round < 2; round++) {
    start_threads(threads, cells, MANY_THREADS);
    check_each_has_a_cell(cells, MANY_THREADS);
    CHECK_EQ(held_cells(mpx_family_self()), MANY_THREADS + 1);
    pthread_barrier_wait(&all_are_in);
    for (int i = 0; i < MANY_THREADS; i++)
      CHECK_EQ(pthread_join(threads[i], NULL), 0);
    CHECK_EQ(held_cells(mpx_family_self()), 1);
    CHECK(!mpx_member_is_dead(mpx_family_header(), mpx_family_self()));
  }
}

static int hold_many_cells(void *arg, size_t size) {
  static pthread_t threads[MANY_THREADS];
  static uint32_t cells[MANY_THREADS];
  board *b = *(board **)arg;
  (void)size;
  start_threads(threads, cells, MANY_THREADS);
  b->member = mpx_family_self();
  raise(SIGKILL);
  return 0;
}

TEST_LIMIT(three_thousand_threads_killed, 60) {
  board *b = new_board();
  FOR_ALL_METHODS(method) {
    b->member = 0;
    check_killed(start_by(method, hold_many_cells, &b, sizeof b), SIGKILL);
    CHECK_EQ(held_cells(b->member), 0);
    CHECK(mpx_table_slot(mpx_family_header(), b->member) == NULL);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- burials --------------------------------------------------------------------------------- */

/* A dead process that nobody buried: its parent died too, without a word. */
static int leave_a_corpse(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  mproc_process *corpse = start_by("fork", own_and_sleep, &b, sizeof b);
  await_member(b);
  CHECK_EQ(kill((pid_t)mproc_process_pid(corpse), SIGKILL), 0);
  sleep_ms(20);
  raise(SIGKILL);
  return 0;
}

static int bury_on_a_word(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->rounds++;
  while (b->word == 0)
    sched_yield();
  mpx_family_bury(b->member);
  return 0;
}

TEST_LIMIT(burial_by_several_at_once, 60) {
  enum { BURIERS = 4, ROUNDS = 30 };
  board *b = new_board();
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc_owned(1000)), 0);
  uint64_t used = heap_used();
  for (int round = 0; round < ROUNDS; round++) {
    mproc_process *buriers[BURIERS];
    b->member = 0;
    b->word = b->rounds = 0;
    check_killed(start_by("fork", leave_a_corpse, &b, sizeof b), SIGKILL);
    CHECK(dead_within(b->member, JOIN_MS));
    CHECK(mpx_table_slot(mpx_family_header(), b->member) != NULL);
    CHECK(heap_used() >= used + 1000000);
    for (int i = 0; i < BURIERS; i++)
      buriers[i] = start_by("fork", bury_on_a_word, &b, sizeof b);
    while (b->rounds < BURIERS)
      sleep_ms(1);
    b->word = 1;
    for (int i = 0; i < BURIERS; i++)
      check_exited(buriers[i], 0);
    CHECK(mpx_table_slot(mpx_family_header(), b->member) == NULL);
    CHECK_EQ(held_cells(b->member), 0);
    CHECK_EQ(heap_used(), used);
    check_alone(ALONE_MS);
  }
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST(starts_sweep_what_others_left) {
  board *b = new_board();
  uint64_t used = heap_used();
  check_killed(start_by("fork", leave_a_corpse, &b, sizeof b), SIGKILL);
  CHECK(dead_within(b->member, JOIN_MS));
  for (int i = 0; i < 4; i++)
    check_family_works();
  CHECK_EQ(heap_used(), used);
  check_alone(ALONE_MS);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* A living child of a dead parent stays what it is, however often the table is swept. */
static int leave_a_living_child(void *arg, size_t size) {
  (void)size;
  (void)start_by("spawn", own_and_sleep, arg, sizeof(board *));
  await_member(*(board **)arg);
  raise(SIGKILL);
  return 0;
}

TEST(sweep_spares_the_living) {
  board *b = new_board();
  check_killed(start_by("fork", leave_a_living_child, &b, sizeof b), SIGKILL);
  for (int i = 0; i < 100; i++)
    mpx_family_sweep(true);
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), b->member);
  CHECK(slot != NULL);
  CHECK_EQ(kill((pid_t)slot->pid, SIGKILL), 0);
  CHECK(dead_within(b->member, JOIN_MS));
  mpx_family_sweep(true);
  check_alone(ALONE_MS);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- small stacks ---------------------------------------------------------------------------- */

static void *start_everything(void *daemon) {
  const int code = 42;
  mproc_process_options options = {.daemon = daemon != NULL};
  FOR_ALL_METHODS(method) {
    options.method = method;
    check_exited(start_with(&options, return_code, &code, sizeof code), code);
  }
  check_exited(start_command(COMMAND("true"), &options), 0);
  return NULL;
}

static size_t small_stack;

/* The family and all else that is made once are made there too. */
static void start_from_small_stacks(void) {
  pthread_attr_t attributes;
  pthread_t thread;
  CHECK_EQ(pthread_attr_init(&attributes), 0);
  CHECK_EQ(pthread_attr_setstacksize(&attributes, small_stack), 0);
  for (int daemon = 0; daemon < 2; daemon++) {
    CHECK_EQ(pthread_create(&thread, &attributes, start_everything, daemon ? &thread : NULL), 0);
    CHECK_EQ(pthread_join(thread, NULL), 0);
  }
  CHECK_EQ(pthread_attr_destroy(&attributes), 0);
}

TEST(start_from_stacks_of_32_and_16_kib) {
  SKIP_UNDER_VALGRIND("valgrind needs more");
  if (UNDER_SANITIZER)
    SKIP("sanitizers need more");
  for (small_stack = (size_t)32 << 10; small_stack >= (size_t)16 << 10; small_stack /= 2)
    in_child(start_from_small_stacks);
}
