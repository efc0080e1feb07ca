/* The child's side, common to every start method: from "we are a member" to the exit record. */
#ifndef MPX_PROCESS_CHILD_H
#define MPX_PROCESS_CHILD_H

#include "heap/family.h"
#include "mproc/process.h"
#include "os/os.h"
#include "process/method.h"

#include <stdbool.h>

/* What a child says before its entry: the code and the text of its first error, or 0. */
void mpx_report_send(mproc_handle to, int code, const char *text);
/* Waits for the report of a child: until it comes, the child ends or the deadline passes. 0: the
 * entry is about to run. 1: it ended without one. Else the child's error, said with its text, or
 * -ETIMEDOUT. */
int mpx_report_receive(mproc_handle from, const mpx_child *child, int64_t deadline,
                       const char *name);

/* The handles that the parent passed by name; `items` is the child's for good. */
void mpx_inherited_set(const mproc_inherit *items, size_t count);

/* Who the calling process and its parent are, for mproc_current_process and its kin. Called first
 * by whoever made the process a member. */
void mpx_self_set(mpx_member member);

/* From here on exit() runs the handlers that are registered later, and then ends the child: those
 * of the parent do not run. Called by a member, once, before any code of the user's. */
void mpx_child_set_barrier(void);
/* Runs the entry and ends the process with its result, as by exit(). `guarded`: not before the gate
 * is open. */
_Noreturn void mpx_child_run(mproc_entry *entry, void *arg, size_t size, bool guarded);

/* In a fresh forked child: its parent's objects, servers and guardian are not its own. */
void mpx_child_leave_parent(void);
/* Lets the child go on. */
void mpx_gate_open(mpx_slot *slot);
/* Waits until the starter lets the child go on; false: called off, or the starter is dead. */
bool mpx_gate_pass(mpx_header *header, mpx_member member);

/* Runs the hooks of mproc_after_fork. */
void mpx_after_fork_run(void);

#endif
