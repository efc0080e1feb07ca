/* A file without a name: a memfd, else an unlinked file in memory or on disk. */
#ifndef MPX_OS_LINUX_ANONYMOUS_FILE_H
#define MPX_OS_LINUX_ANONYMOUS_FILE_H

#include <stdbool.h>

/* Returns a close-on-exec descriptor open for reading and writing. *ret_sealable says whether
 * F_ADD_SEALS works on it. `name` is for those who look at /proc only. */
int mpx_anonymous_file(const char *name, bool *ret_sealable);

/* Whether the kernel gives this process memfds. */
bool mpx_has_memfd(void);

#endif
