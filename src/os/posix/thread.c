#define _GNU_SOURCE
#include "os/os.h"

#include "base/assert.h"
#include "os/posix/pin.h"

#include <errno.h>
#include <pthread.h>

_Static_assert(sizeof(pthread_mutex_t) <= sizeof(mpx_os_mutex), "grow mpx_os_mutex");
_Static_assert(_Alignof(pthread_mutex_t) <= _Alignof(mpx_os_mutex), "align mpx_os_mutex");

static pthread_mutex_t *mutex_of(mpx_os_mutex *mutex) {
  return (pthread_mutex_t *)(void *)mutex->storage;
}

void mpx_os_mutex_init(mpx_os_mutex *mutex) {
  *mutex_of(mutex) = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
}

static _Thread_local unsigned cancel_holds;
static _Thread_local int cancel_state; /* before the first of them */

void mpx_os_cancel_hold(void) {
  if (cancel_holds++ == 0)
    (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
}

void mpx_os_cancel_release(void) {
  if (--cancel_holds == 0)
    (void)pthread_setcancelstate(cancel_state, NULL);
}

void mpx_os_cancel_reset(void) {
  if (cancel_holds > 0) {
    cancel_holds = 1;
    mpx_os_cancel_release();
  }
}

/* The owner of a lock is not cancelled: close() and others are cancellation points. */
void mpx_os_mutex_lock(mpx_os_mutex *mutex) {
  mpx_os_cancel_hold();
  int code = pthread_mutex_lock(mutex_of(mutex));
  mpx_assert(code == 0);
  (void)code;
}

void mpx_os_mutex_unlock(mpx_os_mutex *mutex) {
  int code = pthread_mutex_unlock(mutex_of(mutex));
  mpx_assert(code == 0);
  (void)code;
  mpx_os_cancel_release();
}

static void (*ending_hook)(void);
static pthread_key_t ending_key;
static _Thread_local bool is_watched; /* true in a forked child too, whose thread is a copy */

/* Runs again when a later destructor of the same thread made it watched again. */
static void thread_ends(void *value) {
  (void)value;
  is_watched = false;
  ending_hook();
}

int mpx_os_thread_hook(void (*hook)(void)) {
  if (ending_hook)
    return ending_hook == hook ? 0 : -EALREADY;
  int code = pthread_key_create(&ending_key, thread_ends);
  if (code != 0)
    return -code;
  ending_hook = hook;
  mpx_pin_module((const void *)(uintptr_t)thread_ends);
  return 0;
}

int mpx_os_thread_watch(void) {
  int r = ending_hook && !is_watched ? -pthread_setspecific(ending_key, &ending_key) : 0;
  is_watched = r == 0;
  return r;
}
