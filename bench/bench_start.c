/* What does it cost to start a function in another process and join it, and does the cost grow with
 * the parent's memory?
 *
 * In one run, interleaved: fork + waitpid and posix_spawn of this very program, bare, beside
 * mproc's fork, spawn and forkserver, from a parent that holds 0 to 8 GB, private (4 KiB pages,
 * touched) and in the shared heap. CPython's multiprocessing takes part from a parent of its own,
 * which holds as much private memory. The targets are those of docs/design/targets.md. */
#define _GNU_SOURCE
#include "measure.h"

#include <mproc/mproc.h>

#include <fcntl.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SMALL_ROUNDS = 2000, LARGE_ROUNDS = 21, PYTHON_ROUNDS = 21 };
#define GB ((size_t)1 << 30)

enum peer {
  BARE_FORK,
  MPROC_FORK,
  BARE_SPAWN,
  MPROC_SPAWN,
  MPROC_FORKSERVER,
  PYTHON_FORK,
  PYTHON_SPAWN,
  PYTHON_FORKSERVER,
  PEERS
};

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

/* ---- CPython: a process that starts and joins one child per line that it is sent ------------- */

static const char script[] =
    "import mmap, multiprocessing as m, sys, time\n"
    "def f(): pass\n"
    "if __name__ == '__main__':\n"
    "  size = int(sys.argv[1]) << 30\n"
    "  if size:\n"
    "    held = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)\n"
    "    held.madvise(mmap.MADV_NOHUGEPAGE)\n"
    "    for at in range(0, size, 4096): held[at] = 1\n"
    "  print(0.0, flush=True)\n"
    "  for line in sys.stdin:\n"
    "    c = m.get_context(line.strip())\n"
    "    b = time.perf_counter(); p = c.Process(target=f); p.start(); p.join()\n"
    "    print((time.perf_counter() - b) * 1e6, flush=True)\n";

static struct {
  pid_t pid; /* 0: there is none */
  FILE *to, *from;
} python;

static bool read_time(double *ret_us) {
  char line[64];
  if (!fgets(line, sizeof line, python.from))
    return false;
  *ret_us = strtod(line, NULL);
  return true;
}

static void end_python(void) {
  if (python.pid == 0)
    return;
  (void)fclose(python.to);
  (void)fclose(python.from);
  (void)waitpid(python.pid, NULL, 0);
  python.pid = 0;
}

/* Its memory comes on top of ours. */
static void begin_python(const char *path, size_t gigabytes) {
  size_t memory = (size_t)sysconf(_SC_PHYS_PAGES) * (size_t)sysconf(_SC_PAGESIZE);
  int to[2], from[2];
  char size[16];
  double ready;
  if (2 * gigabytes * GB + 2 * GB > memory || pipe2(to, O_CLOEXEC) < 0 ||
      pipe2(from, O_CLOEXEC) < 0)
    return;
  (void)snprintf(size, sizeof size, "%zu", gigabytes);
  char *argv[] = {(char[]){"python3"}, (char *)(uintptr_t)path, size, NULL};
  posix_spawn_file_actions_t actions;
  (void)posix_spawn_file_actions_init(&actions);
  (void)posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
  (void)posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
  int failed = posix_spawnp(&python.pid, argv[0], &actions, NULL, argv, environ);
  (void)posix_spawn_file_actions_destroy(&actions);
  (void)close(to[0]);
  (void)close(from[1]);
  python.to = fdopen(to[1], "w");
  python.from = fdopen(from[0], "r");
  if (failed) {
    python.pid = 0;
    (void)fclose(python.to);
    (void)fclose(python.from);
  } else if (!read_time(&ready)) {
    end_python();
  }
}

static double time_python(const char *method) {
  double us;
  (void)fprintf(python.to, "%s\n", method);
  (void)fflush(python.to);
  if (!read_time(&us))
    die("python3");
  return us;
}

/* ---- measuring ------------------------------------------------------------------------------- */

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
  case PYTHON_FORK:
    return time_python("fork");
  case PYTHON_SPAWN:
    return time_python("spawn");
  case PYTHON_FORKSERVER:
    return time_python("forkserver");
  case PEERS:
    break;
  }
  return bench_now_us() - before;
}

/* The order within a round turns, so that nobody always comes after the same neighbour. CPython
 * takes part in a few rounds only, spread over all of them. */
static void measure(int rounds, double medians[PEERS]) {
  double *times[PEERS];
  size_t counts[PEERS] = {0};
  int python_step = rounds > PYTHON_ROUNDS ? rounds / PYTHON_ROUNDS : 1;
  for (int peer = 0; peer < PEERS; peer++)
    times[peer] = calloc((size_t)rounds, sizeof(double));
  for (int round = -1; round < rounds; round++) /* the first one warms up */
    for (int i = 0; i < PEERS; i++) {
      int peer = (i + round + 1) % PEERS;
      bool takes_part =
          peer < PYTHON_FORK || (python.pid != 0 && (round < 0 || round % python_step == 0));
      double time = takes_part ? time_one((enum peer)peer) : 0;
      if (round >= 0 && takes_part)
        times[peer][counts[peer]++] = time;
    }
  for (int peer = 0; peer < PEERS; peer++) {
    medians[peer] = counts[peer] ? bench_median(times[peer], counts[peer]) : 0;
    free(times[peer]);
  }
}

/* Beside its target; `allowed_us`: so much more is good enough. */
static void print_ratio(double us, double bare_us, double target, double allowed_us) {
  bool met = us <= target * bare_us || us - bare_us <= allowed_us;
  (void)printf(" %6.2fx %+6.0f %-6s", us / bare_us, us - bare_us, met ? "met" : "missed");
}

static void report(FILE *json, const char *memory, const double medians[PEERS]) {
  char fields[512];
  static double small_fork;
  if (small_fork == 0)
    small_fork = medians[BARE_FORK];
  (void)printf("%-13s %6.0f %6.0f", memory, medians[BARE_FORK], medians[MPROC_FORK]);
  print_ratio(medians[MPROC_FORK], medians[BARE_FORK], 1.10, 25);
  (void)printf(" %6.0f", medians[MPROC_FORKSERVER]);
  print_ratio(medians[MPROC_FORKSERVER], small_fork, 1.3, 0);
  (void)printf(" %6.0f %6.0f", medians[BARE_SPAWN], medians[MPROC_SPAWN]);
  print_ratio(medians[MPROC_SPAWN], medians[BARE_SPAWN], 1.2, 0);
  if (medians[PYTHON_FORK] > 0)
    (void)printf(" %7.0f %7.0f %7.0f\n", medians[PYTHON_FORK], medians[PYTHON_SPAWN],
                 medians[PYTHON_FORKSERVER]);
  else
    (void)printf(" %7s %7s %7s\n", "-", "-", "-");
  (void)fflush(stdout);
  (void)snprintf(fields, sizeof fields,
                 "\"fork_us\":%.1f,\"mproc_fork_us\":%.1f,\"posix_spawn_us\":%.1f,"
                 "\"mproc_spawn_us\":%.1f,\"mproc_forkserver_us\":%.1f,\"cpython_fork_us\":%.1f,"
                 "\"cpython_spawn_us\":%.1f,\"cpython_forkserver_us\":%.1f",
                 medians[BARE_FORK], medians[MPROC_FORK], medians[BARE_SPAWN], medians[MPROC_SPAWN],
                 medians[MPROC_FORKSERVER], medians[PYTHON_FORK], medians[PYTHON_SPAWN],
                 medians[PYTHON_FORKSERVER]);
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

static void measure_private(FILE *json, const char *python_path, size_t gigabytes) {
  double medians[PEERS];
  char name[32];
  (void)snprintf(name, sizeof name, "%zu GB private", gigabytes);
  void *memory = gigabytes ? hold_private(gigabytes * GB) : NULL;
  if (gigabytes && !memory) {
    (void)printf("%-14s no memory for it\n", name);
    return;
  }
  begin_python(python_path, gigabytes);
  measure(gigabytes ? LARGE_ROUNDS : SMALL_ROUNDS, medians);
  end_python();
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

static void print_heading(void) {
  char machine[128];
  bench_machine(machine, sizeof machine);
  (void)printf("start + join of an empty function, median microseconds; %s\n\n", machine);
  (void)printf("T1, fork:       <= 1.10x bare fork, or 25 us more\n"
               "T2, forkserver: <= 1.3x bare fork of a small process\n"
               "T6, spawn:      <= 1.2x posix_spawn\n\n");
  (void)printf("%-13s %6s %6s %-22s %6s %-22s %6s %6s %-22s %s\n", "parent holds", "fork", "mproc",
               "        T1", "server", "        T2", "spawn", "mproc", "        T6",
               "CPython: fork, spawn, forkserver");
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--exit") == 0)
    return 0;
  const mproc_init_options options = {.heap_size = 9 * GB};
  if (mproc_init(&argc, &argv, &options) < 0)
    die("mproc_init");
  FILE *json = bench_open_json(argc, argv);
  char path[] = "/tmp/bench_start_XXXXXX.py";
  int fd = mkostemps(path, 3, O_CLOEXEC);
  if (fd < 0 || write(fd, script, sizeof script - 1) != (ssize_t)sizeof script - 1)
    die("the Python script");
  (void)close(fd);
  print_heading();
  static const size_t sizes[] = {0, 1, 4, 8};
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    measure_private(json, path, sizes[i]);
  for (size_t i = 1; i < sizeof sizes / sizeof sizes[0]; i++)
    measure_shared(json, sizes[i]);
  (void)unlink(path);
  if (json)
    (void)fclose(json);
  return 0;
}
