#include "process/context.h"

#include "base/error.h"
#include "process/server.h"
#include "process/settings.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* By mpx_method; lent to anybody, freed by nobody. */
static const mproc_context built_in[] = {{.method = MPX_METHOD_UNSET},
                                         {.method = MPX_METHOD_FORK},
                                         {.method = MPX_METHOD_SPAWN},
                                         {.method = MPX_METHOD_FORKSERVER}};

int mproc_get_context(const mproc_context **ret_context, const char *method) {
  mpx_method number = MPX_METHOD_UNSET;
  int r = mpx_check_not_null(ret_context, "ret_context");
  if (r == 0 && method)
    r = mpx_method_parse(method, "mproc_get_context", &number);
  if (r == 0)
    *ret_context = &built_in[number];
  return r;
}

/* Contexts with the same settings share a server, also one of a parent that a worker came from. */
static int choose_server(mproc_context *context, const mproc_context_options *options) {
  if ((options->preload == NULL) != (options->preload_count == 0))
    return mpx_fail(-EINVAL, "mproc_context_options.preload and its count do not agree");
  for (size_t i = 0; i < options->preload_count; i++)
    if (!options->preload[i])
      return mpx_fail(-EINVAL, "mproc_context_options.preload[%zu] is NULL", i);
  if (options->spares < 0 || options->spares > MPX_SPARES_MAX)
    return mpx_fail(-EINVAL, "mproc_context_options.spares is %d; 0 to %d are possible",
                    options->spares, MPX_SPARES_MAX);
  context->server = mpx_server_for(options);
  if (!context->server)
    return mpx_fail_code(-ENOMEM, "mproc_context_create");
  mpx_server_ref(context->server);
  return 0;
}

int mproc_context_create(mproc_context **ret_context, const mproc_context_options *options) {
  static const mproc_context_options defaults;
  if (!options)
    options = &defaults;
  int r = mpx_check_not_null(ret_context, "ret_context");
  if (r == 0)
    r = mpx_check_reserved(options->reserved, "mproc_context_options");
  if (r < 0)
    return r;
  mproc_context *context = calloc(1, sizeof *context);
  if (!context)
    return mpx_fail_code(-ENOMEM, "mproc_context_create");
  if (options->method) {
    r = mpx_method_parse(options->method, "mproc_context_create", &context->method);
    if (r < 0)
      goto fail;
  }
  r = mpx_copy_string(&context->executable, options->executable);
  if (r < 0)
    goto fail;
  r = mpx_copy_string(&context->helper, options->helper);
  if (r < 0)
    goto fail;
  r = choose_server(context, options);
  if (r < 0)
    goto fail;
  *ret_context = context;
  return 0;
fail:
  mproc_context_destroy(context);
  return r;
}

void mpx_context_share_server(mproc_context *context, const mproc_context *other) {
  mpx_server_ref(other->server);
  if (context->server)
    mpx_server_unref(context->server);
  context->server = other->server;
}

void mproc_context_destroy(mproc_context *context) {
  const mproc_context *end = built_in + sizeof built_in / sizeof built_in[0];
  if (!context || (context >= built_in && context < end))
    return;
  mpx_os_cancel_hold();
  if (context->server)
    mpx_server_unref(context->server);
  free(context->executable);
  free(context->helper);
  free(context);
  mpx_os_cancel_release();
}

static bool has_server(const mproc_context *context) {
  return !context || context->method == MPX_METHOD_FORKSERVER;
}

static mpx_server *server_of(const mproc_context *context) {
  return context && context->server ? context->server : mpx_server_default();
}

void mproc_context_stop(const mproc_context *context) {
  mpx_os_cancel_hold();
  mpx_server *server = has_server(context) ? server_of(context) : NULL;
  if (server)
    mpx_server_stop(server);
  mpx_os_cancel_release();
}

int mproc_context_refresh(const mproc_context *context) {
  if (!has_server(context))
    return mpx_fail(-EINVAL, "a context of the method %s has no forkserver to refresh",
                    mpx_method_name(context->method));
  mpx_os_cancel_hold();
  mpx_server *server = server_of(context);
  int r = server ? mpx_server_refresh(server) : mpx_fail_code(-ENOMEM, "mproc_context_refresh");
  mpx_os_cancel_release();
  return r;
}

const char *mproc_context_method(const mproc_context *context) {
  return context ? mpx_method_name(context->method) : NULL;
}
