/* Compares truth with truth and with all that is derived. For tests: it stops the whole heap. */
#include "base/error.h"
#include "heap/allocator_layout.h"
#include "heap/arena.h"
#include "heap/units.h"

#include <errno.h>

enum { FULL_STEPS = MPX_UNIT_SIZE / MPX_STEP };

/* What the descriptors add up to. */
typedef struct sums {
  uint64_t blocks[MPX_ARENA_MAX][MPX_CLASS_COUNT];
  uint64_t idle_slabs[MPX_ARENA_MAX];
  uint64_t slabs_with_room[MPX_ARENA_MAX];
  uint64_t run_count, run_bytes, dirty_steps;
} sums;

static int check_free(mpx_allocator *a, uint32_t unit) {
  const mpx_unit *u = &a->units[unit];
  if (mpx_word_load(&u->owner) != 0)
    return mpx_fail(-EIO, "unit %u is free and has an owner", unit);
  for (uint32_t w = 0; w < MPX_UNIT_SIZE / 16 / 64; w++)
    if (mpx_word_load(&u->used[w]) != 0 || mpx_word_load(&u->owned[w]) != 0)
      return mpx_fail(-EIO, "unit %u is free and has blocks", unit);
  return 0;
}

static int check_bitmaps(mpx_allocator *a, uint32_t unit, const mpx_size_class *cls) {
  const mpx_unit *u = &a->units[unit];
  uint32_t count = 0;
  for (uint32_t w = 0; w < MPX_UNIT_SIZE / 16 / 64; w++) {
    uint64_t used = mpx_word_load(&u->used[w]), owned = mpx_word_load(&u->owned[w]);
    uint64_t full = w + 1 < cls->word_count ? ~0ull : w < cls->word_count ? cls->last_word : 0;
    if (used & ~full)
      return mpx_fail(-EIO, "slab %u has blocks past its end, word %u", unit, w);
    if (owned & ~used)
      return mpx_fail(-EIO, "slab %u has owned blocks that do not exist, word %u", unit, w);
    if (owned != 0 && mpx_word_load(&u->owner) == 0)
      return mpx_fail(-EIO, "slab %u has owned blocks and no owner, word %u", unit, w);
    if (w < cls->word_count && (u->vacant >> w & 1) != (used != full))
      return mpx_fail(-EIO, "slab %u: the summary of word %u is wrong", unit, w);
    if (used != 0 && w * 64 + mpx_highest_bit(used) >= u->backed_count)
      return mpx_fail(-EIO, "slab %u has blocks without memory, word %u", unit, w);
    count += mpx_bit_count(used);
  }
  if (cls->word_count < 64 && u->vacant >> cls->word_count != 0)
    return mpx_fail(-EIO, "slab %u: the summary has words past the end", unit);
  if (u->used_count != count)
    return mpx_fail(-EIO, "slab %u counts %u blocks and has %u", unit, u->used_count, count);
  return 0;
}

static int check_slab(mpx_allocator *a, uint32_t unit, uint64_t state, sums *s) {
  unsigned index = mpx_state_arena(state), number = mpx_state_class(state);
  if (index >= a->arena_count || number >= MPX_CLASS_COUNT || mpx_state_count(state) != 1)
    return mpx_fail(-EIO, "slab %u has the impossible state 0x%llx", unit,
                    (unsigned long long)state);
  const mpx_size_class *cls = &mpx_size_classes[number];
  const mpx_unit *u = &a->units[unit];
  if ((uint64_t)u->backed_count * cls->size > (uint64_t)mpx_backed(a, unit) * MPX_STEP ||
      u->backed_count > cls->capacity)
    return mpx_fail(-EIO, "slab %u counts %u blocks with memory", unit, u->backed_count);
  int r = check_bitmaps(a, unit, cls);
  if (r < 0)
    return r;
  s->blocks[index][number] += u->used_count;
  s->idle_slabs[index] += u->used_count == 0;
  s->slabs_with_room[index] += u->used_count < cls->capacity;
  return 0;
}

static int check_run(mpx_allocator *a, uint32_t first, uint64_t state, sums *s) {
  uint32_t count = mpx_state_count(state);
  uint64_t bytes = mpx_word_load(&a->units[first].run_bytes);
  if (count == 0 || count > a->unit_count - first)
    return mpx_fail(-EIO, "run %u has %u units", first, count);
  for (uint32_t u = first + 1; u < first + count; u++) {
    if (mpx_is_described(a, u) && mpx_unit_state(&a->units[u]) != MPX_UNIT_FREE)
      return mpx_fail(-EIO, "unit %u is inside run %u and in use", u, first);
    if (mpx_backed(a, u) > FULL_STEPS)
      return mpx_fail(-EIO, "unit %u is backed by %u steps", u, mpx_backed(a, u));
  }
  if (mpx_bits_find(a->busy, first, first + count, false) != first + count)
    return mpx_fail(-EIO, "run %u has units that the map calls free", first);
  if (mpx_state_kind(state) == MPX_UNIT_CLOSING)
    return 0;
  if ((bytes + MPX_UNIT_SIZE - 1) / MPX_UNIT_SIZE != count)
    return mpx_fail(-EIO, "run %u has %u units for %llu bytes", first, count,
                    (unsigned long long)bytes);
  uint64_t end = bytes;
  for (uint32_t i = 0; mpx_word_load(&a->units[first].owner) == 0 && i < count; i++) {
    uint64_t steps = end / MPX_STEP < FULL_STEPS ? end / MPX_STEP : FULL_STEPS;
    if (mpx_backed(a, first + i) < steps)
      return mpx_fail(-EIO, "run %u lacks memory in unit %u", first, first + i);
    end -= steps * MPX_STEP;
  }
  s->run_count++;
  s->run_bytes += bytes;
  return 0;
}

static int check_unit(mpx_allocator *a, uint32_t unit, sums *s, uint32_t *ret_count) {
  uint64_t state = mpx_is_described(a, unit) ? mpx_unit_state(&a->units[unit]) : MPX_UNIT_FREE;
  mpx_unit_kind kind = mpx_state_kind(state);
  *ret_count = 1;
  if (mpx_backed(a, unit) > FULL_STEPS)
    return mpx_fail(-EIO, "unit %u is backed by %u steps", unit, mpx_backed(a, unit));
  if (kind > MPX_UNIT_CLOSING || (kind == MPX_UNIT_FREE && state != 0))
    return mpx_fail(-EIO, "unit %u has the impossible state 0x%llx", unit,
                    (unsigned long long)state);
  if ((kind != MPX_UNIT_FREE) != mpx_bit_is_set(a->busy, unit))
    return mpx_fail(-EIO, "unit %u: the map and the descriptor disagree", unit);
  if (kind == MPX_UNIT_FREE) {
    s->dirty_steps += mpx_backed(a, unit);
    return mpx_is_described(a, unit) ? check_free(a, unit) : 0;
  }
  if (mpx_word_load(&a->units[unit].owner) != 0 && !mpx_bit_is_set(a->owned, unit))
    return mpx_fail(-EIO, "unit %u has an owner whose reaper would not find it", unit);
  if (kind == MPX_UNIT_SLAB)
    return check_slab(a, unit, state, s);
  *ret_count = mpx_state_count(state);
  return check_run(a, unit, state, s);
}

/* Every slab in a list belongs there; *listed grows by their number. */
static int check_list(mpx_allocator *a, unsigned index, const mpx_unit_list *list,
                      mpx_link_kind kind, uint64_t *listed) {
  uint32_t previous = MPX_NO_UNIT;
  for (uint32_t unit = list->first, seen = 0; unit != MPX_NO_UNIT; seen++) {
    if (unit >= a->unit_count || seen > a->unit_count)
      return mpx_fail(-EIO, "a list of arena %u leaves the heap after unit %u", index, previous);
    const mpx_unit *u = &a->units[unit];
    uint64_t state = mpx_unit_state(u);
    mpx_member owner = mpx_word_load(&u->owner);
    if (mpx_state_kind(state) != MPX_UNIT_SLAB || mpx_state_arena(state) != index ||
        (kind == MPX_LINK_ROOM &&
         mpx_arena_list(&a->arenas[index], mpx_state_class(state), owner) != list))
      return mpx_fail(-EIO, "unit %u is in a wrong list of arena %u", unit, index);
    uint32_t limit = kind == MPX_LINK_IDLE ? 1 : mpx_size_classes[mpx_state_class(state)].capacity;
    if (u->used_count >= limit)
      return mpx_fail(-EIO, "slab %u has too many blocks for its list", unit);
    if (u->links[kind].previous != previous)
      return mpx_fail(-EIO, "slab %u does not point back to %u", unit, previous);
    previous = unit;
    unit = u->links[kind].next;
    (*listed)++;
  }
  if (list->last != previous)
    return mpx_fail(-EIO, "a list of arena %u ends with unit %u, not %u", index, previous,
                    list->last);
  return 0;
}

static int check_arena(mpx_allocator *a, unsigned index, const sums *s) {
  const mpx_arena *arena = &a->arenas[index];
  uint64_t listed = 0, idle = 0;
  int r = check_list(a, index, &arena->idle, MPX_LINK_IDLE, &idle);
  for (unsigned class_index = 0; class_index < MPX_CLASS_COUNT && r == 0; class_index++) {
    if (mpx_word_load(&arena->classes[class_index].blocks) != s->blocks[index][class_index])
      return mpx_fail(-EIO, "arena %u miscounts its blocks of class %u", index, class_index);
    r = check_list(a, index, &arena->classes[class_index].room, MPX_LINK_ROOM, &listed);
  }
  for (unsigned i = 0; i < MPX_OWNED_LISTS && r == 0; i++)
    r = check_list(a, index, &arena->owned_room[i], MPX_LINK_ROOM, &listed);
  if (r < 0)
    return r;
  if (listed != s->slabs_with_room[index])
    return mpx_fail(-EIO, "arena %u lists %llu slabs with room and has %llu", index,
                    (unsigned long long)listed, (unsigned long long)s->slabs_with_room[index]);
  if (arena->idle_count != s->idle_slabs[index] || idle != s->idle_slabs[index])
    return mpx_fail(-EIO, "arena %u counts %u idle slabs, lists %llu and has %llu", index,
                    arena->idle_count, (unsigned long long)idle,
                    (unsigned long long)s->idle_slabs[index]);
  if (mpx_word_load(&arena->pending) != 0)
    return mpx_fail(-EIO, "arena %u has a half-made block", index);
  return 0;
}

static int check_map(mpx_allocator *a, const sums *s) {
  const mpx_unit_map *map = &a->map;
  if (mpx_word_load(&map->run_count) != s->run_count ||
      mpx_word_load(&map->run_bytes) != s->run_bytes)
    return mpx_fail(-EIO, "the map miscounts its runs");
  if (map->dirty_steps != s->dirty_steps)
    return mpx_fail(-EIO, "the map counts %u steps in reserve; there are %llu", map->dirty_steps,
                    (unsigned long long)s->dirty_steps);
  for (uint32_t u = 0; (u = mpx_bits_find(a->busy, u, a->unit_count, false)) < a->unit_count;) {
    uint32_t end = mpx_bits_find(a->busy, u, a->unit_count, true);
    for (unsigned k = 0; k <= mpx_highest_bit(end - u); k++)
      if (map->hints[k] > u)
        return mpx_fail(-EIO, "the map's hint %u passes over the free unit %u", k, u);
    u = end;
  }
  return 0;
}

static int check_all(mpx_allocator *a) {
  sums s = {0};
  int r = 0;
  for (uint32_t u = 0, count; u < a->unit_count && r == 0; u += count)
    r = check_unit(a, u, &s, &count);
  for (unsigned i = 0; i < a->arena_count && r == 0; i++)
    r = check_arena(a, i, &s);
  return r < 0 ? r : check_map(a, &s);
}

int mpx_allocator_check(mpx_allocator *a) {
  if (a->magic != MPX_ALLOCATOR_MAGIC || a->unit_count == 0 || a->arena_count == 0 ||
      a->arena_count > MPX_ARENA_MAX || (a->arena_count & (a->arena_count - 1)) != 0)
    return mpx_fail(-EIO, "the head of the allocator is damaged");
  unsigned locked = 0;
  int r = 0;
  while (locked < a->arena_count && (r = mpx_arena_lock(a, locked)) == 0)
    locked++;
  if (r == 0)
    r = mpx_units_lock(a);
  if (r == 0) {
    r = check_all(a);
    mpx_units_unlock(a);
  }
  while (locked > 0)
    mpx_arena_unlock(a, --locked);
  return r;
}
