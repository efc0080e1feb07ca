/* log_main: one child with a name, under whatever MPROC_LOG and MPROC_START_METHOD say. */
#include <mproc/mproc.h>

#include <stdio.h>

static int entry(void *arg, size_t size) {
  (void)arg, (void)size;
  return 0;
}

int main(int argc, char **argv) {
  mproc_process *process;
  mproc_process_options options = {.name = "the child"};
  int r = mproc_init(&argc, &argv, NULL);
  if (r == 0)
    r = mproc_process_create(&process, entry, NULL, 0, &options);
  if (r == 0)
    r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  if (r < 0)
    printf("%s\n", mproc_error_detail());
  return r < 0 ? 3 : 0;
}
