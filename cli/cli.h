/* What the parts of the command share. Exit statuses: 0 done, 1 failed, 2 used wrongly; those of
 * `mproc map` are in map.h. */
#ifndef MPROC_CLI_H
#define MPROC_CLI_H

#include <getopt.h>
#include <stddef.h>
#include <stdio.h>

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2 };

typedef struct cli_command {
  const char *name;
  const char *summary;               /* one line, for the list of commands */
  const char *help;                  /* the text of `mproc COMMAND --help` */
  int (*run)(int argc, char **argv); /* argv[0] is the command's name */
  int output_status; /* when standard output takes nothing; 0: 1, where nothing else failed */
} cli_command;

/* Ends with an entry without a name. */
extern const cli_command cli_commands[];

int cli_methods(int argc, char **argv);
int cli_map(int argc, char **argv);
int cli_help(int argc, char **argv);

/* NULL when there is none of this name. */
const cli_command *cli_find_command(const char *name);
void cli_print_help(FILE *stream);
void cli_print_command_help(const cli_command *command);

/* They print one line, with a hint where one is near, and return CLI_USAGE. `command` is NULL for
 * mproc itself. */
int cli_unknown_command(const char *name);
int cli_bad_option(char **argv, const struct option *options, const char *command);
int cli_unexpected_argument(const char *argument, const char *command);

/* For commands that use the library: CLI_OK, or one line on standard error and CLI_USAGE where it
 * could not be initialised, for a variable with a bad value. */
int cli_check_init(void);

/* One line on standard error; returns CLI_FAILED. */
int cli_fail(const char *text);

/* Values of options that have no short form: above every letter. */
enum { CLI_OPTION_JSON = 256 };

/* The nearest of `names` (NULL-terminated), or NULL when none is near enough to be meant. */
const char *cli_nearest(const char *word, const char *const *names);

/* Writes `text` in lines of at most 80 columns, each but the first behind `indent` spaces. The
 * cursor is already at column `indent`. */
void cli_print_wrapped(FILE *stream, const char *text, size_t indent);

#endif
