/* MPROC_DEBUG=args: which words of an argument block are named, where, and what becomes of the
 * start. */
#include "each_method.h"

#include <limits.h>
#include <sys/stat.h>

enum { ENTRY_CODE = 7, USED_WRONGLY = 3, IMPOSSIBLE = 4 };

#ifdef __GLIBC__
#define HAS_BRK_HEAP 1
#else
#define HAS_BRK_HEAP 0
#endif

typedef struct output {
  char standard[8192];
  char error[32768];
  int code;
} output;

/* NULL: the variable is not set. */
static const output *run_program(const char *method, const char *debug, const char *mode,
                                 const char *file) {
  static output text;
  char debug_variable[64], method_variable[64];
  const char *const argv[] = {test_child_path("debug_main"), mode, file, NULL};
  const char *environment[] = {method_variable, debug_variable, NULL};
  snprintf(method_variable, sizeof method_variable, "MPROC_START_METHOD=%s", method);
  snprintf(debug_variable, sizeof debug_variable, "MPROC_DEBUG=%s", debug ? debug : "");
  environment[1] = debug ? debug_variable : NULL;
  text.code = outputs_of_command(argv, environment, text.standard, sizeof text.standard, text.error,
                                 sizeof text.error);
  return &text;
}

static const output *run_plain(const char *method, const char *debug, const char *mode) {
  const char *file = test_tmp_path("empty");
  const output *text = run_program(method, debug, mode, file);
  (void)unlink(file);
  return text;
}

static int count_lines(const char *text, const char *part) {
  int count = 0;
  for (; (text = strstr(text, part)); text++)
    count++;
  return count;
}

/* What the line says of the word; NULL when that is not known: musl, valgrind and sanitizers have a
 * heap of their own, and valgrind a stack. */
static const char *place_of(const char *kind) {
  static char path[PATH_MAX];
  bool checked = UNDER_SANITIZER || test_under_valgrind();
  snprintf(path, sizeof path, "%s%s and",
           strcmp(kind, "code") == 0  ? "into code of "
           : strcmp(kind, "bss") == 0 ? "into anonymous memory behind "
                                      : "into ",
           strcmp(kind, "file") == 0 ? test_tmp_path("empty") : test_child_path("debug_main"));
  if (strcmp(kind, "stack") == 0)
    return checked ? NULL : "into [stack] and";
  if (strcmp(kind, "malloc") == 0)
    return checked || !HAS_BRK_HEAP ? NULL : "into [heap] and";
  if (strcmp(kind, "anonymous") == 0)
    return "into anonymous memory";
  if (strcmp(kind, "shared") == 0)
    return "into /dev/zero (deleted) and";
  if (strcmp(kind, "library") == 0)
    return "into code of /";
  return strcmp(kind, "bss") == 0 && checked ? NULL : path;
}

static void check_named(const char *text, const char *kind, size_t offset, const char *value,
                        const char *method) {
  char start[128], rest[512];
  snprintf(start, sizeof start, "'the child': offset %zu of the argument block holds %s, which ",
           offset, value);
  CHECK_CONTAINS(text, start);
  const char *line = strstr(text, start), *place = place_of(kind);
  snprintf(rest, sizeof rest, "%.*s", (int)strcspn(line, "\n"), line);
  if (place)
    CHECK_CONTAINS(rest, place);
  bool is_code = strcmp(kind, "code") == 0 || strcmp(kind, "library") == 0;
  CHECK_CONTAINS(rest, is_code ? "pass a number or a name" : "mproc_heap_alloc");
  snprintf(start, sizeof start, "means nothing to a child under %s: ", method);
  CHECK_CONTAINS(rest, start);
}

/* Each line that the program printed of its block. */
static void check_words(const output *text, const char *said, const char *method) {
  int private_words = 0, words = 0;
  char what[16], kind[16], value[32];
  size_t offset;
  for (const char *line = text->standard; *line; line += strcspn(line, "\n") + 1) {
    if (sscanf(line, "%15s %15s %zu %31s", what, kind, &offset, value) != 4 ||
        strncmp(line, "hook", 4) == 0)
      break;
    words++;
    private_words += strcmp(what, "private") == 0;
    if (strcmp(what, "private") == 0)
      check_named(said, kind, offset, value, method);
  }
  CHECK_EQ(words, 14);
  CHECK_EQ(private_words, 9);
  CHECK_EQ(count_lines(said, "private pointer"), private_words); /* and none of the others */
}

EACH_METHOD(args_names_private_pointers) {
  const output *text = run_plain(method, "args", "plain");
  CHECK_EQ(text->code, ENTRY_CODE); /* named, not refused */
  if (strcmp(method, "fork") == 0) {
    CHECK_STR(text->error, "");
    return;
  }
  check_words(text, text->error, method);
  CHECK_EQ(count_lines(text->error, "] error: "), 9);
  CHECK_EQ(count_lines(text->error, "\n"), 9);
}

EACH_METHOD(nothing_is_said_without_the_variable) {
  static const char *const values[] = {NULL, ""};
  for (int i = 0; i < 2; i++) {
    const output *text = run_plain(method, values[i], "plain");
    CHECK_EQ(text->code, ENTRY_CODE);
    CHECK_STR(text->error, "");
  }
}

EACH_METHOD(children_of_children_are_checked) {
  const output *text = run_plain(method, "args", "grandchild");
  CHECK_EQ(text->code, ENTRY_CODE);
  CHECK_EQ(count_lines(text->error, "private pointer"), strcmp(method, "fork") != 0);
}

TEST(a_hook_gets_what_is_found) {
  const output *text = run_plain("spawn", "args", "hook");
  CHECK_EQ(text->code, ENTRY_CODE);
  CHECK_STR(text->error, "");
  CHECK_EQ(count_lines(text->standard, "hook 1: "), 9);
  check_words(text, text->standard, "spawn");
}

TEST(a_log_that_is_off_hides_nothing) {
  const output *text = run_plain("spawn", "args", "off");
  CHECK_EQ(text->code, ENTRY_CODE);
  CHECK_EQ(count_lines(text->standard, "hook"), 0);
  check_words(text, text->error, "spawn");
}

TEST(many_words_are_counted) {
  const output *text = run_plain("spawn", "args", "many");
  CHECK_EQ(text->code, ENTRY_CODE);
  CHECK_EQ(count_lines(text->error, "offset "), 16);
  CHECK_CONTAINS(text->error, "'the child': 24 more words of the argument block look like private");
}

/* The end of a path has the file's name, and the remedy stands behind it. */
TEST(a_long_path_leaves_room_for_the_remedy) {
  char folder[256], path[1024];
  memset(folder, 'x', 240);
  folder[240] = '\0';
  CHECK_EQ(mkdir(test_tmp_path(folder), 0700), 0);
  snprintf(path, sizeof path, "%s/the-file", test_tmp_path(folder));
  const output *text = run_program("spawn", "args", "long", path);
  CHECK_EQ(text->code, ENTRY_CODE);
  CHECK_CONTAINS(text->error, "into ...xxx");
  CHECK_CONTAINS(text->error, "xxx/the-file and means nothing");
  CHECK_CONTAINS(text->error, "(mproc_heap_alloc)\n");
  CHECK_EQ(unlink(path), 0);
  CHECK_EQ(rmdir(test_tmp_path(folder)), 0);
}

TEST(a_check_that_is_not_possible_says_so) {
  SKIP_UNDER_VALGRIND("it cannot live without /proc");
  const output *text = run_plain("spawn", "args", "no-maps");
  if (text->code == IMPOSSIBLE)
    SKIP("no mount namespaces here");
  CHECK_CONTAINS(text->error, "'the child': MPROC_DEBUG=args is off, the argument block is not "
                              "checked: cannot list what this process has mapped: ");
}

EACH_METHOD(unknown_words_are_errors) {
  static const char *const values[] = {"arg", "argss", "Args", "all", "args,all", "args,", ",args"};
  static const char *const words[] = {"'arg'", "'argss'", "'Args'", "'all'", "'all'", "''", "''"};
  static const char *const modes[] = {"plain", "no-init"};
  for (size_t i = 0; i < sizeof values / sizeof values[0]; i++)
    for (size_t k = 0; k < 2; k++) {
      const output *text = run_plain(method, values[i], modes[k]);
      CHECK_EQ(text->code, USED_WRONGLY);
      CHECK_CONTAINS(text->standard, "MPROC_DEBUG: ");
      CHECK_CONTAINS(text->standard, words[i]);
      CHECK_CONTAINS(text->standard, "use args");
    }
  CHECK_EQ(run_plain(method, "args,args", "plain")->code, ENTRY_CODE);
}
