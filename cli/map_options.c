/* The words behind `mproc map`. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <errno.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum {
  OPTION_METHOD = CLI_OPTION_JSON + 1,
  OPTION_TIMEOUT,
  OPTION_RETRIES,
  OPTION_MEMORY,
  OPTION_UNORDERED,
  OPTION_HALT,
  OPTION_JOBLOG,
  OPTION_RESUME,
  OPTION_DRY_RUN,
  OPTION_PROGRESS,
  OPTION_STATS,
  OPTION_RAW,
  OPTION_SHELL,
  OPTION_CHECK
};

enum { RETRIES_MAX = 1000000 };

static const char separator[] = ":::";

static const struct option options_of_map[] = {
    {"null", no_argument, NULL, '0'},
    {"arg-file", required_argument, NULL, 'a'},
    {"jobs", required_argument, NULL, 'j'},
    {"start-method", required_argument, NULL, OPTION_METHOD},
    {"timeout", required_argument, NULL, OPTION_TIMEOUT},
    {"retries", required_argument, NULL, OPTION_RETRIES},
    {"memory", required_argument, NULL, OPTION_MEMORY},
    {"ordered", no_argument, NULL, 'k'},
    {"unordered", no_argument, NULL, OPTION_UNORDERED},
    {"halt", required_argument, NULL, OPTION_HALT},
    {"joblog", required_argument, NULL, OPTION_JOBLOG},
    {"resume", no_argument, NULL, OPTION_RESUME},
    {"json", no_argument, NULL, CLI_OPTION_JSON},
    {"dry-run", no_argument, NULL, OPTION_DRY_RUN},
    {"progress", no_argument, NULL, OPTION_PROGRESS},
    {"stats", no_argument, NULL, OPTION_STATS},
    {"raw", no_argument, NULL, OPTION_RAW},
    {"shell", no_argument, NULL, OPTION_SHELL},
    {"check", no_argument, NULL, OPTION_CHECK},
    {"help", no_argument, NULL, 'h'},
    {NULL, 0, NULL, 0},
};

/* A number and what stands behind it; negative, infinite and missing ones are none. */
static int read_number(const char *text, double *ret_number, const char **ret_unit) {
  char *end;
  if (*text != '.' && (*text < '0' || *text > '9'))
    return -1;
  errno = 0;
  double number = strtod(text, &end);
  if (end == text || errno == ERANGE || !isfinite(number))
    return -1;
  *ret_number = number;
  *ret_unit = end;
  return 0;
}

static int read_jobs(const char *text, map_options *options) {
  double number;
  const char *unit;
  if (read_number(text, &number, &unit) < 0)
    return -1;
  if (strcmp(unit, "%") == 0) {
    number = floor(number * mproc_cpu_count() / 100);
    number = number < 1 ? 1 : number;
    unit = "";
  }
  if (*unit || number < 1 || number > MPROC_POOL_WORKERS_MAX || floor(number) < number)
    return -1;
  options->jobs = (int)number;
  return 0;
}

static int read_timeout(const char *text, map_options *options) {
  double number;
  const char *unit;
  if (read_number(text, &number, &unit) < 0)
    return -1;
  double factor = strcmp(unit, "m") == 0             ? 60
                  : strcmp(unit, "h") == 0           ? 3600
                  : strcmp(unit, "d") == 0           ? 86400
                  : strcmp(unit, "s") == 0 || !*unit ? 1
                                                     : 0;
  double milliseconds = ceil(number * factor * 1000);
  if (milliseconds < 1 || milliseconds > INT_MAX)
    return -1;
  options->timeout_ms = (int)milliseconds;
  return 0;
}

static int read_memory(const char *text, map_options *options) {
  static const char units[] = "KMGT";
  double number;
  const char *unit;
  if (read_number(text, &number, &unit) < 0)
    return -1;
  if (*unit) {
    const char *found = strchr(units, *unit >= 'a' ? *unit - 'a' + 'A' : *unit);
    if (!found)
      return -1;
    for (int i = 0; i <= found - units; i++)
      number *= 1024;
    unit++;
    unit += strncmp(unit, "iB", 2) == 0 ? 2 : *unit == 'B';
  }
  if (*unit || number < 1 || number > 1e18)
    return -1;
  options->memory_bytes = (uint64_t)number;
  return 0;
}

static int read_retries(const char *text, map_options *options) {
  char *end;
  if (*text < '0' || *text > '9')
    return -1;
  unsigned long number = strtoul(text, &end, 10);
  if (*end || number > RETRIES_MAX)
    return -1;
  options->retries = (int)number;
  return 0;
}

static int read_method(const char *text, map_options *options) {
  const char *const *names;
  if (mproc_get_all_start_methods(&names) < 0)
    return -1;
  for (; *names; names++) {
    if (strcmp(*names, text) == 0)
      options->method = *names;
  }
  return options->method ? 0 : -1;
}

static int bad_value(const char *option, const char *value, const char *wanted) {
  return map_error("option '--%s': '%s' is not %s; see 'mproc map --help'", option, value, wanted);
}

/* Those with a value that may be wrong: -1, or an exit status. */
static int read_value(int c, const char *value, map_options *options) {
  switch (c) {
  case 'j':
    return read_jobs(value, options) == 0
               ? -1
               : bad_value("jobs", value, "a number of workers from 1 to 1024, or N%");
  case OPTION_METHOD:
    return read_method(value, options) == 0
               ? -1
               : bad_value("start-method", value, "fork, spawn or forkserver");
  case OPTION_TIMEOUT:
    return read_timeout(value, options) == 0
               ? -1
               : bad_value("timeout", value, "a time like 10, 0.5s, 3m or 2h, up to 24 days");
  case OPTION_RETRIES:
    return read_retries(value, options) == 0
               ? -1
               : bad_value("retries", value, "a number from 0 to 1000000");
  case OPTION_MEMORY:
    return read_memory(value, options) == 0 ? -1
                                            : bad_value("memory", value, "a size like 500M or 2G");
  default:
    return map_halt_parse(value, &options->halt) == 0
               ? -1
               : bad_value("halt", value, "never, or [now,|soon,]fail=N, success=N, done=N or N%");
  }
}

/* -1, or an exit status. */
static int read_option(int c, map_options *options) {
  switch (c) {
  case '0':
    options->null_separated = true;
    break;
  case 'a':
    options->file = optarg;
    break;
  case 'k':
    options->unordered = false;
    break;
  case OPTION_UNORDERED:
    options->unordered = true;
    break;
  case OPTION_JOBLOG:
    options->joblog = optarg;
    break;
  case OPTION_RESUME:
    options->resume = true;
    break;
  case CLI_OPTION_JSON:
    options->json = true;
    break;
  case OPTION_DRY_RUN:
    options->dry_run = true;
    break;
  case OPTION_PROGRESS:
    options->progress = true;
    break;
  case OPTION_STATS:
    options->stats = true;
    break;
  case OPTION_RAW:
    options->raw = true;
    break;
  case OPTION_SHELL:
    options->shell = true;
    break;
  case OPTION_CHECK:
    options->check = true;
    break;
  default:
    return read_value(c, optarg, options);
  }
  return -1;
}

static int missing_value(int letter) {
  const struct option *option = options_of_map;
  while (option->name && option->val != letter)
    option++;
  return map_error("option '--%s' needs a value; see 'mproc map --help'", option->name);
}

/* `command` is NULL for a function. What stands behind the separator are inputs. */
static int read_operands(char **words, size_t count, bool is_command, map_options *options) {
  size_t before = 0;
  while (before < count && strcmp(words[before], separator) != 0)
    before++;
  for (size_t i = before + 1; i < count; i++) {
    if (strcmp(words[i], separator) == 0)
      return map_error("'%s' stands twice: there is one list of inputs; an input that is called so "
                       "can come from standard input",
                       separator);
  }
  if (before == 0)
    return map_error("%s; see 'mproc map --help'",
                     is_command ? "no command behind '--'"
                                : "what is to run? Write LIBRARY:FUNCTION, or -- COMMAND");
  if (before < count) {
    options->inputs = words + before + 1;
    options->input_count = count - before - 1;
  }
  if (is_command) {
    options->command = words;
    options->command_count = before;
    return -1;
  }
  options->target = words[0];
  if (before > 1 && before < count)
    return map_error("'%s' follows '%s': inputs stand behind LIBRARY:FUNCTION or behind '%s', not "
                     "at both places",
                     separator, words[before - 1], separator);
  if (before > 1) {
    options->inputs = words + 1;
    options->input_count = before - 1;
  }
  return -1;
}

static int check_together(const map_options *options, bool is_command) {
  const char *wrong = NULL;
  if (options->check && (is_command || options->inputs || options->file))
    wrong = "'--check' takes LIBRARY:FUNCTION alone";
  else if (options->inputs && options->file)
    wrong = "inputs from arguments or by '--arg-file', not both";
  else if (options->inputs && options->null_separated)
    wrong = "'--null' is for inputs of a file or standard input, and there are arguments";
  else if (options->resume && !options->joblog)
    wrong = "'--resume' needs '--joblog FILE', which says what was done";
  else if (options->shell && !is_command)
    wrong = "'--shell' is for commands";
  else if (options->raw && is_command)
    wrong = "'--raw' is for functions: the output of commands is never changed";
  else if (options->raw && options->json)
    wrong = "'--raw' or '--json', not both";
  return wrong ? map_error("%s; see 'mproc map --help'", wrong) : -1;
}

int map_read_options(int argc, char **argv, map_options *options) {
  int last = 1; /* a "--" that is no value stands alone behind the last option */
  for (int c; (c = getopt_long(argc, argv, "+:0a:j:kh", options_of_map, NULL)) != -1;) {
    last = optind;
    if (c == 'h') {
      cli_print_command_help(cli_find_command("map"));
      return CLI_OK;
    }
    if (c == ':')
      return missing_value(optopt);
    if (c == '?') {
      (void)cli_bad_option(argv, options_of_map, "map");
      return MAP_ERROR;
    }
    int status = read_option(c, options);
    if (status >= 0)
      return status;
  }
  bool is_command = optind > last && strcmp(argv[optind - 1], "--") == 0;
  int status = read_operands(argv + optind, (size_t)(argc - optind), is_command, options);
  return status >= 0 ? status : check_together(options, is_command);
}
