/* Event: a flag to wait for. */
#include "sync/event.h"
#include "base/error.h"
#include "sync/layout.h"

#include <errno.h>

int mproc_event_create(mproc_event **ret_event) {
  void *event;
  int r = mpx_check_not_null(ret_event, "ret_event");
  if (r == 0)
    r = mpx_object_alloc(sizeof(mproc_event), &event);
  if (r != 0)
    return r;
  *ret_event = event;
  return mpx_object_publish(event, MPX_KIND_EVENT);
}

int mproc_event_set(mproc_event *event) {
  int r = mpx_object_check(event, MPX_KIND_EVENT);
  if (r < 0)
    return r;
  uint32_t seen = atomic_load_explicit(&event->state, memory_order_relaxed);
  while (!(seen & MPX_EVENT_IS_SET) &&
         !atomic_compare_exchange_weak(&event->state, &seen,
                                       (seen + MPX_EVENT_STEP) | MPX_EVENT_IS_SET))
    ;
  mpx_notice_next(&event->notice, MPX_TURN_ALL);
  return 0;
}

int mproc_event_clear(mproc_event *event) {
  int r = mpx_object_check(event, MPX_KIND_EVENT);
  if (r == 0)
    atomic_fetch_and(&event->state, ~(uint32_t)MPX_EVENT_IS_SET);
  return r;
}

int mproc_event_is_set(const mproc_event *event) {
  int r = mpx_object_check(event, MPX_KIND_EVENT);
  return r < 0 ? r : (int)(atomic_load(&event->state) & MPX_EVENT_IS_SET);
}

/* 0: it was set since `first` was read. While it lives any difference says so, after however many
 * sets; but also if it was destroyed at once: its block stays what it is for a while, and counts
 * sets; zeros that somebody has put there later go backwards. -EAGAIN: it was not. */
static int look(mproc_event *event, uint32_t first) {
  uint32_t now = atomic_load(&event->state), kind = atomic_load(&event->object.kind);
  if (kind == MPX_KIND_EVENT ? now != first : kind == 0 && (int32_t)(now - first) > 0)
    return 0;
  int r = mpx_object_check_again(event, MPX_KIND_EVENT);
  return r < 0 ? r : -EAGAIN;
}

static int wait_for_change(mproc_event *event, int timeout_ms) {
  uint32_t first = atomic_load(&event->state);
  if (first & MPX_EVENT_IS_SET)
    return 0;
  if (timeout_ms == 0)
    return mpx_timeout_fail(timeout_ms, "the event is not set");
  int64_t deadline = mpx_deadline(mpx_os_now(), timeout_ms);
  for (;;) {
    uint32_t turn = mpx_turn_prepare(&event->notice.turn);
    int r = look(event, first);
    if (r != -EAGAIN)
      return r;
    if (!mpx_turn_sleep(&event->notice.turn, turn, deadline))
      return mpx_timeout_fail(timeout_ms, "the event was not set");
    r = look(event, first); /* before the next mark: its memory may be anything's */
    if (r != -EAGAIN)
      return r;
  }
}

int mproc_event_wait(mproc_event *event, int timeout_ms) {
  mpx_thread self;
  int r = mpx_object_enter_for(event, MPX_KIND_EVENT, timeout_ms, &self);
  return r < 0 ? r : wait_for_change(event, timeout_ms);
}

mpx_notice *mpx_event_notice(mproc_event *event) {
  return &event->notice;
}

int mproc_event_destroy(mproc_event *event) {
  if (!event)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(event, MPX_KIND_EVENT, &self);
  if (r < 0)
    return r;
  if (mpx_notice_is_used(&event->notice))
    return mpx_fail(-EBUSY, "somebody waits for the event");
  r = mpx_object_end(event, MPX_KIND_EVENT);
  if (r < 0)
    return r;
  mpx_notice_next(&event->notice, MPX_TURN_ALL); /* who came since we looked */
  mpx_notice_fini(&event->notice);
  mpx_object_keep(event);
  return 0;
}
