/* Inputs that come one by one, and so do their results: a window of futures over them. */
#include "base/error.h"
#include "pool/host.h"

#include <errno.h>
#include <stdlib.h>

struct mproc_imap {
  mproc_pool *pool; /* NULL: destroyed before us */
  mpx_list link;    /* the pool's */
  mproc_task_function *function;
  mproc_imap_source *next;
  void *user;
  mproc_submit_options options;
  bool is_unordered, is_at_end;
  bool has_input; /* one that the source gave, and the pool has not taken yet */
  mproc_bytes input;
  int source_error; /* told when all before it is */
  uint64_t look_ahead;
  uint64_t asked, told;  /* inputs */
  mproc_future **window; /* of ordered ones by input, modulo look_ahead */
  uint64_t *places;      /* of unordered ones: those that are free, the first of them */
  uint64_t place_count;
  mpx_list arrived;
  mproc_future *current; /* whose result the caller has */
};

static void free_private(mproc_imap *imap) {
  free(imap->window);
  free(imap->places);
  free(imap);
}

static mproc_imap *make(mproc_pool *pool, const mproc_submit_options *options) {
  mproc_imap *imap = calloc(1, sizeof *imap);
  if (!imap)
    return NULL;
  imap->pool = pool;
  imap->options = *options;
  imap->options.done = imap->options.error = NULL;
  imap->options.progress = NULL;
  imap->is_unordered = options->unordered != 0;
  imap->look_ahead =
      options->look_ahead ? options->look_ahead : 4 * (uint64_t)atomic_load(&pool->board->wanted);
  mpx_list_init(&imap->link);
  mpx_list_init(&imap->arrived);
  imap->window = calloc(imap->look_ahead, sizeof *imap->window);
  imap->places = calloc(imap->look_ahead, sizeof *imap->places);
  if (!imap->window || !imap->places) {
    free_private(imap);
    return NULL;
  }
  for (uint64_t i = 0; i < imap->look_ahead; i++)
    imap->places[imap->place_count++] = i;
  return imap;
}

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
  if (r == 0) {
    mproc_imap *imap = make(pool, &taken);
    if (imap) {
      imap->function = function;
      imap->next = next;
      imap->user = user;
      mpx_list_append(&pool->imaps, &imap->link);
      *ret_imap = imap;
    } else {
      r = mpx_fail_code(-ENOMEM, "mproc_pool_imap");
    }
  }
  mpx_pool_leave(pool);
  return r;
}

/* 1: there is no room, and who has results to wait for need not wait for that. */
static int submit(mproc_imap *imap) {
  mproc_future *future;
  int r = mpx_pool_enter(imap->pool);
  if (r < 0)
    return r;
  if (imap->pool->overflow == MPROC_OVERFLOW_BLOCK &&
      !mpx_submit_is_time(imap->pool, &imap->options))
    r = 1;
  else
    r = mpx_submit_one(imap->pool, imap->function, imap->input.data, imap->input.size, imap->asked,
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

/* An input that the pool did not take is given to it again the next time. */
static int fill(mproc_imap *imap) {
  while (imap->has_input || (!imap->is_at_end && has_place(imap))) {
    if (!imap->has_input) {
      imap->input = (mproc_bytes){0};
      int r = imap->next(imap->user, &imap->input);
      imap->has_input = r > 0;
      imap->is_at_end = r <= 0;
      imap->source_error = r < 0 ? r : 0;
    }
    int r = imap->has_input ? submit(imap) : 0;
    if (r != 0)
      return r;
    imap->has_input = false;
  }
  return 0;
}

static int await(mproc_imap *imap, mpx_pool_condition *holds, void *user, int64_t deadline,
                 int timeout_ms) {
  int left = timeout_ms == 0 ? 0 : mpx_poll_ms(mpx_remaining(deadline, mpx_os_now()));
  int r = mpx_pool_await(imap->pool, holds, user, left, "the next result");
  bool is_late = r == -ETIMEDOUT || (r == -EAGAIN && timeout_ms != 0);
  return is_late ? mpx_timeout_fail(timeout_ms, "the next result") : r;
}

/* Until there is a result to wait for. 0: there will be none. */
static int fill_in_time(mproc_imap *imap, int64_t deadline, int timeout_ms) {
  for (;;) {
    int r = fill(imap);
    if (imap->asked > imap->told)
      return 1;
    if (r < 0)
      return r;
    if (r == 0)
      break;
    r = await(imap, mpx_submit_is_time, &imap->options, deadline, timeout_ms);
    if (r < 0)
      return r;
  }
  int r = imap->source_error;
  imap->source_error = 0;
  return r < 0 ? mpx_fail(r, "the source of inputs failed: %s", mproc_strerror(r)) : 0;
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
  if (!imap->pool)
    return mpx_fail(MPROC_ECLOSED, "the imap's pool was destroyed");
  r = mpx_timeout_check(timeout_ms);
  if (r < 0)
    return r;
  int64_t deadline = mpx_deadline(mpx_os_now(), timeout_ms);
  let_go_of_current(imap);
  r = fill_in_time(imap, deadline, timeout_ms);
  if (r <= 0)
    return r;
  r = await(imap, has_arrived, imap, deadline, timeout_ms);
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
  if (imap->pool && mpx_pool_enter(imap->pool) == 0) {
    mproc_pool *pool = imap->pool;
    mpx_list_remove(&imap->link);
    mpx_pool_leave(pool);
  }
  free_private(imap);
}

void mpx_imaps_forget(mproc_pool *pool) {
  while (pool->imaps.next != &pool->imaps) {
    mproc_imap *imap = mpx_list_entry(pool->imaps.next, mproc_imap, link);
    mpx_list_remove(&imap->link);
    imap->pool = NULL;
  }
}
