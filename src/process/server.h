/* The forkservers that this process knows. */
#ifndef MPX_PROCESS_SERVER_H
#define MPX_PROCESS_SERVER_H

#include "heap/table.h"
#include "mproc/context.h"
#include "os/os.h"
#include "process/boot.h"

enum { MPX_SPARES_MAX = 256 };

/* What a server shows to the family, in a page of the table. A late reader finds another server's
 * there at worst. */
typedef struct mpx_server_public {
  _Atomic mpx_member owner; /* the server; CAS by the next one when that is dead */
  mpx_privilege privilege;  /* server, before it answers */
  mpx_surroundings surroundings;
  uint64_t environment; /* hash of what it was given */
  /* Spares that wait: the owner's tag above, their count below. Server +1, starter -1. */
  _Atomic uint64_t idle;
  uint32_t spare_count;
  _Atomic mpx_member spares[MPX_SPARES_MAX]; /* what each became: the spare; 0: it waits */
} mpx_server_public;

/* A server by its settings; made once, never freed. */
typedef struct mpx_server mpx_server;

/* A running server, held so that nobody closes its handles meanwhile. */
typedef struct mpx_server_view {
  struct mpx_instance *instance;
  mproc_handle door;
  mproc_handle spares;
  mpx_member member;
  mpx_server_public *open; /* its public part */
  bool is_new;             /* this call has started it */
} mpx_server_view;

/* The server for these settings, made known; strings and arrays are copied. NULL: -ENOMEM. */
mpx_server *mpx_server_for(const mproc_context_options *settings);
/* The server of contexts without settings. */
mpx_server *mpx_server_default(void);
/* Contexts count their servers: the last one sends it away. */
void mpx_server_ref(mpx_server *server);
void mpx_server_unref(mpx_server *server);

/* Starts it unless it runs; says why not. Release what you got. */
int mpx_server_use(mpx_server *server, int64_t deadline, mpx_server_view *ret_view);
void mpx_server_release(const mpx_server_view *view);
/* It is dead, or not for us: the next use starts another one. */
void mpx_server_drop(mpx_server *server, const mpx_server_view *view);

/* Sends it away: it ends with the last of its workers. */
void mpx_server_stop(mpx_server *server);
/* Starts another one, which takes the place of one that runs. If that fails, nothing changes. */
int mpx_server_refresh(mpx_server *server);

/* In a fresh forked child. */
void mpx_server_reset_in_child(void);

/* Tells the owners of a page apart. */
static inline uint32_t mpx_idle_tag(mpx_member server) {
  return mpx_member_slot(server) << 19 ^ (uint32_t)server;
}
/* Counts spares of this very server, never below zero. */
void mpx_idle_add(mpx_server_public *open, mpx_member server, int change);

uint64_t mpx_environment_hash(char *const *environment);

/* ---- in the server itself: serve.c */

/* Runs the preload functions, answers by the report, then serves until nobody is left. */
_Noreturn void mpx_server_run(const mpx_boot_record *record, const void *body);
/* Children of this server find it under these settings. */
int mpx_server_adopt(const mproc_context_options *settings, const mproc_handle doors[2],
                     mpx_server_public *open);

#endif
