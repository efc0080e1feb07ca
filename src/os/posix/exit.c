#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __GLIBC__
static void (*last_handler)(int code);

static void run_last(int code, void *user) {
  (void)user;
  last_handler(code);
}

int mpx_os_at_exit_barrier(void (*last)(int code)) {
  last_handler = last; /* a member's module is pinned already: see mpx_os_thread_hook */
  return on_exit(run_last, NULL) == 0 ? 0 : -ENOMEM;
}
#else
int mpx_os_at_exit_barrier(void (*last)(int code)) {
  (void)last;
  return -ENOSYS;
}
#endif

/* Not instrumented: it ends the spawn method's child too, on a stack that no sanitizer knows. */
__attribute__((no_sanitize_address, no_sanitize_thread)) void mpx_os_exit_now(int code) {
  _exit(code);
}
