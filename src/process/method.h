/* Start methods inside: numbers, names, and the process-wide choice. */
#ifndef MPX_PROCESS_METHOD_H
#define MPX_PROCESS_METHOD_H

#include <stdint.h>

typedef enum mpx_method {
  MPX_METHOD_UNSET = 0, /* follow the process-wide choice */
  MPX_METHOD_FORK,
  MPX_METHOD_SPAWN,
  MPX_METHOD_FORKSERVER,
  MPX_METHOD_MAIN /* how the family's first process came to be */
} mpx_method;

const char *mpx_method_name(mpx_method method);
/* MPROC_EMETHOD, -ENOSYS; says why, with `source` ("MPROC_START_METHOD") where it came from. */
int mpx_method_parse(const char *name, const char *source, mpx_method *ret_method);
/* The method for a start now; fixes the default. Says why not. */
int mpx_method_in_use(mpx_method *ret_method);
/* The choice as it stands, for a child to inherit. */
mpx_method mpx_method_chosen(void);
void mpx_method_inherit(mpx_method chosen);

#endif
