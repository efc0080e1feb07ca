/* A task that takes too long or too much memory, or is cancelled, loses its worker. Prints:
 *   slow: ...time...
 *   fat: ...memory...
 *   unwanted: ...cancel...
 *   modest: done
 */
#include <mproc/mproc.h>
#include <stdio.h>
#include <stdlib.h>
#include <threads.h>

enum { MIB = 1 << 20, PAGE = 4096, MOST_MIB = 400, LIMIT_MIB = 256, LONG = 60 };

typedef struct load {
  int mib, seconds;
} load;

static volatile char memory[MOST_MIB * MIB]; /* a worker has what it writes to */

static int carry(mproc_task *task, const void *input, size_t size) {
  const load *l = input;
  (void)task, (void)size;
  for (int i = 0; i < l->mib * MIB; i += PAGE)
    memory[i] = 1;
  (void)thrd_sleep(&(struct timespec){.tv_sec = l->seconds}, NULL);
  return 0;
}

static mproc_future *start(mproc_pool *pool, load l, int timeout_ms) {
  const mproc_submit_options options = {.timeout_ms = timeout_ms};
  mproc_future *future;
  if (mproc_pool_apply_async(pool, carry, &l, sizeof l, &future, &options) < 0)
    exit(1);
  return future;
}

static void tell(const char *name, mproc_future *future) {
  mproc_failure failure;
  char text[256] = "done";
  if (mproc_future_wait(future, MPROC_FOREVER) == MPROC_ETASK &&
      mproc_future_failure(future, 0, &failure) == 0)
    (void)mproc_strfailure(&failure, text, sizeof text);
  printf("%s: %s\n", name, text);
  mproc_future_destroy(future);
}

int main(int argc, char **argv) {
  const mproc_pool_options options = {.memory_limit = (uint64_t)LIMIT_MIB * MIB};
  mproc_pool *pool;
  if (mproc_init(&argc, &argv, NULL) < 0 || mproc_pool_create(&pool, &options) < 0)
    return 1;
  tell("slow", start(pool, (load){1, LONG}, 200));
  tell("fat", start(pool, (load){MOST_MIB, LONG}, 0));
  mproc_future *unwanted = start(pool, (load){1, LONG}, 0);
  (void)mproc_future_cancel(unwanted);
  tell("unwanted", unwanted);
  tell("modest", start(pool, (load){1, 0}, 0));
  return mproc_pool_destroy(pool) < 0;
}
