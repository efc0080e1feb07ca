/* Boost.Interprocess's mutex, semaphore and condition, in the shared heap, for bench_sync. The
 * loops are here, so that a call of ours does not come on top of each of theirs. */
#ifndef BENCH_SYNC_BOOST_H
#define BENCH_SYNC_BOOST_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Makes them, once. 0: the heap has no room. */
int sync_boost_make(void);

/* lock + unlock; in between *counter is incremented, unless it is NULL. */
void sync_boost_lock(int count, int64_t *counter);
/* Up and down. */
void sync_boost_semaphore(int count);

/* One of two processes, 0 and 1, that tell each other whose turn it is: as those of bench_sync. */
void sync_boost_turn_condition(int number, int turns, int *turn);
void sync_boost_turn_semaphore(int number, int turns);

#ifdef __cplusplus
}
#endif
#endif
