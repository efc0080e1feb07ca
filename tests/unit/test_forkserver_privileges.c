/* A worker has the privileges that its asker has now: who dropped something gets another server,
 * and cannot have a worker of the old one, not even by a message of its own making. The asker is a
 * forked child, so that the case keeps what it needs to clean up. */
#include "forkserver_raw.h"
#include "harness.h"
#include "privileges.h"
#include "seccomp.h"

#include <sched.h>

enum { SILENCE_MS = 300 };

static int see_in_worker(void *arg, size_t size) {
  privileges *all = *(privileges **)arg;
  (void)size;
  see(all);
  all->server = getppid();
  return 0;
}

/* The worker is like this process; returns its server. */
static int64_t check_worker_is_like_us(const mproc_context *context) {
  privileges *worker = mproc_heap_calloc(1, sizeof *worker), here;
  CHECK(worker != NULL);
  check_exited(ask_context(context, see_in_worker, &worker, sizeof worker), 0);
  see(&here);
  check_same_privileges(worker, &here);
  int64_t server = worker->server;
  CHECK_EQ(mproc_heap_free(worker), 0);
  return server;
}

typedef struct order {
  int (*drop)(void);
  int spares;
} order;

/* 77: cannot be done here. */
static int drop_and_compare(void *arg, size_t size) {
  const order *o = arg;
  mproc_context *context = o->spares ? new_context(NULL, 0, o->spares) : NULL;
  (void)size;
  int64_t first = server_of(context);
  CHECK_EQ(server_of(context), first);
  if (o->spares)
    AWAIT(count_children(first) == o->spares);
  if (o->drop() != 0)
    return 77;
  CHECK(server_of(context) != first);
  CHECK_EQ(check_worker_is_like_us(context), server_of(context)); /* it is like us, so it stays */
  mproc_context_destroy(context);
  return 0;
}

/* The case's own server is the one from before. */
static void dropping(int (*drop)(void)) {
  if (geteuid() != 0)
    SKIP("only root has something to drop");
  check_exited(ask(return_code, &(int){0}, sizeof(int)), 0);
  for (int spares = 0; spares < 3; spares += 2) {
    order o = {drop, spares};
    mproc_status status = end_of(start_by("fork", drop_and_compare, &o, sizeof o));
    if (status.code == 77)
      SKIP("not allowed or not known here");
    CHECK_EQ(status.state, MPROC_STATE_EXITED);
    CHECK_EQ(status.code, 0);
  }
}

static int drop_user(void) {
  return setuid(ORDINARY);
}
TEST(user_dropped) {
  dropping(drop_user);
}

static int drop_group(void) {
  return setgid(ORDINARY);
}
TEST(group_dropped) {
  dropping(drop_group);
}

static int change_groups(void) {
  const gid_t groups[] = {1, 2, 3};
  return setgroups(3, groups);
}
TEST(supplementary_groups_changed) {
  dropping(change_groups);
}

static int drop_all(void) {
  return setgroups(0, NULL) < 0 || setgid(ORDINARY) < 0 || setuid(ORDINARY) < 0;
}
TEST(everything_dropped_as_daemons_do) {
  dropping(drop_all);
}

static int drop_new_privileges(void) {
  return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
}
TEST(new_privileges_dropped) {
  dropping(drop_new_privileges);
}

static int add_filter(void) {
  const seccomp_rule rules[] = {{.call = SYS_reboot}};
  return seccomp_deny(rules, 1, EPERM);
}
TEST(filter_added) {
  dropping(add_filter);
}

static int change_namespace(void) {
  return unshare(CLONE_NEWUTS);
}
TEST(namespace_changed) {
  dropping(change_namespace);
}

static int change_session(void) {
  return setsid() < 0;
}
TEST(session_changed) {
  dropping(change_session);
}

/* A list of groups that is longer than a page of /proc stands before the rest there. */
static int drop_behind_many_groups(void *arg, size_t size) {
  gid_t groups[4000];
  (void)arg, (void)size;
  for (int i = 0; i < 4000; i++)
    groups[i] = (gid_t)(100000 + i);
  CHECK_EQ(setgroups(4000, groups), 0);
  int64_t first = server_of(NULL);
  CHECK_EQ(server_of(NULL), first);
  CHECK_EQ(drop_new_privileges(), 0);
  CHECK(check_worker_is_like_us(NULL) != first);
  return 0;
}

TEST(privilege_dropped_behind_many_groups) {
  if (geteuid() != 0)
    SKIP("only root has something to drop");
  check_exited(start_by("fork", drop_behind_many_groups, NULL, 0), 0);
}

/* ---- the old server -------------------------------------------------------------------------- */

typedef struct old_server {
  int64_t pid;
  int door;
} old_server;

static int ask_by_hand(void *arg, size_t size) {
  const old_server *old = arg;
  (void)size;
  CHECK(worker_comes(old->door, old->pid, JOIN_MS)); /* the message is right */
  if (setgid(ORDINARY) != 0 || setuid(ORDINARY) != 0)
    return 77;
  CHECK(!worker_comes(old->door, old->pid, SILENCE_MS));
  CHECK(!worker_comes(old->door + 1, old->pid, SILENCE_MS));
  return 0;
}

static int ask_by_hand_with_another_group(void *arg, size_t size) {
  const old_server *old = arg;
  (void)size;
  if (setgid(ORDINARY) != 0)
    return 77;
  CHECK(!worker_comes(old->door, old->pid, SILENCE_MS));
  return 0;
}

static void hostile(mproc_entry *entry, int spares) {
  int doors[8];
  if (geteuid() != 0)
    SKIP("only root can be another user");
  mproc_context *context = new_context(NULL, 0, spares);
  old_server old = {.pid = server_of(context)};
  CHECK_EQ(find_doors(doors, 8), 2);
  int open_before = descriptors_of(old.pid);
  for (int i = 0; i < 2; i++) {
    old.door = doors[i];
    if (i == 1 && spares == 0)
      break;
    if (spares)
      AWAIT(count_children(old.pid) >= spares);
    check_exited(start_by("fork", entry, &old, sizeof old), 0);
  }
  CHECK_EQ(server_of(context), old.pid); /* nobody was disturbed */
  AWAIT(descriptors_of(old.pid) <= open_before + spares);
  mproc_context_destroy(context);
}

TEST(other_user_gets_no_worker_by_hand) {
  hostile(ask_by_hand, 0);
}

TEST(other_user_gets_no_spare_by_hand) {
  hostile(ask_by_hand, 3);
}

TEST(other_group_gets_no_worker_by_hand) {
  hostile(ask_by_hand_with_another_group, 0);
}

/* Nobody can ask the old one any more: it ends, it does not wait for the end of its asker. */
static int drop_and_watch(void *arg, size_t size) {
  (void)arg, (void)size;
  mproc_context *context = new_context(NULL, 0, 0);
  int64_t first = server_of(context);
  if (drop_all() != 0)
    return 77;
  CHECK(server_of(context) != first);
  CHECK(gone_within(first, GONE_MS));
  mproc_context_destroy(context);
  return 0;
}

TEST(old_server_ends_when_its_asker_has_another) {
  if (geteuid() != 0)
    SKIP("only root has something to drop");
  check_exited(start_by("fork", drop_and_watch, NULL, 0), 0);
}
