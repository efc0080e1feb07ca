/* The asker's side of a request. */
#include "process/request.h"

#include "base/error.h"
#include "base/log.h"
#include "heap/family.h"
#include "os/crash_point.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* More handles than this go through a channel of their own, in messages of as many. */
enum { INLINE_HANDLES = 200, HANDLES_MAX = 2000, PART = 64 };

/* ---- the body -------------------------------------------------------------------------------- */

/* Grows; `failed` once there is no memory. */
typedef struct builder {
  unsigned char *bytes;
  size_t used, capacity;
  bool failed;
} builder;

/* Adds room for `size` bytes, all zero up to the next part. */
static void *grow(builder *to, size_t size, mpx_range *ret_range) {
  size_t padded = (size + PART - 1) / PART * PART;
  if (!to->failed && to->used + padded > to->capacity) {
    size_t capacity = (to->used + padded) * 2;
    unsigned char *bytes = realloc(to->bytes, capacity);
    to->failed = bytes == NULL;
    if (bytes) {
      to->bytes = bytes;
      to->capacity = capacity;
    }
  }
  if (to->failed)
    return NULL;
  void *place = to->bytes + to->used;
  memset(place, 0, padded);
  *ret_range = (mpx_range){.at = to->used, .size = size};
  to->used += padded;
  return place;
}

static mpx_range add(builder *to, const void *data, size_t size) {
  mpx_range range = {0};
  void *place = size ? grow(to, size, &range) : NULL;
  if (place)
    memcpy(place, data, size);
  return range;
}

static mpx_range add_string(builder *to, const char *string) {
  return string ? add(to, string, strlen(string) + 1) : (mpx_range){0};
}

static mpx_range add_environment(builder *to, char *const *environment, uint32_t *ret_count) {
  size_t size = 0;
  uint32_t count = 0;
  mpx_range range = {0};
  for (; environment[count]; count++)
    size += strlen(environment[count]) + 1;
  char *place = grow(to, size + 1, &range);
  for (uint32_t i = 0; place && i < count; i++) {
    size_t length = strlen(environment[i]) + 1;
    memcpy(place, environment[i], length);
    place += length;
  }
  *ret_count = count;
  return range;
}

static mpx_range add_names(builder *to, const mproc_process_options *options) {
  mpx_range range = {0};
  char *place =
      options->inherit_count ? grow(to, options->inherit_count * MPX_NAME_SIZE, &range) : NULL;
  for (size_t i = 0; place && i < options->inherit_count; i++)
    memcpy(place + i * MPX_NAME_SIZE, options->inherit[i].name,
           strlen(options->inherit[i].name) + 1);
  return range;
}

/* One by one: the padding holds whatever the caller's memory held. */
static mpx_range add_limits(builder *to, const mproc_process_options *options) {
  mpx_range range = {0};
  size_t size = options->limit_count * sizeof(mproc_limit);
  mproc_limit *copies = size ? grow(to, size, &range) : NULL;
  for (size_t i = 0; copies && i < options->limit_count; i++) {
    copies[i].resource = options->limits[i].resource;
    copies[i].soft = options->limits[i].soft;
    copies[i].hard = options->limits[i].hard;
  }
  return range;
}

static int add_entry(builder *to, const mproc_process *process, mpx_range *ret_range) {
  mpx_function *function = malloc(sizeof *function);
  if (!function)
    return -ENOMEM;
  int r = mpx_function_of((uintptr_t)process->entry, function);
  if (r == 0)
    *ret_range = add(to, function, offsetof(mpx_function, path) + strlen(function->path) + 1);
  free(function);
  return r;
}

/* Everything but the argument, whose place comes behind. */
static int build_body(const mproc_process *process, const mpx_server_view *server, builder *to) {
  const mproc_process_options *options = &process->options;
  char *const *environment =
      options->environment ? (char *const *)(uintptr_t)options->environment : mpx_os_environment();
  mpx_request_body body = {.chosen_method = (uint32_t)mpx_method_chosen(),
                           .nice = options->nice,
                           .has_environment =
                               options->environment ||
                               mpx_environment_hash(environment) != server->open->environment};
  mpx_range self;
  (void)grow(to, sizeof body, &self);
  int r = add_entry(to, process, &body.entry);
  if (r < 0)
    return r;
  body.limits = add_limits(to, options);
  body.cpus = add(to, options->cpus, options->cpu_count * sizeof *options->cpus);
  body.cwd = add_string(to, options->cwd);
  body.cgroup = add_string(to, options->cgroup);
  if (body.has_environment)
    body.environment = add_environment(to, environment, &body.environment_count);
  body.names = add_names(to, options);
  body.argument = (mpx_range){.at = to->used, .size = process->arg_size};
  if (to->failed)
    return mpx_fail_code(-ENOMEM, "asking the forkserver");
  memcpy(to->bytes, &body, sizeof body);
  return 0;
}

/* ---- the handles ----------------------------------------------------------------------------- */

typedef struct handle_list {
  mproc_handle items[MPX_MESSAGE_HANDLES];
  size_t count;
} handle_list;

static uint32_t list_handle(handle_list *list, mproc_handle handle) {
  if (handle == MPX_NO_HANDLE)
    return 0;
  list->items[list->count++] = handle;
  return 1;
}

static mproc_handle stream_for(const mproc_process *process, int index) {
  const mproc_stream *stream = &process->options.streams[index];
  if (stream->kind == MPROC_STREAM_STDOUT)
    return stream_for(process, 1);
  if (stream->kind == MPROC_STREAM_HANDLE)
    return stream->handle;
  return stream->kind == MPROC_STREAM_NULL ? MPX_NO_HANDLE : mpx_os_stream_handle(index);
}

/* Fills a channel with the handles passed by name; its other end goes with the request. */
static int fill_channel(const mproc_process *process, mproc_handle ends[2], int64_t deadline) {
  const mproc_process_options *options = &process->options;
  mproc_handle part[INLINE_HANDLES];
  int r = 0;
  for (size_t done = 0; done < options->inherit_count && r == 0;) {
    size_t count = 0;
    while (count < INLINE_HANDLES && done < options->inherit_count)
      part[count++] = options->inherit[done++].handle;
    mpx_os_bytes byte = {"", 1};
    r = mpx_os_channel_post(ends[0], &byte, 1, part, count, deadline);
  }
  return r;
}

static int list_inherited(mproc_process *process, mpx_request *request, handle_list *list,
                          int64_t deadline) {
  const mproc_process_options *options = &process->options;
  request->inherit_count = (uint32_t)options->inherit_count;
  if (options->inherit_count > HANDLES_MAX)
    return mpx_fail(-E2BIG, "'%s' is to get %zu handles; a forkserver passes %d at most",
                    process->name, options->inherit_count, HANDLES_MAX);
  if (options->inherit_count <= INLINE_HANDLES) {
    for (size_t i = 0; i < options->inherit_count; i++)
      (void)list_handle(list, options->inherit[i].handle);
    return 0;
  }
  mpx_registry_lock();
  int r = mpx_os_channel(process->transient.report);
  mpx_registry_unlock();
  if (r == 0)
    r = fill_channel(process, process->transient.report, deadline);
  if (r == 0)
    request->has_channel = list_handle(list, process->transient.report[1]);
  return r < 0 ? mpx_fail(r, "cannot pass %zu handles to '%s': %s%s", options->inherit_count,
                          process->name, mproc_strerror(r), mpx_os_limit_text(r))
               : 0;
}

static int open_cwd(mproc_process *process, const mpx_server_view *server, mpx_request *request,
                    handle_list *list) {
  if (mpx_os_surroundings_same_cwd(&request->surroundings, &server->open->surroundings))
    return 0;
  mpx_registry_lock();
  int r = mpx_os_cwd_open(&process->transient.cwd);
  mpx_registry_unlock();
  if (r == 0)
    request->has_cwd = list_handle(list, process->transient.cwd);
  return r < 0 ? mpx_fail(r, "cannot open the working directory for '%s': %s%s", process->name,
                          mproc_strerror(r), mpx_os_limit_text(r))
               : 0;
}

/* ---- sending --------------------------------------------------------------------------------- */

static int seal_body(mproc_process *process, const mpx_os_bytes parts[2]) {
  mpx_registry_lock();
  int r = mpx_os_seal_create("mproc-request", parts, 2, &process->transient.record);
  mpx_registry_unlock();
  return r < 0 ? mpx_fail(r, "cannot write the argument block of '%s' (%zu bytes): %s%s",
                          process->name, process->arg_size, mproc_strerror(r), mpx_os_limit_text(r))
               : 0;
}

static bool take_spare(const mpx_server_view *server) {
  _Atomic uint64_t *idle = &server->open->idle;
  uint64_t seen = atomic_load_explicit(idle, memory_order_relaxed);
  while ((uint32_t)seen > 0 && seen >> 32 == mpx_idle_tag(server->member))
    if (atomic_compare_exchange_weak_explicit(idle, &seen, seen - 1, memory_order_acq_rel,
                                              memory_order_relaxed))
      return true;
  return false;
}

/* A handle was open when the process was created, and is not any more. */
static int say_closed(const mproc_process *process) {
  const mproc_process_options *options = &process->options;
  for (size_t i = 0; i < options->inherit_count; i++)
    if (!mpx_os_handle_is_open(options->inherit[i].handle))
      return mpx_fail(-EBADF, "'%s': %s failed: handle %lld ('%s') is closed", process->name,
                      mpx_os_stage_text(MPX_STAGE_DESCRIPTORS),
                      (long long)options->inherit[i].handle, options->inherit[i].name);
  return mpx_fail(-EBADF, "'%s': %s failed: a handle is closed", process->name,
                  mpx_os_stage_text(MPX_STAGE_STREAMS));
}

static int post(mproc_process *process, const mpx_server_view *server, bool spares,
                mpx_request *request, const builder *body, handle_list *list, int64_t deadline) {
  const mpx_os_bytes parts[] = {
      {request, sizeof *request}, {body->bytes, body->used}, {process->arg, process->arg_size}};
  size_t count = request->sealed ? 1 : 3;
  int r = -EPIPE;
  if (spares && take_spare(server)) {
    r = mpx_os_channel_post(server->spares, parts, count, list->items, list->count, deadline);
    if (r < 0)
      mpx_idle_add(server->open, server->member, 1);
  }
  if (r < 0)
    r = mpx_os_channel_post(server->door, parts, count, list->items, list->count, deadline);
  if (r == -EBADF)
    return say_closed(process);
  if (r == -ETIMEDOUT)
    return mpx_fail(r, "the forkserver does not take the request for '%s'; is it stopped?",
                    process->name);
  if (r < 0 && r != -EPIPE)
    (void)mpx_fail(r, "cannot ask the forkserver for '%s': %s%s", process->name, mproc_strerror(r),
                   mpx_os_limit_text(r));
  return r;
}

static void list_streams(const mproc_process *process, mpx_request *request, handle_list *list) {
  for (int i = 0; i < 3; i++)
    if (list_handle(list, stream_for(process, i)))
      request->streams[i] = MPX_STREAM_PASSED;
    else if (process->options.streams[i].kind != MPROC_STREAM_INHERIT)
      request->streams[i] = MPX_STREAM_NULL;
}

static int list_and_post(mproc_process *process, const mpx_server_view *server, bool spares,
                         const builder *body, int64_t deadline) {
  const mpx_os_bytes parts[] = {{body->bytes, body->used}, {process->arg, process->arg_size}};
  handle_list list = {.count = 0};
  mpx_request request = {.magic = MPX_REQUEST_MAGIC,
                         .kind = MPX_REQUEST_START,
                         .member = process->member,
                         .daemon = process->options.daemon != 0,
                         .body_size = body->used + process->arg_size};
  request.sealed = sizeof request + request.body_size > MPX_MESSAGE_SIZE;
  int r = mpx_os_surroundings_get(&request.surroundings);
  if (r == 0 && request.sealed) {
    r = seal_body(process, parts);
    (void)list_handle(&list, process->transient.record);
  }
  if (r == 0)
    r = open_cwd(process, server, &request, &list);
  if (r < 0)
    return r;
  request.has_held = list_handle(&list, process->transient.held);
  list_streams(process, &request, &list);
  r = list_inherited(process, &request, &list, deadline);
  return r < 0 ? r : post(process, server, spares, &request, body, &list, deadline);
}

/* Of a request that came to nothing. The sentinel's held end is the start's. */
static void close_former(mproc_process *process) {
  mpx_registry_lock();
  mproc_handle held = process->transient.held;
  process->transient.held = MPX_NO_HANDLE;
  mpx_transient_close(&process->transient);
  process->transient.held = held;
  mpx_registry_unlock();
}

int mpx_request_send(mproc_process *process, const mpx_server_view *server, bool spares,
                     int64_t deadline) {
  builder body = {.bytes = NULL};
  close_former(process);
  int r = build_body(process, server, &body);
  if (r == 0)
    r = list_and_post(process, server, spares, &body, deadline);
  free(body.bytes);
  return r;
}

void mpx_request_tell(mproc_handle door, mpx_request_kind kind, mpx_member member) {
  const mpx_request request = {
      .magic = MPX_REQUEST_MAGIC, .kind = (uint32_t)kind, .member = member};
  const mpx_os_bytes part = {&request, sizeof request};
  (void)mpx_os_channel_post(door, &part, 1, NULL, 0, 0);
}
