/* Single tasks, for bench_pool: there and back, many at once, and after the death of a worker. */
#define _GNU_SOURCE
#include "measure.h"
#include "pool_parts.h"
#include "queue_peers.h"
#include "workers.h"

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- apply: 64 bytes there and back ---------------------------------------------------------- */

enum { TRIPS = 1000, WARM = TRIPS / 8, BYTES = QUEUE_SMALL };

static int echo(mproc_task *task, const void *input, size_t size) {
  return mproc_task_result(task, input, size);
}

static double apply(int argument) {
  double us[TRIPS];
  mproc_pool *pool = pool_ours();
  (void)argument;
  for (int i = -WARM; i < TRIPS; i++) {
    unsigned char there[BYTES] = {0}, back[BYTES] = {0};
    memcpy(there, &i, sizeof i);
    double before = bench_now_us();
    pool_must(mproc_pool_apply(pool, echo, there, sizeof there, back, sizeof back, NULL, NULL),
              "mproc_pool_apply");
    if (i >= 0)
      us[i] = bench_now_us() - before;
    if (memcmp(there, back, sizeof there) != 0)
      pool_die("an echo is wrong");
  }
  return bench_median(us, TRIPS);
}

typedef struct ping_pong {
  void *ways[2]; /* there and back */
  double *us;    /* shared */
} ping_pong;

static int play(int number, void *user) {
  const ping_pong *p = user;
  const queue_peer *place = &queue_peer_place;
  unsigned char message[BYTES] = {0};
  double us[TRIPS];
  queue_sum sum = {0, 0, 0};
  for (int i = -WARM; i < TRIPS; i++) {
    const queue_work one = {sizeof message, (uint64_t)(i + WARM), 1, message};
    double before = bench_now_us();
    if (number == 0) {
      place->produce(p->ways[0], &one);
      place->consume(p->ways[1], &one, &sum);
    } else {
      place->consume(p->ways[0], &one, &sum);
      place->produce(p->ways[1], &one);
    }
    if (i >= 0)
      us[i] = bench_now_us() - before;
  }
  if (number == 0)
    *p->us = bench_median(us, TRIPS);
  return 0;
}

static double bare(int argument) {
  const queue_setup setup = {BYTES, 1, 1};
  ping_pong p = {{NULL, NULL}, pool_must_have(mproc_heap_calloc(1, sizeof(double)), "heap")};
  (void)argument;
  for (int i = 0; i < 2; i++)
    p.ways[i] = queue_peer_place.open(&setup);
  bench_run_workers(2, play, &p);
  for (int i = 0; i < 2; i++)
    queue_peer_place.close(p.ways[i]);
  double us = *p.us;
  (void)mproc_heap_free(p.us);
  return us;
}

void pool_measure_apply(void) {
  static const pool_contender travellers[] = {{"mproc_pool_apply", apply, 0, NULL},
                                              {"spin, then futex", bare, 0, NULL}};
  static const pool_target targets[] = {{"T11", 0, 1, 1.3}};
  pool_ask(&(pool_question){.name = "apply",
                            .what = "a round trip of 64 bytes, medians of 1,000 in each round",
                            .unit = "us",
                            .contenders = travellers,
                            .count = 2,
                            .targets = targets,
                            .target_count = 1});
}

/* ---- async ----------------------------------------------------------------------------------- */

enum { TASKS = 50000, PYTHON_TASKS = 5000, PYTHON_MAP = 20000, JOBLIB_TASKS = 1000 };

static int nothing(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  return 0;
}

static void count_down(mproc_future *future, void *user) {
  (void)future;
  --*(int *)user;
}

/* M tasks/s, as a loop of events would run them. */
static double async_callbacks(int tasks) {
  mproc_pool *pool = pool_ours();
  mproc_handle handle;
  int left = tasks;
  const mproc_submit_options options = {.done = count_down, .user = &left};
  pool_must(mproc_pool_handle(pool, &handle), "mproc_pool_handle");
  double before = bench_now_us();
  for (int i = 0; i < tasks; i++)
    pool_must(mproc_pool_apply_async(pool, nothing, NULL, 0, NULL, &options),
              "mproc_pool_apply_async");
  while (left > 0) {
    struct pollfd event = {.fd = (int)handle, .events = POLLIN};
    (void)poll(&event, 1, -1);
    pool_must(mproc_pool_dispatch(pool), "mproc_pool_dispatch");
  }
  return tasks / (bench_now_us() - before);
}

static double async_futures(int tasks) {
  static mproc_future *futures[TASKS];
  mproc_pool *pool = pool_ours();
  double before = bench_now_us();
  for (int i = 0; i < tasks; i++)
    pool_must(mproc_pool_apply_async(pool, nothing, NULL, 0, &futures[i], NULL),
              "mproc_pool_apply_async");
  pool_must(mproc_future_wait_all(futures, (size_t)tasks, MPROC_FOREVER), "mproc_future_wait_all");
  double us = bench_now_us() - before;
  for (int i = 0; i < tasks; i++)
    mproc_future_destroy(futures[i]);
  return tasks / us;
}

static double libuv(int tasks) {
  return pool_in_child(pool_libuv, tasks);
}

static double glib(int tasks) {
  return pool_in_child(pool_glib, tasks);
}

void pool_measure_async(void) {
  static const pool_contender runners[] = {
      {"mproc, callbacks", async_callbacks, TASKS, NULL},
      {"mproc, futures", async_futures, TASKS, NULL},
      {"libuv uv_queue_work", libuv, TASKS, pool_libuv_missing},
      {"GLib GThreadPool, no results", glib, TASKS, pool_glib_missing},
      {"CPython Pool.apply_async", pool_python_async, PYTHON_TASKS, pool_python_missing},
      {"CPython Pool.map, chunksize 1", pool_python_map, PYTHON_MAP, pool_python_missing},
      {"joblib, batch_size 1", pool_joblib, JOBLIB_TASKS, pool_joblib_missing},
      {"loky submit", pool_loky, JOBLIB_TASKS, pool_loky_missing}};
  static const pool_target targets[] = {{"T12", 0, 2, 2}, {"T12", 1, 2, 2}};
  pool_ask(&(pool_question){.name = "async",
                            .what = "tasks that do nothing, submitted one by one",
                            .unit = "M_tasks_per_s",
                            .is_rate = true,
                            .contenders = runners,
                            .count = sizeof runners / sizeof runners[0],
                            .targets = targets,
                            .target_count = 2});
}

/* ---- replacement of a killed worker ---------------------------------------------------------- */

enum { SETTLE_MS = 10000, STEP_NS = 1000000 };

static mproc_pool *lone[2]; /* pools of one worker: with so many spares */

static int tell_pid(mproc_task *task, const void *input, size_t size) {
  pid_t pid = getpid();
  (void)input, (void)size;
  return mproc_task_result(task, &pid, sizeof pid);
}

/* A task that came to the dying worker has failed with it: the next one is asked. */
static pid_t ask_pid(mproc_pool *pool) {
  pid_t pid;
  int r;
  do
    r = mproc_pool_apply(pool, tell_pid, NULL, 0, &pid, sizeof pid, NULL, NULL);
  while (r == MPROC_ETASK);
  pool_must(r, "mproc_pool_apply");
  return pid;
}

static void wait_for_spares(mproc_pool *pool, int spares) {
  for (int ms = 0; ms < SETTLE_MS; ms++) {
    mproc_pool_statistics found;
    pool_must(mproc_pool_stats(pool, &found), "mproc_pool_stats");
    if (found.spares == spares && found.alive == spares + 1)
      return;
    (void)nanosleep(&(struct timespec){.tv_nsec = STEP_NS}, NULL);
  }
  pool_die("the spares do not come");
}

static double replace(int spares) {
  mproc_pool *pool = lone[spares];
  wait_for_spares(pool, spares);
  pid_t old = ask_pid(pool);
  double before = bench_now_us();
  if (kill(old, SIGKILL) < 0)
    pool_die("kill");
  while (ask_pid(pool) == old)
    continue;
  return bench_now_us() - before;
}

void pool_measure_replacement(void) {
  static const pool_contender pools[] = {{"without spares", replace, 0, NULL},
                                         {"with a spare", replace, 1, NULL}};
  for (int spares = 0; spares < 2; spares++) {
    const mproc_pool_options options = {.workers = 1, .spares = spares};
    pool_must(mproc_pool_create(&lone[spares], &options), "mproc_pool_create");
  }
  pool_ask(&(pool_question){.name = "replacement",
                            .what = "from the SIGKILL of the only worker to the next result",
                            .unit = "us",
                            .contenders = pools,
                            .count = 2});
  for (int spares = 0; spares < 2; spares++)
    pool_must(mproc_pool_destroy(lone[spares]), "mproc_pool_destroy");
}
