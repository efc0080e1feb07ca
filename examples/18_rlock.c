/* A function that has the lock calls another one that takes it: an RLock is its owner's until the
 * last release. So what four processes write in pairs stays in pairs. Prints:
 *   400 pairs, 0 of them torn
 */
#include <mproc/mproc.h>
#include <stdio.h>

enum { WRITERS = 4, EACH = 100, ALL = WRITERS * EACH };

typedef struct ledger {
  mproc_rlock *lock;
  int count, writers[2 * ALL]; /* who wrote each line */
} ledger;

typedef struct job {
  ledger *l;
  int self;
} job;

static int add(ledger *l, int self) {
  if (mproc_rlock_acquire(l->lock, MPROC_FOREVER) < 0)
    return 0;
  l->writers[l->count++] = self;
  return mproc_rlock_release(l->lock) == 0;
}

static int add_pair(ledger *l, int self) {
  if (mproc_rlock_acquire(l->lock, MPROC_FOREVER) < 0)
    return 0;
  int ok = add(l, self); /* takes what this thread has already */
  ok = add(l, self) && ok;
  return mproc_rlock_release(l->lock) == 0 && ok; /* now others may */
}

static int write_pairs(void *arg, size_t size) {
  const job *j = arg;
  int ok = 1;
  (void)size;
  for (int i = 0; ok && i < EACH; i++)
    ok = add_pair(j->l, j->self);
  return !ok;
}

int main(int argc, char **argv) {
  mproc_process *all[WRITERS];
  ledger *l;
  if (mproc_init(&argc, &argv, NULL) < 0 || !(l = mproc_heap_calloc(1, sizeof *l)))
    return 1;
  int torn = 0, ok = mproc_rlock_create(&l->lock) == 0;
  for (int i = 0; ok && i < WRITERS; i++)
    ok = mproc_process_create(&all[i], write_pairs, &(job){l, i}, sizeof(job), NULL) == 0 &&
         mproc_process_start(all[i]) == 0;
  for (int i = 0; ok && i < WRITERS; i++)
    ok = mproc_process_join(all[i], MPROC_FOREVER) == 0;
  for (int i = 0; i < l->count; i += 2)
    torn += l->writers[i] != l->writers[i + 1];
  printf("%d pairs, %d of them torn\n", l->count / 2, torn);
  return !ok || mproc_rlock_destroy(l->lock) < 0 || mproc_heap_free(l) < 0;
}
