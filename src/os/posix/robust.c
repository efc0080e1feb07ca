#define _GNU_SOURCE
#include "os/os.h"

#include <errno.h>
#include <pthread.h>

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

/* Consistent at once: who dies before this line leaves the owner-died mark to the next taker. */
static int taken(mpx_os_robust *lock, int code) {
  if (code != EOWNERDEAD)
    return -code;
  code = pthread_mutex_consistent(mutex_of(lock));
  return code == 0 ? 1 : -code;
}

int mpx_os_robust_lock(mpx_os_robust *lock) {
  return taken(lock, pthread_mutex_lock(mutex_of(lock)));
}

int mpx_os_robust_trylock(mpx_os_robust *lock) {
  return taken(lock, pthread_mutex_trylock(mutex_of(lock)));
}

void mpx_os_robust_unlock(mpx_os_robust *lock) {
  (void)pthread_mutex_unlock(mutex_of(lock));
}
