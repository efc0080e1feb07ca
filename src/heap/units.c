#include "heap/units.h"

#include "base/error.h"
#include "heap/pages.h"
#include "os/crash_point.h"

#include <errno.h>

enum {
  FULL_STEPS = MPX_UNIT_SIZE / MPX_STEP,
  CREDIT = 64 << 20,        /* bytes committed between two looks at the cgroup */
  LEAVE_TO_CGROUP = 2 << 20 /* bytes below the cgroup's limit that are not taken */
};

/* ---- memory ---------------------------------------------------------------------------------- */

int mpx_units_back(mpx_allocator *a, void *start, size_t size) {
  uint64_t credit = atomic_load_explicit(&a->commit_credit, memory_order_relaxed);
  if (credit < size) {
    uint64_t headroom = mpx_os_memory_headroom();
    if (headroom < size + (uint64_t)LEAVE_TO_CGROUP)
      return mpx_fail(
          -ENOMEM,
          "%zu more bytes of the shared heap would pass the memory limit of this process's "
          "cgroup (%llu bytes are left), and the kernel would kill a process of it; free "
          "blocks or raise the limit (memory.max)",
          size, (unsigned long long)headroom);
    /* The closer the limit, the sooner the next look. */
    credit = size + (headroom / 8 < CREDIT ? headroom / 8 : CREDIT);
  }
  atomic_store_explicit(&a->commit_credit, credit - size, memory_order_relaxed);
  int r = mpx_os_commit(start, size);
  if (r < 0)
    return mpx_fail(r, "the system gives no memory for %zu more bytes of the shared heap: %s", size,
                    mproc_strerror(r));
  return 0;
}

/* Sees to it that the descriptor of a unit has memory. */
static int describe(mpx_allocator *a, uint32_t unit) {
  if (mpx_is_described(a, unit))
    return 0;
  mpx_pages pages = mpx_pages_of(&a->units[unit], sizeof a->units[unit], a->page_size);
  int r = mpx_units_back(a, pages.start, pages.size);
  if (r < 0)
    return r;
  uint32_t steps = mpx_backed(a, unit);
  atomic_store_explicit(&a->backing[unit], (uint8_t)(steps | MPX_DESCRIBED), memory_order_relaxed);
  return 0;
}

static uint32_t backed_steps(const mpx_allocator *a, uint32_t first, uint32_t count) {
  uint32_t steps = 0;
  for (uint32_t u = first; u < first + count; u++)
    steps += mpx_backed(a, u);
  return steps;
}

/* ---- lock and repair ------------------------------------------------------------------------- */

/* Counts what the descriptor of `unit` says into the derived fields; returns for how many units. */
static uint32_t count_unit(mpx_allocator *a, uint32_t unit) {
  mpx_unit *head = &a->units[unit];
  uint64_t state = mpx_unit_state(head);
  uint32_t count = 1;
  if (mpx_state_kind(state) == MPX_UNIT_FREE) {
    mpx_word_store(&head->owner, 0);
    mpx_units_unmark_owned(a, unit);
    a->map.dirty_steps += mpx_backed(a, unit);
    return 1;
  }
  if (mpx_state_kind(state) == MPX_UNIT_RUN) {
    mpx_counter_add(&a->map.run_count, 1);
    mpx_counter_add(&a->map.run_bytes, mpx_word_load(&head->run_bytes));
  }
  if (mpx_state_kind(state) != MPX_UNIT_SLAB)
    count = mpx_state_count(state);
  if (count == 0 || count > a->unit_count - unit)
    count = 1; /* damaged: never handed out again, harms nobody */
  mpx_bits_write(a->busy, unit, count, true);
  return count;
}

/* The map from the descriptors. `backing` is dense: a heap of 16 GiB has 256 KiB of it. */
void mpx_units_rebuild(mpx_allocator *a) {
  mpx_unit_map *map = &a->map;
  map->dirty_steps = 0;
  mpx_word_store(&map->run_count, 0);
  mpx_word_store(&map->run_bytes, 0);
  for (uint32_t k = 0; k < MPX_RUN_HINTS; k++)
    map->hints[k] = 0;
  mpx_bits_write(a->busy, 0, a->unit_count, false);
  for (uint32_t u = 0; u < a->unit_count;) {
    if (mpx_is_described(a, u)) {
      u += count_unit(a, u);
    } else {
      map->dirty_steps += mpx_backed(a, u);
      u++;
    }
    MPROC_CRASH_POINT("heap.map.half_rebuilt");
  }
}

int mpx_units_lock(mpx_allocator *a) {
  int r = mpx_os_robust_lock(&a->map.lock);
  if (r < 0)
    return mpx_fail(-EIO, "the shared heap is damaged: its unit map cannot be locked (%s)",
                    mproc_strerror(r));
  if (r > 0) {
    mpx_units_rebuild(a);
    atomic_fetch_add_explicit(&a->repair_count, 1, memory_order_relaxed);
  }
  return 0;
}

void mpx_units_unlock(mpx_allocator *a) {
  mpx_os_robust_unlock(&a->map.lock);
}

int mpx_units_init(mpx_allocator *a) {
  return mpx_os_robust_init(&a->map.lock);
}

/* ---- taking ---------------------------------------------------------------------------------- */

/* First fit, from the hint for stretches of this magnitude. */
static uint32_t find_stretch(mpx_allocator *a, uint32_t count) {
  unsigned k = mpx_highest_bit(count);
  uint32_t limit = a->unit_count, hint = limit;
  uint32_t first = a->map.hints[k] < limit ? a->map.hints[k] : 0;
  while ((first = mpx_bits_find(a->busy, first, limit, false)) < limit) {
    uint32_t most = limit - first < count ? limit - first : count;
    uint32_t end = mpx_bits_find(a->busy, first, first + most, true);
    if (end - first >= 1u << k && hint == limit)
      hint = first; /* shorter ones before it are too short for all of this magnitude */
    if (end - first == count)
      break;
    first = end;
  }
  a->map.hints[k] = hint;
  return first < limit ? first : MPX_NO_UNIT;
}

void mpx_units_count_blocks(const mpx_allocator *a, uint64_t *ret_blocks, uint64_t *ret_bytes) {
  uint64_t blocks = mpx_word_load(&a->map.run_count), bytes = mpx_word_load(&a->map.run_bytes);
  for (unsigned i = 0; i < a->arena_count; i++)
    for (unsigned c = 0; c < MPX_CLASS_COUNT; c++) {
      uint64_t count = mpx_word_load(&a->arenas[i].classes[c].blocks);
      blocks += count;
      bytes += count * mpx_size_classes[c].size;
    }
  *ret_blocks = blocks;
  *ret_bytes = bytes;
}

static int fail_full(const mpx_allocator *a, uint32_t count) {
  uint64_t blocks, bytes;
  mpx_units_count_blocks(a, &blocks, &bytes);
  return mpx_fail(
      MPROC_EHEAPFULL,
      "the shared heap is full: of its limit of %llu bytes, %llu are in use by %llu "
      "blocks, and no %llu bytes in a row are left; free blocks, or give mproc_init() a "
      "larger heap_size",
      (unsigned long long)a->unit_count * MPX_UNIT_SIZE, (unsigned long long)bytes,
      (unsigned long long)blocks, (unsigned long long)count * MPX_UNIT_SIZE);
}

static void make_busy(mpx_allocator *a, uint32_t first, uint32_t count) {
  mpx_bits_write(a->busy, first, count, true);
  a->map.dirty_steps -= backed_steps(a, first, count);
}

/* The order: owner and length, then `state`, which alone counts, then the map. */
static void publish(mpx_allocator *a, uint32_t first, uint64_t state, mpx_member owner,
                    uint64_t run_bytes) {
  mpx_unit *unit = &a->units[first];
  if (owner != 0)
    mpx_units_mark_owned(a, first);
  mpx_word_store(&unit->owner, owner);
  mpx_word_store(&unit->run_bytes, run_bytes);
  mpx_word_store(&unit->state, state);
  MPROC_CRASH_POINT("heap.unit.published");
  make_busy(a, first, mpx_state_count(state));
  if (mpx_state_kind(state) == MPX_UNIT_RUN) {
    mpx_counter_add(&a->map.run_count, 1);
    mpx_counter_add(&a->map.run_bytes, run_bytes);
  }
  MPROC_CRASH_POINT("heap.unit.mapped");
}

int mpx_units_take(mpx_allocator *a, uint64_t state, mpx_member owner, uint64_t run_bytes,
                   uint32_t *ret_first) {
  uint32_t count = mpx_state_count(state);
  int r = mpx_units_lock(a);
  if (r < 0)
    return r;
  uint32_t first = find_stretch(a, count);
  r = first == MPX_NO_UNIT ? fail_full(a, count) : describe(a, first);
  if (r == 0) {
    publish(a, first, state, owner, run_bytes);
    *ret_first = first;
  }
  mpx_units_unlock(a);
  return r;
}

/* ---- giving back ----------------------------------------------------------------------------- */

/* A run leaves the statistics when its block ends, whatever becomes of its units. */
static void uncount_run(mpx_allocator *a, uint32_t first, uint64_t state) {
  if (mpx_state_kind(state) != MPX_UNIT_RUN)
    return;
  mpx_counter_add(&a->map.run_count, -(uint64_t)1);
  mpx_counter_add(&a->map.run_bytes, -mpx_word_load(&a->units[first].run_bytes));
}

/* The units are the family's again, with what memory they have. `state` first: it alone counts. */
static void make_free(mpx_allocator *a, uint32_t first, uint32_t count) {
  mpx_unit *unit = &a->units[first];
  mpx_word_store(&unit->state, MPX_UNIT_FREE);
  MPROC_CRASH_POINT("heap.unit.freed");
  mpx_word_store(&unit->owner, 0);
  mpx_units_unmark_owned(a, first);
  mpx_bits_write(a->busy, first, count, false);
  a->map.dirty_steps += backed_steps(a, first, count);
  uint32_t start = mpx_bits_clear_before(a->busy, first);
  for (uint32_t k = 0; k < MPX_RUN_HINTS; k++)
    if (a->map.hints[k] > start)
      a->map.hints[k] = start;
}

/* From here on the memory is the caller's to return: by mpx_units_close, or by its reaper. */
static void make_closing(mpx_allocator *a, const mpx_caller *caller, uint32_t first,
                         uint32_t count) {
  mpx_unit *unit = &a->units[first];
  if (caller->member != 0)
    mpx_units_mark_owned(a, first);
  mpx_word_store(&unit->owner, caller->member);
  MPROC_CRASH_POINT("heap.unit.owner_changed");
  mpx_word_store(&unit->state, mpx_state(MPX_UNIT_CLOSING, 0, 0, count));
}

/* Makes a closing run of free units that have memory: the first stretch at or after `from`, at most
 * `most` units of it. MPX_NO_UNIT when there is none. */
static uint32_t close_stretch(mpx_allocator *a, const mpx_caller *caller, uint32_t from,
                              uint32_t most) {
  uint32_t u = from;
  while ((u = mpx_bits_find(a->busy, u, a->unit_count, false)) < a->unit_count) {
    if (mpx_backed(a, u) != 0 && describe(a, u) == 0) {
      uint32_t end = u + 1;
      while (end - u < most && end < a->unit_count && !mpx_bit_is_set(a->busy, end) &&
             mpx_backed(a, end) != 0)
        end++;
      make_closing(a, caller, u, end - u);
      make_busy(a, u, end - u);
      return u;
    }
    u++;
  }
  return MPX_NO_UNIT;
}

/* Some memory of the reserve, when that is more than it should be: what a hand on its way round the
 * heap comes to, so that what is used again and again mostly stays. */
static uint32_t close_excess(mpx_allocator *a, const mpx_caller *caller) {
  if (a->map.dirty_steps <= a->dirty_limit)
    return MPX_NO_UNIT;
  uint32_t most = (a->map.dirty_steps - a->dirty_limit + FULL_STEPS - 1) / FULL_STEPS;
  uint32_t closing = close_stretch(a, caller, a->map.hand, most);
  if (closing == MPX_NO_UNIT)
    closing = close_stretch(a, caller, 0, most);
  a->map.hand = closing == MPX_NO_UNIT ? 0 : closing + 1;
  return closing;
}

int mpx_units_release(mpx_allocator *a, const mpx_caller *caller, uint32_t first, uint64_t state,
                      uint32_t *ret_closing) {
  uint32_t count = mpx_state_count(state);
  *ret_closing = MPX_NO_UNIT;
  int r = mpx_units_lock(a);
  if (r < 0)
    return r;
  if (mpx_unit_state(&a->units[first]) != state || count == 0 || count > a->unit_count - first) {
    r = MPROC_EPOINTER;
  } else {
    uncount_run(a, first, state);
    if (a->map.dirty_steps + backed_steps(a, first, count) > 2 * a->dirty_limit) {
      make_closing(a, caller, first, count);
      *ret_closing = first;
    } else {
      make_free(a, first, count);
      *ret_closing = close_excess(a, caller);
    }
  }
  mpx_units_unlock(a);
  return r;
}

int mpx_units_take_over(mpx_allocator *a, const mpx_caller *caller, mpx_member dead,
                        uint32_t first) {
  int r = mpx_units_lock(a);
  if (r < 0)
    return r;
  uint64_t state = mpx_unit_state(&a->units[first]);
  mpx_unit_kind kind = mpx_state_kind(state);
  r = (kind == MPX_UNIT_RUN || kind == MPX_UNIT_CLOSING) &&
      mpx_word_load(&a->units[first].owner) == dead &&
      mpx_state_count(state) <= a->unit_count - first;
  if (r > 0) {
    uncount_run(a, first, state);
    make_closing(a, caller, first, mpx_state_count(state));
  }
  mpx_units_unlock(a);
  return r;
}

int mpx_units_take_dirty(mpx_allocator *a, const mpx_caller *caller, uint32_t from,
                         uint32_t *ret_closing) {
  int r = mpx_units_lock(a);
  if (r < 0)
    return r;
  *ret_closing = close_stretch(a, caller, from, UINT32_MAX);
  mpx_units_unlock(a);
  return 0;
}

int mpx_units_close(mpx_allocator *a, uint32_t first) {
  uint32_t count = mpx_state_count(mpx_unit_state(&a->units[first]));
  if (count > a->unit_count - first)
    return mpx_fail(-EIO, "the shared heap is damaged: unit %u is said to begin %u units", first,
                    count);
  MPROC_CRASH_POINT("heap.run.closing");
  /* Before the memory goes, so that nobody is ever promised memory that is not there. */
  for (uint32_t u = first; u < first + count; u++)
    mpx_set_backed(a, u, 0);
  MPROC_CRASH_POINT("heap.run.unbacked");
  (void)mpx_os_decommit(mpx_unit_data(a, first), (size_t)count * MPX_UNIT_SIZE);
  MPROC_CRASH_POINT("heap.run.decommitted");
  int r = mpx_units_lock(a);
  if (r < 0)
    return r;
  make_free(a, first, count);
  mpx_units_unlock(a);
  return 0;
}
