#include "sync/roster.h"

#include "base/assert.h"
#include "heap/family.h"
#include "mproc/error.h"
#include "mproc/heap.h"
#include "os/crash_point.h"
#include "sync/object.h"

#include <string.h>

MPX_STATIC_ASSERT(sizeof(mpx_entry) == 32, "an entry lies in one cache line");
MPX_STATIC_ASSERT(sizeof(mpx_chunk) <= MPX_CHUNK_SIZE, "a chunk fits its size class");

static mpx_chunk *chunk_of(const mpx_entry *entry) {
  return (mpx_chunk *)((uintptr_t)entry & ~(uintptr_t)(MPX_CHUNK_SIZE - 1));
}

/* The first entry from `from` on that is free, or counts. */
static mpx_entry *find_from(mpx_chunk *chunk, int from, bool wants_free) {
  for (; chunk; chunk = chunk->next, from = 0)
    for (int i = from; i < MPX_CHUNK_ENTRIES; i++)
      if ((mpx_entry_thread(&chunk->entries[i]) == 0) == wants_free)
        return &chunk->entries[i];
  return NULL;
}

/* acquire: pairs with the release in add_chunk, for those who have no mutex */
static mpx_chunk *first_of(const mpx_roster *roster) {
  return atomic_load_explicit(&roster->first, memory_order_acquire);
}

/* Owned until it is in the list: a death leaves it to the reaper, or in its place. */
static mpx_chunk *add_chunk(mpx_roster *roster) {
  mpx_chunk *chunk = mproc_heap_alloc_owned(MPX_CHUNK_SIZE);
  if (!chunk)
    return NULL;
  mpx_assert((uintptr_t)chunk % MPX_CHUNK_SIZE == 0);
  memset(chunk, 0, MPX_CHUNK_SIZE);
  chunk->next = first_of(roster);
  MPROC_CRASH_POINT("roster.chunk");
  (void)mproc_heap_share(chunk);
  atomic_store_explicit(&roster->first, chunk, memory_order_release);
  return chunk;
}

/* Goes on where room was found last, so that many who come one after the other do not all look
 * through those who are there. */
int mpx_roster_reserve(mpx_roster *roster, uint64_t number, mpx_entry **ret_entry) {
  mpx_entry *entry = find_from(roster->roomy, 0, true);
  if (!entry)
    entry = find_from(first_of(roster), 0, true);
  if (!entry) {
    mpx_chunk *chunk = add_chunk(roster);
    if (!chunk)
      return mproc_last_error();
    entry = chunk->entries;
  }
  roster->roomy = chunk_of(entry);
  entry->number = number;
  entry->count = 0;
  atomic_store_explicit(&entry->word, 0, memory_order_relaxed);
  *ret_entry = entry;
  return 0;
}

mpx_entry *mpx_roster_find(const mpx_roster *roster, mpx_thread self) {
  mpx_entry *entry = NULL;
  do
    entry = mpx_roster_next(roster, entry);
  while (entry && mpx_entry_thread(entry) != self);
  return entry;
}

mpx_entry *mpx_roster_next(const mpx_roster *roster, const mpx_entry *entry) {
  if (!entry)
    return find_from(first_of(roster), 0, false);
  mpx_chunk *chunk = chunk_of(entry);
  return find_from(chunk, (int)(entry - chunk->entries) + 1, false);
}

void mpx_roster_fini(mpx_roster *roster) {
  for (mpx_chunk *next, *chunk = first_of(roster); chunk; chunk = next) {
    next = chunk->next;
    mpx_object_keep(chunk);
  }
}
