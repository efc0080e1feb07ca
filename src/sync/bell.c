#include "sync/bell.h"

/* Around every fork, also the host's own: a copy finds the list whole. */
static struct {
  mpx_os_mutex lock;
  mpx_list open;
  bool ready;
} bells;

static void prepare(void) {
  if (bells.ready)
    return;
  mpx_list_init(&bells.open);
  mpx_os_at_fork(mpx_bell_lock, mpx_bell_unlock, mpx_bell_unlock);
  bells.ready = true;
}

void mpx_bell_lock(void) {
  mpx_os_mutex_lock(&bells.lock);
  prepare();
}

void mpx_bell_unlock(void) {
  mpx_os_mutex_unlock(&bells.lock);
}

static const mpx_os_bell nothing = {.handle = MPX_NO_HANDLE,
                                    .parts = {MPX_NO_HANDLE, MPX_NO_HANDLE}};

int mpx_bell_open(mpx_bell *bell, int64_t look_ns) {
  mpx_bell_lock();
  int r = mpx_os_bell_create(look_ns, &bell->os);
  if (r == 0)
    mpx_list_append(&bells.open, &bell->link);
  mpx_bell_unlock();
  return r;
}

int mpx_bell_open_mailbox(mpx_bell *bell) {
  mpx_bell_lock();
  bell->os = nothing;
  int r = mpx_os_mailbox_create(&bell->os.handle, &bell->os.name);
  if (r == 0)
    mpx_list_append(&bells.open, &bell->link);
  mpx_bell_unlock();
  return r;
}

void mpx_bell_keep(mpx_bell *bell) {
  mpx_bell_lock();
  bell->os = nothing;
  mpx_list_append(&bells.open, &bell->link);
  mpx_bell_unlock();
}

void mpx_bell_close(mpx_bell *bell) {
  mpx_bell_lock();
  mpx_list_remove(&bell->link);
  mpx_os_bell_close(&bell->os);
  bell->os = nothing;
  mpx_bell_unlock();
}

void mpx_bell_reset_in_child(void) {
  if (!bells.ready) /* another thread may have been about to get it ready */
    mpx_os_mutex_init(&bells.lock);
  while (bells.ready && bells.open.next != &bells.open) {
    mpx_bell *bell = mpx_list_entry(bells.open.next, mpx_bell, link);
    mpx_list_remove(&bell->link);
    mpx_os_bell_close(&bell->os);
    bell->os = nothing;
  }
}
