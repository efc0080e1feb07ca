/* CPython's Pool, joblib and loky, for bench_pool: pool_python.py measures a round itself. */
#define _GNU_SOURCE
#include "pool_parts.h"

#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NUMBER = 16 };

/* `python3 pool_python.py WHAT WORKERS TASKS` prints M tasks/s. 0: it failed. */
static double ask(const char *what, int tasks, bool quiet) {
  static char python3[] = "python3", script[] = BENCH_POOL_PYTHON;
  char workers[NUMBER], count[NUMBER];
  char *argv[] = {python3, script, (char *)(uintptr_t)what, workers, count, NULL};
  posix_spawn_file_actions_t actions;
  double rate = 0;
  int ends[2], status;
  pid_t pid;
  (void)snprintf(workers, sizeof workers, "%d", pool_workers());
  (void)snprintf(count, sizeof count, "%d", tasks);
  if (pipe2(ends, O_CLOEXEC) < 0)
    pool_die("pipe");
  (void)posix_spawn_file_actions_init(&actions);
  (void)posix_spawn_file_actions_adddup2(&actions, ends[1], STDOUT_FILENO);
  if (quiet)
    (void)posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  int failed = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
  (void)posix_spawn_file_actions_destroy(&actions);
  (void)close(ends[1]);
  FILE *answer = pool_must_have(fdopen(ends[0], "r"), "fdopen");
  bool good = !failed && fscanf(answer, "%lf", &rate) == 1;
  (void)fclose(answer);
  return !failed && waitpid(pid, &status, 0) == pid && status == 0 && good ? rate : 0;
}

static double measure(const char *what, int tasks) {
  double rate = ask(what, tasks, false);
  if (rate <= 0)
    pool_die(what);
  return rate;
}

/* Whether it can be imported; asked once: *known is 0 at first. */
static bool can(const char *check, int *known) {
  if (*known == 0)
    *known = ask(check, 0, true) > 0 ? 1 : -1;
  return *known > 0;
}

double pool_python_async(int tasks) {
  return measure("async", tasks);
}

double pool_python_map(int tasks) {
  return measure("map", tasks);
}

const char *pool_python_missing(void) {
  static int known;
  return can("check", &known) ? NULL : "python3 with multiprocessing is not installed";
}

double pool_joblib(int tasks) {
  return measure("joblib", tasks);
}

const char *pool_joblib_missing(void) {
  static int known;
  return can("check_joblib", &known) ? NULL : "joblib is not installed";
}

double pool_loky(int tasks) {
  return measure("loky", tasks);
}

const char *pool_loky_missing(void) {
  static int known;
  return can("check_loky", &known) ? NULL : "loky is not installed";
}
