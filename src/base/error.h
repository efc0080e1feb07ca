/* Errors inside: fail with a code and the text that a user acts on. */
#ifndef MPX_BASE_ERROR_H
#define MPX_BASE_ERROR_H

#include "mproc/error.h"

#include <stdint.h>

#define MPX_DETAIL_SIZE 512 /* bytes of a detail text, NUL included; longer ones are cut */

/* Remembers `code` and the formatted text for the calling thread and returns `code`:
 *   return mpx_fail(MPROC_EHEAPFULL, "the shared heap is limited to %zu bytes; ...", limit);
 * The text names the thing and the remedy. Keeps errno. */
int mpx_fail(int code, const char *format, ...) MPROC_PRINTF(2, 3);

/* The same with "what: <text of code>" where there is nothing better to say. */
int mpx_fail_code(int code, const char *what);

/* -EINVAL, said with the parameter's name, when the caller gave NULL. */
int mpx_check_not_null(const void *pointer, const char *name);

/* -EINVAL, with the type's name, when a field that must be zero is not. */
int mpx_check_reserved(const uint64_t reserved[8], const char *type);

#endif
