/* Parent and child talk through a pipe. The child is killed in the middle of it: what it had sent
 * comes, and then the parent is told. Prints:
 *   5 squared is 25
 *   6 squared is 36
 *   the last words: 49
 *   the other end is gone
 */
#include <mproc/mproc.h>
#include <signal.h>
#include <stdio.h>

static int square(void *arg, size_t size) {
  mproc_connection *parent = *(mproc_connection **)arg;
  int n;
  (void)size;
  while (mproc_connection_recv_into(parent, &n, sizeof n, NULL, MPROC_FOREVER) == 0) {
    int result = n * n;
    if (mproc_connection_send(parent, &result, sizeof result, MPROC_FOREVER) < 0)
      return 1;
    if (n == 7)
      raise(SIGKILL);
  }
  return 0;
}

static int ask(mproc_connection *child, int n, int *ret_result) {
  int r = mproc_connection_send(child, &n, sizeof n, MPROC_FOREVER);
  if (r == 0)
    r = mproc_connection_recv_into(child, ret_result, sizeof *ret_result, NULL, MPROC_FOREVER);
  return r;
}

int main(int argc, char **argv) {
  mproc_connection *child, *parent; /* by who is at the other end */
  mproc_process *process;
  int result;
  if (mproc_init(&argc, &argv, NULL) < 0 || mproc_pipe_create(NULL, &child, &parent) < 0 ||
      mproc_process_create(&process, square, &parent, sizeof parent, NULL) < 0 ||
      mproc_process_start(process) < 0 ||
      mproc_connection_give(parent, mproc_process_pid(process)) < 0)
    return 1;
  for (int n = 5; n <= 6; n++)
    if (ask(child, n, &result) == 0)
      printf("%d squared is %d\n", n, result);
  if (ask(child, 7, &result) == 0)
    printf("the last words: %d\n", result);
  if (mproc_connection_recv_into(child, &result, sizeof result, NULL, MPROC_FOREVER) ==
      MPROC_ECLOSED)
    puts("the other end is gone");
  return mproc_process_join(process, MPROC_FOREVER) < 0 || mproc_process_close(process) < 0 ||
         mproc_connection_close(child) < 0; /* the dead one's end goes with it */
}
