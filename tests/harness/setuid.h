/* A program that runs with raised privileges. As root nothing is raised, so it is a copy that
 * belongs to one ordinary user and is run by another. */
#ifndef MPROC_TEST_SETUID_H
#define MPROC_TEST_SETUID_H

#include "programs.h"

#include <grp.h>
#include <sys/statvfs.h>

enum { ORDINARY_USER = 65534, OWNER_OF_COPY = 12345 };

static inline void become_ordinary(void) {
  if (setgroups(0, NULL) < 0 || setgid(ORDINARY_USER) < 0 || setuid(ORDINARY_USER) < 0)
    test_fail(__FILE__, __LINE__, "becoming an ordinary user", NULL);
}

/* Skips the case where this cannot be done. */
static inline void need_setuid(void) {
  struct statvfs folder;
  if (geteuid() != 0)
    SKIP("only root can make a set-user-ID copy that belongs to somebody else");
  CHECK_EQ(statvfs(test_tmp_path("."), &folder), 0);
  if (folder.f_flag & ST_NOSUID)
    SKIP("TMPDIR is mounted nosuid (see /proc/mounts): set TMPDIR to a folder that is not");
}

/* Copies `program` into the case's folder, as a set-user-ID file or an ordinary one, where every
 * user can execute it. */
static inline const char *copy_program(const char *program, const char *name, bool raised) {
  const char *copy = test_tmp_path(name);
  copy_file(program, copy, 0755);
  CHECK_EQ(chown(copy, OWNER_OF_COPY, OWNER_OF_COPY), 0);
  if (raised)
    CHECK_EQ(chmod(copy, 04755), 0); /* chown took the bit away */
  return copy;
}

/* Runs it as an ordinary user, with the environment of the case; returns the wait status. */
static inline int run_as_ordinary(const char *program, const char *argument, const char *second,
                                  char *output, size_t size) {
  const char *const argv[] = {program, argument, second, NULL};
  return run_program_after(become_ordinary, argv, output, size);
}

static inline void run_setuid(const char *program, const char *argument, char *output,
                              size_t size) {
  need_setuid();
  const char *copy = copy_program(program, "raised", true);
  int status = run_as_ordinary(copy, argument, NULL, output, size);
  CHECK_EQ(unlink(copy), 0);
  CHECK_EQ(status, 0);
}

#endif
