/* A crew of processes under random fire: anybody is killed, and replaced at once, or stopped for a
 * while. They must get on all the time that nobody is stopped. */
#ifndef MPROC_TEST_STORM_H
#define MPROC_TEST_STORM_H

#include "processes.h"

#include <stdint.h>

/* Ten times what survivors may take. */
#define HANG_MS (UNDER_SANITIZER || test_under_valgrind() ? 20000 : 1000)

enum { CREW_MAX = 24, ROLES_MAX = 12, CALM_AFTER = 25, STOPPED_ROUNDS_MAX = 6 };

/* What each of the crew is told. */
typedef struct post {
  void *board; /* in the shared heap */
  int64_t role, index;
  uint64_t seed;
} post;

typedef struct crew_member {
  mproc_process *process;
  int64_t role;
  int stopped_for; /* rounds to come */
} crew_member;

/* A count that grows whenever somebody gets on with what is of that kind. */
typedef int64_t storm_progress(const void *board, int kind);

typedef struct storm {
  mproc_entry *entry;
  void *board;
  storm_progress *progress;
  int kinds; /* of progress */
  uint64_t random;
  unsigned mortal; /* roles that are killed */
  int count, killed[ROLES_MAX];
  crew_member crew[CREW_MAX];
} storm;

/* Xorshift: the same numbers from the same seed everywhere. */
static inline unsigned random_below(uint64_t *state, unsigned limit) {
  *state ^= *state << 13;
  *state ^= *state >> 7;
  *state ^= *state << 17;
  return (unsigned)(*state >> 20) % limit;
}

/* MPROC_TEST_SEED says which numbers come; what the system makes of them differs all the same. */
static inline uint64_t storm_seed(void) {
  const char *given = getenv("MPROC_TEST_SEED");
  uint64_t seed =
      given ? (uint64_t)strtoull(given, NULL, 10) : (uint64_t)now_ms() << 16 ^ (unsigned)getpid();
  printf("# MPROC_TEST_SEED=%llu\n", (unsigned long long)seed);
  fflush(stdout);
  return seed;
}

static inline void storm_init(storm *s, mproc_entry *entry, void *board, storm_progress *progress,
                              int kinds, unsigned mortal) {
  *s = (storm){
      .entry = entry, .board = board, .progress = progress, .kinds = kinds, .mortal = mortal};
  s->random = storm_seed() | 1;
}

static inline void storm_post(storm *s, int index, int64_t role) {
  const post order = {s->board, role, index, s->random};
  const char *method = all_methods[random_below(&s->random, METHODS)];
  s->crew[index] = (crew_member){.role = role};
  s->crew[index].process = start_by(method, s->entry, &order, sizeof order);
}

static inline void storm_add(storm *s, int64_t role, int count) {
  for (; count > 0; count--)
    storm_post(s, s->count++, role);
}

static inline void storm_signal(const storm *s, int index, int signal_number) {
  CHECK_EQ(kill((pid_t)mproc_process_pid(s->crew[index].process), signal_number), 0);
}

/* One who ended by itself failed a check of its own: let it say so. */
static inline void storm_kill(storm *s, int index) {
  int64_t role = s->crew[index].role;
  CHECK_EQ(mproc_process_kill(s->crew[index].process), 0);
  check_killed(s->crew[index].process, SIGKILL);
  s->killed[role]++;
  storm_post(s, index, role);
}

static inline void storm_let_go_on(storm *s, bool all) {
  for (int i = 0; i < s->count; i++)
    if (s->crew[i].stopped_for > 0 && (--s->crew[i].stopped_for == 0 || all)) {
      s->crew[i].stopped_for = 0;
      storm_signal(s, i, SIGCONT);
    }
}

static inline void storm_report(const storm *s) {
  for (int i = 0; i < s->count; i++)
    fprintf(stderr, "# %d: role %d, pid %lld, state %c\n", i, (int)s->crew[i].role,
            (long long)mproc_process_pid(s->crew[i].process),
            state_of(mproc_process_pid(s->crew[i].process)));
}

static inline void storm_check_progress(storm *s) {
  int64_t was[ROLES_MAX], since = now_ms();
  storm_let_go_on(s, true);
  for (int kind = 0; kind < s->kinds; kind++)
    was[kind] = s->progress(s->board, kind);
  for (int kind = 0; kind < s->kinds; kind++)
    for (; s->progress(s->board, kind) == was[kind]; sleep_ms(1))
      if (now_ms() - since > HANG_MS) {
        storm_report(s);
        if (getenv("MPROC_TEST_HANG"))
          sleep_ms(3600000); /* for a debugger */
        test_fail(__FILE__, __LINE__, "progress", "none of kind %d for %d ms", kind, HANG_MS);
      }
}

static inline void storm_blow(storm *s, int rounds) {
  for (int round = 1; round <= rounds; round++) {
    int index = (int)random_below(&s->random, (unsigned)s->count);
    bool is_mortal = (s->mortal >> s->crew[index].role & 1) != 0;
    if (is_mortal && random_below(&s->random, 2)) {
      storm_kill(s, index);
    } else if (s->crew[index].stopped_for == 0) {
      storm_signal(s, index, SIGSTOP);
      s->crew[index].stopped_for = 1 + (int)random_below(&s->random, STOPPED_ROUNDS_MAX);
    }
    sleep_ms((int)random_below(&s->random, 8));
    storm_let_go_on(s, false);
    if (round % CALM_AFTER == 0)
      storm_check_progress(s);
  }
  storm_check_progress(s);
}

/* All of a role come to their end by themselves. */
static inline void storm_end(storm *s, int64_t role) {
  for (int i = 0; i < s->count; i++)
    if (s->crew[i].role == role)
      check_exited(s->crew[i].process, 0);
}

#endif
