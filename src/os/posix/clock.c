#define _POSIX_C_SOURCE 200809L
#include "os/os.h"

#include <time.h>

int64_t mpx_os_now(void) {
  struct timespec now;
  (void)clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * MPX_NS_PER_S + now.tv_nsec;
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
