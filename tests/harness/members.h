/* What the family's table has, for tests that see src/. */
#ifndef MPROC_TEST_MEMBERS_H
#define MPROC_TEST_MEMBERS_H

#include "processes.h"

#include "heap/family.h"

/* Of all slots: whoever dies in a claim has not raised the mark of those in use. */
static inline int used_slots(void) {
  mpx_header *header = mpx_family_header();
  int count = 0;
  for (uint32_t i = 0; i < MPX_SLOT_COUNT; i++)
    count += (header->slots[i].tag & 0xff) != MPX_SLOT_FREE;
  return count;
}

static inline int owned_cells(void) {
  mpx_header *header = mpx_family_header();
  int count = 0;
  for (uint32_t i = 0; i < MPX_SLOT_COUNT + header->pool_used; i++)
    count += mpx_cell_at(header, i)->owner != 0;
  return count;
}

/* Sends the forkserver away and buries the dead: then nobody but us is in the table. */
static inline bool alone_within(int ms) {
  int64_t end = end_of_wait(ms);
  mproc_context_stop(NULL);
  for (mpx_family_sweep(true); used_slots() != 1 && now_ms() < end; sleep_ms(2))
    mpx_family_sweep(true);
  return used_slots() == 1;
}

static inline void check_alone(int within_ms) {
  (void)alone_within(within_ms);
  CHECK_EQ(used_slots(), 1);
}

/* Objects that were destroyed last are kept for a while: so many others take their places. */
static inline void drain_closed(void) {
  const size_t kept = sizeof mpx_family_header()->closed / sizeof mpx_family_header()->closed[0];
  for (size_t i = 0; i < kept; i++) {
    mproc_lock *lock;
    CHECK_EQ(mproc_lock_create(&lock), 0);
    CHECK_EQ(mproc_lock_destroy(lock), 0);
  }
}

/* What must be as before when everybody else is gone. */
typedef struct holdings {
  uint64_t heap_bytes;
  int cells, descriptors;
} holdings;

static inline holdings count_holdings(void) {
  return (holdings){heap_used(), owned_cells(), descriptor_count()};
}

/* `what` was done: it is named when something is left of it. */
static inline void check_drained(const holdings *before, int within_ms, const char *what) {
  bool alone = alone_within(within_ms);
  const holdings now = count_holdings();
  if (!alone || now.heap_bytes != before->heap_bytes || now.cells != before->cells ||
      now.descriptors != before->descriptors)
    fprintf(stderr, "# after %s:\n", what);
  CHECK_EQ(used_slots(), 1);
  CHECK_EQ(now.cells, before->cells);
  CHECK_EQ(now.heap_bytes, before->heap_bytes);
  CHECK_EQ(now.descriptors, before->descriptors);
}

/* Of a check of src/: what is wrong is said. */
static inline void check_is_whole(int r) {
  if (r < 0)
    fprintf(stderr, "# %s\n", mproc_error_detail());
  CHECK_EQ(r, 0);
}

#endif
