#define _GNU_SOURCE
#include "os/os.h"

#include "os/posix/tsan.h"

#include <errno.h>
#include <pthread.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define LOOK_NS (100 * MPX_NS_PER_MS)

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(mpx_os_robust), "grow mpx_os_robust");
_Static_assert(_Alignof(pthread_mutex_t) <= _Alignof(mpx_os_robust), "align mpx_os_robust");

static pthread_mutex_t *mutex_of(mpx_os_robust *lock) {
  return (pthread_mutex_t *)(void *)lock->storage;
}

int mpx_os_robust_init(mpx_os_robust *lock) {
  pthread_mutexattr_t attributes;
  int code = pthread_mutexattr_init(&attributes);
  if (code != 0)
    return -code;
  code = pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_NORMAL);
  if (code == 0)
    code = pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  if (code == 0)
    code = pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  if (code == 0)
    code = pthread_mutex_init(mutex_of(lock), &attributes);
  (void)pthread_mutexattr_destroy(&attributes);
  return -code;
}

#ifdef __GLIBC__
static void note_list(void) {}
#else
/* musl's fork leaves the list of the locks that the thread has in the child, where pthread_exit
 * would give up those of the parent as a dead thread's. The kernel knows where the list is, but not
 * in the child. */
static _Thread_local void **own_list; /* the head, which points to the first, or to itself */

static void note_list(void) {
  size_t size;
  if (!own_list && syscall(SYS_get_robust_list, 0, &own_list, &size) < 0)
    own_list = NULL;
}

static void empty_list(void) {
  if (own_list)
    *own_list = own_list;
}

/* Before there is any lock that a fork elsewhere may hold: libc has one for its handlers. */
__attribute__((constructor)) static void watch_forks(void) {
  (void)pthread_atfork(NULL, NULL, empty_list);
}
#endif

/* Consistent at once: who dies before this line leaves the owner-died mark to the next taker. */
static int taken(mpx_os_robust *lock, int code) {
  note_list();
  if (code != EOWNERDEAD)
    return -code;
  code = pthread_mutex_consistent(mutex_of(lock));
  return code == 0 ? 1 : -code;
}

static int lock_until(pthread_mutex_t *mutex, int64_t duration_ns) {
  struct timespec end;
  if (mpx_tsan_watches()) { /* gcc 12's sees no clocklock, and none sees a timed one's EOWNERDEAD */
    mpx_os_sleep(LOOK_NS / 1000);
    int code = pthread_mutex_trylock(mutex);
    return code == EBUSY ? ETIMEDOUT : code;
  }
#ifdef __GLIBC__
  (void)clock_gettime(CLOCK_MONOTONIC, &end);
#else
  (void)clock_gettime(CLOCK_REALTIME, &end);
#endif
  int64_t ns = end.tv_nsec + duration_ns;
  end.tv_sec += ns / MPX_NS_PER_S;
  end.tv_nsec = ns % MPX_NS_PER_S;
#ifdef __GLIBC__
  return pthread_mutex_clocklock(mutex, CLOCK_MONOTONIC, &end);
#else
  return pthread_mutex_timedlock(mutex, &end);
#endif
}

/* Nobody sleeps here for long: a waiter that was woken and is killed before it has the lock takes
 * the wake-up along. The kernel passes it on if it finds the lock open; if somebody else was
 * quicker to take it, he does not know that others wait, and wakes nobody. */
int mpx_os_robust_lock(mpx_os_robust *lock) {
  int code = pthread_mutex_trylock(mutex_of(lock));
  if (code == EBUSY)
    do
      code = lock_until(mutex_of(lock), LOOK_NS);
    while (code == ETIMEDOUT);
  return taken(lock, code);
}

int mpx_os_robust_trylock(mpx_os_robust *lock) {
  return taken(lock, pthread_mutex_trylock(mutex_of(lock)));
}

void mpx_os_robust_unlock(mpx_os_robust *lock) {
  (void)pthread_mutex_unlock(mutex_of(lock));
}

void mpx_os_robust_disown(mpx_os_robust *lock) {
  mpx_tsan_forget_lock(mutex_of(lock));
}
