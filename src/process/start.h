/* What every start of a family member has in common. */
#ifndef MPX_PROCESS_START_H
#define MPX_PROCESS_START_H

#include "process/process.h"

/* Claims a slot for a child of this process, with what stands in it from the beginning. */
int mpx_start_claim(const char name[MPX_NAME_SIZE], mpx_method method, bool daemon,
                    mpx_member *ret_member);
/* Claims a slot, makes the handles of the start, and sees to a guardian where one is needed. Says
 * why not, and leaves nothing. */
int mpx_start_begin(mproc_process *process, mpx_method method, bool report);
/* Ends a start whose child exists if `r` is 0: receives its report, opens its gate, closes what
 * only the start needed. After a failure the child is gone, and so are its slot and handles.
 * Returns the result. */
int mpx_start_end(mproc_process *process, int r);
/* The end of it: closes what only the start needed, after a failure the sentinel too. */
int mpx_start_finish(mproc_process *process, int r);
int64_t mpx_start_deadline(const mproc_process *process);
/* Names a child that was made just now, or ends it. No fork by another thread has a handle of it
 * that the registry does not know. */
int mpx_start_name_child(mproc_process *process);
/* A child that failed, or took too long, is gone before start returns. */
void mpx_start_remove_child(mproc_process *process);

#endif
