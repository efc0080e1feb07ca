/* /proc/PID/stat. */
#ifndef MPX_OS_LINUX_PROC_H
#define MPX_OS_LINUX_PROC_H

#include <stdint.h>

typedef struct mpx_proc_stat {
  char state;
  int threads;
  int64_t start_time; /* clock ticks since boot */
} mpx_proc_stat;

/* Parses the text of the file. -EBADMSG. */
int mpx_proc_parse_stat(const char *text, mpx_proc_stat *ret_stat);

#endif
