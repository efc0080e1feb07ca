/* Four workers compute in phases. An event starts them; a barrier lets none begin a phase before
 * all have ended the last one. Prints:
 *   phase 1: 3 5 7 5
 *   phase 2: 8 12 12 8
 *   phase 3: 20 24 20 16
 */
#include <mproc/mproc.h>
#include <stdio.h>

enum { WORKERS = 4, PHASES = 3 };

typedef struct board {
  mproc_event *go;
  mproc_barrier *ended;
  int phase, cells[2][WORKERS]; /* one row is read while the other is written */
} board;

typedef struct job {
  board *b;
  int self;
} job;

/* Called by the last one that comes to the barrier, before anybody goes on. */
static int end_phase(void *arg) {
  board *b = arg;
  const int *new = b->cells[++b->phase % 2];
  printf("phase %d: %d %d %d %d\n", b->phase, new[0], new[1], new[2], new[3]);
  return fflush(stdout); /* the next line may be another process's */
}

static int work(void *arg, size_t size) {
  const job *j = arg;
  int r = mproc_event_wait(j->b->go, MPROC_FOREVER);
  (void)size;
  for (int phase = 0; r >= 0 && phase < PHASES; phase++) {
    const int *old = j->b->cells[phase % 2];
    j->b->cells[(phase + 1) % 2][j->self] = old[j->self] + old[(j->self + 1) % WORKERS];
    r = mproc_barrier_wait_action(j->b->ended, end_phase, j->b, MPROC_FOREVER);
  }
  return r < 0;
}

int main(int argc, char **argv) {
  mproc_process *all[WORKERS];
  board *b;
  if (mproc_init(&argc, &argv, NULL) < 0 || !(b = mproc_heap_calloc(1, sizeof *b)))
    return 1;
  int ok = mproc_event_create(&b->go) == 0 && mproc_barrier_create(WORKERS, &b->ended) == 0;
  for (int i = 0; ok && i < WORKERS; i++) {
    b->cells[0][i] = i + 1;
    ok = mproc_process_create(&all[i], work, &(job){b, i}, sizeof(job), NULL) == 0 &&
         mproc_process_start(all[i]) == 0;
  }
  ok = ok && mproc_event_set(b->go) == 0;
  for (int i = 0; ok && i < WORKERS; i++)
    ok = mproc_process_join(all[i], MPROC_FOREVER) == 0;
  return !ok || mproc_barrier_destroy(b->ended) < 0 || mproc_event_destroy(b->go) < 0 ||
         mproc_heap_free(b) < 0;
}
