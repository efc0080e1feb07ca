/* entry_main [--late] [--wait] [LIBRARY]: runs entries of its own, of a library linked to it and of
 * one that it loads, by each start method, and prints their codes. --late: work comes before
 * mproc_init; --wait: waits for a line before the first start. */
#include "entry_library.h"

#include <mproc/mproc.h>

#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

static int own_entry(void *arg, size_t size) {
  return size == 1 ? *(unsigned char *)arg + 1 : 99;
}

static void run(const char *what, mproc_entry *entry) {
  static const char *const methods[] = {"fork", "spawn", "forkserver"};
  for (int i = 0; i < 3; i++) {
    unsigned char number = 40;
    int r = mproc_set_start_method(methods[i], 1);
    if (r == 0)
      r = mproc_run(entry, &number, 1);
    printf("%s %s %d\n", methods[i], what, r);
    if (r < 0)
      printf("%s\n", mproc_error_detail());
    (void)fflush(stdout);
  }
}

int main(int argc, char **argv) {
  int at = 1;
  if (at < argc && strcmp(argv[at], "--late") == 0) {
    at++;
    puts("work");
    (void)fflush(stdout);
  }
  int r = mproc_init(&argc, &argv, NULL);
  if (r < 0) {
    printf("mproc_init %d %s\n", r, mproc_error_detail());
    return 1;
  }
  if (at < argc && strcmp(argv[at], "--wait") == 0) {
    char line[16];
    at++;
    puts("ready");
    (void)fflush(stdout);
    if (!fgets(line, sizeof line, stdin))
      return 2;
  }
  run("own", own_entry);
#ifdef LIBRARY_LINKED
  run("linked", library_entry);
  run("linked-static", library_static_entry());
#endif
  if (at < argc) {
    void *library = dlopen(argv[at], RTLD_NOW);
    if (!library) {
      puts(dlerror());
      return 3;
    }
    library_function *(*get)(void);
    *(void **)&get = dlsym(library, "library_static_entry");
    void *entry = dlsym(library, "library_entry");
    mproc_entry *loaded;
    *(void **)&loaded = entry;
    run("loaded", loaded);
    run("loaded-static", get());
  }
  return 0;
}
