/* What the files of a forkserver share: serve.c (the loop and the requests), serve_clients.c,
 * serve_workers.c, serve_spares.c. One thread, so nothing here is locked. */
#ifndef MPX_PROCESS_SERVE_H
#define MPX_PROCESS_SERVE_H

#include "heap/family.h"
#include "process/request.h"
#include "process/server.h"

/* How long after a start its spare is replaced: the start comes first. */
#define MPX_SERVE_REFILL_DELAY_NS (2 * MPX_NS_PER_MS)
/* How often those are looked at who cannot be polled. */
#define MPX_SERVE_LOOK_NS (100 * MPX_NS_PER_MS)

typedef struct mpx_client {
  mpx_member member;
  mproc_handle sentinel; /* MPX_NO_HANDLE: looked at now and then, by the next two */
  int64_t pid;
  int64_t start_time;
  bool retired; /* starts nothing any more; its daemons still die with it */
} mpx_client;

typedef struct mpx_worker {
  int64_t pid;
  mpx_member member; /* 0: a spare that waits, or has just begun */
  int spare;         /* its place in open->spares, or -1 */
} mpx_worker;

typedef struct mpx_serving {
  mpx_header *header;
  mpx_server_public *open;
  mproc_handle door, spares;     /* our ends */
  mpx_surroundings surroundings; /* ours, as workers find them */
  mpx_member member;
  int64_t pid;
  int spare_count;
  int64_t refill_at; /* MPX_NEVER: all spares are there */
  int64_t look_at;   /* when workers and spares are looked at without a cause */
  bool has_threads;  /* that a preload function left */
  bool was_low;      /* the count of idle spares was, last time */
  mpx_client *clients;
  size_t client_count, client_capacity;
  mpx_worker *workers;
  size_t worker_count, worker_capacity;
  mpx_received received;
  _Alignas(64) unsigned char message[MPX_MESSAGE_SIZE];
} mpx_serving;

extern mpx_serving mpx_serve;

/* Room for one more item in a list that grows; false: no memory. */
bool mpx_serve_make_room(void **items, size_t *capacity, size_t count, size_t size);
void mpx_serve_close_received(void);

/* ---- serve_clients.c */

mpx_client *mpx_client_find(mpx_member member);
/* Watches this member from now on. NULL: it is dead, or there is no memory. */
mpx_client *mpx_client_know(mpx_member member);
/* Forgets those who ended, and kills their daemons. `polls` are of the clients, in their order. */
void mpx_clients_look(const mpx_poll_item *polls);

/* ---- serve_workers.c */

/* Adds a worker to the list before it is forked: later there may be no memory. */
bool mpx_worker_remember(mpx_worker one);
/* Closes what is the server's alone; the doors for asking stay, they are the worker's too. */
void mpx_worker_leave_server(void);
mpx_worker_call mpx_worker_call_for(bool is_spare);
/* What a spare became, once it says so. */
mpx_member mpx_worker_member(const mpx_worker *one);
void mpx_workers_kill_daemons_of(mpx_member dead);
/* Tells the asker of the request at hand why there is no worker. */
void mpx_worker_refuse(int code);
void mpx_worker_start(const mpx_request *request);
/* Waits for all that ended, and writes down how. */
void mpx_workers_reap(void);
/* Asks for each: a thread of the user's may have waited for some. */
void mpx_workers_reap_each(void);

/* ---- serve_spares.c */

/* Soon there will be as many as the context wants. */
void mpx_spares_want(void);
void mpx_spare_gone(const mpx_worker *one);
int mpx_spares_waiting(void);
/* Spares that took a request: who asked must be watched. */
void mpx_spares_notice(void);
void mpx_spares_refill(void);
/* Sets the count of those that wait right. */
void mpx_spares_count(void);

#endif
