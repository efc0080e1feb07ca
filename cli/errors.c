#include "cli.h"

#include <string.h>

enum { NAMES_MAX = 32 };

static void print_hint(const char *nearest, const char *prefix, const char *command) {
  if (nearest)
    fprintf(stderr, "; did you mean '%s%s'?\n", prefix, nearest);
  else
    fprintf(stderr, "; see 'mproc %s%s--help'\n", command ? command : "", command ? " " : "");
}

int cli_fail(const char *text) {
  fprintf(stderr, "mproc: %s\n", text);
  return CLI_FAILED;
}

int cli_unknown_command(const char *name) {
  const char *names[NAMES_MAX] = {NULL};
  for (size_t i = 0; cli_commands[i].name && i + 1 < NAMES_MAX; i++)
    names[i] = cli_commands[i].name;
  fprintf(stderr, "mproc: unknown command '%s'", name);
  print_hint(cli_nearest(name, names), "", NULL);
  return CLI_USAGE;
}

int cli_unexpected_argument(const char *argument, const char *command) {
  fprintf(stderr, "mproc: '%s' takes no argument '%s'", command, argument);
  print_hint(NULL, "", command);
  return CLI_USAGE;
}

static const struct option *find_option(const struct option *options, int value) {
  for (; options->name; options++) {
    if (options->val == value)
      return options;
  }
  return NULL;
}

static int bad_short_option(int letter, const char *command) {
  fprintf(stderr, "mproc: unknown option '-%c'", letter);
  print_hint(NULL, "", command);
  return CLI_USAGE;
}

/* getopt_long leaves in optopt 0 for an unknown long option, the option's value when a long option
 * was given an argument that it does not take, and the letter of an unknown short one. */
int cli_bad_option(char **argv, const struct option *options, const char *command) {
  const char *word = optind > 0 ? argv[optind - 1] : argv[0];
  const struct option *known = optopt ? find_option(options, optopt) : NULL;
  if (optopt && !known)
    return bad_short_option(optopt, command);
  if (known) {
    fprintf(stderr, "mproc: option '--%s' takes no value", known->name);
    print_hint(NULL, "", command);
    return CLI_USAGE;
  }

  const char *names[NAMES_MAX] = {NULL};
  for (size_t i = 0; options[i].name && i + 1 < NAMES_MAX; i++)
    names[i] = options[i].name;
  char bare[64];
  snprintf(bare, sizeof bare, "%.*s", (int)strcspn(word + 2, "="), word + 2);
  fprintf(stderr, "mproc: unknown option '%s'", word);
  print_hint(cli_nearest(bare, names), "--", command);
  return CLI_USAGE;
}
