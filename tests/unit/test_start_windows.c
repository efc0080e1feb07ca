/* The short moments of a start in which something may happen to one side only. Calls of the library
 * are wrapped, so that it happens just then: no luck is needed. */
#include "facilities.h"
#include "harness.h"
#include "processes.h"
#include "seccomp.h"

#include "heap/family.h"
#include "os/linux/pidfd.h"

#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>

/* As in the library: a spawned child shares our memory and has a stack that no sanitizer knows. */
#define CHILD_CODE __attribute__((no_sanitize_address, no_sanitize_thread))

/* In the shared heap: for the case, its children and theirs, whatever becomes of their memory. */
typedef struct board {
  char method[16];
  int of_commands;
  _Atomic int entry_ran;
  _Atomic int64_t pid;      /* of the child that found itself in the window */
  _Atomic int probes;       /* children that signalled themselves before they were ready */
  _Atomic int wrong_places; /* runs of the host's handler in another process */
  _Atomic int64_t stranger; /* who has the parent's pid, for this case */
  _Atomic int parent_gone;  /* and the child may ask for its sentinel */
  _Atomic int answer;       /* ASKED_... */
  int kills_server;
  _Atomic int64_t server; /* of the worker */
  _Atomic int worker_may_end;
} board;

static board *shared;

static board *new_board(void) {
  shared = mproc_heap_calloc(1, sizeof *shared);
  CHECK(shared != NULL);
  return shared;
}

static void drop_board(void) {
  CHECK_EQ(mproc_heap_free(shared), 0);
  shared = NULL;
}

static int run_for_long(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->entry_ran = 1;
  sleep_ms(20000);
  return 0;
}

/* ---- the parent dies between the clone and the request to die with it ------------------------ */

static _Atomic pid_t doomed_parent; /* only its own child kills it */

int __real_prctl(int option, ...);
int __wrap_prctl(int option, ...);

CHILD_CODE int __wrap_prctl(int option, ...) {
  unsigned long more[4];
  va_list list;
  va_start(list, option);
  for (int i = 0; i < 4; i++)
    more[i] = va_arg(list, unsigned long);
  va_end(list);
  pid_t parent = doomed_parent;
  if (option == PR_SET_PDEATHSIG && parent != 0 && getppid() == parent) {
    shared->pid = getpid();
    (void)kill(parent, SIGKILL);
    while (getppid() == parent)
      (void)sched_yield();
  }
  return __real_prctl(option, more[0], more[1], more[2], more[3]);
}

static int die_while_starting_a_daemon(void *arg, size_t size) {
  const mproc_process_options options = {.daemon = 1, .method = shared->method};
  (void)arg, (void)size;
  doomed_parent = getpid();
  if (shared->of_commands)
    start_command(COMMAND("/bin/sleep", "20"), &options);
  else
    start_with(&options, run_for_long, &shared, sizeof shared);
  sleep_ms(20000); /* a forked child may take its time */
  return 1;
}

static void check_parent_dies_in_the_window(const char *method, int of_commands) {
  board *b = new_board();
  snprintf(b->method, sizeof b->method, "%s", method);
  b->of_commands = of_commands;
  check_killed(start_by("fork", die_while_starting_a_daemon, NULL, 0), SIGKILL);
  CHECK(b->pid != 0);
  bool ended = gone_within(b->pid, 1000);
  if (!ended)
    kill((pid_t)b->pid, SIGKILL);
  CHECK(ended);
  CHECK_EQ(b->entry_ran, 0);
  drop_board();
}

TEST(daemon_whose_parent_dies_before_it_asks_fork) {
  check_parent_dies_in_the_window("fork", 0);
}

TEST(daemon_whose_parent_dies_before_it_asks_spawn) {
  check_parent_dies_in_the_window("spawn", 0);
}

TEST(daemon_command_whose_parent_dies_before_it_asks) {
  check_parent_dies_in_the_window("spawn", 1);
}

/* ---- a signal while the child shares the host's memory --------------------------------------- */

static pid_t host;         /* the process whose handler it is */
static bool each_probes;   /* a child signals itself before it has reset anything */
static _Atomic int probed; /* the last one that did */

int __real_sigaction(int number, const struct sigaction *action, struct sigaction *ret_old);
int __wrap_sigaction(int number, const struct sigaction *action, struct sigaction *ret_old);

CHILD_CODE int __wrap_sigaction(int number, const struct sigaction *action,
                                struct sigaction *ret_old) {
  pid_t self = getpid();
  if (each_probes && self != host && probed != self) {
    probed = self;
    shared->probes++;
    (void)kill(self, SIGURG); /* not blocked, it would be handled before this returns */
  }
  return __real_sigaction(number, action, ret_old);
}

CHILD_CODE static void note_place(int number) {
  (void)number;
  if (getpid() != host)
    shared->wrong_places++;
}

/* SIGURG: a process that does not handle it lives on. */
static void handle_signal(void) {
  const struct sigaction action = {.sa_handler = note_place, .sa_flags = SA_RESTART};
  host = getpid();
  CHECK_EQ(sigaction(SIGURG, &action, NULL), 0);
}

static void start_both_kinds(void) {
  const int code = 12;
  check_exited(start_by("spawn", return_code, &code, sizeof code), code);
  check_exited(start_command(COMMAND("/bin/true"), NULL), 0);
}

TEST(handler_of_the_host_does_not_run_in_a_spawned_child) {
  board *b = new_board();
  handle_signal();
  each_probes = true;
  start_both_kinds();
  start_both_kinds(); /* the first child finds out whether memory is shared */
  each_probes = false;
  CHECK_EQ(b->probes, 4);
  CHECK_EQ(b->wrong_places, 0);
  drop_board();
}

/* The whole process group is signalled all the time. */
static pid_t start_storm(void) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0) {
    signal(SIGURG, SIG_IGN);
    while (getppid() == host)
      kill(0, SIGURG);
    _exit(0);
  }
  return pid;
}

TEST_LIMIT(handler_of_the_host_does_not_run_elsewhere_in_a_storm, 60) {
  board *b = new_board();
  handle_signal();
  pid_t storm = start_storm();
  for (int i = test_scale(100); i > 0; i--)
    start_both_kinds();
  CHECK_EQ(kill(storm, SIGKILL), 0);
  CHECK_EQ(waitpid(storm, NULL, 0), storm);
  CHECK_EQ(b->wrong_places, 0);
  drop_board();
}

/* ---- the child ends before its parent has a pidfd -------------------------------------------- */

static bool names_late;
static _Atomic int named; /* children that got their name late */

int __real_mpx_os_child_name(mpx_child *child);
int __wrap_mpx_os_child_name(mpx_child *child);

static bool somebody_waits_at_a_gate(void) {
  mpx_header *header = mpx_family_header();
  for (uint32_t i = 0; i < MPX_SLOT_COUNT; i++)
    if (header->slots[i].gate == MPX_GATE_WAITED_FOR)
      return true;
  return false;
}

/* Late: the child has nothing left to do. */
int __wrap_mpx_os_child_name(mpx_child *child) {
  if (!names_late)
    return __real_mpx_os_child_name(child);
  while (!is_gone(child->pid) && !somebody_waits_at_a_gate())
    sleep_ms(1);
  CHECK(!is_gone(child->pid));
  named++;
  return __real_mpx_os_child_name(child);
}

/* clone gives no pidfd, and nobody but a pidfd's owner can be told how a reaped child ended. */
TEST(spawned_child_does_not_end_before_it_is_named) {
  const seccomp_rule rules[] = {{.call = SYS_clone, .argument = 0, .mask = 0x1000, .value = 0x1000},
                                SECCOMP_GET_INFO};
  const int code = 7;
  if (!has_pidfds())
    SKIP("no pidfds here");
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
  if (seccomp_deny(rules, 2, EINVAL) < 0)
    SKIP("no system call filters here");
  signal(SIGCHLD, SIG_IGN);
  names_late = true;
  check_exited(start_by("spawn", return_code, &code, sizeof code), code);
  CHECK_EQ(named, 1);
}

/* A pid that somebody else has by now: no pidfd of a stranger, no descriptor left. */
TEST(pidfd_of_a_stranger_is_refused) {
  if (!has_pidfds())
    SKIP("no pidfds here");
  int before = descriptor_count();
  CHECK_EQ(mpx_pidfd_of_child(getppid()), -ESRCH);
  CHECK_EQ(mpx_pidfd_of_child(getpid()), -ESRCH);
  CHECK_EQ(descriptor_count(), before);
  pid_t pid = fork();
  if (pid == 0)
    _exit(0);
  int fd = mpx_pidfd_of_child(pid);
  CHECK_OK(fd);
  CHECK_EQ(waitpid(pid, NULL, 0), pid);
  CHECK_EQ(close(fd), 0);
}

/* ---- the parent's pid is somebody else's ----------------------------------------------------- */

enum { ASKED_AND_ENDED = 1, ASKED_AND_RUNS, ASKED_IN_VAIN };

int __real_mpx_os_process_open(int64_t pid, mproc_handle *ret_sentinel);
int __wrap_mpx_os_process_open(int64_t pid, mproc_handle *ret_sentinel);

static bool server_dies; /* and the worker, just before it is named */
static void end_server_and_worker(int64_t pid);

int __wrap_mpx_os_process_open(int64_t pid, mproc_handle *ret_sentinel) {
  if (server_dies)
    end_server_and_worker(pid);
  bool other = shared && shared->stranger;
  return __real_mpx_os_process_open(other ? shared->stranger : pid, ret_sentinel);
}

static int ask_for_the_parent(void *arg, size_t size) {
  struct pollfd item = {.events = POLLIN};
  mproc_handle handle;
  (void)size;
  shared = *(board **)arg;
  shared->pid = getpid();
  AWAIT(shared->parent_gone);
  int r = mproc_parent_sentinel(&handle);
  item.fd = (int)handle;
  shared->answer = r < 0                    ? ASKED_IN_VAIN
                   : poll(&item, 1, 0) == 1 ? ASKED_AND_ENDED
                                            : ASKED_AND_RUNS;
  return 0;
}

static int have_a_child(void *arg, size_t size) {
  board *b = *(board **)arg;
  start_by(b->method, ask_for_the_parent, arg, size);
  return sleep_for_long(arg, size);
}

enum { NR_CLONE3 = 435 };

/* A process that does nothing, with this pid, which must be free; 0: any. A raw call: no library
 * knows of it. */
CHILD_CODE static pid_t start_stranger(pid_t pid) {
  uint64_t arguments[11] = {[4] = SIGCHLD, [8] = (uintptr_t)&pid, [9] = 1}; /* struct clone_args */
  long r = pid ? syscall(NR_CLONE3, arguments, sizeof arguments)
               : syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
  while (r == 0)
    (void)syscall(SYS_ppoll, NULL, 0, NULL, NULL, 0);
  return (pid_t)r;
}

static void check_parent_whose_pid_is_used_again(const char *method, bool for_real) {
  board *b = new_board();
  mproc_status status;
  snprintf(b->method, sizeof b->method, "%s", method);
  mproc_process *parent = start_by("fork", have_a_child, &b, sizeof b);
  pid_t pid = (pid_t)mproc_process_pid(parent);
  AWAIT(b->pid);
  CHECK_EQ(kill(pid, SIGKILL), 0);
  CHECK_EQ(waitpid(pid, NULL, 0), pid); /* the pid is free, and its slot in the table is not */
  pid_t stranger = start_stranger(for_real ? pid : 0);
  CHECK(stranger > 0 && (!for_real || stranger == pid));
  b->stranger = for_real ? 0 : stranger;
  b->parent_gone = 1;
  AWAIT(b->answer);
  CHECK_EQ(kill(stranger, SIGKILL), 0);
  CHECK_EQ(waitpid(stranger, NULL, 0), stranger);
  CHECK_EQ(b->answer, ASKED_AND_ENDED);
  CHECK(gone_within(b->pid, JOIN_MS));
  CHECK_EQ(mproc_process_join(parent, JOIN_MS), 0);
  CHECK_EQ(mproc_process_status(parent, &status), 0);
  CHECK(status.state != MPROC_STATE_EXITED);
  CHECK_EQ(mproc_process_close(parent), 0);
  drop_board();
}

/* What the child opens is another process, however it came to that. */
TEST(sentinel_of_a_parent_is_no_strangers) {
  FOR_ALL_METHODS(method)
  check_parent_whose_pid_is_used_again(method, false);
}

TEST(sentinel_of_a_parent_whose_pid_is_used_again) {
  if (start_stranger(getpid()) >= 0 || errno != EEXIST)
    SKIP("choosing a pid needs clone3 of Linux 5.5 and CAP_CHECKPOINT_RESTORE");
  FOR_ALL_METHODS(method)
  check_parent_whose_pid_is_used_again(method, true);
}

/* ---- the worker's pid is somebody else's ----------------------------------------------------- */

static int tell_server_and_wait(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->server = getppid();
  b->entry_ran = 1;
  AWAIT(b->worker_may_end);
  return 0;
}

/* Until the worker's end was taken: by the server if it lives, else by whoever inherits it, at any
 * time. */
static void end_server_and_worker(int64_t pid) {
  server_dies = false;
  AWAIT(shared->entry_ran);
  if (shared->kills_server) {
    CHECK_EQ(kill((pid_t)shared->server, SIGKILL), 0);
    CHECK(gone_within(shared->server, JOIN_MS));
  }
  shared->worker_may_end = 1;
  AWAIT(shared->kills_server ? is_gone(pid) : state_of(pid) == 0);
  shared->stranger = start_stranger(0);
  CHECK(shared->stranger > 0);
}

static void check_worker_whose_pid_is_used_again(int kills_server) {
  const mproc_process_options options = {.method = "forkserver"};
  mproc_handle sentinel;
  if (!has_pidfds())
    SKIP("no pidfds here");
  check_exited(start_by("forkserver", return_code, &(int){0}, sizeof(int)), 0);
  board *b = new_board();
  b->kills_server = kills_server;
  mproc_process *worker = create_with(&options, tell_server_and_wait, &b, sizeof b);
  server_dies = true;
  CHECK_EQ(mproc_process_start(worker), 0);
  pid_t stranger = (pid_t)b->stranger;
  CHECK(stranger > 0);
  CHECK_EQ(mproc_process_sentinel(worker, &sentinel), 0);
  CHECK_EQ(poll(&(struct pollfd){.fd = (int)sentinel, .events = POLLIN}, 1, 0), 1);
  CHECK_EQ(mproc_process_kill(worker), 0);
  CHECK_EQ(mproc_process_join(worker, JOIN_MS), 0);
  CHECK(!is_gone(stranger));
  CHECK_EQ(mproc_process_close(worker), 0);
  CHECK_EQ(kill(stranger, SIGKILL), 0);
  CHECK_EQ(waitpid(stranger, NULL, 0), stranger);
  drop_board();
}

/* The server has taken the worker's end. */
TEST(sentinel_of_a_worker_is_no_strangers) {
  check_worker_whose_pid_is_used_again(0);
}

/* Nobody of ours has. */
TEST(sentinel_of_a_worker_whose_server_is_dead_is_no_strangers) {
  check_worker_whose_pid_is_used_again(1);
}

/* ---- a server whose second try fails --------------------------------------------------------- */

enum { OTHERS_FILES = 8 };
static enum { NO_TRIES, FIRST_TRY, SECOND_TRY } server_tries;
static int others_files[OTHERS_FILES];

int __real_mpx_os_seal_create(const char *name, const mpx_os_bytes *parts, size_t count,
                              mproc_handle *ret_handle);
int __wrap_mpx_os_seal_create(const char *name, const mpx_os_bytes *parts, size_t count,
                              mproc_handle *ret_handle);
int __wrap_mpx_os_seal_create(const char *name, const mpx_os_bytes *parts, size_t count,
                              mproc_handle *ret_handle) {
  if (server_tries != FIRST_TRY)
    return __real_mpx_os_seal_create(name, parts, count, ret_handle);
  server_tries = SECOND_TRY;
  return -EEXIST; /* as if the heap's address had been taken */
}

int __real_mpx_os_pipe(mproc_handle ret_ends[2]);
int __wrap_mpx_os_pipe(mproc_handle ret_ends[2]);
int __wrap_mpx_os_pipe(mproc_handle ret_ends[2]) {
  if (server_tries != SECOND_TRY)
    return __real_mpx_os_pipe(ret_ends);
  server_tries = NO_TRIES;
  for (int i = 0; i < OTHERS_FILES; i++) /* as another thread does right now */
    others_files[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
  return -EMFILE;
}

/* What the first try had open is not closed once more: the numbers are somebody else's. */
TEST(second_try_of_a_server_closes_nobodys_files) {
  const mproc_process_options options = {.method = "forkserver"};
  const int code = 3;
  check_exited(start_by("fork", return_code, &code, sizeof code), code);
  mproc_process *process = create_with(&options, return_code, &code, sizeof code);
  server_tries = FIRST_TRY;
  CHECK_EQ(mproc_process_start(process), -EMFILE);
  CHECK_EQ(server_tries, NO_TRIES);
  for (int i = 0; i < OTHERS_FILES; i++)
    CHECK_EQ(close(others_files[i]), 0);
  CHECK_EQ(mproc_process_start(process), 0);
  check_exited(process, code);
}
