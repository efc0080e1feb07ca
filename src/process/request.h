/* A request to a forkserver: one message, from which the server's child becomes the process that
 * was asked for.
 *
 *   head       mpx_request, read by the server
 *   body       mpx_request_body and what its ranges name, read by the worker
 *   argument   the last part of the body, 64-byte aligned
 *
 * Handles follow in this order, each only if there is one: the sealed body (head and all, when it
 * is too large for a message), the working directory, the sentinel's held end, the three standard
 * streams, then those passed by name: MANY of them come through a channel of their own. */
#ifndef MPX_PROCESS_REQUEST_H
#define MPX_PROCESS_REQUEST_H

#include "heap/family.h"
#include "process/entry.h"
#include "process/process.h"
#include "process/server.h"

#define MPX_REQUEST_MAGIC 0x31717270636f7270ULL /* changes with every change below */

typedef enum mpx_request_kind {
  MPX_REQUEST_START = 1, /* make the process that `member` was claimed for */
  MPX_REQUEST_RETIRE,    /* `member` starts nothing here any more */
  MPX_REQUEST_REFILL     /* a spare was used */
} mpx_request_kind;

enum { MPX_STREAM_CLOSED, MPX_STREAM_PASSED, MPX_STREAM_NULL };

typedef struct mpx_request {
  _Alignas(64) uint64_t magic;
  uint32_t kind;
  uint32_t sealed;
  mpx_member member;
  uint64_t body_size;
  uint32_t has_cwd;
  uint32_t has_held;
  uint32_t streams[3]; /* MPX_STREAM_... */
  uint32_t inherit_count;
  uint32_t has_channel; /* the handles passed by name come through it */
  uint32_t daemon;
  mpx_surroundings surroundings;
} mpx_request;

typedef struct mpx_range {
  uint64_t at; /* from the start of the body */
  uint64_t size;
} mpx_range;

typedef struct mpx_request_body {
  uint32_t chosen_method;
  int32_t nice;
  uint32_t has_environment;
  uint32_t environment_count;
  mpx_range entry; /* an mpx_function, its path cut behind the NUL */
  mpx_range limits;
  mpx_range cpus;
  mpx_range cwd;
  mpx_range cgroup;
  mpx_range environment; /* strings, each with its NUL */
  mpx_range names;       /* of the handles, MPX_NAME_SIZE each */
  mpx_range argument;
} mpx_request_body;

/* Asks the server for the process, or a spare if there is one and `spares` is set. May be asked
 * again: the slot goes to the first who takes it. -EPIPE: the server is dead. Says why. */
int mpx_request_send(mproc_process *process, const mpx_server_view *server, bool spares,
                     int64_t deadline);
/* Tells the server something; nothing happens if it is dead or does not listen. */
void mpx_request_tell(mproc_handle door, mpx_request_kind kind, mpx_member member);

/* In a fresh child of the server: becomes what the request says and runs the entry. `message` is
 * 64-byte aligned and the child's for good. */
typedef struct mpx_worker_call {
  void *message;
  const mpx_received *received;
  mpx_header *header;          /* the server's: the child is no member yet */
  const mpx_surroundings *now; /* the server's */
  int64_t server_pid;
  mproc_handle not_ours; /* closed once the child is a member */
  bool is_spare;
} mpx_worker_call;
/* Goes through what a start will, to no effect, so that its pages and symbols are there. `now` is
 * what it says already: the surroundings of this process. */
void mpx_worker_rehearse(const mpx_surroundings *now);
/* Returns only when the start was called off. */
void mpx_worker_run(const mpx_worker_call *call);

/* Whether a message is a request at all. */
bool mpx_request_is_sound(const mpx_request *request, const mpx_received *received);

/* Ends a start whose worker died, or was never made, before it could say so itself: for the server.
 * True: there was nobody in the slot, which is the asker's now. */
bool mpx_birth_fail(mpx_member member, int code, const char *text);

#endif
