#define _GNU_SOURCE
#include "os/linux/cgroup.h"
#include "os/os.h"

#include <errno.h>
#include <sched.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#define MAX_CPUS ((size_t)1 << 20)

/* The kernel refuses a mask that is shorter than its own, of a length that it does not tell. */
static int count_by_affinity(void) {
  for (size_t cpus = 1024; cpus <= MAX_CPUS; cpus *= 2) {
    cpu_set_t *set = CPU_ALLOC(cpus);
    if (!set)
      break;
    size_t size = CPU_ALLOC_SIZE(cpus);
    int r = sched_getaffinity(0, size, set) < 0 ? -errno : CPU_COUNT_S(size, set);
    CPU_FREE(set);
    if (r != -EINVAL)
      return r;
  }
  return -ENOSYS;
}

int mpx_os_cpu_count(void) {
  int count = count_by_affinity();
  if (count <= 0)
    count = (int)sysconf(_SC_NPROCESSORS_ONLN);
  int quota = mpx_cgroup_cpus("");
  if (quota > 0 && quota < count)
    count = quota;
  return count > 0 ? count : 1;
}

uint64_t mpx_os_memory_limit(void) {
  struct sysinfo info;
  uint64_t limit = mpx_cgroup_memory_limit("");
  if (sysinfo(&info) == 0) {
    uint64_t machine = (uint64_t)info.totalram * info.mem_unit;
    if (machine < limit)
      limit = machine;
  }
  return limit;
}

uint64_t mpx_os_memory_headroom(void) {
  return mpx_cgroup_memory_headroom("");
}

int64_t mpx_os_oom_kills(void) {
  return mpx_cgroup_oom_kills("");
}
