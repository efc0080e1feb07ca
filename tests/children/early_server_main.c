/* A program that starts the forkserver in mproc_init, before it does anything else: the server has
 * nothing of what comes after. */
#define _GNU_SOURCE
#include <mproc/mproc.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

static int secret;

static int look(void *arg, size_t size) {
  long *server = *(long **)arg;
  (void)size;
  *server = (long)getppid();
  return secret == 0 && getenv("OF_THE_PROGRAM") != NULL ? 7 : 8;
}

/* Without room for its descriptors no server comes up; called again, it does. */
static int init_twice(int *argc, char ***argv, const mproc_init_options *options) {
  struct rlimit before, few;
  (void)getrlimit(RLIMIT_NOFILE, &before);
  few = before;
  few.rlim_cur = 5;
  (void)setrlimit(RLIMIT_NOFILE, &few);
  int r = mproc_init(argc, argv, options);
  (void)setrlimit(RLIMIT_NOFILE, &before);
  return r < 0 ? mproc_init(argc, argv, options) : -1;
}

/* "early 1": a door was there before the first start. With an argument, mproc_init fails first. */
int main(int argc, char **argv) {
  const mproc_init_options options = {.forkserver = 1};
  int r = argc > 1 ? init_twice(&argc, &argv, &options) : mproc_init(&argc, &argv, &options);
  if (r < 0) {
    printf("%s\n", mproc_error_detail());
    return 3;
  }
  char path[64];
  int found = 0;
  secret = 42;
  setenv("OF_THE_PROGRAM", "1", 1);
  /* The doors are there before the first start. */
  for (int fd = 3; fd < 64 && !found; fd++) {
    char target[64] = "";
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    found = readlink(path, target, sizeof target - 1) > 0 && strncmp(target, "socket:", 7) == 0;
  }
  long *server = mproc_heap_calloc(1, sizeof *server);
  if (!server || mproc_set_start_method("forkserver", 0) < 0)
    return 4;
  int code = mproc_run(look, &server, sizeof server);
  printf("early %d code %d server %d\n", found, code, *server > 1 && *server != (long)getpid());
  return mproc_heap_free(server) == 0 && code == 7 ? 0 : 5;
}
