/* Four processes count by which digit squares end. Each adds its counts to an Array, with the lock
 * that the Array brings along. Prints:
 *   digit 0: 400 squares
 *   digit 1: 800 squares
 *   digit 4: 800 squares
 *   digit 5: 400 squares
 *   digit 6: 800 squares
 *   digit 9: 800 squares
 */
#include <mproc/mproc.h>
#include <stdio.h>

enum { PROCESSES = 4, EACH = 1000, DIGITS = 10 };

typedef struct job {
  mproc_array *counts;
  int first;
} job;

static int count_squares(void *arg, size_t size) {
  const job *j = arg;
  int own[DIGITS] = {0};
  (void)size;
  for (int i = j->first; i < j->first + EACH; i++)
    own[i * i % DIGITS]++;

  mproc_lock *lock = mproc_array_lock(j->counts);
  int *counts = mproc_array_items(j->counts); /* at the same address in every process */
  if (mproc_lock_acquire(lock, MPROC_FOREVER) < 0)
    return 1;
  for (int digit = 0; digit < DIGITS; digit++)
    counts[digit] += own[digit];
  return mproc_lock_release(lock) < 0;
}

int main(int argc, char **argv) {
  mproc_process *all[PROCESSES];
  job j = {.first = 0};
  int ok = mproc_init(&argc, &argv, NULL) == 0 &&
           mproc_array_create(DIGITS, sizeof(int), &j.counts) == 0;
  for (int i = 0; ok && i < PROCESSES; i++, j.first += EACH)
    ok = mproc_process_create(&all[i], count_squares, &j, sizeof j, NULL) == 0 &&
         mproc_process_start(all[i]) == 0;
  for (int i = 0; ok && i < PROCESSES; i++)
    ok = mproc_process_join(all[i], MPROC_FOREVER) == 0;
  if (!ok)
    return 1;
  const int *counts = mproc_array_items(j.counts); /* nobody changes them any more: no lock */
  for (int digit = 0; digit < DIGITS; digit++)
    if (counts[digit] > 0)
      printf("digit %d: %d squares\n", digit, counts[digit]);
  return mproc_array_destroy(j.counts) < 0;
}
