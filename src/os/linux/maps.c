#define _GNU_SOURCE
#include "os/linux/maps.h"

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
