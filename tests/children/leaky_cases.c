/* Cases that each leave one thing behind: tests/unit/test_audit.c runs them and reads what the
 * harness says. Not a test by itself. */
#include "harness.h"

#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

_Noreturn static void pause_as(const char *name) {
  prctl(PR_SET_NAME, name);
  for (;;)
    pause();
}

TEST(nothing) {}

TEST(skipped) {
  SKIP("as it should");
}

TEST(failed_check) {
  CHECK_EQ(1 + 1, 3);
}

TEST(crash) {
  raise(SIGKILL);
}

TEST_LIMIT(hang, 1) {
  if (fork() == 0)
    pause_as("hung-child");
  pause_as("hung-case");
}

TEST(zombie) {
  pid_t pid = fork();
  if (pid == 0)
    _exit(0);
  CHECK_EQ(waitid(P_PID, (id_t)pid, &(siginfo_t){0}, WEXITED | WNOWAIT), 0);
}

TEST(running_child) {
  if (fork() == 0)
    pause_as("leak-child");
}

/* The parent in between has ended, so the case itself has no child left. */
static void leave_orphan(const char *name, bool daemonised) {
  pid_t pid = fork();
  if (pid == 0) {
    if (fork() == 0) {
      if (daemonised)
        setsid();
      pause_as(name);
    }
    _exit(0);
  }
  CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

TEST(orphan) {
  leave_orphan("leak-orphan", false);
}

TEST(daemonised) {
  leave_orphan("leak-daemon", true);
}

/* Ends within the grace: no leak. */
TEST(ending_late) {
  pid_t pid = fork();
  if (pid == 0) {
    if (fork() == 0)
      usleep(100000);
    _exit(0);
  }
  CHECK_EQ(waitpid(pid, NULL, 0), pid);
}

TEST(descriptor) {
  CHECK(open("/dev/null", O_RDONLY | O_CLOEXEC) > 2);
}

static void map_memfd(const char *name) {
  int fd = memfd_create(name, MFD_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, 4096), 0);
  CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED, fd, 0) != MAP_FAILED);
  close(fd);
}

TEST(mapping) {
  map_memfd("leak-mapping");
}

TEST(shared_anonymous) {
  CHECK(mmap(NULL, 4096, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) != MAP_FAILED);
}

TEST(one_heap) {
  map_memfd("mproc");
}

TEST(two_heaps) {
  map_memfd("mproc");
  map_memfd("mproc");
}

TEST(shared_memory) {
  int fd = shm_open(getenv("LEAKY_NAME"), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  close(fd);
}

TEST(file) {
  int fd = open(test_tmp_path("leak-file"), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  close(fd);
}
