/* Notifier: a bell, and an entry in the notice of each object. */
#include "mproc/notifier.h"

#include "base/error.h"
#include "ipc/watch.h"
#include "sync/bell.h"
#include "sync/object.h"

#include <errno.h>
#include <stdlib.h>

#define LOOK_NS (100 * MPX_NS_PER_MS)

typedef struct listening {
  const mpx_watch *watch;
  void *object;
  mpx_entry *entry; /* the process's */
} listening;

struct mproc_notifier {
  mpx_bell bell;
  mpx_member creator;
  size_t count;
  listening to[];
};

static int check_items(const mproc_wait_item *items, size_t count, mpx_thread self) {
  if (!items || count == 0)
    return mpx_fail(-EINVAL, "a notifier needs at least one item");
  for (size_t i = 0; i < count; i++) {
    const mpx_watch *watch = mpx_watch_of(items[i].kind);
    if (!watch)
      return mpx_fail(-EINVAL,
                      "item %zu is no object of the heap; a process has mproc_process_sentinel, "
                      "and a descriptor needs no notifier",
                      i);
    int r = mpx_object_check(items[i].object, watch->kind);
    if (r == 0)
      r = watch->is_ready(items[i].object, self, false);
    if (r < 0)
      return r;
  }
  return 0;
}

static int listen_to(mproc_notifier *notifier, const mproc_wait_item *items, size_t count,
                     mpx_thread self) {
  mpx_thread owner = mpx_notice_process(notifier->creator);
  for (; notifier->count < count; notifier->count++) {
    listening *to = &notifier->to[notifier->count];
    to->watch = mpx_watch_of(items[notifier->count].kind);
    to->object = items[notifier->count].object;
    int r = mpx_notice_listen(to->watch->notice(to->object), self, owner, notifier->bell.os.name,
                              &to->entry);
    if (r < 0)
      return r;
  }
  return 0;
}

static int say(int r) {
  if (r == -ENOSYS)
    return mpx_fail(r, "this system has no sockets with abstract names; use mproc_wait");
  return mpx_fail_code(r, "the descriptors of a notifier");
}

int mproc_notifier_create(const mproc_wait_item *items, size_t count,
                          mproc_notifier **ret_notifier) {
  mpx_thread self;
  int r = mpx_check_not_null(ret_notifier, "ret_notifier");
  if (r == 0)
    r = mpx_family_thread(&self);
  if (r == 0)
    r = check_items(items, count, self);
  if (r < 0)
    return r;
  mproc_notifier *notifier = calloc(1, sizeof *notifier + count * sizeof notifier->to[0]);
  if (!notifier)
    return mpx_fail_code(-ENOMEM, "mproc_notifier_create");
  notifier->creator = mpx_family_self();
  r = mpx_bell_open(&notifier->bell, LOOK_NS);
  if (r < 0) {
    free(notifier);
    return say(r);
  }
  r = listen_to(notifier, items, count, self);
  if (r == 0)
    r = mproc_notifier_reset(notifier);
  if (r < 0) {
    mproc_notifier_destroy(notifier);
    return r;
  }
  if (r > 0) /* before we listened: the loop shall know */
    mpx_os_bell_ring(notifier->bell.os.name);
  *ret_notifier = notifier;
  return 0;
}

mproc_handle mproc_notifier_handle(const mproc_notifier *notifier) {
  return notifier ? notifier->bell.os.handle : MPX_NO_HANDLE;
}

int mproc_notifier_reset(mproc_notifier *notifier) {
  mpx_thread self;
  int ready = 0, r = mpx_check_not_null(notifier, "notifier");
  if (r == 0)
    r = mpx_family_thread(&self);
  if (r == 0 && notifier->creator != mpx_family_self())
    r = mpx_fail(MPROC_ENOTCREATOR, "only the process that made the notifier can use it");
  /* a pipe may be gone whose end was another's */
  for (size_t i = 0; r == 0 && i < notifier->count; i++)
    r = mpx_object_check(notifier->to[i].object, notifier->to[i].watch->kind);
  if (r < 0)
    return r;
  mpx_os_bell_hush(&notifier->bell.os);
  for (size_t i = 0; i < notifier->count; i++)
    mpx_notice_prepare(notifier->to[i].watch->notice(notifier->to[i].object));
  for (size_t i = 0; i < notifier->count; i++) {
    r = notifier->to[i].watch->is_ready(notifier->to[i].object, self, true);
    if (r < 0)
      return r;
    ready += r;
  }
  return ready;
}

void mproc_notifier_destroy(mproc_notifier *notifier) {
  if (!notifier)
    return;
  if (notifier->creator == mpx_family_self()) /* a copy's entries are its parent's */
    for (size_t i = 0; i < notifier->count; i++)
      (void)mpx_entry_free_of(notifier->to[i].entry, mpx_notice_process(notifier->creator));
  mpx_bell_close(&notifier->bell);
  free(notifier);
}
