/* Init: the first statement of main.
 *
 * What it is  In the process that you start, mproc_init() remembers the options and returns; in a
 *             process that mproc started by spawn it runs the entry, in a forkserver it serves, and
 *             never returns. Without it, fork works, and spawn and forkserver run entries that live
 *             in shared libraries, through the installed helper program; entries of the main
 *             program they refuse.
 * Ownership   Options are copied.
 * Threads     Call it once, before the program starts threads. A second call does nothing.
 * After fork  Inherited. */
#ifndef MPROC_INIT_H
#define MPROC_INIT_H

#include "version.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_init_options {
  size_t heap_size;     /* bytes; limit of the family's shared heap. 0: half of the memory (of the
                            machine or of the cgroup). Rounded up to 64 KiB. Final from birth. */
  const char *helper;   /* path of the helper program. NULL: MPROC_HELPER, then beside libmproc,
                            then the installed one. */
  int forkserver;       /* non-zero: start the forkserver of contexts without settings now, before
                           there are secrets, threads or gigabytes */
  uint64_t reserved[8]; /* must be zero */
} mproc_init_options;

#ifdef __cplusplus
extern "C" {
#endif

/* Call it as the first statement of main, with the addresses of main's own parameters.
 * Starts no thread and, unless `forkserver` is set, no process, and opens no file but the one that
 * MPROC_LOG names. Registers the joining of non-daemon children at exit, as Python does; daemon
 * children are terminated there. A copy that the program makes of itself before its first child, as
 * daemon(3) does, joins its own.
 * `options` may be NULL. Returns 0.
 * Errors: -EINVAL (a reserved field is set, or MPROC_LOG or MPROC_DEBUG has a bad value; the detail
 * names it), MPROC_EMETHOD or -ENOSYS (MPROC_START_METHOD), what opening the log's file failed
 * with, -ENOMEM, MPROC_ERECORD (the process was given a boot record that is none); with
 * `forkserver` those of mproc_process_start.
 * A set-user-ID program (AT_SECURE) reads no MPROC_* variable and never becomes a child. A spawned
 * child that cannot run its entry reports why to its parent's mproc_process_start() and exits. */
MPROC_API MPROC_NODISCARD int mproc_init(int *argc, char ***argv,
                                         const mproc_init_options *options);

#ifdef __cplusplus
}
#endif
#endif
