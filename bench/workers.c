#define _GNU_SOURCE
#include "workers.h"

#include <mproc/mproc.h>

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 16, MINUTE_MS = 60 * 1000 };

typedef struct order {
  bench_work *work;
  int number;
  void *user;
} order;

static int entry(void *arg, size_t size) {
  const order *o = arg;
  (void)size;
  return o->work(o->number, o->user);
}

static void die(const char *what) {
  (void)fprintf(stderr, "bench: %s: %s\n", what, mproc_error_detail());
  exit(1); /* daemons end with us */
}

void bench_run_workers(int count, bench_work *work, void *user) {
  const mproc_process_options options = {.method = "fork", .daemon = 1};
  mproc_process *workers[MOST];
  mproc_status status;
  if (count > MOST)
    die("too many workers");
  for (int i = 0; i < count; i++) {
    const order o = {work, i, user};
    if (mproc_process_create(&workers[i], entry, &o, sizeof o, &options) < 0 ||
        mproc_process_start(workers[i]) < 0)
      die("starting a worker");
  }
  for (int i = 0; i < count; i++) {
    char text[160];
    if (mproc_process_join(workers[i], MINUTE_MS) < 0 ||
        mproc_process_status(workers[i], &status) < 0)
      die("a worker");
    if (status.state != MPROC_STATE_EXITED || status.code != 0) {
      (void)fprintf(stderr, "bench: a worker %s\n", mproc_strstatus(&status, text, sizeof text));
      exit(1);
    }
    (void)mproc_process_close(workers[i]);
  }
}

void bench_meet(atomic_int *met, int parties) {
  atomic_fetch_add(met, 1);
  while (atomic_load(met) < parties)
    (void)sched_yield();
}
