/* The audit: what a case left behind, by name. */
#include "internal.h"
#include "proc.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- sets of names --------------------------------------------------------------------------- */

static void names_add(name_set *set, const char *name) {
  set->names = realloc(set->names, (set->count + 1) * sizeof *set->names);
  char *copy = strdup(name);
  if (!set->names || !copy)
    abort();
  set->names[set->count++] = copy;
}

static bool names_contain(const name_set *set, const char *name) {
  for (size_t i = 0; i < set->count; i++)
    if (strcmp(set->names[i], name) == 0)
      return true;
  return false;
}

void names_free(name_set *set) {
  for (size_t i = 0; i < set->count; i++)
    free(set->names[i]);
  free(set->names);
  *set = (name_set){0};
}

void names_remove(name_set *set, const name_set *other) {
  size_t kept = 0;
  for (size_t i = 0; i < set->count; i++) {
    if (names_contain(other, set->names[i]))
      free(set->names[i]);
    else
      set->names[kept++] = set->names[i];
  }
  set->count = kept;
}

int names_report(const name_set *set, const char *what) {
  for (size_t i = 0; i < set->count; i++)
    printf("# left behind: %s %s\n", what, set->names[i]);
  return (int)set->count;
}

/* ThreadSanitizer makes a file for a moment where a program begins, and leaves it when killed. */
static bool is_of_tsan(const char *name) {
  return TEST_HAS_TSAN && strncmp(name, "tsan.rodata.", strlen("tsan.rodata.")) == 0;
}

void names_of_folder(name_set *set, const char *folder) {
  DIR *stream = opendir(folder);
  if (!stream)
    return;
  for (struct dirent *entry; (entry = readdir(stream));) {
    char path[PATH_MAX];
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
        is_of_tsan(entry->d_name))
      continue;
    snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    names_add(set, path);
  }
  closedir(stream);
}

/* ---- processes ------------------------------------------------------------------------------- */

void audit_print_process(const char *prefix, pid_t pid) {
  char path[64], command[256] = "";
  process_view view = look_at(pid);
  if (view.state == 0)
    return;
  snprintf(path, sizeof path, "/proc/%d/cmdline", (int)pid);
  FILE *file = fopen(path, "re");
  if (file) {
    size_t length = fread(command, 1, sizeof command - 1, file);
    fclose(file);
    for (size_t i = 0; i + 1 < length; i++)
      if (command[i] == '\0')
        command[i] = ' ';
  }
  printf("# %s process %d (%s) state %c, child of %d: %s\n", prefix, (int)pid, view.name,
         view.state, (int)view.parent, command);
}

static bool descends_from(int64_t pid, int64_t ancestor) {
  while (pid > 1 && pid != ancestor)
    pid = parent_of(pid);
  return pid == ancestor;
}

size_t audit_descendants(pid_t *pids, size_t limit) {
  size_t count = 0;
  DIR *stream = opendir("/proc");
  if (!stream)
    return 0;
  for (struct dirent *entry; count < limit && (entry = readdir(stream));) {
    pid_t pid = atoi(entry->d_name);
    if (pid > 0 && pid != getpid() && descends_from(pid, getpid()))
      pids[count++] = pid;
  }
  closedir(stream);
  return count;
}

/* WNOWAIT: whoever owns the child may still collect it during the grace. */
static bool children_left(void) {
  int64_t deadline = test_now_ns() + TEST_GRACE_NS;
  for (;;) {
    siginfo_t info;
    if (waitid(P_ALL, 0, &info, WEXITED | WNOHANG | WNOWAIT | __WALL) < 0 && errno == ECHILD)
      return false;
    if (test_now_ns() > deadline)
      return true;
    test_sleep_ms(5);
  }
}

/* ---- descriptors and mappings of this process ------------------------------------------------ */

/* As src/os names it; portable builds have an unnamed file instead. */
static bool is_family_heap(const char *path) {
  return strcmp(path, "/memfd:mproc (deleted)") == 0 ||
         (strncmp(path, "/dev/shm/", 9) == 0 && strstr(path, "(deleted)"));
}

static struct {
  rlim_t descriptor_end; /* valgrind keeps its own descriptors above the limit that it shows */
  name_set descriptors;
  name_set mappings;
} before;

/* The first family heap met goes without saying; a second one is a leak. */
static void list_descriptors(name_set *set, int heaps_allowed) {
  DIR *stream = opendir("/proc/self/fd");
  if (!stream)
    abort();
  for (struct dirent *entry; (entry = readdir(stream));) {
    char link[64], target[PATH_MAX], name[PATH_MAX + 32];
    int descriptor = atoi(entry->d_name);
    if (entry->d_name[0] == '.' || descriptor == dirfd(stream) ||
        (rlim_t)descriptor >= before.descriptor_end)
      continue;
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = '\0';
    if (is_family_heap(target) && heaps_allowed-- > 0)
      continue;
    snprintf(name, sizeof name, "%d -> %s", descriptor, target);
    names_add(set, name);
  }
  closedir(stream);
}

/* A file counts once, however many mappings it has. Named memory is a memfd, a file or
 * "/dev/zero (deleted)", which is shared memory without a name; [heap] and the like are not. */
static void list_mappings(name_set *set, int heaps_allowed) {
  FILE *maps = fopen("/proc/self/maps", "re");
  char line[PATH_MAX + 128], heap[PATH_MAX + 32] = "";
  if (!maps)
    abort();
  while (fgets(line, sizeof line, maps)) {
    char device[16], path[PATH_MAX], name[PATH_MAX + 32];
    unsigned long inode;
    if (sscanf(line, "%*s %*s %*s %15s %lu %4095[^\n]", device, &inode, path) != 3 ||
        path[0] != '/' || strstr(path, ".so"))
      continue;
    snprintf(name, sizeof name, "%s (inode %lu)", path, inode);
    if (is_family_heap(path)) {
      if (heaps_allowed-- > 0)
        snprintf(heap, sizeof heap, "%s", name);
      if (strcmp(name, heap) == 0)
        continue;
    }
    if (!names_contain(set, name))
      names_add(set, name);
  }
  fclose(maps);
}

/* ---- around a case --------------------------------------------------------------------------- */

void audit_begin(void) {
  struct rlimit limit;
  getrlimit(RLIMIT_NOFILE, &limit);
  before.descriptor_end = limit.rlim_cur;
  list_descriptors(&before.descriptors, 0);
  list_mappings(&before.mappings, 0);
}

bool audit_end(void) {
  int count = 0;
  if (children_left()) {
    pid_t pids[64];
    size_t found = audit_descendants(pids, 64);
    for (size_t i = 0; i < found; i++)
      audit_print_process("left behind: child", pids[i]);
    count++;
  }
  name_set descriptors = {0}, mappings = {0};
  list_descriptors(&descriptors, 1);
  list_mappings(&mappings, 1);
  names_remove(&descriptors, &before.descriptors);
  names_remove(&mappings, &before.mappings);
  count += names_report(&descriptors, "descriptor");
  count += names_report(&mappings, "mapping");
  names_free(&descriptors);
  names_free(&mappings);
  names_free(&before.descriptors);
  names_free(&before.mappings);
  fflush(stdout);
  return count == 0;
}
