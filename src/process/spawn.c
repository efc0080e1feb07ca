/* The spawn method: the child is a fresh execution of the program, or of the helper. */
#include "base/error.h"
#include "base/log.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "process/boot.h"
#include "process/executable.h"
#include "process/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What one start needs besides the object: too large for a small thread's stack. */
typedef struct spawn_plan {
  mpx_boot_record record;
  char executable[MPX_OS_PATH_SIZE];
  char title[MPX_NAME_SIZE + 8];
  mproc_handle *keep;
  size_t keep_count;
} spawn_plan;

static int seal_record(mproc_process *process, mpx_boot_record *record) {
  size_t inherited_size = process->options.inherit_count * sizeof(mpx_inherited);
  record->inherited_at = sizeof *record;
  record->inherited_count = process->options.inherit_count;
  record->argument_at = record->inherited_at + inherited_size;
  record->argument_size = process->arg_size;
  record->head.size = record->argument_at + record->argument_size;
  mpx_inherited *inherited = calloc(1, inherited_size + 1);
  if (!inherited)
    return mpx_fail_code(-ENOMEM, "spawn");
  for (size_t i = 0; i < process->options.inherit_count; i++) {
    inherited[i].handle = process->options.inherit[i].handle;
    (void)snprintf(inherited[i].name, sizeof inherited[i].name, "%s",
                   process->options.inherit[i].name);
  }
  const mpx_os_bytes parts[] = {
      {record, sizeof *record}, {inherited, inherited_size}, {process->arg, process->arg_size}};
  mpx_registry_lock();
  int r = mpx_os_seal_create("mproc-boot", parts, 3, &process->transient.record);
  mpx_registry_unlock();
  free(inherited);
  mpx_log(MPROC_LOG_TRACE, "'%s': boot record of %llu bytes sealed", process->name,
          (unsigned long long)record->head.size);
  return r < 0 ? mpx_fail(r, "cannot write the boot record of '%s' (%llu bytes): %s%s",
                          process->name, (unsigned long long)record->head.size, mproc_strerror(r),
                          mpx_os_limit_text(r))
               : 0;
}

static int fill_record(mproc_process *process, mpx_boot_record *record) {
  int r = mpx_boot_prepare(record, MPX_BOOT_ENTRY, process->transient.report[1]);
  if (r == 0)
    r = mpx_function_of((uintptr_t)process->entry, &record->entry);
  if (r == 0)
    r = mpx_family_ticket_for(process->member, &record->ticket);
  if (r < 0)
    return r;
  record->held = process->transient.held;
  record->chosen_method = (uint32_t)mpx_method_chosen();
  record->guarded = process->guarded;
  return seal_record(process, record);
}

static int list_kept(const mproc_process *process, spawn_plan *plan) {
  const mproc_handle own[] = {process->transient.record, process->transient.report[1],
                              plan->record.ticket.handle, process->transient.held};
  enum { OWN = sizeof own / sizeof own[0] };
  plan->keep = calloc(process->options.inherit_count + OWN, sizeof *plan->keep);
  if (!plan->keep)
    return mpx_fail_code(-ENOMEM, "spawn");
  for (size_t i = 0; i < OWN; i++)
    if (own[i] != MPX_NO_HANDLE)
      plan->keep[plan->keep_count++] = own[i];
  for (size_t i = 0; i < process->options.inherit_count; i++)
    plan->keep[plan->keep_count++] = process->options.inherit[i].handle;
  return 0;
}

static int say_stage(const mproc_process *process, const mpx_launch *launch, int r,
                     mpx_stage stage) {
  char text[MPX_STAGE_TEXT_SIZE];
  if (stage == MPX_STAGE_EXEC)
    return mpx_fail(r, "cannot execute '%s' for '%s': %s", launch->path, process->name,
                    mproc_strerror(r));
  return mpx_fail(r, "'%s': %s failed: %s%s", process->name, mpx_launch_say(launch, stage, text),
                  mproc_strerror(r), mpx_os_limit_text(r));
}

static int execute(mproc_process *process, spawn_plan *plan) {
  mpx_boot_launch boot = {.environment = (char *const *)(uintptr_t)process->options.environment,
                          .title = plan->title,
                          .record = process->transient.record};
  mpx_options_launch(process, &boot.launch);
  boot.launch.path = plan->executable;
  boot.launch.keep = plan->keep;
  boot.launch.keep_count = plan->keep_count;
  boot.launch.credentials = &plan->record.credentials;
  mpx_stage stage;
  int r = mpx_boot_spawn(&boot, &process->child, &stage);
  process->parent_peak = mpx_os_peak_rss();
  if (r == 0)
    r = mpx_start_name_child(process);
  return r < 0 ? say_stage(process, &boot.launch, r, stage) : 0;
}

static int spawn_once(mproc_process *process, spawn_plan *plan) {
  int r = mpx_start_begin(process, MPX_METHOD_SPAWN, true);
  if (r < 0)
    return r;
  r = fill_record(process, &plan->record);
  if (r == 0)
    r = list_kept(process, plan);
  if (r == 0)
    r = execute(process, plan);
  free(plan->keep);
  plan->keep = NULL;
  plan->keep_count = 0;
  return mpx_start_end(process, r);
}

int mpx_start_spawn(mproc_process *process) {
  spawn_plan *plan = calloc(1, sizeof *plan);
  if (!plan)
    return mpx_fail_code(-ENOMEM, "spawn");
  int r = mpx_executable_for(process, plan->executable);
  (void)snprintf(plan->title, sizeof plan->title, "mproc:%s", process->name);
  for (int tries = 0; r == 0; tries++) {
    r = spawn_once(process, plan);
    if (r != -EEXIST)
      break;
    r = tries + 1 < MPX_ADDRESS_TRIES ? 0 : MPROC_EADDRESS;
    mpx_log(MPROC_LOG_INFO, "'%s': the shared heap's address was taken in the child; %s",
            process->name, r == 0 ? "starting it again" : "giving up");
    if (r < 0)
      (void)mpx_fail(
          r,
          "the address of the shared heap was taken in %d children of '%s' in a row; give "
          "mproc_init a smaller heap_size",
          MPX_ADDRESS_TRIES, process->name);
  }
  free(plan);
  return r;
}
