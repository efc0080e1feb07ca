#include "heap/table.h"

#include "base/assert.h"
#include "base/error.h"
#include "heap/family.h"
#include "heap/pages.h"
#include "os/crash_point.h"

#include <errno.h>
#include <string.h>

MPX_STATIC_ASSERT(sizeof(mpx_cell) == 64, "a cell is one cache line");
MPX_STATIC_ASSERT(sizeof(mpx_slot) == 256, "slots do not share cache lines");

static uint64_t tag_of(uint32_t generation, mpx_slot_state state) {
  return (uint64_t)generation << 8 | (uint64_t)state;
}

static uint64_t tag_of_claimer(uint32_t generation, mpx_member claimer) {
  uint64_t slot = claimer ? mpx_member_slot(claimer) + 1 : 0;
  return slot << 40 | tag_of(generation, MPX_SLOT_CLAIMING);
}

/* With its own number: who is killed in the next instant, after its claimer, has left no other. */
static uint64_t tag_of_runner(uint32_t generation, int64_t pid) {
  uint64_t number = pid > 0 && pid < 1 << 24 ? (uint64_t)pid : 0;
  return number << 40 | tag_of(generation, MPX_SLOT_RUNNING);
}

static mpx_slot_state tag_state(uint64_t tag) {
  return (mpx_slot_state)(tag & 0xff);
}

static uint32_t tag_generation(uint64_t tag) {
  return (uint32_t)(tag >> 8);
}

static int64_t tag_pid(uint64_t tag) {
  return tag_state(tag) == MPX_SLOT_RUNNING ? (int64_t)(tag >> 40) : 0;
}

mpx_member mpx_member_make(uint32_t slot, uint32_t generation) {
  return (uint64_t)(slot + 1) << 32 | generation;
}

uint32_t mpx_member_slot(mpx_member member) {
  return (uint32_t)(member >> 32) - 1;
}

mpx_slot *mpx_table_slot(mpx_header *header, mpx_member member) {
  uint32_t index = mpx_member_slot(member);
  if (member == 0 || index >= MPX_SLOT_COUNT)
    return NULL;
  mpx_slot *slot = &header->slots[index];
  uint64_t tag = atomic_load_explicit(&slot->tag, memory_order_acquire);
  bool same = tag_generation(tag) == (uint32_t)member && tag_state(tag) != MPX_SLOT_FREE;
  return same ? slot : NULL;
}

/* Raises a high-water mark that others read to bound their scans. */
static void raise_mark(_Atomic uint32_t *mark, uint32_t value) {
  uint32_t seen = atomic_load_explicit(mark, memory_order_relaxed);
  while (seen < value && !atomic_compare_exchange_weak_explicit(
                             mark, &seen, value, memory_order_relaxed, memory_order_relaxed))
    ;
}

static bool commit(const void *item, size_t size) {
  mpx_pages pages = mpx_pages_of(item, size, mpx_os_page_size());
  return mpx_os_commit(pages.start, pages.size) == 0;
}

/* The tables are touched as they grow: memory that is not there must be an error, no SIGBUS. */
static bool back_with_memory(_Atomic uint32_t *mark, uint32_t index, void *item, size_t size) {
  if (index < atomic_load_explicit(mark, memory_order_relaxed))
    return true;
  return commit(item, size);
}

/* Of a member it stays what it was when it became one. */
static uint32_t own_namespace(mpx_header *header) {
  const mpx_slot *own = mpx_table_slot(header, mpx_family_self());
  return own ? atomic_load_explicit(&own->own_namespace, memory_order_relaxed)
             : mpx_os_pid_namespace();
}

/* 1: claimed. 0: it is another's. -ENOMEM. */
static int claim_slot(mpx_header *header, uint32_t index, mpx_member parent,
                      mpx_member *ret_member) {
  mpx_slot *slot = &header->slots[index];
  if (!back_with_memory(&header->slots_used, index, slot, sizeof *slot))
    return -ENOMEM;
  uint64_t tag = atomic_load_explicit(&slot->tag, memory_order_relaxed);
  if (tag_state(tag) != MPX_SLOT_FREE)
    return 0;
  uint32_t generation = tag_generation(tag) + 1;
  /* acquire: pairs with the release of mpx_table_release; the former owner's writes are over */
  if (!atomic_compare_exchange_strong_explicit(&slot->tag, &tag, tag_of_claimer(generation, parent),
                                               memory_order_acq_rel, memory_order_relaxed))
    return 0;
  raise_mark(&header->slots_used, index + 1);
  MPROC_CRASH_POINT("table.claiming");
  atomic_store_explicit(&slot->parent, parent, memory_order_relaxed);
  slot->daemon = 0;
  atomic_store_explicit(&slot->pid, 0, memory_order_relaxed);
  atomic_store_explicit(&slot->start_time, 0, memory_order_relaxed);
  atomic_store_explicit(&slot->gate, 0, memory_order_relaxed);
  atomic_store_explicit(&slot->record, 0, memory_order_relaxed);
  slot->server = 0;
  atomic_store_explicit(&slot->pid_namespace, own_namespace(header), memory_order_relaxed);
  atomic_store_explicit(&slot->own_namespace, 0, memory_order_relaxed);
  atomic_store_explicit(&slot->own_pid, 0, memory_order_relaxed);
  atomic_store_explicit(&slot->birth, MPX_BIRTH_AWAITED, memory_order_relaxed);
  atomic_store_explicit(&slot->relay, MPX_RELAY_NONE, memory_order_relaxed);
  /* release: who sees CLAIMED sees the parent. Nobody else writes the tag while we live. */
  atomic_store_explicit(&slot->tag, tag_of(generation, MPX_SLOT_CLAIMED), memory_order_release);
  *ret_member = mpx_member_make(index, generation);
  return 1;
}

/* A number means something in its namespace only. Where nobody can tell them apart there is one. */
static int64_t pid_in(const mpx_slot *slot, uint32_t here) {
  /* acquire: pairs with the release in mpx_table_take: the namespace was written before */
  int64_t own = atomic_load_explicit(&slot->own_pid, memory_order_acquire);
  if (own && atomic_load_explicit(&slot->own_namespace, memory_order_relaxed) == here)
    return own;
  if (atomic_load_explicit(&slot->pid_namespace, memory_order_relaxed) != here)
    return 0;
  int64_t pid = atomic_load_explicit(&slot->pid, memory_order_relaxed);
  return pid ? pid : tag_pid(atomic_load_explicit(&slot->tag, memory_order_relaxed));
}

int64_t mpx_slot_pid(const mpx_slot *slot) {
  return pid_in(slot, own_namespace(mpx_family_header()));
}

mpx_member mpx_table_find(mpx_header *header, int64_t pid) {
  uint32_t count = atomic_load_explicit(&header->slots_used, memory_order_relaxed);
  uint32_t here = own_namespace(header);
  mpx_member found = 0;
  for (uint32_t i = 0; i < count && i < MPX_SLOT_COUNT && pid > 0; i++) {
    mpx_slot *slot = &header->slots[i];
    uint64_t tag = atomic_load_explicit(&slot->tag, memory_order_acquire);
    if (tag_state(tag) <= MPX_SLOT_CLAIMING || pid_in(slot, here) != pid)
      continue;
    found = mpx_member_make(i, tag_generation(tag));
    if (!mpx_member_is_dead(header, found))
      break;
  }
  return found;
}

int mpx_table_claim(mpx_header *header, mpx_member parent, mpx_member *ret_member) {
  for (int attempt = 0; attempt < 2; attempt++) {
    int r = 0;
    for (uint32_t i = 0; i < MPX_SLOT_COUNT && r == 0; i++)
      r = claim_slot(header, i, parent, ret_member);
    if (r < 0)
      return mpx_fail(r, "no memory for the process table; free some, or raise the cgroup's limit");
    if (r == 1) {
      MPROC_CRASH_POINT("table.claimed");
      return 0;
    }
    mpx_family_sweep(true);
  }
  return mpx_fail(MPROC_ETABLEFULL,
                  "the family has %d processes, the most it can have; join those that ended",
                  MPX_SLOT_COUNT);
}

mpx_report *mpx_table_report(mpx_header *header, mpx_member member) {
  mpx_report *report = &header->reports[mpx_member_slot(member)];
  return commit(report, sizeof *report) ? report : NULL;
}

int mpx_table_take(mpx_header *header, mpx_member member, int64_t pid) {
  mpx_slot *slot = &header->slots[mpx_member_slot(member)];
  uint64_t expected = tag_of((uint32_t)member, MPX_SLOT_CLAIMED);
  uint32_t here = mpx_os_pid_namespace();
  uint32_t claimers = atomic_load_explicit(&slot->pid_namespace, memory_order_relaxed);
  int64_t unknown = 0, common = here == claimers ? pid : 0;
  if (!atomic_compare_exchange_strong_explicit(&slot->tag, &expected,
                                               tag_of_runner((uint32_t)member, common),
                                               memory_order_acq_rel, memory_order_relaxed))
    return -ESTALE;
  MPROC_CRASH_POINT("table.taken");
  atomic_store_explicit(&slot->own_namespace, here, memory_order_relaxed);
  /* release: pairs with the acquire in pid_in */
  atomic_store_explicit(&slot->own_pid, pid, memory_order_release);
  /* The claimer's word stands where it came first; it may be dead and never say it. */
  (void)atomic_compare_exchange_strong(&slot->pid, &unknown, common);
  return 0;
}

bool mpx_table_retract(mpx_header *header, mpx_member member) {
  mpx_slot *slot = mpx_table_slot(header, member);
  uint64_t expected = tag_of((uint32_t)member, MPX_SLOT_CLAIMED);
  /* release: pairs with the acquire in claim_slot */
  return slot && atomic_compare_exchange_strong_explicit(
                     &slot->tag, &expected, tag_of((uint32_t)member, MPX_SLOT_FREE),
                     memory_order_acq_rel, memory_order_relaxed);
}

bool mpx_table_is_claimed(mpx_header *header, mpx_member member) {
  mpx_slot *slot = mpx_table_slot(header, member);
  return slot &&
         tag_state(atomic_load_explicit(&slot->tag, memory_order_acquire)) == MPX_SLOT_CLAIMED;
}

bool mpx_table_release(mpx_header *header, mpx_member member) {
  mpx_slot *slot = mpx_table_slot(header, member);
  if (!slot)
    return false;
  uint64_t tag = atomic_load_explicit(&slot->tag, memory_order_relaxed);
  /* release: pairs with the acquire in claim_slot */
  return tag_generation(tag) == (uint32_t)member && tag_state(tag) != MPX_SLOT_FREE &&
         atomic_compare_exchange_strong_explicit(&slot->tag, &tag,
                                                 tag_of((uint32_t)member, MPX_SLOT_FREE),
                                                 memory_order_acq_rel, memory_order_relaxed);
}

/* ---- cells ----------------------------------------------------------------------------------- */

mpx_cell *mpx_cell_at(mpx_header *header, uint32_t index) {
  if (index < MPX_SLOT_COUNT)
    return &header->slots[index].cell;
  index -= MPX_SLOT_COUNT;
  return index < MPX_POOL_COUNT ? &header->pool[index] : NULL;
}

/* If the process dies after the CAS and before HELD, the cell names a member that is dead by its
 * other cells, or is found by pid and start time, and comes back when that member is buried. */
static bool take_cell(mpx_cell *cell, mpx_member member) {
  uint64_t nobody = 0;
  if (!atomic_compare_exchange_strong_explicit(&cell->owner, &nobody, member, memory_order_acq_rel,
                                               memory_order_relaxed))
    return false;
  MPROC_CRASH_POINT("cell.taken");
  /* Once only: somebody who tests the life of the last owner may hold the lock right now. */
  if (atomic_load_explicit(&cell->generation, memory_order_relaxed) == 0)
    (void)mpx_os_robust_init(&cell->life);
  /* Whoever has it has it for an instant. Only ever tried: a checker of lock order would take what
   * a thread holds until it ends for one half of a deadlock, with any lock of the host around its
   * first call as the other half. */
  while (mpx_os_robust_trylock(&cell->life) == -EBUSY)
    mpx_os_sleep(100 * 1000);
  MPROC_CRASH_POINT("cell.locked");
  atomic_fetch_add_explicit(&cell->generation, 1, memory_order_relaxed);
  /* release: pairs with the acquire in thread_vanished, which must find the lock taken */
  atomic_store_explicit(&cell->owner, member | MPX_CELL_HELD, memory_order_release);
  return true;
}

int mpx_cell_take(mpx_header *header, mpx_member member, uint32_t *ret_cell) {
  uint32_t own = mpx_member_slot(member);
  if (take_cell(&header->slots[own].cell, member)) {
    *ret_cell = own;
    return 0;
  }
  for (uint32_t i = 0; i < MPX_POOL_COUNT; i++) {
    mpx_cell *cell = &header->pool[i];
    if (atomic_load_explicit(&cell->owner, memory_order_relaxed) != 0)
      continue;
    if (!back_with_memory(&header->pool_used, i, cell, sizeof *cell))
      return mpx_fail(-ENOMEM, "no memory for the process table");
    raise_mark(&header->pool_used, i + 1); /* first: who buries us must find the cell */
    if (take_cell(cell, member)) {
      *ret_cell = MPX_SLOT_COUNT + i;
      return 0;
    }
  }
  return mpx_fail(-EAGAIN, "more than %d threads of the family use mproc at once", MPX_POOL_COUNT);
}

/* If the process dies between the two, the next owner finds the lock held by a dead thread and gets
 * it all the same. */
void mpx_cell_release(mpx_cell *cell) {
  atomic_store_explicit(&cell->owner, 0, memory_order_release);
  MPROC_CRASH_POINT("cell.released");
  mpx_os_robust_unlock(&cell->life);
}

/* Calls `visit` for each cell of a member, until it returns true; returns whether it did. */
static bool any_cell(mpx_header *header, mpx_member member, bool (*visit)(mpx_cell *, mpx_member)) {
  if (visit(&header->slots[mpx_member_slot(member)].cell, member))
    return true;
  uint32_t used = atomic_load_explicit(&header->pool_used, memory_order_relaxed);
  for (uint32_t i = 0; i < used && i < MPX_POOL_COUNT; i++)
    if (visit(&header->pool[i], member))
      return true;
  return false;
}

static bool free_cell(mpx_cell *cell, mpx_member member) {
  uint64_t owner = atomic_load_explicit(&cell->owner, memory_order_relaxed);
  if ((owner & ~MPX_CELL_HELD) == member)
    (void)atomic_compare_exchange_strong_explicit(&cell->owner, &owner, 0, memory_order_acq_rel,
                                                  memory_order_relaxed);
  return false;
}

void mpx_cell_free_all(mpx_header *header, mpx_member member) {
  (void)any_cell(header, member, free_cell);
}

/* ---- life ------------------------------------------------------------------------------------ */

static bool is_held(mpx_cell *cell, mpx_member member) {
  return atomic_load_explicit(&cell->owner, memory_order_acquire) == (member | MPX_CELL_HELD);
}

static bool thread_lives(mpx_cell *cell, mpx_member member) {
  if (!is_held(cell, member))
    return false;
  bool taken = mpx_os_robust_trylock(&cell->life) < 0;
  if (!taken)
    mpx_os_robust_unlock(&cell->life);
  return taken;
}

/* A lock that can be had although its cell says HELD. The second look: the thread may have ended by
 * itself between the first and the lock. */
static bool thread_vanished(mpx_cell *cell, mpx_member member) {
  if (!is_held(cell, member) || mpx_os_robust_trylock(&cell->life) < 0)
    return false;
  bool vanished = is_held(cell, member);
  mpx_os_robust_unlock(&cell->life);
  return vanished;
}

enum { CELL_SHIFT = 48, GENERATION_SHIFT = 2 };
#define GENERATION_MASK (((uint64_t)1 << (CELL_SHIFT - GENERATION_SHIFT)) - 1)

mpx_thread mpx_cell_thread(mpx_header *header, uint32_t index) {
  uint64_t generation =
      atomic_load_explicit(&mpx_cell_at(header, index)->generation, memory_order_relaxed);
  return (uint64_t)(index + 1) << CELL_SHIFT | (generation & GENERATION_MASK) << GENERATION_SHIFT;
}

/* The cell that the thread has, or the one who came after it; NULL for what is no thread. */
static mpx_cell *cell_of(mpx_header *header, mpx_thread thread) {
  uint32_t index = (uint32_t)(thread >> CELL_SHIFT) - 1;
  return thread >> CELL_SHIFT ? mpx_cell_at(header, index) : NULL;
}

/* Whether the cell is this thread's, alive or dead. */
static bool has_cell(mpx_cell *cell, mpx_thread thread, uint64_t mask) {
  /* acquire: pairs with the release in take_cell; the generation is then at least this owner's */
  uint64_t owner = atomic_load_explicit(&cell->owner, memory_order_acquire);
  uint64_t generation = atomic_load_explicit(&cell->generation, memory_order_relaxed);
  return (owner & MPX_CELL_HELD) && ((generation ^ thread >> GENERATION_SHIFT) & mask) == 0;
}

bool mpx_thread_is_dead_by(mpx_header *header, mpx_thread thread, unsigned bits) {
  mpx_cell *cell = cell_of(header, thread);
  if (!cell || !has_cell(cell, thread, ((uint64_t)1 << bits) - 1))
    return true;
  if (mpx_os_robust_trylock(&cell->life) < 0)
    return false;
  mpx_os_robust_unlock(&cell->life); /* the kernel let go of it, or the thread itself just did */
  return true;
}

bool mpx_thread_is_dead(mpx_header *header, mpx_thread thread) {
  return mpx_thread_is_dead_by(header, thread, CELL_SHIFT - GENERATION_SHIFT);
}

bool mpx_thread_existed(mpx_header *header, mpx_thread thread) {
  uint32_t index = (uint32_t)(thread >> CELL_SHIFT) - 1;
  bool is_used = index < MPX_SLOT_COUNT ? index < atomic_load(&header->slots_used)
                                        : index - MPX_SLOT_COUNT < atomic_load(&header->pool_used);
  uint64_t first = (uint64_t)(index + 1) << CELL_SHIFT | (uint64_t)1 << GENERATION_SHIFT;
  return thread >> CELL_SHIFT != 0 && (thread & (((uint64_t)1 << GENERATION_SHIFT) - 1)) == 0 &&
         is_used && thread >= first && thread <= mpx_cell_thread(header, index);
}

bool mpx_member_existed(mpx_header *header, mpx_member member) {
  uint32_t index = mpx_member_slot(member), generation = (uint32_t)member;
  return member >> 32 != 0 && index < atomic_load(&header->slots_used) && generation != 0 &&
         generation <= tag_generation(atomic_load(&header->slots[index].tag));
}

mpx_member mpx_thread_member(mpx_header *header, mpx_thread thread) {
  mpx_cell *cell = cell_of(header, thread);
  if (!cell)
    return 0;
  mpx_member member = atomic_load_explicit(&cell->owner, memory_order_relaxed) & ~MPX_CELL_HELD;
  return has_cell(cell, thread, GENERATION_MASK) ? member : 0;
}

/* Whether the claimer of a slot is dead. While it fills in the slot only its own slot's number is
 * known: somebody who got that slot after its death hides it until he ends. */
static bool claim_is_dead(mpx_header *header, const mpx_slot *slot, uint64_t tag) {
  mpx_member claimer = atomic_load_explicit(&slot->parent, memory_order_relaxed);
  if (tag_state(tag) == MPX_SLOT_CLAIMING) {
    uint32_t index = (uint32_t)(tag >> 40) - 1;
    if (index >= MPX_SLOT_COUNT)
      return true;
    uint64_t now = atomic_load_explicit(&header->slots[index].tag, memory_order_acquire);
    claimer = tag_state(now) == MPX_SLOT_RUNNING ? mpx_member_make(index, tag_generation(now)) : 0;
  }
  return mpx_member_is_dead(header, claimer);
}

bool mpx_table_sweep_claim(mpx_header *header, uint32_t index) {
  mpx_slot *slot = &header->slots[index];
  uint64_t tag = atomic_load_explicit(&slot->tag, memory_order_acquire);
  if (tag_state(tag) == MPX_SLOT_RUNNING)
    return false;
  if (tag_state(tag) == MPX_SLOT_FREE || !claim_is_dead(header, slot, tag))
    return true;
  MPROC_CRASH_POINT("table.sweep.condemned");
  /* This very claim or nothing: the child may have taken it, and then it lives. */
  return atomic_compare_exchange_strong_explicit(&slot->tag, &tag,
                                                 tag_of(tag_generation(tag), MPX_SLOT_FREE),
                                                 memory_order_acq_rel, memory_order_relaxed);
}

bool mpx_member_is_dead(mpx_header *header, mpx_member member) {
  mpx_slot *slot = mpx_table_slot(header, member);
  if (!slot)
    return true;
  uint64_t tag = atomic_load_explicit(&slot->tag, memory_order_acquire);
  if (tag_state(tag) != MPX_SLOT_RUNNING) /* the parent starts it, or died meanwhile */
    return claim_is_dead(header, slot, tag);
  /* Its server waited for it, or never made it; acquire: pairs with the server's release. */
  if (slot->server != 0 &&
      atomic_load_explicit(&slot->relay, memory_order_acquire) == MPX_RELAY_DONE)
    return true;
  /* A process that is being killed loses its threads one by one: it is dead with the last. */
  if (any_cell(header, member, thread_lives))
    return false;
  if (any_cell(header, member, thread_vanished))
    return true;
  int64_t pid = pid_in(slot, own_namespace(header));
  int64_t start_time = atomic_load_explicit(&slot->start_time, memory_order_relaxed);
  if (pid == 0) /* none here by which to ask */
    return false;
  /* 0: on its way from mpx_table_take to its first cell */
  return !mpx_os_process_is_alive(pid, start_time > 0 ? start_time : MPX_START_UNKNOWN);
}
