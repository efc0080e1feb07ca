/* What does a warm spare of a forkserver save?
 *
 * Interleaved in one run: bare fork and waitpid, a start by a forkserver, and one that takes a
 * spare; each with the time to the first line of the entry, beside one round trip of two processes
 * that sleep on a futex. A partner process does the bare fork: in this one every page that it
 * touches later would be copied once more, at the cost of the starts that come next. Between two
 * starts there is time for the server to make the next spare. */
#define _GNU_SOURCE
#include "measure.h"

#include <mproc/mproc.h>

#include <linux/futex.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 400, PAUSE_US = 8000 };

typedef struct board {
  _Atomic uint32_t ping, pong;
  bool fork_first; /* what the partner does before it answers */
  double forked_us;
  double entered_us;
} board;

static void die(const char *what) {
  (void)fprintf(stderr, "bench_spare: %s: %s\n", what, mproc_error_detail());
  exit(1);
}

static int enter(void *arg, size_t size) {
  (void)size;
  (*(board **)arg)->entered_us = bench_now_us();
  return 0;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t value) {
  while (atomic_load(word) == value)
    (void)syscall(SYS_futex, word, FUTEX_WAIT, value, NULL, NULL, 0);
}

static void futex_set(_Atomic uint32_t *word, uint32_t value) {
  atomic_store(word, value);
  (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static double bare_fork(void) {
  double before = bench_now_us();
  pid_t pid = fork();
  if (pid == 0)
    _exit(0);
  if (pid < 0 || waitpid(pid, NULL, 0) != pid)
    die("fork");
  return bench_now_us() - before;
}

static int echo(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (uint32_t i = 0; i < 2 * (ROUNDS + 1); i++) {
    futex_wait(&b->ping, i);
    if (b->fork_first)
      b->forked_us = bare_fork();
    futex_set(&b->pong, i + 1);
  }
  return 0;
}

static uint32_t trips;

static double round_trip(board *b) {
  uint32_t i = trips++;
  double before = bench_now_us();
  futex_set(&b->ping, i + 1);
  futex_wait(&b->pong, i);
  return bench_now_us() - before;
}

static double start_and_join(const mproc_context *context, board *b, double *ret_entered) {
  mproc_process_options options = {.context = context};
  mproc_process *process;
  if (mproc_process_create(&process, enter, &b, sizeof b, &options) < 0)
    die("create");
  double before = bench_now_us();
  if (mproc_process_start(process) < 0 || mproc_process_join(process, MPROC_FOREVER) < 0)
    die("start");
  double end = bench_now_us();
  (void)mproc_process_close(process);
  *ret_entered = b->entered_us - before;
  return end - before;
}

static mproc_context *context_with(int spares) {
  const mproc_context_options options = {.method = "forkserver", .spares = spares};
  mproc_context *context;
  if (mproc_context_create(&context, &options) < 0)
    die("context");
  return context;
}

enum row { TRIP, FORK, PLAIN, PLAIN_ENTERED, SPARE, SPARE_ENTERED, ROWS };

static void measure(board *b, double medians[ROWS]) {
  mproc_context *plain = context_with(0), *spare = context_with(2);
  mproc_process_options by_fork = {.method = "fork"};
  mproc_process *partner;
  double *times[ROWS];
  for (int row = 0; row < ROWS; row++)
    times[row] = calloc(ROUNDS, sizeof(double));
  if (mproc_process_create(&partner, echo, &b, sizeof b, &by_fork) < 0 ||
      mproc_process_start(partner) < 0)
    die("partner");
  for (int i = -1; i < ROUNDS; i++) { /* the first one warms up */
    int at = i < 0 ? 0 : i;
    b->fork_first = false;
    times[TRIP][at] = round_trip(b);
    b->fork_first = true;
    (void)round_trip(b);
    times[FORK][at] = b->forked_us;
    times[PLAIN][at] = start_and_join(plain, b, &times[PLAIN_ENTERED][at]);
    times[SPARE][at] = start_and_join(spare, b, &times[SPARE_ENTERED][at]);
    (void)usleep(PAUSE_US);
  }
  for (int row = 0; row < ROWS; row++) {
    medians[row] = bench_median(times[row], ROUNDS);
    free(times[row]);
  }
  if (mproc_process_join(partner, MPROC_FOREVER) < 0)
    die("partner");
  (void)mproc_process_close(partner);
  mproc_context_destroy(plain);
  mproc_context_destroy(spare);
}

static void report(FILE *json, const double medians[ROWS]) {
  static const char *const names[ROWS] = {"futex round trip",         "fork + waitpid",
                                          "forkserver: start + join", "  start to entry",
                                          "spare: start + join",      "  start to entry"};
  char fields[64];
  for (int row = 0; row < ROWS; row++) {
    (void)printf("%-26s %8.1f us\n", names[row], medians[row]);
    (void)snprintf(fields, sizeof fields, "\"us\":%.1f", medians[row]);
    bench_json(json, "spare", names[row], fields);
  }
  (void)printf("\nforkserver / fork                  %5.2fx  (target <= 1.30x)\n",
               medians[PLAIN] / medians[FORK]);
  (void)printf("spare / fork                       %5.2fx  (target <= 0.75x)\n",
               medians[SPARE] / medians[FORK]);
  (void)printf("spare to entry / futex round trip  %5.2fx  (target <= 1.50x)\n",
               medians[SPARE_ENTERED] / medians[TRIP]);
}

int main(int argc, char **argv) {
  char machine[128];
  double medians[ROWS];
  if (mproc_init(&argc, &argv, NULL) < 0)
    die("mproc_init");
  FILE *json = bench_open_json(argc, argv);
  bench_machine(machine, sizeof machine);
  (void)printf("a start from a forkserver and from its spares, medians of %d; %s\n\n", ROUNDS,
               machine);
  board *b = mproc_heap_calloc(1, sizeof *b);
  if (!b)
    die("heap");
  measure(b, medians);
  report(json, medians);
  if (json)
    (void)fclose(json);
  return 0;
}
