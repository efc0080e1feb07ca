/* The pool in the process that made it: all of it private. `lock` guards every field that is not
 * fixed from create on, and is never held while a callback runs. */
#ifndef MPX_POOL_HOST_H
#define MPX_POOL_HOST_H

#include "base/list.h"
#include "pool/board.h"
#include "sync/bell.h"

struct mproc_future {
  mproc_pool *pool; /* NULL: destroyed before us */
  mpx_list link;    /* the pool's, from submit to release */
  mpx_list ready;   /* in the queue of callbacks */
  mpx_list arrival; /* in the list of its imap */
  mpx_list *arrivals;
  uint64_t slot; /* in its window */
  mpx_job *job;
  mpx_map *map; /* NULL: one task */
  mproc_submit_options options;
  bool is_over, has_failed;
  bool is_suspect;   /* over, and perhaps in no stack */
  bool is_abandoned; /* destroyed by its user, or never given to one */
  bool in_callback;  /* or about to be */
  bool has_timeout;
  bool copied_inputs; /* of a map: they are ours */
  void *copy_to;      /* outputs outside of the heap */
  size_t copy_size;
  const mpx_failure *told; /* the failure number `told_number` */
  uint64_t told_number;
  uint64_t failure_count;
  bool has_lane_tail; /* retired: */
  uint64_t lane_tail; /* what was in the lane of retries then, and is to leave it */
  int64_t progress_at;
  uint64_t progress_seen;
};

struct mproc_pool {
  mpx_member creator;
  int64_t pid;   /* of the creator, for people */
  mpx_list link; /* all of this process */
  mpx_os_mutex lock;
  mpx_board *board;
  mproc_process *supervisor;
  mproc_context *context; /* a copy of the caller's */
  char name[MPX_POOL_NAME_SIZE];
  mproc_submit_options defaults;
  mproc_overflow overflow;
  size_t queue_limit, under_way;
  bool is_closed;
  mproc_future **by_number; /* job's number to its future */
  uint32_t job_count;
  mpx_job *free_jobs;
  mpx_list futures, retired, imaps;
  mpx_list ready, calling; /* callbacks that are due; those of the round that runs */
  bool is_dispatching;
  uint64_t deaths_seen;
  int64_t looked_at; /* after the supervisor */
  int revivals;
  uint64_t done_at_revival;
  mpx_bell bell;
  mpx_entry *bell_entry;
  uint64_t unloads;
  uintptr_t addresses[MPX_POOL_FUNCTIONS];
  bool stays[MPX_POOL_FUNCTIONS];   /* of the program itself: never unloaded */
  uint64_t done, failed, cancelled; /* of all that is over: each input once */
};

/* ---- pool.c */

/* Locks it for a call, or says why not. */
int mpx_pool_enter(mproc_pool *pool);
void mpx_pool_leave(mproc_pool *pool);
/* The number of a function, which the workers know it by. */
int mpx_pool_function(mproc_pool *pool, uintptr_t address, uint32_t *ret_number);
/* A supervisor that is gone and should not be is replaced. Locked. */
void mpx_pool_revive(mproc_pool *pool);
int mpx_pool_say_broken(const mpx_board *board);

/* ---- submit.c */

/* What is asked for, with the pool's defaults where nothing is. -EINVAL, says why. */
int mpx_submit_take_options(const mproc_pool *pool, const mproc_submit_options *options,
                            mproc_submit_options *ret_options);
/* Locked: MPROC_ECLOSED, MPROC_EPOOL, says why. */
int mpx_submit_check_open(const mproc_pool *pool);
/* Locked: waits for room if that is the pool's way, which unlocks meanwhile. *ret_future has a job
 * that is FREE, filled in from the options. 1: it was dropped, and is over. */
int mpx_submit_begin(mproc_pool *pool, uintptr_t function, mproc_submit_options *options,
                     mproc_future **ret_future);
/* Locked: whether it would not have to wait; or whether it would come back, for await. */
bool mpx_submit_has_room(mproc_pool *pool, const mproc_submit_options *options);
bool mpx_submit_is_time(mproc_pool *pool, void *options);
/* Locked since begin: gives it to the workers. */
void mpx_submit_end(mproc_pool *pool, mproc_future *future);
/* Locked: takes it back before it was given to them. */
void mpx_submit_undo(mproc_pool *pool, mproc_future *future);
int mpx_submit_one(mproc_pool *pool, mproc_task_function *function, const void *input, size_t size,
                   uint64_t index, mproc_submit_options *options, mproc_future **ret_future);
bool mpx_is_in_heap(const void *memory);
/* What the caller gets: the future, or nobody but its callbacks. */
void mpx_submit_hand_over(mproc_future *future, mproc_future **ret_future);

/* ---- maps.c */

int mpx_map_submit(mproc_pool *pool, mproc_task_function *function, const mpx_map *filled,
                   const mproc_bytes *each, void *outputs, mproc_future **ret_future,
                   const mproc_submit_options *options);

/* ---- wait.c */

typedef bool mpx_pool_condition(mproc_pool *pool, void *user);
/* Runs callbacks until the condition, which is asked under the lock, holds. Unlocked. */
int mpx_pool_await(mproc_pool *pool, mpx_pool_condition *holds, void *user, int timeout_ms,
                   const char *what);
/* Takes note of all that is over. Locked. */
void mpx_pool_settle(mproc_pool *pool);

/* ---- callbacks.c */

/* Unlocked; how many ran. */
int mpx_pool_run_callbacks(mproc_pool *pool);
void mpx_progress_tell(mproc_future *future, bool is_last);

/* ---- retire.c. Locked. */

/* The future is over and nobody's: what it has goes, now or when no worker looks at it any more. */
void mpx_future_release(mproc_pool *pool, mproc_future *future);
void mpx_pool_retire(mproc_pool *pool);
/* Whether somebody who lives may be in it, or about to put it on a stack. */
bool mpx_future_is_in_line(const mproc_pool *pool, const mproc_future *future);

/* ---- imap.c. Locked: their pool goes. */
void mpx_imaps_forget(mproc_pool *pool);

/* ---- future.c */

/* Locked. */
void mpx_future_cancel_locked(mproc_pool *pool, mproc_future *future);
/* Unlocked: the imap that waits for it goes. */
void mpx_future_leave_imap(mproc_future *future);

/* ---- report.c */
void mpx_failure_show(const mpx_failure *failure, mproc_failure *ret_failure);

#endif
