/* Peers of bench_queue in shared memory that nobody claims anything in: D. Vyukov's ring, with the
 * queue's slots and way of waiting, and a single place, the least that a message can take. */
#define _GNU_SOURCE
#include "measure.h"
#include "queue_peers.h"

#include <limits.h>
#include <linux/futex.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { RING_SPINS = 64, RING_ROW = 8, RING_REST_US = 6, RING_DATA = 112, WAITED = 1, STEP = 2 };

static long futex(_Atomic uint32_t *word, int operation, uint32_t value) {
  return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
}

static void pause_cpu(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#endif
}

/* How often to look before sleeping. */
static int spins_here(void) {
  cpu_set_t cpus;
  return sched_getaffinity(0, sizeof cpus, &cpus) < 0 || CPU_COUNT(&cpus) > 1 ? RING_SPINS : 0;
}

static void *map(size_t size) {
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    queue_die("mmap");
  return memory;
}

/* ---- the ring -------------------------------------------------------------------------------- */

typedef struct ring_slot {
  _Atomic uint64_t sequence;
  uint32_t size, unused;
  unsigned char data[RING_DATA];
} ring_slot;

typedef struct ring_turn {
  _Alignas(64) _Atomic uint32_t word;
} ring_turn;

typedef struct ring {
  uint64_t mask;
  int spins;
  _Alignas(64) _Atomic uint64_t tail;
  _Alignas(64) _Atomic uint64_t head;
  ring_turn not_full, not_empty;
  _Alignas(64) ring_slot slots[];
} ring;

static size_t ring_size(uint64_t capacity) {
  return sizeof(ring) + (size_t)capacity * sizeof(ring_slot);
}

static void *open_ring(const queue_setup *setup) {
  if (setup->size > RING_DATA || (setup->capacity & (setup->capacity - 1)) != 0)
    queue_die("ring: these messages do not fit");
  ring *r = map(ring_size(setup->capacity));
  r->mask = setup->capacity - 1;
  r->spins = spins_here();
  for (uint64_t i = 0; i <= r->mask; i++)
    atomic_store(&r->slots[i].sequence, i);
  return r;
}

static bool ring_put(ring *r, const void *data, size_t size) {
  uint64_t position = atomic_load_explicit(&r->tail, memory_order_relaxed);
  for (;;) {
    ring_slot *slot = &r->slots[position & r->mask];
    int64_t ahead =
        (int64_t)(atomic_load_explicit(&slot->sequence, memory_order_acquire) - position);
    if (ahead < 0)
      return false;
    if (ahead > 0) {
      position = atomic_load_explicit(&r->tail, memory_order_relaxed);
    } else if (atomic_compare_exchange_weak_explicit(&r->tail, &position, position + 1,
                                                     memory_order_relaxed, memory_order_relaxed)) {
      slot->size = (uint32_t)size;
      memcpy(slot->data, data, size);
      atomic_store_explicit(&slot->sequence, position + 1, memory_order_release);
      return true;
    }
  }
}

static bool ring_get(ring *r, void *data, size_t *ret_size) {
  uint64_t position = atomic_load_explicit(&r->head, memory_order_relaxed);
  for (;;) {
    ring_slot *slot = &r->slots[position & r->mask];
    int64_t ahead =
        (int64_t)(atomic_load_explicit(&slot->sequence, memory_order_acquire) - (position + 1));
    if (ahead < 0)
      return false;
    if (ahead > 0) {
      position = atomic_load_explicit(&r->head, memory_order_relaxed);
    } else if (atomic_compare_exchange_weak_explicit(&r->head, &position, position + 1,
                                                     memory_order_relaxed, memory_order_relaxed)) {
      *ret_size = slot->size;
      memcpy(data, slot->data, slot->size);
      atomic_store_explicit(&slot->sequence, position + r->mask + 1, memory_order_release);
      return true;
    }
  }
}

/* As src/sync/turn.h. */
static void turn_next(ring_turn *turn) {
  atomic_thread_fence(memory_order_seq_cst);
  if ((atomic_load_explicit(&turn->word, memory_order_relaxed) & WAITED) == 0)
    return;
  uint32_t seen = atomic_fetch_add(&turn->word, STEP) + STEP;
  if (futex(&turn->word, FUTEX_WAKE, 1) < 1 &&
      atomic_compare_exchange_strong(&turn->word, &seen, (seen + STEP) & ~(uint32_t)WAITED))
    (void)futex(&turn->word, FUTEX_WAKE, INT_MAX);
}

/* After each look that found nothing; *in_a_row: how often none was needed. */
static void turn_wait(ring_turn *turn, int *spins, int *in_a_row, uint32_t *seen) {
  if (*spins > 0) {
    double end = bench_now_us() + (*in_a_row >= RING_ROW ? RING_REST_US : 0);
    --*spins;
    *in_a_row = 0;
    do
      pause_cpu();
    while (bench_now_us() < end);
  } else if (*seen == 0) { /* one more look */
    *seen = atomic_fetch_or(&turn->word, WAITED) | WAITED;
    atomic_thread_fence(memory_order_seq_cst);
  } else {
    (void)futex(&turn->word, FUTEX_WAIT, *seen);
    *seen = 0;
  }
}

static void produce_ring(void *shared, const queue_work *work) {
  ring *r = shared;
  int in_a_row = 0;
  for (uint64_t i = 0; i < work->count; i++, in_a_row++) {
    int spins = r->spins;
    uint32_t seen = 0;
    queue_write(work->memory, work->size, work->first + i);
    while (!ring_put(r, work->memory, work->size))
      turn_wait(&r->not_full, &spins, &in_a_row, &seen);
    turn_next(&r->not_empty);
  }
}

static void consume_ring(void *shared, const queue_work *work, queue_sum *sum) {
  ring *r = shared;
  int in_a_row = 0;
  for (uint64_t i = 0; i < work->count; i++, in_a_row++) {
    int spins = r->spins;
    uint32_t seen = 0;
    size_t size;
    while (!ring_get(r, work->memory, &size))
      turn_wait(&r->not_empty, &spins, &in_a_row, &seen);
    turn_next(&r->not_full);
    queue_read(work->memory, size, sum);
  }
}

static void close_ring(void *shared) {
  ring *r = shared;
  (void)munmap(r, ring_size(r->mask + 1));
}

const queue_peer queue_peer_ring = {.name = "ring without claims",
                                    .open = open_ring,
                                    .produce = produce_ring,
                                    .consume = consume_ring,
                                    .close = close_ring};

/* ---- one place: only for two that wait for each other ---------------------------------------- */

typedef struct place {
  _Alignas(64) _Atomic uint32_t written; /* messages so far */
  _Atomic uint32_t sleeps;
  int spins;
  unsigned char data[RING_DATA];
  _Alignas(64) uint32_t taken; /* the consumer's */
} place;

static void *open_place(const queue_setup *setup) {
  if (setup->size > RING_DATA)
    queue_die("one place: these messages do not fit");
  place *p = map(sizeof *p);
  p->spins = spins_here();
  return p;
}

static void produce_place(void *shared, const queue_work *work) {
  place *p = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    memcpy(p->data, work->memory, work->size);
    atomic_fetch_add(&p->written, 1);
    if (atomic_load(&p->sleeps))
      (void)futex(&p->written, FUTEX_WAKE, 1);
  }
}

static void consume_place(void *shared, const queue_work *work, queue_sum *sum) {
  place *p = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    for (int spins = p->spins; atomic_load(&p->written) == p->taken;) {
      if (spins-- > 0) {
        pause_cpu();
        continue;
      }
      atomic_store(&p->sleeps, 1);
      (void)futex(&p->written, FUTEX_WAIT, p->taken);
      atomic_store(&p->sleeps, 0); /* not by the producer: that might come after the next 1 */
    }
    p->taken++;
    memcpy(work->memory, p->data, work->size);
    queue_read(work->memory, work->size, sum);
  }
}

static void close_place(void *shared) {
  (void)munmap(shared, sizeof(place));
}

const queue_peer queue_peer_place = {.name = "spin, then futex",
                                     .open = open_place,
                                     .produce = produce_place,
                                     .consume = consume_place,
                                     .close = close_place};
