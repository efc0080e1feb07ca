/* MPROC_DEBUG: checks that the user of a program asks for from outside. */
#ifndef MPX_PROCESS_DEBUG_H
#define MPX_PROCESS_DEBUG_H

#include "process/process.h"

/* Writer: the reading of MPROC_DEBUG. All that a start pays when it is off. */
extern _Atomic bool mpx_debug_args;

/* Names each word of the argument block that looks like a pointer to memory which the child has
 * not. Compares addresses and reads nothing of what they point to. */
void mpx_debug_check_args(const mproc_process *process, mpx_method method);

#endif
