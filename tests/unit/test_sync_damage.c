/* The checks that other tests of locks and signals rely on: an object that was damaged in a single
 * field does not pass. */
#include "damage.h"

/* ---- locks ----------------------------------------------------------------------------------- */

TEST(lock) {
  mproc_lock *lock;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  patient p = {lock, check_lock, 0};
  check_finds_words(&p, &lock->mutex, "the lock");
  check_finds_tail(&p, sizeof *lock);
  CHECK(p.found >= AT_LEAST);
  CHECK_EQ(mproc_lock_destroy(lock), 0);
}

TEST(rlock) {
  mproc_rlock *rlock;
  CHECK_EQ(mproc_rlock_create(&rlock), 0);
  patient p = {rlock, check_rlock, 0};
  check_finds_words(&p, &rlock->mutex, "the RLock");
  check_finds_tail(&p, sizeof *rlock);
  CHECK_FINDS(&p, rlock->depth, 2, "the RLock is open and was acquired 2 times");
  CHECK_EQ(mproc_rlock_acquire(rlock, 0), 0);
  CHECK_FINDS(&p, rlock->depth, 0, "the RLock is held and was acquired 0 times");
  CHECK_EQ(mproc_rlock_release(rlock), 0);
  CHECK_FINDS(&p, rlock->depth, UINT32_MAX, "the RLock is open");
  CHECK(p.found >= AT_LEAST);
  CHECK_EQ(mproc_rlock_destroy(rlock), 0);
}

static int read_for_long(void *arg, size_t size) {
  CHECK_EQ(mproc_rwlock_acquire_read(*(mproc_rwlock **)arg, MPROC_FOREVER), 0);
  return sleep_for_long(arg, size);
}

static bool two_read(const void *object) {
  return mproc_rwlock_readers(object) == 2;
}

TEST(rwlock) {
  mproc_rwlock *rwlock;
  CHECK_EQ(mproc_rwlock_create(&rwlock), 0);
  CHECK_EQ(mproc_rwlock_acquire_read(rwlock, 0), 0);
  mproc_process *other = stopped_in(read_for_long, rwlock, two_read);
  mpx_chunk *chunk = rwlock->readers.first;
  mpx_entry *one = &chunk->entries[0], *two = &chunk->entries[1];
  patient p = {rwlock, check_rwlock, 0};
  check_finds_guard(&p, &rwlock->guard);
  check_finds_words(&p, &rwlock->writer, "the writer's lock");
  CHECK_FINDS(&p, rwlock->writer.word, own_name(), "is of the writer");
  CHECK_FINDS(&p, rwlock->writer.word, two->thread, "is of the writer");
  check_finds_roster(&p, &rwlock->readers);
  check_finds_strangers(&p, &one->thread, "is of a thread that never was");
  CHECK_FINDS(&p, one->thread, own_name() | 1, "is of a thread that never was");
  CHECK_FINDS(&p, two->thread, own_name(), "is not its thread's only one");
  CHECK_FINDS(&p, one->count, 0, "counts no read");
  CHECK_FINDS(&p, two->count, 0, "counts no read");
  CHECK_FINDS(&p, one->news, 1, "has more than a count");
  CHECK_FINDS(&p, two->word, 1, "has more than a count");
  check_finds_tail(&p, sizeof *rwlock);
  CHECK(p.found >= AT_LEAST);
  kill_child(other);
  CHECK_EQ(mproc_rwlock_release(rwlock), 0);
  CHECK_EQ(mproc_rwlock_destroy(rwlock), 0);
}

/* ---- semaphore ------------------------------------------------------------------------------- */

TEST(semaphore) {
  const mproc_semaphore_options bounded = {.bounded = 1};
  mproc_semaphore *semaphore;
  CHECK_EQ(mproc_semaphore_create(5, &bounded, &semaphore), 0);
  CHECK_EQ(mproc_semaphore_acquire(semaphore, 0), 0);
  patient p = {semaphore, check_semaphore, 0};
  CHECK_FINDS(&p, semaphore->value, -1, "has -1 permits of 5");
  CHECK_FINDS(&p, semaphore->value, INT32_MIN, "permits of 5");
  CHECK_FINDS(&p, semaphore->value, 6, "has 6 permits of 5");
  CHECK_FINDS(&p, semaphore->first, 3, "has 4 permits of 3");
  CHECK_FINDS(&p, semaphore->first, -1, "began with -1 permits");
  CHECK_FINDS(&p, semaphore->first, MPX_SEMAPHORE_MOST + 1, "began with 1073741825 permits");
  CHECK_FINDS(&p, semaphore->bounded, 2, "is of no sort");
  CHECK_FINDS(&p, semaphore->tracked, 0x80, "is of no sort");
  CHECK_FINDS(&p, semaphore->tracked, 1, "has counted 4 permits of 5");
  check_finds_tail(&p, sizeof *semaphore);
  CHECK(p.found >= AT_LEAST);
  CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);

  CHECK_EQ(mproc_semaphore_create(5, NULL, &semaphore), 0);
  p.object = semaphore;
  CHECK_FINDS(&p, semaphore->value, MPX_SEMAPHORE_MOST + 1, "permits of 1073741824");
  CHECK_FINDS(&p, semaphore->value, -1, "has -1 permits of 1073741824");
  CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);
}

TEST(tracked_semaphore) {
  const mproc_semaphore_options tracked = {.tracked = 1};
  mproc_semaphore *semaphore;
  CHECK_EQ(mproc_semaphore_create(4, &tracked, &semaphore), 0);
  CHECK_EQ(mproc_semaphore_acquire(semaphore, 0), 0);
  patient p = {semaphore, check_semaphore, 0};
  check_finds_strangers(&p, &semaphore->owners[0], "permit 0 is of a thread that never was");
  check_finds_strangers(&p, &semaphore->owners[3], "permit 3 is of a thread that never was");
  CHECK_FINDS(&p, semaphore->owners[1], own_name() | 2, "permit 1 is of a thread that never was");
  CHECK_FINDS(&p, semaphore->value, 3, "has counted 3 permits of 4");
  CHECK_FINDS(&p, semaphore->first, 3, "has counted 4 permits of 3");
  CHECK_FINDS(&p, semaphore->first, MPX_SEMAPHORE_MOST_TRACKED, "no block of its size");
  CHECK_FINDS(&p, semaphore->first, MPX_SEMAPHORE_MOST_TRACKED + 1, "began with 4097 permits");
  CHECK_FINDS(&p, semaphore->bounded, 0, "is tracked and not bounded");
  CHECK_FINDS(&p, semaphore->tracked, 2, "is of no sort");
  check_finds_tail(&p, sizeof *semaphore + 4 * sizeof(mpx_thread));
  CHECK(p.found >= AT_LEAST);
  CHECK_EQ(mproc_semaphore_release(semaphore, 1), 0);
  CHECK_EQ(mproc_semaphore_destroy(semaphore), 0);
}

/* ---- condition ------------------------------------------------------------------------------- */

static int wait_in_condition(void *arg, size_t size) {
  mproc_condition *condition = *(mproc_condition **)arg;
  (void)size;
  CHECK_EQ(mproc_condition_acquire(condition, MPROC_FOREVER), 0);
  CHECK_EQ(mproc_condition_wait(condition, MPROC_FOREVER), 0);
  return mproc_condition_release(condition);
}

static bool has_entry(const mpx_roster *roster, int i) {
  const mpx_chunk *chunk = roster->first;
  return chunk && chunk->entries[i].thread != 0;
}

static bool is_open(const mproc_condition *condition) {
  return mproc_rlock_locked(condition->rlock) == 0;
}

static bool one_waits(const void *object) {
  const mproc_condition *condition = object;
  return has_entry(&condition->waiters, 0) && is_open(condition);
}

static bool two_wait(const void *object) {
  const mproc_condition *condition = object;
  return has_entry(&condition->waiters, 1) && is_open(condition);
}

static void check_condition_lock(patient *p, mproc_condition *condition) {
  mproc_lock *lock;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  CHECK_FINDS(p, condition->lock, address(lock), "two locks");
  CHECK_FINDS(p, condition->rlock, 0, "no lock");
  CHECK_FINDS(p, condition->rlock, address(lock), "is not the RLock");
  CHECK_FINDS(p, condition->rlock, address(&lock), "is not the RLock");
  CHECK_FINDS(p, condition->has_own, 2, "does not know whose");
  CHECK_FINDS(p, condition->rlock->depth, 7, "the RLock is open and was acquired 7 times");
  check_finds_words(p, &condition->rlock->mutex, "the RLock");
  CHECK_EQ(mproc_lock_destroy(lock), 0);
}

static void notify_one(mproc_condition *condition) {
  CHECK_EQ(mproc_condition_acquire(condition, MPROC_FOREVER), 0);
  CHECK_EQ(mproc_condition_notify(condition, 1), 1);
  CHECK_EQ(mproc_condition_release(condition), 0);
}

/* The first is told, then both are, and nobody comes out. */
TEST(condition) {
  mproc_condition *condition;
  CHECK_EQ(mproc_condition_create(NULL, &condition), 0);
  mproc_process *first = stopped_in(wait_in_condition, condition, one_waits);
  mproc_process *second = stopped_in(wait_in_condition, condition, two_wait);
  mpx_chunk *chunk = condition->waiters.first;
  mpx_entry *one = &chunk->entries[0], *two = &chunk->entries[1];
  patient p = {condition, check_condition, 0};
  notify_one(condition);
  check_finds_guard(&p, &condition->guard);
  check_finds_roster(&p, &condition->waiters);
  check_condition_lock(&p, condition);
  check_finds_strangers(&p, &two->thread, "is of a thread that never was");
  CHECK_FINDS(&p, two->thread, one->thread, "is not its thread's only one");
  CHECK_FINDS(&p, one->word, MPX_LEFT + 1, "is in no state");
  CHECK_FINDS(&p, two->word, MPX_LEFT, "is of one who has left");
  CHECK_FINDS(&p, two->count, 1, "counts something");
  CHECK_FINDS(&p, one->number, two->number, "has another's number");
  CHECK_FINDS(&p, two->number, condition->next_number, "has a number that was not given yet");
  CHECK_FINDS(&p, one->news, condition->next_number, "has a notification that did not come yet");
  CHECK_FINDS(&p, condition->next_number, 2, "has a notification that did not come yet");
  CHECK_FINDS(&p, condition->next_number, 0, "has a number that was not given yet");
  CHECK_FINDS(&p, condition->rlock->mutex.word, two->thread, "is of one who holds the lock");
  notify_one(condition);
  CHECK_FINDS(&p, two->news, one->news, "has another's notification");
  CHECK_FINDS(&p, one->news, two->news, "has another's notification");
  CHECK(p.found >= AT_LEAST);
  kill_child(first);
  check_passes(check_condition, condition);
  kill_child(second);
  check_passes(check_condition, condition);
  CHECK_EQ(mproc_condition_destroy(condition), 0);
}

TEST(condition_with_a_lock) {
  mproc_condition_options options = {.lock = NULL};
  mproc_condition *condition;
  mproc_rlock *rlock;
  CHECK_EQ(mproc_rlock_create(&rlock), 0);
  CHECK_EQ(mproc_lock_create(&options.lock), 0);
  CHECK_EQ(mproc_condition_create(&options, &condition), 0);
  patient p = {condition, check_condition, 0};
  CHECK_FINDS(&p, condition->rlock, address(rlock), "two locks");
  CHECK_FINDS(&p, condition->lock, 0, "no lock");
  CHECK_FINDS(&p, condition->lock, address(rlock), "is not the lock");
  CHECK_FINDS(&p, condition->has_own, 1, "does not know whose");
  check_finds_words(&p, &condition->lock->mutex, "the lock");
  CHECK(p.found >= AT_LEAST);
  CHECK_EQ(mproc_condition_destroy(condition), 0);
  CHECK_EQ(mproc_lock_destroy(options.lock), 0);
  CHECK_EQ(mproc_rlock_destroy(rlock), 0);
}

/* ---- event, notice --------------------------------------------------------------------------- */

/* A process's name is another kind of name. */
static void check_finds_processes(patient *p, mpx_entry *entry) {
  const mpx_thread owner = entry->thread;
  const uint64_t unused = mpx_family_header()->slots_used + 1;
  CHECK_FINDS(p, entry->thread, owner + 4, "is of nobody who ever was");
  CHECK_FINDS(p, entry->thread, owner | 2, "is of nobody who ever was");
  CHECK_FINDS(p, entry->thread, owner | (uint64_t)1 << 40, "is of nobody who ever was");
  CHECK_FINDS(p, entry->thread, (owner & (uint64_t)0xffff << 48) | 1, "is of nobody who ever was");
  CHECK_FINDS(p, entry->thread, unused << 48 | 5, "is of nobody who ever was");
  CHECK_FINDS(p, entry->thread, 1, "is of nobody who ever was");
}

TEST(event) {
  mproc_event *event;
  mpx_entry *one, *two;
  const mpx_thread self = own_name(), process = mpx_notice_process(mpx_family_self());
  CHECK_EQ(mproc_event_create(&event), 0);
  CHECK_EQ(mpx_notice_listen(&event->notice, self, self, MPX_OS_NO_BELL, &one), 0);
  CHECK_EQ(mpx_notice_listen(&event->notice, self, process, MPX_OS_NO_BELL, &two), 0);
  patient p = {event, check_event, 0};
  CHECK_FINDS(&p, event->state, MPX_EVENT_IS_SET, "is set and never was");
  check_finds_guard(&p, &event->notice.guard);
  check_finds_roster(&p, &event->notice.bells);
  check_finds_strangers(&p, &one->thread, "is of nobody who ever was");
  check_finds_processes(&p, two);
  CHECK_FINDS(&p, one->count, 1, "has more than a bell");
  CHECK_FINDS(&p, two->news, 1, "has more than a bell");
  check_finds_tail(&p, sizeof *event);
  CHECK(p.found >= AT_LEAST);
  CHECK(mpx_entry_free_of(one, self));
  CHECK(mpx_entry_free_of(two, process));
  CHECK_EQ(mproc_event_destroy(event), 0);
}

/* ---- barrier --------------------------------------------------------------------------------- */

static int wait_at_barrier(void *arg, size_t size) {
  (void)size;
  CHECK_OK(mproc_barrier_wait(*(mproc_barrier **)arg, MPROC_FOREVER));
  return 0;
}

static bool one_has_come(const void *object) {
  return mproc_barrier_n_waiting(object) == 1;
}

TEST(barrier) {
  mproc_barrier *barrier;
  CHECK_EQ(mproc_barrier_create(3, &barrier), 0);
  mproc_process *other = stopped_in(wait_at_barrier, barrier, one_has_come);
  mpx_entry *one = &((mpx_chunk *)barrier->arrived.first)->entries[0];
  patient p = {barrier, check_barrier, 0};
  check_finds_guard(&p, &barrier->guard);
  check_finds_roster(&p, &barrier->arrived);
  check_finds_strangers(&p, &one->thread, "is of a thread that never was");
  CHECK_FINDS(&p, one[1].thread, one->thread, "is not its thread's only one");
  CHECK_FINDS(&p, one[1].thread, own_name(), "counts 1 parties, and 2 wait");
  CHECK_FINDS(&p, one->word, MPX_BROKEN + 1, "has no outcome that there is");
  CHECK_FINDS(&p, one->word, MPX_PASSED, "counts 1 parties, and 0 wait");
  CHECK_FINDS(&p, one->news, 1, "has more than a number");
  for (uint32_t phase = MPX_IS_BROKEN + 1; phase <= MPX_PHASE; phase++)
    CHECK_FINDS(&p, barrier->state, phase, "is in no phase");
  CHECK_FINDS(&p, barrier->state, MPX_IS_BROKEN, "waits at a broken barrier");
  CHECK_FINDS(&p, barrier->state, MPX_ACTING, "acts a thread that never was");
  check_finds_strangers(&p, &barrier->actor, "acts a thread that never was");
  CHECK_FINDS(&p, barrier->parties, 0, "counts 1 parties of 0");
  CHECK_FINDS(&p, barrier->parties, -3, "counts 1 parties of -3");
  CHECK_FINDS(&p, barrier->parties, 1, "all 1 parties have come");
  CHECK_FINDS(&p, barrier->come, 4, "counts 4 parties of 3");
  CHECK_FINDS(&p, barrier->come, -1, "counts -1 parties of 3");
  CHECK_FINDS(&p, barrier->come, 2, "counts 2 parties and gave 1 numbers");
  CHECK_FINDS(&p, barrier->come, 0, "counts 0 parties, and 1 wait");
  CHECK_FINDS(&p, barrier->next, 0, "counts 1 parties and gave 0 numbers");
  check_finds_tail(&p, sizeof *barrier);
  CHECK(p.found >= AT_LEAST);
  kill_child(other);
  check_passes(check_barrier, barrier);
  CHECK_EQ(mproc_barrier_destroy(barrier), 0);
}

TEST(broken_barrier) {
  mproc_barrier *barrier;
  CHECK_EQ(mproc_barrier_create(3, &barrier), 0);
  CHECK_EQ(mproc_barrier_wait(barrier, 1), -ETIMEDOUT);
  CHECK_EQ(mproc_barrier_abort(barrier), 0);
  patient p = {barrier, check_barrier, 0};
  CHECK_FINDS(&p, barrier->come, 1, "counts 1 parties and gave 0 numbers");
  barrier->next = 3; /* as whoever has the guard after a dead one leaves it */
  CHECK_FINDS(&p, barrier->come, 1, "is broken and counts 1 parties");
  CHECK_EQ(mproc_barrier_destroy(barrier), 0);
}

typedef struct act {
  mproc_barrier *barrier;
  mpx_thread stranger;
} act;

static int act_with_damage(void *arg) {
  const act *a = arg;
  mproc_barrier *barrier = a->barrier;
  mpx_entry *one = &((mpx_chunk *)barrier->arrived.first)->entries[0];
  patient p = {barrier, check_barrier, 0};
  CHECK_EQ(one[1].thread, own_name());
  CHECK_FINDS(&p, one->count, 2, "has a number that is none");
  CHECK_FINDS(&p, one->count, UINT32_MAX, "has a number that is none");
  CHECK_FINDS(&p, one->count, one[1].count, "has another's number");
  CHECK_FINDS(&p, one[1].count, one->count, "has another's number");
  CHECK_FINDS(&p, one[1].word, MPX_PASSED, "counts 2 parties, and 1 wait");
  CHECK_FINDS(&p, barrier->come, 1, "counts 1 parties, and 2 wait");
  CHECK_FINDS(&p, barrier->actor, 0, "acts a thread that never was");
  CHECK_FINDS(&p, barrier->actor, a->stranger, "acts one who does not stand there");
  CHECK_FINDS(&p, barrier->state, MPX_FILLING, "all 2 parties have come");
  check_finds_strangers(&p, &barrier->actor, "acts a thread that never was");
  return 0;
}

static int hold_lock(void *arg, size_t size) {
  CHECK_EQ(mproc_lock_acquire(*(mproc_lock **)arg, 0), 0);
  return sleep_for_long(arg, size);
}

static bool is_held(const void *object) {
  return mproc_lock_locked(object) == 1;
}

TEST(barrier_in_its_action) {
  mproc_lock *lock;
  mproc_barrier *barrier;
  CHECK_EQ(mproc_lock_create(&lock), 0);
  CHECK_EQ(mproc_barrier_create(2, &barrier), 0);
  mproc_process *stranger = stopped_in(hold_lock, lock, is_held);
  mproc_process *other = stopped_in(wait_at_barrier, barrier, one_has_come);
  act a = {barrier, mpx_mutex_owner(&lock->mutex)};
  CHECK_EQ(mproc_barrier_wait_action(barrier, act_with_damage, &a, MPROC_FOREVER), 1);
  check_passes(check_barrier, barrier); /* the other has passed, and is still there */
  patient p = {barrier, check_barrier, 0};
  mpx_entry *one = &((mpx_chunk *)barrier->arrived.first)->entries[0];
  CHECK_FINDS(&p, one->count, 2, "has a number that is none");
  CHECK_FINDS(&p, one->word, MPX_WAITS, "counts 0 parties, and 1 wait");
  kill_child(other);
  kill_child(stranger);
  check_passes(check_barrier, barrier);
  CHECK_EQ(mproc_barrier_destroy(barrier), 0);
  CHECK_EQ(mproc_lock_destroy(lock), 0);
}

/* ---- value, array ---------------------------------------------------------------------------- */

TEST(value) {
  mproc_value *value;
  CHECK_EQ(mproc_value_create_pointer(NULL, &value), 0);
  const mpx_header *header = mpx_family_header();
  patient p = {value, check_value, 0};
  CHECK_FINDS(&p, value->type, MPX_VALUE_POINTER + 1, "is of no type");
  CHECK_FINDS(&p, value->type, UINT32_MAX, "is of no type");
  CHECK_FINDS(&p, value->bits, 1, "points out of the heap");
  CHECK_FINDS(&p, value->bits, address(&p), "points out of the heap");
  CHECK_FINDS(&p, value->bits, address(header) - 1, "points out of the heap");
  CHECK_FINDS(&p, value->bits, address(header) + header->size, "points out of the heap");
  CHECK_FINDS(&p, value->bits, UINT64_MAX, "points out of the heap");
  CHECK_FINDS(&p, value->bits, (uint64_t)1 << 63, "points out of the heap");
  check_finds_tail(&p, sizeof *value);
  CHECK(p.found >= AT_LEAST);
  CHECK_EQ(mproc_value_destroy(value), 0);
}

TEST(array) {
  enum { COUNT = 10, SIZE = 7, BYTES = COUNT * SIZE };
  mproc_array *array;
  CHECK_EQ(mproc_array_create(COUNT, SIZE, &array), 0);
  patient p = {array, check_array, 0};
  char *items = mproc_array_items(array);
  memset(items, 0xff, BYTES);
  CHECK_FINDS(&p, array->count, 0, "has 0 items of 7 bytes");
  CHECK_FINDS(&p, array->size, 0, "has 10 items of 0 bytes");
  CHECK_FINDS(&p, array->count, SIZE_MAX, "items of 7 bytes");
  CHECK_FINDS(&p, array->count, COUNT * 10, "in no block of their size");
  CHECK_FINDS(&p, array->count, COUNT - 1, "behind the end of the array's items");
  CHECK_FINDS(&p, array->size, SIZE * 10, "in no block of their size");
  CHECK_FINDS(&p, array->size, SIZE - 1, "behind the end of the array's items");
  CHECK_FINDS(&p, items[BYTES], 1, "behind the end of the array's items");
  CHECK_FINDS(&p, array->items, 0, "in no block of their size");
  CHECK_FINDS(&p, array->items, address(&p), "in no block of their size");
  CHECK_FINDS(&p, array->items, address(items + 64), "in no block of their size");
  CHECK_FINDS(&p, array->items, address(array->lock), "in no block of their size");
  CHECK_FINDS(&p, array->lock, 0, "is not the lock");
  CHECK_FINDS(&p, array->lock, address(array), "is not the lock");
  check_finds_words(&p, &array->lock->mutex, "the lock");
  check_finds_tail(&p, sizeof *array);
  CHECK(p.found >= AT_LEAST);
  CHECK_EQ(mproc_array_destroy(array), 0);
}
