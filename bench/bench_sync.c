/* What do locks and signals between processes cost beside those of POSIX threads?
 *
 * In one run, interleaved: lock + unlock of a Lock beside mutexes that are robust and
 * process-shared, process-shared only, and private, all in the shared heap, which is touched; then
 * the other objects beside their likes. Nobody else wants them, except in the part with two
 * processes: two that want the same lock, whose count of the critical sections is compared, and two
 * that tell each other whose turn it is. At last both kinds beside Boost.Interprocess's objects.
 * Ratios are medians of those of each round; the target is that of docs/design/targets.md. */
#define _GNU_SOURCE
#include "measure.h"
#include "workers.h"
#ifdef BENCH_HAS_BOOST
#include "sync_boost.h"
#endif

#include <mproc/mproc.h>

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Alone: many rounds, which are over before the scheduler thinks of somebody else. */
enum { ALONE_ROUNDS = 201, DUEL_ROUNDS = 21, OPERATIONS = 10000, TURNS = 5000, CONTENDED = 100000 };
#define TARGET_T18 1.10

static FILE *json;

static void die(const char *what) {
  (void)fprintf(stderr, "bench_sync: %s: %s\n", what, mproc_error_detail());
  exit(1);
}

static inline void must(int result, const char *what) {
  if (result != 0)
    die(what);
}

/* What is measured: in the shared heap, or pointers into it. Each of another cache line. */
typedef struct things {
  _Alignas(64) pthread_mutex_t robust;
  _Alignas(64) pthread_mutex_t shared;
  _Alignas(64) pthread_mutex_t private;
  _Alignas(64) pthread_mutex_t recursive; /* and robust */
  _Alignas(64) pthread_rwlock_t rwlock;
  _Alignas(64) pthread_cond_t cond;
  _Alignas(64) sem_t sems[2];
  _Alignas(64) _Atomic int flag;
  mproc_lock *lock;
  mproc_rlock *rlock;
  mproc_rwlock *mproc_rwlock;
  mproc_semaphore *semaphores[2];
  mproc_event *event;
  mproc_condition *condition;
} things;

static things *t;

/* What two workers do. */
typedef struct duel {
  atomic_int met;
  int64_t counter; /* under the lock */
  int turn;        /* under the lock: whose turn it is */
  double begin[2], end[2];
} duel;

static duel *d;

static void init_mutex(pthread_mutex_t *mutex, bool is_shared, bool is_robust, bool is_recursive) {
  pthread_mutexattr_t a;
  must(pthread_mutexattr_init(&a), "pthread_mutexattr_init");
  if (is_shared)
    must(pthread_mutexattr_setpshared(&a, PTHREAD_PROCESS_SHARED), "setpshared");
  if (is_robust)
    must(pthread_mutexattr_setrobust(&a, PTHREAD_MUTEX_ROBUST), "setrobust");
  if (is_recursive)
    must(pthread_mutexattr_settype(&a, PTHREAD_MUTEX_RECURSIVE), "settype");
  must(pthread_mutex_init(mutex, &a), "pthread_mutex_init");
  (void)pthread_mutexattr_destroy(&a);
}

static void make_things(void) {
  pthread_rwlockattr_t rwlock;
  pthread_condattr_t cond;
  t = mproc_heap_aligned_alloc(64, sizeof *t);
  d = mproc_heap_aligned_alloc(64, (sizeof *d + 63) / 64 * 64);
  if (!t || !d)
    die("mproc_heap_aligned_alloc");
  memset(t, 0, sizeof *t);
  init_mutex(&t->robust, true, true, false);
  init_mutex(&t->shared, true, false, false);
  init_mutex(&t->private, false, false, false);
  init_mutex(&t->recursive, true, true, true);
  (void)pthread_rwlockattr_init(&rwlock);
  must(pthread_rwlockattr_setpshared(&rwlock, PTHREAD_PROCESS_SHARED), "setpshared");
  must(pthread_rwlock_init(&t->rwlock, &rwlock), "pthread_rwlock_init");
  (void)pthread_condattr_init(&cond);
  must(pthread_condattr_setpshared(&cond, PTHREAD_PROCESS_SHARED), "setpshared");
  must(pthread_cond_init(&t->cond, &cond), "pthread_cond_init");
  must(mproc_lock_create(&t->lock), "mproc_lock_create");
  must(mproc_rlock_create(&t->rlock), "mproc_rlock_create");
  must(mproc_rwlock_create(&t->mproc_rwlock), "mproc_rwlock_create");
  must(mproc_event_create(&t->event), "mproc_event_create");
  must(mproc_condition_create(NULL, &t->condition), "mproc_condition_create");
  for (int i = 0; i < 2; i++) {
    must(sem_init(&t->sems[i], 1, 0), "sem_init");
    must(mproc_semaphore_create(0, NULL, &t->semaphores[i]), "mproc_semaphore_create");
  }
}

/* ---- nobody else wants it -------------------------------------------------------------------- */

/* A function that does `what` so often, and the nanoseconds of one. */
#define TIMED(name, what)                                                                          \
  static double name(void) {                                                                       \
    double before = bench_now_us();                                                                \
    for (int i = 0; i < OPERATIONS; i++) {                                                         \
      what;                                                                                        \
    }                                                                                              \
    return (bench_now_us() - before) * 1000 / OPERATIONS;                                          \
  }

#define MUTEX(mutex)                                                                               \
  must(pthread_mutex_lock(&t->mutex), "pthread_mutex_lock");                                       \
  must(pthread_mutex_unlock(&t->mutex), "pthread_mutex_unlock")

TIMED(lock, must(mproc_lock_acquire(t->lock, MPROC_FOREVER), "mproc_lock_acquire");
      must(mproc_lock_release(t->lock), "mproc_lock_release"))
TIMED(robust, MUTEX(robust))
TIMED(shared, MUTEX(shared))
TIMED(private, MUTEX(private))
TIMED(rlock, must(mproc_rlock_acquire(t->rlock, MPROC_FOREVER), "mproc_rlock_acquire");
      must(mproc_rlock_release(t->rlock), "mproc_rlock_release"))
TIMED(recursive, MUTEX(recursive))
TIMED(semaphore, must(mproc_semaphore_release(t->semaphores[0], 1), "mproc_semaphore_release");
      must(mproc_semaphore_acquire(t->semaphores[0], MPROC_FOREVER), "mproc_semaphore_acquire"))
TIMED(sem, must(sem_post(&t->sems[0]), "sem_post"); must(sem_wait(&t->sems[0]), "sem_wait"))
TIMED(rwlock_read,
      must(mproc_rwlock_acquire_read(t->mproc_rwlock, MPROC_FOREVER), "mproc_rwlock_acquire_read");
      must(mproc_rwlock_release(t->mproc_rwlock), "mproc_rwlock_release"))
TIMED(posix_read, must(pthread_rwlock_rdlock(&t->rwlock), "pthread_rwlock_rdlock");
      must(pthread_rwlock_unlock(&t->rwlock), "pthread_rwlock_unlock"))
TIMED(rwlock_write, must(mproc_rwlock_acquire_write(t->mproc_rwlock, MPROC_FOREVER),
                         "mproc_rwlock_acquire_write");
      must(mproc_rwlock_release(t->mproc_rwlock), "mproc_rwlock_release"))
TIMED(posix_write, must(pthread_rwlock_wrlock(&t->rwlock), "pthread_rwlock_wrlock");
      must(pthread_rwlock_unlock(&t->rwlock), "pthread_rwlock_unlock"))
TIMED(event_set, must(mproc_event_set(t->event), "mproc_event_set"))
TIMED(flag_set, atomic_store(&t->flag, 1))
TIMED(event_is_set, must(mproc_event_is_set(t->event) != 1, "mproc_event_is_set"))
TIMED(flag_is_set, must(atomic_load(&t->flag) != 1, "the flag"))

/* ---- two processes --------------------------------------------------------------------------- */

static double span_us(void) {
  double begin = d->begin[0] < d->begin[1] ? d->begin[0] : d->begin[1];
  return (d->end[0] > d->end[1] ? d->end[0] : d->end[1]) - begin;
}

typedef void duelist(int number);

static int fight(int number, void *user) {
  duelist *const *fighter = user;
  bench_meet(&d->met, 2);
  d->begin[number] = bench_now_us();
  (*fighter)(number);
  d->end[number] = bench_now_us();
  return 0;
}

static void run_duel(duelist *fighter) {
  memset(d, 0, sizeof *d);
  bench_run_workers(2, fight, &fighter);
}

static double contend(duelist *fighter) {
  run_duel(fighter);
  must(d->counter != (int64_t)2 * CONTENDED, "the lock let two in at once");
  return span_us() * 1000 / (2.0 * CONTENDED);
}

static void want_lock(int number) {
  (void)number;
  for (int i = 0; i < CONTENDED; i++) {
    must(mproc_lock_acquire(t->lock, MPROC_FOREVER), "mproc_lock_acquire");
    d->counter++;
    must(mproc_lock_release(t->lock), "mproc_lock_release");
  }
}

static void want_mutex(pthread_mutex_t *mutex) {
  for (int i = 0; i < CONTENDED; i++) {
    must(pthread_mutex_lock(mutex), "pthread_mutex_lock");
    d->counter++;
    must(pthread_mutex_unlock(mutex), "pthread_mutex_unlock");
  }
}

static void want_robust(int number) {
  (void)number;
  want_mutex(&t->robust);
}

static void want_shared(int number) {
  (void)number;
  want_mutex(&t->shared);
}

static double lock_wanted(void) {
  return contend(want_lock);
}
static double robust_wanted(void) {
  return contend(want_robust);
}
static double shared_wanted(void) {
  return contend(want_shared);
}

/* Nanoseconds of a round trip: there and back. */
static double trips(duelist *fighter) {
  run_duel(fighter);
  return span_us() * 1000 / TURNS;
}

static void turn_condition(int number) {
  for (int i = 0; i < TURNS; i++) {
    must(mproc_condition_acquire(t->condition, MPROC_FOREVER), "mproc_condition_acquire");
    while (d->turn != number)
      must(mproc_condition_wait(t->condition, MPROC_FOREVER), "mproc_condition_wait");
    d->turn = 1 - number;
    if (mproc_condition_notify(t->condition, 1) < 0)
      die("mproc_condition_notify");
    must(mproc_condition_release(t->condition), "mproc_condition_release");
  }
}

static void turn_cond(int number) {
  for (int i = 0; i < TURNS; i++) {
    must(pthread_mutex_lock(&t->robust), "pthread_mutex_lock");
    while (d->turn != number)
      must(pthread_cond_wait(&t->cond, &t->robust), "pthread_cond_wait");
    d->turn = 1 - number;
    must(pthread_cond_signal(&t->cond), "pthread_cond_signal");
    must(pthread_mutex_unlock(&t->robust), "pthread_mutex_unlock");
  }
}

static void turn_semaphore(int number) {
  for (int i = 0; i < TURNS; i++) {
    if (number == 0)
      must(mproc_semaphore_release(t->semaphores[1], 1), "mproc_semaphore_release");
    must(mproc_semaphore_acquire(t->semaphores[number], MPROC_FOREVER), "mproc_semaphore_acquire");
    if (number == 1)
      must(mproc_semaphore_release(t->semaphores[0], 1), "mproc_semaphore_release");
  }
}

static void turn_sem(int number) {
  for (int i = 0; i < TURNS; i++) {
    if (number == 0)
      must(sem_post(&t->sems[1]), "sem_post");
    must(sem_wait(&t->sems[number]), "sem_wait");
    if (number == 1)
      must(sem_post(&t->sems[0]), "sem_post");
  }
}

static double condition_trip(void) {
  return trips(turn_condition);
}
static double cond_trip(void) {
  return trips(turn_cond);
}
static double semaphore_trip(void) {
  return trips(turn_semaphore);
}
static double sem_trip(void) {
  return trips(turn_sem);
}

/* ---- the table ------------------------------------------------------------------------------- */

static const struct pair {
  const char *ours, *theirs;
  double (*our_time)(void), (*their_time)(void);
  int rounds;
  double target; /* of our time, in theirs; 0: reported */
} pairs[] = {
    {"T18: lock + unlock", "robust shared mutex", lock, robust, ALONE_ROUNDS, TARGET_T18},
    {"lock + unlock", "shared mutex", lock, shared, ALONE_ROUNDS, 0},
    {"lock + unlock", "private mutex", lock, private, ALONE_ROUNDS, 0},
    {"rlock + unlock", "the same, recursive", rlock, recursive, ALONE_ROUNDS, 0},
    {"semaphore, up + down", "sem_t", semaphore, sem, ALONE_ROUNDS, 0},
    {"rwlock, read + release", "pthread_rwlock", rwlock_read, posix_read, ALONE_ROUNDS, 0},
    {"rwlock, write + release", "pthread_rwlock", rwlock_write, posix_write, ALONE_ROUNDS, 0},
    {"event, set", "atomic store", event_set, flag_set, ALONE_ROUNDS, 0},
    {"event, is_set", "atomic load", event_is_set, flag_is_set, ALONE_ROUNDS, 0},
    {"2 processes: lock + unlock", "robust shared mutex", lock_wanted, robust_wanted, DUEL_ROUNDS,
     0},
    {"2 processes: lock + unlock", "shared mutex", lock_wanted, shared_wanted, DUEL_ROUNDS, 0},
    {"condition, round trip", "pthread_cond", condition_trip, cond_trip, DUEL_ROUNDS, 0},
    {"semaphore, round trip", "sem_t", semaphore_trip, sem_trip, DUEL_ROUNDS, 0}};

static void measure(const struct pair *pair) {
  char fields[192], name[96];
  bench_pair found = bench_compare(pair->our_time, pair->their_time, pair->rounds);
  (void)printf("%-28s %9.1f   %-20s %9.1f %7.2fx", pair->ours, found.first, pair->theirs,
               found.second, found.ratio);
  if (pair->target > 0)
    (void)printf(", target %.2fx: %s", pair->target,
                 found.ratio <= pair->target ? "met" : "missed");
  (void)printf("\n");
  (void)fflush(stdout);
  (void)snprintf(name, sizeof name, "%s / %s", pair->ours, pair->theirs);
  (void)snprintf(fields, sizeof fields, "\"mproc_ns\":%.1f,\"peer_ns\":%.1f,\"ratio\":%.3f",
                 found.first, found.second, found.ratio);
  bench_json(json, "sync", name, fields);
}

#ifdef BENCH_HAS_BOOST
static double boost_lock(void) {
  double before = bench_now_us();
  sync_boost_lock(OPERATIONS, NULL);
  return (bench_now_us() - before) * 1000 / OPERATIONS;
}
static double boost_semaphore(void) {
  double before = bench_now_us();
  sync_boost_semaphore(OPERATIONS);
  return (bench_now_us() - before) * 1000 / OPERATIONS;
}

static void want_boost(int number) {
  (void)number;
  sync_boost_lock(CONTENDED, &d->counter);
}
static void turn_boost_condition(int number) {
  sync_boost_turn_condition(number, TURNS, &d->turn);
}
static void turn_boost_semaphore(int number) {
  sync_boost_turn_semaphore(number, TURNS);
}

static double boost_wanted(void) {
  return contend(want_boost);
}
static double boost_condition_trip(void) {
  return trips(turn_boost_condition);
}
static double boost_semaphore_trip(void) {
  return trips(turn_boost_semaphore);
}

static void measure_boost(void) {
  static const struct pair boost[] = {
      {"lock + unlock", "Boost mutex", lock, boost_lock, ALONE_ROUNDS, 0},
      {"semaphore, up + down", "Boost semaphore", semaphore, boost_semaphore, ALONE_ROUNDS, 0},
      {"2 processes: lock + unlock", "Boost mutex", lock_wanted, boost_wanted, DUEL_ROUNDS, 0},
      {"condition, round trip", "Boost condition", condition_trip, boost_condition_trip,
       DUEL_ROUNDS, 0},
      {"semaphore, round trip", "Boost semaphore", semaphore_trip, boost_semaphore_trip,
       DUEL_ROUNDS, 0}};
  if (!sync_boost_make())
    die("sync_boost_make");
  for (size_t i = 0; i < sizeof boost / sizeof boost[0]; i++)
    measure(&boost[i]);
}
#else
static void measure_boost(void) {
  static const char missing[] = "libboost-dev is not installed";
  char fields[64];
  (void)printf("%-28s %s\n", "Boost", missing);
  (void)snprintf(fields, sizeof fields, "\"missing\":\"%s\"", missing);
  bench_json(json, "sync", "Boost", fields);
}
#endif

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    die("mproc_init");
  json = bench_open_json(argc, argv);
  char machine[160];
  bench_machine(machine, sizeof machine);
  (void)printf("sync: %s; medians of %d (alone) and %d interleaved rounds, ns\n\n", machine,
               ALONE_ROUNDS, DUEL_ROUNDS);
  make_things();
  for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
    measure(&pairs[i]);
  measure_boost();
  return json && fclose(json) != 0;
}
