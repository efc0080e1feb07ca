#include "base/error.h"
#include "os/os.h"
#include "sync/waitable.h"

#include <errno.h>
#include <stdlib.h>

enum { RECHECK_MS = 100, ITEMS_ON_STACK = 16 };
#define SHORTEST_PAUSE_NS (20 * 1000)
#define LONGEST_PAUSE_NS (2 * MPX_NS_PER_MS)

static int poll_object(mproc_wait_item *item, size_t index, mpx_poll_item *poll, bool *recheck) {
  mpx_waitable *object = item->object;
  bool late = false;
  if (!object)
    return mpx_fail(-EINVAL, "item %zu names no object", index);
  if (object->kind == 0)
    return mpx_fail(MPROC_ECLOSED, "the object of item %zu was closed; leave it out", index);
  if (object->kind != (uint32_t)item->kind)
    return mpx_fail(-EINVAL, "the object of item %zu is of another kind than the item says", index);
  int r = object->poll(object, &poll->handle, &late);
  *recheck |= late;
  return r;
}

/* Asks the objects; leaves handles to be polled in `polls`. Returns how many items are known
 * ready. *ret_held: some handle was readable, yet its object is not ready, so that poll(2) would
 * return at once: a tracer has the zombie. */
static int ask_objects(mproc_wait_item *items, size_t count, mpx_poll_item *polls, bool *recheck,
                       bool *ret_held) {
  int ready = 0;
  *recheck = *ret_held = false;
  for (size_t i = 0; i < count; i++) {
    bool was_readable = polls[i].ready;
    polls[i] = (mpx_poll_item){.handle = MPX_NO_HANDLE};
    if (items[i].ready) {
      ready++;
      continue;
    }
    switch (items[i].kind) {
    case MPROC_WAIT_READABLE:
    case MPROC_WAIT_WRITABLE:
      if (items[i].handle == MPX_NO_HANDLE)
        return mpx_fail(-EINVAL, "item %zu names no handle", i);
      polls[i].handle = items[i].handle;
      polls[i].writable = items[i].kind == MPROC_WAIT_WRITABLE;
      break;
    case MPROC_WAIT_PROCESS: {
      int r = poll_object(&items[i], i, &polls[i], recheck);
      if (r < 0)
        return r;
      items[i].ready = r;
      *ret_held |= was_readable && r == 0;
      ready += r;
      break;
    }
    default:
      return mpx_fail(-EINVAL, "item %zu has the unknown kind %d", i, (int)items[i].kind);
    }
  }
  return ready;
}

/* Polls what is not ready yet; marks what became ready. Returns how many did. */
static int poll_handles(mproc_wait_item *items, size_t count, mpx_poll_item *polls,
                        int64_t deadline) {
  int r = mpx_os_poll(polls, count, deadline);
  if (r == -EINVAL) /* the one cause that is left */
    return mpx_fail(r,
                    "cannot wait for %zu items: more than the process may have descriptors open "
                    "(RLIMIT_NOFILE); raise it or wait for fewer at a time",
                    count);
  if (r < 0)
    return mpx_fail_code(r, "cannot wait");
  int ready = 0;
  for (size_t i = 0; i < count; i++) {
    if (polls[i].invalid)
      return mpx_fail(-EINVAL, "the handle of item %zu, %lld, is not open", i,
                      (long long)polls[i].handle);
    if (polls[i].ready && !items[i].ready && items[i].kind != MPROC_WAIT_PROCESS)
      ready += items[i].ready = 1;
  }
  return ready;
}

static int wait_items(mproc_wait_item *items, size_t count, int all, int timeout_ms,
                      mpx_poll_item *polls) {
  int64_t deadline = mpx_deadline(mpx_os_now(), timeout_ms);
  int64_t pause = SHORTEST_PAUSE_NS;
  int wanted = all ? (int)count : 1;
  for (size_t i = 0; i < count; i++) {
    items[i].ready = 0;
    polls[i].ready = false;
  }
  for (bool last = timeout_ms == 0;; last = mpx_os_now() >= deadline) {
    bool recheck, held;
    int known = ask_objects(items, count, polls, &recheck, &held);
    if (known < 0)
      return known;
    if (known == (int)count)
      return known;
    if (held && !last) {
      mpx_os_sleep(pause);
      pause = pause < LONGEST_PAUSE_NS / 2 ? 2 * pause : LONGEST_PAUSE_NS;
    }
    int64_t until = deadline;
    if (known >= wanted || last)
      until = 0; /* one more look at the handles, without waiting */
    else if (recheck && mpx_os_now() + RECHECK_MS * MPX_NS_PER_MS < deadline)
      until = mpx_os_now() + RECHECK_MS * MPX_NS_PER_MS;
    int found = poll_handles(items, count, polls, until);
    if (found < 0)
      return found;
    if (known + found >= wanted)
      return known + found;
    if (last)
      return timeout_ms == 0 ? mpx_fail(-EAGAIN, "%d of %zu items are ready", known + found, count)
                             : mpx_fail(-ETIMEDOUT, "%d of %zu items became ready within %d ms",
                                        known + found, count, timeout_ms);
  }
}

int mproc_wait(mproc_wait_item *items, size_t count, int all, int timeout_ms) {
  if (!items || count == 0)
    return mpx_fail(-EINVAL, "mproc_wait needs at least one item");
  if (count > INT32_MAX)
    return mpx_fail(-EINVAL, "%zu items are more than mproc_wait takes", count);
  if (timeout_ms < MPROC_FOREVER)
    return mpx_fail(-EINVAL, "timeout_ms is %d; 0 tries, MPROC_FOREVER (-1) has no end",
                    timeout_ms);
  mpx_poll_item few[ITEMS_ON_STACK];
  mpx_poll_item *polls = count <= ITEMS_ON_STACK ? few : malloc(count * sizeof *polls);
  if (!polls)
    return mpx_fail_code(-ENOMEM, "mproc_wait");
  int r = wait_items(items, count, all, timeout_ms, polls);
  if (polls != few)
    free(polls);
  return r;
}
