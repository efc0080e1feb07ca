#include "internal.h"

#include <mproc/context.h>
#include <mproc/error.h>

#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#if defined(__has_include)
#if __has_include(<valgrind/valgrind.h>)
#include <valgrind/valgrind.h>
#endif
#endif

static test_case *first_case;
static test_case **last_link = &first_case;

void test_register(test_case *self) {
  *last_link = self;
  last_link = &self->next;
}

/* ---- checks ---------------------------------------------------------------------------------- */

/* _exit: the case may be in any state, with threads and locks of which exit would wait for some. */
_Noreturn static void end_now(int code) {
  fflush(stdout);
  fflush(stderr);
  _exit(code);
}

_Noreturn void test_fail(const char *file, int line, const char *check, const char *format, ...) {
  fprintf(stderr, "# %s:%d: %s failed", file, line, check);
  if (format) {
    va_list arguments;
    va_start(arguments, format);
    fputs(": ", stderr);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
  }
  fputc('\n', stderr);
  if (mproc_last_error() < 0)
    fprintf(stderr, "# last error of this thread: %s\n", mproc_error_detail());
  end_now(EXIT_FAILURE);
}

void test_check_equal(const char *file, int line, const char *check, long long actual,
                      long long expected) {
  if (actual != expected)
    test_fail(file, line, check, "%lld is not %lld", actual, expected);
}

void test_check_string(const char *file, int line, const char *check, const char *actual,
                       const char *expected) {
  if (!actual || strcmp(actual, expected) != 0)
    test_fail(file, line, check, "\"%s\" is not \"%s\"", actual ? actual : "(null)", expected);
}

void test_check_contains(const char *file, int line, const char *check, const char *text,
                         const char *part) {
  if (!text || !strstr(text, part))
    test_fail(file, line, check, "\"%s\" is not in \"%s\"", part, text ? text : "(null)");
}

void test_check_ok(const char *file, int line, const char *check, long long value) {
  if (value < 0)
    test_fail(file, line, check, "%lld (%s)", value, mproc_strerror((int)value));
}

_Noreturn void test_skip(const char *reason) {
  printf("# skipped: %s\n", reason);
  exit(TEST_SKIPPED);
}

bool test_under_valgrind(void) {
  const char *wrapper = getenv("MPROC_TEST_WRAPPER");
  return wrapper && strstr(wrapper, "valgrind");
}

/* A forked child has a copy of what the other threads of its parent had, and no thread that knows
 * it: valgrind would call that a leak. Its parent looks for leaks, and so does what is executed. */
#ifdef VALGRIND_CLO_CHANGE
static void ignore_leaks(void) {
  VALGRIND_CLO_CHANGE("--leak-check=no");
}

__attribute__((constructor)) static void ignore_leaks_of_forked_children(void) {
  if (test_under_valgrind())
    (void)pthread_atfork(NULL, NULL, ignore_leaks);
}
#endif

/* ---- helpers --------------------------------------------------------------------------------- */

int64_t test_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

void test_sleep_ms(int ms) {
  struct timespec duration = {ms / 1000, ms % 1000 * 1000000L};
  nanosleep(&duration, NULL);
}

int test_environment_number(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value && *value ? atoi(value) : otherwise;
}

int test_scale(int count) {
  int divisor = test_environment_number("MPROC_TEST_SCALE", 1);
  int scaled = divisor > 1 ? count / divisor : count;
  return scaled > 0 ? scaled : 1;
}

const char *test_program_path(void) {
  static char path[PATH_MAX];
  ssize_t length = readlink("/proc/self/exe", path, sizeof path - 1);
  if (length < 0)
    abort();
  path[length] = '\0';
  return path;
}

/* Paths are kept in a list, so that nobody has to free one and no leak checker complains. */
static const char *join_path(const char *folder, size_t folder_length, const char *name) {
  struct kept_path {
    struct kept_path *next;
    char text[];
  };
  static struct kept_path *kept;
  size_t size = folder_length + strlen(name) + 2;
  struct kept_path *path = malloc(sizeof *path + size);
  if (!path)
    abort();
  snprintf(path->text, size, "%.*s/%s", (int)folder_length, folder, name);
  path->next = kept;
  kept = path;
  return path->text;
}

const char *test_tmp_path(const char *name) {
  const char *folder = getenv("TMPDIR");
  if (!folder)
    folder = "/tmp";
  return join_path(folder, strlen(folder), name);
}

const char *test_child_path(const char *name) {
  const char *program = test_program_path();
  return join_path(program, (size_t)(strrchr(program, '/') - program), name);
}

/* ---- main ------------------------------------------------------------------------------------ */

/* Under valgrind a small heap: every process reads all of it at its end, to look for leaks. */
__attribute__((weak)) const mproc_init_options *test_init_options(void) {
  static const mproc_init_options small = {.heap_size = (size_t)64 << 20};
  return test_under_valgrind() ? &small : NULL;
}

static int run_case(const char *name) {
  for (const test_case *self = first_case; self; self = self->next) {
    if (strcmp(self->name, name) != 0)
      continue;
    audit_begin();
    self->run();
    mproc_context_stop(NULL); /* its doors are no leak, but look like one */
    return audit_end() ? EXIT_SUCCESS : EXIT_FAILURE;
  }
  fprintf(stderr, "no case is called %s\n", name);
  return EXIT_FAILURE;
}

int main(int argc, char **argv) {
  int r = mproc_init(&argc, &argv, test_init_options());
  if (r < 0) {
    fprintf(stderr, "# mproc_init: %s\n", mproc_error_detail());
    return EXIT_FAILURE;
  }
  if (argc == 2 && strcmp(argv[1], "--list") == 0) {
    for (const test_case *self = first_case; self; self = self->next)
      puts(self->name);
    return EXIT_SUCCESS;
  }
  if (argc == 3 && strcmp(argv[1], "--case") == 0)
    return run_case(argv[2]);
  return runner_run(first_case, argc > 1 ? argv[1] : "");
}
