#include "mproc/init.h"

#include "base/error.h"
#include "heap/family.h"
#include "mproc/version.h"
#include "process/boot.h"
#include "process/guardian.h"
#include "process/process.h"
#include "process/server.h"
#include "process/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static struct {
  bool done;
  bool lacks_server; /* it was wanted, and did not come up */
  char *helper;
} init;

const char *mproc_version(void) {
  return MPROC_VERSION_STRING;
}

const char *mpx_setting(const char *name) {
  if (mpx_os_is_secure())
    return NULL;
  const char *value = getenv(name);
  return value && value[0] ? value : NULL;
}

int mpx_copy_string(char **ret_copy, const char *string) {
  size_t size = string ? strlen(string) + 1 : 0;
  char *copy = string ? malloc(size) : NULL;
  if (string && !copy)
    return mpx_fail_code(-ENOMEM, "copying the settings");
  *ret_copy = copy ? memcpy(copy, string, size) : NULL;
  return 0;
}

bool mpx_is_initialised(void) {
  return init.done;
}

const char *mpx_init_helper(void) {
  return init.helper;
}

static int check_environment(void) {
  mpx_method method;
  const char *wish = mpx_setting("MPROC_START_METHOD");
  int r = wish ? mpx_method_parse(wish, "MPROC_START_METHOD", &method) : 0;
  if (r == 0)
    r = mpx_log_from_environment();
  return r < 0 ? r : mpx_debug_from_environment();
}

static int take_options(const mproc_init_options *options) {
  if (!options)
    return 0;
  int r = mpx_check_reserved(options->reserved, "mproc_init_options");
  if (r < 0)
    return r;
  char *helper = NULL;
  r = mpx_copy_string(&helper, options->helper);
  if (r < 0)
    return r;
  free(init.helper); /* of a call that failed */
  init.helper = helper;
  mpx_family_set_size(options->heap_size);
  return 0;
}

static int start_server(void) {
  mpx_server *server = mpx_server_default();
  mpx_server_view view;
  if (!server)
    return mpx_fail_code(-ENOMEM, "mproc_init");
  mpx_os_cancel_hold();
  int r = mpx_server_use(server, mpx_os_now() + 60 * MPX_NS_PER_S, &view);
  if (r == 0)
    mpx_server_release(&view);
  mpx_os_cancel_release();
  init.lacks_server = r < 0;
  return r;
}

int mproc_init(int *argc, char ***argv, const mproc_init_options *options) {
  (void)argc;
  (void)argv;
  if (init.done)
    return init.lacks_server ? start_server() : 0;
  int r = take_options(options);
  if (r < 0)
    return r;
  init.done = true;
  /* Before the host has such handlers: then its own may call mproc, since they run outside of ours.
   * The registry first: its lock is a leaf, and the last one to be taken. */
  mpx_registry_prepare();
  mpx_guardian_prepare();
  r = mpx_boot_if_child(); /* never returns in a child: what follows is the main process's */
  if (r == 0)
    r = check_environment();
  if (r < 0) {
    init.done = false;
    return r;
  }
  (void)atexit(mpx_exit_children); /* a copy of us, a daemon perhaps, joins its own */
  return options && options->forkserver ? start_server() : 0;
}
