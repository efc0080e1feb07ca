/* Processes of a family that work on the same thing at the same time. */
#ifndef BENCH_WORKERS_H
#define BENCH_WORKERS_H

#include <stdatomic.h>

/* What a worker does, in a forked child: `user` is a copy of the caller's or shared. 0: good. */
typedef int bench_work(int number, void *user);

/* Runs workers 0 to count - 1 and waits for their ends. Ends the program when one fails, or has not
 * ended within a minute. */
void bench_run_workers(int count, bench_work *work, void *user);

/* Waits, running, until `parties` came to `met`, which is shared and was 0. */
void bench_meet(atomic_int *met, int parties);

#endif
