/* Children of children, each started by another method than its parent; all write into the same
 * block of the shared heap. Prints:
 *   generation 0: main
 *   generation 1: fork
 *   generation 2: forkserver
 *   generation 3: spawn
 *   generation 4: fork
 */
#include <mproc/mproc.h>
#include <stdio.h>

enum { GENERATIONS = 5 };

typedef struct tree {
  int depth;
  char methods[GENERATIONS][16];
} tree;

static int grow(void *arg, size_t size);

static int start_child(tree *t) {
  static const char *const methods[] = {"spawn", "fork", "forkserver"};
  mproc_process_options options = {.method = methods[t->depth % 3]};
  mproc_process *child;
  mproc_status status;
  if (mproc_process_create(&child, grow, &t, sizeof t, &options) < 0 ||
      mproc_process_start(child) < 0 || mproc_process_join(child, MPROC_FOREVER) < 0 ||
      mproc_process_status(child, &status) < 0 || mproc_process_close(child) < 0) {
    fprintf(stderr, "generation %d: %s\n", t->depth, mproc_error_detail());
    return 1;
  }
  return status.code;
}

/* The entry of every child; main calls it too, as the first generation. */
static int grow(void *arg, size_t size) {
  tree *t = *(tree **)arg;
  (void)size;
  mproc_process_info self;
  if (mproc_current_process(&self) < 0)
    return 1;
  snprintf(t->methods[t->depth], sizeof t->methods[0], "%s", self.method);
  t->depth++;
  return t->depth < GENERATIONS ? start_child(t) : 0;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  tree *t = mproc_heap_calloc(1, sizeof *t);
  if (!t || grow(&t, sizeof t) != 0)
    return 1;
  for (int i = 0; i < GENERATIONS; i++)
    printf("generation %d: %s\n", i, t->methods[i]);
  return mproc_heap_free(t) < 0;
}
