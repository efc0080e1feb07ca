/* The start methods as the command shows them. */
#ifndef MPROC_CLI_METHODS_H
#define MPROC_CLI_METHODS_H

#include <stddef.h>

typedef struct method_info {
  const char *name;
  const char *good_for;
  const char *avoid_when;
} method_info;

enum { METHODS_MAX = 8 };

typedef struct method_list {
  const char *default_name;
  const char *system_default; /* what the default is when nothing overrides it */
  method_info methods[METHODS_MAX];
  size_t count; /* methods[0] is the default */
} method_list;

/* Writes `list` as JSON to standard output; returns an exit status. */
int cli_methods_json(const method_list *list);

#endif
