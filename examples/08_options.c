/* What a child can be given: name, environment, directory, limits, CPUs, priority. Prints:
 *   name         carpenter
 *   environment  TOOL=saw, HOME is not set
 *   directory    /
 *   open files   at most 64
 *   CPUs         1
 *   nice         5 more than the parent
 */
#define _GNU_SOURCE /* sched_getcpu */

#include <mproc/mproc.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

static int tell(void *arg, size_t size) {
  (void)size;
  int parent_nice = *(int *)arg;
  mproc_process_info self;
  char directory[256];
  struct rlimit files;
  if (mproc_current_process(&self) < 0 || !getcwd(directory, sizeof directory) ||
      getrlimit(RLIMIT_NOFILE, &files) < 0)
    return 1;
  printf("name         %s\n", self.name);
  printf("environment  TOOL=%s, HOME is %sset\n", getenv("TOOL"), getenv("HOME") ? "" : "not ");
  printf("directory    %s\n", directory);
  printf("open files   at most %lu\n", (unsigned long)files.rlim_cur);
  printf("CPUs         %d\n", mproc_cpu_count());
  printf("nice         %d more than the parent\n", getpriority(PRIO_PROCESS, 0) - parent_nice);
  return 0;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  static const char *const environment[] = {"TOOL=saw", NULL};
  const mproc_limit limits[] = {{MPROC_RESOURCE_NOFILE, 64, 64}};
  const int cpus[] = {sched_getcpu()};
  mproc_process_options options = {
      .name = "carpenter",
      .environment = environment,
      .cwd = "/",
      .limits = limits,
      .limit_count = 1,
      .cpus = cpus,
      .cpu_count = 1,
      .nice = 5,
  };
  int nice = getpriority(PRIO_PROCESS, 0);
  mproc_process *process;
  if (mproc_process_create(&process, tell, &nice, sizeof nice, &options) < 0 ||
      mproc_process_start(process) < 0 || mproc_process_join(process, MPROC_FOREVER) < 0) {
    fprintf(stderr, "%s\n", mproc_error_detail());
    return 1;
  }
  return mproc_process_close(process) < 0;
}
