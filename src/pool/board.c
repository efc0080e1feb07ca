#include "pool/board.h"

#include "base/error.h"
#include "os/crash_point.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static mpx_caller owner_of(const mpx_board *board) {
  return (mpx_caller){.member = (uint64_t)1 << 63 | (uintptr_t)board, .lane = 0};
}

int mpx_board_alloc(const mpx_board *board, size_t size, void **ret_block) {
  const mpx_caller owner = owner_of(board);
  return mpx_allocator_alloc(mpx_family_header()->allocator, &owner, size, 64, true, ret_block);
}

static int make_lane(mpx_board *board, mpx_lane *lane, size_t slots) {
  size_t count = 64;
  while (count < slots)
    count *= 2;
  void *block;
  int r = mpx_board_alloc(board, count * sizeof *lane->slots, &block);
  if (r < 0)
    return r;
  memset(block, 0, count * sizeof *lane->slots);
  lane->slots = block;
  lane->mask = (uint32_t)count - 1;
  return 0;
}

int mpx_board_create(const mpx_pool_settings *settings, size_t queue_limit, mpx_board **ret_board) {
  mpx_board *board = mproc_heap_aligned_alloc(64, sizeof *board);
  if (!board)
    return mproc_last_error();
  memset(board, 0, sizeof *board);
  board->settings = *settings;
  board->nameless = (mpx_failure){.cause = MPROC_CAUSE_ERROR,
                                  .code = -ENOMEM,
                                  .attempts = 1,
                                  .worker = -1,
                                  .run_time_ns = -1,
                                  .max_rss_bytes = -1,
                                  .text = "no memory in the heap to say how it failed"};
  int r = 0;
  for (unsigned i = 0; i < MPX_LANES && r == 0; i++)
    r = make_lane(board, &board->lanes[i],
                  i == MPX_LANE_AGAIN ? MPX_AGAIN_LANE_SLOTS : queue_limit);
  if (r < 0)
    mpx_board_destroy(board);
  else
    *ret_board = board;
  return r;
}

void mpx_board_destroy(mpx_board *board) {
  const mpx_caller caller = {.member = mpx_family_self(), .lane = 0};
  mpx_notice_fini(&board->results);
  (void)mpx_allocator_reap(mpx_family_header()->allocator, &caller, owner_of(board).member);
  MPROC_CRASH_POINT("pool.board.reaped");
  (void)mproc_heap_free(board); /* last: its address is the owner's name */
}

/* ---- lanes ----------------------------------------------------------------------------------- */

unsigned mpx_lane_of(int priority) {
  return priority > 0 ? MPX_LANE_HIGH : priority < 0 ? MPX_LANE_LOW : MPX_LANE_NORMAL;
}

/* What was cancelled, or taken out of its turn, makes room. */
static void skip_stale(mpx_lane *lane, uint64_t tail) {
  uint64_t head = atomic_load_explicit(&lane->head, memory_order_acquire);
  while (head != tail) {
    mpx_job *job = atomic_load_explicit(&lane->slots[head & lane->mask], memory_order_relaxed);
    uint64_t word = atomic_load_explicit(&job->word, memory_order_acquire);
    if (mpx_word_state(word) == MPX_JOB_QUEUED)
      return;
    if (atomic_compare_exchange_weak(&lane->head, &head, head + 1))
      head++;
  }
}

static bool is_full(mpx_lane *lane, uint64_t tail) {
  return tail - atomic_load_explicit(&lane->head, memory_order_acquire) > lane->mask;
}

bool mpx_lane_has_room(mpx_lane *lane) {
  uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);
  if (is_full(lane, tail))
    skip_stale(lane, tail);
  return !is_full(lane, tail);
}

int mpx_lane_put(mpx_board *board, unsigned number, mpx_job *job) {
  mpx_lane *lane = &board->lanes[number];
  if (!mpx_lane_has_room(lane))
    return -EAGAIN;
  uint64_t tail = atomic_load_explicit(&lane->tail, memory_order_relaxed);
  atomic_store_explicit(&lane->slots[tail & lane->mask], job, memory_order_relaxed);
  /* release: pairs with acquire in worker.c: the slot, and the job, are written */
  atomic_store_explicit(&lane->tail, tail + 1, memory_order_release);
  MPROC_CRASH_POINT("pool.lane.put");
  mpx_turn_next(&board->work, job->kind == MPX_JOB_MAP ? MPX_TURN_ALL : 1);
  return 0;
}

bool mpx_job_is_cancelled(const mpx_job *job) {
  const mpx_job *whole = job->map ? job->map->job : job;
  return atomic_load(&whole->cancelled) != 0;
}

/* ---- the end of a job ------------------------------------------------------------------------ */

static void push(_Atomic(mpx_job *) *stack, mpx_job *job) {
  mpx_job *top = atomic_load_explicit(stack, memory_order_relaxed);
  do
    atomic_store_explicit(&job->next, top, memory_order_relaxed);
  while (!atomic_compare_exchange_weak(stack, &top, job)); /* seq_cst: pairs with the exchanges */
}

/* Who dies between the two has left a job that is over and in no stack: the host looks through all
 * of them when somebody has died. */
bool mpx_job_end(mpx_board *board, mpx_job *job, uint64_t from, mpx_failure *failure,
                 unsigned worker) {
  if (failure)
    atomic_store_explicit(&job->failure, failure, memory_order_relaxed);
  mpx_job_state state = failure ? MPX_JOB_FAILED : MPX_JOB_DONE;
  /* release: pairs with acquire of the host: result and failure are written */
  if (!atomic_compare_exchange_strong(&job->word, &from, mpx_word_with(from, state, worker)))
    return false;
  MPROC_CRASH_POINT("pool.job.over");
  if (job->kind == MPX_JOB_ITEM)
    return true; /* its map is what the host waits for */
  push(&board->done, job);
  MPROC_CRASH_POINT("pool.job.pushed");
  mpx_notice_tell(&board->results, MPX_TURN_ALL);
  return true;
}

void mpx_job_cancel(mpx_board *board, mpx_job *job, uint64_t from, unsigned worker) {
  const mpx_failure filled = {.cause = MPROC_CAUSE_CANCELLED,
                              .attempts = job->attempts,
                              .worker = -1,
                              .index = job->index,
                              .run_time_ns = -1,
                              .max_rss_bytes = -1};
  mpx_failure *failure = mpx_failure_make(board, &filled, NULL, 0);
  (void)mpx_job_end(board, job, from, failure ? failure : &board->nameless, worker);
}

/* The word keeps who did it: one who dies before the push leaves the job in no list. */
void mpx_job_again(mpx_board *board, mpx_job *job, uint64_t from, int64_t due) {
  job->due = due;
  job->was_again = 1;
  if (!atomic_compare_exchange_strong(&job->word, &from,
                                      mpx_word_with(from, MPX_JOB_AGAIN, mpx_word_worker(from))))
    return;
  MPROC_CRASH_POINT("pool.job.again");
  push(&board->again, job);
  mpx_board_call_supervisor(board);
}

void mpx_board_call_supervisor(mpx_board *board) {
  uint32_t bell = atomic_load(&board->bell);
  if (bell)
    mpx_os_bell_ring(bell);
}

int64_t mpx_retry_at(const mpx_job *job, int attempts) {
  enum { MOST_MS = 30000 };
  if (job->retry_delay_ms <= 0)
    return 0;
  int64_t delay = job->retry_delay_ms;
  for (int i = 1; i < attempts && delay < MOST_MS; i++)
    delay *= 2;
  return mpx_os_now() + (delay < MOST_MS ? delay : MOST_MS) * MPX_NS_PER_MS;
}

mpx_failure *mpx_failure_make(mpx_board *board, const mpx_failure *filled, const char *errors,
                              size_t errors_size) {
  void *block;
  if (mpx_board_alloc(board, sizeof *filled + errors_size + 1, &block) < 0)
    return NULL;
  mpx_failure *failure = memcpy(block, filled, sizeof *filled);
  failure->errors_size = (uint32_t)errors_size;
  if (errors_size)
    memcpy(mpx_failure_errors(failure), errors, errors_size);
  mpx_failure_errors(failure)[errors_size] = '\0';
  return failure;
}
