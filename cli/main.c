#include "cli.h"

#include <errno.h>
#include <mproc/mproc.h>
#include <signal.h>
#include <string.h>

const cli_command cli_commands[] = {
    {"methods", "list the start methods of this system",
     "Usage: mproc methods [--json]\n"
     "\n"
     "Lists the start methods of this system, the default first, with what each is\n"
     "good for, and says why the default is what it is.\n"
     "\n"
     "Options:\n"
     "  --json      print a JSON object instead of text\n"
     "  -h, --help  print this text\n"
     "\n"
     "Environment:\n"
     "  MPROC_START_METHOD  the default start method, instead of the system's\n",
     cli_methods},
    {"help", "explain a command",
     "Usage: mproc help [COMMAND]\n"
     "\n"
     "Explains a command, or lists the commands.\n"
     "\n"
     "Options:\n"
     "  -h, --help  print this text\n",
     cli_help},
    {NULL, NULL, NULL, NULL},
};

static const struct option main_options[] = {
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'V'},
    {NULL, 0, NULL, 0},
};

static int run(int argc, char **argv) {
  opterr = 0;
  switch (getopt_long(argc, argv, "+hV", main_options, NULL)) {
  case 'h':
    cli_print_help(stdout);
    return CLI_OK;
  case 'V':
    printf("mproc %s\n", mproc_version());
    return CLI_OK;
  case -1:
    break;
  default:
    return cli_bad_option(argv, main_options, NULL);
  }
  if (optind == argc) {
    cli_print_help(stderr);
    return CLI_USAGE;
  }

  const cli_command *command = cli_find_command(argv[optind]);
  if (!command)
    return cli_unknown_command(argv[optind]);
  int first = optind;
  optind = 0; /* the command reads its own options from the beginning */
  return command->run(argc - first, argv + first);
}

/* A reader that went away or a full disk shows up at the latest when the buffer is written. */
static int finish_output(int status) {
  int failed = ferror(stdout);
  errno = 0;
  if (fclose(stdout) == 0 && !failed)
    return status;
  fprintf(stderr, "mproc: cannot write to standard output%s%s\n", errno ? ": " : "",
          errno ? strerror(errno) : "");
  return status == CLI_OK ? CLI_FAILED : status;
}

static int init_result;

int cli_check_init(void) {
  if (init_result == 0)
    return CLI_OK;
  cli_fail(mproc_error_detail()); /* nothing has failed since */
  return CLI_USAGE;
}

int main(int argc, char **argv) {
  init_result = mproc_init(&argc, &argv, NULL); /* who asks for help may have set a bad value */
  signal(SIGPIPE, SIG_IGN); /* a closed pipe becomes a write error, which is reported */
  return finish_output(run(argc, argv));
}
