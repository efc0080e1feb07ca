#include "cli.h"
#include "methods.h"

#include <mproc/mproc.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static const method_info known_methods[] = {
    {"fork",
     "single-threaded programs with little memory: the fastest start, and the child sees a copy of "
     "the caller's memory",
     "other threads run, or the caller holds gigabytes"},
    {"spawn",
     "programs with threads or much memory: a fresh execution of the program, whose cost does not "
     "depend on the caller",
     "the child needs more from the caller than its argument and the shared heap"},
    {"forkserver",
     "programs with threads or much memory that start often: a small server of one thread forks "
     "for the caller, with what its preload functions made ready",
     "the child needs the caller's memory, or the caller's privileges change all the time"},
};

static method_info describe(const char *name) {
  for (size_t i = 0; i < sizeof known_methods / sizeof known_methods[0]; i++) {
    if (strcmp(known_methods[i].name, name) == 0)
      return known_methods[i];
  }
  return (method_info){name, "a method that this version of the command does not know", ""};
}

static int load(method_list *list) {
  const char *const *names;
  int r = mproc_get_all_start_methods(&names);
  if (r < 0)
    return r;
  r = mproc_get_start_method(&list->default_name);
  if (r < 0)
    return r;
  list->system_default = names[0];
  list->methods[0] = describe(list->default_name);
  list->count = 1;
  for (; *names && list->count < METHODS_MAX; names++) {
    if (strcmp(*names, list->default_name) != 0)
      list->methods[list->count++] = describe(*names);
  }
  return 0;
}

static const char *system_reason(const char *name) {
  if (strcmp(name, "fork") == 0)
    return "it is the fastest from a small program, and what C programmers expect of a Unix system";
  return "it is safe whatever else the calling program does";
}

static void print_reason(const method_list *list) {
  const char *variable = getenv("MPROC_START_METHOD");
  bool by_variable = variable && strcmp(variable, list->default_name) == 0;
  char text[512];
  if (by_variable && strcmp(variable, list->system_default) == 0)
    snprintf(text, sizeof text,
             "%s is the default because MPROC_START_METHOD is set to it, and would be without that "
             "too.",
             list->default_name);
  else if (by_variable)
    snprintf(text, sizeof text,
             "%s is the default because MPROC_START_METHOD is set to it. Without that it would be "
             "%s.",
             list->default_name, list->system_default);
  else
    snprintf(text, sizeof text,
             "%s is the default of this system: %s. MPROC_START_METHOD is not set; it overrides "
             "the default, and a program's own choice overrides both.",
             list->default_name, system_reason(list->default_name));
  cli_print_wrapped(stdout, text, 0);
}

static void print_text(const method_list *list) {
  size_t width = 0;
  for (size_t i = 0; i < list->count; i++) {
    size_t length = strlen(list->methods[i].name) + (i == 0 ? strlen(" (default)") : 0);
    width = length > width ? length : width;
  }
  size_t indent = width + 4;
  for (size_t i = 0; i < list->count; i++) {
    const method_info *method = &list->methods[i];
    char label[64];
    char text[512];
    snprintf(label, sizeof label, "%s%s", method->name, i == 0 ? " (default)" : "");
    printf("  %-*s  ", (int)width, label);
    snprintf(text, sizeof text, "good for %s", method->good_for);
    cli_print_wrapped(stdout, text, indent);
    if (method->avoid_when[0]) {
      printf("%*s", (int)indent, "");
      snprintf(text, sizeof text, "avoid when %s", method->avoid_when);
      cli_print_wrapped(stdout, text, indent);
    }
    putchar('\n');
  }
  print_reason(list);
}

int cli_methods(int argc, char **argv) {
  static const struct option options[] = {
      {"json", no_argument, NULL, CLI_OPTION_JSON},
      {"help", no_argument, NULL, 'h'},
      {NULL, 0, NULL, 0},
  };
  int json = 0;
  for (int c; (c = getopt_long(argc, argv, "h", options, NULL)) != -1;) {
    if (c == 'h') {
      cli_print_command_help(cli_find_command("methods"));
      return CLI_OK;
    }
    if (c != CLI_OPTION_JSON)
      return cli_bad_option(argv, options, "methods");
    json = 1;
  }
  if (optind < argc)
    return cli_unexpected_argument(argv[optind], "methods");

  int status = cli_check_init();
  if (status != CLI_OK)
    return status;
  method_list list;
  if (load(&list) < 0) {
    cli_fail(mproc_error_detail());
    return CLI_USAGE;
  }
  if (json)
    return cli_methods_json(&list);
  print_text(&list);
  return CLI_OK;
}
