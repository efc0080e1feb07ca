/* Errors: what a negative return value means.
 *
 * Every function that can fail returns an int: >= 0 is success, < 0 is either a negated errno value
 * of the platform (-ENOMEM, -EAGAIN, ...) or one of the codes below. errno itself is neither set
 * nor promised. Out-parameters are written on success only.
 * Rules that hold everywhere: absent on this system is -ENOSYS, a deadline that passed is
 * -ETIMEDOUT, a try (timeout 0) that failed is -EAGAIN, a bad argument is -EINVAL.
 *
 * Threads     the detail text belongs to the calling thread.
 * Numbers     errno values differ between systems: never write one to a file or a network. */
#ifndef MPROC_ERROR_H
#define MPROC_ERROR_H

#include "version.h"

#include <stddef.h>

/* X(name, value, text): every code of mproc's own. They begin at -4095, below any errno. */
#define MPROC_ERROR_MAP(X)                                                                         \
  X(EFOREIGN, -4095, "this process is no member of the family")                                    \
  X(ECLOSED, -4094, "the object was closed")                                                       \
  X(EMETHOD, -4093, "unknown start method")                                                        \
  X(EMETHODSET, -4092, "the start method is already set")                                          \
  X(ENOINIT, -4091, "main() has not called mproc_init()")                                          \
  X(ENOHELPER, -4090, "the helper program was not found")                                          \
  X(ENOMODULE, -4089, "the module that holds the entry cannot be loaded")                          \
  X(EMISMATCH, -4088, "the module that holds the entry is another file in the child")              \
  X(ESECURE, -4087, "refused in a program with raised privileges")                                 \
  X(EADDRESS, -4086, "no address range is left for the shared heap")                               \
  X(EHEAPFULL, -4085, "the shared heap's limit is reached")                                        \
  X(EHEAPLOST, -4084, "the shared heap's descriptor was closed")                                   \
  X(EPOINTER, -4083, "the pointer is no block of the shared heap")                                 \
  X(ETABLEFULL, -4082, "the process table is full")                                                \
  X(EBOOT, -4081, "the child ended before its entry ran")                                          \
  X(ERECORD, -4080, "the boot record is damaged or from another version")                          \
  X(ESTARTED, -4079, "the process was started before")                                             \
  X(ENOTSTARTED, -4078, "the process has not been started")                                        \
  X(ENOTCREATOR, -4077, "only the process that created the object may do this")                    \
  X(ECRASHED, -4076, "the process was killed by a signal")                                         \
  X(ESTATUS_UNKNOWN, -4075, "the process ended, but another part of the program took its status")  \
  X(EPRELOAD, -4074, "a preload function of the forkserver failed")                                \
  X(ESERVER, -4073, "the forkserver died again and again")                                         \
  X(EBROKEN, -4072, "the barrier is broken")                                                       \
  X(ETASK, -4071, "the task failed")                                                               \
  X(EPOOL, -4070, "the pool is broken: no worker comes up")

#define MPROC_ERROR_ENUM(name, value, text) MPROC_##name = (value),
enum mproc_error { MPROC_ERROR_MAP(MPROC_ERROR_ENUM) MPROC_ERROR_LAST = -4069 };
#undef MPROC_ERROR_ENUM

#ifdef __cplusplus
extern "C" {
#endif

/* What a code means, for any value a function of mproc returned. Static storage; any thread (for an
 * errno value the text is the platform's strerror, valid until the thread's next call). */
MPROC_API const char *mproc_strerror(int code);

/* The symbolic name of a code of mproc's own ("MPROC_EFOREIGN"), or NULL for any other value. */
MPROC_API const char *mproc_error_name(int code);

/* The code of the calling thread's last failure, for functions that return a pointer
 * (mproc_heap_alloc). 0 before the first. */
MPROC_API int mproc_last_error(void);

/* The calling thread's last failure in full: which file, limit or method, and the remedy. Never
 * NULL; valid until the thread's next failing call. Copy it to keep it. */
MPROC_API const char *mproc_error_detail(void);

#ifdef __cplusplus
}
#endif
#endif
