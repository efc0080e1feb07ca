/* Everything about a process that no message to another one can carry. Some of it is told by /proc
 * only; where /proc is not mounted, ids, groups and capabilities must do. */
#define _GNU_SOURCE
#include "base/hash.h"
#include "os/linux/credentials.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SESSION, IDS, GROUPS, LIMITS, CGROUP, ROOT, NAMESPACES };

static uint64_t hash_ids(void) {
  mpx_ids ids;
  mpx_ids_get(&ids);
  return mpx_hash(MPX_HASH_SEED, &ids, sizeof ids);
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

/* A file that is not there is NULL; what cannot be read for lack of means is an error, and no
 * difference. */
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

/* ---- capabilities and filters ---------------------------------------------------------------- */

static bool has(const mpx_capability_sets *all, unsigned capability) {
  return (all->halves[capability / 32].permitted >> capability % 32 & 1) != 0;
}

/* The lines of the file that no system call tells, or only one each: read where there can be a
 * difference. Ambient capabilities are inheritable ones, only CAP_SETPCAP takes one out of the
 * bounding set, and filters may be stacked. */
static int hash_limits(const mpx_capability_sets *own, bool known, uint64_t *ret_sum) {
  static const char *const names[] = {"\nCapBnd:", "\nCapAmb:", "\nSeccomp"};
  int no_new_privs = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  int filtered = prctl(PR_GET_SECCOMP);
  uint64_t sum = mpx_hash(MPX_HASH_SEED, own, sizeof *own);
  sum = mpx_hash(mpx_hash(sum, &no_new_privs, sizeof no_new_privs), &filtered, sizeof filtered);
  char *text = NULL;
  int r = 0;
  if (filtered || has(own, CAP_SETPCAP) || own->halves[0].inheritable ||
      own->halves[1].inheritable || !known)
    r = read_whole("/proc/thread-self/status", &text);
  for (size_t i = 0; text && i < sizeof names / sizeof names[0]; i++)
    for (const char *line = text; (line = strstr(line, names[i]));) {
      line++;
      sum = mpx_hash(sum, line, strcspn(line, "\n"));
    }
  free(text);
  *ret_sum = sum;
  return r;
}

/* ---- what it can see ------------------------------------------------------------------------- */

static uint64_t hash_root(void) {
  struct stat root;
  uint64_t sum = MPX_HASH_SEED;
  if (stat("/", &root) == 0) {
    sum = mpx_hash(sum, &root.st_dev, sizeof root.st_dev);
    sum = mpx_hash(sum, &root.st_ino, sizeof root.st_ino);
  }
  return sum;
}

/* Each costs as much as ten system calls. Without CAP_SYS_ADMIN only a new user namespace opens the
 * way to any other one, and there is no way back from it. */
static uint64_t hash_namespaces(bool may_change) {
  static const char *const links[] = {
      "/proc/thread-self/ns/user", "/proc/thread-self/ns/mnt",
      "/proc/thread-self/ns/net",  "/proc/thread-self/ns/pid_for_children",
      "/proc/thread-self/ns/uts",  "/proc/thread-self/ns/ipc",
      "/proc/thread-self/ns/time", "/proc/thread-self/ns/cgroup"};
  uint64_t sum = MPX_HASH_SEED;
  char name[64];
  for (size_t i = 0; i < (may_change ? sizeof links / sizeof links[0] : 1); i++) {
    ssize_t size = readlink(links[i], name, sizeof name);
    sum = mpx_hash(sum, name, size > 0 ? (size_t)size : 0);
  }
  return sum;
}

int mpx_os_privilege_get(mpx_privilege *ret_privilege) {
  mpx_privilege now;
  char *cgroup = NULL;
  mpx_capability_sets own;
  bool known = mpx_capabilities_get(&own);
  memset(&now, 0, sizeof now);
  int r = hash_limits(&own, known, &now.words[LIMITS]);
  if (r == 0)
    r = read_whole("/proc/thread-self/cgroup", &cgroup);
  if (r < 0)
    return r;
  now.words[SESSION] = (uint64_t)getsid(0);
  now.words[IDS] = hash_ids();
  now.words[GROUPS] = hash_groups();
  now.words[CGROUP] = cgroup ? mpx_hash(MPX_HASH_SEED, cgroup, strlen(cgroup)) : 0;
  now.words[ROOT] = hash_root();
  now.words[NAMESPACES] = hash_namespaces(has(&own, CAP_SYS_ADMIN) || !known);
  *ret_privilege = now;
  free(cgroup);
  return 0;
}
