/* A roster: threads that are inside of something, each with an entry that says so. A thread comes
 * in under a mutex of the roster's owner, which is given by being held; it goes, and anybody looks,
 * also without: chunks stay where they are until the end, so a walk without the mutex is safe, but
 * an entry may become another's meanwhile.
 *
 * An entry counts from the store of its thread on, which comes last, to the store of 0, so that
 * after any death it is there or not; of whom it is, and whether he is dead, stands in it. Entries
 * do not move: a thread may sleep on the word in its own. */
#ifndef MPX_SYNC_ROSTER_H
#define MPX_SYNC_ROSTER_H

#include "heap/family.h"

typedef struct mpx_entry {
  _Atomic mpx_thread thread; /* 0: free */
  uint64_t number;           /* the roster's owner gives them, rising */
  _Atomic uint64_t news;     /* as the roster's owner likes */
  uint32_t count;            /* the same */
  _Atomic uint32_t word;     /* the same */
} mpx_entry;

enum {
  MPX_CHUNK_ENTRIES = 15,
  MPX_CHUNK_SIZE = 512 /* a size class, whose blocks are aligned to their size */
};

typedef struct mpx_chunk {
  mpx_entry entries[MPX_CHUNK_ENTRIES];
  struct mpx_chunk *next; /* before the chunk is in the list */
} mpx_chunk;

typedef struct mpx_roster {
  mpx_chunk *_Atomic first; /* grows, and goes with the object */
  mpx_chunk *roomy;         /* where a free entry was found last */
} mpx_roster;

/* A free entry, filled with `number` and zeros, not counting yet: -ENOMEM, MPROC_EHEAPFULL. */
int mpx_roster_reserve(mpx_roster *roster, uint64_t number, mpx_entry **ret_entry);
static inline void mpx_entry_set(mpx_entry *entry, mpx_thread self) {
  atomic_store_explicit(&entry->thread, self, memory_order_release);
}
static inline void mpx_entry_free(mpx_entry *entry) {
  atomic_store_explicit(&entry->thread, 0, memory_order_release);
}
static inline mpx_thread mpx_entry_thread(const mpx_entry *entry) {
  return atomic_load_explicit(&entry->thread, memory_order_acquire);
}
/* Unless the entry has become another's: true when it was still `thread`'s. */
static inline bool mpx_entry_free_of(mpx_entry *entry, mpx_thread thread) {
  return atomic_compare_exchange_strong_explicit(&entry->thread, &thread, 0, memory_order_release,
                                                 memory_order_relaxed);
}
/* Freed meanwhile: false. */
static inline bool mpx_entry_is_dead(const mpx_entry *entry) {
  mpx_thread thread = mpx_entry_thread(entry);
  return thread != 0 && mpx_thread_is_dead(mpx_family_header(), thread);
}
mpx_entry *mpx_roster_find(const mpx_roster *roster, mpx_thread self);
/* The entry after `entry` that counts, the first for NULL; NULL after the last. */
mpx_entry *mpx_roster_next(const mpx_roster *roster, const mpx_entry *entry);
/* Nobody comes in any more. Somebody may be on a walk still: the list stays as it is, and its
 * chunks as long as the object itself. */
void mpx_roster_fini(mpx_roster *roster);

#endif
