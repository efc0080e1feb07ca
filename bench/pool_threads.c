/* Thread pools, for bench_pool: libuv's and GLib's, with as many threads as we have workers. */
#define _GNU_SOURCE
#include "measure.h"
#include "pool_parts.h"

#include <stdio.h>
#include <stdlib.h>

enum { WARM_PART = 8 };

/* ---- libuv: work, and a callback in the loop's thread ---------------------------------------- */

#ifdef BENCH_HAS_LIBUV
#include <uv.h>

static int left;

static void work(uv_work_t *request) {
  (void)request;
}

static void after(uv_work_t *request, int status) {
  (void)request, (void)status;
  left--;
}

static void run_loop(uv_loop_t *loop, uv_work_t *requests, int tasks) {
  left = tasks;
  for (int i = 0; i < tasks; i++)
    if (uv_queue_work(loop, &requests[i], work, after) != 0)
      pool_die("uv_queue_work");
  if (uv_run(loop, UV_RUN_DEFAULT) != 0 || left != 0)
    pool_die("uv_run");
}

double pool_libuv(int tasks) {
  uv_loop_t loop;
  char threads[16];
  uv_work_t *requests = pool_must_have(calloc((size_t)tasks, sizeof *requests), "calloc");
  (void)snprintf(threads, sizeof threads, "%d", pool_workers());
  if (setenv("UV_THREADPOOL_SIZE", threads, 1) != 0 || uv_loop_init(&loop) != 0)
    pool_die("uv_loop_init");
  run_loop(&loop, requests, tasks / WARM_PART);
  double before = bench_now_us();
  run_loop(&loop, requests, tasks);
  double us = bench_now_us() - before;
  (void)uv_loop_close(&loop);
  free(requests);
  return tasks / us;
}

const char *pool_libuv_missing(void) {
  return NULL;
}
#else
double pool_libuv(int tasks) {
  return tasks;
}

const char *pool_libuv_missing(void) {
  return "libuv1-dev is not installed";
}
#endif

/* ---- GLib: nobody is told that a task is done ------------------------------------------------ */

#ifdef BENCH_HAS_GLIB
#include <glib.h>

static gint done;

static void count(gpointer data, gpointer user) {
  (void)data, (void)user;
  g_atomic_int_inc(&done);
}

static void run_pool(int tasks) {
  GThreadPool *pool = g_thread_pool_new(count, NULL, pool_workers(), TRUE, NULL);
  g_atomic_int_set(&done, 0);
  for (int i = 1; i <= tasks; i++)
    if (!g_thread_pool_push(pool, GINT_TO_POINTER(i), NULL))
      pool_die("g_thread_pool_push");
  g_thread_pool_free(pool, FALSE, TRUE); /* waits for all */
  if (g_atomic_int_get(&done) != tasks)
    pool_die("GThreadPool lost a task");
}

double pool_glib(int tasks) {
  run_pool(tasks / WARM_PART);
  double before = bench_now_us();
  run_pool(tasks);
  return tasks / (bench_now_us() - before);
}

const char *pool_glib_missing(void) {
  return NULL;
}
#else
double pool_glib(int tasks) {
  return tasks;
}

const char *pool_glib_missing(void) {
  return "libglib2.0-dev is not installed";
}
#endif
