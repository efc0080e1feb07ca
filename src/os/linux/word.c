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

/* A sleep and a wake-up of an idle virtual CPU take from 7 to 100 us. */
#define SPIN_NS (50 * (int64_t)1000)

static void pause_briefly(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

void mpx_os_word_spin(_Atomic uint32_t *word, uint32_t expected) {
  enum { LOOKS = 64 };
  cpu_set_t cpus;
  /* the first look comes first: all else is cold in a fresh child */
  if (atomic_load_explicit(word, memory_order_acquire) != expected ||
      (sched_getaffinity(0, sizeof cpus, &cpus) == 0 && CPU_COUNT(&cpus) < 2))
    return;
  for (int64_t end = mpx_os_now() + SPIN_NS; mpx_os_now() < end;)
    for (int i = 0; i < LOOKS; i++) {
      if (atomic_load_explicit(word, memory_order_acquire) != expected)
        return;
      pause_briefly();
    }
}

void mpx_os_word_wake_all(_Atomic uint32_t *word) {
  int saved_errno = errno;
  (void)syscall(FUTEX_CALL, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
  errno = saved_errno;
}
