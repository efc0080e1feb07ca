/* Processes move coins between two piles under a lock. One is killed with a coin in its hand; the
 * next to take the lock is told, and repairs the piles. Prints:
 *   the owner died: 999 coins, repaired
 *   650 and 350 coins
 */
#include <mproc/mproc.h>
#include <signal.h>
#include <stdio.h>

enum { PROCESSES = 4, COINS = 1000 };

typedef struct piles {
  mproc_lock *lock;
  int first, second; /* together COINS, whenever the lock is open */
} piles;

typedef struct job {
  piles *p;
  int count, dies; /* moves; whether it is killed in the last of them */
} job;

static int lock_piles(piles *p) {
  int r = mproc_lock_acquire(p->lock, MPROC_FOREVER);
  if (r != MPROC_OWNER_DIED)
    return r;
  printf("the owner died: %d coins, repaired\n", p->first + p->second);
  p->second = COINS - p->first;
  return mproc_lock_consistent(p->lock); /* the next taker gets 0 again */
}

static int move(void *arg, size_t size) {
  const job *j = arg;
  (void)size;
  for (int i = 1; i <= j->count && lock_piles(j->p) == 0; i++) {
    j->p->first--;
    if (j->dies && i == j->count)
      raise(SIGKILL);
    j->p->second++;
    (void)mproc_lock_release(j->p->lock);
  }
  return 0;
}

int main(int argc, char **argv) {
  mproc_process *all[PROCESSES];
  piles *p;
  if (mproc_init(&argc, &argv, NULL) < 0 || !(p = mproc_heap_calloc(1, sizeof *p)))
    return 1;
  int ok = mproc_lock_create(&p->lock) == 0;
  p->first = COINS;
  for (int i = 0; ok && i < PROCESSES; i++)
    ok = mproc_process_create(&all[i], move, &(job){p, i ? 100 : 50, !i}, sizeof(job), NULL) == 0 &&
         mproc_process_start(all[i]) == 0;
  for (int i = 0; ok && i < PROCESSES; i++)
    ok = mproc_process_join(all[i], MPROC_FOREVER) == 0;
  ok = ok && lock_piles(p) == 0 /* the dead one may have been the last */
       && mproc_lock_release(p->lock) == 0;
  printf("%d and %d coins\n", p->first, p->second);
  return !ok || mproc_lock_destroy(p->lock) < 0 || mproc_heap_free(p) < 0;
}
