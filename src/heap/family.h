/* The family: one segment of memory, mapped at one address in every process, and who is in it.
 *
 *   base                    header, process slots, the pool of thread cells
 *   + allocator metadata    pages of their own: a wild write to a block cannot reach them
 *   + data                  blocks
 *
 * docs/design/heap.md is the contract. */
#ifndef MPX_HEAP_FAMILY_H
#define MPX_HEAP_FAMILY_H

#include "heap/table.h"
#include "os/os.h"

struct mpx_allocator;

/* The loader of glibc keeps room for a few bytes like these of a library that is loaded late, and
 * finding them takes no call. Others refuse to load such a library. */
#ifdef __GLIBC__
#define MPX_TLS_MODEL __attribute__((tls_model("initial-exec")))
#else
#define MPX_TLS_MODEL
#endif

/* The segment's first page. Written by its creator before anybody else can see it, except as
 * noted. */
typedef struct mpx_header {
  char magic[8];
  uint32_t version;
  uint32_t slot_count;
  uint32_t pool_count;
  uint64_t size;
  mpx_slot *slots;
  mpx_cell *pool;
  mpx_report *reports;
  struct mpx_allocator *allocator;
  _Atomic uint32_t pool_used;   /* cells of the pool ever taken; grows by CAS, any member */
  _Atomic uint32_t slots_used;  /* slots ever taken; grows by CAS, any member */
  _Atomic uint32_t sweep_hand;  /* next slot to look at for a dead process; any member, relaxed */
  _Atomic uint64_t next_number; /* for "Process-N"; any member, relaxed */
  mpx_server_page *servers;     /* see process/server.h */
  _Atomic(void *) closed[64]; /* objects that were destroyed last; by exchange, see sync/object.h */
  _Atomic uint32_t closed_hand; /* the oldest of them; any member, relaxed */
} mpx_header;

/* What a process needs to become a member: travels in the boot record. */
typedef struct mpx_family_ticket {
  uint64_t address;
  uint64_t size;
  mproc_handle handle;
  mpx_segment_id id;
  mpx_member member; /* the slot claimed for it */
} mpx_family_ticket;

/* The limit for a family that this process may create later; 0: half of the memory. */
void mpx_family_set_size(size_t size);

/* The calling thread as a member: makes the family at first use, and a cell for a thread that has
 * none. Stores the thread's cell. MPROC_EFOREIGN, MPROC_EADDRESS, -ENOMEM, ...; says why. */
int mpx_family_enter(uint32_t *ret_cell);

/* For the functions below only, which every use of every object comes by. */
typedef struct mpx_identity {
  _Atomic uint64_t member;
} mpx_identity;
typedef struct mpx_self_thread {
  mpx_member member;
  mpx_thread name;
  uint32_t cell;
} mpx_self_thread;
extern _Atomic(mpx_header *) mpx_the_header;
extern mpx_identity *mpx_the_identity;
extern _Thread_local mpx_self_thread mpx_this_thread MPX_TLS_MODEL;
int mpx_family_thread_slowly(mpx_thread *ret_thread);

/* The calling process; 0 when it is no member. */
static inline mpx_member mpx_family_self(void) {
  if (!atomic_load_explicit(&mpx_the_header, memory_order_acquire))
    return 0;
  return atomic_load_explicit(&mpx_the_identity->member, memory_order_relaxed);
}

/* The header, or NULL before the family exists in this process (also in a foreign child: it must
 * not touch it). */
static inline mpx_header *mpx_family_header(void) {
  return mpx_family_self() ? atomic_load_explicit(&mpx_the_header, memory_order_acquire) : NULL;
}

/* What the calling thread is called as the owner of something; enters as above. */
static inline int mpx_family_thread(mpx_thread *ret_thread) {
  mpx_member member = mpx_family_self();
  if (member == 0 || mpx_this_thread.member != member)
    return mpx_family_thread_slowly(ret_thread);
  *ret_thread = mpx_this_thread.name;
  return 0;
}

/* Whether this process was a member's copy made by somebody else's fork(). */
bool mpx_family_is_foreign(void);

/* A ticket for a new member, naming a segment handle that this process holds. MPROC_EHEAPLOST when
 * user code closed it. */
int mpx_family_ticket_for(mpx_member member, mpx_family_ticket *ret_ticket);
/* In a child that will adopt the family: fetches the page that says who it is. */
void mpx_family_touch(void);
/* In a forked child of a start: the copied family is ours, under the slot that was claimed for
 * us. */
int mpx_family_adopt(mpx_member member);
/* In a spawned child: maps the segment and takes its slot. -EEXIST: the address is taken here. */
int mpx_family_attach(const mpx_family_ticket *ticket);

/* Gives back what a dead process held: its owned blocks, its cells, its slot. `member` was seen
 * dead or was joined by its parent. Any member may call it, also twice. */
void mpx_family_bury(mpx_member member);
/* Looks for the dead whose parents died too. `all`: every slot, else a few. */
void mpx_family_sweep(bool all);

#endif
