/* The audit of the harness: each kind of leftover is found and named, and nothing else is. */
#include "facilities.h"
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static char output[16384];

/* Runs one of the cases in tests/children/leaky_cases.c and keeps what the harness printed. */
static int run(const char *name) {
  char command[4096];
  snprintf(command, sizeof command, "exec '%s' %s 2>&1", test_child_path("leaky_cases"), name);
  FILE *stream = popen(command, "re");
  CHECK(stream);
  size_t length = fread(output, 1, sizeof output - 1, stream);
  output[length] = '\0';
  int status = pclose(stream);
  CHECK(WIFEXITED(status));
  return WEXITSTATUS(status);
}

static void check_left(const char *name, const char *what) {
  CHECK_EQ(run(name), 1);
  CHECK_CONTAINS(output, what);
  CHECK_CONTAINS(output, "\nnot ok 1 - ");
  CHECK_CONTAINS(output, "\n0 passed, 1 failed, 0 skipped\n");
}

TEST(clean_case_passes) {
  CHECK_EQ(run("nothing"), 0);
  CHECK_CONTAINS(output, "ok 1 - nothing");
  CHECK_CONTAINS(output, "\n1 passed, 0 failed, 0 skipped\n");
}

TEST(skipped_case_is_told) {
  CHECK_EQ(run("skipped"), 77);
  CHECK_CONTAINS(output, "# skipped: as it should");
  CHECK_CONTAINS(output, "\n0 passed, 0 failed, 1 skipped\n");
}

TEST(failed_check_shows_place_and_values) {
  check_left("failed_check", "CHECK_EQ(1 + 1, 3) failed: 2 is not 3");
  CHECK_CONTAINS(output, "leaky_cases.c:");
}

TEST(crash_names_the_signal) {
  check_left("crash", "killed by signal 9 (Killed)");
}

TEST(hang_ends_and_shows_every_process) {
  check_left("hang", "(hung-case)");
  CHECK_CONTAINS(output, "(hung-child)");
}

TEST(unknown_case_fails) {
  CHECK_EQ(run("no_such_case"), 1);
}

TEST(zombie) {
  check_left("zombie", "left behind: child process");
}
TEST(running_child) {
  check_left("running_child", "(leak-child)");
}
TEST(orphan) {
  check_left("orphan", "(leak-orphan)");
}
TEST(daemonised_orphan) {
  check_left("daemonised", "(leak-daemon)");
}
TEST(descriptor) {
  check_left("descriptor", "left behind: descriptor ");
  CHECK_CONTAINS(output, " -> /dev/null\n");
}
TEST(mapping) {
  if (!kernel_has_memfds())
    SKIP("no memfds here");
  check_left("mapping", "left behind: mapping /memfd:leak-mapping (deleted)");
}
TEST(file) {
  check_left("file", "/leak-file");
}

TEST(shared_memory) {
  char path[64], text[128]; /* another suite may run on this machine */
  snprintf(path, sizeof path, "/dev/shm/mproc-audit-leak-%d", (int)getpid());
  snprintf(text, sizeof text, "left behind: file %s", path);
  setenv("LEAKY_NAME", path + strlen("/dev/shm"), 1);
  check_left("shared_memory", text);
  CHECK(access(path, F_OK) != 0);
}

TEST(shared_mapping_without_name) {
  check_left("shared_anonymous", "left behind: mapping /dev/zero (deleted)");
}

TEST(one_family_heap_is_allowed) {
  if (!kernel_has_memfds())
    SKIP("no memfds here");
  CHECK_EQ(run("one_heap"), 0);
  check_left("two_heaps", "left behind: mapping /memfd:mproc (deleted)");
}

/* A wrapper that writes a line into its log and becomes the case. */
static int run_beside(const char *line) {
  char wrapper[4200];
  const char *path = test_tmp_path("checker");
  FILE *script = fopen(path, "we");
  CHECK(script);
  CHECK(fputs("#!/bin/sh\necho \"$1\" >\"$2\"\nshift 2\nexec \"$@\"\n", script) >= 0);
  CHECK_EQ(fclose(script), 0);
  CHECK_EQ(chmod(path, 0700), 0);
  snprintf(wrapper, sizeof wrapper, "%s %s @log@", path, line);
  CHECK_EQ(setenv("MPROC_TEST_WRAPPER", wrapper, 1), 0);
  int code = run("nothing");
  CHECK_EQ(unlink(path), 0);
  return code;
}

TEST(error_in_the_log_of_a_checker) {
  CHECK_EQ(run_beside("==1==error"), 1);
  CHECK_CONTAINS(output, "# ==1==error\nnot ok 1 - nothing");
  CHECK_EQ(run_beside("--1--remark"), 0);
}

TEST(grace_for_what_is_ending) {
  CHECK_EQ(run("ending_late"), 0);
}
