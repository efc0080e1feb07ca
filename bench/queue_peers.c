/* Peers of bench_queue that every Linux has: pipe, POSIX mq, and a ring that no death disturbs
 * because nobody claims anything. */
#define _GNU_SOURCE
#include "queue_peers.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/futex.h>
#include <mqueue.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

/* ---- pipe: blocking write and read of one message each --------------------------------------- */

static void *open_pipe(const queue_setup *setup) {
  int *ends = malloc(2 * sizeof *ends);
  if (!ends || pipe2(ends, O_CLOEXEC) < 0)
    queue_die("pipe");
  (void)fcntl(ends[1], F_SETPIPE_SZ, (int)(setup->size * setup->capacity)); /* if it may be */
  return ends;
}

static void write_pipe(void *shared, const queue_work *work) {
  const int *ends = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    for (size_t done = 0; done < work->size;) {
      ssize_t n = write(ends[1], work->memory + done, work->size - done);
      if (n < 0)
        queue_die("write");
      done += (size_t)n;
    }
  }
}

static void read_pipe(void *shared, const queue_work *work, queue_sum *sum) {
  const int *ends = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    for (size_t done = 0; done < work->size;) {
      ssize_t n = read(ends[0], work->memory + done, work->size - done);
      if (n <= 0)
        queue_die("read");
      done += (size_t)n;
    }
    queue_read(work->memory, work->size, sum);
  }
}

static void close_pipe(void *shared) {
  int *ends = shared;
  (void)close(ends[0]);
  (void)close(ends[1]);
  free(ends);
}

const queue_peer queue_peer_pipe = {.name = "pipe",
                                    .open = open_pipe,
                                    .produce = write_pipe,
                                    .consume = read_pipe,
                                    .close = close_pipe};

/* ---- POSIX mq -------------------------------------------------------------------------------- */

/* An ordinary user may have 10 messages in one, as Linux is set up; the bench says so then. */
static void *open_mq(const queue_setup *setup) {
  static bool told;
  char name[64];
  mqd_t *mq = malloc(sizeof *mq);
  struct mq_attr attributes = {.mq_maxmsg = (long)setup->capacity, .mq_msgsize = (long)setup->size};
  const int flags = O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC;
  (void)snprintf(name, sizeof name, "/bench_queue.%ld", (long)getpid());
  if (!mq)
    queue_die("malloc");
  *mq = mq_open(name, flags, 0600, &attributes);
  if (*mq < 0) {
    attributes.mq_maxmsg = 10;
    *mq = mq_open(name, flags, 0600, &attributes);
    if (!told)
      (void)printf("(POSIX mq: 10 messages, more are not allowed here: fs.mqueue.msg_max)\n");
    told = true;
  }
  if (*mq < 0)
    queue_die("mq_open");
  (void)mq_unlink(name);
  return mq;
}

static void send_mq(void *shared, const queue_work *work) {
  const mqd_t *mq = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    if (mq_send(*mq, (const char *)work->memory, work->size, 0) < 0)
      queue_die("mq_send");
  }
}

static void receive_mq(void *shared, const queue_work *work, queue_sum *sum) {
  const mqd_t *mq = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    ssize_t n = mq_receive(*mq, (char *)work->memory, work->size, NULL);
    if (n < 0)
      queue_die("mq_receive");
    queue_read(work->memory, (size_t)n, sum);
  }
}

static void close_mq(void *shared) {
  mqd_t *mq = shared;
  (void)mq_close(*mq);
  free(mq);
}

const queue_peer queue_peer_mq = {.name = "POSIX mq",
                                  .open = open_mq,
                                  .produce = send_mq,
                                  .consume = receive_mq,
                                  .close = close_mq};

/* ---- the ring without claims: D. Vyukov's, with the queue's slots and way of waiting --------- */

enum { RING_SPINS = 64, RING_DATA = 112, WAITED = 1, STEP = 2 };

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
  bool may_spin;
  _Alignas(64) _Atomic uint64_t tail;
  _Alignas(64) _Atomic uint64_t head;
  ring_turn not_full, not_empty;
  _Alignas(64) ring_slot slots[];
} ring;

static size_t ring_size(uint64_t capacity) {
  return sizeof(ring) + (size_t)capacity * sizeof(ring_slot);
}

static void *open_ring(const queue_setup *setup) {
  cpu_set_t cpus;
  if (setup->size > RING_DATA || (setup->capacity & (setup->capacity - 1)) != 0)
    queue_die("ring: these messages do not fit");
  ring *r = mmap(NULL, ring_size(setup->capacity), PROT_READ | PROT_WRITE,
                 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (r == MAP_FAILED)
    queue_die("mmap");
  r->mask = setup->capacity - 1;
  r->may_spin = sched_getaffinity(0, sizeof cpus, &cpus) < 0 || CPU_COUNT(&cpus) > 1;
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

static long futex(_Atomic uint32_t *word, int operation, uint32_t value) {
  return syscall(SYS_futex, word, operation, value, NULL, NULL, 0);
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

/* After each look that found nothing. */
static void turn_wait(ring_turn *turn, int *spins, uint32_t *seen) {
  if (*spins > 0) {
    --*spins;
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
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
  for (uint64_t i = 0; i < work->count; i++) {
    int spins = r->may_spin ? RING_SPINS : 0;
    uint32_t seen = 0;
    queue_write(work->memory, work->size, work->first + i);
    while (!ring_put(r, work->memory, work->size))
      turn_wait(&r->not_full, &spins, &seen);
    turn_next(&r->not_empty);
  }
}

static void consume_ring(void *shared, const queue_work *work, queue_sum *sum) {
  ring *r = shared;
  for (uint64_t i = 0; i < work->count; i++) {
    int spins = r->may_spin ? RING_SPINS : 0;
    uint32_t seen = 0;
    size_t size;
    while (!ring_get(r, work->memory, &size))
      turn_wait(&r->not_empty, &spins, &seen);
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
