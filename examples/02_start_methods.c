/* The same function under every start method: a forked child is a copy of its parent as it was, a
 * spawned one is a fresh execution of the program, and the forkserver's is a copy of a server that
 * is one. Prints:
 *   fork: global is 42
 *   spawn: global is 1
 *   forkserver: global is 1
 */
#include <mproc/mproc.h>
#include <stdio.h>

static int global = 1;

static int report(void *arg, size_t size) {
  (void)arg;
  (void)size;
  return global;
}

static int run_under(const char *method) {
  mproc_process_options options = {.method = method};
  mproc_process *process;
  mproc_status status = {0};
  int r = mproc_process_create(&process, report, NULL, 0, &options);
  if (r < 0)
    return r;
  r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  if (r == 0)
    r = mproc_process_status(process, &status);
  mproc_process_close(process);
  return r < 0 ? r : status.code;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  global = 42;

  const char *const *methods;
  mproc_get_all_start_methods(&methods);
  for (; *methods; methods++) {
    int result = run_under(*methods);
    if (result < 0) {
      fprintf(stderr, "%s: %s\n", *methods, mproc_error_detail());
      return 1;
    }
    printf("%s: global is %d\n", *methods, result);
  }
  return 0;
}
