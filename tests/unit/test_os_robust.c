/* A lock whose owner may die, and waiting on a word. */
#include "in_child.h"

#include "os/os.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>

typedef struct shared_page {
  mpx_os_robust lock;
  _Atomic uint32_t word;
} shared_page;

static shared_page *page;

static void make_page(void) {
  page = mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(page != MAP_FAILED);
  CHECK_OK(mpx_os_robust_init(&page->lock));
}

static void wait_for_word(uint32_t value) {
  uint32_t now;
  while ((now = atomic_load(&page->word)) != value)
    mpx_os_word_wait(&page->word, now, mpx_deadline(mpx_os_now(), 10000));
}

static void set_word(uint32_t value) {
  atomic_store(&page->word, value);
  mpx_os_word_wake_all(&page->word);
}

/* Forks a child that takes the lock and runs `then`. Returns when it has the lock. */
static pid_t start_holder(void (*then)(void)) {
  atomic_store(&page->word, 0);
  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    CHECK_EQ(mpx_os_robust_lock(&page->lock), 0);
    set_word(1);
    then();
    _exit(0);
  }
  wait_for_word(1);
  return pid;
}

static void reap(pid_t pid) {
  (void)status_of(pid);
}

static void no_more(void) {}

static void hang(void) {
  for (;;)
    pause();
}

/* Taken from a dead owner once, an ordinary lock after. */
static void check_taken_over(void) {
  CHECK_EQ(mpx_os_robust_lock(&page->lock), 1);
  mpx_os_robust_unlock(&page->lock);
  CHECK_EQ(mpx_os_robust_lock(&page->lock), 0);
  mpx_os_robust_unlock(&page->lock);
  CHECK_EQ(mpx_os_robust_trylock(&page->lock), 0);
  mpx_os_robust_unlock(&page->lock);
  munmap(page, 65536);
}

TEST(kill_of_the_owner_is_told) {
  make_page();
  pid_t pid = start_holder(hang);
  CHECK_EQ(mpx_os_robust_trylock(&page->lock), -EBUSY);
  kill(pid, SIGKILL);
  reap(pid);
  check_taken_over();
}

TEST(exit_of_the_owner_is_told) {
  make_page();
  pid_t pid = start_holder(hang);
  kill(pid, SIGTERM);
  reap(pid);
  CHECK_EQ(mpx_os_robust_trylock(&page->lock), 1);
  mpx_os_robust_unlock(&page->lock);
  reap(start_holder(no_more));
  check_taken_over();
}

static void execute(void) {
  execl("/bin/sleep", "sleep", "100", (char *)NULL);
  _exit(1);
}

TEST(exec_of_the_owner_is_told) {
  make_page();
  pid_t pid = start_holder(execute);
  check_taken_over(); /* waits for the exec */
  CHECK_EQ(kill(pid, 0), 0);
  CHECK(waitpid(pid, NULL, WNOHANG) == 0); /* it lives */
  kill(pid, SIGKILL);
  reap(pid);
}

static void *lock_and_end(void *unused) {
  CHECK_EQ(mpx_os_robust_lock(&page->lock), 0);
  return unused;
}

TEST(end_of_the_owning_thread_is_told) {
  make_page();
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, lock_and_end, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  check_taken_over();
}

#ifdef __GLIBC__
enum { LOCK_WORD = 0 };
#else /* musl */
enum { LOCK_WORD = 1 };
#endif

/* What remains when a waiter takes its wake-up into its grave: an open lock, and one who sleeps. */
TEST(a_wake_up_that_is_lost_is_no_hang) {
  if (TEST_HAS_TSAN)
    SKIP("under ThreadSanitizer a busy lock is tried again and again: nobody sleeps");
  make_page();
  pid_t holder = start_holder(hang);
  fflush(NULL);
  pid_t waiter = fork();
  if (waiter == 0)
    _exit(mpx_os_robust_lock(&page->lock) == 0 ? 42 : 1);
  _Atomic uint32_t *word = (_Atomic uint32_t *)(void *)&page->lock + LOCK_WORD;
  while (!(atomic_load(word) & 0x80000000U)) /* somebody waits */
    mpx_os_sleep(MPX_NS_PER_MS);
  mpx_os_sleep(20 * MPX_NS_PER_MS);
  atomic_store(word, 0);
  int status = status_of(waiter);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);
  kill(holder, SIGKILL);
  reap(holder);
  munmap(page, 65536);
}

TEST(a_waiter_is_woken_by_the_death) {
  make_page();
  pid_t holder = start_holder(hang);
  fflush(NULL);
  pid_t waiter = fork();
  if (waiter == 0) {
    set_word(2);
    _exit(mpx_os_robust_lock(&page->lock) == 1 ? 42 : 1);
  }
  wait_for_word(2);
  mpx_os_sleep(20 * MPX_NS_PER_MS);
  kill(holder, SIGKILL);
  CHECK_EQ(WEXITSTATUS(status_of(waiter)), 42);
  reap(holder);
  check_taken_over(); /* the waiter died holding it as well */
}

/* Consistency was restored, then the new owner dies too. */
TEST(death_after_death_is_told) {
  make_page();
  for (int i = 0; i < 100; i++) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
      int r = mpx_os_robust_lock(&page->lock);
      if (r == (i > 0))
        kill(getpid(), SIGKILL);
      _exit(1);
    }
    CHECK(WIFSIGNALED(status_of(pid)));
  }
  check_taken_over();
}

static void not_mine(void) {
  CHECK_EQ(mpx_os_robust_trylock(&page->lock), -EBUSY);
  mpx_os_robust_unlock(&page->lock);
  CHECK_EQ(mpx_os_robust_trylock(&page->lock), -EBUSY);
}

TEST(a_forked_child_does_not_own_its_parents_lock) {
  make_page();
  CHECK_EQ(mpx_os_robust_lock(&page->lock), 0);
  in_child(not_mine);
  CHECK_EQ(mpx_os_robust_trylock(&page->lock), -EBUSY);
  mpx_os_robust_unlock(&page->lock);
  CHECK_EQ(mpx_os_robust_lock(&page->lock), 0);
  mpx_os_robust_unlock(&page->lock);
  munmap(page, 65536);
}

/* The lists of parent and children must not mix, though their locks lie in one memory. */
TEST(children_of_a_holder_die_with_locks_of_their_own) {
  enum { CHILDREN = 20 };
  make_page();
  mpx_os_robust *locks = (mpx_os_robust *)(void *)(page + 1);
  pid_t pids[CHILDREN];
  CHECK_EQ(mpx_os_robust_lock(&page->lock), 0);
  fflush(NULL);
  for (int i = 0; i < CHILDREN; i++) {
    CHECK_OK(mpx_os_robust_init(&locks[i]));
    pids[i] = fork();
    if (pids[i] == 0) {
      for (int j = 0; j < 1000; j++) {
        CHECK_EQ(mpx_os_robust_lock(&locks[i]), 0);
        mpx_os_robust_unlock(&locks[i]);
      }
      CHECK_EQ(mpx_os_robust_lock(&locks[i]), 0);
      hang();
    }
  }
  for (int i = 0; i < CHILDREN; i++) {
    while (mpx_os_robust_trylock(&locks[i]) == 0) {
      mpx_os_robust_unlock(&locks[i]);
      mpx_os_sleep(MPX_NS_PER_MS);
    }
    mpx_os_sleep(10 * MPX_NS_PER_MS);
    kill(pids[i], SIGKILL);
    reap(pids[i]);
    CHECK_EQ(mpx_os_robust_lock(&locks[i]), 1);
    mpx_os_robust_unlock(&locks[i]);
  }
  mpx_os_robust_unlock(&page->lock);
  CHECK_EQ(mpx_os_robust_lock(&page->lock), 0);
  mpx_os_robust_unlock(&page->lock);
  munmap(page, 65536);
}

/* ---- words ----------------------------------------------------------------------------------- */

TEST(a_wait_ends_by_value_deadline_and_wake) {
  make_page();
  int64_t start = mpx_os_now();
  mpx_os_word_wait(&page->word, 1, MPX_NEVER); /* it is 0 */
  mpx_os_word_wait(&page->word, 0, 0);
  mpx_os_word_wait(&page->word, 0, start - 1);
  mpx_os_word_wait(&page->word, 0, -5);
  CHECK(mpx_os_now() - start < 1000 * MPX_NS_PER_MS);

  start = mpx_os_now();
  while (mpx_os_now() < start + 30 * MPX_NS_PER_MS)
    mpx_os_word_wait(&page->word, 0, start + 30 * MPX_NS_PER_MS);
  CHECK(mpx_os_now() - start < 1000 * MPX_NS_PER_MS);

  fflush(NULL);
  pid_t pid = fork();
  if (pid == 0) {
    wait_for_word(7);
    set_word(8);
    _exit(0);
  }
  mpx_os_sleep(10 * MPX_NS_PER_MS);
  set_word(7);
  wait_for_word(8);
  reap(pid);
  munmap(page, 65536);
}
