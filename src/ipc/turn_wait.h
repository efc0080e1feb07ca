/* Waiting for a turn, in steps: look for an instant without sleeping, then sleep, and look at what
 * the dead left whenever nothing has happened for a while.
 *
 * Who has gone on many times in a row and now waits for the first time rests before the first look:
 * if it came at once for each next thing, the two sides would fetch each cache line from each other
 * all the time, and go at half the rate. */
#ifndef MPX_IPC_TURN_WAIT_H
#define MPX_IPC_TURN_WAIT_H

#include "sync/turn.h"

/* How often one looks before one sleeps. */
enum { MPX_IPC_SPINS = 64 };

typedef struct mpx_ipc_wait {
  mpx_turn *turn;
  int64_t deadline; /* 0: a try */
  int64_t rest_ns;  /* before the first look */
  int spins;
  uint32_t seen;
  bool is_ready;        /* to sleep: `seen` is the turn before the last look */
  bool is_time_to_look; /* nobody has woken us for MPX_LOOK_NS, or nobody will: time is up */
  bool tried;
  bool has_slept;
} mpx_ipc_wait;

static inline mpx_ipc_wait mpx_ipc_wait_for(mpx_turn *turn, int timeout_ms) {
  return (mpx_ipc_wait){.turn = turn,
                        .deadline = mpx_deadline_or_try(timeout_ms),
                        .spins = mpx_os_may_spin() ? MPX_IPC_SPINS : 0};
}

static inline void mpx_ipc_rest(mpx_ipc_wait *wait) {
  for (int64_t end = mpx_os_now() + wait->rest_ns; mpx_os_now() < end;)
    mpx_os_pause();
  wait->rest_ns = 0;
}

/* What is not there by now is no matter of an instant. */
static inline bool mpx_ipc_wait_is_long(const mpx_ipc_wait *wait) {
  return wait->deadline == 0 ? wait->tried : wait->spins == 0;
}

/* After each look that found nothing. False: time is up. */
static inline bool mpx_ipc_wait_more(mpx_ipc_wait *wait) {
  wait->is_time_to_look = false;
  if (wait->deadline == 0) { /* one more look, without what the dead have */
    wait->is_time_to_look = !wait->tried;
    wait->tried = true;
    return wait->is_time_to_look;
  }
  if (wait->spins > 0) {
    if (wait->rest_ns > 0)
      mpx_ipc_rest(wait);
    wait->spins--;
    mpx_os_pause();
    return true;
  }
  if (!wait->is_ready) {
    wait->seen = mpx_turn_prepare(wait->turn);
    wait->is_ready = true;
    return true;
  }
  int64_t from = mpx_os_now();
  bool in_time = mpx_turn_sleep(wait->turn, wait->seen, wait->deadline);
  wait->is_time_to_look = !in_time || mpx_os_now() - from >= MPX_LOOK_NS;
  wait->is_ready = false;
  wait->has_slept = true;
  if (!in_time) { /* one more look, as of a try: many short waits are as good as a long one */
    wait->deadline = 0;
    wait->tried = true;
  }
  return true;
}

/* Who has slept sets the mark before he goes through all slots, which takes its time: who destroys
 * what they lie in waits for whoever sets one. */
static inline void mpx_ipc_wait_mark(const mpx_ipc_wait *wait) {
  if (wait->has_slept)
    (void)mpx_turn_prepare(wait->turn);
}

#endif
