/* /proc/PID/stat. */
#ifndef MPX_OS_LINUX_PROC_H
#define MPX_OS_LINUX_PROC_H

#include <stdint.h>

typedef struct mpx_proc_stat {
  char state;
  int threads;
  int64_t start_time; /* clock ticks since boot */
  int exit_status;    /* of a zombie, as wait tells it; 0 where the kernel hides it */
} mpx_proc_stat;

/* Parses the text of the file. -EBADMSG. */
int mpx_proc_parse_stat(const char *text, mpx_proc_stat *ret_stat);

/* The wait status of a process that ended and was not reaped: 1, else 0. */
int mpx_proc_zombie_status(int64_t pid, int *ret_status);

#endif
