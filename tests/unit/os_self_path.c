/* Prints what to execute to run this program again. An argument is a file to remove before. */
#define _GNU_SOURCE
#include "mproc/error.h"
#include "os/os.h"

#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv) {
  char path[MPX_OS_PATH_SIZE];
  if (argc > 1)
    (void)unlink(argv[1]);
  int r = mpx_os_self_executable(path);
  printf("%s\n", r < 0 ? mproc_error_detail() : path);
  return r < 0;
}
