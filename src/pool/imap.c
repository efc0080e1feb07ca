/* Inputs that come one by one, and so do their results: a window of futures over them. */
#include "base/error.h"
#include "pool/host.h"

#include <errno.h>
#include <stdlib.h>

struct mproc_imap {
  mproc_pool *pool;
  mproc_task_function *function;
  mproc_imap_source *next;
  void *user;
  mproc_submit_options options;
  bool is_unordered, is_at_end;
  int source_error; /* told when all before it is */
  uint64_t look_ahead;
  uint64_t asked, told;  /* inputs */
  mproc_future **window; /* of ordered ones by input, modulo look_ahead */
  uint64_t *places;      /* of unordered ones: those that are free, the first of them */
  uint64_t place_count;
  mpx_list arrived;
  mproc_future *current; /* whose result the caller has */
};

int mproc_pool_imap(mproc_pool *pool, mproc_task_function *function, mproc_imap_source *next,
                    void *user, mproc_imap **ret_imap, const mproc_submit_options *options) {
  mproc_submit_options taken;
  int r = mpx_check_not_null(ret_imap, "ret_imap");
  if (r == 0 && (!function || !next))
    r = mpx_fail(-EINVAL, "the %s is NULL", function ? "source" : "function");
  if (r < 0 || (r = mpx_pool_enter(pool)) < 0)
    return r;
  r = mpx_submit_check_open(pool);
  if (r == 0)
    r = mpx_submit_take_options(pool, options, &taken);
  uint64_t usual = 4 * (uint64_t)atomic_load(&pool->board->wanted);
  mpx_pool_leave(pool);
  if (r < 0)
    return r;
  taken.done = taken.error = NULL;
  taken.progress = NULL;
  mproc_imap *imap = calloc(1, sizeof *imap);
  if (!imap)
    return mpx_fail_code(-ENOMEM, "mproc_pool_imap");
  *imap = (mproc_imap){.pool = pool,
                       .function = function,
                       .next = next,
                       .user = user,
                       .options = taken,
                       .is_unordered = taken.unordered != 0,
                       .look_ahead = taken.look_ahead ? taken.look_ahead : usual};
  mpx_list_init(&imap->arrived);
  imap->window = calloc(imap->look_ahead, sizeof *imap->window);
  imap->places = calloc(imap->look_ahead, sizeof *imap->places);
  if (!imap->window || !imap->places) {
    free(imap->window);
    free(imap->places);
    free(imap);
    return mpx_fail_code(-ENOMEM, "mproc_imap's window");
  }
  for (uint64_t i = 0; i < imap->look_ahead; i++)
    imap->places[imap->place_count++] = i;
  *ret_imap = imap;
  return 0;
}

static int submit(mproc_imap *imap, const mproc_bytes *input) {
  mproc_future *future;
  int r = mpx_pool_enter(imap->pool);
  if (r < 0)
    return r;
  r = mpx_submit_one(imap->pool, imap->function, input->data, input->size, imap->asked,
                     &imap->options, &future);
  if (r == 0) {
    future->arrivals = &imap->arrived;
    if (future->is_over) /* another thread has seen to it by now */
      mpx_list_append(&imap->arrived, &future->arrival);
    future->slot =
        imap->is_unordered ? imap->places[--imap->place_count] : imap->asked % imap->look_ahead;
    imap->window[future->slot] = future;
    imap->asked++;
  }
  mpx_pool_leave(imap->pool);
  return r;
}

static bool has_place(const mproc_imap *imap) {
  return imap->asked - imap->told < imap->look_ahead;
}

static int fill(mproc_imap *imap) {
  while (!imap->is_at_end && has_place(imap)) {
    mproc_bytes input = {0};
    int r = imap->next(imap->user, &input);
    if (r <= 0) {
      imap->is_at_end = true;
      imap->source_error = r;
      return 0;
    }
    r = submit(imap, &input);
    if (r < 0)
      return r;
  }
  return 0;
}

static mproc_future *first_arrived(mproc_imap *imap) {
  if (imap->is_unordered)
    return imap->arrived.next == &imap->arrived
               ? NULL
               : mpx_list_entry(imap->arrived.next, mproc_future, arrival);
  mproc_future *future = imap->window[imap->told % imap->look_ahead];
  return future->is_over ? future : NULL;
}

static bool has_arrived(mproc_pool *pool, void *user) {
  (void)pool;
  return first_arrived(user) != NULL;
}

static void let_go_of_current(mproc_imap *imap) {
  mproc_future_destroy(imap->current);
  imap->current = NULL;
}

static int take(mproc_imap *imap, mproc_bytes *ret_result, uint64_t *ret_index) {
  int r = mpx_pool_enter(imap->pool);
  if (r < 0)
    return r;
  mproc_future *future = first_arrived(imap);
  uint64_t index = future->job->index;
  mpx_list_remove(&future->arrival);
  imap->window[future->slot] = NULL;
  if (imap->is_unordered)
    imap->places[imap->place_count++] = future->slot;
  imap->told++;
  imap->current = future;
  mpx_pool_leave(imap->pool);
  if (ret_index)
    *ret_index = index;
  r = mproc_future_result(future, ret_result);
  return r < 0 ? r : 1;
}

int mproc_imap_next(mproc_imap *imap, mproc_bytes *ret_result, uint64_t *ret_index,
                    int timeout_ms) {
  int r = mpx_check_not_null(imap, "imap");
  if (r == 0)
    r = mpx_check_not_null(ret_result, "ret_result");
  if (r < 0)
    return r;
  let_go_of_current(imap);
  r = fill(imap);
  if (r < 0)
    return r;
  if (imap->asked == imap->told) {
    r = imap->source_error;
    imap->source_error = 0;
    return r < 0 ? mpx_fail(r, "the source of inputs failed: %s", mproc_strerror(r)) : 0;
  }
  r = mpx_pool_await(imap->pool, has_arrived, imap, timeout_ms, "the next result");
  return r < 0 ? r : take(imap, ret_result, ret_index);
}

int mproc_imap_failure(mproc_imap *imap, mproc_failure *ret_failure) {
  int r = mpx_check_not_null(imap, "imap");
  if (r < 0)
    return r;
  return imap->current ? mproc_future_failure(imap->current, 0, ret_failure)
                       : mpx_fail(-ENOENT, "no input has failed just now");
}

void mproc_imap_destroy(mproc_imap *imap) {
  if (!imap)
    return;
  let_go_of_current(imap);
  for (uint64_t i = 0; i < imap->look_ahead; i++)
    mpx_future_leave_imap(imap->window[i]);
  free(imap->window);
  free(imap->places);
  free(imap);
}
