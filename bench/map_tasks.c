/* The library whose tasks bench_map runs: `mproc map libmap_tasks.so:NAME`. */
#include "map_work.h"

#include <mproc/mproc.h>

static int run(mproc_task *task, const char *path, map_work *work) {
  char line[MAP_LINE];
  int length = work(path, line, sizeof line);
  if (length < 0)
    return mproc_task_fail(task, 1, "%s: cannot be read", path);
  return mproc_task_result(task, line, (size_t)length);
}

static int nothing(mproc_task *task, const void *input, size_t size) {
  (void)task, (void)input, (void)size;
  return 0;
}
MPROC_TASK(nothing, .help = "does nothing with a line");

static int pack(mproc_task *task, const void *input, size_t size) {
  (void)size;
  return run(task, input, map_pack);
}
MPROC_TASK(pack, .help = "compresses the file of this name: its bytes before and after");

static int digest(mproc_task *task, const void *input, size_t size) {
  (void)size;
  return run(task, input, map_digest);
}
MPROC_TASK(digest, .help = "SHA-256 of the file of this name");
