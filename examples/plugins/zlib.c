/* Compression of the file that an input names. gzip files may stand one behind another, so this
 * makes one of many files:
 *
 *   mproc map --raw ./zlib.so:gzip *.log >all.gz
 *
 * and this says how small they would be:
 *
 *   mproc map ./zlib.so:gzip_size *.log
 */
#include <errno.h>
#include <mproc/task.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { GZIP_WINDOW = 15 + 16, MEMORY_LEVEL = 8, CHUNK_BYTES = 1 << 16 };

typedef struct bytes {
  unsigned char *data;
  size_t size, capacity;
} bytes;

static int make_room(bytes *b, size_t size) {
  if (b->capacity - b->size >= size)
    return 0;
  size_t capacity = b->capacity ? 2 * b->capacity : 4 * size;
  unsigned char *data = realloc(b->data, capacity);
  if (!data)
    return ENOMEM;
  b->data = data;
  b->capacity = capacity;
  return 0;
}

static int deflate_chunk(z_stream *stream, int flush, bytes *out) {
  do {
    if (make_room(out, CHUNK_BYTES) != 0)
      return ENOMEM;
    stream->next_out = out->data + out->size;
    stream->avail_out = CHUNK_BYTES;
    if (deflate(stream, flush) == Z_STREAM_ERROR)
      return EINVAL;
    out->size += CHUNK_BYTES - stream->avail_out;
  } while (stream->avail_out == 0);
  return 0;
}

static int deflate_file(FILE *file, z_stream *stream, bytes *out) {
  static unsigned char chunk[CHUNK_BYTES]; /* a worker does one input at a time */
  int error = 0;
  int flush = Z_NO_FLUSH;
  while (error == 0 && flush == Z_NO_FLUSH) {
    errno = 0;
    stream->avail_in = (uInt)fread(chunk, 1, sizeof chunk, file);
    stream->next_in = chunk;
    flush = stream->avail_in == sizeof chunk ? Z_NO_FLUSH : Z_FINISH;
    error = ferror(file) ? errno : deflate_chunk(stream, flush, out);
  }
  return error;
}

/* 0, or an errno value. */
static int compress_file(const char *path, bytes *out, size_t *ret_size) {
  FILE *file = fopen(path, "rb");
  if (!file)
    return errno;
  z_stream stream = {0};
  int error = ENOMEM;
  if (deflateInit2(&stream, Z_DEFAULT_COMPRESSION, Z_DEFLATED, GZIP_WINDOW, MEMORY_LEVEL,
                   Z_DEFAULT_STRATEGY) == Z_OK) {
    error = deflate_file(file, &stream, out);
    *ret_size = stream.total_in;
    deflateEnd(&stream);
  }
  fclose(file);
  return error;
}

static int gzip(mproc_task *task, const void *input, size_t size) {
  bytes out = {0};
  size_t plain_size;
  if (strlen(input) != size)
    return mproc_task_fail(task, 1, "the name has a NUL byte");
  int error = compress_file(input, &out, &plain_size);
  int code = error ? mproc_task_fail(task, 1, "%s", strerror(error))
                   : mproc_task_result(task, out.data, out.size);
  free(out.data);
  return code;
}

static int gzip_size(mproc_task *task, const void *input, size_t size) {
  bytes out = {0};
  size_t plain_size;
  if (strlen(input) != size)
    return mproc_task_fail(task, 1, "the name has a NUL byte");
  int error = compress_file(input, &out, &plain_size);
  free(out.data);
  if (error)
    return mproc_task_fail(task, 1, "%s", strerror(error));
  printf("%10zu %10zu ", plain_size, out.size); /* comes before the result */
  return mproc_task_result(task, input, size);
}

MPROC_TASK(gzip, .help = "the file that the input names, compressed as by gzip");
MPROC_TASK(gzip_size, .help = "size of the file that the input names, plain and compressed");
