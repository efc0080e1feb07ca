#include "cli.h"

#include <errno.h>
#include <fcntl.h>
#include <mproc/mproc.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const char map_help[] =
    "Usage: mproc map [OPTION]... LIBRARY:FUNCTION [INPUT]...\n"
    "       mproc map [OPTION]... -- COMMAND [ARGUMENT]... [::: INPUT...]\n"
    "       mproc map --check LIBRARY:FUNCTION\n"
    "\n"
    "Runs a function of a library, or a command, once for each input, in worker\n"
    "processes. Inputs are arguments, lines of a file, or lines of standard input.\n"
    "Results come in the order of the inputs, and never mixed.\n"
    "\n"
    "Inputs:\n"
    "  -a, --arg-file FILE    lines of FILE instead of standard input\n"
    "  -0, --null             inputs end with a NUL byte, not with a line\n"
    "\n"
    "Workers:\n"
    "  -j, --jobs N           so many at a time, or N% of the CPUs; one per CPU\n"
    "  --start-method METHOD  fork, spawn or forkserver\n"
    "  --timeout TIME         ends an input that takes longer: 10, 0.5s, 3m, 2h\n"
    "  --memory SIZE          ends an input that needs more: 500M, 2G\n"
    "  --retries N            tries an input that failed N more times\n"
    "  --halt WHEN            never; [soon,|now,]fail=N or N%; success=N; done=N\n"
    "  --shell                the command is a line for /bin/sh; inputs are quoted,\n"
    "                         so {} stands without quotes in it\n"
    "\n"
    "Output:\n"
    "  -k, --ordered          in the order of the inputs (the default)\n"
    "  --unordered            as results come\n"
    "  --raw                  results of a function without a newline behind each\n"
    "  --json                 a JSON object a line for each input\n"
    "  --dry-run              prints what would run, and runs nothing\n"
    "  --progress             a line on the terminal: bar, rate, time left\n"
    "  --stats                figures at the end, on standard error\n"
    "\n"
    "Log:\n"
    "  --joblog FILE          a table of what was run, as GNU parallel writes it\n"
    "  --resume               skips what the joblog has\n"
    "\n"
    "  --check                says whether the function is one for mproc map\n"
    "  -h, --help             print this text\n"
    "\n"
    "In a command {} is the input, {.} without its extension, {/} its last part,\n"
    "{//} its folder, {/.} its last part without extension, {#} its number. Without\n"
    "any of them the input is the last argument.\n"
    "\n"
    "Exit status: the number of inputs that failed, 101 for more than 100, 255 for\n"
    "another error; with --halt that of the input that halted it; 130 after Ctrl-C.\n";

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
     cli_methods, 0},
    {"map", "run a function or a command over many inputs", map_help, cli_map, 255},
    {"help", "explain a command",
     "Usage: mproc help [COMMAND]\n"
     "\n"
     "Explains a command, or lists the commands.\n"
     "\n"
     "Options:\n"
     "  -h, --help  print this text\n",
     cli_help, 0},
    {NULL, NULL, NULL, NULL, 0},
};

static int output_status; /* of the command that runs */

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
  output_status = command->output_status;
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
  if (output_status)
    return output_status;
  return status == CLI_OK ? CLI_FAILED : status;
}

static int init_result;

int cli_check_init(void) {
  if (init_result == 0)
    return CLI_OK;
  cli_fail(mproc_error_detail()); /* nothing has failed since */
  return CLI_USAGE;
}

/* A standard stream that was closed would be the number of the next file opened. What takes its
 * place cannot be used as that stream, so that a use of it is still an error. */
static void occupy_streams(void) {
  for (int fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++) {
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
      (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
  }
}

int main(int argc, char **argv) {
  occupy_streams();
  init_result = mproc_init(&argc, &argv, NULL); /* who asks for help may have set a bad value */
  signal(SIGPIPE, SIG_IGN); /* a closed pipe becomes a write error, which is reported */
  signal(SIGXFSZ, SIG_IGN); /* and so does a file that grows too large */
  return finish_output(run(argc, argv));
}
