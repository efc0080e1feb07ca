/* Settings that come from outside: mproc_init's options and MPROC_* variables. */
#ifndef MPX_PROCESS_SETTINGS_H
#define MPX_PROCESS_SETTINGS_H

#include "mproc/init.h"

#include <stdbool.h>
#include <stdint.h>

/* The value of an MPROC_* variable; NULL when unset, empty, or not to be read (raised
 * privileges). */
const char *mpx_setting(const char *name);
/* A copy of a setting that is a string; NULL of NULL. -ENOMEM, says why. */
int mpx_copy_string(char **ret_copy, const char *string);
/* Whether mproc_init() was called in this process or in the one it is a copy of: then the main
 * program can be executed again to run an entry. */
bool mpx_is_initialised(void);
/* mproc_init's helper path, or NULL. */
const char *mpx_init_helper(void);
/* Reads MPROC_LOG, once. Says why not. */
int mpx_log_from_environment(void);
/* Says it at level error, and on standard error where the log is off: for what the user of a
 * program asked for by a variable of its own. */
void mpx_log_asked_for(const char *message);
/* Reads MPROC_DEBUG, once. Says why not. */
int mpx_debug_from_environment(void);

#endif
