/* A program with raised privileges never does what its caller's environment says. */
#include "harness.h"
#include "processes.h"
#include "setuid.h"

static void check_line(const char *output, const char *line) {
  CHECK_CONTAINS(output, line);
}

/* The forged record works on an ordinary copy: what stops it in the other cases is AT_SECURE. */
TEST(forged_record_is_valid_for_an_ordinary_program) {
  char output[4096];
  need_setuid();
  const char *copy = copy_program(test_child_path("secure_main"), "ordinary", false);
  int status = run_as_ordinary(copy, "forge", copy, output, sizeof output);
  CHECK_EQ(unlink(copy), 0);
  CHECK_STR(output, "evil 65534\n");
  CHECK(WIFEXITED(status));
  CHECK_EQ(WEXITSTATUS(status), 66);
}

TEST(setuid_program_is_never_a_child_and_reads_no_variable) {
  char output[4096];
  need_setuid();
  const char *attacker = copy_program(test_child_path("secure_main"), "attacker", false);
  const char *victim = copy_program(test_child_path("secure_main"), "victim", true);
  int status = run_as_ordinary(attacker, "forge", victim, output, sizeof output);
  CHECK_EQ(unlink(attacker), 0);
  CHECK_EQ(unlink(victim), 0);
  CHECK_EQ(status, 0);
  CHECK(strstr(output, "evil") == NULL);
  check_line(output, "secure 1\n");
  check_line(output, "init 0 \n");
  check_line(output, "method 0 fork\n");
  check_line(output, "end\n");
}

TEST(setuid_program_forks_but_does_not_spawn) {
  char output[4096], expected[32];
  run_setuid(test_child_path("secure_main"), "report", output, sizeof output);
  snprintf(expected, sizeof expected, "spawn %d ", MPROC_ESECURE);
  check_line(output, "secure 1\n");
  check_line(output, expected);
  snprintf(expected, sizeof expected, "forkserver %d ", MPROC_ESECURE);
  check_line(output, expected);
  check_line(output, "fork 0 7 \n");
}

/* Root that runs a file of its own raises nothing. */
TEST(root_is_no_raised_privilege) {
  char output[4096];
  const char *const argv[] = {test_child_path("secure_main"), "report", NULL};
  CHECK_EQ(run_program(argv, output, sizeof output), 0);
  check_line(output, "secure 0\n");
  check_line(output, "spawn 0 7 \n");
  check_line(output, "forkserver 0 7 \n");
  check_line(output, "fork 0 7 \n");
}
