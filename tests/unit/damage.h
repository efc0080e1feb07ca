/* Damage to one field of an object at a time, which its check must find. */
#ifndef MPROC_TEST_DAMAGE_H
#define MPROC_TEST_DAMAGE_H

#include "harness.h"
#include "members.h"
#include "processes.h"

#include "sync/check.h"
#include "sync/layout.h"

#include <stdint.h>

typedef int object_check(const void *object);

#define CHECK_OF(name)                                                                             \
  static inline int check_##name(const void *object) {                                             \
    return mpx_##name##_check(object);                                                             \
  }

CHECK_OF(lock)
CHECK_OF(rlock)
CHECK_OF(rwlock)
CHECK_OF(semaphore)
CHECK_OF(condition)
CHECK_OF(event)
CHECK_OF(barrier)
CHECK_OF(value)
CHECK_OF(array)

static inline void check_passes(object_check *check, const void *object) {
  check_is_whole(check(object));
}

/* As long as those who wait look a few times: one that looks right now has the object in hand. */
static inline void check_keeps_passing(object_check *check, const void *object) {
  for (int64_t end = now_ms() + 120; now_ms() < end; sleep_ms(1))
    AWAIT(check(object) == 0);
}

/* An object under a test, and how much damage to it was found. */
typedef struct patient {
  void *object;
  object_check *check;
  int found;
} patient;

enum { AT_LEAST = 10 };

/* `width` bytes at `at` become `value`, and the check says so; then it is whole again. */
static inline void check_finds(patient *p, void *at, size_t width, uint64_t value,
                               const char *said) {
  unsigned char before[8];
  check_passes(p->check, p->object);
  memcpy(before, at, width);
  switch (width) {
  case 1:
    *(uint8_t *)at = (uint8_t)value;
    break;
  case 4:
    *(uint32_t *)at = (uint32_t)value;
    break;
  default:
    CHECK_EQ(width, 8);
    *(uint64_t *)at = value;
  }
  int r = p->check(p->object);
  if (r != -EIO || !strstr(mproc_error_detail(), said))
    fprintf(stderr, "# 0x%llx instead of: %s\n", (unsigned long long)value, said);
  CHECK_EQ(r, -EIO);
  CHECK_CONTAINS(mproc_error_detail(), said);
  memcpy(at, before, width);
  check_passes(p->check, p->object);
  p->found++;
}

#define CHECK_FINDS(p, field, value, said)                                                         \
  check_finds(p, (void *)(uintptr_t) & (field), sizeof(field), (uint64_t)(value), said)

static inline uint64_t address(const void *pointer) {
  return (uintptr_t)pointer;
}

static inline mpx_thread own_name(void) {
  mpx_thread self;
  CHECK_EQ(mpx_family_thread(&self), 0);
  return self;
}

/* Where the name of a thread is: nobody was ever called so. */
static inline void check_finds_strangers(patient *p, _Atomic mpx_thread *at, const char *said) {
  mpx_header *header = mpx_family_header();
  const mpx_thread self = own_name();
  const mpx_thread names[] = {
      8,                                                            /* no cell */
      (uint64_t)0xffff << 48 | 4,                                   /* past the last one */
      (uint64_t)(header->slots_used + 1) << 48 | 4,                 /* not used yet */
      (uint64_t)(MPX_SLOT_COUNT + header->pool_used + 1) << 48 | 4, /* the same of the pool */
      self & (uint64_t)0xffff << 48,                                /* before its first owner */
      self + 4,                                                     /* its next owner */
      self | ((uint64_t)1 << 47),
  };
  for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
    check_finds(p, (void *)(uintptr_t)at, sizeof *at, names[i], said);
}

/* Of an open one. */
static inline void check_finds_words(patient *p, mpx_mutex *mutex, const char *what) {
  check_finds_strangers(p, &mutex->word, "is held by a thread that never was");
  CHECK_FINDS(p, mutex->word, ~(uint64_t)0, what);
  CHECK_FINDS(p, mutex->word, MPX_MUTEX_WAITED, "is open and says that somebody waits");
  CHECK_FINDS(p, mutex->word, MPX_MUTEX_WAITED | MPX_MUTEX_DIED, what);
}

static inline void check_finds_guard(patient *p, mpx_mutex *guard) {
  check_finds_words(p, guard, "the guard");
  CHECK_FINDS(p, guard->word, MPX_MUTEX_DIED, "nobody has repaired");
  CHECK_FINDS(p, guard->word, own_name(), "the guard is held by a thread that lives");
}

/* Of one chunk in which the first entry counts. */
static inline void check_finds_roster(patient *p, mpx_roster *roster) {
  static const char outside[MPX_CHUNK_SIZE];
  mpx_chunk *chunk = roster->first;
  char *end = (char *)chunk + MPX_CHUNK_SIZE;
  CHECK_FINDS(p, roster->first, address(outside), "is no chunk");
  CHECK_FINDS(p, roster->first, address(p->object), "is no chunk");
  CHECK_FINDS(p, roster->first, address(&chunk->entries[2]), "is no chunk");
  CHECK_FINDS(p, roster->roomy, address(p->object), "does not have");
  CHECK_FINDS(p, chunk->next, address(chunk), "has no end");
  CHECK_FINDS(p, chunk->next, address(outside), "is no chunk");
  CHECK_FINDS(p, end[-1], 1, "behind the end of the roster's chunk");
  CHECK_FINDS(p, chunk->entries[0].number, ~(uint64_t)0, "the entry of");
}

/* Behind the end of the object. */
static inline void check_finds_tail(patient *p, size_t size) {
  size_t lines = mpx_object_lines(size);
  CHECK(lines > size);
  CHECK_FINDS(p, ((uint8_t *)p->object)[size], 1, "behind the end");
  CHECK_FINDS(p, ((uint8_t *)p->object)[lines - 1], 0x80, "behind the end");
}

/* ---- others ---------------------------------------------------------------------------------- */

/* A process that does `wait` with the object, and is stopped in it when `is_there` says so. */
static inline mproc_process *stopped_in(mproc_entry *wait, void *object,
                                        bool (*is_there)(const void *object)) {
  mproc_process *process = start_by("fork", wait, &object, sizeof object);
  AWAIT(is_there(object) && state_of(mproc_process_pid(process)) == 'S');
  CHECK_EQ(kill((pid_t)mproc_process_pid(process), SIGSTOP), 0);
  CHECK(stopped_within(mproc_process_pid(process), JOIN_MS));
  return process;
}

#endif
