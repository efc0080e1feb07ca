/* mproc map: a function or a command over many inputs. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <poll.h>

/* What would be run, a line each. */
static int dry_run(const map_options *options, map_source *source, const map_template *command) {
  map_output output = {.options = options, .command = command};
  map_joblog log = {.fd = -1};
  int status = 0;
  if (options->resume && map_joblog_load(&log, options) != 0)
    return MAP_ERROR;
  status = map_joblog_compare(&log, &output, source);
  for (uint64_t seq = 1; status == 0; seq++) {
    mproc_bytes input;
    map_read read = map_source_next(source, &input);
    if (read == MAP_READ_WAIT) {
      struct pollfd item = {.fd = source->fd, .events = POLLIN};
      map_output_flush(&output);
      (void)poll(&item, 1, -1);
      seq--;
      continue;
    }
    if (read != MAP_READ_INPUT) {
      status = read == MAP_READ_END ? 0 : MAP_ERROR;
      break;
    }
    int done = map_joblog_has(&log, &output, seq, input.data, input.size);
    if (done == 0) {
      map_output_command(&output, input.data, input.size, seq, &output.out);
      map_append(&output.out, "\n", 1);
    }
    status = done == MAP_ERROR ? MAP_ERROR : 0;
    if (output.out.size > 1 << 16)
      map_output_flush(&output);
    if (output.broken)
      break;
  }
  map_output_flush(&output);
  map_joblog_close(&log);
  map_release(&output.out);
  return output.broken ? MAP_ERROR : status;
}

static int run(const map_options *options, const map_function *function,
               const map_template *command) {
  map_source source;
  if (map_source_open(&source, options) != 0)
    return MAP_ERROR;
  int status = options->dry_run ? dry_run(options, &source, command)
                                : map_run(options, &source, function, command);
  map_source_close(&source);
  return status;
}

int cli_map(int argc, char **argv) {
  map_options options = {0};
  int status = map_read_options(argc, argv, &options);
  if (status >= 0)
    return status;
  if (cli_check_init() != CLI_OK)
    return MAP_ERROR;
  if (options.check)
    return map_function_check(options.target);

  if (options.target) {
    map_function function;
    if (map_function_find(&function, options.target, MAP_ERROR) != 0)
      return MAP_ERROR;
    status = run(&options, &function, NULL);
    map_function_release(&function);
  } else {
    map_template command;
    if (map_template_init(&command, &options) != 0)
      return MAP_ERROR;
    status = run(&options, NULL, &command);
    map_template_release(&command);
  }
  return status;
}
