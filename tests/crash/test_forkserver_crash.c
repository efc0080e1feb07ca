/* Askers, servers and workers of the forkserver die at each named place. Nobody hangs, whoever is
 * left goes on, and a second later nothing of the dead is there: no process, no slot. */
#include "forkserver.h"
#include "harness.h"
#include "members.h"

#include "process/server.h"

#include <sys/prctl.h>

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

/* ---- the server dies, and its page is another's ---------------------------------------------- */

/* A server that is killed while an asker, a forked child of the case, is stopped on its way to it,
 * and the server of another process that takes the page which the asker goes on to read. */
typedef struct succession {
  mproc_context *context;
  mpx_server_public *page;
  mpx_member server; /* the killed one */
  mproc_process *asker, *heir;
  board *of_asker, *of_heir;
} succession;

static mpx_server_public *page_of(int64_t server) {
  mpx_header *header = mpx_family_header();
  for (int i = 0; i < MPX_SERVER_COUNT; i++) {
    mpx_server_public *page = (mpx_server_public *)(void *)&header->servers[i];
    const mpx_slot *slot = mpx_table_slot(header, page->owner);
    if (slot && slot->pid == server)
      return page;
  }
  test_fail(__FILE__, __LINE__, "the server has a page", NULL);
}

static void lose_new_privileges(void) {
  CHECK_EQ(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
}

static int tell_new_privileges(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->code = prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0);
  b->count++;
  return 0;
}

/* The variable lies in the shared heap: who is stopped is told there where to stop next. */
static int lose_privileges_and_ask(void *arg, size_t size) {
  const succession *s = arg;
  (void)size;
  lose_new_privileges();
  CHECK_EQ(putenv(s->of_asker->text), 0);
  check_exited(ask_context(s->context, tell_new_privileges, &s->of_asker, sizeof(board *)), 0);
  return 0;
}

static int have_the_next_server(void *arg, size_t size) {
  const succession *s = arg;
  (void)size;
  lose_new_privileges();
  s->of_heir->server = server_of(s->context);
  AWAIT(s->of_heir->go);
  return 0;
}

/* `waiting`: the processes that the asker has when it stops at `point`. */
static succession succeed(int spares, const char *point, int waiting) {
  succession s = {.context = own_context(spares), .of_asker = new_board(), .of_heir = new_board()};
  int64_t server = server_of(s.context);
  AWAIT(count_children(server) == spares);
  s.page = page_of(server);
  s.server = s.page->owner;
  int members = live_members();
  snprintf(s.of_asker->text, sizeof s.of_asker->text, "MPROC_CRASH=%s:stop", point);
  s.asker = start_by("fork", lose_privileges_and_ask, &s, sizeof s);
  CHECK(stopped_within(mproc_process_pid(s.asker), JOIN_MS));
  AWAIT(live_members() == members + 1 + waiting);
  kill_process(server);
  s.heir = start_by("fork", have_the_next_server, &s, sizeof s);
  AWAIT(s.of_heir->server);
  CHECK(page_of(s.of_heir->server) == s.page && s.page->owner != s.server);
  return s;
}

static void go_on(mproc_process *stopped) {
  CHECK_EQ(kill((pid_t)mproc_process_pid(stopped), SIGCONT), 0);
}

static void finish(succession *s) {
  check_exited(s->asker, 0);
  s->of_heir->go = 1;
  check_exited(s->heir, 0);
  mproc_context_destroy(s->context);
  CHECK_EQ(mproc_heap_free(s->of_asker), 0);
  CHECK_EQ(mproc_heap_free(s->of_heir), 0);
}

/* A worker of the killed server waits at the gate. It may do more than its asker, whom the next
 * server is like: by that one's page it would be let in. */
TEST(asker_whose_servers_page_was_taken_by_one_of_its_privileges) {
  begin();
  int slots = used_slots(), members = live_members();
  succession s = succeed(0, "forkserver.asked", 1);
  snprintf(s.of_asker->text, sizeof s.of_asker->text, "MPROC_CRASH=forkserver.gate_open:stop:2");
  go_on(s.asker);
  AWAIT(s.of_asker->count == 1); /* before the asker can see that the server of the first is dead */
  CHECK_EQ(s.of_asker->code, 1);
  CHECK(stopped_within(mproc_process_pid(s.asker), JOIN_MS));
  go_on(s.asker);
  finish(&s);
  check_nothing_left(slots, members);
}

/* Nor does it take one of its spares, or put one back: the server, which would set the count right
 * in time, is stopped. */
TEST(asker_whose_servers_page_shows_spares_of_another) {
  begin();
  int slots = used_slots(), members = live_members();
  succession s = succeed(2, "start.prepared", 0);
  AWAIT((uint32_t)s.page->idle == 2 && count_children(s.of_heir->server) == 2);
  stop_process(s.of_heir->server);
  uint64_t idle = s.page->idle;
  go_on(s.asker);
  AWAIT(s.of_asker->count == 1);
  CHECK_EQ(s.page->idle, idle);
  mpx_idle_add(s.page, s.server, 1);
  CHECK_EQ(s.page->idle, idle);
  CHECK_EQ(kill((pid_t)s.of_heir->server, SIGCONT), 0);
  finish(&s);
  check_nothing_left(slots, members);
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
