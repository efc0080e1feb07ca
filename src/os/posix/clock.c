#define _GNU_SOURCE /* CLOCK_MONOTONIC_COARSE */
#include "os/os.h"

#include <time.h>

#ifdef CLOCK_MONOTONIC_COARSE
enum { CLOCK_COARSE = CLOCK_MONOTONIC_COARSE };
#else
enum { CLOCK_COARSE = CLOCK_MONOTONIC };
#endif

static int64_t time_of(clockid_t clock) {
  struct timespec now;
  (void)clock_gettime(clock, &now);
  return (int64_t)now.tv_sec * MPX_NS_PER_S + now.tv_nsec;
}

int64_t mpx_os_now(void) {
  return time_of(CLOCK_MONOTONIC);
}

int64_t mpx_os_now_coarse(void) {
  return time_of(CLOCK_COARSE);
}

void mpx_os_sleep(int64_t duration_ns) {
  int64_t now = mpx_os_now();
  int64_t deadline = duration_ns > MPX_NEVER - now ? MPX_NEVER : now + duration_ns;
  while (now < deadline) {
    int64_t left = deadline - now;
    int64_t seconds = left / MPX_NS_PER_S;
    struct timespec rest = {.tv_sec = (time_t)(seconds > INT32_MAX ? INT32_MAX : seconds),
                            .tv_nsec = (long)(left % MPX_NS_PER_S)};
    (void)nanosleep(&rest, NULL); /* a signal ends it early: the loop goes on */
    now = mpx_os_now();
  }
}
