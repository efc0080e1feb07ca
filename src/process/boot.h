/* The boot record: all that a spawned child is told, in sealed memory that nobody can change.
 *
 * The child finds it by MPROC_BOOT=<descriptor>:<its own pid> in its environment: with any other
 * pid the variable was inherited by accident and means nothing. mproc_init() reads the head,
 * resolves the function that the parent's copy of mproc wants called, which may live in a plugin,
 * and hands the record over. */
#ifndef MPX_PROCESS_BOOT_H
#define MPX_PROCESS_BOOT_H

#include "heap/family.h"
#include "process/child.h"
#include "process/entry.h"
#include "process/process.h"

#define MPX_BOOT_VARIABLE "MPROC_BOOT"
#define MPX_BOOT_MAGIC "mprocbt2" /* changes with every change of mpx_boot_head */
/* An address that is taken in one child is free in the next: its layout is random. */
enum { MPX_ADDRESS_TRIES = 16 };
enum { MPX_BOOT_VERSION = 3 }; /* changes with every change of the rest */

/* The part that every version of mproc understands. */
typedef struct mpx_boot_head {
  char magic[8];
  uint64_t size; /* of the whole record */
  mproc_handle report;
  mpx_function boot; /* void (*)(const void *record, size_t size, mproc_handle handle) */
} mpx_boot_head;

/* A handle that is passed by name, as it travels. */
typedef struct mpx_inherited {
  mproc_handle handle;
  char name[MPX_NAME_SIZE];
} mpx_inherited;

typedef enum mpx_boot_kind {
  MPX_BOOT_ENTRY = 1,
  MPX_BOOT_GUARDIAN = 2,
  MPX_BOOT_SERVER = 3
} mpx_boot_kind;

typedef struct mpx_boot_record {
  mpx_boot_head head;
  uint32_t version;
  uint32_t kind;
  mproc_handle held;              /* see mpx_os_child_prepare */
  mproc_handle channel;           /* guardian */
  mproc_handle doors[4];          /* forkserver: door and spares, the askers' end first */
  struct mpx_server_public *open; /* forkserver: in the shared heap */
  int32_t spares;                 /* forkserver */
  int32_t unused;
  mpx_family_ticket ticket;
  mpx_function entry;
  uint32_t chosen_method;
  uint32_t guarded;
  mpx_credentials credentials; /* of the thread that starts it */
  uint64_t inherited_at;       /* offsets in the record */
  uint64_t inherited_count;
  uint64_t argument_at;
  uint64_t argument_size;
} mpx_boot_record;

/* In the parent: fills in what does not depend on the kind. */
int mpx_boot_prepare(mpx_boot_record *record, mpx_boot_kind kind, mproc_handle report);
/* In mproc_init and in the helper program: returns 0 when this process is no child, negative (said
 * why) when its record is broken. Else never returns. */
int mpx_boot_if_child(void);

/* Executes `path` with a record: `launch` says the rest. `keep` are the handles of the record's
 * kind; record, report and heap go along by themselves. */
typedef struct mpx_boot_launch {
  mpx_launch launch;        /* with the credentials of the record */
  char *const *environment; /* without the marker */
  const char *title;        /* argv[0] */
  mproc_handle record;
} mpx_boot_launch;
int mpx_boot_spawn(const mpx_boot_launch *boot, mpx_child *child, mpx_stage *ret_stage);

#endif
