/* What a future had goes back. */
#include "pool/host.h"

#include <stdlib.h>

static void free_block(const void *block) {
  (void)mproc_heap_free((void *)(uintptr_t)block);
}

static void free_failures(mproc_pool *pool, mpx_failure *failure) {
  while (failure) {
    mpx_failure *next = failure->next;
    if (failure != &pool->board->nameless)
      free_block(failure);
    failure = next;
  }
}

static void free_map(mproc_pool *pool, mproc_future *future) {
  mpx_map *map = future->map;
  free_failures(pool, atomic_load(&map->failures));
  for (mpx_job *item = atomic_load(&map->items); item;) {
    mpx_job *next = item->map_next;
    free_block(item);
    item = next;
  }
  for (uint64_t i = 0; map->results && i < map->count; i++)
    free_block(map->results[i].data);
  free_block(map->results);
  if (map->each)
    free_block(map->each);
  if (map->inputs && future->copied_inputs)
    free_block(map->inputs);
  if (future->copy_size)
    free_block(map->outputs);
  free_block(map);
}

static void free_job(mproc_pool *pool, mpx_job *job) {
  if (job->input != job->inside)
    free_block(job->input);
  if (job->result != job->answer)
    free_block(job->result);
  free_failures(pool, atomic_load(&job->failure));
  uint64_t word = atomic_load_explicit(&job->word, memory_order_relaxed);
  atomic_store_explicit(&job->word, mpx_word_with(word, MPX_JOB_FREE, MPX_NOBODY),
                        memory_order_relaxed);
  atomic_store_explicit(&job->next, pool->free_jobs, memory_order_relaxed);
  pool->free_jobs = job;
}

static void finish(mproc_pool *pool, mproc_future *future) {
  if (future->map)
    free_map(pool, future);
  free_job(pool, future->job);
  mpx_list_remove(&future->link);
  free(future);
}

/* The map's, or an input's of it that was put aside. */
static bool is_in_line(const mpx_line *line, const mproc_future *future) {
  const mpx_job *job = atomic_load(&line->looks);
  bool found = job == future->job;
  mpx_job *item = job && !found && future->map ? atomic_load(&future->map->items) : NULL;
  for (; item && !found; item = item->map_next)
    found = item == job;
  return found;
}

bool mpx_future_is_in_line(const mproc_pool *pool, const mproc_future *future) {
  mpx_board *board = pool->board;
  int used = atomic_load(&board->lines_used);
  for (int i = 0; i < used; i++)
    if (is_in_line(&board->lines[i], future))
      return true;
  return is_in_line(&board->lines[MPX_SUPERVISOR], future);
}

/* Whether somebody may still look at the map: it is named in a line, or an input that was put aside
 * is named in the lane, from where workers take it before they name it. The supervisor's line comes
 * first, since it may be about to put it there. */
static bool is_used(mproc_pool *pool, mproc_future *future) {
  mpx_board *board = pool->board;
  const mpx_lane *again = &board->lanes[MPX_LANE_AGAIN];
  if (!future->has_lane_tail) {
    if (is_in_line(&board->lines[MPX_SUPERVISOR], future))
      return true;
    future->lane_tail = atomic_load(&again->tail);
    future->has_lane_tail = true;
  }
  if (atomic_load(&future->map->items) && atomic_load(&again->head) < future->lane_tail)
    return true;
  return mpx_future_is_in_line(pool, future);
}

void mpx_pool_retire(mproc_pool *pool) {
  for (mpx_list *node = pool->retired.next, *next; node != &pool->retired; node = next) {
    mproc_future *future = mpx_list_entry(node, mproc_future, link);
    next = node->next;
    if (!is_used(pool, future))
      finish(pool, future);
  }
}

void mpx_future_release(mproc_pool *pool, mproc_future *future) {
  pool->by_number[future->job->number] = NULL;
  mpx_list_remove(&future->ready);
  mpx_list_remove(&future->arrival);
  if (!future->map) {
    finish(pool, future);
    return;
  }
  mpx_list_remove(&future->link);
  mpx_list_append(&pool->retired, &future->link);
  mpx_pool_retire(pool);
}
