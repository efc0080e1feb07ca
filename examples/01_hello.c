/* Runs a function in another process. Prints:
 *   hello, world
 *   the child returned 7
 */
#include <mproc/mproc.h>
#include <stdio.h>

static int hello(void *arg, size_t size) {
  printf("hello, %.*s\n", (int)size, (char *)arg);
  return 7;
}

int main(int argc, char **argv) {
  int code = mproc_init(&argc, &argv, NULL);
  if (code == 0)
    code = mproc_run(hello, "world", 5);
  if (code < 0)
    return fprintf(stderr, "%s\n", mproc_error_detail()), 1;
  printf("the child returned %d\n", code);
}
