/* The guardian: a process that kills the daemon children of a process that died.
 *
 * The kernel's own way (a signal when the parent dies) follows the parent *thread*: good for the
 * main thread only. And it forgets a child that changes its user or group. For daemons that other
 * threads start, and for all of a privileged process, there is one guardian, made at the first of
 * them. It holds pidfds: its parent's, to see it die, and the daemons', to kill exactly
 * them. It is no child that the host could see: its maker between them is gone.
 * docs/design/start-methods.md. */
#ifndef MPX_PROCESS_GUARDIAN_H
#define MPX_PROCESS_GUARDIAN_H

#include "process/process.h"

/* Handlers around every fork, once; else made at the first use. */
void mpx_guardian_prepare(void);
/* Says what ends a child with this process when it is a daemon, and makes the guardian if that is
 * part of it. Says why not. */
int mpx_guardian_tie(mproc_process *process);
/* Puts a child under it; when this returns 0 the child is as good as tied to us. */
int mpx_guardian_watch(mproc_process *process);
/* In a forked child: the guardian was the parent's. */
void mpx_guardian_reset_in_child(void);
/* The guardian's life, in the process that is to be it. Ends with the parent. */
_Noreturn void mpx_guardian_run(mproc_handle channel);

#endif
