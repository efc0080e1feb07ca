/* Pool: worker processes that run tasks, and outlive every death but their creator's.
 *
 * What it is  A supervisor process starts workers, and times, kills and replaces them; the program
 *             gets no thread and one child. Tasks travel through the shared heap. A worker that
 *             dies takes the one task with it that it was in: that fails and says how, or is tried
 *             again; every result is recorded once, though a task that is tried again may run
 *             twice. A supervisor that is killed is replaced.
 * Functions   may be static, in the program or in any library, also one that was loaded after the
 *             pool was created.
 * Inputs      of apply, map_bytes and imap are copied. Those of map are used in place where they
 *             lie in the shared heap, and may not change before it is over; else they are copied
 *             in, and outputs out.
 * Ownership   A pool belongs to the process that made it, futures belong to the pool's: destroy
 *             both. Results of a future are the future's, until it is destroyed.
 * Threads     any function from any thread of the creator, except destroy.
 * After fork  a child must not use its parent's pool: MPROC_ENOTCREATOR. Workers may have pools of
 *             their own.
 * Callbacks   run in the thread that calls mproc_pool_dispatch() or waits on the pool, one at a
 *             time; it is not cancelled meanwhile. They may use the pool, but for join and destroy.
 * Errors      of every function that takes a pool, a future or an imap: -EINVAL,
 *             MPROC_ENOTCREATOR. Of each that submits: MPROC_ECLOSED, MPROC_EPOOL (the pool is
 *             broken: no worker comes up; the detail says why), -ENOSPC (a pool runs at most 1,024
 *             different functions). Of each that waits: -ETIMEDOUT, or -EAGAIN for a try. */
#ifndef MPROC_POOL_H
#define MPROC_POOL_H

#include "context.h"
#include "task.h"
#include "version.h"
#include "wait.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_pool mproc_pool;
typedef struct mproc_future mproc_future;
typedef struct mproc_imap mproc_imap;

enum { MPROC_POOL_WORKERS_MAX = 1024 };

/* What submitting does when queue_limit tasks are under way. */
typedef enum mproc_overflow {
  MPROC_OVERFLOW_BLOCK = 0, /* waits until there is room */
  MPROC_OVERFLOW_FAIL = 1,  /* returns -EAGAIN */
  MPROC_OVERFLOW_DROP = 2   /* takes the task and cancels it at once: its future says so */
} mproc_overflow;

/* How a task came to fail. */
typedef enum mproc_cause {
  MPROC_CAUSE_NONE = 0,
  MPROC_CAUSE_ERROR = 1,         /* it returned .code */
  MPROC_CAUSE_EXITED = 2,        /* it ended its process, with exit code .code */
  MPROC_CAUSE_SIGNALED = 3,      /* signal .code killed its process */
  MPROC_CAUSE_TIMED_OUT = 4,     /* it took longer than its timeout */
  MPROC_CAUSE_CANCELLED = 5,     /* by its future, by terminate, or dropped */
  MPROC_CAUSE_OUT_OF_MEMORY = 6, /* above memory_limit, or killed by its cgroup's */
  MPROC_CAUSE_INITIALIZER = 7,   /* no worker came up that could run it */
  MPROC_CAUSE_POISONED = 8,      /* it has killed as many workers as it may: .code of the last */
  MPROC_CAUSE_REPLACED = 9       /* it executed another program in the worker's place */
} mproc_cause;

typedef struct mproc_failure {
  mproc_cause cause;
  int code;              /* see the cause; a signal's number for SIGNALED */
  uint64_t index;        /* which input, of a map or imap */
  int attempts;          /* how often it was tried */
  int worker;            /* the last one's number; -1: none */
  int64_t pid;           /* of the last one; 0: none */
  int64_t run_time_ns;   /* of the last attempt; -1 unknown */
  int64_t max_rss_bytes; /* peak of a worker that ended; -1 unknown */
  const char *text;      /* what mproc_task_fail() said, or "" */
  const char *errors;    /* what it wrote to standard error at last, at most 4 KiB, where the pool
                            keeps it; else "" */
  uint64_t reserved[8];  /* zero: room for fields to come */
} mproc_failure;

/* For one task or all of a map. In each field 0 is the pool's default, and -1 is none. */
typedef struct mproc_submit_options {
  int timeout_ms;      /* for one attempt at one task: its worker is killed then, the task fails */
  int retries;         /* further attempts at a task that failed for another cause than CANCELLED */
  int retry_delay_ms;  /* before the second attempt; doubles each time, up to 30 s. 0: at once */
  int priority;        /* 1: before others, -1: after them. What runs is not interrupted. */
  size_t group;        /* map: inputs that a worker takes at a time, or more where that would be
                          more than 4,096 times. 0: by measured time */
  int guarded;         /* map: non-zero: each output is written to a place of its own with guards on
                          both sides, and copied; a task that writes past it fails */
  uint64_t look_ahead; /* imap: inputs that are asked for before they are due, and results kept. 0:
                          four times the workers */
  int unordered;       /* imap: non-zero: results come as they are ready */
  /* apply_async, map_async: called once, as said above, with the future; ERROR instead of DONE when
   * it failed, where one is given. Those of a NULL future get one for the call. */
  void (*done)(mproc_future *future, void *user);
  void (*error)(mproc_future *future, void *user);
  /* map: called in the thread that waits, when `finished` has grown, at most ten times a second */
  void (*progress)(uint64_t finished, uint64_t count, void *user);
  void *user;
  uint64_t reserved[8]; /* must be zero */
} mproc_submit_options;

typedef struct mproc_pool_options {
  const char *name;   /* up to 23 characters, of its processes: "NAME:supervisor", "NAME:3". NULL:
                       "Pool-N" */
  int workers;        /* 0: mproc_cpu_count(); up to MPROC_POOL_WORKERS_MAX */
  const char *method; /* start method of its processes; NULL: that of the context */
  const mproc_context *context;          /* NULL: the process-wide choice */
  mproc_worker_initializer *initializer; /* NULL: none */
  const void *initializer_arg;           /* copied for each worker */
  size_t initializer_size;
  mproc_worker_exit *worker_exit;
  int tasks_per_worker;  /* a worker that has done so many leaves, and is replaced. 0: never */
  int spares;            /* workers that are started and initialized besides, to take the place of
                            one that ends */
  int idle_timeout_ms;   /* workers without a task for so long leave, and come back with the next
                            task. 0: they stay */
  uint64_t memory_limit; /* bytes of private memory that a worker may have beyond what it began
                            with: above that it is killed, and its task is out of memory. 0:
                            no limit */
  const int *cpus;       /* worker i runs on cpus[i % cpu_count]; NULL: where it likes */
  size_t cpu_count;
  size_t queue_limit; /* tasks under way, waiting and running, a map counting as one; cancelled ones
                         until their turn comes, at worst. 0: 65,536 */
  mproc_overflow overflow;
  int poison_limit; /* a task that has killed so many workers is not tried again. 0: 3 */
  int keep_errors;  /* non-zero: what tasks write to standard error is kept for their failure, and
                           not shown */
  mproc_submit_options task; /* the defaults; look_ahead, unordered and the functions are not */
  uint64_t reserved[8];      /* must be zero */
} mproc_pool_options;

/* Bytes of any length: an input, or a result. */
typedef struct mproc_bytes {
  const void *data; /* NULL when size is 0 */
  size_t size;
} mproc_bytes;

/* Times, in powers of two: bucket i counts those of less than 2^i us, and the last the rest. */
enum { MPROC_HISTOGRAM_BUCKETS = 32 };

typedef struct mproc_pool_statistics {
  int workers;              /* that are to be */
  int alive;                /* that run, spares included */
  int spares;               /* of these */
  int idle;                 /* of these, without a task */
  uint64_t queued, running; /* tasks; the inputs of a map count one by one in all of these */
  uint64_t done, failed, cancelled;
  uint64_t retried;                  /* attempts beyond the first */
  uint64_t started;                  /* workers ever */
  uint64_t died;                     /* of these, otherwise than by leaving */
  uint64_t timed_out, out_of_memory; /* workers killed for it */
  uint64_t supervisors_died;
  /* of tasks submitted one by one: from submit to start; of these and of groups of a map: a task's
   * own time, measured at each, or at a part of them when they are short */
  uint64_t wait_time[MPROC_HISTOGRAM_BUCKETS];
  uint64_t run_time[MPROC_HISTOGRAM_BUCKETS];
  uint64_t reserved[8]; /* zero: room for fields to come */
} mproc_pool_statistics;

typedef struct mproc_worker_statistics {
  int64_t pid; /* 0: none right now */
  int is_spare, is_busy;
  uint64_t done, failed; /* of this number, its predecessors' counted */
  uint64_t started;      /* how often this number was given to a process */
  int64_t busy_ns;
  uint64_t reserved[8]; /* zero: room for fields to come */
} mproc_worker_statistics;

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the pool -------------------------------------------------------------------------------- */

/* Makes a pool and starts its supervisor, which starts the workers; does not wait for them.
 * `options` may be NULL; everything is copied.
 * Errors: -EINVAL (names the field), -ENOMEM, MPROC_EHEAPFULL, those of mproc_process_start, and of
 * functions that cannot travel (see MPROC_ENOINIT). */
MPROC_API MPROC_NODISCARD int mproc_pool_create(mproc_pool **ret_pool,
                                                const mproc_pool_options *options);

/* Takes no more tasks; workers leave when all are done. A second call does nothing. */
MPROC_API int mproc_pool_close(mproc_pool *pool);
/* Kills the workers now: tasks that are not over are cancelled. */
MPROC_API int mproc_pool_terminate(mproc_pool *pool);
/* Waits until a pool that was closed or terminated has ended, at most `timeout_ms`, and runs
 * callbacks meanwhile. -EINVAL: neither was called. */
MPROC_API int mproc_pool_join(mproc_pool *pool, int timeout_ms);
/* Terminates it if need be, within a second, and releases everything. Its futures that are left say
 * MPROC_ECLOSED; they are to be destroyed all the same. NULL does nothing. */
MPROC_API int mproc_pool_destroy(mproc_pool *pool);

/* Changes the number of workers. Waits for nobody: who is too many leaves after the task it is in.
 * -EINVAL: not 1 to MPROC_POOL_WORKERS_MAX. */
MPROC_API int mproc_pool_resize(mproc_pool *pool, int workers);

/* Runs the callbacks of what is over, and returns how many. Waits for nothing. */
MPROC_API int mproc_pool_dispatch(mproc_pool *pool);
/* A handle that is readable when mproc_pool_dispatch() may have something to do, for poll, epoll
 * and libuv; borrowed until destroy. Dispatch makes it unreadable. -ENOSYS (Linux has it),
 * -EMFILE. */
MPROC_API int mproc_pool_handle(mproc_pool *pool, mproc_handle *ret_handle);

/* The figures are right one by one, not as a whole, while tasks run. */
MPROC_API int mproc_pool_stats(mproc_pool *pool, mproc_pool_statistics *ret_statistics);
/* Of worker `number`, from 0. -ENOENT: there was never one of that number. */
MPROC_API int mproc_pool_worker_stats(mproc_pool *pool, int number,
                                      mproc_worker_statistics *ret_statistics);

/* ---- one task -------------------------------------------------------------------------------- */

/* Runs `function` on a copy of the input and waits. What it passed to mproc_task_result() is copied
 * to `result` (at most `capacity` bytes; NULL and 0: dropped) and its whole size stored in
 * *ret_size (may be NULL). `options` may be NULL.
 * Errors: MPROC_ETASK (it failed; the detail says how), -ENOBUFS (the result is larger, nothing was
 * copied, *ret_size is written), -EAGAIN (overflow), MPROC_EHEAPFULL, -ENOMEM, MPROC_ENOMODULE (the
 * function cannot travel). */
MPROC_API int mproc_pool_apply(mproc_pool *pool, mproc_task_function *function, const void *input,
                               size_t size, void *result, size_t capacity, size_t *ret_size,
                               const mproc_submit_options *options);

/* The same without waiting. `ret_future` may be NULL: then callbacks are all that tells. */
MPROC_API int mproc_pool_apply_async(mproc_pool *pool, mproc_task_function *function,
                                     const void *input, size_t size, mproc_future **ret_future,
                                     const mproc_submit_options *options);

/* ---- many ------------------------------------------------------------------------------------ */

/* Runs `function` on each of `count` inputs of `input_size` bytes, and puts what it writes to
 * mproc_task_output(), or passes to mproc_task_result(), into outputs of `output_size` bytes, in
 * order. Inputs may be NULL (`input_size` 0: the index is all that there is), outputs too. Waits.
 * Errors: MPROC_ETASK (some failed: the detail says how many and how one of them did; their outputs
 * are what the task left of them), those of apply. */
MPROC_API int mproc_pool_map(mproc_pool *pool, mproc_task_function *function, const void *inputs,
                             size_t input_size, void *outputs, size_t output_size, uint64_t count,
                             const mproc_submit_options *options);
/* The same without waiting. Outputs outside of the shared heap are written by the thread that
 * dispatches or waits, before the future is done, and must be there until then; so must what is
 * used in place. */
MPROC_API int mproc_pool_map_async(mproc_pool *pool, mproc_task_function *function,
                                   const void *inputs, size_t input_size, void *outputs,
                                   size_t output_size, uint64_t count, mproc_future **ret_future,
                                   const mproc_submit_options *options);
/* Inputs and results of any length; results by mproc_future_result_at(). */
MPROC_API int mproc_pool_map_bytes(mproc_pool *pool, mproc_task_function *function,
                                   const mproc_bytes *inputs, uint64_t count,
                                   mproc_future **ret_future, const mproc_submit_options *options);

/* Inputs that are asked for one by one: `next` stores one, borrowed until the next call, and
 * returns 1, or 0 when there are no more; negative: an error that mproc_imap_next() returns in its
 * turn. It is called in threads that call mproc_imap_next(). */
typedef int mproc_imap_source(void *user, mproc_bytes *ret_input);
MPROC_API MPROC_NODISCARD int mproc_pool_imap(mproc_pool *pool, mproc_task_function *function,
                                              mproc_imap_source *next, void *user,
                                              mproc_imap **ret_imap,
                                              const mproc_submit_options *options);
/* The next result, in order or as they come: 1, borrowed until the next call; 0: that was all.
 * MPROC_ETASK: that input failed, see mproc_imap_failure(); go on for the others. *ret_index (may
 * be NULL) says which input it was, also then. An error of submitting is told when all that was
 * submitted before is, and loses no input: the next call tries again. MPROC_ECLOSED also when the
 * pool was destroyed. */
MPROC_API int mproc_imap_next(mproc_imap *imap, mproc_bytes *ret_result, uint64_t *ret_index,
                              int timeout_ms);
/* How the input failed for which mproc_imap_next() returned MPROC_ETASK; borrowed as a result. */
MPROC_API int mproc_imap_failure(mproc_imap *imap, mproc_failure *ret_failure);
/* Cancels what is not over. NULL does nothing. An imap is used by one thread at a time. */
MPROC_API void mproc_imap_destroy(mproc_imap *imap);

/* ---- futures --------------------------------------------------------------------------------- */

/* Waits until it is over, and runs callbacks meanwhile. 0: it succeeded. MPROC_ETASK: it failed, or
 * some inputs of the map did. */
MPROC_API int mproc_future_wait(mproc_future *future, int timeout_ms);
/* Waits for one of them: its position. For all: 0. Whether they succeeded is not asked.
 * -EINVAL: none, or of several pools. */
MPROC_API int mproc_future_wait_any(mproc_future *const *futures, size_t count, int timeout_ms);
MPROC_API int mproc_future_wait_all(mproc_future *const *futures, size_t count, int timeout_ms);
/* 1: it is over. 0: not. Runs no callback. */
MPROC_API int mproc_future_is_done(mproc_future *future);
/* What has not begun never runs; a worker that is in it, or in an input of the map, is killed. 0
 * also when it is over already. It is over soon, not at once. */
MPROC_API int mproc_future_cancel(mproc_future *future);
/* What the task passed to mproc_task_result(). -EAGAIN: not over. MPROC_ETASK. */
MPROC_API int mproc_future_result(mproc_future *future, mproc_bytes *ret_result);
/* The same of one input of mproc_pool_map_bytes(). -EINVAL: no such input. */
MPROC_API int mproc_future_result_at(mproc_future *future, uint64_t index, mproc_bytes *ret_result);
/* How many inputs are over, and how many there are: 1 for apply. */
MPROC_API int mproc_future_progress(mproc_future *future, uint64_t *ret_finished,
                                    uint64_t *ret_count);
/* How it failed; of a map, failure `number` from 0, in the order in which they were noticed, and
 * then one for each input that was not run because the map was cancelled. Borrowed until the future
 * is destroyed. -ENOENT: there are not so many. -EAGAIN: not over. */
MPROC_API int mproc_future_failure(mproc_future *future, uint64_t number,
                                   mproc_failure *ret_failure);
/* How many there are. */
MPROC_API int64_t mproc_future_failures(mproc_future *future);
/* Releases it, and its results; what is not over is cancelled. NULL does nothing. */
MPROC_API void mproc_future_destroy(mproc_future *future);

/* Says a failure in words: "killed by SIGSEGV after 1.2 s, at the third attempt (worker 3, process
 * 4711)". Writes at most `size` bytes, NUL included; returns `buffer`, or "". */
MPROC_API const char *mproc_strfailure(const mproc_failure *failure, char *buffer, size_t size);

#ifdef __cplusplus
}
#endif
#endif
