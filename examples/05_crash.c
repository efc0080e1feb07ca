/* The child crashes; the parent goes on and says how. Prints:
 *   the child was killed by SIGSEGV after ... s...
 *   the parent goes on
 */
#include <mproc/mproc.h>
#include <stdio.h>

static int crash(void *arg, size_t size) {
  (void)arg;
  (void)size;
  static char *volatile nowhere = (char *)16;
  *nowhere = 1;
  return 0;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  /* A core file is useful elsewhere; here it would only litter the directory. */
  mproc_limit no_core = {MPROC_RESOURCE_CORE, 0, 0};
  mproc_process_options options = {.limits = &no_core, .limit_count = 1};
  mproc_process *process;
  mproc_status status;
  if (mproc_process_create(&process, crash, NULL, 0, &options) < 0 ||
      mproc_process_start(process) < 0 || mproc_process_join(process, MPROC_FOREVER) < 0 ||
      mproc_process_status(process, &status) < 0) {
    fprintf(stderr, "%s\n", mproc_error_detail());
    return 1;
  }

  char text[128];
  printf("the child was %s\n", mproc_strstatus(&status, text, sizeof text));
  printf("the parent goes on\n");
  mproc_process_close(process);
  return status.state == MPROC_STATE_SIGNALED ? 0 : 1;
}
