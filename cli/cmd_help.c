#include "cli.h"

#include <string.h>

const cli_command *cli_find_command(const char *name) {
  for (const cli_command *command = cli_commands; command->name; command++) {
    if (strcmp(command->name, name) == 0)
      return command;
  }
  return NULL;
}

void cli_print_help(FILE *stream) {
  fputs("Usage: mproc COMMAND [OPTION]...\n"
        "\n"
        "Processes and shared memory for C programs: what this system offers.\n"
        "\n"
        "Commands:\n",
        stream);
  for (const cli_command *command = cli_commands; command->name; command++)
    fprintf(stream, "  %-10s  %s\n", command->name, command->summary);
  fputs("\n"
        "Options:\n"
        "  -h, --help     print this text\n"
        "  -V, --version  print the version\n"
        "\n"
        "'mproc help COMMAND' explains a command.\n",
        stream);
}

void cli_print_command_help(const cli_command *command) {
  fputs(command->help, stdout);
}

int cli_help(int argc, char **argv) {
  static const struct option options[] = {
      {"help", no_argument, NULL, 'h'},
      {NULL, 0, NULL, 0},
  };
  switch (getopt_long(argc, argv, "h", options, NULL)) {
  case 'h':
    cli_print_command_help(cli_find_command("help"));
    return CLI_OK;
  case -1:
    break;
  default:
    return cli_bad_option(argv, options, "help");
  }
  if (optind == argc) {
    cli_print_help(stdout);
    return CLI_OK;
  }
  if (argc - optind > 1)
    return cli_unexpected_argument(argv[optind + 1], "help");

  const cli_command *command = cli_find_command(argv[optind]);
  if (!command)
    return cli_unknown_command(argv[optind]);
  cli_print_command_help(command);
  return CLI_OK;
}
