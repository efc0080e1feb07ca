/* Shared memory: created once, mapped at one address, committed and given back, on any kernel. */
#include "facilities.h"
#include "in_child.h"
#include "seccomp.h"
#include "soft_limit.h"

#include "base/log.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#define PLACE ((void *)0x551000000000)
#define MIB ((size_t)1 << 20)
#define GIB ((size_t)1 << 30)

static char logged[4096];

static void keep_log(mproc_log_level level, const char *message) {
  (void)level;
  strncat(logged, message, sizeof logged - strlen(logged) - 2);
  strcat(logged, "\n");
}

static void start_log(void) {
  logged[0] = '\0';
  mpx_log_sink = keep_log;
  mpx_log_threshold = MPROC_LOG_INFO;
}

static int count_in_log(const char *part) {
  int count = 0;
  for (const char *at = logged; (at = strstr(at, part)); at++)
    count++;
  return count;
}

static bool is_all(const unsigned char *bytes, unsigned char value, size_t size) {
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != value)
      return false;
  return true;
}

static mproc_handle segment_at_place(size_t size) {
  mproc_handle handle;
  CHECK_OK(mpx_os_segment_create(size, &handle));
  CHECK_OK(mpx_os_segment_map(handle, PLACE, size));
  return handle;
}

static void give_back(mproc_handle handle, size_t size) {
  mpx_os_segment_unmap(PLACE, size);
  mpx_os_close(handle);
}

TEST(segment_is_one_memory_at_one_address) {
  mproc_handle handle = segment_at_place(4 * MIB);
  CHECK_EQ(fcntl((int)handle, F_GETFD), FD_CLOEXEC);
  CHECK_EQ(mpx_os_segment_map(handle, PLACE, 4 * MIB), -EEXIST);
  void *second = (char *)PLACE + GIB;
  CHECK_OK(mpx_os_segment_map(handle, second, 4 * MIB));
  memset((char *)PLACE + MIB, 5, 100);
  CHECK(is_all((unsigned char *)second + MIB, 5, 100));
  mpx_os_segment_unmap(second, 4 * MIB);
  give_back(handle, 4 * MIB);
}

TEST(nothing_of_the_host_is_replaced) {
  void *mine =
      mmap(PLACE, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  memset(mine, 9, 65536);
  mproc_handle handle;
  CHECK_OK(mpx_os_segment_create(4 * MIB, &handle));
  CHECK_EQ(mpx_os_segment_map(handle, (char *)PLACE - MIB, 4 * MIB), -EEXIST);
  CHECK(is_all(mine, 9, 65536));
  munmap(mine, 65536);
  mpx_os_close(handle);
}

TEST(identity_tells_a_reused_descriptor) {
  mproc_handle first, second;
  mpx_segment_id id, other;
  CHECK_OK(mpx_os_segment_create(MIB, &first));
  CHECK_OK(mpx_os_segment_identify(first, &id));
  CHECK_EQ(id.size, MIB);
  int copy = fcntl((int)first, F_DUPFD_CLOEXEC, 0);
  CHECK_OK(mpx_os_segment_identify(copy, &other));
  CHECK(id.device == other.device && id.inode == other.inode && id.size == other.size);
  CHECK_OK(mpx_os_segment_create(MIB, &second));
  CHECK_OK(mpx_os_segment_identify(second, &other));
  CHECK(id.inode != other.inode);
  mpx_os_close(first);
  CHECK_EQ(mpx_os_segment_identify(first, &other), -EBADF);
  CHECK_EQ(mpx_os_segment_identify(MPX_NO_HANDLE, &other), -EBADF);
  close(copy);
  mpx_os_close(second);
}

TEST(size_is_final) {
  if (!has_memfds())
    SKIP("only memfds have seals");
  mproc_handle handle;
  CHECK_OK(mpx_os_segment_create(MIB, &handle));
  CHECK_EQ(ftruncate((int)handle, 4096), -1);
  CHECK_EQ(errno, EPERM);
  CHECK_EQ(ftruncate((int)handle, 2 * (off_t)MIB), -1);
  mpx_os_close(handle);
}

/* ---- commit and decommit --------------------------------------------------------------------- */

static void commit_and_decommit(void *memory, size_t size) {
  CHECK_OK(mpx_os_commit(memory, size));
  memset(memory, 7, size);
  CHECK_OK(mpx_os_commit(memory, size)); /* again: the contents stay */
  CHECK(is_all(memory, 7, size));
  CHECK_OK(mpx_os_prefault(memory, size));
  CHECK(is_all(memory, 7, size));
  CHECK_OK(mpx_os_decommit((char *)memory + 65536, 65536));
  CHECK(is_all((unsigned char *)memory + 65536, 0, 65536));
  CHECK(is_all(memory, 7, 65536));
  CHECK(is_all((unsigned char *)memory + 131072, 7, size - 131072));
  CHECK_OK(mpx_os_commit(memory, size));
  memset(memory, 8, size);
}

static void on_every_kind_of_memory(void) {
  mproc_handle handle = segment_at_place(MIB);
  commit_and_decommit(PLACE, MIB);
  give_back(handle, MIB);
  static const int kinds[] = {MAP_SHARED | MAP_ANONYMOUS, MAP_PRIVATE | MAP_ANONYMOUS};
  for (int i = 0; i < 2; i++) {
    void *memory = mmap(NULL, MIB, PROT_READ | PROT_WRITE, kinds[i], -1, 0);
    CHECK(memory != MAP_FAILED);
    commit_and_decommit(memory, MIB);
    if (mlock(memory, MIB) == 0)
      commit_and_decommit(memory, MIB);
    munmap(memory, MIB);
  }
}

TEST(commit_and_decommit_work_on_any_memory) {
  on_every_kind_of_memory();
  CHECK_EQ(mpx_os_commit(PLACE, 0), 0);
  CHECK_EQ(mpx_os_commit(PLACE, 65536), -ENOMEM); /* nothing is mapped there */
}

static int64_t blocks_of(mproc_handle handle) {
  struct stat st;
  CHECK_EQ(fstat((int)handle, &st), 0);
  return (int64_t)st.st_blocks * 512;
}

TEST(decommit_returns_the_memory) {
  mproc_handle handle = segment_at_place(8 * MIB);
  CHECK_EQ(blocks_of(handle), 0);
  CHECK_OK(mpx_os_commit(PLACE, 4 * MIB));
  CHECK_EQ(blocks_of(handle), 4 * MIB);
  CHECK_OK(mpx_os_decommit(PLACE, 4 * MIB));
  CHECK_EQ(blocks_of(handle), 0);
  give_back(handle, 8 * MIB);
}

static int deny_errno;

static void deny(int call) {
  const seccomp_rule rule = {.call = call};
  int r = seccomp_deny(&rule, 1, deny_errno);
  if (r < 0)
    _exit(77);
}

/* A file system with 128 KiB of room: a store beyond it is SIGBUS, a commit is -ENOMEM. */
static void commit_on_full_file_system(void) {
  const char *folder = test_tmp_path("full");
  char path[4096];
  snprintf(path, sizeof path, "%s/memory", folder);
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, MIB), 0);
  CHECK_OK(mpx_os_segment_map(fd, PLACE, MIB));
  if (deny_errno != 0)
    deny(SYS_madvise);
  CHECK_OK(mpx_os_commit(PLACE, 65536));
  CHECK_EQ(mpx_os_commit(PLACE, MIB), -ENOMEM);
}

TEST(commit_says_that_memory_is_short) {
  const char *folder = test_tmp_path("full");
  CHECK_EQ(mkdir(folder, 0700), 0);
  if (unshare(CLONE_NEWNS) < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
      mount("full", folder, "tmpfs", 0, "size=128k") < 0) {
    rmdir(folder);
    SKIP("mounting is not allowed");
  }
  in_child(commit_on_full_file_system);
  deny_errno = ENOSYS;
  int status = status_of_child(commit_on_full_file_system);
  CHECK(status == 0 || WEXITSTATUS(status) == 77);
  CHECK_EQ(umount(folder), 0);
  CHECK_EQ(rmdir(folder), 0);
}

/* ---- limits ---------------------------------------------------------------------------------- */

static void create_above_file_limit(void) {
  mproc_handle handle;
  (void)set_soft_limit(RLIMIT_FSIZE, MIB);
  CHECK_EQ(mpx_os_segment_create(4 * MIB, &handle), -EFBIG); /* and no SIGXFSZ, which kills */
  CHECK_OK(mpx_os_segment_create(MIB, &handle));
  sigset_t mask;
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, NULL, &mask), 0);
  CHECK_EQ(sigismember(&mask, SIGXFSZ), 0);
}

TEST(a_file_size_limit_is_an_error_not_a_signal) {
  in_child(create_above_file_limit);
}

static void keep_pending_signal(void) {
  sigset_t set;
  mproc_handle handle;
  sigemptyset(&set);
  sigaddset(&set, SIGXFSZ);
  CHECK_EQ(pthread_sigmask(SIG_BLOCK, &set, NULL), 0);
  CHECK_EQ(raise(SIGXFSZ), 0);
  (void)set_soft_limit(RLIMIT_FSIZE, MIB);
  CHECK_EQ(mpx_os_segment_create(4 * MIB, &handle), -EFBIG);
  CHECK_EQ(sigpending(&set), 0);
  CHECK_EQ(sigismember(&set, SIGXFSZ), 1);
}

TEST(a_pending_signal_of_the_host_stays_pending) {
  in_child(keep_pending_signal);
}

static void commit_below_file_limit(void) {
  mproc_handle handle = segment_at_place(4 * MIB);
  (void)set_soft_limit(RLIMIT_FSIZE, 4096);
  CHECK_OK(mpx_os_commit(PLACE, MIB));
  deny(SYS_madvise);
  CHECK_OK(mpx_os_commit((char *)PLACE + MIB, MIB));
  give_back(handle, 4 * MIB);
}

TEST(a_file_size_limit_does_not_stop_a_commit) {
  deny_errno = ENOSYS;
  int status = status_of_child(commit_below_file_limit);
  CHECK(status == 0 || WEXITSTATUS(status) == 77);
}

/* ---- fall-backs ------------------------------------------------------------------------------ */

static void share_with_a_child(void) {
  mproc_handle handle = segment_at_place(MIB);
  pid_t pid = fork();
  if (pid == 0) {
    memset(PLACE, 3, 1000);
    _exit(0);
  }
  CHECK_EQ(status_of(pid), 0);
  CHECK(is_all(PLACE, 3, 1000));
  give_back(handle, MIB);
}

static void without_memfd(void) {
  start_log();
  deny(SYS_memfd_create);
  share_with_a_child();
  share_with_a_child();
  on_every_kind_of_memory();
#if !MPX_PORTABLE
  CHECK_EQ(count_in_log("no memfd"), 1);
#endif
}

static void without_madvise(void) {
  start_log();
  deny(SYS_madvise);
  share_with_a_child();
  on_every_kind_of_memory();
#if !MPX_PORTABLE
  CHECK_EQ(count_in_log("MADV_POPULATE_WRITE"), 1);
#endif
  CHECK_EQ(count_in_log("MADV_REMOVE"), 1);
  CHECK_EQ(count_in_log("core dumps"), 1);
}

static void with_denials(void (*body)(void)) {
  static const int codes[] = {ENOSYS, EPERM, EACCES};
  for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
    deny_errno = codes[i];
    int status = status_of_child(body);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 77)
      SKIP("system call filters are not allowed");
    CHECK_EQ(status, 0);
  }
}

TEST(works_without_memfd) {
  with_denials(without_memfd);
}

TEST(works_without_madvise) {
  with_denials(without_madvise);
}

/* ---- core dumps ------------------------------------------------------------------------------ */

static void crash(void) {
  struct rlimit limit = {RLIM_INFINITY, RLIM_INFINITY};
  (void)setrlimit(RLIMIT_CORE, &limit);
  CHECK_OK(chdir(test_tmp_path("")));
  abort();
}

TEST(a_crash_does_not_dump_the_reservation) {
  if (UNDER_SANITIZER || getenv("MPROC_TEST_WRAPPER"))
    SKIP("the sanitizer handles the signal, valgrind writes a dump of its own");
  mproc_handle handle = segment_at_place(16 * GIB);
  CHECK_OK(mpx_os_commit(PLACE, 64 * MIB));
  for (int i = 0; i < 10; i++) {
    int64_t start = mpx_os_now();
    int status = status_of_child(crash);
    int64_t took = mpx_os_now() - start;
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(took < 10 * 100 * MPX_NS_PER_MS); /* ten times the bar; without DONTDUMP it is 80 s */
    CHECK_EQ(system("rm -f \"$TMPDIR\"/core \"$TMPDIR\"/core.*"), 0);
  }
  give_back(handle, 16 * GIB);
}
