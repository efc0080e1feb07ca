/* The checks of the objects, for tests. */
#include "sync/check.h"

#include "base/error.h"
#include "mproc/heap.h"
#include "sync/layout.h"

#include <errno.h>

/* Another value in its place would be undefined to read. */
static bool is_bool(const bool *flag) {
  return *(const unsigned char *)flag <= 1;
}

/* Of a part: what is no object at all is damage, too. */
static int damaged_part(int r, const void *part, const char *what) {
  return r < 0 && r != -EIO ? mpx_fail(-EIO, "%p is not %s", part, what) : r;
}

static bool is_alive(mpx_thread thread) {
  return !mpx_thread_is_dead(mpx_family_header(), thread);
}

/* ---- locks ----------------------------------------------------------------------------------- */

int mpx_lock_check(const mproc_lock *lock) {
  int r = mpx_object_check_block(lock, MPX_KIND_LOCK, sizeof *lock);
  return r < 0 ? r : mpx_mutex_check(&lock->mutex, "the lock");
}

/* Who dies between taking it and counting leaves what was there. */
int mpx_rlock_check(const mproc_rlock *rlock) {
  int r = mpx_object_check_block(rlock, MPX_KIND_RLOCK, sizeof *rlock);
  if (r == 0)
    r = mpx_mutex_check(&rlock->mutex, "the RLock");
  if (r < 0)
    return r;
  mpx_thread owner = mpx_mutex_owner(&rlock->mutex);
  if (owner ? rlock->depth == 0 && is_alive(owner) : rlock->depth > 1)
    return mpx_fail(-EIO, "the RLock is %s and was acquired %u times", owner ? "held" : "open",
                    rlock->depth);
  return 0;
}

/* A reader's last release counts down before its entry goes. */
static const char *check_reader(const mpx_roster *roster, const mpx_entry *entry, void *user) {
  const mproc_rwlock *rwlock = user;
  mpx_thread thread = mpx_entry_thread(entry);
  if (!mpx_thread_existed(mpx_family_header(), thread))
    return "is of a thread that never was";
  if (mpx_entry_has_twin(roster, entry))
    return "is not its thread's only one";
  if (entry->number != 0 || atomic_load(&entry->news) != 0 || atomic_load(&entry->word) != 0)
    return "has more than a count";
  if (entry->count == 0 && is_alive(thread))
    return "counts no read";
  return mpx_mutex_owner(&rwlock->writer) == thread ? "is of the writer" : NULL;
}

int mpx_rwlock_check(const mproc_rwlock *rwlock) {
  int r = mpx_object_check_block(rwlock, MPX_KIND_RWLOCK, sizeof *rwlock);
  if (r == 0)
    r = mpx_guard_check(&rwlock->guard);
  if (r == 0)
    r = mpx_mutex_check(&rwlock->writer, "the writer's lock");
  return r < 0 ? r : mpx_roster_check(&rwlock->readers, check_reader, (void *)(uintptr_t)rwlock);
}

/* ---- semaphore ------------------------------------------------------------------------------- */

static int check_permits(const mproc_semaphore *semaphore) {
  int32_t first = semaphore->first, value = atomic_load(&semaphore->value);
  int32_t most = semaphore->bounded ? first : MPX_SEMAPHORE_MOST;
  if (!semaphore->tracked)
    return value >= 0 && value <= most
               ? 0
               : mpx_fail(-EIO, "the semaphore has %d permits of %d", value, most);
  if (!semaphore->bounded)
    return mpx_fail(-EIO, "the semaphore is tracked and not bounded");
  if (value != first)
    return mpx_fail(-EIO, "the tracked semaphore has counted %d permits of %d", value, first);
  for (int32_t i = 0; i < first; i++) {
    mpx_thread owner = atomic_load(&semaphore->owners[i]);
    if (owner && !mpx_thread_existed(mpx_family_header(), owner))
      return mpx_fail(-EIO, "permit %d is of a thread that never was: 0x%llx", i,
                      (unsigned long long)owner);
  }
  return 0;
}

int mpx_semaphore_check(const mproc_semaphore *semaphore) {
  int r = mpx_object_check(semaphore, MPX_KIND_SEMAPHORE);
  if (r < 0)
    return r;
  if (!is_bool(&semaphore->bounded) || !is_bool(&semaphore->tracked))
    return mpx_fail(-EIO, "the semaphore is of no sort");
  int32_t first = semaphore->first;
  if (first < 0 || first > (semaphore->tracked ? MPX_SEMAPHORE_MOST_TRACKED : MPX_SEMAPHORE_MOST))
    return mpx_fail(-EIO, "the semaphore began with %d permits", first);
  size_t owners = semaphore->tracked ? (size_t)first : 0;
  r = mpx_object_check_block(semaphore, MPX_KIND_SEMAPHORE,
                             sizeof *semaphore + owners * sizeof(mpx_thread));
  return r < 0 ? r : check_permits(semaphore);
}

/* ---- condition ------------------------------------------------------------------------------- */

/* A dead one's notification may be its heir's by now: two of the living cannot share one. */
static const char *compare_waiters(const mpx_entry *one, const mpx_entry *other) {
  uint32_t word = atomic_load(&one->word), others = atomic_load(&other->word);
  if (one->number == other->number)
    return "has another's number";
  if (!mpx_is_told(word) || !mpx_is_told(others) ||
      atomic_load(&one->news) != atomic_load(&other->news))
    return NULL;
  bool both_live = is_alive(mpx_entry_thread(one)) && is_alive(mpx_entry_thread(other));
  return both_live || (word == MPX_TOLD && others == MPX_TOLD) ? "has another's notification"
                                                               : NULL;
}

static const char *check_waiter(const mpx_roster *roster, const mpx_entry *entry, void *user) {
  const mproc_condition *condition = user;
  mpx_thread thread = mpx_entry_thread(entry);
  uint32_t word = atomic_load(&entry->word);
  if (!mpx_thread_existed(mpx_family_header(), thread))
    return "is of a thread that never was";
  if (mpx_entry_has_twin(roster, entry))
    return "is not its thread's only one";
  if (word > MPX_LEFT)
    return "is in no state";
  if (entry->count != 0)
    return "counts something";
  if (entry->number >= condition->next_number)
    return "has a number that was not given yet";
  if (mpx_is_told(word) && atomic_load(&entry->news) >= condition->next_number)
    return "has a notification that did not come yet";
  if (is_alive(thread) && word == MPX_LEFT)
    return "is of one who has left";
  if (is_alive(thread) && mpx_mutex_owner(mpx_condition_mutex(condition)) == thread)
    return "is of one who holds the lock";
  const char *wrong = NULL;
  for (mpx_entry *other = (mpx_entry *)(uintptr_t)entry;
       !wrong && (other = mpx_roster_next(roster, other));)
    wrong = compare_waiters(entry, other);
  return wrong;
}

static int check_lock_of(const mproc_condition *condition) {
  if (!condition->lock == !condition->rlock)
    return mpx_fail(-EIO, "the condition has %s", condition->lock ? "two locks" : "no lock");
  if (!is_bool(&condition->has_own) || (condition->has_own && condition->lock))
    return mpx_fail(-EIO, "the condition does not know whose its lock is");
  return condition->lock
             ? damaged_part(mpx_lock_check(condition->lock), condition->lock, "the lock")
             : damaged_part(mpx_rlock_check(condition->rlock), condition->rlock, "the RLock");
}

int mpx_condition_check(const mproc_condition *condition) {
  int r = mpx_object_check_block(condition, MPX_KIND_CONDITION, sizeof *condition);
  if (r == 0)
    r = check_lock_of(condition);
  if (r == 0)
    r = mpx_guard_check(&condition->guard);
  return r < 0 ? r
               : mpx_roster_check(&condition->waiters, check_waiter, (void *)(uintptr_t)condition);
}

/* ---- event ----------------------------------------------------------------------------------- */

int mpx_event_check(const mproc_event *event) {
  int r = mpx_object_check_block(event, MPX_KIND_EVENT, sizeof *event);
  if (r < 0)
    return r;
  if (atomic_load(&event->state) == MPX_EVENT_IS_SET) /* or two billion times */
    return mpx_fail(-EIO, "the event is set and never was");
  return mpx_notice_check(&event->notice);
}

/* ---- barrier --------------------------------------------------------------------------------- */

typedef struct round_check {
  const mproc_barrier *barrier;
  uint32_t phase;
  int32_t waiting;
  bool has_actor;
} round_check;

/* Numbers are right from ACTING on: each is of one who waits. */
static const char *check_number(const mpx_roster *roster, const mpx_entry *entry,
                                const round_check *check) {
  bool waits = atomic_load(&entry->word) == MPX_WAITS;
  if (waits ? check->phase != MPX_ACTING && check->phase != MPX_OPENING
            : atomic_load(&entry->word) != MPX_PASSED)
    return NULL;
  if (entry->count >= (uint32_t)check->barrier->parties)
    return "has a number that is none";
  for (const mpx_entry *other = entry; waits && (other = mpx_roster_next(roster, other));)
    if (atomic_load(&other->word) == MPX_WAITS && other->count == entry->count)
      return "has another's number";
  return NULL;
}

static const char *check_party(const mpx_roster *roster, const mpx_entry *entry, void *user) {
  round_check *check = user;
  uint32_t word = atomic_load(&entry->word);
  mpx_thread thread = mpx_entry_thread(entry);
  if (!mpx_thread_existed(mpx_family_header(), thread))
    return "is of a thread that never was";
  if (mpx_entry_has_twin(roster, entry))
    return "is not its thread's only one";
  if (word > MPX_BROKEN)
    return "has no outcome that there is";
  if (entry->number != 0 || atomic_load(&entry->news) != 0)
    return "has more than a number and an outcome";
  if (word == MPX_WAITS && check->phase == MPX_IS_BROKEN)
    return "waits at a broken barrier";
  check->waiting += word == MPX_WAITS;
  check->has_actor |= word == MPX_WAITS && thread == atomic_load(&check->barrier->actor);
  return check_number(roster, entry, check);
}

/* What the guard guards is whole unless its owner died. */
static int check_round(const mproc_barrier *barrier, const round_check *check) {
  int32_t come = barrier->come;
  bool is_open = check->phase == MPX_FILLING || check->phase == MPX_ACTING;
  if ((uint32_t)come > barrier->next)
    return mpx_fail(-EIO, "the barrier counts %d parties and gave %u numbers", come, barrier->next);
  if (is_open && come != check->waiting)
    return mpx_fail(-EIO, "the barrier counts %d parties, and %d wait", come, check->waiting);
  if (check->phase == MPX_FILLING && come == barrier->parties)
    return mpx_fail(-EIO, "all %d parties have come, and the barrier waits", come);
  if (check->phase == MPX_IS_BROKEN && come != 0)
    return mpx_fail(-EIO, "the barrier is broken and counts %d parties", come);
  return 0;
}

static int check_figures(const mproc_barrier *barrier, uint32_t phase) {
  mpx_thread actor = atomic_load(&barrier->actor);
  if (barrier->parties < 1 || barrier->come < 0 || barrier->come > barrier->parties)
    return mpx_fail(-EIO, "the barrier counts %d parties of %d", barrier->come, barrier->parties);
  if (phase > MPX_IS_BROKEN)
    return mpx_fail(-EIO, "the barrier is in no phase: %u", phase);
  if (actor ? !mpx_thread_existed(mpx_family_header(), actor) : phase == MPX_ACTING)
    return mpx_fail(-EIO, "at the barrier acts a thread that never was: 0x%llx",
                    (unsigned long long)actor);
  return 0;
}

int mpx_barrier_check(const mproc_barrier *barrier) {
  int r = mpx_object_check_block(barrier, MPX_KIND_BARRIER, sizeof *barrier);
  if (r == 0)
    r = mpx_guard_check(&barrier->guard);
  if (r < 0)
    return r;
  round_check check = {.barrier = barrier, .phase = atomic_load(&barrier->state) & MPX_PHASE};
  r = check_figures(barrier, check.phase);
  if (r == 0)
    r = mpx_roster_check(&barrier->arrived, check_party, &check);
  if (r == 0 && mpx_mutex_owner(&barrier->guard) == 0)
    r = check_round(barrier, &check);
  if (r < 0)
    return r;
  mpx_thread actor = atomic_load(&barrier->actor);
  if (check.phase == MPX_ACTING && !check.has_actor && is_alive(actor))
    return mpx_fail(-EIO, "at the barrier acts one who does not stand there: 0x%llx",
                    (unsigned long long)actor);
  return 0;
}

/* ---- value, array ---------------------------------------------------------------------------- */

int mpx_value_check(const mproc_value *value) {
  int r = mpx_object_check_block(value, MPX_KIND_VALUE, sizeof *value);
  const mpx_header *header = mpx_family_header();
  if (r < 0)
    return r;
  if (value->type > MPX_VALUE_POINTER)
    return mpx_fail(-EIO, "the value is of no type: %u", value->type);
  uint64_t bits = atomic_load(&value->bits);
  if (value->type == MPX_VALUE_POINTER && bits && bits - (uintptr_t)header >= header->size)
    return mpx_fail(-EIO, "the value points out of the heap: 0x%llx", (unsigned long long)bits);
  return 0;
}

/* The items are in lines of zeros, as objects are. */
static int check_items(const mproc_array *array) {
  size_t count = array->count, size = array->size;
  if (count == 0 || size == 0 || count > SIZE_MAX / 2 / size)
    return mpx_fail(-EIO, "the array has %zu items of %zu bytes", count, size);
  size_t bytes = count * size, lines = mpx_object_lines(bytes);
  if ((uintptr_t)array->items % 64 != 0 || mproc_heap_usable_size(array->items) < lines)
    return mpx_fail(-EIO, "the array's items are in no block of their size: %p", array->items);
  if (!mpx_is_zero((const char *)array->items + bytes, lines - bytes))
    return mpx_fail(-EIO, "somebody wrote behind the end of the array's items");
  return 0;
}

int mpx_array_check(const mproc_array *array) {
  int r = mpx_object_check_block(array, MPX_KIND_ARRAY, sizeof *array);
  if (r == 0)
    r = check_items(array);
  return r < 0 ? r : damaged_part(mpx_lock_check(array->lock), array->lock, "the lock");
}
