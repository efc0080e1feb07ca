/* A child has the ids and capabilities of its parent, no more and no less, under every method: also
 * those that an exec changes. The parent is a forked child, so that the case keeps what it needs to
 * clean up. */
#include "forkserver.h"
#include "harness.h"
#include "methods.h"
#include "privileges.h"

static int see_in_child(void *arg, size_t size) {
  (void)size;
  see(*(privileges **)arg);
  return 0;
}

typedef struct order {
  int (*change)(void);
  const char *method;
} order;

/* 77: cannot be done here. The server of the case, if there is one, is as the case was. */
static int change_and_compare(void *arg, size_t size) {
  const order *o = arg;
  privileges *child = mproc_heap_calloc(1, sizeof *child), here;
  (void)size;
  if (o->change() != 0)
    return 77;
  check_exited(start_by(o->method, see_in_child, &child, sizeof child), 0);
  see(&here);
  check_same_privileges(child, &here);
  CHECK_EQ(mproc_heap_free(child), 0);
  return 0;
}

static void run_order(mproc_entry *entry, int (*change)(void), const char *method) {
  order o = {change, method};
  if (geteuid() != 0)
    SKIP("only root can change its ids");
  check_exited(start_by("forkserver", return_code, &(int){0}, sizeof(int)), 0);
  mproc_status status = end_of(start_by("fork", entry, &o, sizeof o));
  if (status.code == 77)
    SKIP("not allowed here");
  CHECK_EQ(status.state, MPROC_STATE_EXITED);
  CHECK_EQ(status.code, 0);
}

/* ---- ids ------------------------------------------------------------------------------------- */

static int change_effective_user(void) {
  return seteuid(ORDINARY);
}
EACH_METHOD(effective_user_changed) {
  run_order(change_and_compare, change_effective_user, method);
}

/* A debugger, or another process of the same user, may look into the caller as before. */
static int change_and_stay_dumpable(void *arg, size_t size) {
  const order *o = arg;
  (void)size;
  if (o->change() != 0)
    return 77;
  CHECK_EQ(prctl(PR_SET_DUMPABLE, 1, 0, 0, 0), 0);
  check_exited(start_by(o->method, return_code, &(int){0}, sizeof(int)), 0);
  CHECK_EQ(prctl(PR_GET_DUMPABLE, 0, 0, 0, 0), 1);
  return 0;
}
EACH_METHOD(caller_stays_dumpable) {
  run_order(change_and_stay_dumpable, change_effective_user, method);
}

static int change_real_user(void) {
  return setresuid(ORDINARY, 0, 0);
}
EACH_METHOD(real_user_changed) {
  run_order(change_and_compare, change_real_user, method);
}

static int change_saved_user(void) {
  return setresuid((uid_t)-1, (uid_t)-1, ORDINARY);
}
EACH_METHOD(saved_user_changed) {
  run_order(change_and_compare, change_saved_user, method);
}

/* As daemons do that want to be root again. */
static int keep_saved_root(void) {
  return setresgid(ORDINARY, ORDINARY, 0) < 0 || setresuid(ORDINARY, ORDINARY, 0) < 0;
}
EACH_METHOD(only_the_saved_user_is_root) {
  run_order(change_and_compare, keep_saved_root, method);
}

static int change_effective_group(void) {
  return setegid(ORDINARY);
}
EACH_METHOD(effective_group_changed) {
  run_order(change_and_compare, change_effective_group, method);
}

static int change_all(void) {
  return setgroups(0, NULL) < 0 || setgid(ORDINARY) < 0 || setuid(ORDINARY) < 0;
}
EACH_METHOD(everything_changed) {
  run_order(change_and_compare, change_all, method);
}

/* ---- capabilities ---------------------------------------------------------------------------- */

static int change_capabilities(void (*change)(struct __user_cap_data_struct *data)) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  struct __user_cap_data_struct data[2];
  if (syscall(SYS_capget, &header, data) < 0)
    return -1;
  change(data);
  return (int)syscall(SYS_capset, &header, data);
}

static void drop_effective(struct __user_cap_data_struct *data) {
  data[0].effective &= ~(1U << CAP_CHOWN);
}
static int drop_effective_capability(void) {
  return change_capabilities(drop_effective);
}
EACH_METHOD(effective_capability_dropped) {
  run_order(change_and_compare, drop_effective_capability, method);
}

static void drop_permitted(struct __user_cap_data_struct *data) {
  drop_effective(data);
  data[0].permitted &= ~(1U << CAP_CHOWN);
}
static int drop_capability(void) {
  return change_capabilities(drop_permitted);
}
EACH_METHOD(permitted_capability_dropped) {
  run_order(change_and_compare, drop_capability, method);
}

static int drop_capability_for_good(void) {
  return prctl(PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0) < 0 ? -1 : drop_capability();
}
EACH_METHOD(capability_dropped_from_every_set) {
  run_order(change_and_compare, drop_capability_for_good, method);
}

/* An ordinary user that kept something of root's. */
static void keep_two(struct __user_cap_data_struct *data) {
  data[0].effective = 1U << CAP_CHOWN;
  data[0].permitted = 1U << CAP_CHOWN | 1U << CAP_KILL;
  data[0].inheritable = data[1].effective = data[1].permitted = data[1].inheritable = 0;
}
static int keep_capabilities(void) {
  if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setgid(ORDINARY) < 0 || setuid(ORDINARY) < 0)
    return -1;
  return change_capabilities(keep_two);
}
EACH_METHOD(ordinary_user_kept_capabilities) {
  run_order(change_and_compare, keep_capabilities, method);
}

static void keep_inheritable(struct __user_cap_data_struct *data) {
  keep_two(data);
  data[0].inheritable = 1U << CAP_KILL;
}
static int keep_ambient_capability(void) {
  return keep_capabilities() < 0 || change_capabilities(keep_inheritable) < 0 ||
         prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) < 0;
}
EACH_METHOD(ordinary_user_has_an_ambient_capability) {
  run_order(change_and_compare, keep_ambient_capability, method);
}

/* ---- what an exec cannot keep ---------------------------------------------------------------- */

/* What is left in the permitted set, no program that root executes has. */
static int drop_bounding_capability(void) {
  return prctl(PR_CAPBSET_DROP, CAP_CHOWN, 0, 0, 0);
}

/* A clear refusal, and never a child that is not like its parent. */
static int change_and_be_refused(void *arg, size_t size) {
  const order *o = arg;
  const mproc_process_options options = {.method = o->method};
  mproc_process *process = create_with(&options, return_code, &(int){0}, sizeof(int));
  (void)size;
  if (o->change() != 0)
    return 77;
  for (int i = 0; i < 3; i++) {
    CHECK_EQ(mproc_process_start(process), MPROC_ESECURE);
    CHECK_CONTAINS(mproc_error_detail(), "use fork");
  }
  CHECK_EQ(mproc_process_close(process), 0);
  return change_and_compare(&(order){o->change, "fork"}, sizeof *o);
}

TEST(bounding_capability_dropped_fork) {
  run_order(change_and_compare, drop_bounding_capability, "fork");
}

TEST(bounding_capability_dropped_spawn) {
  run_order(change_and_be_refused, drop_bounding_capability, "spawn");
}

TEST(bounding_capability_dropped_forkserver) {
  run_order(change_and_be_refused, drop_bounding_capability, "forkserver");
}

/* What the loader reads must not come from elsewhere while the program is root for a moment. */
static int bring_an_environment(void *arg, size_t size) {
  static const char *const environment[] = {"LD_PRELOAD=/no/such/library", NULL};
  const mproc_process_options options = {.method = "spawn", .environment = environment};
  (void)arg, (void)size;
  if (change_effective_user() != 0)
    return 77;
  mproc_process *process = create_with(&options, return_code, &(int){0}, sizeof(int));
  CHECK_EQ(mproc_process_start(process), MPROC_ESECURE);
  CHECK_CONTAINS(mproc_error_detail(), "environment");
  CHECK_CONTAINS(mproc_error_detail(), "use fork");
  CHECK_EQ(mproc_process_close(process), 0);
  return 0;
}

TEST(spawn_with_an_environment_while_ids_differ) {
  run_order(bring_an_environment, change_effective_user, "spawn");
}

/* ---- daemons --------------------------------------------------------------------------------- */

static int sleep_as_daemon(void *arg, size_t size) {
  (void)size;
  **(_Atomic int64_t **)arg = getpid();
  for (;;)
    (void)pause();
  return 0;
}

/* The kernel's signal is forgotten when a process changes its ids, as a child of these does. */
static int leave_daemon(void *arg, size_t size) {
  order *o = arg;
  (void)size;
  if (o->change() != 0)
    return 77;
  _Atomic int64_t *pid = *(_Atomic int64_t **)(o + 1);
  const mproc_process_options options = {.method = o->method, .daemon = 1};
  (void)start_with(&options, sleep_as_daemon, &pid, sizeof pid);
  for (;;)
    (void)pause();
  return 0;
}

static void daemon_ends_with_parent(int (*change)(void), const char *method) {
  struct {
    order o;
    _Atomic int64_t *pid;
  } call = {{change, method}, mproc_heap_calloc(1, sizeof(int64_t))};
  if (geteuid() != 0)
    SKIP("only root can change its ids");
  mproc_process *parent = start_by("fork", leave_daemon, &call, sizeof call);
  AWAIT(*call.pid != 0);
  CHECK_EQ(kill((pid_t)mproc_process_pid(parent), SIGKILL), 0);
  check_killed(parent, SIGKILL);
  CHECK(gone_within(*call.pid, GONE_MS));
  CHECK_EQ(mproc_heap_free(call.pid), 0);
}

EACH_METHOD(daemon_of_another_effective_user_ends_with_its_parent) {
  daemon_ends_with_parent(change_effective_user, method);
}

EACH_METHOD(daemon_of_saved_root_ends_with_its_parent) {
  daemon_ends_with_parent(keep_saved_root, method);
}
