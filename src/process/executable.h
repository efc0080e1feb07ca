/* Which program a spawned child executes. */
#ifndef MPX_PROCESS_EXECUTABLE_H
#define MPX_PROCESS_EXECUTABLE_H

#include "process/process.h"

/* The context's executable, MPROC_EXECUTABLE, the running program if its main calls mproc_init(),
 * else the helper. MPROC_ENOINIT, MPROC_ENOHELPER, MPROC_ESECURE; says why. */
int mpx_executable_for(const mproc_process *process, char path[MPX_OS_PATH_SIZE]);
/* The same for the guardian, which is in mproc itself. */
/* Whether this start may be asked of a server at all; says why not. */
int mpx_executable_check(const mproc_process *process);
int mpx_executable_for_server(const char *executable, const char *helper,
                              char path[MPX_OS_PATH_SIZE]);
int mpx_executable_for_guardian(char path[MPX_OS_PATH_SIZE]);

#endif
