/* How much private memory a process has, and how much it may have. */
#define _GNU_SOURCE
#include "os/linux/proc.h"
#include "os/os.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

/* The user's groups come before all that is looked for, and may be many. */
enum { STATUS_SIZE = 4096, STATUS_SIZE_MAX = 1 << 20 };

/* The caller frees the text. */
static int read_status(int64_t pid, char **ret_text) {
  for (size_t size = STATUS_SIZE;; size *= 4) {
    char *text = malloc(size);
    if (!text)
      return -ENOMEM;
    int64_t count = mpx_proc_read(pid, "status", text, size);
    if (count >= 0 && ((size_t)count < size - 1 || size >= STATUS_SIZE_MAX)) {
      *ret_text = text;
      return 0;
    }
    free(text);
    if (count < 0)
      return (int)count;
  }
}

int mpx_os_memory_use(int64_t pid, uint64_t *ret_bytes) {
  char *text;
  if (pid <= 0 || pid > INT32_MAX)
    return -ESRCH;
  int r = read_status(pid, &text);
  if (r < 0)
    return r;
  r = mpx_proc_parse_memory_use(text, ret_bytes);
  free(text);
  if (r == 0)
    return 0;
  /* A process that ends gives its memory back long before it is a zombie: where the system tells of
   * ourselves, who has no such lines has begun to end. */
  uint64_t own;
  return pid != getpid() && mpx_os_memory_use(getpid(), &own) == 0 ? -ESRCH : -ENOSYS;
}

/* Neither raises what is in force. */
static void lower(rlim_t *limit, rlim_t most) {
  if (*limit > most)
    *limit = most;
}

int mpx_os_limit_memory(uint64_t bytes) {
  char *text;
  uint64_t used;
  struct rlimit limit;
  int r = read_status(getpid(), &text);
  if (r < 0)
    return r;
  r = mpx_proc_parse_kib(text, "VmData", &used); /* what the kernel compares with the limit */
  free(text);
  if (r < 0)
    return -ENOSYS;
  if (bytes >= RLIM_INFINITY - used)
    return 0;
  if (getrlimit(RLIMIT_DATA, &limit) < 0)
    return -errno;
  lower(&limit.rlim_cur, (rlim_t)(used + bytes));
  lower(&limit.rlim_max, (rlim_t)(used + bytes));
  return setrlimit(RLIMIT_DATA, &limit) < 0 ? -errno : 0;
}
