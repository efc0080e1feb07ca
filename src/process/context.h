#ifndef MPX_PROCESS_CONTEXT_H
#define MPX_PROCESS_CONTEXT_H

#include "mproc/context.h"
#include "process/method.h"

/* Immutable once made. The strings are the context's own; NULL: the default. */
struct mproc_context {
  mpx_method method;
  char *executable;
  char *helper;
  struct mpx_server *server; /* NULL: the default one */
};

/* `context`, just made, uses the forkserver of the other one. */
void mpx_context_share_server(mproc_context *context, const mproc_context *other);

#endif
