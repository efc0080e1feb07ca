/* Lists of slabs, by number of unit. All of it is derived and under the lock of the arena: who
 * finds that neighbours do not point to each other computes the arena again instead of following
 * them. */
#ifndef MPX_HEAP_UNIT_LIST_H
#define MPX_HEAP_UNIT_LIST_H

#include "heap/allocator_layout.h"

static inline bool mpx_list_is_end_or_unit(const mpx_allocator *a, uint32_t unit) {
  return unit < a->unit_count || unit == MPX_NO_UNIT;
}

static inline void mpx_list_clear(mpx_unit_list *list) {
  list->first = list->last = MPX_NO_UNIT;
}

/* False: damaged. Not for a unit that is in a list of this kind. */
static inline bool mpx_list_push(mpx_allocator *a, mpx_unit_list *list, mpx_link_kind kind,
                                 uint32_t unit) {
  uint32_t first = list->first;
  if (!mpx_list_is_end_or_unit(a, first))
    return false;
  a->units[unit].links[kind] = (mpx_unit_link){.next = first, .previous = MPX_NO_UNIT};
  if (first == MPX_NO_UNIT)
    list->last = unit;
  else
    a->units[first].links[kind].previous = unit;
  list->first = unit;
  return true;
}

/* False: damaged. */
static inline bool mpx_list_remove(mpx_allocator *a, mpx_unit_list *list, mpx_link_kind kind,
                                   uint32_t unit) {
  mpx_unit_link link = a->units[unit].links[kind];
  if (!mpx_list_is_end_or_unit(a, link.next) || !mpx_list_is_end_or_unit(a, link.previous))
    return false;
  uint32_t *forward =
      link.previous == MPX_NO_UNIT ? &list->first : &a->units[link.previous].links[kind].next;
  uint32_t *backward =
      link.next == MPX_NO_UNIT ? &list->last : &a->units[link.next].links[kind].previous;
  if (*forward != unit || *backward != unit)
    return false;
  *forward = link.next;
  *backward = link.previous;
  return true;
}

#endif
