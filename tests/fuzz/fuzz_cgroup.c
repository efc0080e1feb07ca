/* Limits of control groups: the files of the system come from the input instead, one after the
 * other, each ended by a NUL. */
#define _GNU_SOURCE
#include "fuzz.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

static const uint8_t *next_file, *end_of_input;

/* Returns the next file, empty when there are no more. */
static const uint8_t *take_file(size_t *ret_size) {
  const uint8_t *file = next_file;
  size_t left = (size_t)(end_of_input - next_file);
  const uint8_t *end = left ? memchr(file, '\0', left) : NULL;
  *ret_size = end ? (size_t)(end - file) : left;
  next_file = end ? end + 1 : end_of_input;
  return file;
}

static FILE *open_from_input(const char *path, const char *mode) {
  size_t size;
  const uint8_t *file = take_file(&size);
  (void)path, (void)mode;
  errno = ENOENT;
  return size ? fmemopen((void *)(uintptr_t)file, size, "r") : NULL;
}

static int64_t read_from_input(const char *path, char *buffer, size_t size) {
  size_t count;
  const uint8_t *file = take_file(&count);
  (void)path;
  if (count == 0)
    return -ENOENT;
  count = count < size ? count : size - 1;
  memcpy(buffer, file, count);
  buffer[count] = '\0';
  return (int64_t)count;
}

#define fopen open_from_input
#define mpx_os_read_file read_from_input
#include "os/linux/cgroup.c"
#undef fopen
#undef mpx_os_read_file

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  end_of_input = data + size;
  next_file = data;
  (void)mpx_cgroup_memory_limit("");
  next_file = data;
  (void)mpx_cgroup_memory_headroom("");
  next_file = data;
  FUZZ_CHECK(mpx_cgroup_cpus("") >= 0);
  return 0;
}

static void fuzz_make_seeds(void) {
  static const char unified[] = "0::/a/b\n\0"
                                "35 25 0:29 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\0"
                                "536870912\n\0"
                                "134217728\n\0"
                                "anon 1\nactive_file 1000\ninactive_file 2000\n\0"
                                "max\n";
  static const char version1[] = "0::/\n\0"
                                 "35 25 0:29 / /my\\040groups rw - cgroup2 cgroup2 rw\n\0"
                                 "max\n\0"
                                 "4:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc\n\0"
                                 "40 30 0:32 /docker /cg ro - cgroup cgroup rw,memory,cpu\n\0"
                                 "2000\n\0"
                                 "1000\n\0"
                                 "total_inactive_file 3000\n";
  static const char cpus[] = "0::/\n\0"
                             "35 25 0:29 / /cg rw - cgroup2 cgroup2 rw\n\0"
                             "150000 100000\n\0"
                             "4:cpu:/a\n\0"
                             "40 30 0:32 / /cg ro - cgroup cgroup rw,cpu\n\0"
                             "250000\n\0"
                             "100000\n";
  fuzz_add_seed(unified, sizeof unified);
  fuzz_add_seed(version1, sizeof version1);
  fuzz_add_seed(cpus, sizeof cpus);
  char long_path[MPX_OS_PATH_SIZE + 16] = "0::/";
  memset(long_path + 4, 'x', sizeof long_path - 4);
  fuzz_add_seed(long_path, sizeof long_path);
}
