/* Which file is mapped at an address. */
#ifndef MPX_OS_LINUX_MAPS_H
#define MPX_OS_LINUX_MAPS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Absolute path of the file mapped at `address`. *ret_deleted: the path is where it was, but that
 * file was deleted or replaced since. -ENOENT when nothing or no file is there. */
int mpx_maps_path(uintptr_t address, char *path, size_t size, bool *ret_deleted);

#endif
