/* Entries in programs and libraries of every kind, found again by a spawned child. */
#include "../children/entry_library.h"
#include "../children/own_copy_plugin.h"
#include "each_method.h"

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/wait.h>

/* ---- other programs -------------------------------------------------------------------------- */

typedef struct program {
  mproc_process *process;
  int input, output;
} program;

static program start_program(const char *const *argv, const char *const *environment) {
  int in[2], out[2];
  make_pipe(in);
  make_pipe(out);
  mproc_process_options options = {
      .environment = environment,
      .streams = {{MPROC_STREAM_HANDLE, in[0]}, {MPROC_STREAM_HANDLE, out[1]}, {0}}};
  program self = {start_command(argv, &options), in[1], out[0]};
  CHECK_EQ(close(in[0]), 0);
  CHECK_EQ(close(out[1]), 0);
  return self;
}

static const char *end_of_program(program *self, int code) {
  static char text[8192];
  CHECK_EQ(close(self->input), 0);
  (void)read_all(self->output, text, sizeof text);
  int found = code_of_child(self->process);
  if (found != code)
    test_fail(__FILE__, __LINE__, "the program's code", "%d is not %d; it wrote:\n%s", found, code,
              text);
  return text;
}

static const char *run_program(const char *const *argv, const char *const *environment, int code) {
  program self = start_program(argv, environment);
  return end_of_program(&self, code);
}

#define ENVIRONMENT(...) COMMAND(__VA_ARGS__)

/* As an installer does it: the old file lives on for those who have it open. */
static void replace_file(const char *path, const char *by) {
  const char *temporary = test_tmp_path("new");
  copy_file(by, temporary, 0755);
  CHECK_EQ(rename(temporary, path), 0);
}

#define BY_ALL(what, code)                                                                         \
  "fork " what " " #code "\nspawn " what " " #code "\nforkserver " what " " #code "\n"
#define OWN BY_ALL("own", 41)
#if MPX_STATIC_TESTS
#define LINKED ""
#define LOADED(code) ""
#define LIBRARY(path) NULL
#define SKIP_WITHOUT_LIBRARIES() SKIP("a static program cannot load libraries")
#else
#define LINKED BY_ALL("linked", 44) BY_ALL("linked-static", 44)
#define LOADED(code) BY_ALL("loaded", code) BY_ALL("loaded-static", code)
#define LIBRARY(path) path
#define SKIP_WITHOUT_LIBRARIES() ((void)0)
#endif

static void check_program(const char *name) {
  const char *program_path = test_child_path(name);
  const char *library = LIBRARY(test_child_path("entry_library.so"));
  CHECK_STR(run_program(COMMAND(program_path, library), NULL, 0), OWN LINKED LOADED(41));
}

TEST(position_independent_program) {
  check_program("entry_main");
}

TEST(program_at_a_fixed_address) {
  check_program("entry_main_no_pie");
}

TEST(stripped_program) {
  check_program("entry_main_stripped");
}

TEST(program_without_build_id) {
  check_program("entry_main_no_id");
}

TEST(library_without_build_id) {
  SKIP_WITHOUT_LIBRARIES();
  const char *library = test_child_path("entry_library_no_id.so");
  CHECK_STR(run_program(COMMAND(test_child_path("entry_main_no_id"), library), NULL, 0),
            OWN LINKED LOADED(42));
}

TEST(program_with_mproc_linked_into_it) {
  const char *library = LIBRARY(test_child_path("entry_library.so"));
  CHECK_STR(run_program(COMMAND(test_child_path("entry_main_static_mproc"), library), NULL, 0),
            OWN LOADED(41));
}

TEST(program_found_by_a_relative_path) {
  CHECK_EQ(chdir(test_child_path("")), 0);
  CHECK_STR(run_program(COMMAND("./entry_main", LIBRARY("./entry_library.so")), NULL, 0),
            OWN LINKED LOADED(41));
}

TEST(program_run_by_the_loader) {
  SKIP_WITHOUT_LIBRARIES();
  const char *loader = "/lib64/ld-linux-x86-64.so.2";
  if (UNDER_SANITIZER || access(loader, X_OK) < 0)
    SKIP("no loader of this name, or a sanitizer that takes it for a leak");
  CHECK_STR(run_program(COMMAND(loader, test_child_path("entry_main")), NULL, 0), OWN LINKED);
}

/* ---- this program and its libraries ---------------------------------------------------------- */

static mproc_entry *load_entry(const char *path) {
  void *library = dlopen(path, RTLD_NOW);
  if (!library)
    test_fail(__FILE__, __LINE__, "dlopen", "%s", dlerror());
  library_function *(*get)(void);
  *(void **)&get = dlsym(library, "library_static_entry");
  CHECK(get);
  return get();
}

EACH_METHOD(entries_of_two_loaded_libraries) {
  SKIP_WITHOUT_LIBRARIES();
  mproc_entry *first = load_entry(test_child_path("entry_library.so"));
  mproc_entry *second = load_entry(test_child_path("entry_library_other.so"));
  mproc_entry *third = load_entry(test_child_path("entry_library_no_id.so"));
  CHECK_EQ(run_child(method, first, "\x28", 1), 41);
  CHECK_EQ(run_child(method, second, "\x28", 1), 43);
  CHECK_EQ(run_child(method, third, "\x28", 1), 42);
}

/* A child that lost its library knows nothing of it; it starts one of its own all the same. */
static int spawn_again(void *arg, size_t size) {
  mproc_entry *entry = load_entry(arg);
  CHECK(size > 0);
  return run_child("spawn", entry, "\x28", 1);
}

EACH_METHOD(library_loaded_by_a_child) {
  SKIP_WITHOUT_LIBRARIES();
  const char *path = test_child_path("entry_library.so");
  CHECK_EQ(run_child(method, spawn_again, path, strlen(path) + 1), 41);
}

static void check_start_fails(mproc_entry *entry, int code, const char *file, const char *text) {
  static const char *const methods[] = {"spawn", "forkserver"};
  for (int i = 0; i < 2; i++) {
    mproc_process *process = create_child(methods[i], entry, "\x28", 1, NULL);
    CHECK_EQ(mproc_process_start(process), code);
    CHECK_CONTAINS(mproc_error_detail(), file);
    CHECK_CONTAINS(mproc_error_detail(), text);
    CHECK_EQ(waitpid(-1, NULL, WNOHANG), -1);
    CHECK_OK(mproc_process_close(process));
  }
  CHECK_EQ(run_child("fork", entry, "\x28", 1), 41); /* needs no file */
}

TEST(library_replaced_on_disk) {
  SKIP_WITHOUT_LIBRARIES();
  const char *path = test_tmp_path("library.so");
  copy_file(test_child_path("entry_library.so"), path, 0755);
  mproc_entry *entry = load_entry(path);
  CHECK_EQ(run_child("spawn", entry, "\x28", 1), 41);
  replace_file(path, test_child_path("entry_library_other.so"));
  check_start_fails(entry, MPROC_ENOMODULE, "library.so", "replaced");
  CHECK_EQ(unlink(path), 0);
}

TEST(library_replaced_by_the_same_build) {
  SKIP_WITHOUT_LIBRARIES();
  const char *path = test_tmp_path("library.so");
  copy_file(test_child_path("entry_library.so"), path, 0755);
  mproc_entry *entry = load_entry(path);
  replace_file(path, test_child_path("entry_library.so"));
  CHECK_EQ(run_child("spawn", entry, "\x28", 1), 41);
  CHECK_EQ(run_child("forkserver", entry, "\x28", 1), 41);
  CHECK_EQ(unlink(path), 0);
}

TEST(library_removed_from_disk) {
  SKIP_WITHOUT_LIBRARIES();
  const char *path = test_tmp_path("library.so");
  copy_file(test_child_path("entry_library.so"), path, 0755);
  mproc_entry *entry = load_entry(path);
  CHECK_EQ(unlink(path), 0);
  check_start_fails(entry, MPROC_ENOMODULE, "library.so", "deleted");
}

static void in_another_program(const char *method) {
  mproc_context *context;
  mproc_context_options settings = {.method = method, .executable = test_child_path("second_main")};
  CHECK_OK(mproc_context_create(&context, &settings));
  mproc_process_options options = {.context = context};
  mproc_process *process;
  CHECK_OK(mproc_process_create(&process, return_zero, NULL, 0, &options));
  CHECK_EQ(mproc_process_start(process), MPROC_EMISMATCH);
  CHECK_CONTAINS(mproc_error_detail(), "test_entries");
  CHECK_CONTAINS(mproc_error_detail(), "second_main");
  CHECK_OK(mproc_process_close(process));
  mproc_context_destroy(context);
}

TEST(entry_of_this_program_in_another_program) {
  in_another_program("spawn");
  in_another_program("forkserver");
}

TEST(program_replaced_on_disk_while_it_runs) {
  char line[16];
  const char *path = test_tmp_path("program");
  copy_file(test_child_path("entry_main"), path, 0755);
  program self = start_program(COMMAND(path, "--wait"), NULL);
  CHECK_EQ(read(self.output, line, 6), 6);
  replace_file(path, "/bin/false");
  CHECK_EQ(write(self.input, "\n", 1), 1);
  CHECK_STR(end_of_program(&self, 0), OWN LINKED);
  CHECK_EQ(unlink(path), 0);
}

TEST(program_removed_from_disk_while_it_runs) {
  char line[16];
  const char *path = test_tmp_path("program");
  copy_file(test_child_path("entry_main"), path, 0755);
  program self = start_program(COMMAND(path, "--wait"), NULL);
  CHECK_EQ(read(self.output, line, 6), 6);
  CHECK_EQ(unlink(path), 0);
  CHECK_EQ(write(self.input, "\n", 1), 1);
  CHECK_STR(end_of_program(&self, 0), OWN LINKED);
}

/* ---- two copies of mproc --------------------------------------------------------------------- */

static int (*plugin)(const char *method, plugin_result *ret_result);

static void load_plugin(void) {
  void *library = dlopen(test_child_path("own_copy_plugin.so"), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    test_fail(__FILE__, __LINE__, "dlopen", "%s", dlerror());
  *(void **)&plugin = dlsym(library, "plugin_run");
  CHECK(plugin);
}

static void check_plugin(const char *method) {
  plugin_result result = {0};
  CHECK_OK(plugin(method, &result));
  CHECK_EQ(result.code, 17);
  CHECK_EQ(result.number, 42);
  CHECK(mproc_heap_usable_size(result.heap) == 0); /* in no heap that this copy knows */
}

/* The audit knows of one heap in a process: the second lives and dies with a child. */
static int use_both_copies(void *arg, size_t size) {
  CHECK(size > 0);
  load_plugin();
  CHECK_EQ(run_child(arg, return_zero, NULL, 0), 0);
  check_plugin(arg);
  CHECK_EQ(run_child(arg, return_zero, NULL, 0), 0);
  check_plugin(strcmp(arg, "fork") == 0 ? "spawn" : "fork");
  return 61;
}

EACH_METHOD(plugin_with_its_own_copy_of_mproc) {
  SKIP_WITHOUT_LIBRARIES();
  CHECK_EQ(run_child("fork", use_both_copies, method, strlen(method) + 1), 61);
  CHECK_EQ(run_child("spawn", use_both_copies, method, strlen(method) + 1), 61);
}

/* ---- hosts that do not call mproc_init ------------------------------------------------------- */

TEST(own_entry_needs_mproc_init) {
  const char *host = test_child_path("no_init_main");
  CHECK_STR(run_program(COMMAND(host, "fork"), NULL, 0), "41\n");
  const char *text = run_program(COMMAND(host, "spawn"), NULL, 1);
  CHECK_CONTAINS(text, "MPROC_ENOINIT: ");
  CHECK_CONTAINS(text, "no_init_main");
  CHECK_CONTAINS(text, "mproc_init");
  CHECK(strstr(text, "started again") == NULL);
  CHECK_CONTAINS(run_program(COMMAND(host, "forkserver"), NULL, 1), "MPROC_ENOINIT: ");
}

TEST(helper_runs_entries_of_libraries) {
  SKIP_WITHOUT_LIBRARIES();
  const char *host = test_child_path("no_init_main"),
             *library = test_child_path("entry_library.so");
  CHECK_STR(run_program(COMMAND(host, "fork", library), NULL, 0), "41\n");
  CHECK_STR(run_program(COMMAND(host, "spawn", library), NULL, 0), "41\n");
  CHECK_STR(run_program(COMMAND(host, "forkserver", library), NULL, 0), "41\n");
}

TEST(helper_by_option_and_by_variable) {
  SKIP_WITHOUT_LIBRARIES();
  const char *host = test_child_path("no_init_main"),
             *library = test_child_path("entry_library.so");
  const char *helper = test_tmp_path("my-helper");
  char variable[4200];
  copy_file(test_child_path("mproc-helper"), helper, 0755);
  CHECK_STR(run_program(COMMAND(host, "spawn", library, helper), NULL, 0), "41\n");
  snprintf(variable, sizeof variable, "MPROC_HELPER=%s", helper);
  CHECK_STR(run_program(COMMAND(host, "spawn", library), ENVIRONMENT(variable), 0), "41\n");
  /* The option comes before the variable. */
  CHECK_STR(run_program(COMMAND(host, "spawn", library, helper),
                        ENVIRONMENT("MPROC_HELPER=/no/such/helper"), 0),
            "41\n");
  CHECK_EQ(unlink(helper), 0);
}

TEST(helper_that_is_missing) {
  SKIP_WITHOUT_LIBRARIES();
  const char *host = test_child_path("no_init_main"),
             *library = test_child_path("entry_library.so");
  const char *text =
      run_program(COMMAND(host, "spawn", library), ENVIRONMENT("MPROC_HELPER=/no/such/helper"), 1);
  CHECK_CONTAINS(text, "MPROC_ENOHELPER: ");
  CHECK_CONTAINS(text, "/no/such/helper");
  text = run_program(COMMAND(host, "spawn", library, "/no/helper"), NULL, 1);
  CHECK_CONTAINS(text, "MPROC_ENOHELPER: ");
  CHECK_CONTAINS(text, "/no/helper");
}

TEST(helper_started_by_hand) {
  SKIP_WITHOUT_LIBRARIES();
  CHECK_STR(run_program(COMMAND(test_child_path("mproc-helper")), NULL, 2), "");
}

/* ---- who is a child and who is not ----------------------------------------------------------- */

TEST(mproc_init_after_other_work) {
  /* main() works again in the child, and then it is a child. */
  CHECK_STR(run_program(COMMAND(test_child_path("entry_main_static_mproc"), "--late"), NULL, 0),
            "work\n" OWN);
}

static int execute_another(void *arg, size_t size) {
  CHECK(size > 0);
  (void)execl(arg, "second", (char *)NULL);
  return 97;
}

static int run_another(void *arg, size_t size) {
  CHECK(size > 0);
  int status = system(arg);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 96;
}

EACH_METHOD(program_that_a_child_executes_is_no_child) {
  int out[2];
  char text[128];
  const char *path = test_child_path("second_main");
  mproc_entry *const entries[] = {execute_another, run_another};
  for (int i = 0; i < 2; i++) {
    make_pipe(out);
    mproc_process_options options = {.streams = {[1] = {MPROC_STREAM_HANDLE, out[1]}}};
    mproc_process *process = start_child(method, entries[i], path, strlen(path) + 1, &options);
    CHECK_EQ(close(out[1]), 0);
    CHECK_STR(read_all(out[0], text, sizeof text), "MainProcess main\n");
    CHECK_EQ(code_of_child(process), 4);
  }
}

TEST(marker_that_is_not_meant_for_the_process_is_ignored) {
  static const char *const values[] = {"MPROC_BOOT=",
                                       "MPROC_BOOT=garbage",
                                       "MPROC_BOOT=7",
                                       "MPROC_BOOT=7:1",
                                       "MPROC_BOOT=7:",
                                       "MPROC_BOOT=-1:-1",
                                       "MPROC_BOOT=99999999999999999999:99999999999999999999"};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    CHECK_STR(run_program(COMMAND(test_child_path("second_main")), ENVIRONMENT(values[i]), 4),
              "MainProcess main\n");
}

static void check_bad_record(const char *descriptor, const char *text) {
  char command[5000];
  snprintf(command, sizeof command, "MPROC_BOOT=%s:$$ exec '%s' 9</dev/null 8<'%s'", descriptor,
           test_child_path("second_main"), test_tmp_path("record"));
  int fd = open(test_tmp_path("record"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  CHECK_EQ(write(fd, "mprocbt1 and more than that", 27), 27);
  CHECK_EQ(close(fd), 0);
  const char *output = run_program(COMMAND("/bin/sh", "-c", command), NULL, 3);
  CHECK_CONTAINS(output, "MPROC_ERECORD: ");
  CHECK_CONTAINS(output, text);
  CHECK_EQ(unlink(test_tmp_path("record")), 0);
}

TEST(marker_without_a_record_is_an_error) {
  check_bad_record("77", "descriptor 77");
  check_bad_record("9", "descriptor 9");
  check_bad_record("8", "descriptor 8");
  check_bad_record("-3", "descriptor -3");
}
