/* Groups: what the pool gets at a time, and what becomes of it. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

enum { ALIGNMENT = 16, NO_COMMAND = 127, CANNOT_RUN = 126 };

static size_t aligned(size_t size) {
  return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Returns the offset of `size` bytes, behind which there is a NUL. */
static size_t add_bytes(map_buffer *bytes, const void *data, size_t size) {
  size_t offset = bytes->size;
  size_t room = aligned(size + 1);
  char *place = map_append(bytes, NULL, room);
  if (size)
    memcpy(place, data, size);
  memset(place + size, 0, room - size);
  return offset;
}

void map_batch_add(map_batch *batch, const mproc_bytes *input, uint64_t seq, map_refusal refusal,
                   const map_template *command) {
  if (batch->count == batch->capacity) {
    size_t capacity = batch->capacity ? 2 * batch->capacity : 16;
    map_record *records = map_alloc(capacity, sizeof *records);
    if (batch->count)
      memcpy(records, batch->records, batch->count * sizeof *records);
    free(batch->records);
    batch->records = records;
    batch->capacity = capacity;
  }
  map_record *record = &batch->records[batch->count++];
  *record = (map_record){.seq = seq, .refusal = refusal, .size = input->size};
  record->input = (const char *)add_bytes(&batch->bytes, input->data, input->size);
  if (command && refusal == MAP_FITS) {
    size_t offset = batch->bytes.size;
    map_template_expand(command, input->data, input->size, seq, &batch->bytes);
    record->command_size = batch->bytes.size - offset;
    record->command = (const char *)offset;
    size_t room = aligned(record->command_size) - record->command_size;
    if (room)
      memset(map_append(&batch->bytes, NULL, room), 0, room);
  }
}

/* The block that tasks see: records, then bytes. */
static map_record *make_block(const map_batch *batch) {
  size_t records_size = aligned(batch->count * sizeof(map_record));
  map_record *records = mproc_heap_alloc(records_size + batch->bytes.size);
  if (!records)
    return NULL;
  char *bytes = (char *)records + records_size;
  memcpy(bytes, batch->bytes.data, batch->bytes.size);
  for (size_t i = 0; i < batch->count; i++) {
    records[i] = batch->records[i];
    records[i].input = bytes + (uintptr_t)batch->records[i].input;
    if (records[i].command_size)
      records[i].command = bytes + (uintptr_t)batch->records[i].command;
  }
  return records;
}

int map_group_make(map_group **ret_group, map_batch *batch, size_t output_size) {
  map_group *group = map_alloc(1, sizeof *group);
  group->count = batch->count;
  group->output_size = output_size;
  group->records = make_block(batch);
  if (group->records && output_size)
    group->outputs = mproc_heap_calloc(batch->count, output_size);
  if (!group->records || (output_size && !group->outputs)) {
    map_group_destroy(group);
    return map_error("no room for inputs: %s", mproc_error_detail());
  }
  /* of results of a fixed size the pool uses the inputs in place: then they belong into the heap */
  size_t pointers_size = batch->count * sizeof *group->pointers;
  group->pointers = map_alloc(1, pointers_size);
  for (size_t i = 0; i < batch->count; i++)
    group->pointers[i] = &group->records[i];
  if (batch->count > 1 && !output_size) {
    group->views = map_alloc(batch->count, sizeof *group->views);
    for (size_t i = 0; i < batch->count; i++)
      group->views[i] = (mproc_bytes){&group->pointers[i], sizeof *group->pointers};
  }
  batch->count = 0;
  batch->bytes.size = 0;
  *ret_group = group;
  return 0;
}

static void finished(mproc_future *future, void *user) {
  map_group *group = user;
  (void)future;
  group->over = true;
}

int map_group_submit(map_group *group, mproc_pool *pool, bool is_command) {
  mproc_submit_options options = {.done = finished, .user = group};
  int r;
  if (group->output_size)
    r = mproc_pool_map_async(pool, map_call_function, group->pointers, sizeof *group->pointers,
                             group->outputs, group->output_size, group->count, &group->future,
                             &options);
  else if (group->count > 1)
    r = mproc_pool_map_bytes(pool, map_call_function, group->views, group->count, &group->future,
                             &options);
  else
    r = mproc_pool_apply_async(pool, is_command ? map_run_command : map_call_function,
                               group->pointers, sizeof *group->pointers, &group->future, &options);
  return r < 0 ? map_error("cannot submit inputs: %s", mproc_error_detail()) : 0;
}

/* Which failure is whose: they come in the order in which they were noticed. */
static void index_failures(map_group *group) {
  int64_t count = mproc_future_failures(group->future);
  mproc_failure failure;
  if (count <= 0)
    return;
  group->failures = map_alloc(group->count, sizeof *group->failures);
  for (uint64_t i = 0; mproc_future_failure(group->future, i, &failure) == 0; i++) {
    uint64_t index = group->count == 1 ? 0 : failure.index;
    if (index < group->count)
      group->failures[index] = i + 1;
  }
}

static bool find_failure(const map_group *group, size_t index, mproc_failure *failure) {
  uint64_t number = group->failures ? group->failures[index] : 0;
  return number && mproc_future_failure(group->future, number - 1, failure) == 0;
}

static const char *signal_text(const map_record *record, int number) {
  static char text[128];
  snprintf(text, sizeof text, "killed by signal %d (%s) after %.1f s", number, strsignal(number),
           (double)record->run_ns / 1e9);
  return text;
}

static const char *no_room_text(int error) {
  static char text[512];
  if (error == ENOMEM)
    snprintf(text, sizeof text, "its output does not fit into the shared heap");
  else
    snprintf(text, sizeof text, "its output does not fit into %s (TMPDIR names the folder): %s",
             map_spool_folder(), strerror(error));
  return text;
}

static void killed_result(const map_record *record, map_result *result) {
  result->exit_value = -1;
  result->signal = SIGKILL;
  result->error = record->end == MAP_END_NO_ROOM ? no_room_text(record->status)
                                                 : "its worker died in the last attempt";
}

static void command_result(const map_record *record, map_result *result) {
  static char text[128];
  int status = record->status;
  result->failed = record->end != MAP_END_DONE || status != 0;
  result->attempts = record->attempts;
  if (record->end == MAP_END_WORKER_DIED || record->end == MAP_END_NO_ROOM) {
    killed_result(record, result);
    return;
  }
  if (record->end == MAP_END_NOT_STARTED) {
    result->exit_value = status == ENOENT ? NO_COMMAND : CANNOT_RUN;
    result->error = status == E2BIG ? "the command line is too long for the system: pass the input "
                                      "by a file"
                                    : strerror(status);
    return;
  }
  if (WIFEXITED(status)) {
    result->exit_value = WEXITSTATUS(status);
  } else {
    result->exit_value = -1;
    result->signal = WTERMSIG(status);
    result->error = signal_text(record, result->signal);
  }
  if (record->end == MAP_END_TIMED_OUT || record->end == MAP_END_OUT_OF_MEMORY) {
    result->exit_value = -1;
    snprintf(text, sizeof text, "%s after %.1f s",
             record->end == MAP_END_TIMED_OUT ? "timed out" : "above its memory limit: killed",
             (double)record->run_ns / 1e9);
    result->error = text;
  }
}

static void tell_failure(const mproc_failure *failure, map_result *result) {
  static char text[1536];
  char how[768];
  mproc_strfailure(failure, how, sizeof how);
  const char *said = failure->text && !strstr(how, failure->text) ? failure->text : "";
  snprintf(text, sizeof text, "%s%s%s", how, said[0] ? ": " : "", said);
  result->error = text;
  result->exit_value = -1;
  if (failure->cause == MPROC_CAUSE_ERROR || failure->cause == MPROC_CAUSE_EXITED)
    result->exit_value = failure->code > 0 && failure->code < 256 ? failure->code : 1;
  else if (failure->cause == MPROC_CAUSE_SIGNALED)
    result->signal = failure->code;
  else
    result->signal = SIGKILL;
}

/* Who was cancelled has not failed: it was not to go on. Nor has who was never begun. */
static void failure_result(const map_group *group, size_t index, map_result *result) {
  mproc_failure failure = {.cause = MPROC_CAUSE_CANCELLED};
  (void)find_failure(group, index, &failure);
  result->failed = true;
  result->no_worker = failure.cause == MPROC_CAUSE_INITIALIZER;
  result->ran = failure.cause != MPROC_CAUSE_CANCELLED && !result->no_worker;
  int attempts = group->records[index].attempts; /* of a command: those that were no failure too */
  result->attempts = attempts > failure.attempts ? attempts : failure.attempts;
  if (result->run_ns == 0 && failure.run_time_ns > 0)
    result->run_ns = failure.run_time_ns;
  tell_failure(&failure, result);
}

static void refused_result(const map_record *record, map_result *result) {
  static char text[128];
  result->failed = true;
  result->exit_value = CANNOT_RUN;
  result->error = text;
  if (record->refusal == MAP_HAS_NUL)
    snprintf(text, sizeof text, "has a NUL byte, which no argument of a command can have");
  else
    snprintf(text, sizeof text, "has %zu bytes, which is not what the function takes",
             record->size);
}

/* The worker died right after the command, or there is no /proc. */
static void lost_result(int error, map_result *result) {
  static char text[256];
  snprintf(text, sizeof text, "its output is lost with its worker: %s", strerror(error));
  result->failed = true;
  result->exit_value = -1;
  result->signal = SIGKILL;
  result->error = text;
}

void map_group_result(map_group *group, size_t index, map_result *ret_result) {
  const map_record *record = &group->records[index];
  const map_kept *kept = &group->kept[index];
  mproc_bytes bytes = kept->bytes;
  map_result result = {
      .record = record, .attempts = 1, .started_ns = record->started_ns, .run_ns = record->run_ns};
  result.ran = record->started_ns != 0 || record->refusal != MAP_FITS;
  if (kept->has_failed)
    failure_result(group, index, &result);
  else if (record->refusal != MAP_FITS)
    refused_result(record, &result);
  else if (record->command)
    command_result(record, &result);
  if (!record->command && result.failed)
    bytes = (mproc_bytes){0};
  result.out = bytes.data;
  result.out_size = bytes.size;
  if (record->command && bytes.size) {
    result.out_size = record->out_size;
    result.errors = result.out + record->out_size;
    result.errors_size = bytes.size - record->out_size;
  }
  if (kept->mapped[MAP_OUT].data) {
    result.out = kept->mapped[MAP_OUT].data;
    result.out_size = kept->mapped[MAP_OUT].size;
  }
  if (kept->mapped[MAP_ERRORS].data) {
    result.errors = kept->mapped[MAP_ERRORS].data;
    result.errors_size = kept->mapped[MAP_ERRORS].size;
  }
  if (kept->lost && !kept->has_failed)
    lost_result(kept->lost, &result);
  *ret_result = result;
}

/* What the pool kept of one input: false, it failed. */
static bool fetch(const map_group *group, size_t index, mproc_bytes *ret_bytes) {
  if (group->output_size) {
    *ret_bytes = (mproc_bytes){group->outputs + index * group->output_size, group->output_size};
    return !group->failures || group->failures[index] == 0;
  }
  if (group->count > 1)
    return mproc_future_result_at(group->future, index, ret_bytes) == 0;
  return mproc_future_result(group->future, ret_bytes) == 0;
}

/* At once: the worker may end. */
static void take_files(const map_record *record, map_kept *kept) {
  for (int i = 0; i < MAP_STREAMS; i++) {
    int error = record->spools[i] ? map_spool_take(record->spools[i], &kept->mapped[i]) : 0;
    if (error)
      kept->lost = error;
  }
}

void map_group_measure(map_group *group) {
  index_failures(group);
  if (group->failures)
    map_group_kill(group, SIGKILL); /* what workers that died have left behind */
  for (size_t i = 0; i < group->count; i++) {
    group->run_ns += group->records[i].run_ns;
    group->held_bytes += group->records[i].size + group->records[i].printed_size;
  }
  group->kept = map_alloc(group->count, sizeof *group->kept);
  for (size_t i = 0; i < group->count; i++) {
    group->kept[i].has_failed = !fetch(group, i, &group->kept[i].bytes);
    group->held_bytes += group->kept[i].bytes.size;
    if (!group->kept[i].has_failed)
      take_files(&group->records[i], &group->kept[i]);
  }
}

static bool ends_program(int number) {
  return number == SIGINT || number == SIGTERM || number == SIGHUP;
}

bool map_group_was_hit(map_group *group, bool any) {
  if (!group->failures && !group->records[0].command)
    return false;
  for (size_t i = 0; i < group->count; i++) {
    map_result result;
    map_group_result(group, i, &result);
    if (!result.ran || !result.failed)
      continue;
    if (any || (group->records[i].end != MAP_END_TIMED_OUT &&
                (ends_program(result.signal) || ends_program(result.exit_value - 128))))
      return true;
  }
  return false;
}

void map_group_kill(map_group *group, int signal) {
  for (size_t i = 0; i < group->count; i++) {
    pid_t pid = (pid_t)atomic_load_explicit(&group->records[i].group, memory_order_relaxed);
    if (pid > 0) {
      (void)kill(-pid, signal);
      (void)kill(-pid, SIGCONT);
    }
  }
}

bool map_group_runs(const map_group *group) {
  for (size_t i = 0; i < group->count; i++) {
    if (atomic_load_explicit(&group->records[i].group, memory_order_relaxed) > 0)
      return true;
  }
  return false;
}

void map_group_destroy(map_group *group) {
  if (!group)
    return;
  mproc_future_destroy(group->future);
  for (size_t i = 0; group->records && i < group->count; i++) {
    if (group->records[i].printed)
      mproc_heap_free(group->records[i].printed);
  }
  for (size_t i = 0; group->kept && i < group->count; i++) {
    for (int stream = 0; stream < MAP_STREAMS; stream++)
      map_spool_give_back(&group->kept[i].mapped[stream]);
  }
  mproc_heap_free(group->records);
  mproc_heap_free(group->outputs);
  free(group->kept);
  free(group->failures);
  free(group->pointers);
  free(group->views);
  free(group);
}
