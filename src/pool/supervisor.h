/* The supervisor from inside. What it must not lose when it is killed is on the board; the rest its
 * successor finds out anew. */
#ifndef MPX_POOL_SUPERVISOR_H
#define MPX_POOL_SUPERVISOR_H

#include "pool/board.h"
#include "sync/bell.h"

/* A worker, as its supervisor has it. */
typedef struct mpx_ward {
  mproc_process *process; /* NULL: none */
  mproc_handle sentinel;
  mproc_handle spool; /* its standard error; MPX_NO_HANDLE: the pool's */
  int64_t started_at;
  mpx_work seen; /* what it was in, since when */
  int64_t since;
  mpx_work unwanted; /* what it was in when that was cancelled, since when */
  int64_t unwanted_since;
} mpx_ward;

typedef struct mpx_supervisor {
  mpx_board *board;
  mpx_line *line; /* the supervisor's own */
  mpx_bell bell;
  mproc_handle host; /* sentinel; MPX_NO_HANDLE: to be asked */
  const mproc_context *context;
  mpx_job *due; /* AGAIN, by `next` */
  uint32_t maps_seen;
  bool somebody_lingers; /* in what was cancelled */
  bool maps_wait;        /* some map is cancelled and a worker still in it */
  int barren;            /* workers in a row that ended before they were of use */
  int64_t not_before;    /* the next start */
  bool sleeps;           /* idle workers have left, and there is no work */
  int64_t oom_kills, memory_looked_at;
  mpx_ward wards[MPROC_POOL_WORKERS_MAX];
} mpx_supervisor;

/* How a worker ended. */
typedef struct mpx_worker_end {
  mproc_cause cause;
  int code;
  bool is_blamed;    /* what it was in is to blame */
  bool has_deserted; /* with the supervisor before us */
  int64_t run_time_ns, max_rss_bytes;
} mpx_worker_end;

/* repair.c: whatever the worker was in is somebody else's, or over; the line is nobody's. */
void mpx_repair(mpx_supervisor *supervisor, unsigned number, const mpx_worker_end *end);
/* Jobs that a supervisor left in the middle of something. */
void mpx_repair_after_supervisor(mpx_supervisor *supervisor);
/* A map that is in no lane: it is again. */
void mpx_reoffer(mpx_supervisor *supervisor, mpx_job *job);

/* dues.c */
void mpx_dues_take(mpx_supervisor *supervisor);
/* Queues what is due; returns when the next one is. */
int64_t mpx_dues_queue(mpx_supervisor *supervisor);
/* Cancelled maps end, and those with pieces to take are offered, where something has changed. */
void mpx_maps_look(mpx_supervisor *supervisor);
bool mpx_jobs_are_over(const mpx_supervisor *supervisor);

/* watch.c: kills whom it must; returns when to look again. */
int64_t mpx_watch(mpx_supervisor *supervisor, int64_t now);
mpx_work mpx_work_of(const mpx_line *line);
/* The same input of the same attempt. */
bool mpx_work_is_same(const mpx_work *a, const mpx_work *b);

/* crew.c: workers start, leave and end. */
void mpx_crew_start(mpx_supervisor *supervisor);
void mpx_crew_collect(mpx_supervisor *supervisor);
void mpx_crew_kill(mpx_supervisor *supervisor);
/* Waits for those of a supervisor that was killed. */
void mpx_crew_take_over(mpx_supervisor *supervisor);
/* All have been told to go; whether somebody is left. */
bool mpx_crew_dismiss(mpx_supervisor *supervisor);
void mpx_supervisor_break(mpx_supervisor *supervisor, int code, const char *text);

#endif
