/* Functions for the tests of `mproc map`: good ones, and such as do what a function must not. */
#define _DEFAULT_SOURCE

#include <ctype.h>
#include <mproc/task.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* An input "WORD REST" asks for what the function does if WORD is its own; others are echoed. */
static int is_asked(const char *input, const char *word) {
  return strncmp(input, word, strlen(word)) == 0;
}

static int echo(mproc_task *task, const void *input, size_t size) {
  return mproc_task_result(task, input, size);
}
MPROC_TASK(echo, .help = "the input");

static int upper(mproc_task *task, const void *input, size_t size) {
  char *text = malloc(size + 1);
  for (size_t i = 0; i < size; i++)
    text[i] = (char)toupper(((const unsigned char *)input)[i]);
  int r = mproc_task_result(task, text, size);
  free(text);
  return r;
}
MPROC_TASK(upper, .help = "the input in capital letters");

/* Ends in each way that there is. */
static int ends(mproc_task *task, const void *input, size_t size) {
  if (is_asked(input, "segv"))
    raise(SIGSEGV);
  if (is_asked(input, "abort"))
    abort();
  if (is_asked(input, "exit"))
    exit(7);
  if (is_asked(input, "loop")) {
    for (volatile int turns = 0;; turns = !turns)
      continue;
  }
  if (is_asked(input, "hog")) {
    for (size_t bytes = 1 << 20;; bytes = 1 << 20) {
      volatile char *block = malloc(bytes);
      for (size_t i = 0; block && i < bytes; i += 512)
        block[i] = 1;
      usleep(500);
    }
  }
  if (is_asked(input, "fail"))
    return mproc_task_fail(task, 5, "does not like %s", (const char *)input);
  if (is_asked(input, "slow_once") && mproc_task_attempt(task) == 1) {
    usleep(700000);
    return mproc_task_fail(task, 1, "the first attempt");
  }
  if (is_asked(input, "once") && mproc_task_attempt(task) == 1)
    return mproc_task_fail(task, 1, "the first attempt");
  if (is_asked(input, "crash_once") && mproc_task_attempt(task) == 1)
    raise(SIGKILL);
  return mproc_task_result(task, input, size);
}
MPROC_TASK(ends, .help = "ends as the input says");

static int prints(mproc_task *task, const void *input, size_t size) {
  (void)task;
  printf("one %.*s\n", (int)size, (const char *)input);
  fflush(stdout);
  if (write(STDOUT_FILENO, "two\n", 4) != 4)
    return 1;
  printf("three");
  return 0;
}
MPROC_TASK(prints, .help = "prints, and has no result");

static int number(mproc_task *task, const void *input, size_t size) {
  char text[64];
  (void)input;
  int length =
      snprintf(text, sizeof text, "%llu %zu", (unsigned long long)mproc_task_index(task), size);
  return mproc_task_result(task, text, (size_t)length);
}
MPROC_TASK(number, .help = "the number of the input, from 0, and its length");

static int repeat(mproc_task *task, const void *input, size_t size) {
  size_t count = strtoul(input, NULL, 10);
  char *text = malloc(count + 1);
  (void)size;
  memset(text, 'x', count);
  int r = mproc_task_result(task, text, count);
  free(text);
  return r;
}
MPROC_TASK(repeat, .help = "as many x as the input says");

static int wait_ms(mproc_task *task, const void *input, size_t size) {
  usleep((useconds_t)strtoul(input, NULL, 10) * 1000);
  return mproc_task_result(task, input, size);
}
MPROC_TASK(wait_ms, .help = "waits so many milliseconds");

/* A child that would outlive everything. */
static int leaves_child(mproc_task *task, const void *input, size_t size) {
  (void)task;
  (void)size;
  char command[256];
  snprintf(command, sizeof command, "sleep %s", (const char *)input);
  return system(command);
}
MPROC_TASK(leaves_child, .help = "waits in a child");

static int reads_input(mproc_task *task, const void *input, size_t size) {
  char text[16];
  ssize_t n = read(STDIN_FILENO, text, sizeof text);
  (void)input;
  (void)size;
  return mproc_task_result(task, n == 0 ? "nothing" : "something", n == 0 ? 7 : 9);
}
MPROC_TASK(reads_input, .help = "reads standard input");

static int swap_bytes(mproc_task *task, const void *input, size_t size) {
  char *out = mproc_task_output(task);
  if (size != 4 || mproc_task_output_size(task) != 4)
    return mproc_task_fail(task, 1, "no place of 4 bytes");
  for (int i = 0; i < 4; i++)
    out[i] = ((const char *)input)[3 - i];
  return is_asked(input, "fail") ? 3 : 0;
}
MPROC_TASK(swap_bytes, .help = "4 bytes in the other order", .input_size = 4, .output_size = 4);

static int fills(mproc_task *task, const void *input, size_t size) {
  (void)size;
  *(char *)mproc_task_output(task) = *(const char *)input;
  return 0;
}
MPROC_TASK(fills, .help = "the input's first byte and many zeros", .input_size = 4,
           .output_size = 1 << 18);

static int start(void *arg, size_t size, void **ret_state) {
  (void)arg;
  (void)size;
  *ret_state = calloc(1, sizeof(int));
  return *ret_state ? 0 : 1;
}

static void finish(void *state) {
  const char *path = getenv("MAP_PLUGIN_ENDS");
  FILE *file = path ? fopen(path, "ae") : NULL;
  if (file) {
    fprintf(file, "%d\n", *(int *)state);
    fclose(file);
  }
  free(state);
}

static int counts(mproc_task *task, const void *input, size_t size) {
  ++*(int *)mproc_task_state(task);
  return mproc_task_result(task, input, size);
}
MPROC_TASK(counts, .help = "counts in the worker", .initializer = start, .worker_exit = finish);

static int refuses(void *arg, size_t size, void **ret_state) {
  (void)arg;
  (void)size;
  (void)ret_state;
  return 1;
}

static int no_worker(mproc_task *task, const void *input, size_t size) {
  return mproc_task_result(task, input, size);
}
MPROC_TASK(no_worker, .help = "its initializer fails", .initializer = refuses);

MPROC_API int bare(int a);
int bare(int a) {
  return a;
}

extern MPROC_API const mproc_task_descriptor mproc_task_bad_magic;
const mproc_task_descriptor mproc_task_bad_magic = {
    .magic = 1, .version = MPROC_TASK_VERSION, .function = echo};
extern MPROC_API const mproc_task_descriptor mproc_task_bad_version;
const mproc_task_descriptor mproc_task_bad_version = {
    .magic = MPROC_TASK_MAGIC, .version = 99, .function = echo};
