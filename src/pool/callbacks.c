#include "base/error.h"
#include "pool/host.h"

enum { PROGRESS_NS = 100 * MPX_NS_PER_MS };

/* The future is the callback's until it returns, destroyed or not. */
static void call(mproc_pool *pool, mproc_future *future) {
  const mproc_submit_options *options = &future->options;
  bool failed = future->has_failed && options->error;
  mpx_pool_leave(pool);
  if (failed)
    options->error(future, options->user);
  else if (options->done)
    options->done(future, options->user);
  (void)mpx_pool_enter(pool);
  future->in_callback = false;
  if (future->is_abandoned)
    mpx_future_release(pool, future);
}

/* A round: what is ready now. What a callback submits may be over at once, and has its turn in the
 * next one, so that a wait comes back in its time. No thread is cancelled in a callback: others
 * would wait for it for ever. */
int mpx_pool_run_callbacks(mproc_pool *pool) {
  int count = 0;
  int r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  bool is_ours = !pool->is_dispatching; /* else another thread is at it, or we are inside of one */
  if (is_ours) {
    mpx_os_cancel_hold();
    pool->is_dispatching = true;
    mpx_list_move(&pool->calling, &pool->ready);
    for (; pool->calling.next != &pool->calling; count++) {
      mproc_future *future = mpx_list_entry(pool->calling.next, mproc_future, ready);
      mpx_list_remove(&future->ready);
      call(pool, future);
    }
    pool->is_dispatching = false;
    mpx_os_cancel_release();
  }
  mpx_pool_leave(pool);
  return count;
}

/* Unlocked. */
void mpx_progress_tell(mproc_future *future, bool is_last) {
  uint64_t finished = 0, count = 0;
  int64_t now = mpx_os_now();
  if (!future->options.progress || (!is_last && now - future->progress_at < PROGRESS_NS) ||
      mproc_future_progress(future, &finished, &count) < 0 || finished == future->progress_seen)
    return;
  future->progress_at = now;
  future->progress_seen = finished;
  future->options.progress(finished, count, future->options.user);
}
