/* How much memory a process and its descendants have for themselves, as /proc tells. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <dirent.h>
#include <stdlib.h>
#include <string.h>
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

/* The state of a process of that group, or 'Z' for any other. */
static char state_in_group(const char *name, pid_t group) {
  char path[320], line[512], state;
  long of;
  snprintf(path, sizeof path, "/proc/%s/stat", name);
  FILE *file = fopen(path, "re");
  if (!file)
    return 'Z';
  size_t size = fread(line, 1, sizeof line - 1, file);
  fclose(file);
  line[size] = '\0';
  const char *end = strrchr(line, ')'); /* of the name, which may have any byte in it */
  if (!end || sscanf(end, ") %c %*d %ld", &state, &of) != 2 || of != group) /* NOLINT */
    return 'Z';
  return state;
}

bool map_group_lives(pid_t group) {
  bool lives = false;
  DIR *all = opendir("/proc");
  if (!all)
    return false;
  for (struct dirent *entry; !lives && (entry = readdir(all));) {
    if (entry->d_name[0] >= '1' && entry->d_name[0] <= '9') {
      char state = state_in_group(entry->d_name, group);
      lives = state != 'Z' && state != 'X';
    }
  }
  closedir(all);
  return lives;
}
