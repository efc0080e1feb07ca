/* The forkservers that this process knows: by settings, started when first used. */
#include "process/server.h"

#include "base/assert.h"
#include "base/error.h"
#include "base/hash.h"
#include "base/log.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "process/child.h"
#include "process/executable.h"
#include "process/request.h"
#include "process/settings.h"
#include "process/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A server that runs, or ran. Closed with its last holder. */
typedef struct mpx_instance {
  int holders; /* under the registry's lock, as everything here */
  mproc_handle door, spares;
  mpx_member member;
  mpx_server_public *open;
} mpx_instance;

struct mpx_server {
  mpx_server *next;
  char *executable, *helper;
  mproc_preload **preload;
  size_t preload_count;
  int spares;
  int contexts;
  mpx_instance *current; /* NULL: none */
  int64_t starter;       /* pid of the process whose thread starts one now, or 0 */
  mpx_transient transient;
};

MPX_STATIC_ASSERT(sizeof(mpx_server_public) <= sizeof(mpx_server_page), "it fits");

static mpx_server *servers; /* pushed under the registry's lock, never removed */

void mpx_idle_add(mpx_server_public *open, mpx_member server, int change) {
  uint64_t seen = atomic_load_explicit(&open->idle, memory_order_relaxed), next;
  do {
    int64_t count = (int64_t)(uint32_t)seen + change;
    if (seen >> 32 != mpx_idle_tag(server))
      return;
    next = (seen >> 32) << 32 | (uint32_t)(count < 0 ? 0 : count);
  } while (!atomic_compare_exchange_weak_explicit(&open->idle, &seen, next, memory_order_acq_rel,
                                                  memory_order_relaxed));
}

uint64_t mpx_environment_hash(char *const *environment) {
  uint64_t sum = MPX_HASH_SEED;
  for (; *environment; environment++)
    sum = mpx_hash(sum, *environment, strlen(*environment) + 1);
  return sum;
}

/* ---- settings -------------------------------------------------------------------------------- */

static bool same_string(const char *a, const char *b) {
  return a == b || (a && b && strcmp(a, b) == 0);
}

static bool has_settings(const mpx_server *server, const mproc_context_options *settings) {
  if (!same_string(server->executable, settings->executable) ||
      !same_string(server->helper, settings->helper) || server->spares != settings->spares ||
      server->preload_count != settings->preload_count)
    return false;
  for (size_t i = 0; i < server->preload_count; i++)
    if (server->preload[i] != settings->preload[i])
      return false;
  return true;
}

static mpx_server *find(const mproc_context_options *settings) {
  for (mpx_server *server = servers; server; server = server->next)
    if (has_settings(server, settings))
      return server;
  return NULL;
}

/* NULL: said why. */
static mpx_server *make(const mproc_context_options *settings) {
  static const mpx_transient nothing = MPX_TRANSIENT_NONE;
  size_t count = settings->preload_count;
  mpx_server *server = calloc(1, sizeof *server);
  if (!server || !(server->preload = calloc(count + 1, sizeof *server->preload))) {
    (void)mpx_fail_code(-ENOMEM, "the forkserver");
    goto fail;
  }
  if (mpx_copy_string(&server->executable, settings->executable) < 0 ||
      mpx_copy_string(&server->helper, settings->helper) < 0)
    goto fail;
  for (size_t i = 0; i < count; i++)
    server->preload[i] = settings->preload[i];
  server->preload_count = count;
  server->spares = settings->spares;
  server->transient = nothing;
  return server;
fail:
  if (server) {
    free(server->preload);
    free(server->executable);
  }
  free(server);
  return NULL;
}

mpx_server *mpx_server_for(const mproc_context_options *settings) {
  mpx_registry_lock();
  mpx_server *server = find(settings);
  if (!server && (server = make(settings)) != NULL) {
    server->next = servers;
    servers = server;
  }
  mpx_registry_unlock();
  return server;
}

/* Counted once for the built-in contexts, which nobody destroys. */
mpx_server *mpx_server_default(void) {
  static const mproc_context_options defaults;
  static atomic_flag counted = ATOMIC_FLAG_INIT;
  mpx_server *server = mpx_server_for(&defaults);
  if (server && !atomic_flag_test_and_set(&counted))
    mpx_server_ref(server);
  return server;
}

/* ---- instances ------------------------------------------------------------------------------- */

/* Under the lock. */
static void let_go(mpx_instance *instance) {
  if (--instance->holders > 0)
    return;
  mpx_os_close(instance->door);
  mpx_os_close(instance->spares);
  free(instance);
}

void mpx_server_release(const mpx_server_view *view) {
  mpx_registry_lock();
  let_go(view->instance);
  mpx_registry_unlock();
}

static void hold(mpx_instance *instance, mpx_server_view *ret_view) {
  instance->holders++;
  *ret_view = (mpx_server_view){.instance = instance,
                                .door = instance->door,
                                .spares = instance->spares,
                                .member = instance->member,
                                .open = instance->open};
}

/* Not ours to bury any more: now, or by a sweep when it has ended. */
static void give_up(mpx_member member) {
  mpx_header *header = mpx_family_header();
  mpx_slot *slot = mpx_table_slot(header, member);
  if (slot && slot->parent == mpx_family_self())
    slot->parent = 0;
  if (slot && mpx_member_is_dead(header, member))
    mpx_family_bury(member);
}

void mpx_server_drop(mpx_server *server, const mpx_server_view *view) {
  mpx_registry_lock();
  bool ours = server->current == view->instance;
  if (ours) {
    server->current = NULL;
    let_go(view->instance);
  }
  mpx_registry_unlock();
  if (!ours)
    return;
  mpx_request_tell(view->door, MPX_REQUEST_RETIRE, mpx_family_self());
  give_up(view->member);
}

/* It ends when its workers have ended; what it owns is then for a sweep to give back. */
static void retire(mpx_instance *instance) {
  mpx_request_tell(instance->door, MPX_REQUEST_RETIRE, mpx_family_self());
  give_up(instance->member);
  mpx_registry_lock();
  let_go(instance);
  mpx_registry_unlock();
}

void mpx_server_stop(mpx_server *server) {
  mpx_registry_lock();
  mpx_instance *instance = server->current;
  server->current = NULL;
  mpx_registry_unlock();
  if (instance)
    retire(instance);
}

void mpx_server_ref(mpx_server *server) {
  mpx_registry_lock();
  server->contexts++;
  mpx_registry_unlock();
}

void mpx_server_unref(mpx_server *server) {
  mpx_registry_lock();
  bool last = --server->contexts == 0;
  mpx_registry_unlock();
  if (last)
    mpx_server_stop(server);
}

/* The doors are the child's too, and lead to the same servers. A copy of a start that another
 * thread was at is nobody's. */
void mpx_server_reset_in_child(void) {
  for (mpx_server *server = servers; server; server = server->next) {
    mpx_transient_close(&server->transient);
    if (server->current)
      server->current->holders = 1;
  }
}

int mpx_server_adopt(const mproc_context_options *settings, const mproc_handle doors[2],
                     mpx_server_public *open) {
  mpx_server *server = mpx_server_for(settings);
  mpx_instance *instance = server ? calloc(1, sizeof *instance) : NULL;
  if (!instance)
    return mpx_fail_code(-ENOMEM, "the forkserver");
  *instance = (mpx_instance){.holders = 1,
                             .door = doors[0],
                             .spares = doors[1],
                             .member = mpx_family_self(),
                             .open = open};
  server->contexts++; /* no context of a worker sends its own server away */
  server->current = instance;
  return 0;
}

/* ---- the public part ------------------------------------------------------------------------- */

static bool is_free(mpx_header *header, mpx_server_public *open, mpx_member *ret_owner) {
  *ret_owner = atomic_load_explicit(&open->owner, memory_order_acquire);
  return *ret_owner == 0 || mpx_member_is_dead(header, *ret_owner);
}

static int take_public(mpx_member owner, mpx_server_public **ret_open) {
  mpx_header *header = mpx_family_header();
  mpx_member former;
  for (int i = 0; i < MPX_SERVER_COUNT; i++) {
    mpx_server_public *open = (mpx_server_public *)(void *)&header->servers[i];
    int r = mpx_os_commit(open, sizeof(mpx_server_page));
    if (r < 0)
      return mpx_fail(r, "no memory for what the forkserver shows to the family");
    if (is_free(header, open, &former) &&
        atomic_compare_exchange_strong(&open->owner, &former, owner)) {
      *ret_open = open;
      return 0;
    }
  }
  return mpx_fail(MPROC_ETABLEFULL,
                  "the family has %d forkservers, the most it can have; share contexts, or stop "
                  "those that are not needed (mproc_context_stop)",
                  MPX_SERVER_COUNT);
}

/* ---- starting one ---------------------------------------------------------------------------- */

typedef struct launch_plan {
  mpx_boot_record record;
  char executable[MPX_OS_PATH_SIZE];
  mproc_handle ends[4]; /* door and spares: the askers' end, the server's */
  mpx_server_public *open;
  mpx_member member;
  int64_t pid, start_time; /* of what was executed; 0: unknown */
} launch_plan;

static int fail_launch(int r) {
  return mpx_fail(r, "cannot start the forkserver: %s%s", mproc_strerror(r), mpx_os_limit_text(r));
}

static int claim_member(launch_plan *plan) {
  static const char name[MPX_NAME_SIZE] = "forkserver";
  int r = mpx_start_claim(name, MPX_METHOD_FORKSERVER, false, &plan->member);
  if (r < 0)
    return r;
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), plan->member);
  atomic_store_explicit(&slot->gate, MPX_GATE_OPEN, memory_order_relaxed);
  return take_public(plan->member, &plan->open);
}

static int make_channels(mpx_server *server, launch_plan *plan) {
  mpx_registry_lock();
  int r = mpx_os_pipe(server->transient.report);
  if (r == 0)
    r = mpx_os_channel(&plan->ends[0]);
  if (r == 0)
    r = mpx_os_channel(&plan->ends[2]);
  mpx_registry_unlock();
  for (int i = 1; r == 0 && i < 4; i += 2)
    r = mpx_os_channel_prove_senders(plan->ends[i]);
  return r < 0 ? fail_launch(r) : 0;
}

static int seal_record(mpx_server *server, launch_plan *plan) {
  mpx_boot_record *record = &plan->record;
  size_t size = server->preload_count * sizeof(mpx_function);
  mpx_function *functions = calloc(1, size + 1);
  if (!functions)
    return mpx_fail_code(-ENOMEM, "starting the forkserver");
  int r = mpx_boot_prepare(record, MPX_BOOT_SERVER, server->transient.report[1]);
  for (size_t i = 0; i < server->preload_count && r == 0; i++)
    r = mpx_function_of((uintptr_t)server->preload[i], &functions[i]);
  if (r == 0)
    r = mpx_family_ticket_for(plan->member, &record->ticket);
  memcpy(record->doors, plan->ends, sizeof plan->ends);
  record->open = plan->open;
  record->spares = server->spares;
  record->chosen_method = (uint32_t)mpx_method_chosen();
  record->argument_at = record->inherited_at = sizeof *record;
  record->argument_size = size;
  record->head.size = sizeof *record + size;
  const mpx_os_bytes parts[] = {{record, sizeof *record}, {functions, size}};
  mpx_registry_lock();
  if (r == 0 && (r = mpx_os_seal_create("mproc-boot", parts, 2, &server->transient.record)) < 0)
    (void)fail_launch(r);
  mpx_registry_unlock();
  free(functions);
  return r;
}

static int execute(mpx_server *server, launch_plan *plan) {
  const mproc_handle keep[] = {plan->ends[0],
                               plan->ends[1],
                               plan->ends[2],
                               plan->ends[3],
                               plan->record.ticket.handle,
                               server->transient.record,
                               server->transient.report[1]};
  mpx_boot_launch boot = {.launch = {.path = plan->executable,
                                     .keep = keep,
                                     .keep_count = sizeof keep / sizeof keep[0],
                                     .orphan = true,
                                     .credentials = &plan->record.credentials},
                          .title = "mproc:forkserver",
                          .record = server->transient.record};
  mpx_child child = MPX_NO_CHILD;
  mpx_stage stage;
  int r = mpx_boot_spawn(&boot, &child, &stage);
  plan->pid = r == 0 ? child.pid : 0;
  plan->start_time = plan->pid ? mpx_os_start_time(plan->pid) : 0;
  if (r < 0 && stage == MPX_STAGE_EXEC)
    return mpx_fail(r, "cannot execute '%s' as the forkserver: %s", plan->executable,
                    mproc_strerror(r));
  return r < 0 ? mpx_fail(r, "cannot start the forkserver: %s failed: %s%s",
                          mpx_os_stage_text(stage), mproc_strerror(r), mpx_os_limit_text(r))
               : 0;
}

/* A report of 1 says what the server is at; 0, with a warning or none, that it serves. */
static int await_server(mproc_handle from, mpx_member member, int64_t deadline) {
  mpx_report report;
  char at[sizeof report.text] = "before its first preload function";
  for (;;) {
    mpx_poll_item item = {.handle = from};
    int64_t now = mpx_os_now(), slice = now + 100 * MPX_NS_PER_MS;
    if (mpx_os_poll(&item, 1, slice < deadline ? slice : deadline) == 0) {
      if (mpx_member_is_dead(mpx_family_header(), member) &&
          mpx_slot_pid(mpx_table_slot(mpx_family_header(), member)) != 0)
        break;
      if (now >= deadline)
        return mpx_fail(-ETIMEDOUT,
                        "the forkserver did not get ready in time, %s; does its program call "
                        "mproc_init() first in main()?",
                        at);
      continue;
    }
    if (mpx_os_read(from, &report, sizeof report) != (int64_t)sizeof report)
      break;
    report.text[sizeof report.text - 1] = '\0';
    if (report.code < 0)
      return mpx_fail(report.code, "%s", report.text);
    if (report.code == 0) {
      if (report.text[0])
        mpx_log(MPROC_LOG_ERROR, "%s", report.text);
      return 0;
    }
    memcpy(at, report.text, sizeof at);
  }
  return mpx_fail(MPROC_EBOOT,
                  "the forkserver ended %s; was it killed, or does its program not call "
                  "mproc_init() first in main()?",
                  at);
}

static void close_report_end(mpx_server *server) {
  mpx_registry_lock();
  mpx_os_close(server->transient.report[1]);
  server->transient.report[1] = MPX_NO_HANDLE;
  mpx_registry_unlock();
}

static int launch(mpx_server *server, launch_plan *plan, int64_t deadline) {
  int r = mpx_executable_for_server(server->executable, server->helper, plan->executable);
  if (r == 0)
    r = claim_member(plan);
  if (r == 0)
    r = make_channels(server, plan);
  if (r == 0)
    r = seal_record(server, plan);
  MPROC_CRASH_POINT("server.prepared");
  if (r == 0)
    r = execute(server, plan);
  MPROC_CRASH_POINT("server.executed");
  close_report_end(server);
  return r == 0 ? await_server(server->transient.report[0], plan->member, deadline) : r;
}

/* One that hangs would keep the slot, and its cell, for ever. */
static void remove_server(const launch_plan *plan) {
  mpx_header *header = mpx_family_header();
  mpx_slot *slot = mpx_table_slot(header, plan->member);
  int64_t deadline = mpx_os_now() + MPX_NS_PER_S;
  if (plan->pid > 0)
    mpx_os_process_kill(plan->pid, plan->start_time, MPX_NO_HANDLE);
  if (!slot || mpx_table_retract(header, plan->member))
    return;
  int64_t pid = mpx_slot_pid(slot);
  if (plan->pid <= 0 && pid > 0)
    mpx_os_process_kill(pid, mpx_os_start_time(pid), MPX_NO_HANDLE);
  while (!mpx_member_is_dead(header, plan->member) && mpx_os_now() < deadline)
    mpx_os_sleep(MPX_NS_PER_MS);
  give_up(plan->member);
}

/* The server that failed goes, and what was made for it. */
static void clean_up(mpx_server *server, const launch_plan *plan, bool failed) {
  mpx_registry_lock();
  mpx_transient_close(&server->transient);
  for (int i = 0; i < 4; i++)
    if (failed || i % 2 == 1)
      mpx_os_close(plan->ends[i]);
  mpx_registry_unlock();
  if (failed && plan->member)
    remove_server(plan);
  if (failed && plan->open) {
    mpx_member owner = plan->member;
    (void)atomic_compare_exchange_strong(&plan->open->owner, &owner, 0);
  }
}

static int start(mpx_server *server, int64_t deadline, mpx_instance **ret_instance) {
  launch_plan *plan = calloc(1, sizeof *plan);
  mpx_instance *instance = calloc(1, sizeof *instance);
  int r = -ENOMEM;
  if (!plan || !instance) {
    (void)mpx_fail_code(r, "starting the forkserver");
    goto finish;
  }
  for (int tries = 0; tries < MPX_ADDRESS_TRIES; tries++) {
    memset(plan, 0, sizeof *plan); /* too large for a compound literal: stacks may be small */
    for (int i = 0; i < 4; i++)
      plan->ends[i] = MPX_NO_HANDLE; /* those of the last try were closed */
    r = launch(server, plan, deadline);
    clean_up(server, plan, r < 0);
    if (r != -EEXIST)
      break;
    mpx_log(MPROC_LOG_INFO, "forkserver: the shared heap's address was taken in it; %s",
            tries + 1 < MPX_ADDRESS_TRIES ? "starting it again" : "giving up");
  }
  if (r == -EEXIST)
    r = mpx_fail(MPROC_EADDRESS,
                 "the address of the shared heap was taken in %d forkservers in a row; give "
                 "mproc_init a smaller heap_size",
                 MPX_ADDRESS_TRIES);
  if (r < 0)
    goto finish;
  *instance = (mpx_instance){.holders = 1,
                             .door = plan->ends[0],
                             .spares = plan->ends[2],
                             .member = plan->member,
                             .open = plan->open};
  *ret_instance = instance;
  instance = NULL;
  mpx_log(MPROC_LOG_DEBUG, "forkserver: process %lld serves",
          (long long)mpx_slot_pid(mpx_table_slot(mpx_family_header(), plan->member)));
finish:
  free(plan);
  free(instance);
  return r;
}

/* One thread at a time starts one: 0, the caller is to. 1: one is up, and held by *ret_view; where
 * that is NULL, another one is wanted in any case. */
static int wait_for_turn(mpx_server *server, int64_t deadline, mpx_server_view *ret_view) {
  for (;;) {
    mpx_registry_lock();
    bool up = ret_view && server->current != NULL;
    bool mine = !up && server->starter != mpx_os_pid();
    if (up)
      hold(server->current, ret_view);
    if (mine)
      server->starter = mpx_os_pid();
    mpx_registry_unlock();
    if (up || mine)
      return up;
    if (mpx_os_now() >= deadline)
      return mpx_fail(-ETIMEDOUT, "another thread is starting the forkserver and has not got it "
                                  "ready in time; does a preload function block?");
    mpx_os_sleep(MPX_NS_PER_MS);
  }
}

int mpx_server_use(mpx_server *server, int64_t deadline, mpx_server_view *ret_view) {
  mpx_instance *made = NULL;
  int r = wait_for_turn(server, deadline, ret_view);
  ret_view->is_new = false;
  if (r != 0)
    return r < 0 ? r : 0;
  r = start(server, deadline, &made);
  mpx_registry_lock();
  server->starter = 0;
  server->current = made;
  if (made)
    hold(made, ret_view);
  mpx_registry_unlock();
  ret_view->is_new = r == 0;
  return r;
}

/* The one that serves does so until the new one is up, and goes on if that fails. */
int mpx_server_refresh(mpx_server *server) {
  int64_t deadline = mpx_os_now() + 60 * MPX_NS_PER_S;
  mpx_instance *made = NULL, *former = NULL;
  int r = wait_for_turn(server, deadline, NULL);
  if (r < 0)
    return r;
  r = start(server, deadline, &made);
  mpx_registry_lock();
  server->starter = 0;
  if (made) {
    former = server->current;
    server->current = made;
  }
  mpx_registry_unlock();
  if (former)
    retire(former);
  return r;
}
