/* What does it cost to start a function in another process and join it, and does the cost grow with
 * the parent's memory?
 *
 * In one run, interleaved: fork + waitpid and posix_spawn of this very program, bare, beside
 * mproc's fork, spawn and forkserver, from a parent that holds 0 to 8 GB, private (4 KiB pages,
 * touched) and in the shared heap. CPython's multiprocessing takes part from a parent of its own,
 * which holds as much private memory. The targets are those of docs/design/targets.md.
 *
 * The same for spawn with what programs give their children: a descriptor, an environment and an
 * argument of 4 KiB. To posix_spawn's child the bytes go through a pipe.
 *
 * Before that: how many system calls a start takes on each side, and the forkserver's memory. */
#define _GNU_SOURCE
#include "calls.h"
#include "measure.h"

#include <mproc/mproc.h>

#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SMALL_ROUNDS = 2000, LARGE_ROUNDS = 21, PYTHON_ROUNDS = 21, TRACED_STARTS = 50 };
#define GB ((size_t)1 << 30)

enum peer {
  BARE_FORK,
  MPROC_FORK,
  BARE_SPAWN,
  MPROC_SPAWN,
  BARE_SPAWN_FULL,
  MPROC_SPAWN_FULL,
  MPROC_FORKSERVER,
  PYTHON_FORK,
  PYTHON_SPAWN,
  PYTHON_FORKSERVER,
  PEERS
};

static const char *const names[PEERS] = {"fork",
                                         "mproc fork",
                                         "posix_spawn",
                                         "mproc spawn",
                                         "posix_spawn, 4 KiB",
                                         "mproc spawn, 4 KiB",
                                         "mproc forkserver",
                                         "CPython fork",
                                         "CPython spawn",
                                         "CPython forkserver"};

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

/* ---- a child that is given something --------------------------------------------------------- */

/* The numbers that posix_spawn's child finds its descriptors at. */
enum { ARGUMENT_SIZE = 4096, GIVEN = 100, ARGUMENT = 101 };

static struct {
  char argument[ARGUMENT_SIZE];
  const char **environment; /* ours and VARIABLE */
  int descriptor;
} full;

#define VARIABLE "BENCH_START"

static void fill(void) {
  size_t count = 0;
  while (environ[count])
    count++;
  full.environment = calloc(count + 2, sizeof *full.environment);
  if (!full.environment)
    die("calloc");
  memcpy(full.environment, environ, count * sizeof *full.environment);
  full.environment[count] = VARIABLE "=1";
  memset(full.argument, 7, sizeof full.argument);
  full.descriptor = open("/dev/null", O_RDWR | O_CLOEXEC);
}

/* 0: all of it is there. */
static int check_full(int descriptor, const char *argument, size_t size) {
  return size != ARGUMENT_SIZE || argument[0] != 7 || argument[size - 1] != 7 ||
         !getenv(VARIABLE) || fcntl(descriptor, F_GETFD) < 0;
}

/* --take: posix_spawn's child. */
static int take_full(void) {
  char argument[ARGUMENT_SIZE];
  size_t size = 0;
  ssize_t count;
  while (size < sizeof argument &&
         (count = read(ARGUMENT, argument + size, sizeof argument - size)) > 0)
    size += (size_t)count;
  return check_full(GIVEN, argument, size);
}

static int full_entry(void *argument, size_t size) {
  mproc_handle descriptor;
  return mproc_inherited("given", &descriptor) < 0 || check_full((int)descriptor, argument, size);
}

static void run_bare_spawn_full(void) {
  char *argv[] = {(char[]){"bench_start"}, (char[]){"--take"}, NULL};
  char **environment = (char **)(uintptr_t)full.environment;
  posix_spawn_file_actions_t actions;
  int ends[2], status;
  pid_t pid;
  if (pipe2(ends, O_CLOEXEC) < 0 || /* it holds as much without a reader */
      write(ends[1], full.argument, ARGUMENT_SIZE) != ARGUMENT_SIZE)
    die("pipe");
  (void)close(ends[1]);
  (void)posix_spawn_file_actions_init(&actions);
  (void)posix_spawn_file_actions_adddup2(&actions, full.descriptor, GIVEN);
  (void)posix_spawn_file_actions_adddup2(&actions, ends[0], ARGUMENT);
  int failed = posix_spawn(&pid, "/proc/self/exe", &actions, NULL, argv, environment);
  (void)posix_spawn_file_actions_destroy(&actions);
  (void)close(ends[0]);
  if (failed || waitpid(pid, &status, 0) != pid || status != 0)
    die("posix_spawn");
}

static void run_mproc_full(void) {
  const mproc_inherit given = {.handle = full.descriptor, .name = "given"};
  const mproc_process_options options = {
      .method = "spawn", .inherit = &given, .inherit_count = 1, .environment = full.environment};
  mproc_process *process;
  mproc_status status;
  if (mproc_process_create(&process, full_entry, full.argument, ARGUMENT_SIZE, &options) < 0 ||
      mproc_process_start(process) < 0 || mproc_process_join(process, MPROC_FOREVER) < 0 ||
      mproc_process_status(process, &status) < 0 || mproc_process_close(process) < 0)
    die("spawn");
  if (status.state != MPROC_STATE_EXITED || status.code != 0)
    die("a spawned child did not get what it was given");
}

/* ---- CPython --------------------------------------------------------------------------------- */

/* A process that starts and joins one child per line that it is sent; with a method and a count it
 * does what run_starts() does. */
static const char script[] =
    "import mmap, multiprocessing as m, os, sys, time\n"
    "def f(): pass\n"
    "if __name__ == '__main__':\n"
    "  if len(sys.argv) > 2:\n"
    "    c = m.get_context(sys.argv[2])\n"
    "    for i in range(int(sys.argv[3])): p = c.Process(target=f); p.start(); p.join()\n"
    "    server = sys.argv[2] == 'forkserver' and m.forkserver._forkserver._forkserver_pid\n"
    "    print(os.getpid(), int(server), flush=True)\n"
    "    sys.stdin.read(); sys.exit()\n"
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

static void run_one(enum peer peer) {
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
  case BARE_SPAWN_FULL:
    run_bare_spawn_full();
    break;
  case MPROC_SPAWN_FULL:
    run_mproc_full();
    break;
  case MPROC_FORKSERVER:
    run_mproc("forkserver");
    break;
  case PYTHON_FORK:
  case PYTHON_SPAWN:
  case PYTHON_FORKSERVER:
  case PEERS:
    break; /* not here */
  }
}

static const char *python_method(enum peer peer) {
  return strchr(names[peer], ' ') + 1;
}

static double time_one(enum peer peer) {
  double before = bench_now_us();
  if (peer >= PYTHON_FORK)
    return time_python(python_method(peer));
  run_one(peer);
  return bench_now_us() - before;
}

/* CPython takes part in a few rounds only, spread over all of them. */
static void measure(int rounds, double medians[PEERS]) {
  double *times[PEERS];
  size_t counts[PEERS] = {0};
  int python_step = rounds > PYTHON_ROUNDS ? rounds / PYTHON_ROUNDS : 1;
  int order[PEERS];
  for (int peer = 0; peer < PEERS; peer++) {
    times[peer] = calloc((size_t)rounds, sizeof(double));
    order[peer] = peer;
  }
  for (int round = -1; round < rounds; round++) { /* the first one warms up */
    bench_shuffle(order, PEERS);
    for (int i = 0; i < PEERS; i++) {
      int peer = order[i];
      bool takes_part =
          peer < PYTHON_FORK || (python.pid != 0 && (round < 0 || round % python_step == 0));
      double time = takes_part ? time_one((enum peer)peer) : 0;
      if (round >= 0 && takes_part)
        times[peer][counts[peer]++] = time;
    }
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

static void report_full(FILE *json, const char *memory, double bare_us, double us) {
  char name[64], fields[128];
  (void)printf("%-13s %6s %6s%22s %6s%22s %6.0f %6.0f", "    and 4 KiB", "", "", "", "", "",
               bare_us, us);
  print_ratio(us, bare_us, 1.2, 0);
  (void)printf("\n");
  (void)snprintf(name, sizeof name, "%s: descriptor, environment, 4 KiB", memory);
  (void)snprintf(fields, sizeof fields, "\"posix_spawn_us\":%.1f,\"mproc_spawn_us\":%.1f", bare_us,
                 us);
  bench_json(json, "start", name, fields);
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
  (void)snprintf(fields, sizeof fields,
                 "\"fork_us\":%.1f,\"mproc_fork_us\":%.1f,\"posix_spawn_us\":%.1f,"
                 "\"mproc_spawn_us\":%.1f,\"mproc_forkserver_us\":%.1f,\"cpython_fork_us\":%.1f,"
                 "\"cpython_spawn_us\":%.1f,\"cpython_forkserver_us\":%.1f",
                 medians[BARE_FORK], medians[MPROC_FORK], medians[BARE_SPAWN], medians[MPROC_SPAWN],
                 medians[MPROC_FORKSERVER], medians[PYTHON_FORK], medians[PYTHON_SPAWN],
                 medians[PYTHON_FORKSERVER]);
  bench_json(json, "start", memory, fields);
  report_full(json, memory, medians[BARE_SPAWN_FULL], medians[MPROC_SPAWN_FULL]);
  (void)fflush(stdout);
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

/* ---- system calls and memory ----------------------------------------------------------------- */

static int tell_server(void *arg, size_t size) {
  (void)size;
  **(long **)arg = (long)getppid();
  return 0;
}

static long find_server(void) {
  mproc_process_options options = {.method = "forkserver"};
  mproc_process *process = NULL;
  long *server = mproc_heap_calloc(1, sizeof *server);
  if (!server ||
      mproc_process_create(&process, tell_server, &server, sizeof server, &options) < 0 ||
      mproc_process_start(process) < 0 || mproc_process_join(process, MPROC_FOREVER) < 0)
    die("forkserver");
  (void)mproc_process_close(process);
  long pid = *server;
  (void)mproc_heap_free(server);
  return pid;
}

/* --starts PEER COUNT: a program for calls.h. */
static int run_starts(enum peer peer, long count) {
  for (long i = 0; i < count; i++)
    run_one(peer);
  (void)printf("%ld %ld\n", (long)getpid(), peer == MPROC_FORKSERVER ? find_server() : 0);
  (void)fflush(stdout);
  while (getchar() != EOF)
    continue;
  return 0;
}

typedef struct starts_command {
  char program[PATH_MAX], peer[16], count[16];
  char *argv[6];
} starts_command;

static void make_command(starts_command *c, enum peer peer, long count, const char *python_path) {
  static char starts[] = "--starts", python3[] = "python3", zero[] = "0";
  (void)snprintf(c->count, sizeof c->count, "%ld", count);
  (void)snprintf(c->peer, sizeof c->peer, "%d", (int)peer);
  if (peer < PYTHON_FORK) {
    ssize_t length = readlink("/proc/self/exe", c->program, sizeof c->program - 1);
    c->program[length < 0 ? 0 : length] = '\0';
    memcpy(c->argv, (char *[]){c->program, starts, c->peer, c->count, NULL}, 5 * sizeof(char *));
  } else {
    (void)snprintf(c->program, sizeof c->program, "%s", python_path);
    (void)snprintf(c->peer, sizeof c->peer, "%s", python_method(peer));
    memcpy(c->argv, (char *[]){python3, c->program, zero, c->peer, c->count, NULL},
           6 * sizeof(char *));
  }
}

/* What one start takes: the difference of so many starts and twice as many. */
static const char *count_calls(enum peer peer, const char *python_path, bench_calls *ret_calls) {
  bench_calls few, many;
  starts_command c;
  if (peer >= PYTHON_FORK && !bench_has_program("python3"))
    return "no python3";
  make_command(&c, peer, TRACED_STARTS, python_path);
  const char *missing = bench_count_calls(c.argv, &few);
  make_command(&c, peer, 2L * TRACED_STARTS, python_path);
  if (!missing)
    missing = bench_count_calls(c.argv, &many);
  if (!missing)
    *ret_calls = (bench_calls){(many.client - few.client) / TRACED_STARTS,
                               (many.server - few.server) / TRACED_STARTS,
                               (many.others - few.others) / TRACED_STARTS};
  return missing;
}

static void report_calls(FILE *json, const char *python_path) {
  char fields[256], name[64];
  (void)printf("system calls of one start + join, by strace (%d and %d starts)\n\n"
               "%-18s %8s %8s %8s\n",
               TRACED_STARTS, 2 * TRACED_STARTS, "", "caller", "server", "child");
  for (int peer = 0; peer < PEERS; peer++) {
    bench_calls calls;
    const char *missing = count_calls((enum peer)peer, python_path, &calls);
    (void)snprintf(name, sizeof name, "%s: system calls", names[peer]);
    if (missing) {
      (void)printf("%-18s %s\n", names[peer], missing);
      (void)snprintf(fields, sizeof fields, "\"missing\":\"%s\"", missing);
    } else {
      (void)printf("%-18s %8.1f %8.1f %8.1f\n", names[peer], calls.client, calls.server,
                   calls.others);
      (void)snprintf(fields, sizeof fields, "\"caller\":%.1f,\"server\":%.1f,\"child\":%.1f",
                     calls.client, calls.server, calls.others);
    }
    bench_json(json, "start", name, fields);
    (void)fflush(stdout);
  }
}

static void report_memory(FILE *json, const char *python_path) {
  static const enum peer servers[] = {MPROC_FORKSERVER, PYTHON_FORKSERVER};
  char fields[128], name[64];
  (void)printf("\nmemory of the server after %d starts, KB of PSS\n\n", TRACED_STARTS);
  for (size_t i = 0; i < sizeof servers / sizeof servers[0]; i++) {
    long kilobytes;
    starts_command c;
    make_command(&c, servers[i], TRACED_STARTS, python_path);
    const char *missing = servers[i] >= PYTHON_FORK && !bench_has_program("python3")
                              ? "no python3"
                              : bench_server_memory(c.argv, &kilobytes);
    (void)snprintf(name, sizeof name, "%s: memory", names[servers[i]]);
    if (missing) {
      (void)printf("%-18s %s\n", names[servers[i]], missing);
      (void)snprintf(fields, sizeof fields, "\"missing\":\"%s\"", missing);
    } else {
      (void)printf("%-18s %8ld\n", names[servers[i]], kilobytes);
      (void)snprintf(fields, sizeof fields, "\"pss_kb\":%ld", kilobytes);
    }
    bench_json(json, "start", name, fields);
  }
  (void)printf("\n");
}

static void print_heading(void) {
  (void)printf("start + join of an empty function, median microseconds\n\n");
  (void)printf("T1, fork:       <= 1.10x bare fork, or 25 us more\n"
               "T2, forkserver: <= 1.3x bare fork of a small process\n"
               "T6, spawn:      <= 1.2x posix_spawn\n\n"
               "and 4 KiB: spawn and posix_spawn with a descriptor, an environment and 4096 bytes, "
               "which\nposix_spawn's child reads from a pipe\n\n");
  (void)printf("%-13s %6s %6s %-22s %6s %-22s %6s %6s %-22s %s\n", "parent holds", "fork", "mproc",
               "        T1", "server", "        T2", "spawn", "mproc", "        T6",
               "CPython: fork, spawn, forkserver");
}

int main(int argc, char **argv) {
  if (argc == 2 && strcmp(argv[1], "--exit") == 0)
    return 0;
  if (argc == 2 && strcmp(argv[1], "--take") == 0)
    return take_full();
  const mproc_init_options options = {.heap_size = 9 * GB};
  if (mproc_init(&argc, &argv, &options) < 0)
    die("mproc_init");
  fill();
  if (argc == 4 && strcmp(argv[1], "--starts") == 0)
    return run_starts((enum peer)atoi(argv[2]), atol(argv[3]));
  FILE *json = bench_open_json(argc, argv);
  char machine[128];
  bench_machine(machine, sizeof machine);
  (void)printf("%s\n\n", machine);
  char path[] = "/tmp/bench_start_XXXXXX.py";
  int fd = mkostemps(path, 3, O_CLOEXEC);
  if (fd < 0 || write(fd, script, sizeof script - 1) != (ssize_t)sizeof script - 1)
    die("the Python script");
  (void)close(fd);
  report_calls(json, path);
  report_memory(json, path);
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
