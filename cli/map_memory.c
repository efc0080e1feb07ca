/* How much memory a process and its descendants have for themselves, as /proc tells. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <dirent.h>
#include <stdlib.h>
#include <unistd.h>

enum { DEPTH_MAX = 64 };

/* Resident pages less those that lie in files or are shared. */
static uint64_t own_memory(long pid) {
  char path[64];
  unsigned long size, resident, shared;
  snprintf(path, sizeof path, "/proc/%ld/statm", pid);
  FILE *file = fopen(path, "re");
  if (!file)
    return 0;
  int n = fscanf(file, "%lu %lu %lu", &size, &resident, &shared); /* NOLINT: the kernel's numbers */
  fclose(file);
  if (n != 3 || resident < shared)
    return 0;
  return (uint64_t)(resident - shared) * (uint64_t)sysconf(_SC_PAGESIZE);
}

static uint64_t tree_memory(long pid, int depth);

/* Each thread has children of its own. A kernel may not list them: then only `pid` counts. */
static uint64_t children_memory(long pid, const char *thread, int depth) {
  char path[320];
  long child;
  uint64_t bytes = 0;
  snprintf(path, sizeof path, "/proc/%ld/task/%s/children", pid, thread);
  FILE *file = fopen(path, "re");
  if (!file)
    return 0;
  while (fscanf(file, "%ld", &child) == 1) /* NOLINT: the kernel's numbers */
    bytes += tree_memory(child, depth + 1);
  fclose(file);
  return bytes;
}

static uint64_t tree_memory(long pid, int depth) {
  char path[64];
  uint64_t bytes = own_memory(pid);
  snprintf(path, sizeof path, "/proc/%ld/task", pid);
  DIR *threads = depth < DEPTH_MAX ? opendir(path) : NULL;
  if (!threads)
    return bytes;
  for (struct dirent *entry; (entry = readdir(threads));) {
    if (entry->d_name[0] != '.')
      bytes += children_memory(pid, entry->d_name, depth);
  }
  closedir(threads);
  return bytes;
}

uint64_t map_tree_memory(pid_t pid) {
  return tree_memory(pid, 0);
}
