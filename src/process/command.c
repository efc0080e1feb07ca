/* A plain command in the place of an entry: same object, no member of the family. */
#include "base/error.h"
#include "heap/family.h"
#include "process/guardian.h"
#include "process/process.h"
#include "process/start.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A name with a slash is the child's to find, from its own directory; PATH is searched here, once,
 * because the search is not for a child that shares our memory. */
static int resolve(const mproc_process *process, char path[MPX_OS_PATH_SIZE]) {
  if (strchr(process->argv[0], '/')) {
    size_t length = strlen(process->argv[0]);
    if (length >= MPX_OS_PATH_SIZE)
      return mpx_fail(-ENAMETOOLONG, "the command's name has more than %d characters",
                      MPX_OS_PATH_SIZE - 1);
    memcpy(path, process->argv[0], length + 1);
    return 0;
  }
  int r = mpx_os_find_command(process->argv[0], path);
  if (r < 0)
    return mpx_fail(r, "cannot execute the command '%s': %s", process->argv[0], mproc_strerror(r));
  return 0;
}

static int execute(mproc_process *process, const char *path, mproc_handle held) {
  mpx_launch launch;
  mpx_stage stage;
  char text[MPX_STAGE_TEXT_SIZE];
  mpx_options_launch(process, &launch);
  launch.path = path;
  launch.argv = process->argv;
  launch.environment = (char *const *)(uintptr_t)process->options.environment;
  mproc_handle *keep = calloc(process->options.inherit_count + 1, sizeof *keep);
  if (!keep)
    return mpx_fail_code(-ENOMEM, "starting a command");
  for (size_t i = 0; i < process->options.inherit_count; i++)
    keep[launch.keep_count++] = process->options.inherit[i].handle;
  if (held != MPX_NO_HANDLE)
    keep[launch.keep_count++] = held;
  launch.keep = keep;
  int r = mpx_os_spawn(&launch, &process->child, &stage);
  process->parent_peak = mpx_os_peak_rss();
  free(keep);
  if (r == 0)
    r = mpx_start_name_child(process);
  return r < 0 ? mpx_fail(r, "command '%s': %s failed: %s%s", process->argv[0],
                          mpx_launch_say(&launch, stage, text), mproc_strerror(r),
                          mpx_os_limit_text(r))
               : 0;
}

static int start_at(mproc_process *process, const char *path) {
  int r = mpx_guardian_tie(process);
  if (r < 0)
    return r;
  mpx_registry_lock();
  r = mpx_os_child_prepare(&process->child, &process->transient.held);
  mpx_registry_unlock();
  if (r < 0)
    return mpx_fail(r, "command '%s': no descriptors: %s%s", process->argv[0], mproc_strerror(r),
                    mpx_os_limit_text(r));
  r = execute(process, path, process->transient.held);
  if (r == 0 && process->guarded) {
    r = mpx_guardian_watch(process);
    if (r < 0)
      mpx_start_remove_child(process);
  }
  mpx_registry_lock();
  mpx_transient_close(&process->transient);
  mpx_registry_unlock();
  if (r < 0)
    mpx_registry_forget_child(process);
  return r;
}

int mpx_start_command(mproc_process *process) {
  if (mpx_family_is_foreign())
    return mpx_fail(MPROC_EFOREIGN,
                    "process %lld was made by a fork() that mproc does not know; use "
                    "posix_spawn() there, or start it with mproc_process_start()",
                    (long long)mpx_os_pid());
  char *path = malloc(MPX_OS_PATH_SIZE); /* too large for a small thread's stack */
  if (!path)
    return mpx_fail_code(-ENOMEM, "starting a command");
  int r = resolve(process, path);
  if (r == 0)
    r = start_at(process, path);
  free(path);
  return r;
}
