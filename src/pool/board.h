/* The board: what host, supervisor and workers of a pool share in the heap.
 *
 *   lanes     what is to be done: rings of pointers to jobs, with one producer each
 *   jobs      one task, a map, or one input of a map that is tried again; memory that is a job for
 *             ever, so that who looks late finds a job, if another one
 *   lines     what each worker is in, by the worker: what the supervisor goes by when it is dead
 *   done      a stack of jobs that are over, for the host
 *   again     a stack of jobs that failed and may be tried again, for the supervisor
 *
 * All of it belongs to a name that no process has, so that it goes as a whole with the pool.
 * README.md beside this file says who writes what, and what holds when somebody dies where. */
#ifndef MPX_POOL_BOARD_H
#define MPX_POOL_BOARD_H

#include "heap/allocator.h"
#include "heap/family.h"
#include "mproc/pool.h"
#include "process/entry.h"
#include "sync/notice.h"
#include "sync/turn.h"

enum {
  MPX_POOL_NAME_SIZE = 24,
  MPX_POOL_FUNCTIONS = 1024,
  MPX_POOL_INSIDE = 64, /* bytes of an input, and of a result, that lie in the job itself */
  MPX_POOL_CHUNK = 64,  /* jobs that are allocated at a time */
  MPX_POOL_TEXT = 512,
  MPX_POOL_ERRORS = 4096,
  MPX_AGAIN_LANE_SLOTS = 4096,
  MPX_NOBODY = 0xffff, /* a worker's number that is none */
  MPX_SUPERVISOR = MPROC_POOL_WORKERS_MAX
};

/* ---- jobs ------------------------------------------------------------------------------------ */

typedef enum mpx_job_kind { MPX_JOB_SINGLE = 1, MPX_JOB_MAP, MPX_JOB_ITEM } mpx_job_kind;

/* FREE -> QUEUED -> RUNNING -> DONE | FAILED -> FREE, and from RUNNING over AGAIN to QUEUED. A map
 * stays QUEUED, which any number of workers are in, until it is DONE. */
typedef enum mpx_job_state {
  MPX_JOB_FREE,
  MPX_JOB_QUEUED,
  MPX_JOB_RUNNING,
  MPX_JOB_AGAIN,
  MPX_JOB_DONE,
  MPX_JOB_FAILED
} mpx_job_state;

/* How something failed, in the heap. Never changed once it can be seen. */
typedef struct mpx_failure {
  struct mpx_failure *next; /* of the same map; whoever adds it, before it can be seen */
  mproc_cause cause;
  int code, attempts, worker;
  uint64_t index;
  int64_t pid, run_time_ns, max_rss_bytes;
  char text[MPX_POOL_TEXT];
  uint32_t errors_size; /* bytes behind it, and a NUL */
} mpx_failure;

static inline char *mpx_failure_errors(const mpx_failure *failure) {
  return (char *)(uintptr_t)(failure + 1);
}

struct mpx_map;

typedef struct mpx_job {
  /* sequence << 32 | worker << 16 | state. By CAS: the host from FREE, FAILED and DONE, whoever
   * takes it from QUEUED, the supervisor where its worker is dead. release: what is below is
   * written; pairs with acquire of who takes it, or finds it over */
  _Alignas(64) _Atomic uint64_t word;
  struct mpx_job *_Atomic next; /* in the stack that it is in; who puts it there */
  struct mpx_map *map;          /* MAP, ITEM */
  struct mpx_job *map_next;     /* ITEM: in the list of its map; whoever adds it */
  uint32_t number;              /* creator: which job it is */
  uint32_t function;            /* host, like what comes next, while it is FREE */
  uint16_t kind;
  int16_t priority;
  _Atomic uint32_t cancelled; /* host */
  const void *input;
  size_t size;
  int64_t submitted_at;
  /* ITEM: supervisor, or the worker that makes it */
  uint64_t index;
  int32_t timeout_ms, retries, retry_delay_ms, attempts, deaths;
  uint32_t was_again; /* since it was submitted: it is the supervisor that queues it */
  int64_t due;        /* AGAIN: when it is to be QUEUED */
  /* by who is in it, or the supervisor, before it is over */
  _Atomic(mpx_failure *) failure;
  void *result; /* a block, or `answer`; NULL: none */
  size_t result_size;
  _Alignas(16) unsigned char inside[MPX_POOL_INSIDE + 16];
  unsigned char answer[MPX_POOL_INSIDE];
} mpx_job;

static inline mpx_job_state mpx_word_state(uint64_t word) {
  return (mpx_job_state)(word & 0xffff);
}
static inline unsigned mpx_word_worker(uint64_t word) {
  return (unsigned)(word >> 16) & 0xffff;
}
/* The same job, in another state. */
static inline uint64_t mpx_word_with(uint64_t word, mpx_job_state state, unsigned worker) {
  return (word & ~(uint64_t)UINT32_MAX) | worker << 16 | state;
}
static inline bool mpx_word_is_over(uint64_t word) {
  return mpx_word_state(word) >= MPX_JOB_DONE;
}

typedef struct mpx_job_chunk {
  struct mpx_job_chunk *next;
  mpx_job jobs[MPX_POOL_CHUNK];
} mpx_job_chunk;

/* ---- maps ------------------------------------------------------------------------------------ */

/* A piece: begin << 32 | size << 12 | owner. Pieces are a log: who takes the next inputs appends
 * one, by CAS from 0; so claim, claimant and extent are one word, and the end of a piece, which
 * never changes, is where the next one begins. */
enum { MPX_PIECES_MOST = 4097, MPX_PIECE_SIZE_MOST = (1 << 20) - 1 };
enum { MPX_PIECE_FREE = 0xffe, MPX_PIECE_DONE = 0xfff }; /* owners; a worker's is its number + 1 */

static inline uint64_t mpx_piece_make(uint64_t begin, uint64_t size, unsigned owner) {
  return begin << 32 | size << 12 | owner;
}
static inline uint64_t mpx_piece_begin(uint64_t piece) {
  return piece >> 32;
}
static inline uint64_t mpx_piece_end(uint64_t piece) {
  return (piece >> 32) + ((piece >> 12) & MPX_PIECE_SIZE_MOST);
}
static inline unsigned mpx_piece_owner(uint64_t piece) {
  return piece & 0xfff;
}

typedef struct mpx_result {
  void *data;
  size_t size;
} mpx_result;

typedef struct mpx_map {
  /* host, before it can be seen */
  mpx_job *job;
  uint64_t count, base; /* `base` is added to what a task is told as its index */
  const void *inputs;   /* in the heap: `count` of input_size bytes; NULL: none */
  size_t input_size;
  const mproc_bytes *each; /* of a map of bytes, instead */
  void *outputs;           /* in the heap; NULL: none */
  size_t output_size;
  mpx_result *results; /* of a map of bytes; each by who has the input */
  size_t group;
  bool guarded;
  uint32_t slots; /* of pieces */
  /* how many pieces there are at least; anybody, a hint */
  _Alignas(64) _Atomic uint32_t used;
  _Atomic uint32_t given_back;     /* grows with each piece that became FREE; anybody, RMW */
  _Atomic(mpx_failure *) failures; /* by CAS, whoever found one */
  _Atomic uint64_t nameless;       /* failures for which there was no memory; RMW */
  _Atomic(mpx_job *) items;        /* tried again; by CAS, never taken out */
  _Alignas(64) _Atomic uint64_t pieces[];
} mpx_map;

/* ---- lanes ----------------------------------------------------------------------------------- */

enum { MPX_LANE_HIGH, MPX_LANE_AGAIN, MPX_LANE_NORMAL, MPX_LANE_LOW, MPX_LANES };

/* A slot is a hint to a job, which is taken by its word; so anybody may help the head past what is
 * taken, and a death in between costs nothing. */
typedef struct mpx_lane {
  _Alignas(64) _Atomic uint64_t head; /* by CAS, anybody */
  _Alignas(64) _Atomic uint64_t tail; /* release by its producer: supervisor for AGAIN, else host */
  uint32_t mask;
  _Atomic(mpx_job *) *slots;
} mpx_lane;

/* ---- workers --------------------------------------------------------------------------------- */

typedef enum mpx_order { MPX_ORDER_WAIT, MPX_ORDER_WORK, MPX_ORDER_LEAVE } mpx_order;
typedef enum mpx_stage_of_worker {
  MPX_WORKER_NONE,
  MPX_WORKER_STARTED,
  MPX_WORKER_READY,
  MPX_WORKER_FAILED, /* its initializer did */
  MPX_WORKER_LEFT
} mpx_stage_of_worker;

/* What a worker is in. Who is condemned and in something else by then has come out in time, and
 * begins nothing any more. */
typedef struct mpx_work {
  const mpx_job *job;
  uint64_t runs, at;
} mpx_work;

/* By the worker, but for `order` and `condemned`: supervisor. */
typedef struct mpx_line {
  /* That it looks at, and so is not freed, with its map; it may have been before that, so that
   * nobody else follows this pointer. Cleared last. */
  _Alignas(64) _Atomic(mpx_job *) looks;
  _Atomic(mpx_job *) job; /* that it is in: what `looks` has kept from being freed */
  _Atomic uint64_t at;    /* which input of a map it is in, or comes to next */
  _Atomic uint64_t runs;  /* grows with each job that it begins */
  _Atomic int32_t attempt;
  _Atomic uint32_t condemned; /* a mproc_cause */
  _Atomic int64_t began_at;   /* of a job, or a piece */
  _Atomic uint32_t stage, order;
  _Atomic int32_t code; /* of a FAILED one */
  _Atomic int64_t idle_since;
  /* By CAS from the ticket that it got with its start: a supervisor takes back those of the one
   * before it, whose workers may only just come up. */
  _Alignas(64) _Atomic mpx_member member;
  _Atomic int64_t pid;
  _Atomic uint64_t memory_at_birth;       /* most of it a copy of its parent's */
  _Atomic int64_t errors_from;            /* where the task's part of standard error begins */
  mpx_work doomed;                        /* supervisor, before `condemned` */
  _Atomic uint64_t started, died, leaves; /* supervisor */
  _Atomic uint32_t is_spare;              /* supervisor */
  _Alignas(64) _Atomic uint64_t done, failed, retried;
  _Atomic int64_t busy_ns;
  _Atomic uint64_t wait_time[MPROC_HISTOGRAM_BUCKETS], run_time[MPROC_HISTOGRAM_BUCKETS];
} mpx_line;

/* ---- the board ------------------------------------------------------------------------------- */

typedef enum mpx_pool_state {
  MPX_POOL_OPEN,
  MPX_POOL_CLOSING, /* all that was taken is done first */
  MPX_POOL_ENDING,  /* now */
  MPX_POOL_BROKEN
} mpx_pool_state;

/* Settings: the host, before anybody else can see them. */
typedef struct mpx_pool_settings {
  char name[MPX_POOL_NAME_SIZE];
  uint32_t method; /* of workers: fork or spawn */
  char *executable, *helper;
  uint32_t initializer, worker_exit; /* functions + 1; 0: none */
  void *initializer_arg;
  size_t initializer_size;
  int32_t tasks_per_worker, spares, idle_timeout_ms, poison_limit, keep_errors;
  uint64_t memory_limit;
  int *cpus;
  size_t cpu_count;
} mpx_pool_settings;

typedef struct mpx_board {
  mpx_pool_settings settings;
  _Alignas(64) _Atomic uint32_t state; /* host; BROKEN: supervisor */
  _Atomic int32_t wanted;              /* workers; host */
  _Atomic int32_t lines_used;          /* numbers ever given; supervisor */
  _Atomic uint32_t bell;               /* of the supervisor; supervisor, 0: none */
  _Atomic uint32_t is_short;           /* fewer workers than wanted: idle ones have left */
  _Atomic int64_t timed;               /* jobs with a timeout under way; host */
  _Atomic uint32_t maps_changed;       /* grows when one is cancelled, or a piece put back; RMW */
  _Atomic uint64_t deaths;             /* of workers and supervisors, once all is repaired */
  _Atomic mpx_member supervisor;
  _Atomic uint64_t timed_out, out_of_memory, retried, supervisors_died;
  mpx_failure nameless; /* without memory for another; host, at the beginning */
  char no_errors[8];
  int32_t broken_code;
  char broken_text[MPX_POOL_TEXT];
  _Alignas(64) mpx_turn work;            /* there may be something to do */
  _Alignas(64) mpx_notice results;       /* something is over */
  _Alignas(64) _Atomic(mpx_job *) done;  /* by CAS; taken as a whole by the host */
  _Alignas(64) _Atomic(mpx_job *) again; /* by CAS; taken as a whole by the supervisor */
  _Atomic(mpx_job_chunk *) chunks;       /* host */
  mpx_lane lanes[MPX_LANES];
  _Atomic(mpx_function *) functions[MPX_POOL_FUNCTIONS]; /* host, release */
  _Atomic uint32_t function_count;
  mpx_line lines[MPROC_POOL_WORKERS_MAX + 1]; /* the last is the supervisor's */
} mpx_board;

/* ---- board.c --------------------------------------------------------------------------------- */

int mpx_board_create(const mpx_pool_settings *settings, size_t queue_limit, mpx_board **ret_board);
/* All that is the board's, and the board. Nobody uses it any more. */
void mpx_board_destroy(mpx_board *board);
/* A block of the board's; says why not. */
int mpx_board_alloc(const mpx_board *board, size_t size, void **ret_block);

/* Whether one more job fits in. By the producer of the lane alone, like put. */
bool mpx_lane_has_room(mpx_lane *lane);
/* -EAGAIN: full. */
int mpx_lane_put(mpx_board *board, unsigned lane, mpx_job *job);
unsigned mpx_lane_of(int priority);

/* Itself, or the map that it is of. */
bool mpx_job_is_cancelled(const mpx_job *job);
/* The job is over, for the host. `failure` may be NULL. True for exactly one caller. */
bool mpx_job_end(mpx_board *board, mpx_job *job, uint64_t from, mpx_failure *failure,
                 unsigned worker);
/* The same for a job that was cancelled. */
void mpx_job_cancel(mpx_board *board, mpx_job *job, uint64_t from, unsigned worker);
/* From RUNNING to AGAIN, not before `due`. */
void mpx_job_again(mpx_board *board, mpx_job *job, uint64_t from, int64_t due);
void mpx_board_call_supervisor(mpx_board *board);
/* What a failure says, in a block of the board's. NULL without memory: board->nameless has to do
 * for a single job. */
mpx_failure *mpx_failure_make(mpx_board *board, const mpx_failure *filled, const char *errors,
                              size_t errors_size);
/* When an attempt comes after `attempts` others. */
int64_t mpx_retry_at(const mpx_job *job, int attempts);

/* ---- map.c ----------------------------------------------------------------------------------- */

/* Whether something of it is left to take, or may be given back at any time. */
bool mpx_map_is_taken(mpx_map *map);
/* Takes at most `want` inputs for the worker; false: there are none right now. `seen`: the
 * worker's, 0 when it comes into the map. */
bool mpx_map_take(mpx_map *map, unsigned worker, uint64_t want, uint32_t *seen,
                  uint32_t *ret_piece);
/* All before `at` is done: the rest is anybody's; nothing left: the piece is done. */
void mpx_map_put_back(mpx_map *map, uint32_t piece, uint64_t at);
/* If all inputs are over, so is the map. Called after each thing that may have been the last. */
void mpx_map_check(mpx_board *board, mpx_map *map, unsigned worker);
/* In the hands of who has the input. */
void mpx_map_drop_result(mpx_map *map, uint64_t index);
/* NULL: there was no memory for one. */
void mpx_map_add_failure(mpx_map *map, mpx_failure *failure);
/* Puts an input aside to be tried again: an ITEM that is RUNNING, in the caller's hands, with so
 * many attempts and deaths behind it. Says why not. */
int mpx_map_add_item(mpx_board *board, mpx_map *map, const mpx_job *filled, unsigned worker,
                     mpx_job **ret_item);
/* Whether the input failed already, or was put aside. */
bool mpx_map_has_failed(mpx_map *map, uint64_t index);
bool mpx_map_has_noted(mpx_map *map, uint64_t index);
/* How many inputs are not over; if there are more than `number`, that one is *ret_index (may be
 * NULL). Right once nothing changes. */
uint64_t mpx_map_unfinished(mpx_board *board, mpx_map *map, uint64_t number, uint64_t *ret_index);
uint64_t mpx_map_finished(mpx_board *board, mpx_map *map);

/* ---- worker.c, supervisor.c: entries --------------------------------------------------------- */

typedef struct mpx_worker_arg {
  mpx_board *board;
  mpx_member ticket;
  uint32_t number;
} mpx_worker_arg;

static inline mpx_member mpx_ticket_make(uint64_t birth) {
  return (mpx_member)1 << 63 | birth; /* nobody's name */
}
static inline bool mpx_is_ticket(mpx_member member) {
  return member >> 63 != 0;
}
int mpx_worker_main(void *arg, size_t size);
int mpx_supervisor_main(void *arg, size_t size);
/* Nothing will be run any more: all that is not over fails, by the state of the board. Workers are
 * gone. */
void mpx_jobs_fail_all(mpx_board *board);
/* The same in the host, when there is no supervisor and will be none. */
void mpx_supervisor_of_last_resort(mpx_board *board);
/* In a worker that was forked by the supervisor: signals are as they were in the host. */
void mpx_supervisor_release_signals(void);

static inline int mpx_histogram_bucket(int64_t ns) {
  uint64_t us = ns < 0 ? 0 : (uint64_t)ns / 1000;
  int bucket = us == 0 ? 0 : 64 - __builtin_clzll(us);
  return bucket < MPROC_HISTOGRAM_BUCKETS ? bucket : MPROC_HISTOGRAM_BUCKETS - 1;
}

/* For counters with one writer. */
static inline void mpx_count_ns(_Atomic int64_t *counter, int64_t by) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                        memory_order_relaxed);
}

static inline void mpx_count(_Atomic uint64_t *counter, uint64_t by) {
  atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + by,
                        memory_order_relaxed);
}

#endif
