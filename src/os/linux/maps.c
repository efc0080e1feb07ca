#define _GNU_SOURCE
#include "os/linux/maps.h"

#include "os/os.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The kernel writes a newline in a path as \012 and nothing else in code. */
static void decode(char *path) {
  char *to = path;
  for (const char *from = path; *from != '\0';) {
    if (strncmp(from, "\\012", 4) == 0) {
      *to++ = '\n';
      from += 4;
    } else {
      *to++ = *from++;
    }
  }
  *to = '\0';
}

/* The kernel appends " (deleted)", but a file may have that name. The inode tells; the device
 * number does not, some file systems show another one here. */
static bool take_deleted(char *path, uint64_t inode) {
  static const char suffix[] = " (deleted)";
  size_t length = strlen(path);
  if (length < sizeof suffix || strcmp(path + length - (sizeof suffix - 1), suffix) != 0)
    return false;
  struct stat st;
  if (stat(path, &st) == 0 && st.st_ino == inode)
    return false;
  path[length - (sizeof suffix - 1)] = '\0';
  return true;
}

/* "start-end perms offset major:minor inode   path" */
static int parse_line(char *line, uintptr_t address, char *path, size_t size, bool *ret_deleted) {
  uintptr_t start, end;
  uint64_t inode;
  int at = 0;
  if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %*s %*s %*s %" SCNu64 " %n", &start, &end, &inode,
             &at) < 3 ||
      address < start || address >= end)
    return 0;
  char *found = line + at;
  found[strcspn(found, "\n")] = '\0';
  if (*found != '/')
    return -ENOENT;
  decode(found);
  bool deleted = take_deleted(found, inode);
  size_t length = strlen(found);
  if (length >= size)
    return -ENAMETOOLONG;
  memcpy(path, found, length + 1);
  *ret_deleted = deleted;
  return 1;
}

int mpx_maps_path(uintptr_t address, char *path, size_t size, bool *ret_deleted) {
  FILE *maps = fopen("/proc/self/maps", "re");
  if (!maps)
    return -errno;
  char *line = NULL;
  size_t capacity = 0;
  int r = 0;
  while (r == 0 && getline(&line, &capacity, maps) >= 0)
    r = parse_line(line, address, path, size, ret_deleted);
  free(line);
  (void)fclose(maps);
  return r == 0 ? -ENOENT : r < 0 ? r : 0;
}

/* ---- all mappings ---------------------------------------------------------------------------- */

typedef struct mapping_list {
  mpx_mapping *items;
  size_t count, capacity;
  bool ends_in_data; /* the last one is a file's private, writable part */
} mapping_list;

/* The kernel shows one page of its own in every process, at one address: no memory of this one. */
static bool is_everywhere(const char *name) {
  return strcmp(name, "[vsyscall]") == 0;
}

/* The part of a program's static data that no file holds is mapped right behind the file. */
static char *name_of(const mapping_list *list, uintptr_t start, const char *found) {
  const mpx_mapping *before = list->ends_in_data ? &list->items[list->count - 1] : NULL;
  char *name;
  if (!before || before->end != start || *found)
    return strdup(*found ? found : "anonymous memory");
  return asprintf(&name, "anonymous memory behind %s", before->name) < 0 ? NULL : name;
}

static int add_mapping(mapping_list *list, char *line) {
  mpx_mapping mapping = {0};
  char access[8];
  int at = 0;
  if (sscanf(line, "%" SCNxPTR "-%" SCNxPTR " %7s %*s %*s %*s %n", &mapping.start, &mapping.end,
             access, &at) < 3 ||
      at == 0)
    return 0;
  char *found = line + at;
  found[strcspn(found, "\n")] = '\0';
  decode(found);
  if (strncmp(access, "---", 3) == 0 || is_everywhere(found))
    return 0;
  if (list->count == list->capacity) {
    size_t capacity = list->capacity * 2 + 64;
    mpx_mapping *items = realloc(list->items, capacity * sizeof *items);
    if (!items)
      return -ENOMEM;
    list->items = items;
    list->capacity = capacity;
  }
  mapping.is_code = access[1] != 'w' && access[2] == 'x'; /* checkers make all memory executable */
  mapping.name = name_of(list, mapping.start, found);
  if (!mapping.name)
    return -ENOMEM;
  list->items[list->count++] = mapping;
  list->ends_in_data = *found == '/' && strncmp(access, "rw-p", 4) == 0;
  return 0;
}

int mpx_os_mappings(mpx_mapping **ret_mappings, size_t *ret_count) {
  FILE *maps = fopen("/proc/self/maps", "re");
  if (!maps)
    return -errno;
  mapping_list list = {0};
  char *line = NULL;
  size_t capacity = 0;
  int r = 0;
  while (r == 0 && getline(&line, &capacity, maps) >= 0)
    r = add_mapping(&list, line);
  if (r == 0 && list.count == 0) /* a file that somebody put in its place */
    r = -ENOENT;
  free(line);
  (void)fclose(maps);
  if (r < 0) {
    mpx_os_mappings_free(list.items, list.count);
    return r;
  }
  *ret_mappings = list.items;
  *ret_count = list.count;
  return 0;
}

void mpx_os_mappings_free(mpx_mapping *mappings, size_t count) {
  for (size_t i = 0; i < count; i++)
    free(mappings[i].name);
  free(mappings);
}
