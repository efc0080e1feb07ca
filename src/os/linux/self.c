#define _GNU_SOURCE
#include "os/os.h"

#include <sys/auxv.h>
#include <sys/prctl.h>
#include <unistd.h>

int64_t mpx_os_pid(void) {
  return getpid();
}

int64_t mpx_os_parent_pid(void) {
  return getppid();
}

bool mpx_os_is_secure(void) {
  return getauxval(AT_SECURE) != 0;
}

void mpx_os_set_process_name(const char *name) {
  (void)prctl(PR_SET_NAME, name, 0, 0, 0); /* the kernel cuts it to 15 bytes */
}
