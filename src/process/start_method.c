#include "mproc/start_method.h"

#include "base/error.h"
#include "base/log.h"
#include "os/os.h"
#include "process/method.h"
#include "process/settings.h"

#include <errno.h>
#include <string.h>

static const char *const names[] = {[MPX_METHOD_FORK] = "fork",
                                    [MPX_METHOD_SPAWN] = "spawn",
                                    [MPX_METHOD_FORKSERVER] = "forkserver",
                                    [MPX_METHOD_MAIN] = "main"};

/* Any thread may set it; readers see the old or the new choice. */
static _Atomic int chosen_method = MPX_METHOD_UNSET;

const char *mpx_method_name(mpx_method method) {
  return method == MPX_METHOD_UNSET ? NULL : names[method];
}

/* The default first, NULL behind the last. */
static const char *const *available(void) {
  static const char *const all[] = {"fork", "spawn", "forkserver", NULL};
  static const char *const without_server[] = {"fork", "spawn", NULL};
  static const char *const without_fork[] = {"spawn", NULL};
  if (!mpx_os_has_fork())
    return without_fork;
  return mpx_os_can_send_handles() ? all : without_server;
}

int mproc_get_all_start_methods(const char *const **ret_names) {
  int count = 0, r = mpx_check_not_null(ret_names, "ret_names");
  if (r < 0)
    return r;
  *ret_names = available();
  while ((*ret_names)[count])
    count++;
  return count;
}

static const char *list_methods(char *text, size_t size) {
  const char *const *methods = available();
  text[0] = '\0';
  for (int i = 0; methods[i]; i++) {
    strncat(text, i ? ", " : "", size - strlen(text) - 1);
    strncat(text, methods[i], size - strlen(text) - 1);
  }
  return text;
}

int mpx_method_parse(const char *name, const char *source, mpx_method *ret_method) {
  const char *const *methods = available();
  char list[64];
  for (int m = MPX_METHOD_FORK; m <= MPX_METHOD_FORKSERVER; m++) {
    if (strcmp(name, names[m]) != 0)
      continue;
    for (int i = 0; methods[i]; i++)
      if (strcmp(methods[i], name) == 0) {
        *ret_method = (mpx_method)m;
        return 0;
      }
    return mpx_fail(-ENOSYS,
                    "%s: start method '%s' is not available on this system; choose one of: %s",
                    source, name, list_methods(list, sizeof list));
  }
  return mpx_fail(MPROC_EMETHOD, "%s: '%s' is no start method; choose one of: %s", source, name,
                  list_methods(list, sizeof list));
}

static int default_method(mpx_method *ret_method, const char **ret_reason) {
  const char *wish = mpx_setting("MPROC_START_METHOD");
  *ret_reason = wish ? "MPROC_START_METHOD" : "the default of this system";
  if (wish)
    return mpx_method_parse(wish, "MPROC_START_METHOD", ret_method);
  return mpx_method_parse(available()[0], "default", ret_method);
}

int mpx_method_in_use(mpx_method *ret_method) {
  mpx_method method = (mpx_method)chosen_method;
  if (method == MPX_METHOD_UNSET) {
    const char *reason;
    int unset = MPX_METHOD_UNSET;
    int r = default_method(&method, &reason);
    if (r < 0)
      return r;
    if (!atomic_compare_exchange_strong(&chosen_method, &unset, (int)method))
      method = (mpx_method)unset; /* another thread was first */
    else
      mpx_log(MPROC_LOG_INFO, "start method: %s (%s)", names[method], reason);
  }
  *ret_method = method;
  return 0;
}

mpx_method mpx_method_chosen(void) {
  return (mpx_method)chosen_method;
}

void mpx_method_inherit(mpx_method chosen) {
  chosen_method = (int)chosen;
}

int mproc_get_start_method(const char **ret_method) {
  mpx_method method;
  int r = mpx_check_not_null(ret_method, "ret_method");
  if (r == 0)
    r = mpx_method_in_use(&method);
  if (r == 0)
    *ret_method = names[method];
  return r;
}

int mproc_get_start_method_if_set(const char **ret_method) {
  int r = mpx_check_not_null(ret_method, "ret_method");
  if (r == 0)
    *ret_method = mpx_method_name(mpx_method_chosen());
  return r;
}

int mproc_set_start_method(const char *method, int force) {
  mpx_method wanted = MPX_METHOD_UNSET;
  if (!method && !force)
    return mpx_fail(-EINVAL, "no start method given; NULL takes the choice back only with force");
  if (method) {
    int r = mpx_method_parse(method, "mproc_set_start_method", &wanted);
    if (r < 0)
      return r;
  }
  if (force) {
    chosen_method = (int)wanted;
  } else {
    int unset = MPX_METHOD_UNSET;
    if (!atomic_compare_exchange_strong(&chosen_method, &unset, (int)wanted))
      return mpx_fail(
          MPROC_EMETHODSET,
          "the start method is already set to '%s'; use force to change it, or a context "
          "to use another one beside it",
          names[unset]);
  }
  mpx_log(MPROC_LOG_INFO, "start method: %s (mproc_set_start_method)",
          method ? method : "taken back");
  return 0;
}
