/* What a fresh child does to itself before it runs anything. Async-signal-safe throughout: the
 * parent may have had threads, and after a vfork the memory is still the parent's. */
#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

const char *mpx_os_stage_text(mpx_stage stage) {
  static const char *const texts[] = {[MPX_STAGE_NONE] = "nothing",
                                      [MPX_STAGE_CREATE] = "creating the process",
                                      [MPX_STAGE_STREAMS] =
                                          "setting up standard input, output and error",
                                      [MPX_STAGE_DESCRIPTORS] = "passing the descriptors",
                                      [MPX_STAGE_LIMITS] = "setting the resource limits",
                                      [MPX_STAGE_AFFINITY] = "setting the CPU affinity",
                                      [MPX_STAGE_NICE] = "changing the nice value",
                                      [MPX_STAGE_CGROUP] = "entering the cgroup",
                                      [MPX_STAGE_CWD] = "changing the working directory",
                                      [MPX_STAGE_GROUP] = "joining the process group",
                                      [MPX_STAGE_PARENT] = "tying it to its parent",
                                      [MPX_STAGE_EXEC] = "executing the program"};
  return texts[stage];
}

const char *mpx_os_limit_text(int code) {
  switch (code) {
  case -EMFILE:
    return " (the limit on descriptors of this process, RLIMIT_NOFILE)";
  case -ENFILE:
    return " (the limit on open files of the machine)";
  case -EAGAIN:
    return " (the limit on processes, RLIMIT_NPROC or the cgroup's pids.max)";
  case -EFBIG:
    return " (the limit on file sizes, RLIMIT_FSIZE)";
  case -EOPNOTSUPP:
    return " (the children of this process are in a pid namespace of their own)";
  default:
    return "";
  }
}

/* A source below 3 could be overwritten before it is used: move it up first. The copies are
 * close-on-exec; in a forked child close_copies removes them. */
static int lift_streams(const mproc_stream *streams, int sources[3]) {
  for (int i = 0; i < 3; i++) {
    if (streams[i].kind == MPROC_STREAM_NULL)
      sources[i] = open("/dev/null", i == 0 ? O_RDONLY | O_CLOEXEC : O_WRONLY | O_CLOEXEC);
    else if (streams[i].kind == MPROC_STREAM_HANDLE)
      sources[i] = fcntl((int)streams[i].handle, F_DUPFD_CLOEXEC, 3);
    else
      continue;
    if (sources[i] >= 0 && sources[i] < 3) {
      int lifted = fcntl(sources[i], F_DUPFD_CLOEXEC, 3);
      (void)close(sources[i]);
      sources[i] = lifted;
    }
    if (sources[i] < 0)
      return -errno;
  }
  return 0;
}

static int apply_streams(const mproc_stream *streams) {
  int sources[3] = {-1, -1, -1};
  int r = lift_streams(streams, sources);
  for (int i = 0; i < 3 && r == 0; i++) {
    if (sources[i] >= 0 && dup2(sources[i], i) < 0)
      r = -errno;
    else if (streams[i].kind == MPROC_STREAM_STDOUT && dup2(STDOUT_FILENO, i) < 0)
      r = -errno;
  }
  for (int i = 0; i < 3; i++)
    if (sources[i] >= 0)
      (void)close(sources[i]);
  return r;
}

static int apply_cgroup(const char *cgroup) {
  int folder = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (folder < 0)
    return -errno;
  int fd = openat(folder, "cgroup.procs", O_WRONLY | O_CLOEXEC);
  int r = fd < 0 ? -errno : 0;
  (void)close(folder);
  if (r < 0)
    return r;
  r = write(fd, "0", 1) == 1 ? 0 : -errno;
  (void)close(fd);
  return r;
}

static int apply_limit(const mproc_limit *limit) {
  static const int resources[] = {
      [MPROC_RESOURCE_CORE] = RLIMIT_CORE,     [MPROC_RESOURCE_CPU] = RLIMIT_CPU,
      [MPROC_RESOURCE_DATA] = RLIMIT_DATA,     [MPROC_RESOURCE_FSIZE] = RLIMIT_FSIZE,
      [MPROC_RESOURCE_NOFILE] = RLIMIT_NOFILE, [MPROC_RESOURCE_STACK] = RLIMIT_STACK,
      [MPROC_RESOURCE_AS] = RLIMIT_AS};
  struct rlimit value = {
      .rlim_cur = limit->soft == MPROC_UNLIMITED ? RLIM_INFINITY : (rlim_t)limit->soft,
      .rlim_max = limit->hard == MPROC_UNLIMITED ? RLIM_INFINITY : (rlim_t)limit->hard};
#ifdef __GLIBC__
  __rlimit_resource_t resource = (__rlimit_resource_t)resources[limit->resource];
#else
  int resource = resources[limit->resource];
#endif
  return setrlimit(resource, &value) < 0 ? -errno : 0;
}

static int apply_affinity(const int *cpus, size_t count) {
#ifdef __linux__
  cpu_set_t set[8]; /* 8,192 CPUs: what the largest kernels are built for */
  memset(set, 0, sizeof set);
  for (size_t i = 0; i < count; i++) {
    if (cpus[i] < 0 || (size_t)cpus[i] >= sizeof set * 8)
      return -EINVAL;
    CPU_SET_S((size_t)cpus[i], sizeof set, set);
  }
  return sched_setaffinity(0, sizeof set, set) < 0 ? -errno : 0;
#else
  (void)cpus;
  return count ? -ENOSYS : 0;
#endif
}

static int apply_nice(int increment) {
  errno = 0; /* -1 is a legal nice value */
  return nice(increment) == -1 && errno != 0 ? -errno : 0;
}

/* The signal follows the thread that made us, so the caller is the main thread. The parent may have
 * died before the request: then nobody would send it. */
int mpx_os_die_with_parent(int64_t parent_pid, bool yes) {
#ifdef __linux__
  if (prctl(PR_SET_PDEATHSIG, yes ? SIGKILL : 0) < 0)
    return -errno;
#endif
  if (!yes)
    return 0;
  pid_t parent = getppid(); /* 0: in another pid namespace, where its death would show as 1 */
  if (parent != (pid_t)parent_pid && parent != 0)
    mpx_os_exit_now(1);
  return 0;
}

int mpx_os_apply(const mpx_launch *launch, int64_t parent_pid, mpx_stage *ret_stage) {
  int r = 0;
#define APPLY(stage, condition, action)                                                            \
  if (r == 0 && (condition) && (r = (action)) < 0)                                                 \
  *ret_stage = (stage)
  APPLY(MPX_STAGE_PARENT, launch->die_with_parent, mpx_os_die_with_parent(parent_pid, true));
  APPLY(MPX_STAGE_STREAMS, launch->streams != NULL, apply_streams(launch->streams));
  APPLY(MPX_STAGE_CGROUP, launch->cgroup != NULL, apply_cgroup(launch->cgroup));
  APPLY(MPX_STAGE_AFFINITY, launch->cpu_count > 0, apply_affinity(launch->cpus, launch->cpu_count));
  APPLY(MPX_STAGE_NICE, launch->nice != 0, apply_nice(launch->nice));
  APPLY(MPX_STAGE_CWD, launch->cwd != NULL, chdir(launch->cwd) < 0 ? -errno : 0);
  /* Last: a limit on descriptors or file sizes must not hit the steps before. */
  for (size_t i = 0; i < launch->limit_count; i++)
    APPLY(MPX_STAGE_LIMITS, true, apply_limit(&launch->limits[i]));
#undef APPLY
  return r;
}
