#include "base/error.h"
#include "process/context.h"
#include "process/process.h"
#include "process/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ARGUMENT_ALIGNMENT = 64, STREAMS = 3 };

static int check_inherit(const mproc_process_options *options) {
  for (size_t i = 0; i < options->inherit_count; i++) {
    const mproc_inherit *item = &options->inherit[i];
    size_t length = item->name ? strlen(item->name) : 0;
    if (length == 0 || length >= MPX_NAME_SIZE)
      return mpx_fail(-EINVAL, "inherit[%zu].name must have 1 to %d characters", i,
                      MPX_NAME_SIZE - 1);
    if (!mpx_os_handle_is_open(item->handle))
      return mpx_fail(-EINVAL, "inherit[%zu]: handle %lld ('%s') is not open", i,
                      (long long)item->handle, item->name);
    int stream = mpx_os_stream_index(item->handle);
    if (stream >= 0 && options->streams[stream].kind != MPROC_STREAM_INHERIT)
      return mpx_fail(-EINVAL,
                      "inherit[%zu]: '%s' is standard stream %d, which the child gets from "
                      "elsewhere; pass a copy of the handle",
                      i, item->name, stream);
    for (size_t k = 0; k < i; k++)
      if (strcmp(options->inherit[k].name, item->name) == 0)
        return mpx_fail(-EINVAL, "inherit[%zu]: the name '%s' is given twice", i, item->name);
  }
  return 0;
}

static int check_streams(const mproc_stream streams[STREAMS]) {
  static const char *const names[] = {"input", "output", "error"};
  for (int i = 0; i < STREAMS; i++) {
    const mproc_stream *stream = &streams[i];
    if ((int)stream->kind < MPROC_STREAM_INHERIT || stream->kind > MPROC_STREAM_STDOUT ||
        (stream->kind == MPROC_STREAM_STDOUT && i != 2))
      return mpx_fail(-EINVAL, "streams[%d] (standard %s) has the kind %d, which does not fit", i,
                      names[i], (int)stream->kind);
    if (stream->kind == MPROC_STREAM_HANDLE && !mpx_os_handle_is_open(stream->handle))
      return mpx_fail(-EINVAL, "streams[%d] (standard %s): handle %lld is not open", i, names[i],
                      (long long)stream->handle);
  }
  return 0;
}

static int check_arrays(const mproc_process_options *options) {
  const struct {
    const char *name;
    const void *array;
    size_t count;
  } arrays[] = {{"inherit", options->inherit, options->inherit_count},
                {"limits", options->limits, options->limit_count},
                {"cpus", options->cpus, options->cpu_count}};
  for (size_t i = 0; i < sizeof arrays / sizeof arrays[0]; i++)
    if ((arrays[i].array == NULL) != (arrays[i].count == 0))
      return mpx_fail(-EINVAL, "options.%s and its count do not agree", arrays[i].name);
  for (size_t i = 0; i < options->limit_count; i++)
    if ((int)options->limits[i].resource < MPROC_RESOURCE_CORE ||
        options->limits[i].resource > MPROC_RESOURCE_AS)
      return mpx_fail(-EINVAL, "limits[%zu].resource is %d: no such resource", i,
                      (int)options->limits[i].resource);
    else if (options->limits[i].soft > options->limits[i].hard)
      return mpx_fail(-EINVAL, "limits[%zu]: the soft limit is above the hard one", i);
  for (size_t i = 0; i < options->cpu_count; i++)
    if (options->cpus[i] < 0)
      return mpx_fail(-EINVAL, "cpus[%zu] is %d: no such CPU", i, options->cpus[i]);
  return 0;
}

static int check_options(const mproc_process_options *options) {
  int r = mpx_check_reserved(options->reserved, "mproc_process_options");
  if (r < 0)
    return r;
  if (options->name && strlen(options->name) >= MPX_NAME_SIZE)
    return mpx_fail(-EINVAL, "the name '%s' is longer than %d characters", options->name,
                    MPX_NAME_SIZE - 1);
  if (options->start_timeout_ms < 0)
    return mpx_fail(-EINVAL, "start_timeout_ms is %d; 0 means 60,000", options->start_timeout_ms);
  r = check_arrays(options);
  if (r < 0)
    return r;
  r = check_inherit(options);
  return r < 0 ? r : check_streams(options->streams);
}

int mpx_options_recheck(const mproc_process *process) {
  const mproc_process_options *options = &process->options;
  for (size_t i = 0; i < options->inherit_count; i++)
    if (!mpx_os_handle_is_open(options->inherit[i].handle))
      return mpx_fail(-EBADF, "'%s': inherit[%zu] ('%s'): handle %lld is not open any more",
                      process->name, i, options->inherit[i].name,
                      (long long)options->inherit[i].handle);
  for (int i = 0; i < STREAMS; i++)
    if (options->streams[i].kind == MPROC_STREAM_HANDLE &&
        !mpx_os_handle_is_open(options->streams[i].handle))
      return mpx_fail(-EBADF, "'%s': %s failed: streams[%d]: handle %lld is not open any more",
                      process->name, mpx_os_stage_text(MPX_STAGE_STREAMS), i,
                      (long long)options->streams[i].handle);
  return 0;
}

/* ---- copying: the same walk twice, first to measure, then to fill ---------------------------- */

typedef struct bump {
  unsigned char *base; /* NULL while measuring */
  size_t used;
} bump;

static void *put(bump *to, const void *data, size_t size, size_t alignment) {
  to->used = (to->used + alignment - 1) / alignment * alignment;
  void *place = to->base ? to->base + to->used : NULL;
  if (place && size)
    memcpy(place, data, size);
  to->used += size;
  return place;
}

static const char *put_string(bump *to, const char *string) {
  return string ? put(to, string, strlen(string) + 1, 1) : NULL;
}

static const char *const *put_strings(bump *to, const char *const *strings) {
  size_t count = 0;
  if (!strings)
    return NULL;
  while (strings[count])
    count++;
  const char **copy = put(to, strings, (count + 1) * sizeof *strings, _Alignof(char *));
  for (size_t i = 0; i < count; i++) {
    const char *string = put_string(to, strings[i]);
    if (copy)
      copy[i] = string;
  }
  return copy;
}

static const mproc_inherit *put_inherit(bump *to, const mproc_inherit *items, size_t count) {
  mproc_inherit *copy = put(to, items, count * sizeof *items, _Alignof(mproc_inherit));
  for (size_t i = 0; i < count; i++) {
    const char *name = put_string(to, items[i].name);
    if (copy)
      copy[i].name = name;
  }
  return count ? copy : NULL;
}

/* Fills in `process` for real when to->base is set; measures otherwise. */
static void walk(bump *to, mproc_process *process, const mproc_process_options *options,
                 const void *arg, size_t size, const char *const *argv) {
  const mproc_context *context = options->context;
  mproc_process_options copy = *options;
  process->arg = size ? put(to, arg, size, ARGUMENT_ALIGNMENT) : NULL;
  process->argv = (char *const *)(uintptr_t)put_strings(to, argv);
  process->executable = put_string(to, context ? context->executable : NULL);
  process->helper = put_string(to, context ? context->helper : NULL);
  process->settings = context ? context->server : NULL;
  copy.name = process->name;
  copy.method = NULL;
  copy.context = NULL;
  copy.cwd = put_string(to, options->cwd);
  copy.cgroup = put_string(to, options->cgroup);
  copy.environment = put_strings(to, options->environment);
  copy.inherit = put_inherit(to, options->inherit, options->inherit_count);
  copy.limits = put(to, options->limits, options->limit_count * sizeof *options->limits, 8);
  copy.cpus = put(to, options->cpus, options->cpu_count * sizeof *options->cpus, 8);
  process->options = copy;
}

static int choose_method(mproc_process *process, const mproc_process_options *options) {
  process->method = options->context ? options->context->method : MPX_METHOD_UNSET;
  return options->method ? mpx_method_parse(options->method, "options.method", &process->method)
                         : 0;
}

int mpx_options_take(mproc_process *process, const mproc_process_options *options, const void *arg,
                     size_t size, const char *const *argv) {
  static const mproc_process_options defaults;
  static _Atomic unsigned next_number = 1;
  if (!options)
    options = &defaults;
  int r = check_options(options);
  if (r == 0)
    r = choose_method(process, options);
  if (r < 0)
    return r;
  bump measure = {0};
  walk(&measure, process, options, arg, size, argv);
  size_t total = (measure.used + ARGUMENT_ALIGNMENT) / ARGUMENT_ALIGNMENT * ARGUMENT_ALIGNMENT;
  if (measure.used > 0) {
    process->copy = aligned_alloc(ARGUMENT_ALIGNMENT, total);
    if (!process->copy)
      return mpx_fail(-ENOMEM, "cannot copy the argument block and options (%zu bytes)", total);
    bump fill = {.base = process->copy};
    walk(&fill, process, options, arg, size, argv);
  }
  process->arg_size = size;
  if (options->name)
    (void)snprintf(process->name, sizeof process->name, "%s", options->name);
  else
    (void)snprintf(process->name, sizeof process->name, "Process-%u", next_number++);
  return 0;
}

bool mpx_options_need_report(const mproc_process_options *options) {
  bool streams = false;
  for (int i = 0; i < STREAMS; i++)
    streams |= options->streams[i].kind != MPROC_STREAM_INHERIT;
  return streams || options->limit_count || options->cpu_count || options->nice || options->cwd ||
         options->cgroup;
}

void mpx_options_launch(const mproc_process *process, mpx_launch *ret_launch) {
  const mproc_process_options *options = &process->options;
  *ret_launch = (mpx_launch){.cwd = options->cwd,
                             .streams = options->streams,
                             .limits = options->limits,
                             .limit_count = options->limit_count,
                             .cpus = options->cpus,
                             .cpu_count = options->cpu_count,
                             .nice = options->nice,
                             .cgroup = options->cgroup,
                             .die_with_parent = process->tied};
}

const char *mpx_launch_say(const mpx_launch *launch, mpx_stage stage,
                           char text[MPX_STAGE_TEXT_SIZE]) {
  const char *path = !launch                     ? NULL
                     : stage == MPX_STAGE_CWD    ? launch->cwd
                     : stage == MPX_STAGE_CGROUP ? launch->cgroup
                     : stage == MPX_STAGE_EXEC   ? launch->path
                                                 : NULL;
  size_t cpus = launch && stage == MPX_STAGE_AFFINITY ? launch->cpu_count : 0;
  const char *quote = path ? "'" : "";
  int used = snprintf(text, MPX_STAGE_TEXT_SIZE, "%s%s%s%s%s", mpx_os_stage_text(stage),
                      path ? " " : "", quote, path ? path : "", quote);
  for (size_t i = 0; i < cpus && used < MPX_STAGE_TEXT_SIZE; i++)
    used += snprintf(text + used, MPX_STAGE_TEXT_SIZE - (size_t)used, "%s%d", i == 0 ? " to " : ",",
                     launch->cpus[i]);
  return text;
}
