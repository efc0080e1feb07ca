/* The words of a file's lines, which are read as they are needed; results come in any order. Of the
 * LICENSE of this project it
 * Prints:
 *   21 lines, 170 words, most of them in line 20
 */
#define _POSIX_C_SOURCE 200809L

#include <mproc/mproc.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

typedef struct reader {
  FILE *file;
  char *line;
  size_t capacity;
} reader;

static int read_line(void *user, mproc_bytes *ret_line) {
  reader *r = user;
  ssize_t length = getline(&r->line, &r->capacity, r->file);
  if (length < 0)
    return 0; /* no more */
  *ret_line = (mproc_bytes){r->line, (size_t)length};
  return 1;
}

static int count_words(mproc_task *task, const void *input, size_t size) {
  const char *line = input; /* with a NUL at its end */
  int words = 0;
  (void)size;
  for (line += strspn(line, " \n"); *line; line += strspn(line, " \n"), words++)
    line += strcspn(line, " \n");
  return mproc_task_result(task, &words, sizeof words);
}

int main(int argc, char **argv) {
  const mproc_submit_options options = {.unordered = 1};
  mproc_pool *pool;
  mproc_imap *imap;
  mproc_bytes result;
  uint64_t line, longest = 0;
  int r, words, lines = 0, sum = 0, most = 0;
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  reader file = {.file = fopen(argc > 1 ? argv[1] : "LICENSE", "r")};
  if (!file.file || mproc_pool_create(&pool, NULL) < 0 ||
      mproc_pool_imap(pool, count_words, read_line, &file, &imap, &options) < 0)
    return 1;
  for (; (r = mproc_imap_next(imap, &result, &line, MPROC_FOREVER)) == 1; lines++, sum += words) {
    memcpy(&words, result.data, sizeof words);
    if (words > most || (words == most && line < longest))
      most = words, longest = line;
  }
  printf("%d lines, %d words, most of them in line %d\n", lines, sum, (int)longest + 1);
  mproc_imap_destroy(imap);
  free(file.line);
  return r < 0 || fclose(file.file) != 0 || mproc_pool_destroy(pool) < 0;
}
