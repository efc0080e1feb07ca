/* For cases that run once under every start method: short ways to start and end children. */
#ifndef MPROC_TEST_EACH_METHOD_H
#define MPROC_TEST_EACH_METHOD_H

#include "facilities.h"
#include "harness.h"
#include "methods.h"
#include "processes.h"

static inline mproc_process *create_child(const char *method, mproc_entry *entry, const void *arg,
                                          size_t size, const mproc_process_options *options) {
  mproc_process_options with_method = options ? *options : (mproc_process_options){0};
  with_method.method = method;
  return create_with(&with_method, entry, arg, size);
}

static inline mproc_process *start_child(const char *method, mproc_entry *entry, const void *arg,
                                         size_t size, const mproc_process_options *options) {
  mproc_process *process = create_child(method, entry, arg, size, options);
  CHECK_OK(mproc_process_start(process));
  return process;
}

/* The exit code; a child that ended in any other way fails the case. */
static inline int code_of_child(mproc_process *process) {
  mproc_status status = end_of(process);
  char text[128];
  if (status.state != MPROC_STATE_EXITED)
    test_fail(__FILE__, __LINE__, "the child exits", "%s",
              mproc_strstatus(&status, text, sizeof text));
  return status.code;
}

static inline int run_child(const char *method, mproc_entry *entry, const void *arg, size_t size) {
  return code_of_child(start_child(method, entry, arg, size, NULL));
}

/* The start's result; stores the command's exit code and what it wrote to standard output. */
static inline int try_command(const char *const *argv, const mproc_process_options *options,
                              int *ret_code, char *text, size_t size) {
  int out[2];
  mproc_process_options with_output = options ? *options : (mproc_process_options){0};
  make_pipe(out);
  with_output.streams[1] = (mproc_stream){MPROC_STREAM_HANDLE, out[1]};
  mproc_process *process = create_command(argv, &with_output);
  int r = mproc_process_start(process);
  CHECK_EQ(close(out[1]), 0);
  (void)read_all(out[0], text, size);
  if (r == 0)
    *ret_code = code_of_child(process);
  else
    CHECK_OK(mproc_process_close(process));
  return r;
}

static inline int sleep_for_ever(void *arg, size_t size) {
  (void)arg, (void)size;
  for (;;)
    (void)pause();
  return 0;
}

static inline int return_zero(void *arg, size_t size) {
  (void)arg, (void)size;
  return 0;
}

/* Runs a command, stores what it writes, which has to fit into a pipe, and returns its code. */
static inline int outputs_of_command(const char *const *argv, const char *const *environment,
                                     char *standard, size_t standard_size, char *error,
                                     size_t error_size) {
  int out[2], err[2];
  make_pipe(out);
  make_pipe(err);
  mproc_process_options options = {
      .environment = environment,
      .streams = {{0}, {MPROC_STREAM_HANDLE, out[1]}, {MPROC_STREAM_HANDLE, err[1]}}};
  mproc_process *process = start_command(argv, &options);
  CHECK_EQ(close(out[1]), 0);
  CHECK_EQ(close(err[1]), 0);
  (void)read_all(out[0], standard, standard_size);
  (void)read_all(err[0], error, error_size);
  return code_of_child(process);
}

static inline bool is_readable(mproc_handle handle) {
  struct pollfd item = {.fd = (int)handle, .events = POLLIN};
  return poll(&item, 1, 0) == 1;
}

#endif
