/* What does it cost to start a function in another process and join it, and does the cost grow with
 * the parent's memory?
 *
 * In one run, interleaved: fork + waitpid and posix_spawn of this very program, bare, beside
 * mproc's fork, spawn and forkserver, from a parent that holds 0 to 8 GB, private (4 KiB pages,
 * touched) and in the shared heap. CPython's multiprocessing stands beside it, from a small parent.
 */
#define _GNU_SOURCE
#include "measure.h"

#include <mproc/mproc.h>

#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SMALL_ROUNDS = 2000, LARGE_ROUNDS = 21, PEERS = 5 };
#define GB ((size_t)1 << 30)

enum peer { BARE_FORK, MPROC_FORK, BARE_SPAWN, MPROC_SPAWN, MPROC_FORKSERVER };

static int entry(void *arg, size_t size) {
  (void)arg;
  (void)size;
  return 0;
}

static void die(const char *what) {
  (void)fprintf(stderr, "bench_start: %s: %s\n", what, mproc_error_detail());
  exit(1);
}

static void run_bare_fork(void) {
  pid_t pid = fork();
  if (pid == 0)
    _exit(0);
  if (pid < 0 || waitpid(pid, NULL, 0) != pid)
    die("fork");
}

static void run_bare_spawn(void) {
  char *argv[] = {(char[]){"bench_start"}, (char[]){"--exit"}, NULL};
  pid_t pid;
  if (posix_spawn(&pid, "/proc/self/exe", NULL, NULL, argv, environ) != 0 ||
      waitpid(pid, NULL, 0) != pid)
    die("posix_spawn");
}

static void run_mproc(const char *method) {
  mproc_process_options options = {.method = method};
  mproc_process *process;
  if (mproc_process_create(&process, entry, NULL, 0, &options) < 0 ||
      mproc_process_start(process) < 0 || mproc_process_join(process, MPROC_FOREVER) < 0 ||
      mproc_process_close(process) < 0)
    die(method);
}

static double time_one(enum peer peer) {
  double before = bench_now_us();
  switch (peer) {
  case BARE_FORK:
    run_bare_fork();
    break;
  case MPROC_FORK:
    run_mproc("fork");
    break;
  case BARE_SPAWN:
    run_bare_spawn();
    break;
  case MPROC_SPAWN:
    run_mproc("spawn");
    break;
  case MPROC_FORKSERVER:
    run_mproc("forkserver");
    break;
  }
  return bench_now_us() - before;
}

/* The order within a round turns, so that nobody always comes after the same neighbour. */
static void measure(int rounds, double medians[PEERS]) {
  double *times[PEERS];
  for (int peer = 0; peer < PEERS; peer++)
    times[peer] = calloc((size_t)rounds, sizeof(double));
  for (int round = -1; round < rounds; round++) /* the first one warms up */
    for (int i = 0; i < PEERS; i++) {
      int peer = (i + round + 1) % PEERS;
      double time = time_one((enum peer)peer);
      if (round >= 0)
        times[peer][round] = time;
    }
  for (int peer = 0; peer < PEERS; peer++) {
    medians[peer] = bench_median(times[peer], (size_t)rounds);
    free(times[peer]);
  }
}

static void report(FILE *json, const char *memory, const double medians[PEERS]) {
  char fields[512];
  static double small_fork;
  if (small_fork == 0)
    small_fork = medians[BARE_FORK];
  (void)printf("%-14s %10.0f %10.0f %6.2fx %10.0f %10.0f %6.2fx %10.0f %6.2fx\n", memory,
               medians[BARE_FORK], medians[MPROC_FORK], medians[MPROC_FORK] / medians[BARE_FORK],
               medians[BARE_SPAWN], medians[MPROC_SPAWN],
               medians[MPROC_SPAWN] / medians[BARE_SPAWN], medians[MPROC_FORKSERVER],
               medians[MPROC_FORKSERVER] / small_fork);
  (void)fflush(stdout);
  (void)snprintf(fields, sizeof fields,
                 "\"fork_us\":%.1f,\"mproc_fork_us\":%.1f,\"posix_spawn_us\":%.1f,"
                 "\"mproc_spawn_us\":%.1f,\"mproc_forkserver_us\":%.1f",
                 medians[BARE_FORK], medians[MPROC_FORK], medians[BARE_SPAWN], medians[MPROC_SPAWN],
                 medians[MPROC_FORKSERVER]);
  bench_json(json, "start", memory, fields);
}

/* Touched, so that there is something to copy; 4 KiB pages, as malloc gives them by default. */
static void *hold_private(size_t size) {
  void *memory =
      mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED)
    return NULL;
  (void)madvise(memory, size, MADV_NOHUGEPAGE);
  memset(memory, 1, size);
  return memory;
}

static void measure_private(FILE *json, size_t gigabytes) {
  double medians[PEERS];
  char name[32];
  (void)snprintf(name, sizeof name, "%zu GB private", gigabytes);
  void *memory = gigabytes ? hold_private(gigabytes * GB) : NULL;
  if (gigabytes && !memory) {
    (void)printf("%-14s no memory for it\n", name);
    return;
  }
  measure(gigabytes ? LARGE_ROUNDS : SMALL_ROUNDS, medians);
  report(json, name, medians);
  if (memory)
    (void)munmap(memory, gigabytes * GB);
}

static void measure_shared(FILE *json, size_t gigabytes) {
  double medians[PEERS];
  char name[32];
  (void)snprintf(name, sizeof name, "%zu GB shared", gigabytes);
  void *memory = mproc_heap_alloc(gigabytes * GB);
  if (!memory) {
    (void)printf("%-14s %s\n", name, mproc_error_detail());
    return;
  }
  memset(memory, 1, gigabytes * GB);
  measure(LARGE_ROUNDS * 5, medians);
  report(json, name, medians);
  (void)mproc_heap_free(memory);
}

static void measure_python(FILE *json) {
  static const char script[] =
      "import multiprocessing as m, time\n"
      "def f(): pass\n"
      "if __name__ == '__main__':\n"
      "  for method in ('fork', 'spawn', 'forkserver'):\n"
      "    c = m.get_context(method); t = []\n"
      "    for i in range(60 if method == 'fork' else 15):\n"
      "      b = time.perf_counter(); p = c.Process(target=f); p.start(); p.join()\n"
      "      t.append((time.perf_counter() - b) * 1e6)\n"
      "    print(method, sorted(t)[len(t) // 2])\n";
  char path[] = "/tmp/bench_start_XXXXXX.py", command[128], method[16], fields[64], name[32];
  int fd = mkstemps(path, 3);
  if (fd < 0 || write(fd, script, sizeof script - 1) != (ssize_t)sizeof script - 1)
    die("the Python script");
  (void)close(fd);
  (void)snprintf(command, sizeof command, "python3 %s", path);
  FILE *output = popen(command, "re");
  double median;
  (void)printf("\nCPython's multiprocessing, small parent\n");
  while (output && fscanf(output, "%15s %lf", method, &median) == 2) {
    (void)printf("%-14s %10.0f us\n", method, median);
    (void)snprintf(name, sizeof name, "cpython %s", method);
    (void)snprintf(fields, sizeof fields, "\"us\":%.1f", median);
    bench_json(json, "start", name, fields);
  }
  if (!output || pclose(output) != 0)
    (void)printf("python3 did not run: no comparison\n");
  (void)unlink(path);
}

int main(int argc, char **argv) {
  char machine[128];
  if (argc == 2 && strcmp(argv[1], "--exit") == 0)
    return 0;
  const mproc_init_options options = {.heap_size = 9 * GB};
  if (mproc_init(&argc, &argv, &options) < 0)
    die("mproc_init");
  FILE *json = bench_open_json(argc, argv);
  bench_machine(machine, sizeof machine);
  (void)printf("start + join of an empty function, median microseconds; %s\n\n", machine);
  (void)printf("%-14s %10s %10s %7s %10s %10s %7s %10s %s\n", "parent holds", "fork", "mproc", "",
               "posix_spawn", "mproc", "", "forkserver", "of the first fork");
  static const size_t sizes[] = {0, 1, 4, 8};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    measure_private(json, sizes[i]);
  for (size_t i = 1; i < sizeof sizes / sizeof sizes[0]; i++)
    measure_shared(json, sizes[i]);
  measure_python(json);
  if (json)
    (void)fclose(json);
  return 0;
}
