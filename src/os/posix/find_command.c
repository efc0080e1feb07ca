#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* The rights that an exec will have, not those of the real user. */
static int check(const char *path) {
  struct stat st;
  if (stat(path, &st) < 0)
    return errno == ENOTDIR ? -ENOENT : -errno;
  if (!S_ISREG(st.st_mode) || faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0)
    return -EACCES;
  return 0;
}

/* An empty element of PATH is the current directory. */
static int join(char path[MPX_OS_PATH_SIZE], const char *folder, size_t length, const char *name) {
  size_t name_length = strlen(name);
  if (length + 1 + name_length >= MPX_OS_PATH_SIZE)
    return -ENAMETOOLONG;
  memcpy(path, folder, length);
  if (length > 0)
    path[length++] = '/';
  memcpy(path + length, name, name_length + 1);
  return 0;
}

/* The child may begin in another directory. */
static int make_absolute(char path[MPX_OS_PATH_SIZE], const char *found) {
  if (*found == '/') {
    memcpy(path, found, strlen(found) + 1);
    return 0;
  }
  if (!getcwd(path, MPX_OS_PATH_SIZE))
    return -errno;
  size_t length = strlen(path), found_length = strlen(found);
  if (length + 1 + found_length >= MPX_OS_PATH_SIZE)
    return -ENAMETOOLONG;
  path[length] = '/';
  memcpy(path + length + 1, found, found_length + 1);
  return 0;
}

static int find(const char *name, char path[MPX_OS_PATH_SIZE], char candidate[MPX_OS_PATH_SIZE]) {
  const char *folders = strchr(name, '/') ? "" : getenv("PATH");
  if (!folders)
    folders = "/bin:/usr/bin";
  int result = -ENOENT;
  for (;;) {
    size_t length = strcspn(folders, ":");
    int r = join(candidate, folders, length, name);
    if (r == 0)
      r = check(candidate);
    if (r == 0)
      return make_absolute(path, candidate);
    if (r == -EACCES) /* as execvp: go on, and say so when nothing better comes */
      result = r;
    if (folders[length] == '\0')
      return result;
    folders += length + 1;
  }
}

int mpx_os_find_command(const char *name, char path[MPX_OS_PATH_SIZE]) {
  if (*name == '\0')
    return -ENOENT;
  char *candidate = malloc(MPX_OS_PATH_SIZE); /* too large for a small thread's stack */
  if (!candidate)
    return -ENOMEM;
  int r = find(name, path, candidate);
  free(candidate);
  return r;
}
