#define _GNU_SOURCE
#include "os/linux/cgroup.h"

#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NO_LIMIT UINT64_MAX

/* One hierarchy: version 2 when `controller` is NULL. On the heap: thread stacks may be small. */
typedef struct hierarchy {
  const char *root;
  const char *controller;
  char mount_root[MPX_OS_PATH_SIZE]; /* the group that is shown at the mount point */
  char mount_point[MPX_OS_PATH_SIZE];
  char group[MPX_OS_PATH_SIZE];
  char folder[3 * MPX_OS_PATH_SIZE]; /* the one that is visited */
  char file[3 * MPX_OS_PATH_SIZE];
  char text[8192];
} hierarchy;

typedef void visitor(hierarchy *at, void *data);

static bool has_word(const char *list, const char *word, char separator) {
  size_t length = strlen(word);
  for (const char *at = list; at; at = strchr(at, separator)) {
    if (*at == separator)
      at++;
    if (strncmp(at, word, length) == 0 && (at[length] == separator || at[length] == '\0'))
      return true;
  }
  return false;
}

/* Undoes \040 and its like, in place. */
static void decode(char *text) {
  char *to = text;
  while (*text != '\0') {
    if (text[0] == '\\' && text[1] >= '0' && text[1] <= '3' && text[2] >= '0' && text[2] <= '7' &&
        text[3] >= '0' && text[3] <= '7') {
      *to++ = (char)((text[1] - '0') * 64 + (text[2] - '0') * 8 + (text[3] - '0'));
      text += 4;
    } else {
      *to++ = *text++;
    }
  }
  *to = '\0';
}

static bool copy(char to[MPX_OS_PATH_SIZE], const char *from) {
  size_t length = strlen(from);
  if (length >= MPX_OS_PATH_SIZE)
    return false;
  memcpy(to, from, length + 1);
  return true;
}

/* "36 35 98:0 /root /mount/point options [optional ...] - type source super-options" */
static bool take_mount(char *line, hierarchy *found) {
  char *type = strstr(line, " - ");
  if (!type)
    return false;
  *type = '\0';
  type += 3;
  char *position = NULL;
  type = strtok_r(type, " \n", &position);
  (void)strtok_r(NULL, " \n", &position);
  const char *options = strtok_r(NULL, " \n", &position);
  if (!type || !options)
    return false;
  if (found->controller ? strcmp(type, "cgroup") != 0 || !has_word(options, found->controller, ',')
                        : strcmp(type, "cgroup2") != 0)
    return false;
  char *field = strtok_r(line, " ", &position);
  for (int i = 0; i < 3 && field; i++)
    field = strtok_r(NULL, " ", &position);
  char *point = strtok_r(NULL, " ", &position);
  if (!field || !point)
    return false;
  decode(field);
  decode(point);
  return copy(found->mount_root, field) && copy(found->mount_point, point);
}

/* "4:memory:/path", "1:cpu,cpuacct:/path", "0::/path" for version 2 */
static bool take_group(char *line, hierarchy *found) {
  char *controllers = strchr(line, ':');
  char *group = controllers ? strchr(controllers + 1, ':') : NULL;
  if (!group)
    return false;
  *controllers++ = '\0';
  *group++ = '\0';
  group[strcspn(group, "\n")] = '\0';
  if (found->controller ? !has_word(controllers, found->controller, ',') : *controllers != '\0')
    return false;
  return copy(found->group, group);
}

static bool find_line(hierarchy *found, const char *file,
                      bool (*take)(char *line, hierarchy *found)) {
  (void)snprintf(found->file, sizeof found->file, "%s%s", found->root, file);
  char *line = NULL;
  size_t capacity = 0;
  bool done = false;
  mpx_os_cancel_hold(); /* the heap's map may be locked */
  FILE *stream = fopen(found->file, "re");
  while (stream && !done && getline(&line, &capacity, stream) >= 0)
    done = take(line, found);
  free(line);
  if (stream)
    (void)fclose(stream);
  mpx_os_cancel_release();
  return done;
}

/* Calls `visit` for the group's folder and each parent up to the mount point. In a container the
 * mount shows a part of the tree only, and the group may lie outside: then the mount point itself
 * is the nearest folder that can be seen. */
static void walk(hierarchy *found, visitor *visit, void *data) {
  const char *below = found->group;
  size_t length = strlen(found->mount_root);
  if (strcmp(found->mount_root, "/") == 0)
    length = 0;
  if (strncmp(below, found->mount_root, length) == 0 &&
      (below[length] == '/' || below[length] == '\0'))
    below += length;
  else
    below = "";
  if (strstr(below, "/.."))
    below = "";

  char *folder = found->folder;
  const size_t size = sizeof found->folder;
  int top = snprintf(folder, size, "%s%s", found->root, found->mount_point);
  int end = snprintf(folder, size, "%s%s%s", found->root, found->mount_point, below);
  if (top < 0 || end < 0 || (size_t)end >= size)
    return;
  for (char *last = folder + end;;) {
    while (last > folder + top && last[-1] == '/')
      last--;
    *last = '\0';
    visit(found, data);
    if (last <= folder + top)
      return;
    while (last > folder + top && *last != '/')
      last--;
  }
}

static void walk_both(const char *root, const char *controller, visitor *visit, void *data) {
  const char *controllers[] = {NULL, controller};
  hierarchy *found = malloc(sizeof *found);
  if (!found)
    return;
  for (size_t i = 0; i < 2; i++) {
    *found = (hierarchy){.root = root, .controller = controllers[i]};
    if (find_line(found, "/proc/self/cgroup", take_group) &&
        find_line(found, "/proc/self/mountinfo", take_mount))
      walk(found, visit, data);
  }
  free(found);
}

/* Reads a file of the visited folder into at->text. */
static bool read_text(hierarchy *at, const char *file) {
  int length = snprintf(at->file, sizeof at->file, "%s/%s", at->folder, file);
  return length > 0 && (size_t)length < sizeof at->file &&
         mpx_os_read_file(at->file, at->text, sizeof at->text) > 0;
}

static bool is_version2(const hierarchy *at) {
  return at->controller == NULL;
}

/* "max" of version 2, and the largest multiple of a page of version 1, are no limit. */
static uint64_t read_bytes(hierarchy *at, const char *file) {
  uint64_t value;
  if (!read_text(at, file) || sscanf(at->text, "%" SCNu64, &value) != 1 ||
      value >= (uint64_t)1 << 62)
    return NO_LIMIT;
  return value;
}

static uint64_t read_limit(hierarchy *at) {
  return read_bytes(at, is_version2(at) ? "memory.max" : "memory.limit_in_bytes");
}

static void visit_limit(hierarchy *at, void *data) {
  uint64_t *least = data;
  uint64_t limit = read_limit(at);
  if (limit < *least)
    *least = limit;
}

static bool find_statistic(const char *text, const char *name, uint64_t *ret_value) {
  size_t length = strlen(name);
  for (const char *line = text; line; line = strchr(line, '\n')) {
    if (*line == '\n')
      line++;
    if (strncmp(line, name, length) == 0 && sscanf(line + length, " %" SCNu64, ret_value) == 1)
      return true;
  }
  return false;
}

/* Clean or dirty, pages of files give way to memory; those of shared memory are not among them. */
static uint64_t reclaimable(hierarchy *at) {
  static const char *const names[2][2] = {{"total_inactive_file ", "total_active_file "},
                                          {"inactive_file ", "active_file "}};
  uint64_t inactive = 0, active = 0;
  if (!read_text(at, "memory.stat"))
    return 0;
  (void)find_statistic(at->text, names[is_version2(at)][0], &inactive);
  (void)find_statistic(at->text, names[is_version2(at)][1], &active);
  return inactive + active;
}

static void visit_headroom(hierarchy *at, void *data) {
  uint64_t *least = data;
  uint64_t limit = read_limit(at);
  if (limit == NO_LIMIT)
    return;
  uint64_t used = read_bytes(at, is_version2(at) ? "memory.current" : "memory.usage_in_bytes");
  if (used == NO_LIMIT)
    return;
  uint64_t cache = reclaimable(at);
  used = used > cache ? used - cache : 0;
  uint64_t left = limit > used ? limit - used : 0;
  if (left < *least)
    *least = left;
}

uint64_t mpx_cgroup_memory_limit(const char *root) {
  uint64_t least = NO_LIMIT;
  walk_both(root, "memory", visit_limit, &least);
  return least;
}

uint64_t mpx_cgroup_memory_headroom(const char *root) {
  uint64_t least = NO_LIMIT;
  walk_both(root, "memory", visit_headroom, &least);
  return least;
}

/* The first folder with the file: a group without one is charged to the nearest above that has. */
static void visit_oom_kills(hierarchy *at, void *data) {
  int64_t *found = data;
  uint64_t kills;
  if (*found < 0 && read_text(at, is_version2(at) ? "memory.events" : "memory.oom_control") &&
      find_statistic(at->text, "oom_kill ", &kills) && kills <= INT64_MAX)
    *found = (int64_t)kills;
}

int64_t mpx_cgroup_oom_kills(const char *root) {
  int64_t found = -ENOSYS;
  walk_both(root, "memory", visit_oom_kills, &found);
  return found;
}

static void visit_cpus(hierarchy *at, void *data) {
  int *least = data;
  int64_t quota = 0, period = 0;
  if (is_version2(at)) { /* "200000 100000" or "max 100000" */
    if (!read_text(at, "cpu.max") || sscanf(at->text, "%" SCNd64 " %" SCNd64, &quota, &period) != 2)
      return;
  } else {
    if (!read_text(at, "cpu.cfs_quota_us") || sscanf(at->text, "%" SCNd64, &quota) != 1 ||
        !read_text(at, "cpu.cfs_period_us") || sscanf(at->text, "%" SCNd64, &period) != 1)
      return;
  }
  if (quota <= 0 || period <= 0) /* -1: no limit */
    return;
  int64_t cpus = quota / period + (quota % period != 0);
  if (cpus < INT_MAX && (*least == 0 || cpus < *least))
    *least = (int)cpus;
}

int mpx_cgroup_cpus(const char *root) {
  int least = 0;
  walk_both(root, "cpu", visit_cpus, &least);
  return least;
}
