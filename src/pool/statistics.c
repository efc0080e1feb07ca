#include "base/error.h"
#include "pool/host.h"

#include <errno.h>

static void add_times(mproc_pool_statistics *sum, mpx_line *line) {
  for (int i = 0; i < MPROC_HISTOGRAM_BUCKETS; i++) {
    sum->wait_time[i] += atomic_load(&line->wait_time[i]);
    sum->run_time[i] += atomic_load(&line->run_time[i]);
  }
}

static void add_line(mproc_pool_statistics *sum, mpx_line *line) {
  uint64_t started = atomic_load(&line->started);
  sum->started += started;
  sum->died += atomic_load(&line->died);
  add_times(sum, line);
  uint32_t stage = atomic_load(&line->stage);
  if (stage != MPX_WORKER_STARTED && stage != MPX_WORKER_READY)
    return;
  sum->alive++;
  sum->spares += atomic_load(&line->is_spare) != 0;
  sum->idle += !atomic_load(&line->is_spare) && atomic_load(&line->job) == NULL;
  sum->running += atomic_load(&line->job) != NULL;
}

static uint64_t count_failures(const mpx_map *map) {
  uint64_t count = atomic_load(&map->nameless);
  for (const mpx_failure *failure = atomic_load(&map->failures); failure; failure = failure->next)
    count++;
  return count;
}

/* Of a map under way. */
static uint64_t add_map(const mproc_pool *pool, mpx_map *map, mproc_pool_statistics *sum) {
  uint64_t finished = mpx_map_finished(pool->board, map), failed = count_failures(map);
  sum->failed += failed;
  sum->done += finished > failed ? finished - failed : 0;
  return map->count - finished;
}

/* What is under way, and of it what is in no worker. */
static void add_under_way(const mproc_pool *pool, mproc_pool_statistics *sum) {
  uint64_t left = 0;
  for (uint32_t i = 0; i < pool->job_count; i++) {
    const mproc_future *future = pool->by_number[i];
    if (future && !future->is_over)
      left += future->map ? add_map(pool, future->map, sum)
                          : !mpx_word_is_over(atomic_load(&future->job->word));
  }
  sum->queued = left > sum->running ? left - sum->running : 0;
}

int mproc_pool_stats(mproc_pool *pool, mproc_pool_statistics *ret_statistics) {
  int r = mpx_check_not_null(ret_statistics, "ret_statistics");
  if (r < 0 || (r = mpx_pool_enter(pool)) < 0)
    return r;
  mpx_board *board = pool->board;
  mpx_pool_settle(pool);
  mproc_pool_statistics sum = {.workers = atomic_load(&board->wanted),
                               .done = pool->done,
                               .failed = pool->failed,
                               .cancelled = pool->cancelled,
                               .retried = atomic_load(&board->retried),
                               .timed_out = atomic_load(&board->timed_out),
                               .out_of_memory = atomic_load(&board->out_of_memory),
                               .supervisors_died = atomic_load(&board->supervisors_died)};
  int used = atomic_load(&board->lines_used);
  for (int i = 0; i < used; i++)
    add_line(&sum, &board->lines[i]);
  add_under_way(pool, &sum);
  *ret_statistics = sum;
  mpx_pool_leave(pool);
  return 0;
}

int mproc_pool_worker_stats(mproc_pool *pool, int number, mproc_worker_statistics *ret_statistics) {
  int r = mpx_check_not_null(ret_statistics, "ret_statistics");
  if (r < 0 || (r = mpx_pool_enter(pool)) < 0)
    return r;
  if (number < 0 || number >= atomic_load(&pool->board->lines_used)) {
    r = mpx_fail(-ENOENT, "pool '%s' never had a worker %d", pool->name, number);
  } else {
    mpx_line *line = &pool->board->lines[number];
    *ret_statistics = (mproc_worker_statistics){.pid = atomic_load(&line->pid),
                                                .is_spare = atomic_load(&line->is_spare) != 0,
                                                .is_busy = atomic_load(&line->job) != NULL,
                                                .done = atomic_load(&line->done),
                                                .failed = atomic_load(&line->failed),
                                                .started = atomic_load(&line->started),
                                                .busy_ns = atomic_load(&line->busy_ns)};
  }
  mpx_pool_leave(pool);
  return r;
}
