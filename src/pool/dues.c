/* What is tried again later, what is cancelled, and the end of all. */
#include "pool/supervisor.h"

#include "os/crash_point.h"

#include <stdio.h>
#include <string.h>

void mpx_dues_take(mpx_supervisor *supervisor) {
  mpx_job *job = atomic_exchange(&supervisor->board->again, NULL);
  while (job) {
    mpx_job *next = atomic_load(&job->next);
    atomic_store(&job->next, supervisor->due);
    supervisor->due = job;
    job = next;
  }
}

static void end_cancelled(mpx_board *board, mpx_job *job, uint64_t word) {
  atomic_store(&board->lines[MPX_SUPERVISOR].looks, job); /* until it is on the stack */
  mpx_job_cancel(board, job, word, MPX_SUPERVISOR);
  atomic_store(&board->lines[MPX_SUPERVISOR].looks, NULL);
}

/* False: the lane is full, and it is as it was. An older slot may name it still: who takes it by
 * that is perhaps through with it, and with its map, before we have put it. */
static bool queue_one(mpx_board *board, mpx_job *job, uint64_t word) {
  _Atomic(mpx_job *) *looks = &board->lines[MPX_SUPERVISOR].looks;
  mpx_job *before = atomic_exchange(looks, job);
  uint64_t queued = mpx_word_with(word, MPX_JOB_QUEUED, MPX_NOBODY);
  bool is_done = true;
  if (atomic_compare_exchange_strong(&job->word, &word, queued)) {
    MPROC_CRASH_POINT("pool.due.queued");
    is_done = mpx_lane_put(board, MPX_LANE_AGAIN, job) == 0 ||
              /* nobody knows of it, unless by an older slot, or it was cancelled */
              !atomic_compare_exchange_strong(&job->word, &queued,
                                              mpx_word_with(queued, MPX_JOB_AGAIN, MPX_NOBODY));
  }
  atomic_store(looks, before);
  return is_done;
}

/* True: it is in the list no more. */
static bool queue_due(mpx_supervisor *supervisor, mpx_job *job, int64_t now, int64_t *next) {
  mpx_board *board = supervisor->board;
  uint64_t word = atomic_load(&job->word);
  if (mpx_word_state(word) != MPX_JOB_AGAIN)
    return true;
  if (mpx_job_is_cancelled(job)) {
    if (job->kind == MPX_JOB_SINGLE) /* of an input, the map ends as a whole */
      end_cancelled(board, job, word);
    return true;
  }
  if (job->due > now) {
    *next = job->due < *next ? job->due : *next;
    return false;
  }
  if (queue_one(board, job, word))
    return true;
  *next = now + 5 * MPX_NS_PER_MS;
  return false;
}

int64_t mpx_dues_queue(mpx_supervisor *supervisor) {
  int64_t now = mpx_os_now(), next = MPX_NEVER;
  mpx_job *job = supervisor->due, *kept = NULL;
  while (job) {
    mpx_job *after =
        atomic_load(&job->next); /* who is queued may be over, and in a stack, at once */
    if (!queue_due(supervisor, job, now, &next)) {
      atomic_store(&job->next, kept);
      kept = job;
    }
    job = after;
  }
  supervisor->due = kept;
  return next;
}

/* ---- maps ------------------------------------------------------------------------------------ */

static bool somebody_is_in(const mpx_board *board, const mpx_map *map) {
  int used = atomic_load(&board->lines_used);
  for (int i = 0; i < used; i++) {
    const mpx_job *job = atomic_load(&board->lines[i].looks);
    if (job == map->job)
      return true;
    for (mpx_job *item = atomic_load(&map->items); job && item; item = item->map_next)
      if (item == job)
        return true;
  }
  return false;
}

/* Inputs that were put aside and wait in a lane are not taken any more. */
static void hold_items(mpx_map *map) {
  for (mpx_job *item = atomic_load(&map->items); item; item = item->map_next) {
    uint64_t word = atomic_load(&item->word);
    if (mpx_word_state(word) == MPX_JOB_QUEUED)
      (void)atomic_compare_exchange_strong(&item->word, &word,
                                           mpx_word_with(word, MPX_JOB_AGAIN, MPX_NOBODY));
  }
}

/* seq_cst: who comes in names the map in its line and then looks whether it is cancelled, and the
 * other way round here. */
static void look_at_map(mpx_supervisor *supervisor, mpx_job *job) {
  if (!atomic_load(&job->cancelled)) {
    mpx_reoffer(supervisor, job);
    return;
  }
  hold_items(job->map);
  if (somebody_is_in(supervisor->board, job->map)) {
    supervisor->maps_wait = true;
    return;
  }
  mpx_dues_take(supervisor);        /* by who was in it until just now */
  (void)mpx_dues_queue(supervisor); /* none of its inputs is in our list after that */
  uint64_t word = atomic_load(&job->word);
  if (mpx_word_state(word) == MPX_JOB_QUEUED) /* else the last who was in it has ended it */
    end_cancelled(supervisor->board, job, word);
}

void mpx_maps_look(mpx_supervisor *supervisor) {
  mpx_board *board = supervisor->board;
  uint32_t changed = atomic_load(&board->maps_changed);
  if (changed == supervisor->maps_seen && !supervisor->maps_wait)
    return;
  supervisor->maps_seen = changed;
  supervisor->maps_wait = false;
  mpx_dues_take(supervisor);
  for (mpx_job_chunk *chunk = atomic_load(&board->chunks); chunk; chunk = chunk->next)
    for (int i = 0; i < MPX_POOL_CHUNK; i++) {
      mpx_job *job = &chunk->jobs[i];
      uint64_t word = atomic_load(&job->word);
      if (mpx_word_state(word) != MPX_JOB_QUEUED || job->kind != MPX_JOB_MAP)
        continue;
      atomic_store(&supervisor->line->looks, job); /* its map stays as long as we look */
      if (atomic_load(&job->word) == word)
        look_at_map(supervisor, job);
      atomic_store(&supervisor->line->looks, NULL);
    }
}

/* ---- the end --------------------------------------------------------------------------------- */

bool mpx_jobs_are_over(const mpx_supervisor *supervisor) {
  for (mpx_job_chunk *chunk = atomic_load(&supervisor->board->chunks); chunk; chunk = chunk->next)
    for (int i = 0; i < MPX_POOL_CHUNK; i++) {
      mpx_job_state state = mpx_word_state(atomic_load(&chunk->jobs[i].word));
      if (state != MPX_JOB_FREE && state < MPX_JOB_DONE)
        return false;
    }
  return true;
}

static void fail_all(mpx_board *board, mproc_cause cause, int code, const char *text) {
  mpx_failure filled = {
      .cause = cause, .code = code, .worker = -1, .run_time_ns = -1, .max_rss_bytes = -1};
  (void)snprintf(filled.text, sizeof filled.text, "%s", text);
  for (mpx_job_chunk *chunk = atomic_load(&board->chunks); chunk; chunk = chunk->next)
    for (int i = 0; i < MPX_POOL_CHUNK; i++) {
      mpx_job *job = &chunk->jobs[i];
      uint64_t word = atomic_load(&job->word);
      if (mpx_word_state(word) == MPX_JOB_FREE || mpx_word_is_over(word))
        continue;
      filled.index = job->index;
      filled.attempts = job->attempts;
      mpx_failure *failure = mpx_failure_make(board, &filled, NULL, 0);
      atomic_store(&board->lines[MPX_SUPERVISOR].looks, job);
      (void)mpx_job_end(board, job, word, failure ? failure : &board->nameless, MPX_SUPERVISOR);
      atomic_store(&board->lines[MPX_SUPERVISOR].looks, NULL);
    }
}

void mpx_jobs_fail_all(mpx_board *board) {
  if (atomic_load(&board->state) == MPX_POOL_BROKEN)
    fail_all(board, MPROC_CAUSE_INITIALIZER, board->broken_code, board->broken_text);
  else
    fail_all(board, MPROC_CAUSE_CANCELLED, 0, "the pool was terminated");
}
