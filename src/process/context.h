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

#endif
