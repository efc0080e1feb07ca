/* /proc/PID/stat and /proc/PID/status. */
#ifndef MPX_OS_LINUX_PROC_H
#define MPX_OS_LINUX_PROC_H

#include <stddef.h>
#include <stdint.h>

typedef struct mpx_proc_stat {
  char state;
  unsigned flags; /* the kernel's, of its first thread */
  int threads;
  int64_t start_time; /* clock ticks since boot */
  int exit_status;    /* of a zombie, as wait tells it; 0 where the kernel hides it */
} mpx_proc_stat;

/* Parses the text of the file. -EBADMSG. */
int mpx_proc_parse_stat(const char *text, mpx_proc_stat *ret_stat);

/* A line of the text of /proc/PID/status: "VmData:\t    1024 kB". -ENOENT: there is none. */
int mpx_proc_parse_kib(const char *text, const char *name, uint64_t *ret_bytes);
/* Private memory that was written to, by the same text. -ENOENT: it does not tell. */
int mpx_proc_parse_memory_use(const char *text, uint64_t *ret_bytes);

/* mpx_os_read_file of /proc/PID/`file`. -ESRCH: no such process. -ENOSYS: nobody can tell. */
int64_t mpx_proc_read(int64_t pid, const char *file, char *text, size_t size);

/* The wait status of a process that ended and was not reaped: 1, else 0. */
int mpx_proc_zombie_status(int64_t pid, int *ret_status);

#endif
