/* A linked list in the shared heap: the parent builds it, the child sums it and adds a node; the
 * pointers are the same in both. Prints:
 *   the child found the sum 6
 *   the list is now: 6 3 2 1
 */
#include <mproc/mproc.h>
#include <stdio.h>

typedef struct node {
  int value;
  struct node *next;
} node;

typedef struct list {
  node *first;
} list;

static int push(list *l, int value) {
  node *added = mproc_heap_alloc(sizeof *added);
  if (!added)
    return mproc_last_error();
  *added = (node){value, l->first};
  l->first = added;
  return 0;
}

static int sum(void *arg, size_t size) {
  list *l = *(list **)arg; /* the argument block holds one pointer */
  (void)size;
  int total = 0;
  for (const node *n = l->first; n; n = n->next)
    total += n->value;
  printf("the child found the sum %d\n", total);
  return push(l, total) < 0;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  list *l = mproc_heap_calloc(1, sizeof *l);
  if (!l || push(l, 1) < 0 || push(l, 2) < 0 || push(l, 3) < 0 || mproc_run(sum, &l, sizeof l)) {
    fprintf(stderr, "%s\n", mproc_error_detail());
    return 1;
  }

  printf("the list is now:");
  while (l->first) {
    node *n = l->first;
    l->first = n->next;
    printf(" %d", n->value);
    mproc_heap_free(n);
  }
  putchar('\n');
  return mproc_heap_free(l) < 0;
}
