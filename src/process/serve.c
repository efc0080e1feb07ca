/* The forkserver itself: one thread that forks on request, waits for what it forked, and writes
 * down how it ended where the asker finds it. It answers nobody: a worker speaks for itself, so
 * that no client can keep it waiting. */
#include "base/error.h"
#include "base/log.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "process/child.h"
#include "process/entry.h"
#include "process/request.h"
#include "process/server.h"
#include "process/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* How long after a start its spare is replaced: the start comes first. */
#define REFILL_DELAY_NS (2 * MPX_NS_PER_MS)
/* How often those are looked at who cannot be polled. */
#define LOOK_NS (100 * MPX_NS_PER_MS)

typedef struct client {
  mpx_member member;
  mproc_handle sentinel; /* MPX_NO_HANDLE: looked at now and then, by the next two */
  int64_t pid;
  int64_t start_time;
  bool retired; /* starts nothing any more; its daemons still die with it */
} client;

typedef struct worker {
  int64_t pid;
  mpx_member member; /* 0: a spare that waits, or has just begun */
  int spare;         /* its place in open->spares, or -1 */
} worker;

static struct {
  mpx_header *header;
  mpx_server_public *open;
  mproc_handle door, spares;     /* our ends */
  mpx_surroundings surroundings; /* ours, as workers find them */
  mpx_member member;
  int64_t pid;
  int spare_count;
  int64_t refill_at; /* MPX_NEVER: all spares are there */
  client *clients;
  size_t client_count, client_capacity;
  worker *workers;
  size_t worker_count, worker_capacity;
  _Alignas(64) unsigned char message[MPX_MESSAGE_SIZE];
  mpx_received received;
} serve;

/* ---- clients --------------------------------------------------------------------------------- */

static bool make_room(void **items, size_t *capacity, size_t count, size_t size) {
  if (count < *capacity)
    return true;
  void *more = realloc(*items, (*capacity * 2 + 16) * size);
  if (!more)
    return false;
  *items = more;
  *capacity = *capacity * 2 + 16;
  return true;
}

static client *find_client(mpx_member member) {
  for (size_t i = 0; i < serve.client_count; i++)
    if (serve.clients[i].member == member)
      return &serve.clients[i];
  return NULL;
}

/* The pid may be a stranger's by now, but only if the member is dead: then it is none of our
 * clients. */
static client *know_client(mpx_member member) {
  client *known = find_client(member);
  mpx_slot *slot = mpx_table_slot(serve.header, member);
  if (known || !slot)
    return known;
  void *items = serve.clients;
  if (!make_room(&items, &serve.client_capacity, serve.client_count, sizeof *known))
    return NULL;
  serve.clients = items;
  known = &serve.clients[serve.client_count++];
  int64_t pid = atomic_load(&slot->pid);
  *known = (client){.member = member,
                    .sentinel = MPX_NO_HANDLE,
                    .pid = pid,
                    .start_time = mpx_os_start_time(pid)};
  (void)mpx_os_process_open(pid, &known->sentinel);
  if (!mpx_member_is_dead(serve.header, member))
    return known;
  mpx_os_close(known->sentinel);
  serve.client_count--;
  return NULL;
}

static worker *find_worker(int64_t pid) {
  for (size_t i = 0; i < serve.worker_count; i++)
    if (serve.workers[i].pid == pid)
      return &serve.workers[i];
  return NULL;
}

/* What a spare became, once it says so. */
static mpx_member member_of(const worker *one) {
  if (one->member || one->spare < 0)
    return one->member;
  return atomic_load_explicit(&serve.open->spares[one->spare], memory_order_acquire);
}

static void kill_daemons_of(mpx_member dead) {
  for (size_t i = 0; i < serve.worker_count; i++) {
    mpx_slot *slot = mpx_table_slot(serve.header, member_of(&serve.workers[i]));
    if (slot && slot->daemon && slot->parent == dead)
      mpx_os_reaper_kill(serve.workers[i].pid);
  }
}

static void look_at_clients(const mpx_poll_item *polls) {
  for (size_t i = serve.client_count; i-- > 0;) {
    client *one = &serve.clients[i];
    /* the process, not the member: that is dead when it executes another program */
    bool gone = one->sentinel != MPX_NO_HANDLE
                    ? polls[i].ready
                    : !mpx_os_process_is_alive(one->pid, one->start_time);
    if (!gone)
      continue;
    kill_daemons_of(one->member);
    mpx_os_close(one->sentinel);
    *one = serve.clients[--serve.client_count];
  }
}

/* ---- workers --------------------------------------------------------------------------------- */

static bool remember_worker(worker one) {
  void *items = serve.workers;
  if (!make_room(&items, &serve.worker_capacity, serve.worker_count, sizeof one))
    return false;
  serve.workers = items;
  serve.workers[serve.worker_count++] = one;
  return true;
}

/* Closes what is the server's alone; the doors for asking stay, they are the worker's too. */
static void become_worker(void) {
  mpx_os_close(serve.door);
  for (size_t i = 0; i < serve.client_count; i++)
    mpx_os_close(serve.clients[i].sentinel);
  mpx_os_reaper_leave();
}

static mpx_worker_call call_for(bool is_spare) {
  return (mpx_worker_call){.message = serve.message,
                           .received = &serve.received,
                           .header = serve.header,
                           .now = &serve.surroundings,
                           .server_pid = serve.pid,
                           .not_ours = serve.spares,
                           .is_spare = is_spare};
}

static void fail_request(int code) {
  char text[256];
  (void)snprintf(text, sizeof text, "the forkserver cannot make a worker: %s%s",
                 mproc_strerror(code), mpx_os_limit_text(code));
  (void)mpx_birth_fail(((const mpx_request *)(void *)serve.message)->member, code, text);
}

static void start_worker(const mpx_request *request) {
  worker one = {.member = request->member, .spare = -1};
  if (!remember_worker(one)) {
    fail_request(-ENOMEM);
    return;
  }
  int64_t pid = mpx_os_fork();
  if (pid == 0) {
    mpx_worker_call call = call_for(false);
    become_worker();
    mpx_worker_run(&call);
    mpx_os_exit_now(0); /* called off */
  }
  MPROC_CRASH_POINT("server.forked");
  if (pid < 0) {
    serve.worker_count--;
    fail_request((int)pid);
    return;
  }
  serve.workers[serve.worker_count - 1].pid = pid;
}

/* Python would give the status to whoever asks; here the asker reads it in the slot. */
static void relay(mpx_member member, const mpx_exit *status) {
  mpx_slot *slot = mpx_table_slot(serve.header, member);
  if (!slot || slot->server != mpx_family_self())
    return;
  slot->exit = *status;
  /* release: pairs with the acquire of the asker, who reads `exit` */
  atomic_store_explicit(&slot->relay, MPX_RELAY_DONE, memory_order_release);
  MPROC_CRASH_POINT("server.relayed");
  mpx_os_word_wake_all(&slot->relay);
  if (slot->parent == 0 || mpx_member_is_dead(serve.header, slot->parent))
    mpx_family_bury(member);
}

static void free_spare(const worker *one) {
  if (one->spare < 0)
    return;
  atomic_store(&serve.open->spares[one->spare], 0);
  serve.refill_at = mpx_os_now() + REFILL_DELAY_NS;
}

static void end_member(mpx_member member, const mpx_exit *status) {
  if (!mpx_birth_fail(member, MPROC_EBOOT, "the worker was killed before its entry ran"))
    relay(member, status);
}

/* Of two workers that were asked for the same slot the slower was called off: it ends by itself,
 * and its end is not that of the member. */
static void bury_worker(worker *one) {
  mpx_exit status;
  mpx_member member = member_of(one);
  mpx_slot *slot = mpx_table_slot(serve.header, member);
  int64_t owner = slot && slot->server == mpx_family_self() ? atomic_load(&slot->pid) : -1;
  if (owner == one->pid)
    atomic_store_explicit(&slot->relay, MPX_RELAY_REAPING, memory_order_release);
  if (mpx_os_reaper_take(one->pid, &status) == 0)
    return;
  if (owner == one->pid || (owner == 0 && status.state == MPROC_STATE_SIGNALED))
    end_member(member, &status);
  free_spare(one);
  *one = serve.workers[--serve.worker_count];
}

static void reap(void) {
  int64_t pid;
  while ((pid = mpx_os_reaper_peek()) != 0) {
    worker *one = find_worker(pid);
    if (!one) { /* a child of the user's own code hides the others: ask for each */
      for (size_t i = serve.worker_count; i-- > 0;)
        if (mpx_os_reaper_has_ended(serve.workers[i].pid))
          bury_worker(&serve.workers[i]);
      return;
    }
    bury_worker(one);
  }
}

static void close_received(void) {
  for (size_t i = 0; i < serve.received.handle_count; i++)
    mpx_os_close(serve.received.handles[i]);
}

/* ---- spares ---------------------------------------------------------------------------------- */

/* A worker that was forked before it was asked for: it waits where the requests for spares come in,
 * and whoever of them is there takes the next. */
static _Noreturn void run_spare(int place) {
  mpx_worker_call call = call_for(true);
  const mpx_request *request = call.message;
  _Atomic mpx_member *self = &serve.open->spares[place];
  become_worker();
  (void)mpx_os_die_with_parent(serve.pid, true);
  mpx_os_set_process_name("mproc:spare");
  mpx_idle_add(serve.open, serve.member, 1);
  for (;;) {
    int r = mpx_os_channel_take(serve.spares, serve.message, sizeof serve.message, true,
                                &serve.received);
    if (r <= 0)
      mpx_os_exit_now(0);
    MPROC_CRASH_POINT("spare.taken");
    if (!serve.received.is_ours || serve.received.cut ||
        !mpx_request_is_sound(request, &serve.received) || request->kind != MPX_REQUEST_START) {
      close_received();
      continue;
    }
    atomic_store_explicit(self, request->member, memory_order_release);
    mpx_worker_run(&call); /* returns from one that was called off */
    close_received();
    atomic_store_explicit(self, 0, memory_order_release);
    mpx_idle_add(serve.open, serve.member, 1);
  }
}

static int free_place(void) {
  bool used[MPX_SPARES_MAX] = {false};
  for (size_t i = 0; i < serve.worker_count; i++)
    if (serve.workers[i].spare >= 0)
      used[serve.workers[i].spare] = true;
  for (int i = 0; i < MPX_SPARES_MAX; i++)
    if (!used[i])
      return i;
  return -1;
}

static int count_waiting(void) {
  int count = 0;
  for (size_t i = 0; i < serve.worker_count; i++)
    count += serve.workers[i].spare >= 0 && member_of(&serve.workers[i]) == 0;
  return count;
}

static bool add_spare(void) {
  worker one = {.spare = free_place()};
  if (one.spare < 0 || !remember_worker(one))
    return false;
  atomic_store(&serve.open->spares[one.spare], 0);
  int64_t pid = mpx_os_fork();
  if (pid == 0)
    run_spare(one.spare);
  if (pid < 0) {
    serve.worker_count--;
    return false;
  }
  serve.workers[serve.worker_count - 1].pid = pid;
  return true;
}

/* The count is a hint that a killed spare or starter leaves wrong: set right while no request is
 * under way. */
static void count_again(void) {
  mpx_poll_item queue = {.handle = serve.spares};
  int waiting = count_waiting();
  uint64_t seen = atomic_load(&serve.open->idle);
  if (mpx_os_poll(&queue, 1, 0) == 0 && (uint32_t)seen > (uint32_t)waiting)
    mpx_idle_add(serve.open, serve.member, waiting - (int)(uint32_t)seen);
}

/* Spares that took a request: who asked must be watched. */
static void notice_spares(void) {
  for (size_t i = 0; i < serve.worker_count; i++) {
    worker *one = &serve.workers[i];
    mpx_member member = one->member ? 0 : member_of(one);
    mpx_slot *slot = mpx_table_slot(serve.header, member);
    if (!slot || atomic_load_explicit(&slot->birth, memory_order_acquire) == MPX_BIRTH_AWAITED ||
        atomic_load(&slot->pid) != one->pid)
      continue;
    one->member = member;
    if (mpx_member_is_dead(serve.header, slot->parent))
      kill_daemons_of(slot->parent);
    else
      (void)know_client(slot->parent);
  }
}

static void refill(void) {
  if (serve.refill_at > mpx_os_now())
    return;
  serve.refill_at = MPX_NEVER;
  for (int missing = serve.spare_count - count_waiting(); missing > 0; missing--)
    if (!add_spare()) {
      serve.refill_at = mpx_os_now() + LOOK_NS;
      return;
    }
  count_again();
}

/* ---- requests -------------------------------------------------------------------------------- */

static void take_start(const mpx_request *request) {
  mpx_slot *slot = mpx_table_slot(serve.header, request->member);
  if (!slot || slot->server != mpx_family_self()) /* called off */
    return;
  if (mpx_member_is_dead(serve.header, slot->parent)) /* a sweep takes the slot */
    return;
  client *asker = know_client(slot->parent);
  if (serve.received.cut)
    fail_request(-EMFILE);
  else if (!asker)
    fail_request(-ENOMEM);
  else
    start_worker(request);
  if (serve.spare_count > 0 && serve.refill_at == MPX_NEVER)
    serve.refill_at = mpx_os_now() + REFILL_DELAY_NS;
}

/* Of those who became another user since, this alone: each may speak for itself. */
static bool is_farewell(const mpx_request *request) {
  const mpx_slot *slot = mpx_table_slot(serve.header, request->member);
  return mpx_request_is_sound(request, &serve.received) && request->kind == MPX_REQUEST_RETIRE &&
         slot && serve.received.pid != 0 && atomic_load(&slot->pid) == serve.received.pid;
}

static void take_request(void) {
  const mpx_request *request = (const mpx_request *)(void *)serve.message;
  if (!serve.received.is_ours && !is_farewell(request)) {
    mpx_log(MPROC_LOG_ERROR, "forkserver: process %lld, of another user, may not ask",
            (long long)serve.received.pid);
    return;
  }
  if (!serve.received.cut && !mpx_request_is_sound(request, &serve.received)) {
    mpx_log(MPROC_LOG_ERROR, "forkserver: %zu bytes that are no request were thrown away",
            serve.received.size);
    return;
  }
  if (serve.received.size < sizeof *request)
    return;
  if (request->kind == MPX_REQUEST_START) {
    take_start(request);
  } else if (request->kind == MPX_REQUEST_RETIRE) {
    client *asker = find_client(request->member);
    if (asker)
      asker->retired = true;
  } else if (serve.refill_at == MPX_NEVER) {
    serve.refill_at = mpx_os_now() + REFILL_DELAY_NS;
  }
}

/* A few at a time: the ended are waited for too. */
static void take_requests(void) {
  for (int i = 0; i < 16; i++) {
    if (mpx_os_channel_take(serve.door, serve.message, sizeof serve.message, false,
                            &serve.received) != 1)
      return;
    take_request();
    close_received();
  }
}

/* ---- the loop -------------------------------------------------------------------------------- */

static bool is_needed(void) {
  for (size_t i = 0; i < serve.client_count; i++)
    if (!serve.clients[i].retired)
      return true;
  return serve.worker_count > (size_t)count_waiting();
}

static void wait_for_news(mpx_poll_item *polls) {
  int64_t until = serve.refill_at;
  bool blind = serve.worker_count > 0; /* SIGCHLD may go to a thread of the user's */
  for (size_t i = 0; i < serve.client_count; i++) {
    polls[i] = (mpx_poll_item){.handle = serve.clients[i].sentinel};
    blind |= serve.clients[i].sentinel == MPX_NO_HANDLE;
  }
  polls[serve.client_count] = (mpx_poll_item){.handle = serve.door};
  int64_t look = mpx_os_now() + LOOK_NS;
  if (blind && look < until)
    until = look;
  (void)mpx_os_reaper_poll(polls, serve.client_count + 1, until);
}

static _Noreturn void serve_all(void) {
  mpx_poll_item *polls = NULL;
  size_t capacity = 0;
  while (is_needed()) { /* who had us made may be dead already */
    void *items = polls;
    while (!make_room(&items, &capacity, serve.client_count + 1, sizeof *polls))
      mpx_os_sleep(LOOK_NS);
    polls = items;
    wait_for_news(polls);
    reap();
    notice_spares();
    look_at_clients(polls);
    take_requests();
    reap();
    refill();
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
  return r == 0
             ? 0
             : mpx_fail(MPROC_EPRELOAD,
                        "preload function %zu of %zu (%.160s+0x%llx) returned %d; the forkserver "
                        "was not started",
                        i + 1, count, file, (unsigned long long)functions[i].offset, r);
}

static int begin(const mpx_boot_record *record, const mpx_function *functions) {
  size_t count = (size_t)record->argument_size / sizeof *functions;
  mproc_preload **preload = calloc(count + 1, sizeof *preload);
  mproc_context_options settings = {
      .preload = preload, .preload_count = count, .spares = record->spares};
  const mproc_handle doors[] = {record->doors[0], record->doors[2]};
  int r = preload ? 0 : mpx_fail_code(-ENOMEM, "the forkserver");
  serve.open = record->open;
  for (size_t i = 0; i < count && r == 0; i++)
    r = run_preload(record, functions, i, &preload[i]);
  if (r == 0)
    r = mpx_server_adopt(&settings, doors, serve.open);
  free(preload);
  /* What the workers begin with, which a preload function may have changed. */
  serve.open->environment = mpx_environment_hash(mpx_os_environment());
  if (r == 0)
    r = mpx_os_privilege_get(&serve.open->privilege);
  return r;
}

static void settle(const mpx_boot_record *record) {
  mpx_os_raise_handle_limit();
  mpx_os_stdio_flush();
  (void)mpx_os_streams_to_null(); /* whoever reads from our asker must not wait for us */
  (void)mpx_os_reaper_begin();
  (void)mpx_os_surroundings_get(&serve.surroundings);
  serve.header = mpx_family_header();
  serve.member = mpx_family_self();
  serve.open->surroundings = serve.surroundings;
  serve.door = record->doors[1];
  serve.spares = record->doors[3];
  serve.pid = mpx_os_pid();
  serve.spare_count = record->spares;
  serve.open->spare_count = (uint32_t)record->spares;
  serve.refill_at = record->spares > 0 ? 0 : MPX_NEVER;
  atomic_store(&serve.open->idle, (serve.member & 0xffffffff) << 32);
  for (int i = 0; i < MPX_SPARES_MAX; i++)
    atomic_store(&serve.open->spares[i], 0);
  (void)know_client(mpx_table_slot(serve.header, serve.member)->parent);
}

void mpx_server_run(const mpx_boot_record *record, const void *body) {
  mproc_handle report = record->head.report;
  char warning[256] = "";
  int r = begin(record, body);
  if (r < 0) {
    mpx_report_send(report, r, mproc_error_detail());
    mpx_os_exit_now(1);
  }
  int threads = mpx_os_thread_count();
  if (threads > 1)
    (void)snprintf(warning, sizeof warning,
                   "the preload functions left %d threads behind in the forkserver: workers have "
                   "no such threads, and locks that they hold stay locked",
                   threads - 1);
  settle(record);
  mpx_report_send(report, 0, warning);
  mpx_os_close(report);
  MPROC_CRASH_POINT("server.ready");
  serve_all();
}
