/* mproc-helper: the program that runs entries for hosts whose main() cannot call mproc_init():
 * plugins, interpreters. The entry's library is loaded by name from the boot record. */
#include "mproc/mproc.h"

#include <stdio.h>

int main(int argc, char **argv) {
  int r = mproc_init(&argc, &argv, NULL);
  if (r < 0)
    (void)fprintf(stderr, "mproc-helper: %s\n", mproc_error_detail());
  else
    (void)fprintf(stderr, "mproc-helper: started by hand; it is for libmproc to start\n");
  return 2;
}
