/* The worker: a fresh child of a forkserver becomes the process that was asked for. */
#include "base/error.h"
#include "base/log.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "process/child.h"
#include "process/guardian.h"
#include "process/request.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The request as the worker reads it. */
typedef struct job {
  const mpx_request *request;
  unsigned char *bytes; /* the body */
  const mpx_request_body *body;
  mproc_handle sealed, cwd, held, channel;
  mproc_handle streams[3];
  const mproc_handle *named;
  size_t named_count;
} job;

/* ---- reading --------------------------------------------------------------------------------- */

bool mpx_request_is_sound(const mpx_request *request, const mpx_received *received) {
  if (received->size < sizeof *request || request->magic != MPX_REQUEST_MAGIC ||
      request->kind < MPX_REQUEST_START || request->kind > MPX_REQUEST_REFILL)
    return false;
  if (request->kind != MPX_REQUEST_START)
    return true;
  size_t handles = request->has_channel ? 1 : request->inherit_count;
  const uint32_t there[] = {request->sealed, request->has_cwd, request->has_held};
  for (int i = 0; i < 3; i++) {
    handles += there[i] != 0;
    handles += request->streams[i] == MPX_STREAM_PASSED;
  }
  size_t body = request->sealed ? 0 : (size_t)request->body_size;
  return received->handle_count == handles && received->size == sizeof *request + body;
}

static mproc_handle next_handle(const mpx_received *received, size_t *at, uint32_t there) {
  return there ? received->handles[(*at)++] : MPX_NO_HANDLE;
}

static void sort_handles(const mpx_received *received, job *all) {
  const mpx_request *request = all->request;
  size_t at = 0;
  all->sealed = next_handle(received, &at, request->sealed);
  all->cwd = next_handle(received, &at, request->has_cwd);
  all->held = next_handle(received, &at, request->has_held);
  for (int i = 0; i < 3; i++)
    all->streams[i] = next_handle(received, &at, request->streams[i] == MPX_STREAM_PASSED);
  all->named = received->handles + at;
  all->named_count = request->has_channel ? 0 : request->inherit_count;
  at += all->named_count;
  all->channel = next_handle(received, &at, request->has_channel);
}

/* The copy is the worker's for good: the argument block lies in it. */
static int read_sealed(job *all) {
  const void *data;
  size_t size;
  int r = mpx_os_seal_read(all->sealed, &data, &size);
  if (r < 0)
    return r;
  size_t room = (size + 63) / 64 * 64;
  all->bytes = size == all->request->body_size ? aligned_alloc(64, room) : NULL;
  if (all->bytes)
    memcpy(all->bytes, data, size);
  mpx_os_seal_release(data, size);
  mpx_os_close(all->sealed);
  return all->bytes ? 0 : -ENOMEM;
}

static bool is_inside(const job *all, mpx_range range) {
  return range.at <= all->request->body_size && range.size <= all->request->body_size - range.at;
}

static bool is_string(const job *all, mpx_range range) {
  return range.size == 0 || all->bytes[range.at + range.size - 1] == '\0';
}

static bool body_is_sound(const job *all) {
  const mpx_request_body *body = all->body;
  const mpx_range ranges[] = {body->entry,  body->limits,      body->cpus,  body->cwd,
                              body->cgroup, body->environment, body->names, body->argument};
  for (size_t i = 0; i < sizeof ranges / sizeof ranges[0]; i++)
    if (!is_inside(all, ranges[i]))
      return false;
  return is_string(all, body->cwd) && is_string(all, body->cgroup) && is_string(all, body->entry) &&
         is_string(all, body->environment) && body->entry.size <= sizeof(mpx_function) &&
         body->entry.size > offsetof(mpx_function, path) &&
         body->environment_count <= body->environment.size &&
         body->names.size == (uint64_t)all->request->inherit_count * MPX_NAME_SIZE;
}

static int read_body(void *message, job *all) {
  int r = 0;
  if (all->request->sealed)
    r = read_sealed(all);
  else
    all->bytes = (unsigned char *)message + sizeof *all->request;
  all->body = (const mpx_request_body *)(const void *)all->bytes;
  if (r < 0 || all->request->body_size < sizeof *all->body || !body_is_sound(all))
    return mpx_fail(r < 0 ? r : MPROC_ERECORD, "the worker cannot read its request: %s",
                    mproc_strerror(r < 0 ? r : MPROC_ERECORD));
  return 0;
}

/* ---- becoming -------------------------------------------------------------------------------- */

static const char *string_at(const job *all, mpx_range range) {
  return range.size ? (const char *)all->bytes + range.at : NULL;
}

static int fail_stage(int r, const mpx_launch *launch, mpx_stage stage) {
  char text[MPX_STAGE_TEXT_SIZE];
  return mpx_fail(r, "%s failed: %s%s", mpx_launch_say(launch, stage, text), mproc_strerror(r),
                  mpx_os_limit_text(r));
}

/* What a forked child would have by nature. */
static int take_surroundings(const mpx_worker_call *call, const job *all) {
  mpx_stage stage = MPX_STAGE_STREAMS;
  if (call->is_spare)
    mpx_os_reaper_forget_signals(); /* of the group that it waited in */
  int r = mpx_os_streams_install(all->streams);
  if (r == 0) {
    stage = MPX_STAGE_PARENT;
    if (all->request->daemon || call->is_spare)
      r = mpx_os_die_with_parent(call->server_pid, all->request->daemon != 0);
  }
  if (r == 0)
    r = mpx_os_surroundings_apply(&all->request->surroundings, call->now, all->cwd, &stage);
  mpx_os_close(all->cwd);
  return r < 0 ? fail_stage(r, NULL, stage) : 0;
}

static int apply_options(const mpx_worker_call *call, const job *all) {
  const mpx_request_body *body = all->body;
  mproc_stream streams[3] = {{.kind = MPROC_STREAM_INHERIT}};
  mpx_launch launch = {.streams = streams,
                       .cwd = string_at(all, body->cwd),
                       .limits = (const mproc_limit *)(const void *)(all->bytes + body->limits.at),
                       .limit_count = (size_t)body->limits.size / sizeof(mproc_limit),
                       .cpus = (const int *)(const void *)(all->bytes + body->cpus.at),
                       .cpu_count = (size_t)body->cpus.size / sizeof(int),
                       .nice = body->nice,
                       .cgroup = string_at(all, body->cgroup)};
  mpx_stage stage;
  for (int i = 0; i < 3; i++)
    if (all->request->streams[i] == MPX_STREAM_NULL)
      streams[i].kind = MPROC_STREAM_NULL;
  int r = mpx_os_apply(&launch, call->server_pid, &stage);
  return r < 0 ? fail_stage(r, &launch, stage) : 0;
}

static int set_environment(const job *all) {
  const mpx_request_body *body = all->body;
  if (!body->has_environment)
    return 0;
  static char **list; /* no leak when libc makes one of its own at the first setenv() */
  list = calloc((size_t)body->environment_count + 1, sizeof *list);
  char *at = (char *)all->bytes + body->environment.at, *end = at + body->environment.size;
  if (!list)
    return mpx_fail_code(-ENOMEM, "setting the environment");
  for (uint32_t i = 0; i < body->environment_count && at < end; i++) {
    list[i] = at;
    at += strlen(at) + 1;
  }
  mpx_os_set_environment(list);
  return 0;
}

/* Takes the handles that did not fit into the request. */
static int drain_channel(const job *all, mproc_handle *handles) {
  size_t count = 0;
  while (all->channel != MPX_NO_HANDLE && count < all->request->inherit_count) {
    mpx_received part;
    char byte;
    int r = mpx_os_channel_take(all->channel, &byte, 1, true, &part);
    if (r <= 0 || part.cut || part.handle_count > all->request->inherit_count - count)
      return mpx_fail(-EMFILE, "passing the descriptors failed: %s", mpx_os_limit_text(-EMFILE));
    memcpy(handles + count, part.handles, part.handle_count * sizeof *handles);
    count += part.handle_count;
  }
  mpx_os_close(all->channel);
  return 0;
}

static int set_inherited(const job *all) {
  size_t count = all->request->inherit_count;
  mproc_inherit *list = calloc(count + 1, sizeof *list);
  mproc_handle *handles = calloc(count + 1, sizeof *handles);
  if (!list || !handles) {
    free(list);
    free(handles);
    return mpx_fail_code(-ENOMEM, "passing the descriptors");
  }
  memcpy(handles, all->named, all->named_count * sizeof *handles);
  int r = drain_channel(all, handles);
  for (size_t i = 0; i < count; i++) {
    char *name = (char *)all->bytes + all->body->names.at + i * MPX_NAME_SIZE;
    name[MPX_NAME_SIZE - 1] = '\0';
    list[i] = (mproc_inherit){.handle = handles[i], .name = name};
  }
  free(handles);
  mpx_inherited_set(list, count);
  return r; /* NOLINT(clang-analyzer-unix.Malloc): the list is the process's for good */
}

static int resolve_entry(const job *all, mproc_entry **ret_entry) {
  mpx_function *function = calloc(1, sizeof *function);
  uintptr_t address;
  if (!function)
    return mpx_fail_code(-ENOMEM, "finding the entry");
  memcpy(function, all->bytes + all->body->entry.at, (size_t)all->body->entry.size);
  int r = mpx_function_resolve(function, &address);
  free(function);
  if (r == 0)
    *ret_entry = (mproc_entry *)address;
  return r;
}

/* False: the asker is dead, or has called the start off before it opened the gate. */
static bool may_go_on(const mpx_worker_call *call, mpx_member member) {
  mpx_slot *slot = mpx_table_slot(call->header, member);
  return slot && mpx_gate_pass(call->header, member) &&
         atomic_load(&slot->birth) == MPX_BIRTH_AWAITED;
}

/* Meanwhile the asker looks whether it may have what the server is. What comes before the gate
 * touches this process alone; what comes behind may write elsewhere, or run the user's code. */
static int become(const mpx_worker_call *call, job *all, mproc_entry **ret_entry) {
  int r = read_body(call->message, all);
  if (r == 0)
    r = take_surroundings(call, all);
  if (r == 0)
    r = set_environment(all);
  if (!may_go_on(call, all->request->member))
    mpx_os_exit_now(0);
  if (r == 0)
    r = apply_options(call, all);
  if (r == 0)
    r = resolve_entry(all, ret_entry);
  if (r == 0)
    r = set_inherited(all);
  return r;
}

/* False when the asker has given up meanwhile. */
static bool announce(mpx_slot *slot, uint32_t birth) {
  uint32_t awaited = MPX_BIRTH_AWAITED;
  /* release: pairs with the acquire of the starter, who reads pid and report */
  bool told = atomic_compare_exchange_strong_explicit(&slot->birth, &awaited, birth,
                                                      memory_order_acq_rel, memory_order_relaxed);
  mpx_os_word_wake_all(&slot->birth);
  return told;
}

static void write_report(mpx_member member, int code, const char *text) {
  mpx_report *report = mpx_table_report(mpx_family_header(), member);
  if (report) {
    report->code = code;
    (void)snprintf(report->text, sizeof report->text, "%s", text);
  }
}

/* Nobody has a pid there: that it is over stands in `relay`, before the asker can act on it. */
static void mark_unborn(mpx_slot *slot) {
  slot->exit = (mpx_exit){.state = MPROC_STATE_UNKNOWN, .code = -1};
  /* release: pairs with the acquire in mpx_member_is_dead */
  atomic_store_explicit(&slot->relay, MPX_RELAY_DONE, memory_order_release);
}

bool mpx_birth_fail(mpx_member member, int code, const char *text) {
  mpx_header *header = mpx_family_header();
  bool unborn = mpx_table_take(header, member, 0) == 0;
  mpx_slot *slot = mpx_table_slot(header, member);
  if (!unborn && (!slot || slot->server != mpx_family_self() ||
                  atomic_load_explicit(&slot->birth, memory_order_acquire) != MPX_BIRTH_AWAITED))
    return false; /* called off, or the worker said more itself */
  write_report(member, code, text);
  if (unborn)
    mark_unborn(slot);
  (void)announce(slot, MPX_BIRTH_FAILED);
  return unborn;
}

void mpx_worker_rehearse(const mpx_surroundings *now) {
  mpx_function *function = calloc(1, sizeof *function);
  uintptr_t address;
  mpx_stage stage;
  if (function && mpx_function_of((uintptr_t)mpx_worker_run, function) == 0)
    (void)mpx_function_resolve(function, &address);
  free(function);
  mpx_family_touch();
  (void)mpx_os_surroundings_apply(now, now, MPX_NO_HANDLE, &stage);
  (void)mpx_os_now();
}

void mpx_worker_run(const mpx_worker_call *call) {
  job all = {.request = call->message};
  mproc_entry *entry = NULL;
  mpx_member member = all.request->member;
  sort_handles(call->received, &all);
  MPROC_CRASH_POINT("worker.born");
  if (mpx_family_adopt(member) < 0)
    return;
  MPROC_CRASH_POINT("worker.member");
  mpx_os_close(call->not_ours);
  int r = become(call, &all, &entry);
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), member);
  if (r < 0) {
    write_report(member, r, mproc_error_detail());
    (void)announce(slot, MPX_BIRTH_FAILED);
    mpx_os_exit_now(127);
  }
  mpx_method_inherit((mpx_method)all.body->chosen_method);
  mpx_self_set(member);
  mpx_os_set_process_name(slot->name);
  mpx_child_set_barrier();
  mpx_after_fork_run();
  MPROC_CRASH_POINT("worker.ready");
  if (!announce(slot, MPX_BIRTH_DONE))
    mpx_os_exit_now(0);
  size_t size = (size_t)all.body->argument.size;
  mpx_child_run(entry, size ? all.bytes + all.body->argument.at : NULL, size, false);
}
