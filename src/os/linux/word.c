#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

_Static_assert(sizeof(_Atomic uint32_t) == 4, "a futex is four bytes");

#ifdef SYS_futex
#define FUTEX_CALL SYS_futex
typedef struct { /* what the call reads, whatever the width of time_t */
  long seconds;
  long nanoseconds;
} futex_time;
#else
#define FUTEX_CALL SYS_futex_time64
typedef struct {
  int64_t seconds;
  int64_t nanoseconds;
} futex_time;
#endif

void mpx_os_word_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline_ns) {
  int saved_errno = errno;
  if (deadline_ns < 0)
    deadline_ns = 0;
  futex_time until = {0};
  until.seconds = (__typeof__(until.seconds))(deadline_ns / MPX_NS_PER_S);
  until.nanoseconds = (__typeof__(until.nanoseconds))(deadline_ns % MPX_NS_PER_S);
  /* The bitset form takes an absolute time of the monotonic clock; the plain one a duration. */
  (void)syscall(FUTEX_CALL, word, FUTEX_WAIT_BITSET, expected,
                deadline_ns == MPX_NEVER ? NULL : &until, NULL, FUTEX_BITSET_MATCH_ANY);
  errno = saved_errno;
}

void mpx_os_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

/* The affinity at the first time; a thread that is bound to one CPU later spins in vain. */
bool mpx_os_may_spin(void) {
  static _Atomic int cpus;
  int known = atomic_load_explicit(&cpus, memory_order_relaxed);
  if (known == 0) {
    cpu_set_t set;
    known = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1024;
    atomic_store_explicit(&cpus, known, memory_order_relaxed);
  }
  return known > 1;
}

void mpx_os_word_spin(_Atomic uint32_t *word, uint32_t expected, int64_t duration_ns) {
  enum { LOOKS = 64 };
  cpu_set_t cpus;
  /* the first look comes first: all else is cold in a fresh child */
  if (atomic_load_explicit(word, memory_order_acquire) != expected ||
      (sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) < 2))
    return;
  for (int64_t end = mpx_os_now() + duration_ns; mpx_os_now() < end;)
    for (int i = 0; i < LOOKS; i++) {
      if (atomic_load_explicit(word, memory_order_acquire) != expected)
        return;
      mpx_os_pause();
    }
}

int mpx_os_word_wake(_Atomic uint32_t *word, int count) {
  int saved_errno = errno;
  long woken = syscall(FUTEX_CALL, word, FUTEX_WAKE, count, NULL, NULL, 0);
  errno = saved_errno;
  return woken > 0 ? (int)woken : 0;
}

/* Moved from the word to itself, which the kernel counts. */
int mpx_os_word_sleepers(_Atomic uint32_t *word) {
  int saved_errno = errno;
  long moved = syscall(FUTEX_CALL, word, FUTEX_REQUEUE, 0, (long)INT_MAX, word, 0);
  errno = saved_errno;
  return moved >= 0 ? (int)moved : mpx_os_word_wake(word, INT_MAX);
}

void mpx_os_word_wake_all(_Atomic uint32_t *word) {
  (void)mpx_os_word_wake(word, INT_MAX);
}
