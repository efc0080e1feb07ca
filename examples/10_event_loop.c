/* A process in an event loop: its sentinel stands in poll() beside a pipe. Prints:
 *   message 1
 *   message 2
 *   message 3
 *   end of messages
 *   end of process, code 0
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

static int send_messages(void *arg, size_t size) {
  (void)arg;
  (void)size;
  mproc_handle pipe_end;
  if (mproc_inherited("messages", &pipe_end) < 0)
    return 1;
  for (int i = 1; i <= 3; i++)
    dprintf((int)pipe_end, "message %d\n", i);
  return 0;
}

int main(int argc, char **argv) {
  int ends[2];
  if (mproc_init(&argc, &argv, NULL) < 0 || pipe(ends) < 0)
    return 1;
  mproc_inherit messages = {ends[1], "messages"};
  mproc_process_options options = {.inherit = &messages, .inherit_count = 1};
  mproc_process *process;
  mproc_handle sentinel;
  if (mproc_process_create(&process, send_messages, NULL, 0, &options) < 0 ||
      mproc_process_start(process) < 0 || mproc_process_sentinel(process, &sentinel) < 0)
    return 1;
  close(ends[1]);

  /* The end of the process waits for the end of its messages: a negative descriptor is ignored. */
  struct pollfd events[2] = {{.fd = ends[0], .events = POLLIN}, {.fd = -1, .events = POLLIN}};
  while (poll(events, 2, -1) > 0 && !events[1].revents) {
    char text[80];
    ssize_t n = read(ends[0], text, sizeof text);
    if (n > 0)
      printf("%.*s", (int)n, text);
    if (n <= 0) {
      puts("end of messages");
      events[0].fd = -1;
      events[1].fd = (int)sentinel;
    }
  }
  mproc_status status;
  if (mproc_process_join(process, MPROC_FOREVER) < 0 || mproc_process_status(process, &status) < 0)
    return 1;
  printf("end of process, code %d\n", status.code);
  return mproc_process_close(process) < 0;
}
