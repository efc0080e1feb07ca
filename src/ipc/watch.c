#include "ipc/watch.h"

#include "ipc/connection.h"
#include "ipc/queue.h"
#include "sync/event.h"

static int event_is_ready(void *object, mpx_thread self, bool look_after) {
  (void)self, (void)look_after;
  return mproc_event_is_set(object) == 1;
}

static mpx_notice *event_notice(void *object) {
  return mpx_event_notice(object);
}

/* Where the other items have news all the time, no call lasts until its own look. */
static void look(mproc_queue *queue, mpx_thread self, bool at_once) {
  if (at_once)
    mpx_queue_repair(queue, self);
  else
    mpx_queue_repair_in_time(queue, self);
}

static int queue_is_ready(void *object, mpx_thread self, bool look_after) {
  look(object, self, look_after);
  return mpx_queue_can_get(object, self);
}

static mpx_notice *queue_notice(void *object) {
  return &((mproc_queue *)object)->not_empty;
}

static int room_is_ready(void *object, mpx_thread self, bool look_after) {
  look(object, self, look_after);
  return mpx_queue_can_put(object);
}

static mpx_notice *room_notice(void *object) {
  return &((mproc_queue *)object)->not_full;
}

static int connection_is_ready(void *object, mpx_thread self, bool look_after) {
  mproc_connection *connection = object;
  int r = mpx_connection_enter(connection, false, 0, &self);
  if (r < 0)
    return r;
  if (look_after)
    mpx_connection_look(connection);
  else
    mpx_connection_look_in_time(connection);
  return queue_is_ready(connection->in, self, look_after);
}

static mpx_notice *connection_notice(void *object) {
  return queue_notice(((mproc_connection *)object)->in);
}

const mpx_watch *mpx_watch_of(mproc_wait_kind kind) {
  static const mpx_watch event = {MPX_KIND_EVENT, event_is_ready, event_notice},
                         queue = {MPX_KIND_QUEUE, queue_is_ready, queue_notice},
                         room = {MPX_KIND_QUEUE, room_is_ready, room_notice},
                         connection = {MPX_KIND_CONNECTION, connection_is_ready, connection_notice};
  switch (kind) {
  case MPROC_WAIT_EVENT:
    return &event;
  case MPROC_WAIT_QUEUE:
    return &queue;
  case MPROC_WAIT_QUEUE_ROOM:
    return &room;
  case MPROC_WAIT_CONNECTION:
    return &connection;
  case MPROC_WAIT_PROCESS:
  case MPROC_WAIT_READABLE:
  case MPROC_WAIT_WRITABLE:
    break;
  }
  return NULL;
}
