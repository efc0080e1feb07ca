/* What is printed: the output of one input after that of another, never mixed. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

enum { OUTPUT_BYTES = 1 << 16, PIECE_BYTES = 3 << 14, NAME_BYTES = 60, PAGE_BYTES = 4096 };

/* Whether `fd` takes something, or has an error to tell. Waits for that, or for a signal. */
static bool takes_some(int fd) {
  struct pollfd items[] = {{.fd = fd, .events = POLLOUT},
                           {.fd = map_interrupt_fd(), .events = POLLIN}};
  int n = poll(items, 2, map_interrupted() ? 0 : -1);
  return n > 0 && items[0].revents;
}

/* false: it takes nothing any more, or the command is to end and would have to wait. */
static bool write_all(int fd, const char *data, size_t size, int *ret_error) {
  while (size > 0) {
    if (!takes_some(fd)) {
      if (!map_interrupted())
        continue;
      *ret_error = EINTR;
      return false;
    }
    /* a page is written without waiting where poll() says so: no other signal will end a wait */
    ssize_t n = write(fd, data, map_interrupted() && size > PAGE_BYTES ? PAGE_BYTES : size);
    if (n < 0 && (errno == EINTR || errno == EAGAIN))
      continue;
    if (n < 0) {
      *ret_error = errno;
      return false;
    }
    data += n;
    size -= (size_t)n;
  }
  return true;
}

static void write_out(map_output *output, const char *data, size_t size) {
  int error = 0;
  if (output->broken || size == 0)
    return;
  if (isatty(STDOUT_FILENO))
    map_progress_clear();
  if (!write_all(STDOUT_FILENO, data, size, &error)) {
    output->broken = true;
    if (error != EINTR)
      map_error("cannot write to standard output: %s", strerror(error));
  }
}

void map_output_flush(map_output *output) {
  write_out(output, output->out.data, output->out.size);
  output->out.size = 0;
}

/* Small pieces are collected, large ones are not copied. */
static void put(map_output *output, const char *data, size_t size) {
  if (output->out.size + size > OUTPUT_BYTES)
    map_output_flush(output);
  if (size > OUTPUT_BYTES)
    write_out(output, data, size);
  else if (size)
    map_append(&output->out, data, size);
}

static void put_errors(map_output *output, const char *data, size_t size) {
  int error;
  if (size == 0)
    return;
  map_output_flush(output);
  map_progress_clear();
  (void)write_all(STDERR_FILENO, data, size, &error); /* there is nowhere to say that it failed */
}

void map_output_command(const map_output *output, const char *input, size_t size, uint64_t seq,
                        map_buffer *line) {
  if (output->command) {
    map_template_print(output->command, input, size, seq, line);
  } else {
    map_quote(line, output->options->target, strlen(output->options->target));
    map_append(line, " ", 1);
    map_quote(line, input, size);
  }
}

static void put_error(map_output *output, const map_result *result) {
  const map_record *record = result->record;
  map_buffer name = {0};
  map_quote(&name, record->input, record->size);
  bool cut = name.size > NAME_BYTES;
  map_output_flush(output);
  map_error("input %llu, %.*s%s: %s", (unsigned long long)record->seq,
            cut ? NAME_BYTES : (int)name.size, name.data, cut ? "..." : "", result->error);
  map_release(&name);
}

/* An empty result is a line too; that of an input which failed is none. */
static bool ends_line(const map_result *result) {
  const map_record *record = result->record;
  if (result->out_size)
    return result->out[result->out_size - 1] == '\n';
  if (record->printed_size)
    return record->printed[record->printed_size - 1] == '\n';
  return result->failed;
}

static void put_text(map_output *output, const map_result *result) {
  const map_record *record = result->record;
  put(output, record->printed, record->printed_size);
  put(output, result->out, result->out_size);
  if (!record->command && !output->options->raw && !ends_line(result))
    put(output, "\n", 1);
  put_errors(output, result->errors, result->errors_size);
  if (result->error)
    put_error(output, result);
}

/* A string where the bytes are UTF-8, else NAME_base64. In pieces: they may be more than memory. */
static void put_bytes(map_output *output, const char *name, const char *data, size_t size) {
  map_buffer *out = &output->out;
  bool text = map_is_utf8(data, size);
  map_append_format(out, ",\"%s%s\":\"", name, text ? "" : "_base64");
  for (size_t at = 0; at < size && !output->broken; at += PIECE_BYTES) {
    size_t piece = size - at < PIECE_BYTES ? size - at : PIECE_BYTES;
    if (text)
      map_append_json(out, data + at, piece);
    else
      map_append_base64(out, data + at, piece);
    if (out->size > OUTPUT_BYTES)
      map_output_flush(output);
  }
  map_append(out, "\"", 1);
}

static void put_json(map_output *output, const map_result *result) {
  const map_record *record = result->record;
  map_buffer *out = &output->out;
  map_append_format(out, "{\"seq\":%llu", (unsigned long long)record->seq);
  put_bytes(output, "input", record->input, record->size);
  map_append_format(out, ",\"ok\":%s,\"exit\":", result->failed ? "false" : "true");
  if (result->exit_value >= 0)
    map_append_format(out, "%d", result->exit_value);
  else
    map_append_text(out, "null");
  map_append_format(out, ",\"signal\":%d,\"attempts\":%d,\"seconds\":%.6f", result->signal,
                    result->attempts, (double)result->run_ns / 1e9);
  if (record->command) {
    put_bytes(output, "stdout", result->out, result->out_size);
    put_bytes(output, "stderr", result->errors, result->errors_size);
  } else {
    if (!result->failed)
      put_bytes(output, "result", result->out, result->out_size);
    if (record->printed_size)
      put_bytes(output, "stdout", record->printed, record->printed_size);
  }
  if (result->error)
    put_bytes(output, "error", result->error, strlen(result->error));
  map_append_text(out, "}\n");
  if (out->size > OUTPUT_BYTES)
    map_output_flush(output);
}

void map_output_result(map_output *output, const map_result *result) {
  if (output->options->json)
    put_json(output, result);
  else
    put_text(output, result);
}
