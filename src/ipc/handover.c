/* Descriptors from end to end of a pipe. The heap carries none: the receiver opens a mailbox of the
 * kernel's and says its name, the sender connects to it. The kernel tells each who the other is, so
 * that a stranger who reads or takes the name gets nothing, and gives nothing. */
#include "base/error.h"
#include "ipc/connection.h"
#include "os/crash_point.h"
#include "sync/bell.h"

#include <errno.h>

static uint64_t mailbox_word(uint32_t name, int64_t pid) {
  return (uint64_t)name << 32 | (uint32_t)pid;
}

/* bell.os: the receiver's mailbox, and our end of the channel, which a forked child closes. */
enum { END };

static int64_t pid_of_user(mproc_connection *connection) {
  mpx_member user = atomic_load_explicit(&connection->user, memory_order_relaxed);
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), user);
  return slot ? mpx_slot_pid(slot) : 0;
}

/* Both have to be there: a try waits for the other as long as it may take to look. */
static int64_t deadline_of(int timeout_ms) {
  int64_t now = mpx_os_now();
  return timeout_ms == 0 ? now + MPX_LOOK_NS : mpx_deadline(now, timeout_ms);
}

static int64_t next_look(int64_t deadline) {
  int64_t look = mpx_os_now() + MPX_LOOK_NS;
  return deadline < look ? deadline : look;
}

/* Whether there is a reason to wait no longer: -ETIMEDOUT, MPROC_ECLOSED without a text. */
static int check_time(mproc_connection *connection, int64_t deadline) {
  if (mpx_connection_is_over(connection))
    return MPROC_ECLOSED;
  return mpx_os_now() >= deadline ? -ETIMEDOUT : 0;
}

/* Until the handle is readable; else as above. */
static int await(mproc_connection *connection, mproc_handle handle, int64_t deadline) {
  for (;;) {
    mpx_poll_item item = {.handle = handle};
    int r = mpx_os_poll(&item, 1, next_look(deadline));
    if (r == 0)
      r = check_time(connection, deadline);
    if (r != 0)
      return r < 0 ? r : 0;
  }
}

static void close_end(mpx_bell *bell) {
  mpx_bell_lock();
  mpx_os_close(bell->os.parts[END]);
  bell->os.parts[END] = MPX_NO_HANDLE;
  mpx_bell_unlock();
}

static int say(int r, int timeout_ms, const char *what) {
  if (r == MPROC_ECLOSED)
    return mpx_connection_say_over();
  if (r == -ETIMEDOUT || r == -EAGAIN)
    return mpx_timeout_fail(timeout_ms, what);
  if (r == -ENOSYS)
    return mpx_fail(r, "descriptors cannot be handed over on this system; pass them to a process "
                       "by mproc_process_options.inherit when it starts");
  return r < 0 ? mpx_fail_code(r, "the descriptor could not be handed over") : 0;
}

/* Of several the last to come is seen, until it goes itself. */
static void leave(_Atomic mpx_thread *place, mpx_thread self) {
  (void)atomic_compare_exchange_strong(place, &self, 0);
}

/* ---- receiving ------------------------------------------------------------------------------- */

static int accept_sender(mproc_connection *connection, mpx_bell *bell) {
  mpx_bell_lock();
  int r =
      mpx_os_mailbox_accept(bell->os.handle, pid_of_user(connection->other), &bell->os.parts[END]);
  mpx_bell_unlock();
  return r;
}

/* 1: there it is. 0: the sender went away before. */
static int take_handle(mpx_bell *bell, mproc_handle *ret_handle) {
  mpx_received received;
  char text[8];
  const mpx_os_bytes answer = {"", 1};
  int r = mpx_os_channel_take(bell->os.parts[END], text, sizeof text, false, &received);
  if (r <= 0)
    return r == -EAGAIN ? 0 : r;
  if (received.handle_count == 0)
    return -EMFILE;
  *ret_handle = received.handles[0];
  for (size_t i = 1; i < received.handle_count; i++)
    mpx_os_close(received.handles[i]);
  MPROC_CRASH_POINT("handover.taken");
  (void)mpx_os_channel_post(bell->os.parts[END], &answer, 1, NULL, 0, 0);
  return 1;
}

static int receive(mproc_connection *connection, mpx_bell *bell, int64_t deadline,
                   mproc_handle *ret_handle) {
  for (;;) {
    int r = await(connection, bell->os.handle, deadline);
    if (r == 0)
      r = accept_sender(connection, bell);
    if (r == -EAGAIN) { /* a stranger; there may always be one */
      r = check_time(connection, deadline);
      if (r == 0)
        continue;
    }
    if (r == 0)
      r = await(connection, bell->os.parts[END], deadline);
    if (r == 0)
      r = take_handle(bell, ret_handle);
    close_end(bell);
    if (r != 0)
      return r < 0 ? r : 0;
  }
}

int mproc_connection_recv_handle(mproc_connection *connection, mproc_handle *ret_handle,
                                 int timeout_ms) {
  mpx_bell bell;
  mpx_thread self;
  int64_t deadline = deadline_of(timeout_ms);
  int r = mpx_connection_enter(connection, false, timeout_ms, &self);
  if (r == 0)
    r = mpx_check_not_null(ret_handle, "ret_handle");
  if (r < 0)
    return r;
  mpx_os_cancel_hold(); /* the bell's place is on this stack */
  r = mpx_bell_open_mailbox(&bell);
  if (r == 0) {
    atomic_store(&connection->incoming.receiver, self);
    uint64_t word = mailbox_word(bell.os.name, mpx_os_pid());
    atomic_store(&connection->incoming.mailbox, word);
    mpx_turn_next(&connection->incoming.turn, MPX_TURN_ALL);
    MPROC_CRASH_POINT("handover.offered");
    r = receive(connection, &bell, deadline, ret_handle);
    (void)atomic_compare_exchange_strong(&connection->incoming.mailbox, &word, 0);
    leave(&connection->incoming.receiver, self);
    mpx_bell_close(&bell);
  }
  mpx_os_cancel_release();
  return say(r, timeout_ms, "no descriptor was sent");
}

/* ---- sending --------------------------------------------------------------------------------- */

static int await_mailbox(mproc_connection *connection, int64_t deadline, uint64_t *ret_word) {
  mpx_handover *to = &connection->other->incoming;
  for (;;) {
    uint32_t seen = mpx_turn_prepare(&to->turn);
    *ret_word = atomic_load(&to->mailbox);
    if (*ret_word)
      return 0;
    if (mpx_connection_is_over(connection))
      return MPROC_ECLOSED;
    if (!mpx_turn_sleep(&to->turn, seen, deadline))
      return -ETIMEDOUT;
  }
}

static int connect_to(uint64_t word, mpx_bell *bell) {
  mpx_bell_lock();
  int r =
      mpx_os_mailbox_connect((uint32_t)(word >> 32), (int64_t)(uint32_t)word, &bell->os.parts[END]);
  mpx_bell_unlock();
  return r;
}

/* 1: received. 0: not, by this mailbox. */
static int hand_over(mproc_connection *connection, mpx_bell *bell, uint64_t word,
                     mproc_handle handle, int64_t deadline) {
  const mpx_os_bytes bytes = {"", 1};
  mpx_received answer;
  char text[8];
  int r = connect_to(word, bell);
  /* alive: so it has been its own pid since it said so, and nobody else's who took the name */
  if (r == 0 && (mpx_connection_is_over(connection) ||
                 pid_of_user(connection->other) != (int64_t)(uint32_t)word))
    r = -ECONNREFUSED;
  if (r == -ECONNREFUSED) /* a dead receiver's */
    (void)atomic_compare_exchange_strong(&connection->other->incoming.mailbox, &word, 0);
  if (r == -ECONNREFUSED || r == -EAGAIN)
    return 0;
  if (r == 0)
    r = mpx_os_channel_post(bell->os.parts[END], &bytes, 1, &handle, 1, deadline);
  if (r == 0)
    r = await(connection, bell->os.parts[END], deadline);
  if (r == 0)
    r = mpx_os_channel_take(bell->os.parts[END], text, sizeof text, false, &answer);
  return r == -EPIPE || r == -ECONNRESET ? 0 : r;
}

static int send_handle(mproc_connection *connection, mproc_handle handle, int64_t deadline) {
  mpx_bell bell;
  mpx_bell_keep(&bell);
  for (;;) {
    uint64_t word;
    int r = await_mailbox(connection, deadline, &word);
    if (r == 0)
      r = hand_over(connection, &bell, word, handle, deadline);
    close_end(&bell);
    if (r == 0 && mpx_os_now() >= deadline)
      r = -ETIMEDOUT;
    if (r != 0) {
      mpx_bell_close(&bell);
      return r < 0 ? r : 0;
    }
    mpx_os_sleep(MPX_NS_PER_MS); /* the receiver turned away: it says so soon */
  }
}

int mproc_connection_send_handle(mproc_connection *connection, mproc_handle handle,
                                 int timeout_ms) {
  mpx_thread self;
  int64_t deadline = deadline_of(timeout_ms);
  int r = mpx_connection_enter(connection, true, timeout_ms, &self);
  if (r == 0 && !mpx_os_handle_is_open(handle))
    r = mpx_fail(-EBADF, "the descriptor %lld is not open", (long long)handle);
  if (r < 0)
    return r;
  mpx_os_cancel_hold();
  atomic_store(&connection->other->incoming.sender, self);
  r = send_handle(connection, handle, deadline);
  leave(&connection->other->incoming.sender, self);
  mpx_os_cancel_release();
  return say(r, timeout_ms, "the other end has not received the descriptor");
}
