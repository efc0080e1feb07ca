/* The supervisor's life. It sleeps until a worker or the host ends, somebody calls, or something is
 * due; and never waits for anything that a worker may hold. */
#include "pool/supervisor.h"

#include "base/error.h"
#include "os/crash_point.h"
#include "process/method.h"

#include <errno.h>
#include <stdlib.h>

enum { LOOK_NS = 100 * MPX_NS_PER_MS };

/* The host's, for the workers; NULL in a spawned worker. */
static mpx_signal_mask host_mask;
static bool has_host_mask;

void mpx_supervisor_release_signals(void) {
  if (has_host_mask)
    mpx_os_signals_restore(&host_mask);
}

static bool host_is_dead(mpx_supervisor *supervisor) {
  mpx_poll_item item = {.handle = supervisor->host};
  if (supervisor->host != MPX_NO_HANDLE)
    return mpx_os_poll(&item, 1, 0) > 0;
  return mproc_parent_is_alive() != 1;
}

static int begin(mpx_supervisor *supervisor) {
  mpx_board *board = supervisor->board;
  const mpx_pool_settings *settings = &board->settings;
  mproc_context_options options = {.method = mpx_method_name((mpx_method)settings->method),
                                   .executable = settings->executable,
                                   .helper = settings->helper};
  mproc_context *context;
  mpx_os_signals_hold(&host_mask);
  has_host_mask = true;
  mpx_os_raise_handle_limit();
  int r = mproc_context_create(&context, &options);
  if (r < 0)
    return r;
  supervisor->context = context;
  supervisor->oom_kills = mpx_os_oom_kills();
  supervisor->maps_seen = atomic_load(&board->maps_changed) - 1;
  if (mpx_bell_open(&supervisor->bell, 0) == 0)
    atomic_store(&board->bell, supervisor->bell.os.name);
  else
    atomic_store(&board->bell, MPX_OS_NO_BELL);
  bool is_successor = atomic_load(&supervisor->line->started) > 0;
  atomic_store(&board->supervisor, mpx_family_self());
  atomic_store(&board->is_short, 0); /* the last one's word */
  mpx_count(&supervisor->line->started, 1);
  mpx_notice_next(&board->results, MPX_TURN_ALL);
  if (is_successor) {
    mpx_crew_take_over(supervisor);
    mpx_repair_after_supervisor(supervisor);
  }
  return 0;
}

static size_t list_handles(const mpx_supervisor *supervisor, mpx_poll_item *items) {
  size_t count = 0;
  if (supervisor->host != MPX_NO_HANDLE)
    items[count++] = (mpx_poll_item){.handle = supervisor->host};
  if (atomic_load(&supervisor->board->bell) != MPX_OS_NO_BELL)
    items[count++] = (mpx_poll_item){.handle = supervisor->bell.os.handle};
  int used = atomic_load(&supervisor->board->lines_used);
  for (int i = 0; i < used; i++)
    if (supervisor->wards[i].process && supervisor->wards[i].sentinel != MPX_NO_HANDLE)
      items[count++] = (mpx_poll_item){.handle = supervisor->wards[i].sentinel};
  return count;
}

static int64_t least(int64_t a, int64_t b) {
  return a < b ? a : b;
}

static void rest(mpx_supervisor *supervisor, int64_t until) {
  static mpx_poll_item items[MPROC_POOL_WORKERS_MAX + 2];
  bool has_bell = atomic_load(&supervisor->board->bell) != MPX_OS_NO_BELL;
  int64_t now = mpx_os_now();
  int64_t look = has_bell ? LOOK_NS : LOOK_NS / 20;
  if (supervisor->not_before > now)
    until = least(until, supervisor->not_before);
  if (supervisor->board->settings.idle_timeout_ms > 0)
    look = least(look, supervisor->board->settings.idle_timeout_ms * MPX_NS_PER_MS / 4 + 1);
  (void)mpx_os_poll(items, list_handles(supervisor, items), least(until, now + look));
  if (has_bell)
    mpx_os_bell_hush(&supervisor->bell.os);
}

/* One round; returns when the next one is due. */
static int64_t look(mpx_supervisor *supervisor) {
  mpx_crew_collect(supervisor);
  mpx_dues_take(supervisor);
  mpx_maps_look(supervisor);
  int64_t next = mpx_dues_queue(supervisor);
  next = least(next, mpx_watch(supervisor, mpx_os_now()));
  if (atomic_load(&supervisor->board->state) < MPX_POOL_ENDING)
    mpx_crew_start(supervisor);
  return next;
}

/* All that was submitted is over: workers may go, and have a while to do so. */
static void close_down(mpx_supervisor *supervisor) {
  while (mpx_crew_dismiss(supervisor)) {
    if (host_is_dead(supervisor) || atomic_load(&supervisor->board->state) >= MPX_POOL_ENDING)
      return;
    rest(supervisor, MPX_NEVER);
    mpx_crew_collect(supervisor);
  }
}

static void supervise(mpx_supervisor *supervisor) {
  mpx_board *board = supervisor->board;
  while (!host_is_dead(supervisor)) {
    int64_t next = look(supervisor);
    uint32_t state = atomic_load(&board->state);
    if (state >= MPX_POOL_ENDING)
      return;
    if (state == MPX_POOL_CLOSING && mpx_jobs_are_over(supervisor)) {
      close_down(supervisor);
      return;
    }
    rest(supervisor, next);
  }
}

int mpx_supervisor_main(void *arg, size_t size) {
  mpx_supervisor *supervisor = calloc(1, sizeof *supervisor);
  (void)size;
  if (!supervisor)
    return 1;
  mpx_board *board = supervisor->board = *(mpx_board **)arg;
  supervisor->line = &board->lines[MPX_SUPERVISOR];
  for (int i = 0; i < MPROC_POOL_WORKERS_MAX; i++)
    supervisor->wards[i].spool = MPX_NO_HANDLE;
  if (mproc_parent_sentinel(&supervisor->host) < 0)
    supervisor->host = MPX_NO_HANDLE;
  int r = begin(supervisor);
  MPROC_CRASH_POINT("pool.supervisor.begun");
  if (r < 0)
    mpx_supervisor_break(supervisor, r, mproc_error_detail());
  else
    supervise(supervisor);
  mpx_crew_kill(supervisor);
  MPROC_CRASH_POINT("pool.supervisor.alone");
  if (host_is_dead(supervisor)) {
    mpx_board_destroy(board);
    return 0;
  }
  mpx_jobs_fail_all(board);
  atomic_store(&supervisor->line->stage, MPX_WORKER_LEFT); /* done: nobody is to take our place */
  mpx_notice_next(&board->results, MPX_TURN_ALL);
  return 0;
}
