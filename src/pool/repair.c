/* What a dead worker was in. */
#include "pool/supervisor.h"

#include "os/crash_point.h"

#include <string.h>

/* Whose own doing it was: what is tried again only so often. */
static bool is_own_death(const mpx_worker_end *end) {
  return end->has_deserted || (end->is_blamed && end->cause != MPROC_CAUSE_TIMED_OUT &&
                               end->cause != MPROC_CAUSE_CANCELLED);
}

static mpx_failure *make_failure(mpx_supervisor *supervisor, unsigned number,
                                 const mpx_worker_end *end, int attempts, uint64_t index,
                                 bool is_poisoned) {
  mpx_line *line = &supervisor->board->lines[number];
  mproc_handle spool = supervisor->wards[number].spool;
  char errors[MPX_POOL_ERRORS];
  int64_t size = spool == MPX_NO_HANDLE ? 0
                                        : mpx_os_spool_tail(spool, atomic_load(&line->errors_from),
                                                            errors, sizeof errors);
  const mpx_failure failure = {.cause = is_poisoned ? MPROC_CAUSE_POISONED : end->cause,
                               .code = end->code,
                               .attempts = attempts,
                               .worker = (int)number,
                               .index = index,
                               .pid = atomic_load(&line->pid),
                               .run_time_ns = end->run_time_ns,
                               .max_rss_bytes = end->max_rss_bytes};
  return mpx_failure_make(supervisor->board, &failure, errors, size > 0 ? (size_t)size : 0);
}

typedef enum verdict { TRY_AGAIN, FAILS, IS_POISONED } verdict;

static verdict judge(const mpx_supervisor *supervisor, const mpx_worker_end *end,
                     const mpx_job *job, int attempts, int deaths) {
  bool is_poisoned = deaths >= supervisor->board->settings.poison_limit;
  if (!end->is_blamed)
    return is_poisoned ? IS_POISONED : TRY_AGAIN;
  if (end->cause == MPROC_CAUSE_CANCELLED || attempts > job->retries)
    return FAILS;
  return is_poisoned ? IS_POISONED : TRY_AGAIN;
}

/* ---- one task -------------------------------------------------------------------------------- */

/* It died about to put the job on the stack, or after. */
static void list_again(mpx_supervisor *supervisor, mpx_job *job) {
  mpx_dues_take(supervisor);
  for (mpx_job *listed = supervisor->due; listed; listed = atomic_load(&listed->next))
    if (listed == job)
      return;
  atomic_store(&job->next, supervisor->due);
  supervisor->due = job;
}

static void repair_job(mpx_supervisor *supervisor, unsigned number, mpx_job *job,
                       const mpx_worker_end *end) {
  mpx_board *board = supervisor->board;
  uint64_t word = atomic_load_explicit(&job->word, memory_order_acquire);
  if (mpx_word_state(word) == MPX_JOB_AGAIN && mpx_word_worker(word) == number)
    list_again(supervisor, job);
  if (job->kind == MPX_JOB_ITEM && mpx_word_is_over(word))
    mpx_map_check(board, job->map, MPX_SUPERVISOR);
  if (mpx_word_state(word) != MPX_JOB_RUNNING || mpx_word_worker(word) != number)
    return; /* it was not taken yet, or is over */
  if (job->kind == MPX_JOB_ITEM && mpx_map_has_failed(job->map, job->index)) {
    (void)mpx_job_end(board, job, word, NULL, number); /* noted already: that was all of it */
    mpx_map_check(board, job->map, MPX_SUPERVISOR);
    return;
  }
  int attempts = atomic_load(&board->lines[number].attempt);
  if (attempts <= job->attempts) /* the line is that of the job before */
    attempts = job->attempts + 1;
  int deaths = job->deaths + is_own_death(end);
  verdict what = judge(supervisor, end, job, attempts, deaths);
  if (what == TRY_AGAIN) {
    job->attempts = end->is_blamed ? attempts : attempts - 1;
    job->deaths = deaths;
    atomic_fetch_add(&board->retried, end->is_blamed);
    mpx_job_again(board, job, word, end->is_blamed ? mpx_retry_at(job, attempts) : 0);
    return;
  }
  uint64_t index = job->kind == MPX_JOB_ITEM ? job->index + job->map->base : job->index;
  mpx_failure *failure =
      make_failure(supervisor, number, end, attempts, index, what == IS_POISONED);
  MPROC_CRASH_POINT("pool.repair.blames");
  if (job->kind == MPX_JOB_ITEM) {
    mpx_map_drop_result(job->map, job->index);
    mpx_map_add_failure(job->map, failure);
    (void)mpx_job_end(board, job, word, NULL, number);
    mpx_map_check(board, job->map, MPX_SUPERVISOR);
  } else {
    (void)mpx_job_end(board, job, word, failure ? failure : &board->nameless, number);
  }
  mpx_count(&board->lines[number].failed, 1);
}

/* ---- a map ----------------------------------------------------------------------------------- */

/* It died between putting an input aside and saying when it is due, or that it is. */
static void repair_items(mpx_supervisor *supervisor, mpx_map *map, unsigned number) {
  mpx_board *board = supervisor->board;
  for (mpx_job *item = atomic_load(&map->items); item; item = item->map_next) {
    uint64_t word = atomic_load(&item->word);
    if (mpx_word_state(word) == MPX_JOB_RUNNING && mpx_word_worker(word) == number)
      mpx_job_again(board, item, word, 0);
    else if (mpx_word_state(word) == MPX_JOB_AGAIN && mpx_word_worker(word) == number)
      list_again(supervisor, item);
  }
}

/* Input `at` is the one that it was in. False: it is to be taken as if nobody had begun it. */
static bool blame_input(mpx_supervisor *supervisor, unsigned number, mpx_map *map, uint64_t at,
                        const mpx_worker_end *end) {
  mpx_board *board = supervisor->board;
  if (mpx_map_has_noted(map, at))
    return true;
  if (!end->is_blamed && !end->has_deserted)
    return false;
  int attempts = atomic_load(&board->lines[number].attempt);
  const mpx_job filled = {.index = at,
                          .attempts = end->is_blamed ? attempts : attempts - 1,
                          .deaths = is_own_death(end)};
  verdict what = judge(supervisor, end, map->job, attempts, filled.deaths);
  mpx_job *item;
  if (what == TRY_AGAIN && mpx_map_add_item(board, map, &filled, MPX_SUPERVISOR, &item) == 0) {
    atomic_fetch_add(&board->retried, end->is_blamed);
    mpx_job_again(board, item, atomic_load(&item->word),
                  end->is_blamed ? mpx_retry_at(map->job, attempts) : 0);
    return true;
  }
  mpx_map_drop_result(map, at);
  mpx_map_add_failure(
      map, make_failure(supervisor, number, end, attempts, at + map->base, what == IS_POISONED));
  mpx_count(&board->lines[number].failed, 1);
  return true;
}

static bool find_piece(mpx_map *map, unsigned number, uint32_t *ret_index) {
  for (uint32_t i = 0; i < map->slots; i++) {
    uint64_t piece = atomic_load_explicit(&map->pieces[i], memory_order_acquire);
    if (piece == 0)
      return false;
    if (mpx_piece_owner(piece) == number + 1) {
      *ret_index = i;
      return true;
    }
  }
  return false;
}

static void repair_map(mpx_supervisor *supervisor, unsigned number, mpx_job *job,
                       const mpx_worker_end *end) {
  mpx_map *map = job->map;
  uint32_t index;
  if (mpx_word_state(atomic_load(&job->word)) != MPX_JOB_QUEUED)
    return;
  repair_items(supervisor, map, number);
  if (find_piece(map, number, &index)) {
    uint64_t piece = atomic_load(&map->pieces[index]);
    /* acquire: pairs with release in run_piece: what is done before it is written */
    uint64_t at = atomic_load_explicit(&supervisor->board->lines[number].at, memory_order_acquire);
    if (at < mpx_piece_begin(piece) || at > mpx_piece_end(piece))
      at = mpx_piece_begin(piece); /* of the piece before: it had not begun */
    else if (at < mpx_piece_end(piece) && !atomic_load(&job->cancelled) &&
             blame_input(supervisor, number, map, at, end))
      at++;
    MPROC_CRASH_POINT("pool.repair.piece");
    mpx_map_put_back(map, index, at);
  }
  mpx_map_check(supervisor->board, map, MPX_SUPERVISOR);
  atomic_fetch_add(&map->given_back, 1); /* it may have died before it said so */
  mpx_reoffer(supervisor, job);
}

void mpx_reoffer(mpx_supervisor *supervisor, mpx_job *job) {
  if (mpx_word_state(atomic_load(&job->word)) != MPX_JOB_QUEUED || !mpx_map_is_taken(job->map))
    return; /* over; or still in its lane */
  if (mpx_lane_put(supervisor->board, MPX_LANE_AGAIN, job) < 0)
    atomic_fetch_add(&supervisor->board->maps_changed, 1); /* full: the next time */
}

void mpx_repair(mpx_supervisor *supervisor, unsigned number, const mpx_worker_end *end) {
  mpx_line *line = &supervisor->board->lines[number];
  mpx_job *job = atomic_load(&line->job);
  if (job && job->kind == MPX_JOB_MAP)
    repair_map(supervisor, number, job, end);
  else if (job)
    repair_job(supervisor, number, job, end);
  MPROC_CRASH_POINT("pool.repair.done");
  atomic_store(&line->job, NULL);
  atomic_store(&line->looks, NULL);
  atomic_store(&line->condemned, 0);
  atomic_store(&line->member, 0);
  atomic_store(&line->pid, 0);
  atomic_store(&line->idle_since, 0);
  atomic_store(&line->stage, MPX_WORKER_NONE);
  atomic_fetch_add(&supervisor->board->deaths, 1); /* the host looks for what is in no stack */
  mpx_notice_next(&supervisor->board->results, MPX_TURN_ALL);
}

/* Jobs AGAIN were in its own list, and what it had just queued may be in no lane. */
static void take_back(mpx_supervisor *supervisor, mpx_job *job) {
  uint64_t word = atomic_load(&job->word);
  if (job->was_again && mpx_word_state(word) == MPX_JOB_QUEUED) {
    job->due = 0;
    (void)atomic_compare_exchange_strong(&job->word, &word,
                                         mpx_word_with(word, MPX_JOB_AGAIN, MPX_NOBODY));
  }
  if (mpx_word_state(atomic_load(&job->word)) != MPX_JOB_AGAIN)
    return;
  atomic_store(&job->next, supervisor->due);
  supervisor->due = job;
}

void mpx_repair_after_supervisor(mpx_supervisor *supervisor) {
  mpx_board *board = supervisor->board;
  (void)atomic_exchange(&board->again, NULL);
  atomic_store(&supervisor->line->looks, NULL); /* the last one's */
  supervisor->due = NULL;
  for (mpx_job_chunk *chunk = atomic_load(&board->chunks); chunk; chunk = chunk->next)
    for (int i = 0; i < MPX_POOL_CHUNK; i++) {
      mpx_job *job = &chunk->jobs[i];
      take_back(supervisor, job);
      if (mpx_word_state(atomic_load(&job->word)) != MPX_JOB_QUEUED || job->kind != MPX_JOB_MAP)
        continue; /* in this order: the kind is that of the job which is queued */
      for (mpx_job *item = atomic_load(&job->map->items); item; item = item->map_next) {
        uint64_t word = atomic_load(&item->word);
        if (mpx_word_state(word) == MPX_JOB_RUNNING) /* put aside by who died then */
          (void)atomic_compare_exchange_strong(&item->word, &word,
                                               mpx_word_with(word, MPX_JOB_AGAIN, MPX_NOBODY));
        take_back(supervisor, item);
      }
      atomic_store(&supervisor->line->looks, job);
      mpx_map_check(board, job->map, MPX_SUPERVISOR);
      atomic_store(&supervisor->line->looks, NULL);
    }
  atomic_fetch_add(&board->maps_changed, 1);
  atomic_fetch_add(&board->deaths, 1);
}
