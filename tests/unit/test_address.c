/* A fresh process in which the heap's address is taken is started again; one that takes it each
 * time is a clear error. */
#include "harness.h"
#include "processes.h"
#include "programs.h"

#include <fcntl.h>

enum { TRIES = 16 }; /* MPX_ADDRESS_TRIES */

static void collide(const char *method, const char *times, char *output, size_t size) {
  const char *log = test_tmp_path("tries");
  const char *const argv[] = {test_child_path("collide_main"), method, times, log, NULL};
  int fd = open(log, O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(close(fd), 0);
  CHECK_EQ(run_program(argv, output, size), 0);
}

static long tries_of(void) {
  struct stat log;
  CHECK_EQ(stat(test_tmp_path("tries"), &log), 0);
  CHECK_EQ(unlink(test_tmp_path("tries")), 0);
  return (long)log.st_size;
}

static void is_started_again(const char *method) {
  char output[1024];
  collide(method, "3", output, sizeof output);
  CHECK_STR(output, "7 \n");
  CHECK_EQ(tries_of(), 4);
}

static void gives_up(const char *method) {
  char output[1024], code[16];
  collide(method, "1000", output, sizeof output);
  snprintf(code, sizeof code, "%d ", MPROC_EADDRESS);
  CHECK_CONTAINS(output, code);
  CHECK_CONTAINS(output, "address of the shared heap");
  CHECK_CONTAINS(output, "heap_size");
  CHECK_EQ(tries_of(), TRIES);
}

TEST(child_whose_address_is_taken_is_started_again) {
  is_started_again("spawn");
}

TEST(forkserver_whose_address_is_taken_is_started_again) {
  is_started_again("forkserver");
}

TEST(children_whose_address_is_always_taken) {
  gives_up("spawn");
}

TEST(forkservers_whose_address_is_always_taken) {
  gives_up("forkserver");
}
