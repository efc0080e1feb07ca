/* A plain command with the same process object; both its output streams go to one pipe. Prints:
 *   | to standard output
 *   | to standard error
 *   the command exited with code 3 after ...
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <stdio.h>
#include <unistd.h>

static const char *const command[] = {
    "sh", "-c", "echo to standard output; echo to standard error >&2; exit 3", NULL};

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  int ends[2];
  if (pipe(ends) < 0)
    return 1;
  mproc_process_options options = {
      .streams = {{.kind = MPROC_STREAM_NULL},
                  {.kind = MPROC_STREAM_HANDLE, .handle = ends[1]},
                  {.kind = MPROC_STREAM_STDOUT}},
  };
  mproc_process *process;
  if (mproc_process_create_command(&process, command, &options) < 0 ||
      mproc_process_start(process) < 0) {
    fprintf(stderr, "%s\n", mproc_error_detail());
    return 1;
  }
  close(ends[1]);

  char line[80];
  FILE *output = fdopen(ends[0], "r");
  while (output && fgets(line, sizeof line, output))
    printf("| %s", line);
  mproc_status status;
  if (!output || fclose(output) != 0 || mproc_process_join(process, MPROC_FOREVER) < 0 ||
      mproc_process_status(process, &status) < 0)
    return 1;
  char text[128];
  printf("the command %s\n", mproc_strstatus(&status, text, sizeof text));
  return mproc_process_close(process) < 0;
}
