/* What the control group this process is in says, version 1, 2 or both, along the whole path of
 * parents. `root` is put before every path: "" for the real system, a folder of recorded files for
 * a test. */
#ifndef MPX_OS_LINUX_CGROUP_H
#define MPX_OS_LINUX_CGROUP_H

#include <stdint.h>

/* Smallest memory limit in bytes; UINT64_MAX without one. */
uint64_t mpx_cgroup_memory_limit(const char *root);

/* Smallest distance to a limit; what the system can take back from its page cache counts as
 * free. */
uint64_t mpx_cgroup_memory_headroom(const char *root);

/* Processes of the group that were killed for its memory or the machine's. -ENOSYS. */
int64_t mpx_cgroup_oom_kills(const char *root);

/* CPUs by the smallest quota, rounded up; 0 without one. */
int mpx_cgroup_cpus(const char *root);

#endif
