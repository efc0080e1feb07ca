/* A process that runs already gets a descriptor: through a pipe of mproc, as a server would give a
 * connection to one of its workers. Prints:
 *   the worker wrote: 3 pears
 *   the worker wrote: 4 pears
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <stdio.h>
#include <unistd.h>

enum { BASKETS = 2, PEARS = 3 };

static int fill_baskets(void *arg, size_t size) {
  mproc_connection *parent = *(mproc_connection **)arg;
  mproc_handle handle;
  (void)size;
  for (int i = 0; i < BASKETS; i++) {
    if (mproc_connection_recv_handle(parent, &handle, MPROC_FOREVER) < 0)
      return 1;
    FILE *basket = fdopen((int)handle, "w"); /* our own: the parent's is another */
    if (!basket)
      return 1;
    fprintf(basket, "%d pears\n", PEARS + i);
    if (fclose(basket) != 0)
      return 1;
  }
  return 0;
}

static int have_filled(mproc_connection *child) {
  int ends[2];
  char line[80];
  if (pipe(ends) < 0)
    return 0;
  int ok = mproc_connection_send_handle(child, ends[1], MPROC_FOREVER) == 0;
  close(ends[1]); /* the worker has it by now; or the reader would never see the end */
  FILE *reader = fdopen(ends[0], "r");
  while (ok && reader && fgets(line, sizeof line, reader))
    printf("the worker wrote: %s", line);
  return ok && reader && fclose(reader) == 0;
}

int main(int argc, char **argv) {
  mproc_connection *child, *parent; /* by who is at the other end */
  mproc_process *process;
  if (mproc_init(&argc, &argv, NULL) < 0 || mproc_pipe_create(NULL, &child, &parent) < 0 ||
      mproc_process_create(&process, fill_baskets, &parent, sizeof parent, NULL) < 0 ||
      mproc_process_start(process) < 0 ||
      mproc_connection_give(parent, mproc_process_pid(process)) < 0)
    return 1;
  int ok = 1;
  for (int i = 0; ok && i < BASKETS; i++)
    ok = have_filled(child);
  return !ok || mproc_process_join(process, MPROC_FOREVER) < 0 ||
         mproc_process_close(process) < 0 || mproc_connection_close(child) < 0;
}
