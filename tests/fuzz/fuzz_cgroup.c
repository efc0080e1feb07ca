/* Limits of control groups: the files of the system come from the input instead, one after the
 * other, each ended by a NUL. */
#define _GNU_SOURCE
#include "fuzz.h"
#include "os/os.h"

#include <errno.h>
#include <string.h>

enum { FILE_SIZE = 3 * MPX_OS_PATH_SIZE };

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
  FUZZ_CHECK(strnlen(path, FILE_SIZE) < FILE_SIZE);
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

/* ---- its arrays, each the last in its block -------------------------------------------------- */

/* A hierarchy that ends before the field at `size`: no sanitizer would see a byte too many in the
 * middle of it. */
static hierarchy *shortened(const hierarchy *from, size_t size) {
  hierarchy *copied = malloc(size);
  FUZZ_CHECK(copied);
  memcpy(copied, from, size);
  return copied;
}

/* Calls `take` with the next line of the input; what it writes last ends before `size`. */
static bool take_from_input(bool (*take)(char *line, hierarchy *found), hierarchy *whole,
                            size_t size) {
  size_t length;
  const uint8_t *file = take_file(&length);
  char *line = malloc(length + 1);
  hierarchy *found = shortened(whole, size);
  FUZZ_CHECK(line);
  memcpy(line, file, length);
  line[length] = '\0';
  bool taken = take(line, found);
  memcpy(whole, found, size);
  free(found);
  free(line);
  return taken;
}

/* A file whose name is too long is not read, so the text need not be there. */
static void see_folder(hierarchy *at, void *data) {
  static const char file[] = "memory.stat";
  hierarchy *whole = data;
  size_t length = strnlen(at->folder, sizeof at->folder);
  FUZZ_CHECK(length < sizeof at->folder);
  if (length + sizeof file < sizeof at->file)
    return;
  memcpy(whole, at, offsetof(hierarchy, file));
  hierarchy *found = shortened(whole, offsetof(hierarchy, text));
  FUZZ_CHECK(!read_text(found, file));
  free(found);
}

/* A root so long that the folder does not hold the longest of paths. */
static void read_alone(const char *controller) {
  static char root[MPX_OS_PATH_SIZE + 15];
  hierarchy *whole = calloc(1, sizeof *whole);
  FUZZ_CHECK(whole);
  memset(root, '/', sizeof root - 1);
  whole->root = root;
  whole->controller = controller;
  if (take_from_input(take_group, whole, offsetof(hierarchy, folder)) &&
      take_from_input(take_mount, whole, offsetof(hierarchy, group))) {
    FUZZ_CHECK(memchr(whole->mount_root, '\0', sizeof whole->mount_root)); /* else it ran over */
    hierarchy *found = shortened(whole, offsetof(hierarchy, file));
    walk(found, see_folder, whole);
    free(found);
  }
  free(whole);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  end_of_input = data + size;
  next_file = data;
  (void)mpx_cgroup_memory_limit("");
  next_file = data;
  (void)mpx_cgroup_memory_headroom("");
  next_file = data;
  FUZZ_CHECK(mpx_cgroup_cpus("") >= 0);
  next_file = data;
  FUZZ_CHECK(mpx_cgroup_oom_kills("") >= -ENOSYS);
  next_file = data;
  read_alone(NULL);
  next_file = data;
  read_alone("memory");
  return 0;
}

/* The group (0), the root of the mount (1), its point (2) or group and point (3) have so many
 * characters. */
static void add_long_paths(size_t length, int field) {
  static char text[4 * MPX_OS_PATH_SIZE], path[2 * MPX_OS_PATH_SIZE];
  memset(path, 'x', length);
  path[0] = '/';
  path[length] = '\0';
  int group = snprintf(text, sizeof text, "0::%s", field % 3 == 0 ? path : "/a") + 1;
  int mount = snprintf(text + group, sizeof text - (size_t)group,
                       "35 25 0:29 %s %s rw - cgroup2 cgroup2 rw", field == 1 ? path : "/",
                       field >= 2 ? path : "/cg");
  fuzz_add_seed(text, (size_t)(group + mount));
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
  static const char kills[] = "0::/\n\0"
                              "35 25 0:29 / /cg rw - cgroup2 cgroup2 rw\n\0"
                              "low 0\nmax 3\noom 2\noom_kill 1\noom_group_kill 0\n";
  fuzz_add_seed(cpus, sizeof cpus);
  fuzz_add_seed(kills, sizeof kills);
  for (size_t length = MPX_OS_PATH_SIZE - 1; length < MPX_OS_PATH_SIZE + 2; length++)
    for (int field = 0; field < 4; field++)
      add_long_paths(length, field);
  add_long_paths(MPX_OS_PATH_SIZE - 7, 3);  /* a byte too long with the root */
  add_long_paths(MPX_OS_PATH_SIZE - 13, 3); /* with a file's name behind it too long */
}
