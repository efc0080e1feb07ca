/* Each worker compiles a pattern before its first task, uses it in all, and frees it at its end.
 * Prints:
 *   2026-11-24 is a date
 *   24.11.2026 is none
 *   2026-11-xx is none
 *   1969-07-20 is a date
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <regex.h>
#include <stdbool.h>
#include <stdio.h>

enum { WORDS = 4, LETTERS = 16 };

/* `arg` is the worker's own copy of what the pool was given. */
static int prepare(void *arg, size_t size, void **ret_state) {
  static regex_t pattern;
  (void)size;
  if (regcomp(&pattern, arg, REG_EXTENDED | REG_NOSUB) != 0)
    return 1;
  *ret_state = &pattern;
  return 0;
}

static void leave(void *state) {
  regfree(state);
}

static int is_date(mproc_task *task, const void *input, size_t size) {
  const regex_t *pattern = mproc_task_state(task);
  (void)size;
  *(bool *)mproc_task_output(task) = regexec(pattern, input, 0, NULL, 0) == 0;
  return 0;
}

int main(int argc, char **argv) {
  static const char pattern[] = "^[0-9]{4}-[0-9]{2}-[0-9]{2}$";
  static const char words[WORDS][LETTERS] = {"2026-11-24", "24.11.2026", "2026-11-xx",
                                             "1969-07-20"};
  mproc_pool_options options = {.initializer = prepare, .worker_exit = leave};
  options.initializer_arg = pattern;
  options.initializer_size = sizeof pattern;
  bool found[WORDS];
  mproc_pool *pool;
  if (mproc_init(&argc, &argv, NULL) < 0 || mproc_pool_create(&pool, &options) < 0 ||
      mproc_pool_map(pool, is_date, words, LETTERS, found, sizeof *found, WORDS, NULL) < 0)
    return fprintf(stderr, "%s\n", mproc_error_detail()), 1;
  for (int i = 0; i < WORDS; i++)
    printf("%s is %s\n", words[i], found[i] ? "a date" : "none");
  /* A pool that is closed lets its workers leave; destroy alone would kill them. */
  return mproc_pool_close(pool) < 0 || mproc_pool_join(pool, MPROC_FOREVER) < 0 ||
         mproc_pool_destroy(pool) < 0;
}
