/* Memory that a forked child does not see, and bytes that nobody can change. */
#include "facilities.h"
#include "in_child.h"
#include "seccomp.h"
#include "soft_limit.h"

#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* ---- wiped memory ---------------------------------------------------------------------------- */

static char *secret;

static void check_wiped(void) {
  for (size_t i = 0; i < 10000; i++)
    CHECK_EQ(secret[i], 0);
  memset(secret, 2, 10000); /* usable, and its own */
}

static void make_secret(void) {
  void *memory;
  CHECK_OK(mpx_os_wiped_alloc(10000, &memory));
  secret = memory;
  check_wiped();
}

TEST(a_forked_child_sees_zeros) {
  make_secret();
  in_child(check_wiped);
  CHECK_EQ(secret[9999], 2);
}

TEST(a_raw_clone_sees_zeros) {
  if (!has_wipe_on_fork())
    SKIP("only the kernel can do that");
  make_secret();
  long pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
  if (pid == 0)
    _exit(secret[0] == 0 && secret[9999] == 0 ? 0 : 1);
  CHECK_EQ(status_of((pid_t)pid), 0);
}

static void wipe_without_madvise(void) {
  const seccomp_rule call = {.call = SYS_madvise};
  if (seccomp_deny(&call, 1, ENOSYS) < 0)
    _exit(77);
  make_secret();
  in_child(check_wiped);
  CHECK_EQ(secret[9999], 2);
}

TEST(works_without_the_kernel) {
  int status = status_of_child(wipe_without_madvise);
  CHECK(status == 0 || WEXITSTATUS(status) == 77);
}

/* ---- sealed bytes ---------------------------------------------------------------------------- */

static const mpx_os_bytes parts[] = {{"hello ", 6}, {NULL, 0}, {"world", 6}};

static void check_sealed(mproc_handle handle) {
  const void *data;
  size_t size;
  CHECK_OK(mpx_os_seal_read(handle, &data, &size));
  CHECK_EQ(size, 12);
  CHECK_STR(data, "hello world");
  mpx_os_seal_release(data, size);
}

static void seal_and_read(void) {
  mproc_handle handle;
  CHECK_OK(mpx_os_seal_create("test", parts, 3, &handle));
  CHECK_EQ(fcntl((int)handle, F_GETFD), FD_CLOEXEC);
  check_sealed(handle);
  CHECK(mpx_os_write(handle, "x", 1) < 0);
  CHECK(ftruncate((int)handle, 1) < 0);
  check_sealed(handle);
  mpx_os_close(handle);

  const void *data;
  size_t size;
  CHECK_OK(mpx_os_seal_create("empty", NULL, 0, &handle));
  CHECK_OK(mpx_os_seal_read(handle, &data, &size));
  CHECK_EQ(size, 0);
  mpx_os_seal_release(data, size);
  mpx_os_close(handle);
}

TEST(sealed_bytes_are_read_and_not_changed) {
  seal_and_read();
}

static void seal_without_memfd(void) {
  const seccomp_rule call = {.call = SYS_memfd_create};
  if (seccomp_deny(&call, 1, EPERM) < 0)
    _exit(77);
  seal_and_read();
}

TEST(sealing_works_without_memfd) {
  int status = status_of_child(seal_without_memfd);
  CHECK(status == 0 || WEXITSTATUS(status) == 77);
}

static void check_refused(mproc_handle handle) {
  const void *data;
  size_t size;
  CHECK_EQ(mpx_os_seal_read(handle, &data, &size), -EBADMSG);
}

TEST(what_is_not_sealed_is_refused) {
  const void *data;
  size_t size;
  CHECK_EQ(mpx_os_seal_read(MPX_NO_HANDLE, &data, &size), -EBADF);
  mproc_handle ends[2];
  CHECK_OK(mpx_os_pipe(ends));
  check_refused(ends[0]);
  mpx_os_close(ends[0]);
  mpx_os_close(ends[1]);

  const char *path = test_tmp_path("file");
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  check_refused(fd);
  CHECK_EQ(unlink(path), 0);
  if (has_memfds()) { /* else an unnamed file is all there is */
    check_refused(fd);
    int memory = memfd_create("open", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    CHECK_EQ(write(memory, "x", 1), 1);
    check_refused(memory);
    CHECK_EQ(fcntl(memory, F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK), 0);
    check_refused(memory);
    close(memory);
  }
  close(fd);
}

static mproc_handle somebodys;

static void read_as_nobody(void) {
  CHECK_EQ(seteuid(65534), 0);
  check_refused(somebodys);
}

TEST(the_bytes_of_another_user_are_refused) {
  if (geteuid() != 0)
    SKIP("needs root");
  CHECK_OK(mpx_os_seal_create("mine", parts, 3, &somebodys));
  in_child(read_as_nobody);
  mpx_os_close(somebodys);
}

static void seal_above_file_limit(void) {
  mproc_handle handle;
  (void)set_soft_limit(RLIMIT_FSIZE, 4);
  CHECK_EQ(mpx_os_seal_create("long", parts, 3, &handle), -EFBIG);
}

TEST(sealing_above_the_file_size_limit_is_an_error) {
  in_child(seal_above_file_limit);
}
