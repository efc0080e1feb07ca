/* Everything about a process that no message to another one can carry. Much of it is told by /proc
 * only; where /proc is not mounted, ids and groups must do. */
#define _GNU_SOURCE
#include "base/hash.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SESSION, IDS, GROUPS, STATUS, CGROUP, ROOT, NAMESPACES };
enum { SYS_ADMIN = 21 }; /* CAP_SYS_ADMIN */

static uint64_t hash_ids(void) {
  uid_t users[3] = {0};
  gid_t groups[3] = {0};
  (void)getresuid(&users[0], &users[1], &users[2]);
  (void)getresgid(&groups[0], &groups[1], &groups[2]);
  return mpx_hash(mpx_hash(MPX_HASH_SEED, users, sizeof users), groups, sizeof groups);
}

static uint64_t hash_groups(void) {
  gid_t groups[64], *all = groups;
  int count = getgroups(64, groups);
  if (count < 0) { /* rare: more than 64 */
    count = getgroups(0, NULL);
    all = count > 0 ? malloc((size_t)count * sizeof *all) : NULL;
    count = all ? getgroups(count, all) : 0;
  }
  uint64_t sum = mpx_hash(MPX_HASH_SEED, all, (size_t)(count > 0 ? count : 0) * sizeof *all);
  if (all != groups)
    free(all);
  return sum;
}

/* A long list of groups stands before the lines that matter. A file that is not there is NULL; what
 * cannot be read for lack of means is an error, and no difference. */
static int read_whole(const char *path, char **ret_text) {
  char *text = NULL;
  for (size_t size = 4096;; size *= 4) {
    char *more = realloc(text, size);
    int64_t count = more ? mpx_os_read_file(path, more, size) : -ENOMEM;
    text = more ? more : text;
    if (count >= 0 && (size_t)count == size - 1)
      continue;
    if (count < 0) {
      free(text);
      text = NULL;
    }
    *ret_text = text;
    return count == -EMFILE || count == -ENFILE || count == -ENOMEM ? (int)count : 0;
  }
}

/* The lines that say what the process may do. */
static uint64_t hash_status(const char *text, bool *ret_may_change_namespaces) {
  static const char *const names[] = {"\nCapInh:", "\nCapPrm:",     "\nCapEff:", "\nCapBnd:",
                                      "\nCapAmb:", "\nNoNewPrivs:", "\nSeccomp"};
  uint64_t sum = MPX_HASH_SEED;
  *ret_may_change_namespaces = true;
  if (!text)
    return 0;
  const char *permitted = strstr(text, "\nCapPrm:");
  if (permitted)
    *ret_may_change_namespaces =
        (strtoull(permitted + sizeof "\nCapPrm:", NULL, 16) >> SYS_ADMIN & 1) != 0;
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    for (const char *line = text; (line = strstr(line, names[i]));) {
      line++;
      sum = mpx_hash(sum, line, strcspn(line, "\n"));
    }
  return sum;
}

static void add_file(const char *path, uint64_t *sum) {
  struct stat file;
  if (stat(path, &file) == 0) {
    *sum = mpx_hash(*sum, &file.st_dev, sizeof file.st_dev);
    *sum = mpx_hash(*sum, &file.st_ino, sizeof file.st_ino);
  }
}

/* Each costs as much as ten system calls. Without CAP_SYS_ADMIN only a new user namespace opens the
 * way to any other one, and there is no way back from it. */
static uint64_t hash_namespaces(bool may_change) {
  static const char *const files[] = {
      "/proc/thread-self/ns/user", "/proc/thread-self/ns/mnt",
      "/proc/thread-self/ns/net",  "/proc/thread-self/ns/pid_for_children",
      "/proc/thread-self/ns/uts",  "/proc/thread-self/ns/ipc",
      "/proc/thread-self/ns/time", "/proc/thread-self/ns/cgroup"};
  uint64_t sum = MPX_HASH_SEED;
  for (size_t i = 0; i < (may_change ? sizeof files / sizeof files[0] : 1); i++)
    add_file(files[i], &sum);
  return sum;
}

int mpx_os_privilege_get(mpx_privilege *ret_privilege) {
  mpx_privilege now;
  char *status = NULL, *cgroup = NULL;
  bool may_change_namespaces;
  int r = read_whole("/proc/thread-self/status", &status);
  if (r == 0)
    r = read_whole("/proc/thread-self/cgroup", &cgroup);
  if (r < 0)
    goto finish;
  memset(&now, 0, sizeof now);
  now.words[SESSION] = (uint64_t)getsid(0);
  now.words[IDS] = hash_ids();
  now.words[GROUPS] = hash_groups();
  now.words[STATUS] = hash_status(status, &may_change_namespaces);
  now.words[CGROUP] = cgroup ? mpx_hash(MPX_HASH_SEED, cgroup, strlen(cgroup)) : 0;
  now.words[ROOT] = MPX_HASH_SEED;
  add_file("/", &now.words[ROOT]);
  now.words[NAMESPACES] = hash_namespaces(may_change_namespaces);
  *ret_privilege = now;
finish:
  free(status);
  free(cgroup);
  return r;
}
