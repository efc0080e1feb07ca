/* How long until a child that aborts is joined, with an unlimited core size?
 *
 * The shared heap is a reservation of half of the memory, which no dump may contain. A bare fork
 * that aborts before there is a heap is the peer; both write their core into a folder of their own.
 * What the kernel does with a dump is set by core_pattern, which is printed. */
#define _GNU_SOURCE
#include "measure.h"

#include <mproc/mproc.h>

#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROUNDS = 15, TARGET_MS = 100 };

static void die(const char *what) {
  (void)fprintf(stderr, "bench_abort: %s: %s\n", what, mproc_error_detail());
  exit(1);
}

static int abort_now(void *arg, size_t size) {
  (void)arg, (void)size;
  abort();
}

static double by_bare_fork(void) {
  double before = bench_now_us();
  pid_t pid = fork();
  if (pid == 0)
    abort();
  if (pid < 0 || waitpid(pid, NULL, 0) != pid)
    die("fork");
  return bench_now_us() - before;
}

static double by_mproc(const char *method) {
  const mproc_process_options options = {.method = method};
  mproc_process *process;
  double before = bench_now_us();
  if (mproc_process_create(&process, abort_now, NULL, 0, &options) < 0 ||
      mproc_process_start(process) < 0 || mproc_process_join(process, MPROC_FOREVER) < 0)
    die(method);
  double took = bench_now_us() - before;
  (void)mproc_process_close(process);
  return took;
}

static void report(FILE *json, const char *name, double *times) {
  char fields[64];
  double median = bench_median(times, ROUNDS) / 1000;
  (void)printf("%-24s %8.2f ms%s\n", name, median,
               median < TARGET_MS ? "" : "  over the target of 100 ms");
  (void)snprintf(fields, sizeof fields, "\"ms\":%.2f", median);
  bench_json(json, "abort", name, fields);
}

static void print_core_pattern(void) {
  char pattern[256] = "unknown\n";
  FILE *file = fopen("/proc/sys/kernel/core_pattern", "re");
  if (file) {
    (void)!fgets(pattern, sizeof pattern, file);
    (void)fclose(file);
  }
  (void)printf("core_pattern: %s\n", pattern);
}

int main(int argc, char **argv) {
  static const char *const methods[] = {"fork", "spawn", "forkserver"};
  double times[ROUNDS];
  char machine[128], folder[] = "/tmp/bench-abort-XXXXXX";
  const struct rlimit unlimited = {RLIM_INFINITY, RLIM_INFINITY};
  if (mproc_init(&argc, &argv, NULL) < 0)
    die("mproc_init");
  FILE *json = bench_open_json(argc, argv);
  bench_machine(machine, sizeof machine);
  if (setrlimit(RLIMIT_CORE, &unlimited) < 0 || !mkdtemp(folder) || chdir(folder) < 0)
    die("an unlimited core size and a folder");
  (void)printf("abort with unlimited core size, medians of %d; %s\n", ROUNDS, machine);
  print_core_pattern();
  for (int i = 0; i < ROUNDS; i++)
    times[i] = by_bare_fork();
  report(json, "bare fork, no heap", times);
  for (size_t m = 0; m < sizeof methods / sizeof methods[0]; m++) {
    for (int i = 0; i < ROUNDS; i++)
      times[i] = by_mproc(methods[m]);
    report(json, methods[m], times);
  }
  (void)unlink("core");
  (void)!chdir("/");
  (void)rmdir(folder);
  if (json)
    (void)fclose(json);
  return 0;
}
