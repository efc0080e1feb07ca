#include "process/boot.h"

#include "base/error.h"
#include "base/log.h"
#include "os/crash_point.h"
#include "process/guardian.h"
#include "process/server.h"
#include "process/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the parent ------------------------------------------------------------------------------ */

static void run_record(const void *data, size_t size, mproc_handle handle);

static int refuse(void) {
  return mpx_fail(MPROC_ESECURE,
                  "a program that this process executes cannot have the user, the group and the "
                  "capabilities that it has itself; use fork");
}

int mpx_boot_prepare(mpx_boot_record *record, mpx_boot_kind kind, mproc_handle report) {
  memcpy(record->head.magic, MPX_BOOT_MAGIC, sizeof record->head.magic);
  record->head.report = report;
  record->version = MPX_BOOT_VERSION;
  record->kind = kind;
  record->held = record->channel = MPX_NO_HANDLE;
  for (int i = 0; i < 4; i++)
    record->doors[i] = MPX_NO_HANDLE;
  if (mpx_os_credentials_get(&record->credentials) < 0)
    return refuse();
  return mpx_function_of((uintptr_t)run_record, &record->head.boot);
}

/* The environment with the marker in front; *ret_marker is where the child writes its pid. */
static char **environment_with_marker(char *const *environment, mproc_handle record,
                                      char **ret_marker) {
  enum { MARKER_SIZE = 64 };
  size_t count = 0;
  while (environment[count])
    count++;
  char **copy = malloc((count + 2) * sizeof *copy + MARKER_SIZE);
  if (!copy)
    return NULL;
  char *marker = (char *)(copy + count + 2);
  int length = snprintf(marker, MARKER_SIZE, MPX_BOOT_VARIABLE "=%lld:", (long long)record);
  *ret_marker = marker + length;
  copy[0] = marker;
  size_t used = 1;
  for (size_t i = 0; i < count; i++)
    if (strncmp(environment[i], MPX_BOOT_VARIABLE "=", sizeof MPX_BOOT_VARIABLE) != 0)
      copy[used++] = environment[i];
  copy[used] = NULL;
  return copy;
}

int mpx_boot_spawn(const mpx_boot_launch *boot, mpx_child *child, mpx_stage *ret_stage) {
  char *argv[] = {(char *)(uintptr_t)boot->title, NULL};
  mpx_launch launch = boot->launch;
  *ret_stage = MPX_STAGE_CREATE;
  char **environment = environment_with_marker(
      boot->environment ? boot->environment : mpx_os_environment(), boot->record, &launch.marker);
  if (!environment)
    return -ENOMEM;
  launch.argv = argv;
  launch.record = boot->record;
  launch.environment = environment;
  int r = mpx_os_spawn(&launch, child, ret_stage);
  free(environment);
  return r;
}

/* ---- the child ------------------------------------------------------------------------------- */

/* Reports the last failure to the parent and ends. */
static _Noreturn void give_up(mproc_handle report, int code) {
  mpx_report_send(report, code, mproc_error_detail());
  mpx_os_exit_now(127);
}

/* Whatever the child executes must not get these. */
static void keep_private(const mpx_boot_record *record, const mproc_inherit *inherited) {
  mproc_handle own[] = {record->head.report,   record->held,     record->channel,
                        record->ticket.handle, record->doors[0], record->doors[1],
                        record->doors[2],      record->doors[3]};
  for (size_t i = 0; i < sizeof own / sizeof own[0]; i++)
    if (own[i] != MPX_NO_HANDLE)
      (void)mpx_os_set_inheritable(own[i], false);
  for (uint64_t i = 0; i < record->inherited_count; i++)
    (void)mpx_os_set_inheritable(inherited[i].handle, false);
}

/* Before anything of the family's is touched. */
static void take_credentials(const mpx_boot_record *record) {
  if (mpx_os_credentials_set(&record->credentials) < 0)
    give_up(record->head.report, refuse());
}

static void *copy_argument(const mpx_boot_record *record) {
  enum { ALIGNMENT = 64 };
  if (record->argument_size == 0)
    return NULL;
  size_t size = ((size_t)record->argument_size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
  void *copy = aligned_alloc(ALIGNMENT, size);
  if (!copy)
    return NULL;
  memcpy(copy, (const char *)record + record->argument_at, (size_t)record->argument_size);
  return copy;
}

/* The list and its names in one block. */
static mproc_inherit *copy_inherited(const mpx_boot_record *record) {
  size_t count = (size_t)record->inherited_count;
  mproc_inherit *copy = calloc(count + 1, sizeof *copy + MPX_NAME_SIZE);
  char *name = (char *)(copy + count);
  for (size_t i = 0; copy && i < count; i++, name += MPX_NAME_SIZE) {
    const mpx_inherited *item =
        (const mpx_inherited *)(const void *)((const char *)record + record->inherited_at) + i;
    (void)snprintf(name, MPX_NAME_SIZE, "%.*s", MPX_NAME_SIZE - 1, item->name);
    copy[i] = (mproc_inherit){.handle = item->handle, .name = name};
  }
  return copy;
}

static _Noreturn void run_entry(const mpx_boot_record *record, size_t size, mproc_handle handle) {
  mproc_handle report = record->head.report;
  mproc_inherit *inherited = copy_inherited(record);
  static void *argument; /* no leak when the entry's thread leaves by pthread_exit */
  argument = copy_argument(record);
  if (!inherited || (!argument && record->argument_size))
    give_up(report, mpx_fail(-ENOMEM, "no memory in the child for %llu bytes of argument block",
                             (unsigned long long)record->argument_size));
  keep_private(record, inherited);
  take_credentials(record);
  MPROC_CRASH_POINT("boot.before_attach");
  int r = mpx_family_attach(&record->ticket);
  if (r == -EEXIST)
    (void)mpx_fail(-EEXIST, "the address of the shared heap is taken in the child");
  if (r < 0)
    give_up(report, r);
  MPROC_CRASH_POINT("boot.attached");
  uintptr_t entry;
  r = mpx_function_resolve(&record->entry, &entry);
  if (r < 0)
    give_up(report, r);
  mpx_method_inherit((mpx_method)record->chosen_method);
  mpx_self_set(record->ticket.member);
  mpx_inherited_set(inherited, (size_t)record->inherited_count);
  mproc_process_info info;
  if (mproc_current_process(&info) == 0)
    mpx_os_set_process_name(info.name);
  size_t argument_size = (size_t)record->argument_size;
  bool guarded = record->guarded != 0;
  mpx_os_seal_release(record, size);
  mpx_os_close(handle);
  mpx_log(MPROC_LOG_TRACE, "'%s': attached, about to run the entry", info.name);
  mpx_report_send(report, 0, "");
  mpx_os_close(report);
  MPROC_CRASH_POINT("boot.reported");
  mpx_child_set_barrier();
  mpx_child_run((mproc_entry *)entry, argument, argument_size, guarded);
}

static _Noreturn void run_server(const mpx_boot_record *record, mproc_handle handle) {
  keep_private(record, NULL);
  mpx_os_close(handle);
  take_credentials(record);
  int r = mpx_family_attach(&record->ticket);
  if (r == -EEXIST)
    (void)mpx_fail(-EEXIST, "the address of the shared heap is taken in the forkserver");
  if (r < 0)
    give_up(record->head.report, r);
  MPROC_CRASH_POINT("server.attached");
  mpx_method_inherit((mpx_method)record->chosen_method);
  mpx_self_set(record->ticket.member);
  mpx_os_set_process_name("mproc:forkserver");
  mpx_server_run(record, (const char *)record + record->argument_at);
}

static bool is_terminated(const mpx_function *function) {
  return memchr(function->path, '\0', sizeof function->path) != NULL;
}

/* The bounds of everything that the rest reads. */
static bool is_sound(const mpx_boot_record *record, size_t size) {
  return size >= sizeof *record && record->version == MPX_BOOT_VERSION &&
         is_terminated(&record->entry) && record->chosen_method <= MPX_METHOD_MAIN &&
         record->inherited_at <= size && record->inherited_at % _Alignof(mpx_inherited) == 0 &&
         record->inherited_count <= (size - record->inherited_at) / sizeof(mpx_inherited) &&
         record->argument_at <= size && record->argument_size <= size - record->argument_at;
}

/* Called in the copy of mproc that the parent's start came from: its layout, its version. */
static void run_record(const void *data, size_t size, mproc_handle handle) {
  const mpx_boot_record *record = data;
  (void)mpx_log_from_environment(); /* a bad value was the parent's to report */
  if (!is_sound(record, size))
    give_up(((const mpx_boot_head *)data)->report,
            mpx_fail(MPROC_ERECORD, "the boot record does not fit this version of mproc; do the "
                                    "program and its libraries have one and the same?"));
  if (record->kind == MPX_BOOT_GUARDIAN)
    mpx_guardian_run(record->channel);
  if (record->kind == MPX_BOOT_SERVER)
    run_server(record, handle);
  run_entry(record, size, handle);
}

static bool has_head(const void *data, size_t size) {
  const mpx_boot_head *head = data;
  return size >= sizeof *head && head->size == size &&
         memcmp(head->magic, MPX_BOOT_MAGIC, sizeof head->magic) == 0 && is_terminated(&head->boot);
}

/* The record's handle if the marker is meant for this very process. */
static bool find_marker(mproc_handle *ret_handle) {
  const char *value = getenv(MPX_BOOT_VARIABLE);
  char *colon, *end;
  bool found = false;
  if (value) {
    long long handle = strtoll(value, &colon, 10);
    found = *colon == ':' && strtoll(colon + 1, &end, 10) == mpx_os_pid() && *end == '\0';
    *ret_handle = (mproc_handle)handle;
  }
  mpx_os_unset_environment(MPX_BOOT_VARIABLE);
  return found;
}

int mpx_boot_if_child(void) {
  mproc_handle handle;
  const void *data;
  size_t size;
  if (mpx_os_is_secure() || !find_marker(&handle))
    return 0;
  (void)mpx_os_set_inheritable(handle, false);
  int r = mpx_os_seal_read(handle, &data, &size);
  if (r < 0)
    return mpx_fail(MPROC_ERECORD,
                    MPX_BOOT_VARIABLE " names descriptor %lld, which holds no boot record: %s; "
                                      "remove the variable from the environment",
                    (long long)handle, mproc_strerror(r));
  const mpx_boot_head *head = data;
  if (!has_head(head, size))
    return mpx_fail(MPROC_ERECORD,
                    "the boot record in descriptor %lld is damaged or from another version of "
                    "mproc; do the program and its libraries have one and the same?",
                    (long long)handle);
  uintptr_t boot;
  r = mpx_function_resolve(&head->boot, &boot);
  if (r < 0)
    give_up(head->report, r);
  ((void (*)(const void *, size_t, mproc_handle))boot)(data, size, handle);
  return mpx_fail(MPROC_ERECORD, "the boot record led nowhere");
}
