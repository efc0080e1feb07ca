/* The forkserver itself: one thread that forks on request, waits for what it forked, and writes
 * down how it ended where the asker finds it. It answers nobody: a worker speaks for itself, so
 * that no client can keep it waiting. */
#include "process/serve.h"
#include "base/error.h"
#include "base/log.h"
#include "os/crash_point.h"
#include "process/child.h"
#include "process/entry.h"
#include "process/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

mpx_serving mpx_serve;

bool mpx_serve_make_room(void **items, size_t *capacity, size_t count, size_t size) {
  if (count < *capacity)
    return true;
  void *more = realloc(*items, (*capacity * 2 + 16) * size);
  if (!more)
    return false;
  *items = more;
  *capacity = *capacity * 2 + 16;
  return true;
}

void mpx_serve_close_received(void) {
  for (size_t i = 0; i < mpx_serve.received.handle_count; i++)
    mpx_os_close(mpx_serve.received.handles[i]);
}

/* ---- requests -------------------------------------------------------------------------------- */

static void take_start(const mpx_request *request) {
  mpx_slot *slot = mpx_table_slot(mpx_serve.header, request->member);
  if (!slot || slot->server != mpx_family_self()) /* called off */
    return;
  if (mpx_member_is_dead(mpx_serve.header, slot->parent)) /* a sweep takes the slot */
    return;
  mpx_client *asker = mpx_client_know(slot->parent);
  if (mpx_serve.received.cut)
    mpx_worker_refuse(-EMFILE);
  else if (!asker)
    mpx_worker_refuse(-ENOMEM);
  else
    mpx_worker_start(request);
  mpx_spares_want();
}

/* Of those who became another user since, this alone: each may speak for itself. */
static bool is_farewell(const mpx_request *request) {
  const mpx_slot *slot = mpx_table_slot(mpx_serve.header, request->member);
  return mpx_request_is_sound(request, &mpx_serve.received) &&
         request->kind == MPX_REQUEST_RETIRE && slot && mpx_serve.received.pid != 0 &&
         mpx_slot_pid(slot) == mpx_serve.received.pid;
}

static void take_request(void) {
  const mpx_request *request = (const mpx_request *)(void *)mpx_serve.message;
  if (!mpx_serve.received.is_ours && !is_farewell(request)) {
    mpx_log(MPROC_LOG_ERROR, "forkserver: process %lld, of another user, may not ask",
            (long long)mpx_serve.received.pid);
    return;
  }
  if (!mpx_serve.received.cut && !mpx_request_is_sound(request, &mpx_serve.received)) {
    mpx_log(MPROC_LOG_ERROR, "forkserver: %zu bytes that are no request were thrown away",
            mpx_serve.received.size);
    return;
  }
  if (mpx_serve.received.size < sizeof *request)
    return;
  if (request->kind == MPX_REQUEST_START) {
    take_start(request);
  } else if (request->kind == MPX_REQUEST_RETIRE) {
    mpx_client *asker = mpx_client_find(request->member);
    if (asker)
      asker->retired = true;
  } else {
    mpx_spares_want();
  }
}

/* A few at a time: the ended are waited for too. */
static void take_requests(void) {
  for (int i = 0; i < 16; i++) {
    if (mpx_os_channel_take(mpx_serve.door, mpx_serve.message, sizeof mpx_serve.message, false,
                            &mpx_serve.received) != 1)
      return;
    take_request();
    mpx_serve_close_received();
  }
}

/* ---- the loop -------------------------------------------------------------------------------- */

static bool is_needed(void) {
  for (size_t i = 0; i < mpx_serve.client_count; i++)
    if (!mpx_serve.clients[i].retired)
      return true;
  return mpx_serve.worker_count > (size_t)mpx_spares_waiting();
}

static void wait_for_news(mpx_poll_item *polls) {
  int64_t until = mpx_serve.refill_at;
  bool blind = mpx_serve.worker_count > 0; /* SIGCHLD may go to a thread of the user's */
  for (size_t i = 0; i < mpx_serve.client_count; i++) {
    polls[i] = (mpx_poll_item){.handle = mpx_serve.clients[i].sentinel};
    blind |= mpx_serve.clients[i].sentinel == MPX_NO_HANDLE;
  }
  polls[mpx_serve.client_count] = (mpx_poll_item){.handle = mpx_serve.door};
  int64_t look = mpx_os_now() + MPX_SERVE_LOOK_NS;
  if (blind && look < until)
    until = look;
  (void)mpx_os_reaper_poll(polls, mpx_serve.client_count + 1, until);
}

/* What nobody tells us of. */
static void look_around(void) {
  int64_t now = mpx_os_now();
  if (now < mpx_serve.look_at)
    return;
  mpx_serve.look_at = now + MPX_SERVE_LOOK_NS;
  if (mpx_serve.has_threads)
    mpx_workers_reap_each();
  if (mpx_serve.spare_count > 0)
    mpx_spares_count();
}

static _Noreturn void serve_all(void) {
  mpx_poll_item *polls = NULL;
  size_t capacity = 0;
  while (is_needed()) { /* who had us made may be dead already */
    void *items = polls;
    while (!mpx_serve_make_room(&items, &capacity, mpx_serve.client_count + 1, sizeof *polls))
      mpx_os_sleep(MPX_SERVE_LOOK_NS);
    polls = items;
    wait_for_news(polls);
    mpx_workers_reap();
    mpx_clients_look(polls); /* before others are added, whom nobody has polled */
    mpx_spares_notice();
    take_requests();
    mpx_workers_reap();
    mpx_spares_refill();
    look_around();
  }
  mpx_os_exit_now(0);
}

/* ---- the beginning --------------------------------------------------------------------------- */

static int run_preload(const mpx_boot_record *record, const mpx_function *functions, size_t i,
                       mproc_preload **ret_function) {
  size_t count = (size_t)record->argument_size / sizeof *functions;
  const char *slash = strrchr(functions[i].path, '/');
  const char *file = slash ? slash + 1 : functions[i].path;
  char text[256];
  uintptr_t address;
  (void)snprintf(text, sizeof text, "in preload function %zu of %zu (%.160s+0x%llx)", i + 1, count,
                 file, (unsigned long long)functions[i].offset);
  mpx_report_send(record->head.report, 1, text);
  int r = mpx_function_resolve(&functions[i], &address);
  if (r < 0)
    return r;
  *ret_function = (mproc_preload *)address;
  r = (*ret_function)();
  return r == 0 ? 0
                : mpx_fail(
                      MPROC_EPRELOAD,
                      "preload function %zu of %zu (%.160s+0x%llx) returned %d, so the forkserver "
                      "was not started; it must return 0",
                      i + 1, count, file, (unsigned long long)functions[i].offset, r);
}

static int begin(const mpx_boot_record *record, const mpx_function *functions) {
  size_t count = (size_t)record->argument_size / sizeof *functions;
  mproc_preload **preload = calloc(count + 1, sizeof *preload);
  mproc_context_options settings = {
      .preload = preload, .preload_count = count, .spares = record->spares};
  const mproc_handle doors[] = {record->doors[0], record->doors[2]};
  int r = 0;
  if (!preload)
    return mpx_fail_code(-ENOMEM, "the forkserver");
  mpx_serve.open = record->open;
  for (size_t i = 0; i < count && r == 0; i++)
    r = run_preload(record, functions, i, &preload[i]);
  if (r == 0)
    r = mpx_server_adopt(&settings, doors, mpx_serve.open);
  free(preload);
  /* What the workers begin with, which a preload function may have changed. */
  mpx_serve.open->environment = mpx_environment_hash(mpx_os_environment());
  if (r == 0)
    r = mpx_os_privilege_get(&mpx_serve.open->privilege);
  return r;
}

static void settle(const mpx_boot_record *record) {
  mpx_os_raise_handle_limit();
  mpx_os_stdio_flush();
  (void)mpx_os_streams_to_null(); /* whoever reads from our asker must not wait for us */
  (void)mpx_os_reaper_begin();
  (void)mpx_os_surroundings_get(&mpx_serve.surroundings);
  mpx_worker_rehearse(&mpx_serve.surroundings); /* what it looks up is looked up for all workers */
  mpx_serve.header = mpx_family_header();
  mpx_serve.member = mpx_family_self();
  mpx_serve.open->surroundings = mpx_serve.surroundings;
  mpx_serve.door = record->doors[1];
  mpx_serve.spares = record->doors[3];
  mpx_serve.pid = mpx_os_pid();
  mpx_serve.spare_count = record->spares;
  mpx_serve.open->spare_count = (uint32_t)record->spares;
  mpx_serve.refill_at = record->spares > 0 ? 0 : MPX_NEVER;
  atomic_store(&mpx_serve.open->idle, (uint64_t)mpx_idle_tag(mpx_serve.member) << 32);
  for (int i = 0; i < MPX_SPARES_MAX; i++)
    atomic_store(&mpx_serve.open->spares[i], 0);
  (void)mpx_client_know(mpx_table_slot(mpx_serve.header, mpx_serve.member)->parent);
}

/* A thread that was joined still counts for a moment: who joins is woken before it is gone. One
 * that stays may be on its way to sleep: a copy of it in the middle of something would be a
 * worker's for ever. */
static int count_threads(void) {
  int64_t until = mpx_os_now() + MPX_SERVE_LOOK_NS, latest = until + MPX_NS_PER_S;
  int threads = mpx_os_thread_count();
  for (; threads > 1 && mpx_os_now() < until; threads = mpx_os_thread_count())
    mpx_os_sleep(MPX_NS_PER_MS);
  while (threads > 1 && !mpx_os_other_threads_sleep() && mpx_os_now() < latest)
    mpx_os_sleep(MPX_NS_PER_MS);
  return threads;
}

void mpx_server_run(const mpx_boot_record *record, const void *body) {
  mproc_handle report = record->head.report;
  char warning[256] = "";
  int r = begin(record, body);
  if (r < 0) {
    mpx_report_send(report, r, mproc_error_detail());
    mpx_os_exit_now(1);
  }
  int threads = count_threads();
  mpx_serve.has_threads = threads > 1;
  if (threads > 1)
    (void)snprintf(warning, sizeof warning,
                   "the preload functions left %d threads behind in the forkserver: workers have "
                   "no such threads, and locks that they hold stay locked (OpenMP: end the preload "
                   "function with omp_pause_resource_all)",
                   threads - 1);
  settle(record);
  mpx_report_send(report, 0, warning);
  mpx_os_close(report);
  MPROC_CRASH_POINT("server.ready");
  serve_all();
}
