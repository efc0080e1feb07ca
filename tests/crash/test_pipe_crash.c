/* Pipes, and what tells those who wait for objects: a process dies, or is stopped for a while, at
 * each named place. The others go on, and nothing is left of the dead. */
#include "harness.h"
#include "latency.h"
#include "members.h"

#include "ipc/connection.h"
#include "sync/check.h"

#include <stdatomic.h>

/* A notifier's timer comes every 100 ms, and what it finds is to be said; a process, to end. */
enum { DRAIN_MS = 1000, SOON_MS = 1000, LONG_MS = 15000, OWN_MS = 10 };

/* In the shared heap. */
typedef struct board {
  mproc_connection *first, *second; /* the partner's, the victim's */
  mproc_event *event, *other;
  mproc_queue *queue;
  _Atomic int ready, go;
} board;

static board *new_board(void) {
  const mproc_queue_options two = {.capacity = 2};
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_pipe_create(NULL, &b->first, &b->second), 0);
  CHECK_EQ(mproc_event_create(&b->event), 0);
  CHECK_EQ(mproc_event_create(&b->other), 0);
  CHECK_EQ(mproc_queue_create(&two, &b->queue), 0);
  return b;
}

/* The second end may be closed by the victim. */
static void check_whole(const board *b) {
  check_is_whole(mpx_connection_check(b->first));
  int r = mpx_connection_check(b->second);
  check_is_whole(r == MPROC_ECLOSED ? 0 : r);
  check_is_whole(mpx_event_check(b->event));
  check_is_whole(mpx_event_check(b->other));
  check_is_whole(mpx_queue_check(b->queue));
}

/* The partner's end last: the victim's comes back with it, closed or not. */
static void free_board(board *b) {
  check_whole(b);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  int r = mproc_connection_close(b->second);
  CHECK(r == 0 || r == MPROC_ECLOSED);
  CHECK_EQ(mproc_event_destroy(b->event), 0);
  CHECK_EQ(mproc_event_destroy(b->other), 0);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static holdings before;

static void begin(void) {
  SKIP_WITHOUT_CRASH_POINTS();
  check_family_works();
  board *b = new_board();
  mproc_handle handle;
  int r = mproc_connection_recv_handle(b->first, &handle, 0);
  free_board(b);
  if (r == -ENOSYS)
    SKIP("no descriptors between processes, and no bells, on this system");
  drain_closed();
  check_alone(DRAIN_MS);
  before = count_holdings();
}

static void check_nothing_left(const char *what) {
  drain_closed();
  check_drained(&before, DRAIN_MS, what);
}

static mproc_process *start_at(const char *point, const char *method, mproc_entry *entry,
                               board *b) {
  setenv("MPROC_CRASH", point, 1);
  mproc_process *process = start_by(method, entry, &b, sizeof b);
  unsetenv("MPROC_CRASH");
  return process;
}

/* Of those who hear nothing, as who would tell them is dead, or stopped. */
static void check_soon(latency told, const char *what) {
  latency_end(&told, OWN_MS, what);
  CHECK(UNDER_SANITIZER || test_under_valgrind() || told.took < SOON_MS * 1000LL);
}

static mproc_wait_item item_of(mproc_wait_kind kind, void *object) {
  return (mproc_wait_item){.kind = kind, .object = object};
}

/* ---- closing --------------------------------------------------------------------------------- */

static int send_and_close(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(mproc_connection_send(b->second, "last", 4, 0), 0);
  b->ready = 1;
  AWAIT(b->go);
  CHECK_EQ(mproc_connection_close(b->second), 0);
  return 0;
}

/* What was sent comes, and then the end. */
static void check_end(board *b) {
  char text[8];
  size_t size;
  CHECK_EQ(mproc_connection_recv_into(b->first, text, sizeof text, &size, LONG_MS), 0);
  CHECK_EQ(size, 4);
  CHECK_EQ(memcmp(text, "last", 4), 0);
  const latency told = latency_begin();
  CHECK_EQ(mproc_connection_recv_into(b->first, text, sizeof text, &size, LONG_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, LONG_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, LONG_MS), MPROC_ECLOSED);
  check_soon(told, "a close");
}

static void dies_closing(const char *point) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    mproc_process *victim = start_at(point, method, send_and_close, b);
    AWAIT(b->ready);
    b->go = 1;
    check_end(b);
    check_killed(victim, SIGKILL);
    free_board(b);
    check_nothing_left(point);
  }
  latency_report(point);
}

/* Its process is dead before it has a cell, and nobody has taken its status: its parent waits. */
TEST_LIMIT(dies_before_it_has_begun, 60) {
  static const char *const points[] = {"table.taken", "family.taken", "cell.taken", "cell.locked"};
  begin();
  FOR_ALL_METHODS(method)
  for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
    board *b = new_board();
    char text[8];
    const mproc_process_options options = {.method = method};
    mproc_process *process = create_with(&options, send_and_close, &b, sizeof b);
    setenv("MPROC_CRASH", points[i], 1);
    int r = mproc_process_start(process);
    unsetenv("MPROC_CRASH");
    if (r == 0) { /* some methods tell */
      CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
      CHECK_EQ(mproc_connection_recv_into(b->first, text, sizeof text, NULL, MPROC_FOREVER),
               MPROC_ECLOSED);
      check_killed(process, SIGKILL);
    } else {
      CHECK_EQ(mproc_process_close(process), 0);
    }
    free_board(b);
    check_nothing_left(points[i]);
  }
}

enum { SIZES = 8, EACH = 32, OTHERS = SIZES * EACH, PATTERN = 0x50 };

/* All that was freed, and is as large as a pipe may be. */
static void take_memory(unsigned char **others) {
  for (size_t i = 0; i < OTHERS; i++) {
    size_t size = (i / EACH + 1) * 64;
    CHECK((others[i] = mproc_heap_alloc(size)) != NULL);
    memset(others[i], PATTERN, size);
  }
}

/* Nobody else has written into it. */
static void give_memory(unsigned char **others) {
  for (size_t i = 0; i < OTHERS; i++) {
    for (size_t at = 0; at < (i / EACH + 1) * 64; at++)
      CHECK_EQ(others[i][at], PATTERN);
    CHECK_EQ(mproc_heap_free(others[i]), 0);
  }
}

/* Alive, in the middle of it: the other end is told; the pipe is there until both are done. */
static void stops_closing(const char *point) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    mproc_process *victim = start_at(point, method, send_and_close, b);
    AWAIT(b->ready);
    b->go = 1;
    CHECK(stopped_within(mproc_process_pid(victim), JOIN_MS));
    check_end(b);
    CHECK_EQ(mproc_connection_close(b->first), 0);
    CHECK_EQ(mproc_connection_close(b->second), MPROC_ECLOSED);
    drain_closed();
    unsigned char *others[OTHERS];
    take_memory(others);
    sleep_ms(200);
    CHECK_EQ(kill((pid_t)mproc_process_pid(victim), SIGCONT), 0);
    check_exited(victim, 0);
    give_memory(others);
    CHECK_EQ(mproc_pipe_create(NULL, &b->first, &b->second), 0);
    free_board(b);
    check_nothing_left(point);
  }
}

TEST_LIMIT(dies_when_one_direction_is_closed, 60) {
  dies_closing("connection.half_closed");
}

TEST_LIMIT(stops_when_one_direction_is_closed, 60) {
  stops_closing("connection.half_closed:stop");
}

TEST_LIMIT(dies_when_both_directions_are_closed, 60) {
  dies_closing("connection.closed");
}

TEST_LIMIT(stops_when_both_directions_are_closed, 60) {
  stops_closing("connection.closed:stop");
}

/* Its end had no other user: whoever closes the partner's frees both. */
TEST_LIMIT(dies_and_only_the_other_end_is_closed, 60) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    mproc_process *victim = start_at("connection.half_closed", method, send_and_close, b);
    b->go = 1;
    check_killed(victim, SIGKILL);
    CHECK_EQ(mproc_connection_close(b->first), 0);
    CHECK_EQ(mproc_connection_close(b->second), MPROC_ECLOSED);
    CHECK_EQ(mproc_pipe_create(NULL, &b->first, &b->second), 0);
    free_board(b);
    check_nothing_left("a close of the other end");
  }
}

/* ---- handing over ---------------------------------------------------------------------------- */

static int receive_one(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_handle handle;
  (void)size;
  CHECK_EQ(mproc_connection_recv_handle(b->second, &handle, LONG_MS), 0);
  CHECK_EQ(close((int)handle), 0);
  return 0;
}

/* The sender is told, and the next receiver gets it; the sender's own was never lost. */
static void dies_receiving(const char *point) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    int ends[2];
    char text[2];
    CHECK_EQ(pipe(ends), 0);
    mproc_process *victim = start_at(point, method, receive_one, b);
    CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(victim)), 0);
    CHECK_EQ(mproc_connection_send_handle(b->first, ends[1], LONG_MS), MPROC_ECLOSED);
    check_killed(victim, SIGKILL);
    CHECK_EQ(mproc_connection_give(b->second, getpid()), 0);
    mproc_process *next = start_by(method, receive_one, &b, sizeof b);
    CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(next)), 0);
    int64_t since = now_ms();
    CHECK_EQ(mproc_connection_send_handle(b->first, ends[1], LONG_MS), 0);
    CHECK(now_ms() - since < LONG_MS);
    check_exited(next, 0);
    CHECK_EQ(close(ends[1]), 0);
    CHECK_EQ(read(ends[0], text, 2), 0); /* nobody has a copy */
    CHECK_EQ(close(ends[0]), 0);
    free_board(b);
    check_nothing_left(point);
  }
}

static void stops_receiving(const char *point) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    mproc_process *victim = start_at(point, method, receive_one, b);
    CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(victim)), 0);
    CHECK_EQ(mproc_connection_send_handle(b->first, 0, 300), -ETIMEDOUT);
    CHECK(stopped_within(mproc_process_pid(victim), JOIN_MS));
    CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), 0);
    CHECK_EQ(kill((pid_t)mproc_process_pid(victim), SIGCONT), 0);
    /* it has taken the first one, or gets this one */
    int r = mproc_connection_send_handle(b->first, 0, LONG_MS);
    CHECK(r == 0 || r == MPROC_ECLOSED);
    check_exited(victim, 0);
    free_board(b);
    check_nothing_left(point);
  }
}

TEST_LIMIT(dies_with_a_descriptor_that_it_just_got, 60) {
  dies_receiving("handover.taken");
}

TEST_LIMIT(stops_with_a_descriptor_that_it_just_got, 60) {
  stops_receiving("handover.taken:stop");
}

TEST_LIMIT(dies_when_its_mailbox_is_open, 60) {
  dies_receiving("handover.offered");
}

TEST_LIMIT(stops_when_its_mailbox_is_open, 60) {
  stops_receiving("handover.offered:stop");
}

/* ---- telling --------------------------------------------------------------------------------- */

static int set_event(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  AWAIT(b->go);
  CHECK_EQ(mproc_event_set(b->event), 0);
  return 0;
}

static int put_message(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  AWAIT(b->go);
  CHECK_EQ(mproc_queue_put(b->queue, "a", 1, 0), 0);
  return 0;
}

static int send_message(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  AWAIT(b->go);
  CHECK_EQ(mproc_connection_send(b->second, "a", 1, 0), 0);
  return 0;
}

static int wait_for_all(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                             item_of(MPROC_WAIT_QUEUE, b->queue),
                             item_of(MPROC_WAIT_CONNECTION, b->first)};
  (void)size;
  b->ready = 1;
  CHECK_EQ(mproc_wait(items, 3, 0, LONG_MS), 1);
  return 0;
}

static mproc_notifier *notifier_of(board *b) {
  const mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                                   item_of(MPROC_WAIT_QUEUE, b->queue),
                                   item_of(MPROC_WAIT_CONNECTION, b->first)};
  mproc_notifier *notifier;
  CHECK_EQ(mproc_notifier_create(items, 3, &notifier), 0);
  return notifier;
}

static void await_notice(mproc_notifier *notifier) {
  struct pollfd item = {.fd = (int)mproc_notifier_handle(notifier), .events = POLLIN};
  do /* now and then it looks by itself */
    CHECK_EQ(poll(&item, 1, LONG_MS), 1);
  while (mproc_notifier_reset(notifier) == 0);
}

/* Sleepers were woken or not, bells were not rung: who waits and who has a notifier hears all the
 * same, though the victim is dead, or stopped, from then on. */
static void falls_silent(const char *point, mproc_entry *entry, bool is_dead) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    mproc_notifier *notifier = notifier_of(b);
    mproc_process *waiter = start_by("fork", wait_for_all, &b, sizeof b);
    mproc_process *victim = start_at(point, method, entry, b);
    AWAIT(b->ready && state_of(mproc_process_pid(waiter)) == 'S');
    b->go = 1;
    if (!is_dead)
      CHECK(stopped_within(mproc_process_pid(victim), JOIN_MS));
    else
      check_killed(victim, SIGKILL);
    const latency told = latency_begin();
    await_notice(notifier);
    check_exited(waiter, 0);
    check_soon(told, point);
    if (!is_dead) {
      CHECK_EQ(kill((pid_t)mproc_process_pid(victim), SIGCONT), 0);
      check_exited(victim, 0);
    }
    mproc_notifier_destroy(notifier);
    free_board(b);
    check_nothing_left(point);
  }
  latency_report(point);
}

#define FALLS_SILENT(name, point, entry)                                                           \
  TEST_LIMIT(dies_##name, 60) {                                                                    \
    falls_silent(point, entry, true);                                                              \
  }                                                                                                \
  TEST_LIMIT(stops_##name, 60) {                                                                   \
    falls_silent(point ":stop", entry, false);                                                     \
  }

FALLS_SILENT(before_it_rings_for_an_event, "notice.woken", set_event)
FALLS_SILENT(before_it_rings_for_a_message, "notice.woken", put_message)
FALLS_SILENT(before_it_rings_for_a_connection, "notice.woken", send_message)
FALLS_SILENT(while_it_rings_for_an_event, "notice.rings", set_event)
FALLS_SILENT(while_it_rings_for_a_message, "notice.rings", put_message)

/* The one who waited has what it waited for, and destroys it under the one who still rings. */
static void destroy_and_use(board *b) {
  void *blocks[64];
  CHECK_EQ(mproc_event_destroy(b->event), 0);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  for (int i = 0; i < 64; i++) { /* as large as the lists of who listens */
    CHECK((blocks[i] = mproc_heap_alloc(512)) != NULL);
    memset(blocks[i], 0xa5, 512);
  }
  sleep_ms(200);
  for (int i = 0; i < 64; i++)
    CHECK_EQ(mproc_heap_free(blocks[i]), 0);
}

static void destroyed_under_ringer(mproc_entry *entry) {
  const mproc_queue_options two = {.capacity = 2};
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    mproc_notifier *notifier = notifier_of(b);
    mproc_process *victim = start_at("notice.rings:stop", method, entry, b);
    char text[4];
    b->go = 1;
    await_notice(notifier);
    CHECK(stopped_within(mproc_process_pid(victim), JOIN_MS));
    mproc_notifier_destroy(notifier);
    if (entry == put_message)
      CHECK_EQ(mproc_queue_get(b->queue, text, sizeof text, NULL, 0), 0);
    destroy_and_use(b);
    CHECK_EQ(kill((pid_t)mproc_process_pid(victim), SIGCONT), 0);
    check_exited(victim, 0);
    CHECK_EQ(mproc_event_create(&b->event), 0);
    CHECK_EQ(mproc_queue_create(&two, &b->queue), 0);
    free_board(b);
    check_nothing_left("a ring for what is gone");
  }
}

TEST_LIMIT(event_is_destroyed_while_it_rings, 60) {
  destroyed_under_ringer(set_event);
}

TEST_LIMIT(queue_is_destroyed_while_it_rings, 60) {
  destroyed_under_ringer(put_message);
}

/* ---- listening ------------------------------------------------------------------------------- */

/* In each of the three objects, by the count after the point's name. */
static void dies_listening(const char *point) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    check_killed(start_at(point, method, wait_for_all, b), SIGKILL);
    mproc_notifier *notifier = notifier_of(b);
    b->ready = 0;
    mproc_process *waiter = start_by(method, wait_for_all, &b, sizeof b);
    AWAIT(b->ready);
    const latency told = latency_begin();
    CHECK_EQ(mproc_event_set(b->event), 0);
    await_notice(notifier);
    check_soon(told, point);
    check_exited(waiter, 0);
    mproc_notifier_destroy(notifier);
    free_board(b);
    check_nothing_left(point);
  }
}

TEST_LIMIT(dies_when_it_listens_to_an_event, 60) {
  dies_listening("notice.listens");
}

TEST_LIMIT(dies_when_it_listens_to_a_queue, 60) {
  dies_listening("notice.listens:2");
}

TEST_LIMIT(dies_when_it_listens_to_a_connection, 60) {
  dies_listening("notice.listens:3");
}

/* It holds the list's guard: others wait without a bell, which costs them 50 ms. */
TEST_LIMIT(stops_when_it_listens_to_an_event, 60) {
  begin();
  FOR_ALL_METHODS(method) {
    board *b = new_board();
    mproc_process *victim = start_at("notice.listens:stop", method, wait_for_all, b);
    CHECK(stopped_within(mproc_process_pid(victim), JOIN_MS));
    b->ready = 0;
    mproc_process *waiter = start_by(method, wait_for_all, &b, sizeof b);
    AWAIT(b->ready);
    sleep_ms(200);
    const latency told = latency_begin();
    CHECK_EQ(mproc_event_set(b->event), 0);
    check_exited(waiter, 0);
    check_soon(told, "notice.listens:stop");
    CHECK_EQ(mproc_event_destroy(b->event), -EBUSY);
    CHECK_EQ(kill((pid_t)mproc_process_pid(victim), SIGCONT), 0);
    check_exited(victim, 0);
    free_board(b);
    check_nothing_left("a listener that was stopped");
  }
}
