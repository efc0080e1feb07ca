/* A worker in a map. */
#include "pool/worker.h"

#include "os/crash_point.h"

#include <string.h>

/* How long the inputs shall take that are taken at a time: long beside what taking costs, short
 * beside what anybody waits for. */
enum { PIECE_NS = 100000, GROWTH = 8 };

static const void *input_of(const mpx_map *map, uint64_t index, size_t *ret_size) {
  if (map->each) {
    *ret_size = map->each[index].size;
    return map->each[index].data;
  }
  *ret_size = map->input_size;
  return map->inputs ? (const char *)map->inputs + index * map->input_size : NULL;
}

static void aim(mproc_task *task, mpx_map *map, uint64_t index) {
  task->index = index + map->base;
  task->is_placed = !map->results;
  task->output_size = map->output_size;
  task->output = map->outputs ? (char *)map->outputs + index * map->output_size : NULL;
}

/* What an attempt left whose worker died goes. */
static void record(mproc_task *task, mpx_map *map, uint64_t index) {
  if (!map->results)
    return;
  mpx_map_drop_result(map, index);
  map->results[index] = (mpx_result){.data = task->result, .size = task->result_size};
  task->result = NULL;
  task->result_size = 0;
}

static int run_input(mproc_task *task, mproc_task_function *function, mpx_map *map,
                     uint64_t index) {
  size_t size;
  const void *input = input_of(map, index, &size);
  aim(task, map, index);
  int code = map->guarded && map->output_size ? mpx_task_run_guarded(task, function, input, size)
                                              : mpx_task_run(task, function, input, size);
  if (code == 0)
    record(task, map, index);
  return code;
}

int mpx_worker_run_item(mpx_worker *worker, mproc_task *task, mproc_task_function *function,
                        const mpx_job *item) {
  (void)worker;
  return run_input(task, function, item->map, item->index);
}

static void note_failure(mproc_task *task, mpx_map *map, uint64_t index, int code) {
  mpx_worker *worker = task->worker;
  const mpx_job filled = {.index = index, .attempts = task->attempt};
  const mpx_job *job = map->job;
  mpx_job *item;
  worker->undone++;
  if (task->attempt <= job->retries &&
      mpx_map_add_item(worker->board, map, &filled, worker->number, &item) == 0) {
    atomic_fetch_add_explicit(&worker->board->retried, 1, memory_order_relaxed);
    mpx_job_again(worker->board, item, atomic_load(&item->word), mpx_retry_at(job, task->attempt));
    return;
  }
  mpx_count(&worker->line->failed, 1);
  mpx_map_drop_result(map, index);
  int64_t began = atomic_load_explicit(&worker->line->began_at, memory_order_relaxed);
  mpx_map_add_failure(map, mpx_task_failure(task, code, mpx_os_now() - began));
}

/* The first attempt returned `code`. */
static void go_on_failed(mproc_task *task, mproc_task_function *function, mpx_map *map,
                         uint64_t index, int code) {
  mpx_worker *worker = task->worker;
  mpx_line *line = worker->line;
  const mpx_job *job = map->job;
  while (code != 0) {
    if (task->attempt > job->retries || job->retry_delay_ms > 0) {
      note_failure(task, map, index, code);
      break;
    }
    atomic_fetch_add_explicit(&worker->board->retried, 1, memory_order_relaxed);
    atomic_store_explicit(&line->attempt, ++task->attempt, memory_order_relaxed);
    atomic_fetch_add(&line->runs, 1);
    mpx_worker_heed(worker);
    mpx_worker_mark_errors(worker);
    code = run_input(task, function, map, index);
  }
  task->attempt = 1;
  task->text[0] = '\0';
  atomic_store_explicit(&line->attempt, 1, memory_order_relaxed);
}

/* Whether the worker stays in the piece. */
static inline bool goes_on(mpx_worker *worker, const mpx_job *job) {
  if (job->timeout_ms > 0)
    atomic_thread_fence(memory_order_seq_cst); /* pairs with the supervisor's, in condemn() */
  mpx_worker_heed(worker);
  return !atomic_load_explicit(&job->cancelled, memory_order_relaxed) &&
         !mpx_worker_must_go(worker);
}

/* Says which input is next, and so that all before it are done. release: they are written; pairs
 * with acquire in repair.c */
static inline bool comes_to(mpx_worker *worker, const mpx_job *job, uint64_t at) {
  atomic_store_explicit(&worker->line->at, at, memory_order_release);
  return goes_on(worker, job);
}

/* Nothing but the calls: this is what the finest tasks take. */
static uint64_t run_plain(mproc_task *task, mproc_task_function *function, mpx_map *map,
                          uint64_t at, uint64_t end) {
  const char *input = map->inputs;
  char *output = map->outputs;
  aim(task, map, at);
  for (; at < end && comes_to(task->worker, map->job, at); at++) {
    task->index = at + map->base;
    task->output = output ? output + at * map->output_size : NULL;
    int code = function(task, input ? input + at * map->input_size : NULL, map->input_size);
    if (code != 0)
      go_on_failed(task, function, map, at, code);
  }
  return at;
}

static uint64_t run_each(mproc_task *task, mproc_task_function *function, mpx_map *map, uint64_t at,
                         uint64_t end) {
  mpx_worker *worker = task->worker;
  for (; at < end && comes_to(worker, map->job, at); at++) {
    mpx_worker_mark_errors(worker);
    int code = run_input(task, function, map, at);
    if (code != 0)
      go_on_failed(task, function, map, at, code);
    if (worker->tasks_left != UINT64_MAX)
      worker->tasks_left--;
  }
  return at;
}

static void run_piece(mproc_task *task, mproc_task_function *function, mpx_map *map,
                      uint32_t piece) {
  mpx_worker *worker = task->worker;
  mpx_line *line = worker->line;
  uint64_t word = atomic_load_explicit(&map->pieces[piece], memory_order_relaxed);
  uint64_t begin = mpx_piece_begin(word), end = mpx_piece_end(word);
  bool is_plain = !map->each && !map->guarded && worker->tasks_left == UINT64_MAX &&
                  !worker->board->settings.keep_errors;
  worker->undone = 0;
  uint64_t at = is_plain ? run_plain(task, function, map, begin, end)
                         : run_each(task, function, map, begin, end);
  atomic_store_explicit(&line->at, at, memory_order_release);
  mpx_count(&line->done, at - begin - worker->undone);
  MPROC_CRASH_POINT("pool.map.piece_run");
  mpx_map_put_back(map, piece, at);
  if (at < end) { /* the map may be in no lane any more */
    atomic_fetch_add(&worker->board->maps_changed, 1);
    mpx_board_call_supervisor(worker->board);
  }
}

static uint64_t choose(const mpx_worker *worker, const mpx_map *map, uint64_t last, int64_t ns) {
  if (map->group)
    return map->group < worker->tasks_left ? map->group : worker->tasks_left;
  uint64_t most = map->count / 8 + 1;
  uint64_t want = last == 0 ? 1 : last * GROWTH;
  if (ns > 0 && want > last * PIECE_NS / (uint64_t)ns)
    want = last * PIECE_NS / (uint64_t)ns;
  want = want < most ? want : most;
  want = want < worker->tasks_left ? want : worker->tasks_left;
  return want ? want : 1;
}

static bool others_come_first(const mpx_worker *worker, const mpx_job *job) {
  const mpx_lane *high = &worker->board->lanes[MPX_LANE_HIGH];
  return job->priority <= 0 && atomic_load_explicit(&high->tail, memory_order_relaxed) !=
                                   atomic_load_explicit(&high->head, memory_order_relaxed);
}

static void count_piece(mpx_worker *worker, uint64_t size, int64_t began) {
  mpx_line *line = worker->line;
  worker->now = mpx_os_now();
  int64_t ns = worker->now - began;
  mpx_count(&line->run_time[mpx_histogram_bucket(ns / (int64_t)size)], size);
  mpx_count_ns(&line->busy_ns, ns);
}

bool mpx_worker_run_map(mpx_worker *worker, mpx_job *job) {
  mpx_map *map = job->map;
  mpx_line *line = worker->line;
  mproc_task_function *function;
  mproc_task task = {.worker = worker, .job = job, .attempt = 1};
  uint64_t size = 0;
  uint32_t seen = 0, piece;
  int64_t ns = 0;
  atomic_store_explicit(&line->attempt, 1, memory_order_relaxed);
  atomic_store_explicit(&line->at, UINT64_MAX, memory_order_release);
  if (mpx_worker_function(worker, job->function, &function) < 0)
    function = mpx_task_of_missing_function;
  worker->now = mpx_os_now();
  while (goes_on(worker, job) && !others_come_first(worker, job) &&
         mpx_map_take(map, worker->number, choose(worker, map, size, ns), &seen, &piece)) {
    uint64_t word = atomic_load_explicit(&map->pieces[piece], memory_order_relaxed);
    int64_t began = worker->now;
    mpx_worker_wake_up(worker);
    size = mpx_piece_end(word) - mpx_piece_begin(word);
    atomic_store_explicit(&line->began_at, began, memory_order_relaxed);
    run_piece(&task, function, map, piece);
    mpx_map_check(worker->board, map, worker->number);
    count_piece(worker, size, began);
    ns = worker->now - began;
  }
  return size > 0;
}
