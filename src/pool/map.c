/* A map: who has which inputs, and when all are over. */
#include "pool/board.h"

#include "base/error.h"
#include "os/crash_point.h"

#include <string.h>

static uint64_t piece_at(const mpx_map *map, uint32_t index) {
  return atomic_load_explicit(&map->pieces[index], memory_order_acquire);
}

/* The hint, moved to the first place without a piece. */
static uint32_t find_end(mpx_map *map) {
  uint32_t used = atomic_load_explicit(&map->used, memory_order_acquire);
  uint32_t end = used;
  while (end < map->slots && piece_at(map, end) != 0)
    end++;
  if (end != used)
    atomic_store_explicit(&map->used, end, memory_order_release);
  return end;
}

static uint64_t begin_of(const mpx_map *map, uint32_t index) {
  return index == 0 ? 0 : mpx_piece_end(piece_at(map, index - 1));
}

bool mpx_map_is_taken(mpx_map *map) {
  return begin_of(map, find_end(map)) >= map->count;
}

static bool take_given_back(mpx_map *map, unsigned worker, uint32_t *ret_piece) {
  uint32_t end = find_end(map);
  for (uint32_t i = 0; i < end; i++) {
    uint64_t piece = piece_at(map, i);
    if (mpx_piece_owner(piece) != MPX_PIECE_FREE)
      continue;
    uint64_t mine = mpx_piece_make(mpx_piece_begin(piece),
                                   mpx_piece_end(piece) - mpx_piece_begin(piece), worker + 1);
    if (atomic_compare_exchange_strong(&map->pieces[i], &piece, mine)) {
      *ret_piece = i;
      return true;
    }
  }
  return false;
}

/* However few are wanted: what is left must fit into the places that are left. */
static uint64_t size_of(const mpx_map *map, uint32_t index, uint64_t left, uint64_t want) {
  uint64_t places = map->slots - index;
  uint64_t least = (left + places - 1) / places;
  uint64_t size = want > least ? want : least;
  size = size < MPX_PIECE_SIZE_MOST ? size : MPX_PIECE_SIZE_MOST;
  return size < left ? size : left;
}

bool mpx_map_take(mpx_map *map, unsigned worker, uint64_t want, uint32_t *seen,
                  uint32_t *ret_piece) {
  uint32_t given_back = atomic_load_explicit(&map->given_back, memory_order_acquire);
  if (given_back != *seen) {
    if (take_given_back(map, worker, ret_piece))
      return true;
    *seen = given_back;
  }
  for (uint32_t end = find_end(map); end < map->slots; end++) {
    uint64_t begin = begin_of(map, end), none = 0;
    if (begin >= map->count)
      return false;
    uint64_t size = size_of(map, end, map->count - begin, want);
    if (!atomic_compare_exchange_strong(&map->pieces[end], &none,
                                        mpx_piece_make(begin, size, worker + 1)))
      continue;
    MPROC_CRASH_POINT("pool.map.taken");
    atomic_store_explicit(&map->used, end + 1, memory_order_release); /* a hint: may go back */
    *ret_piece = end;
    return true;
  }
  return false;
}

void mpx_map_put_back(mpx_map *map, uint32_t index, uint64_t at) {
  uint64_t piece = piece_at(map, index), end = mpx_piece_end(piece);
  if (at >= end) { /* the extent stays: the next piece begins at its end */
    atomic_store(&map->pieces[index], piece | MPX_PIECE_DONE);
    return;
  }
  atomic_store(&map->pieces[index], mpx_piece_make(at, end - at, MPX_PIECE_FREE));
  MPROC_CRASH_POINT("pool.map.put_back");
  atomic_fetch_add(&map->given_back, 1);
}

/* seq_cst throughout: of two who each end something and then look, one sees both ends. */
static bool is_over(mpx_map *map) {
  uint32_t end = find_end(map);
  if (begin_of(map, end) < map->count)
    return false;
  for (uint32_t i = end; i-- > 0;)
    if (mpx_piece_owner(atomic_load(&map->pieces[i])) != MPX_PIECE_DONE)
      return false;
  for (mpx_job *item = atomic_load(&map->items); item; item = item->map_next)
    if (!mpx_word_is_over(atomic_load(&item->word)))
      return false;
  return true;
}

void mpx_map_check(mpx_board *board, mpx_map *map, unsigned worker) {
  uint64_t word = atomic_load(&map->job->word);
  if (mpx_word_state(word) != MPX_JOB_QUEUED || !is_over(map))
    return;
  MPROC_CRASH_POINT("pool.map.over");
  (void)mpx_job_end(board, map->job, word, NULL, worker);
}

/* A result that another attempt left is none. */
void mpx_map_drop_result(mpx_map *map, uint64_t index) {
  if (!map->results)
    return;
  mpx_result *result = &map->results[index];
  void *data = result->data;
  *result = (mpx_result){0};
  if (data)
    (void)mproc_heap_free(data);
}

void mpx_map_add_failure(mpx_map *map, mpx_failure *failure) {
  if (!failure) {
    atomic_fetch_add(&map->nameless, 1);
    return;
  }
  mpx_failure *first = atomic_load_explicit(&map->failures, memory_order_relaxed);
  do
    failure->next = first;
  while (!atomic_compare_exchange_weak(&map->failures, &first, failure));
  MPROC_CRASH_POINT("pool.map.failure_noted");
}

int mpx_map_add_item(mpx_board *board, mpx_map *map, const mpx_job *filled, unsigned worker,
                     mpx_job **ret_item) {
  void *block;
  int r = mpx_board_alloc(board, sizeof(mpx_job), &block);
  if (r < 0)
    return r;
  mpx_job *item = memset(block, 0, sizeof *item);
  const mpx_job *job = map->job;
  item->kind = MPX_JOB_ITEM;
  item->map = map;
  item->index = filled->index;
  item->attempts = filled->attempts;
  item->deaths = filled->deaths;
  item->function = job->function;
  item->timeout_ms = job->timeout_ms;
  item->retries = job->retries;
  item->retry_delay_ms = job->retry_delay_ms;
  atomic_store(&item->word, mpx_word_with(0, MPX_JOB_RUNNING, worker));
  item->map_next = atomic_load_explicit(&map->items, memory_order_relaxed);
  while (!atomic_compare_exchange_weak(&map->items, &item->map_next, item))
    ;
  MPROC_CRASH_POINT("pool.map.put_aside");
  *ret_item = item;
  return 0;
}

bool mpx_map_has_failed(mpx_map *map, uint64_t index) {
  for (mpx_failure *failure = atomic_load(&map->failures); failure; failure = failure->next)
    if (failure->index == index + map->base)
      return true;
  return false;
}

bool mpx_map_has_noted(mpx_map *map, uint64_t index) {
  if (mpx_map_has_failed(map, index))
    return true;
  for (mpx_job *item = atomic_load(&map->items); item; item = item->map_next)
    if (item->index == index)
      return true;
  return false;
}

/* A run of inputs that are not over; whether the one that is looked for is in it. */
static void count_run(uint64_t begin, uint64_t end, uint64_t *count, uint64_t number,
                      uint64_t *ret_index) {
  if (ret_index && number >= *count && number - *count < end - begin)
    *ret_index = begin + (number - *count);
  *count += end - begin;
}

static uint64_t left_of(mpx_board *board, uint64_t piece) {
  uint64_t begin = mpx_piece_begin(piece), end = mpx_piece_end(piece);
  unsigned owner = mpx_piece_owner(piece);
  if (owner == MPX_PIECE_DONE)
    return end;
  if (owner == MPX_PIECE_FREE)
    return begin;
  uint64_t at = atomic_load_explicit(&board->lines[owner - 1].at, memory_order_relaxed);
  return at > begin && at <= end ? at : begin;
}

uint64_t mpx_map_unfinished(mpx_board *board, mpx_map *map, uint64_t number, uint64_t *ret_index) {
  uint32_t end = find_end(map);
  uint64_t count = 0;
  for (uint32_t i = 0; i < end; i++) {
    uint64_t piece = piece_at(map, i);
    count_run(left_of(board, piece), mpx_piece_end(piece), &count, number, ret_index);
  }
  count_run(begin_of(map, end), map->count, &count, number, ret_index);
  for (mpx_job *item = atomic_load(&map->items); item; item = item->map_next)
    if (!mpx_word_is_over(atomic_load(&item->word)))
      count_run(item->index, item->index + 1, &count, number, ret_index);
  return count;
}

uint64_t mpx_map_finished(mpx_board *board, mpx_map *map) {
  uint64_t left = mpx_map_unfinished(board, map, 0, NULL);
  return left < map->count ? map->count - left : 0;
}
