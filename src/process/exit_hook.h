#ifndef MPX_PROCESS_EXIT_HOOK_H
#define MPX_PROCESS_EXIT_HOOK_H

/* Runs at the end of the process before its children are terminated and joined: for the layer
 * above, whose supervisors would be waited for. */
void mpx_exit_set_pools_hook(void (*hook)(void));

#endif
