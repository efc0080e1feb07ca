/* Context: a start method with its settings, for one library or one pool, without touching the
 * process-wide choice.
 *
 * Ownership   mproc_get_context lends an immutable context that lives as long as the program;
 *             mproc_context_create makes one of your own, released by mproc_context_destroy.
 * Threads     any; a context never changes. Contexts with the same settings share a forkserver.
 * After fork  usable in the child. */
#ifndef MPROC_CONTEXT_H
#define MPROC_CONTEXT_H

#include "version.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_context mproc_context;

/* What a forkserver runs once, before any worker exists: each worker inherits what it leaves in
 * memory, copy-on-write. Not 0 is a failure. Threads that it leaves behind are reported, and no
 * worker has them; those of OpenMP are let go by omp_pause_resource_all(omp_pause_soft). */
typedef int mproc_preload(void);

typedef struct mproc_context_options {
  const char *method;     /* "fork", "spawn", ... NULL: the process-wide method at each start */
  const char *executable; /* spawn, forkserver: the program to execute instead of the running one.
                             It must call mproc_init() and hold the entry's module. NULL: the
                             running program. MPROC_EXECUTABLE is its default. */
  const char *helper;     /* spawn, forkserver: helper program for hosts that cannot call
                             mproc_init(). NULL: the search described in init.h. */
  mproc_preload *const *preload; /* forkserver: run in the server, in this order */
  size_t preload_count;
  int spares;           /* forkserver: workers, at most 256, that are kept ready: a start takes one
                           instead of waiting for a fork, and it is replaced afterwards */
  uint64_t reserved[8]; /* must be zero */
} mproc_context_options;

#ifdef __cplusplus
extern "C" {
#endif

/* Lends the built-in context of a method, or of the process-wide choice when `method` is NULL
 * (which does not fix the choice).
 * Errors: MPROC_EMETHOD (unknown name; the detail lists the valid ones), -ENOSYS (not on this
 * system). */
MPROC_API int mproc_get_context(const mproc_context **ret_context, const char *method);

/* Makes a context with settings of its own; strings are copied.
 * Errors: as mproc_get_context, -EINVAL (a reserved field is set), -ENOMEM. */
MPROC_API MPROC_NODISCARD int mproc_context_create(mproc_context **ret_context,
                                                   const mproc_context_options *options);

/* Releases a context of your own. Processes created with it keep a copy of its settings.
 * NULL does nothing; a context of mproc_get_context is left alone. */
MPROC_API void mproc_context_destroy(mproc_context *context);

/* Replaces the context's forkserver by a fresh one, which runs the preload functions again; NULL or
 * a context without settings: the default one. Workers of the old one go on, and it ends with the
 * last of them. Waits until the new one serves; if it cannot, the old one goes on. Errors: as
 * mproc_process_start. */
MPROC_API int mproc_context_refresh(const mproc_context *context);

/* Sends the context's forkserver away, which takes its spares along and ends with the last of its
 * workers; the next start makes another one. NULL: the default one. A server that nobody uses any
 * more ends by itself: this is for those who want its memory and descriptors back before. */
MPROC_API void mproc_context_stop(const mproc_context *context);

/* The context's method, or NULL when it follows the process-wide choice, as NULL does.
 * Static storage. */
MPROC_API const char *mproc_context_method(const mproc_context *context);

#ifdef __cplusplus
}
#endif
#endif
