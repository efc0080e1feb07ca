/* Programs that a case runs without the help of mproc. */
#ifndef MPROC_TEST_PROGRAMS_H
#define MPROC_TEST_PROGRAMS_H

#include "in_child.h"
#include "processes.h"

/* Runs a program, after `before` in its process, and returns its wait status; stores what it wrote
 * to standard output. */
static inline int run_program_after(void (*before)(void), const char *const *argv, char *output,
                                    size_t size) {
  int ends[2];
  make_pipe(ends);
  fflush(NULL);
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    dup2(ends[1], STDOUT_FILENO);
    if (before)
      before();
    execv(argv[0], (char *const *)(uintptr_t)argv);
    fprintf(stderr, "# cannot execute %s: %s\n", argv[0], strerror(errno));
    _exit(127);
  }
  close(ends[1]);
  (void)read_all(ends[0], output, size);
  return status_of(pid);
}

static inline int run_program(const char *const *argv, char *output, size_t size) {
  return run_program_after(NULL, argv, output, size);
}

#endif
