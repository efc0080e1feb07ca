/* The process-wide start method: Python's rules. Each case begins without a choice. */
#include "each_method.h"
#include "seccomp.h"

static const char *if_set(void) {
  const char *name = "untouched";
  CHECK_OK(mproc_get_start_method_if_set(&name));
  return name;
}

static const char *in_use(void) {
  const char *name = NULL;
  CHECK_OK(mproc_get_start_method(&name));
  return name;
}

static void check_set(const char *method, int force, int code, const char *text) {
  CHECK_EQ(mproc_set_start_method(method, force), code);
  CHECK_CONTAINS(mproc_error_detail(), text);
}

TEST(list_has_the_default_first) {
  const char *const *names = NULL;
  CHECK_EQ(mproc_get_all_start_methods(&names), 3);
  CHECK_STR(names[0], "fork");
  CHECK_STR(names[1], "spawn");
  CHECK_STR(names[2], "forkserver");
  CHECK(names[3] == NULL);
  CHECK_STR(in_use(), names[0]);
}

TEST(get_fixes_the_default) {
  CHECK(if_set() == NULL);
  CHECK_STR(in_use(), "fork");
  CHECK_STR(if_set(), "fork");
  check_set("spawn", 0, MPROC_EMETHODSET, "already set to 'fork'");
  CHECK_STR(in_use(), "fork");
}

TEST(get_if_set_fixes_nothing) {
  CHECK(if_set() == NULL);
  CHECK(if_set() == NULL);
  CHECK_OK(mproc_set_start_method("spawn", 0));
  CHECK_STR(if_set(), "spawn");
}

TEST(start_fixes_the_default) {
  CHECK_EQ(mproc_run(return_zero, NULL, 0), 0);
  CHECK_STR(if_set(), "fork");
}

TEST(start_by_a_named_method_fixes_nothing) {
  CHECK_EQ(run_child("spawn", return_zero, NULL, 0), 0);
  CHECK(if_set() == NULL);
}

TEST(set_once) {
  CHECK_OK(mproc_set_start_method("spawn", 0));
  CHECK_STR(in_use(), "spawn");
  check_set("fork", 0, MPROC_EMETHODSET, "already set to 'spawn'");
  check_set("spawn", 0, MPROC_EMETHODSET, "already set to 'spawn'");
  CHECK_STR(in_use(), "spawn");
}

TEST(force_replaces_and_takes_back) {
  CHECK_OK(mproc_set_start_method("spawn", 0));
  CHECK_OK(mproc_set_start_method("fork", 1));
  CHECK_STR(in_use(), "fork");
  CHECK_OK(mproc_set_start_method(NULL, 1));
  CHECK(if_set() == NULL);
  CHECK_OK(mproc_set_start_method("spawn", 0));
  CHECK_OK(mproc_set_start_method(NULL, 1));
  CHECK_STR(in_use(), "fork");
}

TEST(null_needs_force) {
  check_set(NULL, 0, -EINVAL, "force");
  CHECK(if_set() == NULL);
}

TEST(unknown_name_lists_the_valid_ones) {
  for (int force = 0; force < 2; force++) {
    check_set("threads", force, MPROC_EMETHOD, "'threads' is no start method");
    CHECK_CONTAINS(mproc_error_detail(), "fork, spawn");
    check_set("Fork", force, MPROC_EMETHOD, "'Fork'");
    check_set("", force, MPROC_EMETHOD, "''");
    check_set("main", force, MPROC_EMETHOD, "'main'");
  }
  CHECK(if_set() == NULL);
}

TEST(known_name_that_is_absent_here) {
  CHECK_OK(seccomp_deny(&(const seccomp_rule){.call = SYS_socketpair}, 1, ENOSYS));
  check_set("forkserver", 0, -ENOSYS, "not available");
  CHECK_CONTAINS(mproc_error_detail(), "fork, spawn");
  CHECK(if_set() == NULL);
}

/* ---- MPROC_START_METHOD ---------------------------------------------------------------------- */

TEST(environment_is_the_default) {
  CHECK_EQ(setenv("MPROC_START_METHOD", "spawn", 1), 0);
  CHECK(if_set() == NULL);
  CHECK_STR(in_use(), "spawn");
  CHECK_STR(if_set(), "spawn");
}

TEST(environment_gives_way_to_a_choice) {
  CHECK_EQ(setenv("MPROC_START_METHOD", "spawn", 1), 0);
  CHECK_OK(mproc_set_start_method("fork", 0));
  CHECK_STR(in_use(), "fork");
}

TEST(environment_that_is_empty_is_none) {
  CHECK_EQ(setenv("MPROC_START_METHOD", "", 1), 0);
  CHECK_STR(in_use(), "fork");
}

static void check_bad_environment(const char *value, int code) {
  const char *name = "untouched";
  CHECK_EQ(setenv("MPROC_START_METHOD", value, 1), 0);
  CHECK_EQ(mproc_get_start_method(&name), code);
  CHECK_CONTAINS(mproc_error_detail(), "MPROC_START_METHOD");
  CHECK_CONTAINS(mproc_error_detail(), value);
  CHECK_CONTAINS(mproc_error_detail(), "fork, spawn");
  CHECK_STR(name, "untouched");
  CHECK_EQ(mproc_run(return_zero, NULL, 0), code);
  CHECK(if_set() == NULL);
}

TEST(environment_that_is_bad_is_an_error) {
  check_bad_environment("thread", MPROC_EMETHOD);
  CHECK_OK(seccomp_deny(&(const seccomp_rule){.call = SYS_socketpair}, 1, ENOSYS));
  check_bad_environment("forkserver", -ENOSYS);
}

/* ---- children -------------------------------------------------------------------------------- */

static int check_inherited_choice(void *arg, size_t size) {
  const char *expected = size ? arg : NULL, *found = if_set();
  return expected ? found && strcmp(found, expected) == 0 ? 0 : 1 : found == NULL ? 0 : 2;
}

EACH_METHOD(children_inherit_the_choice) {
  CHECK_EQ(run_child(method, check_inherited_choice, NULL, 0), 0);
  CHECK_OK(mproc_set_start_method("spawn", 0));
  CHECK_EQ(run_child(method, check_inherited_choice, "spawn", 6), 0);
  CHECK_OK(mproc_set_start_method("fork", 1));
  CHECK_EQ(run_child(method, check_inherited_choice, "fork", 5), 0);
}

static int choose_another(void *arg, size_t size) {
  (void)arg, (void)size;
  check_set("fork", 0, MPROC_EMETHODSET, "already set to 'spawn'");
  return mproc_set_start_method("fork", 1) == 0 ? 0 : 1;
}

EACH_METHOD(choice_of_a_child_is_its_own) {
  CHECK_OK(mproc_set_start_method("spawn", 0));
  CHECK_EQ(run_child(method, choose_another, NULL, 0), 0);
  CHECK_STR(in_use(), "spawn");
}
