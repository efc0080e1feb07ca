/* --joblog and --resume: GNU parallel's table of what was run. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const char header[] =
    "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand\n";

enum { COMMAND_COLUMN = 8, SHOWN_MAX = 200 };
#define SEQ_MAX ((uint64_t)1 << 32)

/* FNV-1a; never 0. */
static uint64_t hash_of(const char *text, size_t size) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (size_t i = 0; i < size; i++)
    hash = (hash ^ (unsigned char)text[i]) * 0x100000001b3u;
  return hash ? hash : 1;
}

static int remember(map_joblog *log, uint64_t seq, uint64_t hash) {
  if (seq > log->done_count) {
    size_t count = log->done_count ? log->done_count : 1024;
    while (count < seq)
      count *= 2;
    uint64_t *done = map_alloc(count, sizeof *done);
    if (log->done_count)
      memcpy(done, log->done, log->done_count * sizeof *done);
    free(log->done);
    log->done = done;
    log->done_count = count;
  }
  log->done[seq - 1] = hash;
  log->last = seq > log->last ? seq : log->last;
  return 0;
}

/* The command of a row, or NULL: it is none. */
static const char *split_row(const char *row, size_t size, uint64_t *ret_seq) {
  char *end;
  uint64_t seq = strtoull(row, &end, 10);
  if (*end != '\t' || seq == 0 || seq > SEQ_MAX)
    return NULL;
  const char *command = row;
  for (int column = 0; column < COMMAND_COLUMN; column++) {
    command = memchr(command, '\t', (size_t)(row + size - command));
    if (!command)
      return NULL;
    command++;
  }
  *ret_seq = seq;
  return command;
}

static int read_row(map_joblog *log, const char *row, size_t size) {
  uint64_t seq;
  const char *command = split_row(row, size, &seq);
  return command ? remember(log, seq, hash_of(command, (size_t)(row + size - command))) : -1;
}

/* The last row of that number says, for a message, what was run then. */
static void find_command(const map_joblog *log, uint64_t wanted, map_buffer *text) {
  FILE *file = fopen(log->name, "re");
  char *row = NULL;
  size_t capacity = 0;
  for (ssize_t n; file && (n = getline(&row, &capacity, file)) > 0;) {
    uint64_t seq;
    size_t size = (size_t)n - (row[n - 1] == '\n');
    const char *command = split_row(row, size, &seq);
    if (!command || seq != wanted)
      continue;
    text->size = 0;
    map_append(text, command, (size_t)(row + size - command));
  }
  free(row);
  if (file)
    fclose(file);
}

/* The log as it was left: a last row without an end was not written to its end, and is cut off. */
static int read_log(map_joblog *log, bool cut) {
  FILE *file = fopen(log->name, "re");
  if (!file)
    return errno == ENOENT ? 0 : map_error("%s: %s", log->name, strerror(errno));
  char *row = NULL;
  size_t capacity = 0;
  off_t whole = 0;
  uint64_t number = 0;
  int r = 0;
  for (ssize_t n; r == 0 && (n = getline(&row, &capacity, file)) > 0; number++) {
    bool torn = row[n - 1] != '\n';
    if (torn && number > 0)
      break;
    whole += torn ? 0 : n;
    if (number == 0 ? strncmp(row, header, torn ? (size_t)n : sizeof header) != 0
                    : read_row(log, row, (size_t)n - 1) < 0)
      r = map_error("%s: line %llu is not of a joblog; name another file, or remove it", log->name,
                    (unsigned long long)number + 1);
  }
  if (r == 0 && ferror(file))
    r = map_error("cannot read %s: %s", log->name, strerror(errno));
  free(row);
  fclose(file);
  if (r == 0 && cut && truncate(log->name, whole) < 0)
    r = map_error("cannot write to %s: %s", log->name, strerror(errno));
  return r;
}

int map_joblog_load(map_joblog *log, const map_options *options) {
  *log = (map_joblog){.name = options->joblog, .fd = -1};
  return read_log(log, false);
}

int map_joblog_open(map_joblog *log, const map_options *options) {
  *log = (map_joblog){.name = options->joblog, .fd = -1};
  if (!log->name)
    return 0;
  if (options->resume && read_log(log, true) != 0)
    return MAP_ERROR;
  int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY;
  log->fd = open(log->name, flags | (options->resume ? 0 : O_TRUNC), 0666);
  if (log->fd < 0)
    return map_error("%s: %s", log->name, strerror(errno));
  if (lseek(log->fd, 0, SEEK_END) <= 0)
    map_append(&log->rows, header, sizeof header - 1);
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  log->real_offset_ns = (int64_t)now.tv_sec * 1000000000 + now.tv_nsec - map_now_ns();
  return map_joblog_flush(log);
}

static int shown(size_t size) {
  return size < SHOWN_MAX ? (int)size : SHOWN_MAX;
}

int map_joblog_has(const map_joblog *log, const map_output *output, uint64_t seq, const char *input,
                   size_t size) {
  if (seq > log->done_count || log->done[seq - 1] == 0)
    return 0;
  map_buffer line = {0};
  map_output_command(output, input, size, seq, &line);
  int r = 1;
  if (hash_of(line.data, line.size) != log->done[seq - 1]) {
    map_buffer before = {0};
    map_append(&before, "", 0);
    find_command(log, seq, &before);
    r = map_error("%s has another command for input %llu, '%.*s', than '%.*s': resume with the "
                  "command and the inputs that it was written with, or take another joblog",
                  log->name, (unsigned long long)seq, shown(before.size), before.data,
                  shown(line.size), line.data);
    map_release(&before);
  }
  map_release(&line);
  return r;
}

int map_joblog_compare(const map_joblog *log, const map_output *output, map_source *source) {
  int r = 0;
  if (log->last == 0 || !map_source_rewind(source))
    return 0;
  for (uint64_t seq = 1; seq <= log->last && r != MAP_ERROR; seq++) {
    mproc_bytes input;
    map_read read = map_source_next(source, &input);
    if (read == MAP_READ_ERROR)
      return MAP_ERROR;
    if (read != MAP_READ_INPUT)
      break;
    r = map_joblog_has(log, output, seq, input.data, input.size);
  }
  if (r == MAP_ERROR)
    return MAP_ERROR;
  return map_source_rewind(source) ? 0 : map_error("%s: cannot be read again", source->name);
}

void map_joblog_add(map_joblog *log, const map_output *output, const map_result *result) {
  if (log->fd < 0)
    return;
  const map_record *record = result->record;
  unsigned long long sent = record->command ? 0 : record->size;
  unsigned long long received = result->out_size;
  received += record->printed_size;
  int64_t started_ns = result->started_ns ? result->started_ns : map_now_ns();
  map_append_format(&log->rows, "%llu\t:\t%.3f\t%10.3f\t%llu\t%llu\t%d\t%d\t",
                    (unsigned long long)record->seq,
                    (double)(started_ns + log->real_offset_ns) / 1e9, (double)result->run_ns / 1e9,
                    sent, received, result->exit_value, result->signal);
  map_output_command(output, record->input, record->size, record->seq, &log->rows);
  map_append(&log->rows, "\n", 1);
}

/* Whole rows at once: somebody may read the log meanwhile. */
int map_joblog_flush(map_joblog *log) {
  const char *data = log->rows.data;
  size_t left = log->fd < 0 ? 0 : log->rows.size;
  while (left > 0) {
    ssize_t n = write(log->fd, data, left);
    if (n < 0 && errno == EINTR)
      continue;
    if (n < 0) {
      /* a row may be there in part, behind which no other can stand */
      int error = errno;
      close(log->fd);
      log->fd = -1;
      log->rows.size = 0;
      return map_error("cannot write to %s: %s", log->name, strerror(error));
    }
    data += n;
    left -= (size_t)n;
  }
  log->rows.size = 0;
  return 0;
}

void map_joblog_close(map_joblog *log) {
  if (log->fd >= 0)
    close(log->fd);
  log->fd = -1;
  free(log->done);
  log->done = NULL;
  map_release(&log->rows);
}
