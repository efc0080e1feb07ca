/* The child gets the writing end of a pipe under a name; nothing else of the parent's descriptors
 * but the standard streams. Prints:
 *   the child wrote: 3 apples
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <stdio.h>
#include <unistd.h>

static int count_apples(void *arg, size_t size) {
  mproc_handle handle;
  (void)size;
  if (mproc_inherited("basket", &handle) < 0)
    return 1;
  FILE *basket = fdopen((int)handle, "w");
  if (!basket)
    return 1;
  fprintf(basket, "%d apples\n", *(int *)arg);
  return fclose(basket) != 0;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  int ends[2];
  if (pipe(ends) < 0)
    return 1;
  mproc_inherit basket = {.handle = ends[1], .name = "basket"};
  mproc_process_options options = {.inherit = &basket, .inherit_count = 1};
  mproc_process *process;
  int apples = 3;
  if (mproc_process_create(&process, count_apples, &apples, sizeof apples, &options) < 0 ||
      mproc_process_start(process) < 0) {
    fprintf(stderr, "%s\n", mproc_error_detail());
    return 1;
  }
  close(ends[1]); /* or the reader below would never see the end */

  char line[80];
  FILE *reader = fdopen(ends[0], "r");
  while (reader && fgets(line, sizeof line, reader))
    printf("the child wrote: %s", line);
  if (!reader || fclose(reader) != 0 || mproc_process_join(process, MPROC_FOREVER) < 0)
    return 1;
  return mproc_process_close(process) < 0;
}
