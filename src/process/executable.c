#include "process/executable.h"

#include "base/error.h"
#include "process/entry.h"
#include "process/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef MPX_HELPER_PATH
#define MPX_HELPER_PATH "/usr/local/libexec/mproc/mproc-helper"
#endif
#define HELPER_NAME "mproc-helper"

static int copy_path(char path[MPX_OS_PATH_SIZE], const char *source) {
  int length = snprintf(path, MPX_OS_PATH_SIZE, "%s", source);
  return length < MPX_OS_PATH_SIZE ? 0
                                   : mpx_fail(-ENAMETOOLONG, "the path '%s' is too long", source);
}

/* In the directory of the library that this code is in, also as ../bin from lib/. */
static bool find_beside_library(char path[MPX_OS_PATH_SIZE]) {
  static const char *const places[] = {HELPER_NAME, "../bin/" HELPER_NAME,
                                       "../libexec/mproc/" HELPER_NAME};
  mpx_module *module = malloc(sizeof *module);
  bool found =
      module && mpx_os_module_of((const void *)(uintptr_t)find_beside_library, module) == 0;
  char *slash = found ? strrchr(module->path, '/') : NULL;
  found = false;
  if (slash)
    for (size_t i = 0; i < sizeof places / sizeof places[0] && !found; i++) {
      int length = snprintf(path, MPX_OS_PATH_SIZE, "%.*s/%s", (int)(slash - module->path),
                            module->path, places[i]);
      found = length < MPX_OS_PATH_SIZE && mpx_os_is_executable(path);
    }
  free(module);
  return found;
}

static int find_helper(const char *wanted, char path[MPX_OS_PATH_SIZE]) {
  const char *named[] = {wanted, mpx_init_helper(), mpx_setting("MPROC_HELPER")};
  static const char *const sources[] = {"the context", "mproc_init_options", "MPROC_HELPER"};
  for (size_t i = 0; i < sizeof named / sizeof named[0]; i++) {
    if (!named[i])
      continue;
    if (!mpx_os_is_executable(named[i]))
      return mpx_fail(MPROC_ENOHELPER,
                      "the helper program '%s', which %s names, cannot be executed; name the "
                      "installed mproc-helper",
                      named[i], sources[i]);
    return copy_path(path, named[i]);
  }
  if (find_beside_library(path))
    return 0;
  if (mpx_os_is_executable(MPX_HELPER_PATH))
    return copy_path(path, MPX_HELPER_PATH);
  return mpx_fail(
      MPROC_ENOHELPER,
      "the helper program was found neither beside libmproc nor at %s; install it, or name "
      "it by MPROC_HELPER or mproc_init_options.helper",
      MPX_HELPER_PATH);
}

static int refuse_if_secure(void) {
  if (mpx_os_is_secure())
    return mpx_fail(MPROC_ESECURE,
                    "this program runs with raised privileges (set-user-ID or file "
                    "capabilities), and would be executed again with them; use fork");
  return 0;
}

/* Refused before the exec: a main() that knows nothing of mproc would run again, and start itself
 * again. */
static int check_helper_can_run(const mproc_process *process) {
  mpx_function *function = malloc(sizeof *function);
  if (!function)
    return mpx_fail_code(-ENOMEM, "spawn");
  int r = mpx_function_of((uintptr_t)process->entry, function);
  if (r == 0 && function->is_main)
    r = mpx_fail(
        MPROC_ENOINIT,
        "the entry of '%s' is in the main program %s, whose main() has not called mproc_init(); "
        "make that its first statement, use fork, or put the entry into a shared library",
        process->name, function->path);
  free(function);
  return r;
}

/* What the loader reads and which program begins is root's business, until that has given root up
 * again as we have. */
static int refuse_if_mixed(const char *named, const void *environment) {
  if ((!named && !environment) || !mpx_os_has_mixed_ids())
    return 0;
  return mpx_fail(MPROC_ESECURE,
                  "real, effective and saved ids of this process differ, and the program begins "
                  "with those that can bring back the others: an executable or an environment of "
                  "its own would do so too; leave them out, or use fork");
}

int mpx_executable_for(const mproc_process *process, char path[MPX_OS_PATH_SIZE]) {
  int r = refuse_if_secure();
  const char *named = process->executable ? process->executable : mpx_setting("MPROC_EXECUTABLE");
  if (r == 0)
    r = refuse_if_mixed(named, process->options.environment);
  if (r < 0)
    return r;
  if (named)
    return copy_path(path, named);
  if (mpx_is_initialised())
    return mpx_os_self_executable(path);
  r = check_helper_can_run(process);
  return r < 0 ? r : find_helper(process->helper, path);
}

int mpx_executable_check(const mproc_process *process) {
  int r = refuse_if_secure();
  if (r < 0 || process->executable || mpx_is_initialised() || mpx_setting("MPROC_EXECUTABLE"))
    return r;
  return check_helper_can_run(process);
}

int mpx_executable_for_server(const char *executable, const char *helper,
                              char path[MPX_OS_PATH_SIZE]) {
  int r = refuse_if_secure();
  const char *named = executable ? executable : mpx_setting("MPROC_EXECUTABLE");
  if (r == 0)
    r = refuse_if_mixed(named, NULL);
  if (r < 0)
    return r;
  if (named)
    return copy_path(path, named);
  return mpx_is_initialised() ? mpx_os_self_executable(path) : find_helper(helper, path);
}

int mpx_executable_for_guardian(char path[MPX_OS_PATH_SIZE]) {
  int r = refuse_if_secure();
  if (r < 0)
    return r;
  return mpx_is_initialised() ? mpx_os_self_executable(path) : find_helper(NULL, path);
}
