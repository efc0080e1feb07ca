/* What a process may do and what it can see, as it sees itself: for tests that compare a child with
 * its parent. */
#ifndef MPROC_TEST_PRIVILEGES_H
#define MPROC_TEST_PRIVILEGES_H

#include "processes.h"

#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/utsname.h>

enum { ORDINARY = 65534 };

/* In the shared heap. */
typedef struct privileges {
  uid_t users[3];
  gid_t groups[3];
  int other_count;
  gid_t others[64];
  pid_t session;
  char status[1024]; /* the lines about capabilities and filters */
  ino_t uts;
  int64_t server;
} privileges;

static inline void see_status(privileges *all) {
  static const char *const names[] = {
      "CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:", "NoNew", "Seccomp"};
  char line[16384];
  FILE *file = fopen("/proc/self/status", "re");
  CHECK(file != NULL);
  while (fgets(line, sizeof line, file))
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
      if (strncmp(line, names[i], strlen(names[i])) == 0)
        (void)snprintf(all->status + strlen(all->status), sizeof all->status - strlen(all->status),
                       "%.200s", line);
  fclose(file);
}

static inline void see(privileges *all) {
  struct stat file;
  memset(all, 0, sizeof *all);
  CHECK_EQ(getresuid(&all->users[0], &all->users[1], &all->users[2]), 0);
  CHECK_EQ(getresgid(&all->groups[0], &all->groups[1], &all->groups[2]), 0);
  all->other_count = getgroups(64, all->others);
  all->session = getsid(0);
  all->uts = stat("/proc/self/ns/uts", &file) == 0 ? file.st_ino : 0;
  see_status(all);
}

static inline void check_same_privileges(const privileges *child, const privileges *parent) {
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(child->users[i], parent->users[i]);
    CHECK_EQ(child->groups[i], parent->groups[i]);
  }
  CHECK_EQ(child->other_count, parent->other_count);
  CHECK_EQ(memcmp(child->others, parent->others, sizeof parent->others), 0);
  CHECK_EQ(child->session, parent->session);
  CHECK_STR(child->status, parent->status);
  CHECK_EQ(child->uts, parent->uts);
}

#endif
