/* Start methods: how a function gets into another process. Python's names and rules.
 *
 * "fork"        the child is a copy of the caller: fastest from a small process, sees the caller's
 *               memory as it was, unsafe when other threads run.
 * "spawn"       the child is a fresh execution of the program: safe with threads, cost independent
 *               of the caller's memory, sees nothing but what it is given.
 * "forkserver"  a small server of one thread, itself a fresh execution of the program, forks for
 *               the caller: safe with threads, cost independent of the caller's memory, sees what
 *               the server's preload functions made ready (context.h).
 * docs/start-methods.md compares them in full.
 *
 * The process-wide choice is for the program. A library uses a context (context.h) instead.
 * Threads     any.
 * After fork  a child inherits the choice, under every method. */
#ifndef MPROC_START_METHOD_H
#define MPROC_START_METHOD_H

#include "version.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Stores in *ret_names the NULL-terminated list of what this system supports, the default first:
 * "fork", "spawn", "forkserver" on Linux and most POSIX systems, "spawn" alone on Windows.
 * Static storage. Returns the number of names. */
MPROC_API int mproc_get_all_start_methods(const char *const **ret_names);

/* Stores the name of the start method in use and, as in Python, fixes the default as the choice
 * when none was made before: MPROC_START_METHOD if set, else the first of the list. Static storage.
 * Errors: MPROC_EMETHOD or -ENOSYS for a bad MPROC_START_METHOD. */
MPROC_API int mproc_get_start_method(const char **ret_method);

/* The same without fixing anything (Python's allow_none=True): NULL is stored when no choice was
 * made yet. */
MPROC_API int mproc_get_start_method_if_set(const char **ret_method);

/* Chooses the start method for the whole program, once.
 * `force` non-zero replaces an earlier choice; NULL with `force` takes the choice back.
 * Errors: MPROC_EMETHOD (unknown name; the detail lists the valid ones), -ENOSYS (known, but not on
 * this system), MPROC_EMETHODSET (a choice was made before; the detail says which), -EINVAL (NULL
 * without force). */
MPROC_API MPROC_NODISCARD int mproc_set_start_method(const char *method, int force);

#ifdef __cplusplus
}
#endif
#endif
