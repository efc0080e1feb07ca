/* libuv's thread pool in a preload function and again in workers: libuv makes it anew in a forked
 * child, by an atfork handler that only libc's own fork runs. */
#include "preload.h"

#include <uv.h>

enum { POOL = 4 }; /* libuv's default */

typedef struct job {
  uv_work_t request;
  int number, part, result;
  int *sum;
} job;

static uv_loop_t kept_loop;

static void do_part(uv_work_t *request) {
  job *j = request->data;
  j->result = part_of(j->number, j->part);
}

static void add_part(uv_work_t *request, int status) {
  job *j = request->data;
  *j->sum += status == 0 ? j->result : PARTS * 97;
}

/* -1: libuv failed. */
static int sum_by_pool(uv_loop_t *loop, int number) {
  job jobs[PARTS];
  int sum = 0;
  for (int part = 0; part < PARTS; part++) {
    jobs[part] = (job){.number = number, .part = part, .sum = &sum};
    jobs[part].request.data = &jobs[part];
    if (uv_queue_work(loop, &jobs[part].request, do_part, add_part) != 0)
      return -1;
  }
  return uv_run(loop, UV_RUN_DEFAULT) == 0 ? sum : -1;
}

static int sum_by_own_loop(int number) {
  uv_loop_t loop;
  if (uv_loop_init(&loop) != 0)
    return -1;
  int sum = sum_by_pool(&loop, number);
  return uv_loop_close(&loop) == 0 ? sum : -1;
}

static int preload_pool(void) {
  return sum_by_own_loop(7) < 0;
}

static int work(void *arg, size_t size) {
  (void)size;
  int sum = sum_by_own_loop(*(int *)arg);
  return sum < 0 ? 255 : answer_from(sum);
}

TEST_LIMIT(pool_of_the_preload, 120) {
  mproc_preload *const preload[] = {preload_pool};
  char text[64];
  skip_under_tsan();
  unsetenv("UV_THREADPOOL_SIZE");
  snprintf(text, sizeof text, "left %d threads behind", POOL);
  check_preload(preload, 1, text, work);
}

static void close_timer(uv_timer_t *timer) {
  uv_close((uv_handle_t *)timer, NULL);
}

/* A thread of the pool may tell the loop of what the loop has found already. Such a message is lost
 * in uv_loop_fork() of libuv 1.44, which waits for it ever after: so it is taken here. */
static int take_late_messages(void) {
  static uv_timer_t timer;
  return uv_timer_init(&kept_loop, &timer) != 0 ||
         uv_timer_start(&timer, close_timer, 300, 0) != 0 ||
         uv_run(&kept_loop, UV_RUN_DEFAULT) != 0;
}

/* A loop that lives on belongs to the server, and becomes a worker's by uv_loop_fork(). */
static int preload_loop(void) {
  return uv_loop_init(&kept_loop) != 0 || sum_by_pool(&kept_loop, 7) < 0 || take_late_messages();
}

static int work_by_kept_loop(void *arg, size_t size) {
  (void)size;
  if (uv_loop_fork(&kept_loop) != 0)
    return 255;
  int sum = sum_by_pool(&kept_loop, *(int *)arg);
  return sum < 0 ? 255 : answer_from(sum);
}

TEST_LIMIT(loop_of_the_preload, 120) {
  mproc_preload *const preload[] = {preload_loop};
  skip_under_tsan();
  mproc_context *context = new_context(preload, 1, 0);
  check_workers(context, work_by_kept_loop);
  mproc_context_destroy(context);
}
