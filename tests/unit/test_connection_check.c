/* The check that other tests of pipes rely on: healthy ones pass in every state, and one that was
 * damaged in a single field does not. */
#include "damage.h"

#include "ipc/connection.h"

CHECK_OF(connection)

typedef struct pipe_ends {
  mproc_connection *first, *second;
} pipe_ends;

static pipe_ends new_pipe(const mproc_pipe_options *options) {
  pipe_ends ends;
  CHECK_EQ(mproc_pipe_create(options, &ends.first, &ends.second), 0);
  return ends;
}

static void check_both(pipe_ends ends) {
  check_passes(check_connection, ends.first);
  check_passes(check_connection, ends.second);
}

/* ---- healthy --------------------------------------------------------------------------------- */

TEST(healthy_pipes_pass) {
  const mproc_pipe_options sorts[] = {
      {.capacity = 0}, {.simplex = 1}, {.capacity = 2}, {.message_size = 1000}};
  for (size_t i = 0; i < sizeof sorts / sizeof sorts[0]; i++) {
    char text[3000] = {1};
    pipe_ends ends = new_pipe(&sorts[i]);
    check_both(ends);
    for (size_t size = 0; size < sizeof text; size = size * 2 + 1) {
      CHECK_EQ(mproc_connection_send(ends.second, text, size, 0), 0);
      check_both(ends);
      if (!sorts[i].simplex)
        CHECK_EQ(mproc_connection_send(ends.first, text, size, 0), 0);
      check_both(ends);
      CHECK_EQ(mproc_connection_recv_into(ends.first, text, sizeof text, NULL, 0), 0);
      check_both(ends);
      if (!sorts[i].simplex)
        CHECK_EQ(mproc_connection_recv_into(ends.second, text, sizeof text, NULL, 0), 0);
      check_both(ends);
    }
    CHECK_EQ(mproc_connection_close(i % 2 ? ends.first : ends.second), 0);
    check_passes(check_connection, i % 2 ? ends.second : ends.first);
    CHECK_EQ(mproc_connection_close(i % 2 ? ends.second : ends.first), 0);
    CHECK_EQ(mpx_connection_check(ends.first), MPROC_ECLOSED);
  }
}

static int receive_for_ever(void *arg, size_t size) {
  char text[8];
  (void)size;
  return mproc_connection_recv_into(*(mproc_connection **)arg, text, sizeof text, NULL,
                                    MPROC_FOREVER);
}

static int await_descriptor(void *arg, size_t size) {
  mproc_handle handle;
  int r = mproc_connection_recv_handle(*(mproc_connection **)arg, &handle, MPROC_FOREVER);
  return r == -ENOSYS ? sleep_for_long(arg, size) : r;
}

static int wait_for_message(void *arg, size_t size) {
  mproc_wait_item item = {.kind = MPROC_WAIT_CONNECTION, .object = *(void **)arg};
  (void)size;
  return mproc_wait(&item, 1, 0, MPROC_FOREVER);
}

/* One sleeps in an end, and is killed there: then the end is nobody's, until it is closed with the
 * other. */
TEST(waited_and_left_by_the_dead) {
  mproc_entry *const waits[] = {receive_for_ever, await_descriptor, wait_for_message};
  for (int i = 0; i < 3; i++) {
    char byte;
    pipe_ends ends = new_pipe(NULL);
    mproc_process *victim = start_by("fork", waits[i], &ends.second, sizeof ends.second);
    CHECK_EQ(mproc_connection_give(ends.second, mproc_process_pid(victim)), 0);
    check_both(ends);
    sleep_ms(30);
    check_both(ends);
    kill_child(victim);
    check_both(ends);
    CHECK_EQ(mproc_connection_recv_into(ends.first, &byte, 1, NULL, 1000), MPROC_ECLOSED);
    check_both(ends);
    CHECK_EQ(mproc_connection_close(ends.first), 0);
    CHECK_EQ(mproc_connection_close(ends.second), MPROC_ECLOSED);
  }
}

/* ---- damaged --------------------------------------------------------------------------------- */

static void check_finds_users(patient *p, mproc_connection *end) {
  const mpx_member self = mpx_family_self(), slot = (uint64_t)UINT32_MAX << 32;
  const mpx_member members[] = {0,
                                1,
                                self & slot,
                                self + 1,
                                self | UINT32_MAX,
                                (uint64_t)(mpx_family_header()->slots_used + 1) << 32 | 1,
                                slot | 1};
  for (size_t i = 0; i < sizeof members / sizeof members[0]; i++)
    CHECK_FINDS(p, end->user, members[i], "is of a process that never was");
}

static void check_finds_incoming(patient *p, mproc_connection *end) {
  check_finds_strangers(p, &end->incoming.receiver, "a thread that never was awaits");
  CHECK_FINDS(p, end->incoming.mailbox, (uint64_t)7 << 32 | 1, "nobody's mailbox");
  CHECK_FINDS(p, end->incoming.mailbox, 1, "nobody's mailbox");
  check_finds_strangers(p, &end->incoming.sender, "a thread that never was sends");
  end->incoming.receiver = own_name(); /* as one who died leaves it */
  CHECK_FINDS(p, end->incoming.mailbox, (uint64_t)7 << 32, "a mailbox of no process");
  end->incoming.receiver = 0;
}

/* What the check of the other end finds, too. */
static void check_finds_either(patient *p, pipe_ends ends, mproc_connection *end) {
  mpx_pipe_block *block = (mpx_pipe_block *)(void *)ends.first;
  mproc_queue *stranger;
  CHECK_EQ(mproc_queue_create(NULL, &stranger), 0);
  CHECK_FINDS(p, end->in, address(stranger), "directions do not meet");
  CHECK_FINDS(p, end->out, address(stranger), "directions do not meet");
  CHECK_FINDS(p, end->in, address(end->out), "directions do not meet");
  CHECK_FINDS(p, end->out, 0, "directions do not meet");
  CHECK_FINDS(p, end->in, 0, "directions do not meet");
  CHECK_FINDS(p, end->in->growing, 1, "a queue of another sort");
  CHECK_FINDS(p, end->in->joinable, 1, "a queue of another sort");
  CHECK_FINDS(p, end->in->object.kind, 0, "a direction of the pipe is no queue");
  CHECK_FINDS(p, end->in->object.kind, MPX_KIND_LOCK, "a direction of the pipe is no queue");
  CHECK_FINDS(p, end->in->first, address(stranger), "ring");
  CHECK_FINDS(p, end->in->not_empty.guard.word, 4, "the guard is held");
  CHECK_FINDS(p, end->out->not_full.bells.first, address(end), "is no chunk");
  CHECK_FINDS(p, ((uint8_t *)ends.first)[sizeof *end], 1, "behind the end");
  CHECK_FINDS(p, ((uint8_t *)&block->closed)[4], 1, "behind the end");
  CHECK_FINDS(p, ((uint8_t *)(block + 1))[-1], 1, "behind the end");
  CHECK_FINDS(p, block->closed, MPX_PIPE_FIRST, "closed and open");
  CHECK_FINDS(p, block->closed, MPX_PIPE_SECOND, "closed and open");
  CHECK_FINDS(p, block->closed, MPX_PIPE_BOTH, "the pipe is open and closed");
  CHECK_FINDS(p, block->closed, 4, "the pipe is open and closed");
  check_finds_users(p, end);
  check_finds_incoming(p, end);
  CHECK_EQ(mproc_queue_destroy(stranger), 0);
}

TEST(damage_is_found_from_either_end) {
  pipe_ends ends = new_pipe(NULL);
  for (int i = 0; i < 4; i++) {
    mproc_connection *own = i / 2 ? ends.second : ends.first;
    mproc_connection *end = i % 2 ? ends.second : ends.first;
    patient p = {own, check_connection, 0};
    CHECK_FINDS(&p, own->other, 0, "other end is elsewhere");
    CHECK_FINDS(&p, own->other, address(own), "other end is elsewhere");
    CHECK_FINDS(&p, own->other, address(&ends), "other end is elsewhere");
    CHECK_FINDS(&p, own->other, address(own->in), "other end is elsewhere");
    CHECK_FINDS(&p, own->other, address(own->other) + 64, "other end is elsewhere");
    CHECK_FINDS(&p, own->other->other, address(own->other), "other end has another one");
    CHECK_FINDS(&p, own->other->other, 0, "other end has another one");
    CHECK_FINDS(&p, own->other->object.kind, MPX_KIND_LOCK, "is no connection");
    CHECK_FINDS(&p, own->other->object.kind, 0, "half closed by a process that lives");
    CHECK(p.found < AT_LEAST);
    check_finds_either(&p, ends, end);
    CHECK(p.found >= 4 * AT_LEAST);
  }
  CHECK_EQ(mproc_connection_close(ends.first), 0);
  patient p = {ends.second, check_connection, 0};
  mpx_pipe_block *block = (mpx_pipe_block *)(void *)ends.first;
  CHECK_FINDS(&p, block->closed, 0, "half closed by a process that lives");
  CHECK_FINDS(&p, block->closed, MPX_PIPE_SECOND, "half closed by a process that lives");
  CHECK_FINDS(&p, ends.second->in->closed, 0, "a direction is not");
  CHECK_FINDS(&p, ends.second->out->closed, 0, "a direction is not");
  CHECK_FINDS(&p, ends.first->object.kind, MPX_KIND_CONNECTION, "closed and open");
  CHECK_EQ(mproc_connection_close(ends.second), 0);
}

TEST(damage_is_found_in_a_simplex_pipe) {
  pipe_ends ends = new_pipe(&(mproc_pipe_options){.simplex = 1});
  patient p = {ends.first, check_connection, 0};
  CHECK_FINDS(&p, ends.first->in, 0, "directions do not meet");
  CHECK_FINDS(&p, ends.first->out, address(ends.first->in), "directions do not meet");
  CHECK_FINDS(&p, ends.second->incoming.receiver, own_name(), "that only sends");
  CHECK_FINDS(&p, ends.second->incoming.sender, own_name(), "that only sends");
  CHECK_EQ(mproc_connection_close(ends.first), 0);
  CHECK_EQ(mproc_connection_close(ends.second), 0);
}
