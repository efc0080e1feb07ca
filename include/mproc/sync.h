/* Sync: locks and signals between the processes of a family that outlive any of them.
 *
 * What it is  Lock, RLock, RWLock, Semaphore, Condition, Event and Barrier of Python's module, in
 *             the shared heap: a pointer to one is valid in every process of the family, so it may
 *             be passed in an argument block or stored in a structure of the heap.
 * Death       An owner that ends (exit, kill, exec, end of the thread) while it holds something
 *             disturbs nobody for longer than 100 ms: the next taker gets it, and is told by the
 *             positive MPROC_OWNER_DIED. A dead waiter leaves nothing behind. A stopped owner
 *             (SIGSTOP) is alive: others wait, and mproc_..._owner says so.
 * Stopped     A thread that is stopped in the few instructions in which it comes into a RWLock,
 *             Condition or Barrier, or tells others, keeps those who come out until it goes on or
 *             dies. They get -ETIMEDOUT (-EAGAIN for a try) by their own timeout, at the earliest
 *             after 100 ms; from functions without a timeout after a second, and then nothing was
 *             done. Whoever is inside waits and goes as ever.
 * Ownership   An object belongs to the family until it is destroyed; the end of its creator changes
 *             nothing. Destroying one that somebody holds is -EBUSY; of a Semaphore, Condition,
 *             Event, Barrier or Value also one that somebody waits for. Not always seen, and told
 *             MPROC_ECLOSED later: one who waits and is stopped or gets no CPU for 2 ms, and one
 *             who waits for a barrier's last action to be over. Who waits still for a Lock, RLock
 *             or RWLock, an Array's too, that is open again and is destroyed gets MPROC_ECLOSED.
 *             Whoever lets others go, by a release, set or notify, is inside until that returns:
 *             one who was let go may destroy the object before, but not 64 others as well. Whoever
 *             uses one that was destroyed gets MPROC_ECLOSED, until 64 more blocks of objects were
 *             given back (one of each, one more for each 15 threads that were inside at once, one
 *             for a lock of its own): then its memory may be something else's.
 * Threads     any thread of any member. The owner of a lock is a thread, not a process. A function
 *             marked "signal-safe" may be called in a signal handler, by a thread that has used the
 *             library before.
 * After fork  nothing is inherited: a child holds none of its parent's locks. A child made by a
 *             fork() that mproc does not know gets MPROC_EFOREIGN.
 * Timeouts    in milliseconds of the monotonic clock; MPROC_FOREVER waits without end, 0 tries.
 * Errors      of every function: MPROC_EPOINTER (not in the heap of this family), MPROC_ECLOSED,
 *             -EINVAL (another kind of object; a negative timeout), MPROC_EFOREIGN. Of every
 *             create: MPROC_EHEAPFULL, -ENOMEM. Of every wait: -ETIMEDOUT, or -EAGAIN for a try.
 *             In a thread's first call also -EAGAIN (24,576 others of the family use mproc).
 *             Negative always means: not held (but for a Condition's wait, see there).
 * Cost        a lock that nobody else wants costs two atomic operations, no system call. An object
 *             takes 64 bytes of the heap; a Barrier, Condition or RWLock 512 more for each 15
 *             threads inside at once. */
#ifndef MPROC_SYNC_H
#define MPROC_SYNC_H

#include "version.h"
#include "wait.h"

#include <stdint.h>

/* Positive: it is held, and its last owner ended while it held it. What it guards may be half
 * changed. Every taker is told so until an owner calls mproc_..._consistent. */
#define MPROC_OWNER_DIED 1

typedef struct mproc_lock mproc_lock;
typedef struct mproc_rlock mproc_rlock;
typedef struct mproc_rwlock mproc_rwlock;
typedef struct mproc_semaphore mproc_semaphore;
typedef struct mproc_condition mproc_condition;
typedef struct mproc_event mproc_event;
typedef struct mproc_barrier mproc_barrier;

typedef enum mproc_owner_state {
  MPROC_OWNER_NONE = 0,    /* nobody holds it */
  MPROC_OWNER_RUNNING = 1, /* alive */
  /* alive, and stopped by a signal or a debugger; told in its own pid namespace, and in that of the
   * process that started it */
  MPROC_OWNER_STOPPED = 2,
  MPROC_OWNER_DEAD = 3 /* ended; the next taker will get it */
} mproc_owner_state;

/* Who holds something, for diagnosis: it may be over when you read it. */
typedef struct mproc_owner {
  mproc_owner_state state;
  int is_main_thread; /* 1: the thread that runs the entry, or was the first to use mproc */
  int64_t pid;        /* in its own pid namespace: in another it is a stranger's; 0: unknown */
  char process_name[32];
  uint64_t reserved[8]; /* zero: room for fields to come */
} mproc_owner;

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Lock: one thread at a time -------------------------------------------------------------- */

/* Makes an open lock. */
MPROC_API MPROC_NODISCARD int mproc_lock_create(mproc_lock **ret_lock);

/* Takes it: 0 or MPROC_OWNER_DIED. A thread that holds it already waits for somebody else to
 * release it, as in Python. */
MPROC_API MPROC_NODISCARD int mproc_lock_acquire(mproc_lock *lock, int timeout_ms);

/* Opens it. Any thread of any process may: a lock can be a signal, as in Python. What an owner that
 * died left stays to be told until mproc_lock_consistent. -EPERM: nobody holds it. */
MPROC_API int mproc_lock_release(mproc_lock *lock);

/* The owner has repaired what the lock guards: the next taker gets 0 again. -EPERM: the calling
 * thread does not hold it; -EINVAL: there was nothing to repair. */
MPROC_API int mproc_lock_consistent(mproc_lock *lock);

/* 1 when somebody alive or dead holds it, else 0. */
MPROC_API int mproc_lock_locked(const mproc_lock *lock);

/* Who holds it. */
MPROC_API int mproc_lock_owner(const mproc_lock *lock, mproc_owner *ret_owner);

/* Gives it back to the heap. NULL does nothing and returns 0. -EBUSY: it is held. */
MPROC_API int mproc_lock_destroy(mproc_lock *lock);

/* ---- RLock: a lock that its owner may take again --------------------------------------------- */

/* Makes an open one. */
MPROC_API MPROC_NODISCARD int mproc_rlock_create(mproc_rlock **ret_rlock);

/* Takes it, again too: 0 or MPROC_OWNER_DIED. -EOVERFLOW: 2^32 - 1 times. */
MPROC_API MPROC_NODISCARD int mproc_rlock_acquire(mproc_rlock *rlock, int timeout_ms);

/* Undoes one acquire; the last one opens it. -EPERM: the calling thread does not hold it. */
MPROC_API int mproc_rlock_release(mproc_rlock *rlock);

/* As mproc_lock_consistent. */
MPROC_API int mproc_rlock_consistent(mproc_rlock *rlock);

/* 1 when somebody holds it, else 0. */
MPROC_API int mproc_rlock_locked(const mproc_rlock *rlock);

/* Who holds it. */
MPROC_API int mproc_rlock_owner(const mproc_rlock *rlock, mproc_owner *ret_owner);

/* As mproc_lock_destroy. */
MPROC_API int mproc_rlock_destroy(mproc_rlock *rlock);

/* ---- RWLock: many readers, or one writer ----------------------------------------------------- */

/* Makes an open one. A writer that waits keeps new readers out; a thread that reads already may
 * read again. */
MPROC_API MPROC_NODISCARD int mproc_rwlock_create(mproc_rwlock **ret_rwlock);

/* Takes it for reading: 0, or MPROC_OWNER_DIED when a writer died and no writer has repaired what
 * it left. Each acquire needs its release. -EDEADLK: the calling thread writes. -EOVERFLOW: it
 * reads 2^32 - 1 times. */
MPROC_API MPROC_NODISCARD int mproc_rwlock_acquire_read(mproc_rwlock *rwlock, int timeout_ms);

/* Takes it for writing: 0 or MPROC_OWNER_DIED. Readers that died are out. -EDEADLK: the calling
 * thread reads or writes already. */
MPROC_API MPROC_NODISCARD int mproc_rwlock_acquire_write(mproc_rwlock *rwlock, int timeout_ms);

/* Undoes one acquire of the calling thread, of either sort. -EPERM: it has none. */
MPROC_API int mproc_rwlock_release(mproc_rwlock *rwlock);

/* The writer has repaired what a dead one left. Errors as mproc_lock_consistent. */
MPROC_API int mproc_rwlock_consistent(mproc_rwlock *rwlock);

/* How many threads read. */
MPROC_API int mproc_rwlock_readers(const mproc_rwlock *rwlock);

/* Who writes. */
MPROC_API int mproc_rwlock_owner(const mproc_rwlock *rwlock, mproc_owner *ret_owner);

/* As mproc_lock_destroy. */
MPROC_API int mproc_rwlock_destroy(mproc_rwlock *rwlock);

/* ---- Semaphore: a number of permits ---------------------------------------------------------- */

typedef struct mproc_semaphore_options {
  /* non-zero: Python's BoundedSemaphore; a release above the first value is -EOVERFLOW */
  int bounded;
  /* non-zero: each permit has an owner, the thread that took it, and comes back when that ends; it
   * is bounded, and may have 4,096 permits. 0: a dead thread's permits are gone, as in Python. */
  int tracked;
  uint64_t reserved[8]; /* must be zero */
} mproc_semaphore_options;

/* Makes one with `value` permits, 0 to 2^30. Options may be NULL. */
MPROC_API MPROC_NODISCARD int mproc_semaphore_create(int value,
                                                     const mproc_semaphore_options *options,
                                                     mproc_semaphore **ret_semaphore);

/* Takes a permit: 0, or MPROC_OWNER_DIED when it is that of a dead thread (tracked). */
MPROC_API MPROC_NODISCARD int mproc_semaphore_acquire(mproc_semaphore *semaphore, int timeout_ms);

/* Gives `count` permits, at least 1. -EOVERFLOW: more than the first value (bounded), or than
 * 2^30: nothing was given. -EPERM: tracked, and the calling thread has fewer. Signal-safe. */
MPROC_API int mproc_semaphore_release(mproc_semaphore *semaphore, int count);

/* How many permits are left. */
MPROC_API int mproc_semaphore_value(const mproc_semaphore *semaphore);

/* Gives it back to the heap. -EBUSY: somebody waits, or has a permit (tracked). */
MPROC_API int mproc_semaphore_destroy(mproc_semaphore *semaphore);

/* ---- Condition: wait until told, with a lock let go meanwhile -------------------------------- */

typedef struct mproc_condition_options {
  mproc_lock *lock;     /* borrowed: the lock to use, or */
  mproc_rlock *rlock;   /* this one; both NULL: an RLock of its own, as in Python */
  uint64_t reserved[8]; /* must be zero */
} mproc_condition_options;

/* Makes one. Options may be NULL. -EINVAL: both locks given. */
MPROC_API MPROC_NODISCARD int mproc_condition_create(const mproc_condition_options *options,
                                                     mproc_condition **ret_condition);

/* Takes the condition's lock, as mproc_rlock_acquire. */
MPROC_API MPROC_NODISCARD int mproc_condition_acquire(mproc_condition *condition, int timeout_ms);

/* Releases the condition's lock, as mproc_rlock_release. */
MPROC_API int mproc_condition_release(mproc_condition *condition);

/* As mproc_lock_consistent, for the condition's lock. */
MPROC_API int mproc_condition_consistent(mproc_condition *condition);

/* Lets go of the lock (an RLock entirely), waits until notified, takes the lock back, however long
 * that takes. The lock is held again whatever it returns, except the errors below: 0 notified;
 * MPROC_OWNER_DIED: an owner of the lock died, so look at what it guards, notified or not, in time
 * or not, until somebody calls mproc_condition_consistent; -ETIMEDOUT, -EAGAIN: not notified. There
 * are no spurious returns of 0. What a notified waiter that was killed had been told is told to
 * another, within 100 ms, who may have begun to wait after it was sent. -EPERM: the calling thread
 * does not hold the lock. */
MPROC_API MPROC_NODISCARD int mproc_condition_wait(mproc_condition *condition, int timeout_ms);

/* Waits until `predicate(arg)`, called with the lock held, returns non-zero, which it returns; 0:
 * not within the time; -ETIMEDOUT, -EAGAIN: see "Stopped" above. That an owner of the lock died the
 * predicate finds out by mproc_condition_consistent: 0 if there was something to repair. Errors as
 * mproc_condition_wait. */
MPROC_API MPROC_NODISCARD int mproc_condition_wait_for(mproc_condition *condition,
                                                       int (*predicate)(void *arg), void *arg,
                                                       int timeout_ms);

/* Tells `count` waiters, those that have waited longest; dead ones are passed over. Returns how
 * many were told. -EPERM: the calling thread does not hold the lock; -EINVAL: count below 1. */
MPROC_API int mproc_condition_notify(mproc_condition *condition, int count);

/* Tells all of them. */
MPROC_API int mproc_condition_notify_all(mproc_condition *condition);

/* Gives it back to the heap, with a lock of its own. -EBUSY: somebody waits or holds the lock. */
MPROC_API int mproc_condition_destroy(mproc_condition *condition);

/* ---- Event: a flag to wait for --------------------------------------------------------------- */

/* Makes one that is not set. */
MPROC_API MPROC_NODISCARD int mproc_event_create(mproc_event **ret_event);

/* Sets it and lets everybody go who waits, also if it is cleared at once. Signal-safe. */
MPROC_API int mproc_event_set(mproc_event *event);

/* Clears it. Signal-safe. */
MPROC_API int mproc_event_clear(mproc_event *event);

/* 1 when it is set, else 0. Signal-safe. */
MPROC_API int mproc_event_is_set(const mproc_event *event);

/* Waits until it is set: 0. */
MPROC_API MPROC_NODISCARD int mproc_event_wait(mproc_event *event, int timeout_ms);

/* Gives it back to the heap. -EBUSY: somebody waits. */
MPROC_API int mproc_event_destroy(mproc_event *event);

/* ---- Barrier: wait until all are there ------------------------------------------------------- */

/* Makes one for `parties` threads, at least 1. */
MPROC_API MPROC_NODISCARD int mproc_barrier_create(int parties, mproc_barrier **ret_barrier);

/* Waits until `parties` threads are there. Returns 0 to parties - 1, a different number for each. A
 * wait that runs out of time breaks the barrier; then all others get MPROC_EBROKEN, until a reset.
 * A try (0) is -EAGAIN and breaks nothing. A waiter that dies is as if it had not come: another may
 * come in its place. */
MPROC_API MPROC_NODISCARD int mproc_barrier_wait(mproc_barrier *barrier, int timeout_ms);

/* The same; the last to come calls `action(arg)` before anybody goes on, which no time-out cuts
 * short. A negative result of the action breaks the barrier, and so does its death. Each party
 * names the same function: functions have other addresses in other processes. NULL is none. */
MPROC_API MPROC_NODISCARD int mproc_barrier_wait_action(mproc_barrier *barrier,
                                                        int (*action)(void *arg), void *arg,
                                                        int timeout_ms);

/* Breaks it: whoever waits, and comes, gets MPROC_EBROKEN. */
MPROC_API int mproc_barrier_abort(mproc_barrier *barrier);

/* Empties it and makes it whole; whoever waits gets MPROC_EBROKEN. */
MPROC_API int mproc_barrier_reset(mproc_barrier *barrier);

/* How many it is for; how many wait; whether it is broken (1). */
MPROC_API int mproc_barrier_parties(const mproc_barrier *barrier);
MPROC_API int mproc_barrier_n_waiting(const mproc_barrier *barrier);
MPROC_API int mproc_barrier_broken(const mproc_barrier *barrier);

/* Gives it back to the heap. -EBUSY: somebody waits. Those who were let go may be on their way out:
 * it waits a second for them. */
MPROC_API int mproc_barrier_destroy(mproc_barrier *barrier);

#ifdef __cplusplus
}
#endif
#endif
