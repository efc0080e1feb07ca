#define _GNU_SOURCE
#include "os/os.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

char *const *mpx_os_environment(void) {
  static char *const none[] = {NULL};
  return environ ? environ : none; /* clearenv leaves NULL */
}

void mpx_os_set_environment(char **environment) {
  environ = environment;
}

void mpx_os_unset_environment(const char *name) {
  (void)unsetenv(name);
}

mproc_handle mpx_os_stderr(void) {
  return STDERR_FILENO;
}

mproc_handle mpx_os_stream_handle(int index) {
  return fcntl(index, F_GETFD) < 0 ? MPX_NO_HANDLE : index;
}

bool mpx_os_is_privileged(void) {
  return geteuid() == 0 || mpx_os_has_mixed_ids();
}

bool mpx_os_is_executable(const char *path) {
  return access(path, X_OK) == 0;
}
