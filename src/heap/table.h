/* The process table: a slot for each process of the family, a cell for each of its threads that
 * takes locks.
 *
 * A slot's life
 *   FREE --claim (parent)--> CLAIMING --> CLAIMED --take (child)--> RUNNING --bury (any)--> FREE
 * `tag` holds state and generation in one word, so that every step is one CAS and a name of a
 * process (mpx_member: slot and generation) can never mean its successor. While the claimer fills
 * in the slot (CLAIMING), the tag also holds the claimer's slot: `parent` is still somebody else's.
 *
 * A cell is the proof of life: its thread holds the robust lock in it as long as it lives, and the
 * kernel lets go when the thread ends by force: exit, kill or exec of the process. A thread that
 * ends by itself gives the cell back first. So "HELD, and the lock can be had" means that the
 * process is dead. */
#ifndef MPX_HEAP_TABLE_H
#define MPX_HEAP_TABLE_H

#include "os/os.h"

/* A process: slot + 1 in the upper, generation in the lower half. 0 is nobody, or the family
 * itself. */
typedef uint64_t mpx_member;

/* A thread of a member, named so that its end shows: number of its cell + 1 in the upper 16 bits,
 * generation of the cell in the next 46. The lowest two are whoever's who keeps the name in a word.
 * 0 is nobody. */
typedef uint64_t mpx_thread;
#define MPX_THREAD_FLAGS ((uint64_t)3)

#define MPX_START_UNKNOWN ((int64_t)-1) /* /proc did not tell: the pid alone must do */

enum { MPX_SLOT_COUNT = 8192, MPX_POOL_COUNT = 24576 };

typedef enum mpx_slot_state {
  MPX_SLOT_FREE,
  MPX_SLOT_CLAIMING,
  MPX_SLOT_CLAIMED,
  MPX_SLOT_RUNNING
} mpx_slot_state;

#define MPX_CELL_HELD (1ULL << 63)

/* One cache line. `owner` goes 0 -> member (CAS, by the thread) -> member | MPX_CELL_HELD (the same
 * thread, once it has the lock) -> 0 (that thread, or by CAS whoever buries the member). */
typedef struct mpx_cell {
  _Alignas(64) mpx_os_robust life;
  _Atomic uint64_t owner;
  /* grows with each owner thread, who writes it, holding `life`; 0: `life` is not made yet */
  _Atomic uint64_t generation;
} mpx_cell;

/* Whether a child may end (and a guarded one begin): its parent can name it. */
enum { MPX_GATE_CLOSED, MPX_GATE_OPEN, MPX_GATE_WAITED_FOR };

/* How a start through a server comes out. */
enum { MPX_BIRTH_AWAITED, MPX_BIRTH_DONE, MPX_BIRTH_FAILED, MPX_BIRTH_CALLED_OFF };
/* Who waits for the child writes down how it ended; REAPING: its pid may be another's from now on.
 */
enum { MPX_RELAY_NONE, MPX_RELAY_REAPING, MPX_RELAY_DONE };

/* The first error of a child on its way to the entry. */
typedef struct mpx_report {
  int32_t code;
  char text[508];
} mpx_report;

/* Room for what a forkserver shows to the family; its layout and writers: process/server.h. */
enum { MPX_SERVER_COUNT = 256 };
typedef struct mpx_server_page {
  _Alignas(64) unsigned char bytes[4096];
} mpx_server_page;

/* Four cache lines. */
typedef struct mpx_slot {
  mpx_cell cell; /* of the thread that entered first: the one that runs the entry */
  /* of who claims, its slot + 1; of who runs, its pid; each << 40 | generation << 8 | state */
  _Alignas(64) _Atomic uint64_t tag;
  _Atomic mpx_member parent; /* claimer, before the child exists; sweeps read what comes next too */
  _Atomic int64_t pid; /* claimer after a fork; the child itself, if both are in one namespace */
  _Atomic int64_t start_time; /* the child, when its first thread ends before it */
  _Atomic uint32_t gate;      /* claimer: 1 when it can name the child, which may end then */
  _Atomic uint32_t record;    /* the child at its end: 0x100 | exit code; pairs with acquire */
  uint32_t daemon;            /* claimer */
  uint32_t method;            /* claimer */
  char name[32];              /* claimer */
  /* claimer: who waits for the child in its parent's place; 0: nobody */
  _Atomic mpx_member server;
  _Atomic uint32_t birth; /* the child or the server; pairs with acquire */
  _Atomic uint32_t relay; /* server; pairs with acquire */
  mpx_exit exit;          /* server, before DONE */
  /* in which pid namespace `pid` is a number; claimer, before the child exists; 0: unknown */
  _Atomic uint32_t pid_namespace;
  /* the child's own namespace, and its number there, last (release); 0: not known yet */
  _Atomic uint32_t own_namespace;
  _Atomic int64_t own_pid;
} mpx_slot;

struct mpx_header;

mpx_member mpx_member_make(uint32_t slot, uint32_t generation);
uint32_t mpx_member_slot(mpx_member member);

/* The slot a member has, or NULL when it was buried. Bounds-checked: members come from shared
 * memory. */
mpx_slot *mpx_table_slot(struct mpx_header *header, mpx_member member);
/* What the slot's process is called in the caller's pid namespace; 0: unknown. */
int64_t mpx_slot_pid(const mpx_slot *slot);
/* The member with that pid here, or 0; one that has ended counts until it is buried, unless another
 * has its pid by now. */
mpx_member mpx_table_find(struct mpx_header *header, int64_t pid);
/* Takes a free slot for a child of `parent`. MPROC_ETABLEFULL, says why. */
int mpx_table_claim(struct mpx_header *header, mpx_member parent, mpx_member *ret_member);
/* Where a child or server that has taken the slot writes why it gives up; NULL without memory. */
mpx_report *mpx_table_report(struct mpx_header *header, mpx_member member);
/* The child's step, which says what it is called; 0: there is no child any more. -ESTALE when the
 * slot was swept meanwhile (its parent died). */
int mpx_table_take(struct mpx_header *header, mpx_member member, int64_t pid);
/* Frees a slot that was claimed by a process which died before its child took it; nothing happens
 * if the child took it meanwhile. Returns whether the slot is done with: false for one that was
 * taken. */
bool mpx_table_sweep_claim(struct mpx_header *header, uint32_t index);
/* The claimer's step back: false when the child took the slot meanwhile. */
bool mpx_table_retract(struct mpx_header *header, mpx_member member);
/* Whether the child has yet to take the slot. */
bool mpx_table_is_claimed(struct mpx_header *header, mpx_member member);
/* One CAS: true for exactly one caller, who owns the remains. */
bool mpx_table_release(struct mpx_header *header, mpx_member member);

/* The calling thread's new cell: the slot's own if it is free, else one of the pool. */
int mpx_cell_take(struct mpx_header *header, mpx_member member, uint32_t *ret_cell);
mpx_cell *mpx_cell_at(struct mpx_header *header, uint32_t index);
/* A thread's normal end. */
void mpx_cell_release(mpx_cell *cell);
/* What the owner of a cell is called. Nobody was or will be called so again. */
mpx_thread mpx_cell_thread(struct mpx_header *header, uint32_t index);
/* Whether the thread ended, however. Somebody who tests the same at this instant may hide it:
 * whoever waits for it looks again. */
bool mpx_thread_is_dead(struct mpx_header *header, mpx_thread thread);
/* The same of a name of which only `bits` bits of the generation were kept: after so many owners of
 * its cell a dead thread may be taken for its successor, never a living one for dead. */
bool mpx_thread_is_dead_by(struct mpx_header *header, mpx_thread thread, unsigned bits);
/* Whether anybody was ever called so: cells and slots count their owners. */
bool mpx_thread_existed(struct mpx_header *header, mpx_thread thread);
bool mpx_member_existed(struct mpx_header *header, mpx_member member);
/* The process of a thread that has not been buried; 0: nobody knows. */
mpx_member mpx_thread_member(struct mpx_header *header, mpx_thread thread);
/* Frees the cells that a dead process left. */
void mpx_cell_free_all(struct mpx_header *header, mpx_member member);

/* Whether a process is dead for sure: one of its threads vanished with its cell held, or all
 * released theirs and no process of its pid and start time lives. A claimed slot is dead with its
 * parent. */
bool mpx_member_is_dead(struct mpx_header *header, mpx_member member);

#endif
