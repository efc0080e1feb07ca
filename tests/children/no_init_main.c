/* no_init_main METHOD [LIBRARY [HELPER]]: a host that never calls mproc_init. Runs an entry of its
 * own, or one of a library, and prints what came of it. HELPER is given by a context. */
#define _GNU_SOURCE
#include "entry_library.h"

#include <mproc/mproc.h>

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

static int own_entry(void *arg, size_t size) {
  return size == 1 ? *(unsigned char *)arg + 1 : 99;
}

static int run(const char *method, mproc_entry *entry, const char *helper) {
  unsigned char number = 40;
  mproc_context *context = NULL;
  mproc_process *process = NULL;
  mproc_status status = {.code = 0};
  mproc_context_options context_options = {.method = method, .helper = helper};
  int r = mproc_context_create(&context, &context_options);
  mproc_process_options options = {.context = context};
  if (r == 0)
    r = mproc_process_create(&process, entry, &number, 1, &options);
  if (r == 0)
    r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  if (r == 0)
    r = mproc_process_status(process, &status);
  if (r < 0)
    printf("%s: %s\n", mproc_error_name(r), mproc_error_detail());
  else
    printf("%d\n", status.code);
  (void)mproc_process_close(process);
  mproc_context_destroy(context);
  return r < 0;
}

int main(int argc, char **argv) {
  mproc_entry *entry = own_entry;
  if (argc < 2 || getenv("NO_INIT_MAIN_RUNS")) {
    puts("this program was started again"); /* what a fork bomb begins with */
    return 4;
  }
  (void)setenv("NO_INIT_MAIN_RUNS", "1", 1);
  if (argc > 2) {
    void *library = dlopen(argv[2], RTLD_NOW);
    library_function *(*get)(void) = NULL;
    if (library)
      *(void **)&get = dlsym(library, "library_static_entry");
    if (!get)
      return 3;
    entry = get();
  }
  return run(argv[1], entry, argc > 3 ? argv[3] : NULL);
}
