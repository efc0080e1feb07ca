/* mproc_wait: asks the objects, polls the handles, looks again. */
#include "base/error.h"
#include "ipc/watch.h"
#include "os/os.h"
#include "sync/bell.h"
#include "sync/object.h"
#include "sync/waitable.h"

#include <errno.h>
#include <stdlib.h>

enum { RECHECK_MS = 100, ITEMS_ON_STACK = 16 };
#define SHORTEST_PAUSE_NS (20 * 1000)
#define LONGEST_PAUSE_NS (2 * MPX_NS_PER_MS)
#define LONGEST_DEAF_NS (10 * MPX_NS_PER_MS)

typedef enum hearing { NOT_YET, BY_BELL, DEAF } hearing;

/* One call. */
typedef struct waiting {
  mproc_wait_item *items;
  size_t count;
  mpx_poll_item *polls; /* one more than items: the bell's is the last */
  mpx_entry **entries;  /* by which the bell is rung; NULL for what is no object of the heap */
  mpx_bell bell;
  hearing hearing;
  mpx_thread self;  /* of a call with objects of the heap */
  bool has_objects; /* of the heap */
  bool recheck;     /* some handle may be late */
  bool held;        /* some handle was readable, yet its object is not ready: a tracer has it */
  int64_t look_at;  /* when the objects of the heap are searched for the dead */
  int64_t pause;    /* of who cannot hear */
} waiting;

/* ---- asking ---------------------------------------------------------------------------------- */

static int poll_process(mproc_wait_item *item, size_t index, mpx_poll_item *poll, bool *recheck) {
  mpx_waitable *object = item->object;
  bool late = false;
  if (object->kind == 0)
    return mpx_fail(MPROC_ECLOSED, "the object of item %zu was closed; leave it out", index);
  if (object->kind != (uint32_t)item->kind)
    return mpx_fail(-EINVAL, "the object of item %zu is of another kind than the item says", index);
  int r = object->poll(object, &poll->handle, &late);
  *recheck |= late;
  return r;
}

static int ask(waiting *w, size_t i, bool look_after) {
  mproc_wait_item *item = &w->items[i];
  mpx_poll_item *poll = &w->polls[i];
  const mpx_watch *watch = mpx_watch_of(item->kind);
  bool was_readable = poll->ready;
  *poll = (mpx_poll_item){.handle = MPX_NO_HANDLE};
  if (item->kind == MPROC_WAIT_READABLE || item->kind == MPROC_WAIT_WRITABLE) {
    if (item->handle == MPX_NO_HANDLE)
      return mpx_fail(-EINVAL, "item %zu names no handle", i);
    poll->handle = item->handle;
    poll->writable = item->kind == MPROC_WAIT_WRITABLE;
    return 0;
  }
  if (!watch && item->kind != MPROC_WAIT_PROCESS)
    return mpx_fail(-EINVAL, "item %zu has the unknown kind %d", i, (int)item->kind);
  if (!item->object)
    return mpx_fail(-EINVAL, "item %zu names no object", i);
  if (!watch) {
    int r = poll_process(item, i, poll, &w->recheck);
    w->held |= was_readable && r == 0;
    return r;
  }
  int r = mpx_object_enter(item->object, watch->kind, &w->self);
  w->has_objects = true;
  return r < 0 ? r : watch->is_ready(item->object, w->self, look_after);
}

/* Returns how many items are known to be ready, and leaves handles to be polled. */
static int ask_all(waiting *w, bool look_after) {
  int ready = 0;
  w->recheck = w->held = false;
  for (size_t i = 0; i < w->count; i++) {
    if (!w->items[i].ready) {
      int r = ask(w, i, look_after);
      if (r < 0)
        return r;
      w->items[i].ready = r;
    } else {
      w->polls[i] = (mpx_poll_item){.handle = MPX_NO_HANDLE};
    }
    ready += w->items[i].ready;
  }
  return ready;
}

/* ---- hearing of objects of the heap ---------------------------------------------------------- */

static mpx_notice *notice_of(const waiting *w, size_t i) {
  const mpx_watch *watch = mpx_watch_of(w->items[i].kind);
  return watch ? watch->notice(w->items[i].object) : NULL;
}

/* Without a bell one looks again and again, and stands in the lists to be seen. */
static void listen(waiting *w) {
  mpx_os_cancel_hold(); /* the bell's place is on this stack */
  w->hearing = mpx_bell_open(&w->bell, 0) == 0 ? BY_BELL : DEAF;
  uint32_t bell = w->hearing == BY_BELL ? w->bell.os.name : MPX_OS_NO_BELL;
  for (size_t i = 0; i < w->count; i++) {
    mpx_notice *notice = notice_of(w, i);
    if (notice && mpx_notice_listen(notice, w->self, w->self, bell, &w->entries[i]) < 0)
      w->recheck = true; /* as if its handle were late */
  }
}

static void listen_no_more(waiting *w) {
  if (w->hearing == NOT_YET)
    return;
  for (size_t i = 0; i < w->count; i++)
    if (w->entries[i])
      (void)mpx_entry_free_of(w->entries[i], w->self);
  if (w->hearing == BY_BELL)
    mpx_bell_close(&w->bell);
  mpx_os_cancel_release();
}

/* What changes from here on rings. */
static void prepare(waiting *w) {
  mpx_poll_item *poll = &w->polls[w->count];
  if (w->hearing != BY_BELL)
    return;
  if (poll->ready)
    mpx_os_bell_hush(&w->bell.os);
  *poll = (mpx_poll_item){.handle = w->bell.os.handle};
  for (size_t i = 0; i < w->count; i++) {
    mpx_notice *notice = w->items[i].ready ? NULL : notice_of(w, i);
    if (notice)
      mpx_notice_prepare(notice);
  }
}

/* ---- waiting --------------------------------------------------------------------------------- */

/* Polls what is not ready yet; marks what became ready. Returns how many did. */
static int poll_handles(waiting *w, int64_t deadline) {
  int r = mpx_os_poll(w->polls, w->count + 1, deadline);
  if (r == -EINVAL) /* the one cause that is left */
    return mpx_fail(r,
                    "cannot wait for %zu items: more than the process may have descriptors open "
                    "(RLIMIT_NOFILE); raise it or wait for fewer at a time",
                    w->count);
  if (r < 0)
    return mpx_fail_code(r, "cannot wait");
  int ready = 0;
  for (size_t i = 0; i < w->count; i++) {
    mproc_wait_item *item = &w->items[i];
    if (w->polls[i].invalid)
      return mpx_fail(-EINVAL, "the handle of item %zu, %lld, is not open", i,
                      (long long)w->polls[i].handle);
    if (w->polls[i].ready && !item->ready && item->kind != MPROC_WAIT_PROCESS)
      ready += item->ready = 1;
  }
  return ready;
}

static int64_t earlier(int64_t a, int64_t b) {
  return a < b ? a : b;
}

/* How long nobody has to look again. */
static int64_t next_look(waiting *w, int64_t deadline) {
  int64_t now = mpx_os_now(), until = deadline;
  if (w->recheck)
    until = earlier(until, now + RECHECK_MS * MPX_NS_PER_MS);
  if (w->has_objects)
    until = earlier(until, w->look_at);
  if (w->hearing == DEAF) {
    w->pause = earlier(2 * w->pause, LONGEST_DEAF_NS);
    until = earlier(until, now + w->pause);
  }
  return until;
}

static void sleep_beside_held(waiting *w) {
  mpx_os_sleep(w->pause);
  w->pause = earlier(2 * w->pause, LONGEST_PAUSE_NS);
}

static int ask_in_time(waiting *w, bool last) {
  int64_t now = mpx_os_now();
  bool look_after = last || now >= w->look_at;
  if (look_after)
    w->look_at = now + MPX_LOOK_NS;
  prepare(w);
  return ask_all(w, look_after);
}

static int wait_items(waiting *w, int all, int timeout_ms) {
  int64_t deadline = mpx_deadline(mpx_os_now(), timeout_ms);
  int wanted = all ? (int)w->count : 1;
  w->look_at = mpx_os_now() + MPX_LOOK_NS;
  for (bool last = timeout_ms == 0;; last = mpx_os_now() >= deadline) {
    int known = ask_in_time(w, last);
    if (known < 0 || known == (int)w->count)
      return known;
    if (w->has_objects && w->hearing == NOT_YET && known < wanted && !last) {
      listen(w);
      continue;
    }
    if (w->held && !last)
      sleep_beside_held(w);
    /* one more look at the handles in any case */
    int found = poll_handles(w, known >= wanted || last ? 0 : next_look(w, deadline));
    if (found < 0)
      return found;
    if (known + found >= wanted)
      return known + found;
    if (last)
      return timeout_ms == 0
                 ? mpx_fail(-EAGAIN, "%d of %zu items are ready", known + found, w->count)
                 : mpx_fail(-ETIMEDOUT, "%d of %zu items became ready within %d ms", known + found,
                            w->count, timeout_ms);
  }
}

static int wait_in(waiting *w, int all, int timeout_ms) {
  for (size_t i = 0; i < w->count; i++) {
    w->items[i].ready = 0;
    w->entries[i] = NULL;
  }
  for (size_t i = 0; i <= w->count; i++)
    w->polls[i] = (mpx_poll_item){.handle = MPX_NO_HANDLE};
  int r = wait_items(w, all, timeout_ms);
  listen_no_more(w);
  return r;
}

int mproc_wait(mproc_wait_item *items, size_t count, int all, int timeout_ms) {
  if (!items || count == 0)
    return mpx_fail(-EINVAL, "mproc_wait needs at least one item");
  if (count > INT32_MAX)
    return mpx_fail(-EINVAL, "%zu items are more than mproc_wait takes", count);
  int r = mpx_timeout_check(timeout_ms);
  if (r < 0)
    return r;
  mpx_poll_item few[ITEMS_ON_STACK + 1];
  mpx_entry *few_entries[ITEMS_ON_STACK];
  waiting w = {.items = items,
               .count = count,
               .polls = few,
               .entries = few_entries,
               .pause = SHORTEST_PAUSE_NS};
  if (count > ITEMS_ON_STACK) {
    w.polls = malloc((count + 1) * sizeof *w.polls);
    w.entries = malloc(count * sizeof *w.entries);
  }
  r = w.polls && w.entries ? wait_in(&w, all, timeout_ms) : mpx_fail_code(-ENOMEM, "mproc_wait");
  if (count > ITEMS_ON_STACK) {
    free(w.polls);
    free(w.entries);
  }
  return r;
}
