#define _POSIX_C_SOURCE 200809L

#include "digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH_FILES = 2048, BATCH_BYTES = 96 << 10, FIXED_WORDS = 4, HEX_DIGITS = 2 * DIGEST_BYTES };

/* The files of one run of sha256sum: as many as surely fit on a command line. */
typedef struct batch {
  const char *argv[FIXED_WORDS + BATCH_FILES + 1];
  size_t indexes[BATCH_FILES];
  size_t count;
} batch;

static size_t fill(batch *b, const file_list *list, const digest_result *wanted, size_t index) {
  static const char *const words[FIXED_WORDS] = {"sha256sum", "--binary", "--zero", "--"};
  memcpy(b->argv, words, sizeof words);
  b->count = 0;
  size_t bytes = 0;
  for (; index < list->count && b->count < BATCH_FILES; index++) {
    if (wanted[index].outcome != OUTCOME_DONE)
      continue;
    const char *path = list->files[index].path;
    bytes += strlen(path) + 1;
    if (b->count && bytes > BATCH_BYTES)
      break;
    b->argv[FIXED_WORDS + b->count] = path;
    b->indexes[b->count++] = index;
  }
  b->argv[FIXED_WORDS + b->count] = NULL;
  return index;
}

static int parse_hex(const char *text, unsigned char *digest) {
  static const char digits[] = "0123456789abcdef";
  for (size_t i = 0; i < DIGEST_BYTES; i++) {
    const char *high = text[2 * i] ? strchr(digits, text[2 * i]) : NULL;
    const char *low = high && text[2 * i + 1] ? strchr(digits, text[2 * i + 1]) : NULL;
    if (!low)
      return -1;
    digest[i] = (unsigned char)((high - digits) << 4 | (low - digits));
  }
  return 0;
}

/* A record is "DIGEST *PATH", ended by a zero byte, in the order of the arguments; files that could
 * not be read have none. */
static int parse(FILE *output, const batch *b, digest_pass *pass, const file_list *list) {
  char *record = NULL;
  size_t size = 0;
  size_t at = 0;
  int r = 0;
  while (r == 0 && getdelim(&record, &size, '\0', output) > 0) {
    size_t length = strlen(record);
    const char *path = record + HEX_DIGITS + 2;
    while (length > HEX_DIGITS + 2 && at < b->count && strcmp(path, b->argv[FIXED_WORDS + at]) != 0)
      at++;
    if (length <= HEX_DIGITS + 2 || at == b->count) {
      r = -1;
      break;
    }
    digest_result *result = &pass->results[b->indexes[at]];
    r = parse_hex(record, result->digest);
    result->outcome = OUTCOME_DONE;
    pass->file_count++;
    pass->byte_count += (uint64_t)list->files[b->indexes[at]].stamp.size_bytes;
    at++;
  }
  free(record);
  if (r < 0)
    print_error("sha256sum printed something unexpected");
  return r;
}

/* Its exit code 1 means that some files could not be read: they have no digest then. */
static int run_sha256sum(const batch *b, FILE *output) {
  mproc_process_options options = {
      .daemon = 1,
      .streams = {{.kind = MPROC_STREAM_NULL},
                  {.kind = MPROC_STREAM_HANDLE, .handle = fileno(output)}},
  };
  mproc_process *process;
  if (mproc_process_create_command(&process, b->argv, &options) < 0) {
    print_mproc_error("sha256sum");
    return -1;
  }
  mproc_status status = {0};
  int r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  if (r == 0)
    r = mproc_process_status(process, &status);
  mproc_process_close(process);
  if (r < 0) {
    print_mproc_error("sha256sum");
    return -1;
  }
  if (status.state != MPROC_STATE_EXITED || status.code > 1) {
    char text[128];
    print_error("sha256sum: %s", mproc_strstatus(&status, text, sizeof text));
    return -1;
  }
  return 0;
}

static int run_batch(const batch *b, const file_list *list, digest_pass *pass) {
  FILE *output = tmpfile();
  if (!output) {
    print_error("cannot make a temporary file: %s", strerror(errno));
    return -1;
  }
  double started_s = now_s();
  int r = run_sha256sum(b, output);
  pass->total_s += now_s() - started_s;
  if (r == 0) {
    rewind(output);
    r = parse(output, b, pass, list);
  }
  fclose(output);
  return r;
}

int run_reference(const file_list *list, const digest_result *wanted, digest_pass *ret_pass) {
  batch *b = malloc(sizeof *b);
  digest_pass pass = {.method = "sha256sum", .worker_count = 1};
  pass.results = mproc_heap_calloc(list->count, sizeof *pass.results);
  int r = 0;
  if (!b || !pass.results) {
    print_error("out of memory");
    r = -1;
  }
  for (size_t next = 0; r == 0 && next < list->count;) {
    next = fill(b, list, wanted, next);
    if (b->count)
      r = run_batch(b, list, &pass);
  }
  free(b);
  if (r < 0)
    release_pass(&pass);
  else
    *ret_pass = pass;
  return r;
}
