#include "process/process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* Closed objects wait here before they are used again, oldest first: a use after close finds CLOSED
 * for as long as possible. */
enum { POOL_SIZE = 64 };

static struct {
  mpx_os_mutex lock;
  mpx_list live;
  mpx_list closed;
  int closed_count;
  bool ready;
} registry;

/* Around every fork, also the host's own: a copy must find the registry whole and unlocked, and
 * with every transient handle in its place. */
static void prepare(void) {
  if (registry.ready)
    return;
  mpx_list_init(&registry.live);
  mpx_list_init(&registry.closed);
  mpx_os_at_fork(mpx_registry_lock, mpx_registry_unlock, mpx_registry_unlock);
  registry.ready = true;
}

void mpx_registry_lock(void) {
  mpx_os_mutex_lock(&registry.lock);
  prepare();
}

void mpx_registry_prepare(void) {
  mpx_registry_lock();
  mpx_registry_unlock();
}

void mpx_registry_unlock(void) {
  mpx_os_mutex_unlock(&registry.lock);
}

/* The lock is a leaf: the object's own is taken, for a late user of it, in between. */
mproc_process *mpx_registry_new(void) {
  mproc_process *process = NULL;
  mpx_registry_lock();
  if (registry.closed_count > POOL_SIZE) {
    process = mpx_list_entry(registry.closed.next, mproc_process, link);
    mpx_list_remove(&process->link);
    registry.closed_count--;
  }
  mpx_registry_unlock();
  if (!process && (process = calloc(1, sizeof *process)) != NULL)
    mpx_os_mutex_init(&process->lock);
  if (!process)
    return NULL;
  mpx_os_mutex_lock(&process->lock);
  memset(&process->entry, 0, sizeof *process - offsetof(mproc_process, entry));
  mpx_os_mutex_unlock(&process->lock);
  process->child = (mpx_child)MPX_NO_CHILD;
  process->transient = (mpx_transient)MPX_TRANSIENT_NONE;
  mpx_registry_lock();
  mpx_list_append(&registry.live, &process->link);
  mpx_registry_unlock();
  return process;
}

void mpx_registry_retire(mproc_process *process) {
  mpx_registry_lock();
  mpx_list_remove(&process->link);
  mpx_list_append(&registry.closed, &process->link);
  registry.closed_count++;
  mpx_registry_unlock();
}

void mpx_registry_forget_child(mproc_process *process) {
  mpx_registry_lock();
  mpx_os_child_close(&process->child);
  mpx_registry_unlock();
}

void mpx_registry_reset_in_child(void) {
  for (mpx_list *node = registry.live.next; node != &registry.live; node = node->next) {
    mproc_process *process = mpx_list_entry(node, mproc_process, link);
    mpx_os_close(process->child.sentinel);
    mpx_os_close(process->child.newborn);
    mpx_transient_close(&process->transient);
  }
  /* Not freed: the child's copy of the program still has pointers to them. Each says
   * ENOTCREATOR. */
  mpx_list_init(&registry.live);
}

/* A snapshot: `visit` may join or close, and others may create. */
int mpx_registry_visit(void (*visit)(mproc_process *process, void *user), void *user) {
  mpx_registry_lock();
  size_t count = 0, used = 0;
  for (mpx_list *node = registry.live.next; node != &registry.live; node = node->next)
    count++;
  mproc_process **all = count ? malloc(count * sizeof *all) : NULL;
  for (mpx_list *node = registry.live.next; all && node != &registry.live; node = node->next)
    all[used++] = mpx_list_entry(node, mproc_process, link);
  mpx_registry_unlock();
  for (size_t i = 0; i < used; i++)
    visit(all[i], user);
  if (all)
    free(all);
  return used < count ? -ENOMEM : 0;
}
