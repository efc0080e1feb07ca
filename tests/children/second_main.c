/* Another program that calls mproc_init: as a child it runs entries of libraries, by hand it says
 * so. */
#include <mproc/mproc.h>

#include <stdio.h>
#include <stdlib.h>

int main(int argc, char **argv) {
  int r = mproc_init(&argc, &argv, NULL);
  if (r < 0) {
    printf("%s: %s\n", mproc_error_name(r), mproc_error_detail());
    return 3;
  }
  mproc_process_info info;
  if (mproc_current_process(&info) == 0)
    printf("%s %s\n", info.name, info.method);
  return getenv("MPROC_BOOT") ? 5 : 4;
}
