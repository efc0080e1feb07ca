/* Deadlines: one absolute monotonic time inside, milliseconds at the border. */
#ifndef MPX_BASE_CLOCK_H
#define MPX_BASE_CLOCK_H

#include <stdint.h>

#define MPX_NS_PER_S 1000000000LL
#define MPX_NS_PER_MS 1000000LL
#define MPX_NEVER INT64_MAX /* the deadline that never passes */

/* The deadline `timeout_ms` after `now_ns`; negative timeouts never pass. */
static inline int64_t mpx_deadline(int64_t now_ns, int timeout_ms) {
  return timeout_ms < 0 ? MPX_NEVER : now_ns + timeout_ms * MPX_NS_PER_MS;
}

/* What is left of it, never negative; MPX_NEVER stays. */
static inline int64_t mpx_remaining(int64_t deadline_ns, int64_t now_ns) {
  if (deadline_ns == MPX_NEVER)
    return MPX_NEVER;
  return deadline_ns > now_ns ? deadline_ns - now_ns : 0;
}

/* Whole milliseconds for poll(2) and its kin, rounded up so that nobody spins before the deadline;
 * -1 for MPX_NEVER. */
static inline int mpx_poll_ms(int64_t remaining_ns) {
  if (remaining_ns == MPX_NEVER)
    return -1;
  int64_t ms = (remaining_ns + MPX_NS_PER_MS - 1) / MPX_NS_PER_MS;
  return ms > INT32_MAX ? INT32_MAX : (int)ms;
}

#endif
