/* Sleeping until a word changes. Nobody sleeps for long: whoever should wake us may be killed
 * before it does, and who owns what we wait for may be dead. */
#ifndef MPX_SYNC_SLEEP_H
#define MPX_SYNC_SLEEP_H

#include "os/os.h"

/* How often a waiter looks by itself. Survivors of a death go on within twice as long. */
#define MPX_LOOK_NS (50 * MPX_NS_PER_MS)
/* How long it looks without sleeping: about what a thread that is running keeps a lock. */
#define MPX_SPIN_NS (4 * (int64_t)1000)

/* The half of a 64-bit word that holds its lowest bits: a futex has 32. */
static inline _Atomic uint32_t *mpx_low_half(_Atomic uint64_t *word) {
#if __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
  return (_Atomic uint32_t *)(void *)word + 1;
#else
  return (_Atomic uint32_t *)(void *)word;
#endif
}

/* The deadline of a caller's timeout; 0 for a try. */
static inline int64_t mpx_deadline_or_try(int timeout_ms) {
  return timeout_ms == 0 ? 0 : timeout_ms < 0 ? MPX_NEVER : mpx_deadline(mpx_os_now(), timeout_ms);
}

/* Sleeps until woken, until it is time to look, or until the deadline; false: that has passed. */
static inline bool mpx_sleep(_Atomic uint32_t *word, uint32_t expected, int64_t deadline) {
  int64_t now = mpx_os_now();
  if (now >= deadline)
    return false;
  mpx_os_word_wait(word, expected, deadline - now < MPX_LOOK_NS ? deadline : now + MPX_LOOK_NS);
  return true;
}

#endif
