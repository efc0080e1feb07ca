/* Askers, servers and workers of the forkserver die at each named place. Nobody hangs, whoever is
 * left goes on, and a second later nothing of the dead is there: no process, no slot. */
#include "forkserver.h"
#include "harness.h"
#include "members.h"

enum { SOON_MS = 5000, ROUNDS = 3 };

static void begin(void) {
  SKIP_WITHOUT_CRASH_POINTS();
  (void)server_of(NULL);
}

static int live_members(void) {
  mpx_header *header = mpx_family_header();
  int count = 0;
  for (uint32_t i = 0; i < header->slots_used; i++)
    count += (header->slots[i].tag & 0xff) == MPX_SLOT_RUNNING && !is_gone(header->slots[i].pid);
  return count;
}

/* The processes end by themselves; the slots are found by the starts that follow. */
static void check_nothing_left(int slots, int members) {
  for (int64_t end = now_ms() + GONE_MS; live_members() > members; sleep_ms(2))
    CHECK(now_ms() < end);
  AWAIT((check_exited(ask(return_code, &(int){0}, sizeof(int)), 0), used_slots() <= slots));
  CHECK_EQ(live_members(), members); /* also after a server that was still to become a member */
}

/* Settings of their own, and so a server. */
static int preload_nothing(void) {
  return 0;
}

static mproc_context *own_context(int spares) {
  mproc_preload *const preload[] = {preload_nothing};
  return new_context(preload, 1, spares);
}

/* ---- the asker dies -------------------------------------------------------------------------- */

typedef struct order {
  char point[48];
  int spares, daemon, warm;
  board *b;
} order;

static int work_on(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->pid = getpid();
  sleep_ms(100);
  return 0;
}

static int ask_and_die(void *arg, size_t size) {
  const order *o = arg;
  (void)size;
  mproc_context *context = own_context(o->spares);
  if (o->warm)
    AWAIT(count_children(server_of(context)) == o->spares);
  CHECK_EQ(setenv("MPROC_CRASH", o->point, 1), 0);
  const mproc_process_options options = {
      .method = "forkserver", .context = context, .daemon = o->daemon};
  (void)start_with(&options, work_on, &o->b, sizeof o->b);
  return 1;
}

static void asker_dies(const char *point, int warm) {
  begin();
  check_exited(start_by("fork", return_code, &(int){0}, sizeof(int)), 0);
  int slots = used_slots(), members = live_members();
  for (int round = 0; round < 4 * ROUNDS; round++) {
    order o = {.spares = round % 2 * 2, .daemon = round / 2 % 2, .warm = warm, .b = new_board()};
    snprintf(o.point, sizeof o.point, "%s", point);
    check_killed(start_by("fork", ask_and_die, &o, sizeof o), SIGKILL);
    check_nothing_left(slots, members);
    CHECK_EQ(mproc_heap_free(o.b), 0);
  }
}

TEST(asker_dies_when_it_has_asked) {
  asker_dies("forkserver.asked", 1);
}

TEST(asker_dies_with_its_first_request) {
  asker_dies("forkserver.asked", 0);
}

TEST(asker_dies_when_the_gate_is_open) {
  asker_dies("forkserver.gate_open", 1);
}

TEST(asker_dies_before_it_makes_the_server) {
  asker_dies("server.prepared", 0);
}

TEST(asker_dies_when_it_has_made_the_server) {
  asker_dies("server.executed", 0);
}

TEST(asker_dies_when_it_has_claimed_a_slot) {
  asker_dies("start.prepared", 1);
}

/* ---- the server dies ------------------------------------------------------------------------- */

/* Starts by a server that has the crash point in its environment, and then without it. */
static void server_dies(const char *point, int spares, int expected) {
  const mproc_process_options plain = {.method = "forkserver"};
  begin();
  int slots = used_slots(), members = live_members();
  for (int round = 0; round < ROUNDS; round++) {
    mproc_process_options options = plain;
    mproc_context *context = own_context(spares);
    options.context = context;
    const int code = 7;
    mproc_process *process = create_with(&options, return_code, &code, sizeof code);
    CHECK_EQ(setenv("MPROC_CRASH", point, 1), 0);
    int64_t begin = now_ms();
    int r = mproc_process_start(process);
    CHECK_EQ(unsetenv("MPROC_CRASH"), 0);
    CHECK(now_ms() - begin < SOON_MS);
    CHECK(r == expected ||
          (r == 0 && strcmp(point, "server.forked") == 0)); /* the worker may be quicker */
    if (r < 0) {
      CHECK_CONTAINS(mproc_error_detail(), expected == MPROC_EBOOT ? "killed" : "killing");
      CHECK_EQ(mproc_process_start(process), 0);
    }
    check_exited(process, code);
    check_exited(ask_context(context, return_code, &code, sizeof code), code);
    mproc_context_destroy(context);
    check_nothing_left(slots, members);
  }
}

TEST(server_dies_in_its_birth) {
  server_dies("server.attached", 0, MPROC_EBOOT);
}

TEST(server_dies_when_it_is_ready) {
  server_dies("server.ready", 0, MPROC_ESERVER);
}

TEST(server_dies_when_it_has_forked) {
  server_dies("server.forked", 0, MPROC_ESERVER);
}

TEST(server_dies_when_it_has_written_a_status) {
  server_dies("server.relayed", 0, 0);
}

TEST(server_with_spares_dies_when_it_has_written_a_status) {
  server_dies("server.relayed", 2, 0);
}

/* ---- the worker dies, or stops ----------------------------------------------------------------*/

/* A server whose workers die at this point, until it is replaced. The variable stays: a worker has
 * its asker's environment in the end. */
static mproc_context *deadly_context(const char *point, int spares) {
  mproc_context *context = own_context(spares);
  CHECK_EQ(setenv("MPROC_CRASH", point, 1), 0);
  CHECK_EQ(mproc_context_refresh(context), 0);
  return context;
}

static void refresh(mproc_context *context) {
  CHECK_EQ(unsetenv("MPROC_CRASH"), 0);
  CHECK_EQ(mproc_context_refresh(context), 0);
}

/* The start fails at once and says so; it does not wait for its limit of a minute. */
static void worker_dies(const char *point, int spares) {
  begin();
  int slots = used_slots(), members = live_members();
  const int code = 7;
  for (int round = 0; round < ROUNDS; round++) {
    mproc_context *context = deadly_context(point, spares);
    const mproc_process_options options = {.method = "forkserver", .context = context};
    mproc_process *process = create_with(&options, return_code, &code, sizeof code);
    for (int i = 0; i < 2; i++) {
      int64_t begin = now_ms();
      CHECK_EQ(mproc_process_start(process), MPROC_EBOOT);
      CHECK_CONTAINS(mproc_error_detail(), "killed by SIGKILL");
      CHECK(now_ms() - begin < SOON_MS);
    }
    refresh(context);
    CHECK_EQ(mproc_process_start(process), 0);
    check_exited(process, code);
    mproc_context_destroy(context);
    check_nothing_left(slots, members);
  }
}

TEST(worker_dies_when_it_is_born) {
  worker_dies("worker.born", 0);
}

TEST(worker_dies_when_it_is_a_member) {
  worker_dies("worker.member", 0);
}

TEST(worker_dies_before_its_entry) {
  worker_dies("worker.ready", 0);
}

TEST(spare_dies_when_it_is_a_member) {
  worker_dies("worker.member", 2);
}

TEST(spare_dies_before_its_entry) {
  worker_dies("worker.ready", 2);
}

/* It has the request, and nobody knows: the start comes through another way or says so. */
TEST(spare_dies_with_the_request_in_its_hands) {
  begin();
  int slots = used_slots(), members = live_members();
  const int code = 7;
  mproc_context *context = deadly_context("spare.taken", 2);
  for (int round = 0; round < ROUNDS; round++) {
    const mproc_process_options options = {
        .method = "forkserver", .context = context, .start_timeout_ms = SOON_MS};
    mproc_process *process = create_with(&options, return_code, &code, sizeof code);
    int64_t begin = now_ms();
    int r = mproc_process_start(process);
    CHECK(now_ms() - begin < 1000);
    CHECK(r == 0 || r == MPROC_EBOOT);
    if (r == 0)
      check_exited(process, code);
    else
      CHECK_EQ(mproc_process_close(process), 0);
  }
  refresh(context);
  check_exited(ask_context(context, return_code, &code, sizeof code), code);
  mproc_context_destroy(context);
  check_nothing_left(slots, members);
}

static void worker_stops(const char *point, int spares) {
  begin();
  int slots = used_slots(), members = live_members();
  const int code = 7;
  char stop[64];
  snprintf(stop, sizeof stop, "%s:stop", point);
  mproc_context *context = deadly_context(stop, spares);
  const mproc_process_options options = {
      .method = "forkserver", .context = context, .start_timeout_ms = 300};
  mproc_process *process = create_with(&options, return_code, &code, sizeof code);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_process_start(process), -ETIMEDOUT);
  CHECK(now_ms() - begin < SOON_MS);
  refresh(context);
  CHECK_EQ(mproc_process_start(process), 0);
  check_exited(process, code);
  mproc_context_destroy(context);
  check_nothing_left(slots, members);
}

TEST(worker_stops_when_it_is_a_member) {
  worker_stops("worker.member", 0);
}

TEST(worker_stops_before_its_entry) {
  worker_stops("worker.ready", 0);
}

TEST(spare_stops_before_its_entry) {
  worker_stops("worker.ready", 2);
}

TEST(server_stops_when_it_has_forked) {
  begin();
  const int code = 7;
  mproc_context *context = deadly_context("server.forked:stop", 0);
  const mproc_process_options options = {.method = "forkserver", .context = context};
  /* The worker is there and needs no server to live and to end. */
  mproc_process *process = start_with(&options, return_code, &code, sizeof code);
  check_exited(process, code);
  int64_t pids[8];
  pid_t runner = getppid();
  int count = children_of(runner, pids, 8);
  for (int i = 0; i < count; i++)
    if (state_of(pids[i]) == 'T')
      CHECK_EQ(kill((pid_t)pids[i], SIGCONT), 0);
  mproc_context_destroy(context);
}
