/* A worker from inside. */
#ifndef MPX_POOL_WORKER_H
#define MPX_POOL_WORKER_H

#include "pool/board.h"

typedef struct mpx_worker {
  mpx_board *board;
  mpx_line *line;
  unsigned number;
  void *state;         /* the initializer's */
  uint64_t undone;     /* of the piece: inputs that failed, or were put aside */
  uint64_t tasks_left; /* UINT64_MAX: any number */
  int64_t now;         /* when the last thing ended that was timed */
  mproc_task_function *functions[MPX_POOL_FUNCTIONS];
  void *guarded; /* private: an output between its guards */
  size_t guarded_size;
} mpx_worker;

struct mproc_task {
  mpx_worker *worker;
  const mpx_job *job;
  uint64_t index;
  int attempt;
  void *output; /* the place; NULL: none */
  size_t output_size;
  bool is_placed; /* the result has a fixed size, also without a place */
  void *result;   /* a block, or `answer` */
  size_t result_size;
  void *answer; /* room for a short one; NULL: none */
  char text[MPX_POOL_TEXT];
};

/* Says why not. */
int mpx_worker_function(mpx_worker *worker, uint32_t number, mproc_task_function **ret_function);
/* Fails, and says why: in the place of a function that is not to be had here. */
int mpx_task_of_missing_function(mproc_task *task, const void *input, size_t size);
/* Runs it once, and says how it was: what the function returned, or what is wrong with what it
 * did. */
int mpx_task_run(mproc_task *task, mproc_task_function *function, const void *input, size_t size);
/* The same with guards around the output. */
int mpx_task_run_guarded(mproc_task *task, mproc_task_function *function, const void *input,
                         size_t size);
void mpx_task_drop_result(mproc_task *task);
/* What a task that returned `code` failed of. NULL: no memory. */
mpx_failure *mpx_task_failure(mproc_task *task, int code, int64_t run_time_ns);
/* Who is condemned begins nothing any more: waits for its end, or a reprieve. */
void mpx_worker_halt(mpx_worker *worker);
static inline void mpx_worker_heed(mpx_worker *worker) {
  if (atomic_load_explicit(&worker->line->condemned, memory_order_relaxed))
    mpx_worker_halt(worker);
}
/* It is not idle any more. */
static inline void mpx_worker_wake_up(mpx_worker *worker) {
  if (atomic_load_explicit(&worker->line->idle_since, memory_order_relaxed) != 0)
    atomic_store_explicit(&worker->line->idle_since, 0, memory_order_relaxed);
}
/* worker_map.c: as long as there is something in it for us. False: there was nothing. */
bool mpx_worker_run_map(mpx_worker *worker, mpx_job *job);
/* An input that was put aside. */
int mpx_worker_run_item(mpx_worker *worker, mproc_task *task, mproc_task_function *function,
                        const mpx_job *item);
bool mpx_worker_must_go(const mpx_worker *worker);
/* Standard error has what earlier tasks wrote up to here. */
void mpx_worker_mark_errors(mpx_worker *worker);

#endif
