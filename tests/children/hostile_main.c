/* A program that does one thing wrong and prints the code and the text of what came of it.
 *
 *   hostile_main no_init        spawns a function of its own without mproc_init
 *   hostile_main no_helper      spawns a function of a library without mproc_init
 *   hostile_main heap BYTES     gives mproc_init a heap_size and uses the heap
 *   hostile_main init           only calls mproc_init */
#include <mproc/mproc.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int entry(void *arg, size_t size) {
  (void)arg, (void)size;
  return 0;
}

static int spawn(mproc_entry *function) {
  const mproc_process_options options = {.method = "spawn"};
  mproc_process *process;
  int r = mproc_process_create(&process, function, NULL, 0, &options);
  if (r == 0)
    r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  return r;
}

static int use_heap(int *argc, char ***argv, const char *size) {
  const mproc_init_options options = {.heap_size = strtoull(size, NULL, 0)};
  int r = mproc_init(argc, argv, &options);
  if (r < 0)
    return r;
  void *block = mproc_heap_alloc(1);
  return block ? mproc_heap_free(block) : mproc_last_error();
}

int main(int argc, char **argv) {
  const char *mode = argc > 1 ? argv[1] : "";
  int r = -1;
  if (strcmp(mode, "no_init") == 0)
    r = spawn(entry);
  else if (strcmp(mode, "no_helper") ==
           0) /* any function of a library will do: it is not reached */
    r = spawn((mproc_entry *)mproc_heap_prefault);
  else if (strcmp(mode, "heap") == 0 && argc > 2)
    r = use_heap(&argc, &argv, argv[2]);
  else if (strcmp(mode, "init") == 0)
    r = mproc_init(&argc, &argv, NULL);
  printf("%d %s\n", r, mproc_error_detail());
  return 0;
}
