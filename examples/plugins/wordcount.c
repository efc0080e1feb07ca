/* Lines, words and bytes of the file that an input names, as wc prints them:
 *
 *   mproc map ./wordcount.so:wordcount *.txt
 */
#include <errno.h>
#include <mproc/task.h>
#include <stdio.h>
#include <string.h>

enum { BUFFER_BYTES = 1 << 16 };

static int is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

static int wordcount(mproc_task *task, const void *input, size_t size) {
  static char buffer[BUFFER_BYTES]; /* a worker does one input at a time */
  const char *path = input;
  unsigned long long lines = 0, words = 0, bytes = 0;
  int in_word = 0;
  if (strlen(path) != size)
    return mproc_task_fail(task, 1, "the name has a NUL byte");
  FILE *file = fopen(path, "rb");
  if (!file)
    return mproc_task_fail(task, 1, "%s", strerror(errno));
  for (size_t n; (n = fread(buffer, 1, sizeof buffer, file)) > 0; bytes += n) {
    for (size_t i = 0; i < n; i++) {
      lines += buffer[i] == '\n';
      words += !in_word && !is_space(buffer[i]);
      in_word = !is_space(buffer[i]);
    }
  }
  int error = ferror(file) ? errno : 0;
  fclose(file);
  if (error)
    return mproc_task_fail(task, 1, "%s", strerror(error));

  printf("%7llu %7llu %7llu ", lines, words, bytes); /* comes before the result */
  return mproc_task_result(task, path, size);
}

MPROC_TASK(wordcount, .help = "lines, words and bytes of the file that the input names");
