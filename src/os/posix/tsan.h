/* ThreadSanitizer's interface. Weak: it is there when the host is instrumented, whatever this
 * library is, because the host's copies of clone and pthread_mutex_lock are called here too. */
#ifndef MPX_OS_POSIX_TSAN_H
#define MPX_OS_POSIX_TSAN_H

#include <stdbool.h>

enum { MPX_TSAN_TRY_LOCK = 1 << 4, MPX_TSAN_RECURSIVE_UNLOCK = 1 << 7 };

extern void __tsan_init(void) __attribute__((weak));
extern void __tsan_mutex_pre_lock(void *mutex, unsigned flags) __attribute__((weak));
extern void __tsan_mutex_post_lock(void *mutex, unsigned flags, int count) __attribute__((weak));
extern int __tsan_mutex_pre_unlock(void *mutex, unsigned flags) __attribute__((weak));
extern void __tsan_mutex_post_unlock(void *mutex, unsigned flags) __attribute__((weak));

static inline bool mpx_tsan_watches(void) {
  return __tsan_init;
}

/* Takes a lock out of its books, and leaves the lock alone. One more lock first: in the child of a
 * process with threads nothing was written down, and an unlock alone would be an error. */
static inline void mpx_tsan_forget_lock(void *mutex) {
  if (!__tsan_init || !__tsan_mutex_pre_lock || !__tsan_mutex_post_lock ||
      !__tsan_mutex_pre_unlock || !__tsan_mutex_post_unlock)
    return;
  __tsan_mutex_pre_lock(mutex, MPX_TSAN_TRY_LOCK);
  __tsan_mutex_post_lock(mutex, MPX_TSAN_TRY_LOCK, 0);
  (void)__tsan_mutex_pre_unlock(mutex, MPX_TSAN_RECURSIVE_UNLOCK);
  __tsan_mutex_post_unlock(mutex, 0);
}

#endif
