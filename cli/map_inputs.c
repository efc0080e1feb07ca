/* Where inputs come from: arguments, a file, standard input. Reading never waits: when a pipe has
 * nothing, results are to go on coming out. */
#define _GNU_SOURCE /* F_SETPIPE_SZ */

#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ_BYTES = 1 << 16, PIPE_BYTES = 1 << 20, INPUT_BYTES_MAX = 1 << 30 };

static int open_file(map_source *source, const map_options *options) {
  source->fd = STDIN_FILENO;
  source->name = "standard input";
  if (options->file && strcmp(options->file, "-") != 0) {
    source->name = options->file;
    source->fd = open(options->file, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (source->fd < 0)
      return map_error("%s: %s", options->file, strerror(errno));
  }
  struct stat status;
  if (fstat(source->fd, &status) < 0)
    return map_error("%s: %s", source->name, strerror(errno));
  if (S_ISDIR(status.st_mode))
    return map_error("%s: is a directory; inputs are the lines of a file", source->name);
  source->waits = !S_ISREG(status.st_mode);
  if (S_ISREG(status.st_mode)) {
    off_t at = lseek(source->fd, 0, SEEK_CUR);
    source->begin = at;
    source->total = status.st_size > at ? (uint64_t)(status.st_size - at) : 0;
  }
#ifdef F_SETPIPE_SZ
  if (S_ISFIFO(status.st_mode))
    (void)fcntl(source->fd, F_SETPIPE_SZ, PIPE_BYTES); /* fewer, larger groups */
#endif
  if (isatty(source->fd))
    fprintf(stderr, "mproc: reading inputs from the terminal, one a line; Ctrl-D ends them\n");
  return 0;
}

int map_source_open(map_source *source, const map_options *options) {
  *source = (map_source){.fd = -1, .delimiter = options->null_separated ? '\0' : '\n'};
  if (!options->inputs)
    return open_file(source, options);
  source->arguments = options->inputs;
  source->argument_count = options->input_count;
  source->total = options->input_count;
  return 0;
}

/* Returns 1 with more in the buffer, 0 at the end, else what map_source_next() returns. */
static int read_more(map_source *source, map_read *ret_outcome) {
  if (source->waits) {
    struct pollfd item = {.fd = source->fd, .events = POLLIN};
    int ready = poll(&item, 1, 0);
    if (ready == 0 || (ready < 0 && errno == EINTR)) {
      *ret_outcome = MAP_READ_WAIT;
      return -1;
    }
  }
  map_buffer *buffer = &source->buffer;
  if (source->start > 0 && source->start >= buffer->size / 2) {
    memmove(buffer->data, buffer->data + source->start, buffer->size - source->start);
    buffer->size -= source->start;
    source->searched -= source->start;
    source->start = 0;
  }
  size_t room = source->waits ? PIPE_BYTES : READ_BYTES;
  map_append(buffer, NULL, room);
  buffer->size -= room;
  ssize_t n;
  do
    n = read(source->fd, buffer->data + buffer->size, room);
  while (n < 0 && errno == EINTR && !map_interrupted());
  if (n < 0 && (errno == EINTR || errno == EAGAIN)) {
    *ret_outcome = MAP_READ_WAIT;
    return -1;
  }
  if (n < 0) {
    map_error("cannot read %s: %s", source->name, strerror(errno));
    *ret_outcome = MAP_READ_ERROR;
    return -1;
  }
  buffer->size += (size_t)n;
  return n > 0;
}

static map_read next_argument(map_source *source, mproc_bytes *ret_input) {
  if (source->next == source->argument_count)
    return MAP_READ_END;
  const char *argument = source->arguments[source->next++];
  *ret_input = (mproc_bytes){argument, strlen(argument)};
  return MAP_READ_INPUT;
}

static map_read hand_out(map_source *source, size_t size, size_t delimiter_size,
                         mproc_bytes *ret_input) {
  *ret_input = (mproc_bytes){source->buffer.data + source->start, size};
  source->start += size + delimiter_size;
  source->searched = source->start;
  source->consumed += size + delimiter_size;
  return MAP_READ_INPUT;
}

map_read map_source_next(map_source *source, mproc_bytes *ret_input) {
  if (source->arguments)
    return next_argument(source, ret_input);
  map_buffer *buffer = &source->buffer;
  for (;;) {
    size_t left = buffer->size - source->searched;
    const char *found =
        left ? memchr(buffer->data + source->searched, source->delimiter, left) : NULL;
    if (found)
      return hand_out(source, (size_t)(found - buffer->data) - source->start, 1, ret_input);
    source->searched = buffer->size;
    if (map_interrupted())
      return MAP_READ_WAIT;
    if (buffer->size - source->start > INPUT_BYTES_MAX) {
      map_error("%s: an input has more than %d bytes and no end%s", source->name, INPUT_BYTES_MAX,
                source->delimiter ? "; inputs that end with a NUL byte need -0" : "");
      return MAP_READ_ERROR;
    }
    if (!source->at_end) {
      map_read outcome = MAP_READ_END;
      int r = read_more(source, &outcome);
      if (r < 0)
        return outcome;
      source->at_end = r == 0;
      if (r > 0)
        continue;
    }
    if (source->start == buffer->size)
      return MAP_READ_END;
    return hand_out(source, buffer->size - source->start, 0,
                    ret_input); /* no delimiter behind it */
  }
}

double map_source_fraction(const map_source *source, uint64_t over) {
  if (source->arguments)
    return source->total ? (double)over / (double)source->total : 1;
  if (source->total == 0 || source->waits)
    return -1;
  return (double)source->consumed / (double)source->total;
}

bool map_source_rewind(map_source *source) {
  source->next = 0;
  if (source->arguments)
    return true;
  if (source->waits || lseek(source->fd, source->begin, SEEK_SET) < 0)
    return false;
  source->at_end = false;
  source->start = source->searched = source->buffer.size = 0;
  source->consumed = 0;
  return true;
}

void map_source_close(map_source *source) {
  if (source->fd > STDIN_FILENO)
    close(source->fd);
  map_release(&source->buffer);
}
