/* spawn: a child that shares our memory until it executes, so that its cost does not depend on
 * ours.
 *
 *   parent                               child (on a stack of its own, all signals blocked)
 *   mpx_os_spawn
 *     block signals
 *     clone VM|VFORK|PIDFD ------------> run_child: dispositions, descriptors, limits, ... exec
 *     (suspended until exec or exit)     on failure: stage and errno into the pipe, exit
 *     read the pipe
 *
 * Under valgrind, qemu-user and ThreadSanitizer the memory is not shared: there clone makes a plain
 * copy, whose failure comes through a pipe. A child of its own tells which, once. */
#define _GNU_SOURCE
#include "os/crash_point.h"
#include "os/linux/credentials.h"
#include "os/linux/pidfd.h"
#include "os/os.h"
#include "os/posix/tsan.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* Not instrumented: the sanitizers know neither this stack nor that memory is shared. */
#define CHILD_CODE __attribute__((no_sanitize_address, no_sanitize_thread))

enum { CHILD_STACK_SIZE = 64 * 1024 };

static _Atomic(void *) spare_stack; /* of the last child, unless a thread uses it now */

typedef struct spawn_failure {
  int32_t code;
  int32_t stage;
} spawn_failure;

typedef struct spawn_call {
  const mpx_launch *launch; /* NULL: a child that only tells whether it shares our memory */
  char *stack;
  pid_t parent;
  mproc_handle report[2]; /* MPX_NO_HANDLE where memory is known to be shared */
  bool private;           /* it must not be */
  /* Written by the child, if it runs in our memory. */
  volatile bool shared;
  volatile pid_t orphan;
  volatile spawn_failure failure;
} spawn_call;

/* Ignored signals stay ignored across an exec, and a pending handler of ours must not run in the
 * child: everything goes back to the default before the mask is lifted. */
CHILD_CODE static void reset_signals(void) {
  struct sigaction action;
  for (int number = 1; number <= SIGRTMAX; number++) {
    if (sigaction(number, NULL, &action) < 0 || action.sa_handler == SIG_DFL)
      continue;
    memset(&action, 0, sizeof action);
    action.sa_handler = SIG_DFL;
    (void)sigaction(number, &action, NULL);
  }
  sigset_t none;
  (void)sigemptyset(&none);
  (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

CHILD_CODE static void write_pid(char *marker) {
  char digits[20];
  int count = 0;
  for (pid_t pid = getpid(); pid > 0; pid /= 10)
    digits[count++] = (char)('0' + pid % 10);
  while (count > 0)
    *marker++ = digits[--count];
  *marker = '\0';
}

/* By the system call: ThreadSanitizer's _exit flushes stdout, and where the memory is a copy that
 * would be the host's own output, twice. */
CHILD_CODE _Noreturn static void leave(int code) {
  for (;;)
    (void)syscall(SYS_exit_group, code);
}

/* The end of a child that did its work, and whose status nobody looks at: no checker seeks leaks at
 * it, in a copy that has lost what other threads hold. */
CHILD_CODE _Noreturn static void vanish(void) {
  for (;;)
    (void)syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
}

CHILD_CODE static void report_failure(spawn_call *call, int code, mpx_stage stage) {
  spawn_failure failure = {.code = code, .stage = (int32_t)stage};
  call->shared = true; /* where it is not, this write is lost */
  call->failure = failure;
  if (call->report[1] != MPX_NO_HANDLE)
    (void)mpx_os_write(call->report[1], &failure, sizeof failure);
}

CHILD_CODE _Noreturn static void run_child(spawn_call *call) {
  const mpx_launch *launch = call->launch;
  mpx_stage stage = MPX_STAGE_NONE;
  call->shared = true;
  reset_signals();
  int r = mpx_os_keep_only(launch->keep, launch->keep_count);
  if (r < 0)
    stage = MPX_STAGE_DESCRIPTORS;
  else /* after: with the limits in force, not every descriptor could be reached */
    r = mpx_os_apply(launch, call->parent, &stage);
  if (r == 0) {
    if (launch->marker)
      write_pid(launch->marker);
    if (launch->credentials)
      mpx_credentials_before_exec(launch->credentials, launch->record);
    MPROC_CRASH_POINT("spawn.child.unexecuted");
    (void)execve(launch->path, launch->argv, launch->environment ? launch->environment : environ);
    r = -errno;
    stage = MPX_STAGE_EXEC;
  }
  report_failure(call, r, stage);
  leave(127);
}

CHILD_CODE static int clone_entry(void *call) {
  run_child(call);
}

/* ThreadSanitizer, which makes a fork of every vfork, would write the child's doings into the
 * parent's books: handlers that the child resets are never called in the parent again, and after a
 * start beside other threads the locks of the starting thread no longer count. */
CHILD_CODE static int clone_flags(bool private) {
  return private || mpx_tsan_watches() ? CLONE_VFORK : CLONE_VM | CLONE_VFORK;
}

/* The orphan's maker: it ends at once, so that the child belongs to init. It never executes
 * anything and sends no signal, so that no wait of the host's sees it. */
CHILD_CODE static int make_orphan(void *argument) {
  spawn_call *call = argument;
  char *top = call->stack + CHILD_STACK_SIZE;
  pid_t pid = clone(clone_entry, top, clone_flags(call->private) | SIGCHLD, call);
  if (pid < 0)
    report_failure(call, -errno, MPX_STAGE_CREATE);
  else
    call->orphan = pid;
  vanish();
}

/* Whether our children are in another pid namespace than we. The orphan's maker would be its first
 * process, with whose end it is over. Before there is one, the link leads nowhere. */
static bool has_other_namespace(void) {
  static const char *const path = "/proc/thread-self/ns/pid_for_children";
  char own[64], theirs[64];
  struct stat link;
  ssize_t a = readlink("/proc/thread-self/ns/pid", own, sizeof own);
  ssize_t b = readlink(path, theirs, sizeof theirs);
  return a > 0 && lstat(path, &link) == 0 && (a != b || memcmp(own, theirs, (size_t)a) != 0);
}

static pid_t clone_orphan(spawn_call *call) {
  char *top = call->stack + 2 * CHILD_STACK_SIZE;
  pid_t maker = clone(make_orphan, top, clone_flags(false), call);
  if (maker < 0)
    return -errno;
  while (waitpid(maker, NULL, __WALL) < 0 && errno == EINTR)
    ;
  return maker;
}

CHILD_CODE static int tell_sharing(void *argument) {
  spawn_call *call = argument;
  call->shared = true;
  vanish();
}

/* Its end is as silent as that of the orphan's maker. */
static pid_t clone_teller(spawn_call *call) {
  pid_t teller = clone(tell_sharing, call->stack + CHILD_STACK_SIZE, clone_flags(false), call);
  if (teller < 0)
    return -errno;
  while (waitpid(teller, NULL, __WALL) < 0 && errno == EINTR)
    ;
  return teller;
}

/* Returns the pid. The kernel writes the number of the pidfd where every fork by another thread
 * finds it, and before there is a descriptor; a fork copies descriptors first, memory after: no
 * copy has the one without the other. */
static pid_t clone_child(spawn_call *call, bool want_pidfd, mpx_child *child) {
  int flags = clone_flags(call->private) | SIGCHLD;
  char *top = call->stack + CHILD_STACK_SIZE; /* stacks grow downward wherever mproc runs */
  pid_t pid = -1;
  errno = ENOSYS;
  if (want_pidfd)
    pid = clone(clone_entry, top, flags | CLONE_PIDFD, call, &child->newborn);
  if (pid < 0)
    child->newborn = -1; /* of a child that came to nothing at the last moment */
  if (pid < 0 && (errno == ENOSYS || errno == EINVAL || errno == EPERM))
    pid = clone(clone_entry, top, flags, call);
  return pid < 0 ? -errno : pid;
}

static void *take_stack(size_t size) {
  void *stack = size == CHILD_STACK_SIZE ? atomic_exchange(&spare_stack, NULL) : NULL;
  return stack ? stack
               : mmap(NULL, size, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
}

/* Kept for the next start: mapping and unmapping it costs more than all else that the parent
 * does. */
static void give_stack_back(void *stack, size_t size) {
  void *none = NULL;
  if (size != CHILD_STACK_SIZE || !atomic_compare_exchange_strong(&spare_stack, &none, stack))
    (void)munmap(stack, size);
}

/* Signals stay blocked while the child shares our memory: a handler of ours would run in it. */
static pid_t clone_blocked(spawn_call *call, bool want_pidfd, mpx_child *child) {
  sigset_t all, before;
  int cancel_state;
  bool orphan = call->launch && call->launch->orphan;
  size_t stack_size = (orphan ? 2 : 1) * (size_t)CHILD_STACK_SIZE;
  void *stack = take_stack(stack_size);
  if (stack == MAP_FAILED)
    return -errno;
  call->stack = stack;
  (void)sigfillset(&all);
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
  (void)pthread_sigmask(SIG_BLOCK, &all, &before);
  pid_t pid = orphan         ? clone_orphan(call)
              : call->launch ? clone_child(call, want_pidfd, child)
                             : clone_teller(call);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  (void)pthread_setcancelstate(cancel_state, NULL);
  give_stack_back(stack, stack_size);
  return pid;
}

/* Whether children are known to share our memory. One that tells and ends is made for that, but not
 * where it would be the first of a new pid namespace, and its last. */
static bool memory_is_shared(void) {
  static _Atomic int known; /* 1: they do, -1: they do not */
  if (atomic_load(&known) == 0 && !has_other_namespace()) {
    spawn_call call = {.launch = NULL};
    if (clone_blocked(&call, false, NULL) > 0)
      atomic_store(&known, call.shared ? 1 : -1);
  }
  return atomic_load(&known) > 0;
}

/* Never by a signal: it has ended already, and its pid may be another's. */
static void reap_failed(const mpx_child *child) {
  bool pidfd = child->newborn >= 0;
  siginfo_t info;
  while (waitid(pidfd ? P_PIDFD : P_PID, (id_t)(pidfd ? child->newborn : child->pid), &info,
                WEXITED) < 0 &&
         errno == EINTR)
    ;
}

/* Whether the child failed before the exec. With shared memory it has executed or died by now;
 * without, the pipe's end tells when. */
static bool take_failure(const spawn_call *call, spawn_failure *ret_failure) {
  if (call->shared) {
    *ret_failure = call->failure;
    return ret_failure->code != 0;
  }
  return mpx_os_read(call->report[0], ret_failure, sizeof *ret_failure) ==
         (int64_t)sizeof *ret_failure;
}

int mpx_os_spawn(const mpx_launch *launch, mpx_child *child, mpx_stage *ret_stage) {
  spawn_call call = {
      .launch = launch, .parent = getpid(), .report = {MPX_NO_HANDLE, MPX_NO_HANDLE}};
  *ret_stage = MPX_STAGE_CREATE;
  if (launch->orphan && has_other_namespace())
    return -EOPNOTSUPP;
  call.private = launch->credentials && mpx_credentials_change_ids(launch->credentials);
  int r = memory_is_shared() && !call.private ? 0 : mpx_os_pipe(call.report);
  if (r < 0)
    return r;
  bool want_pidfd = mpx_pidfd_available() && child->sentinel == MPX_NO_HANDLE;
  pid_t pid = clone_blocked(&call, want_pidfd, child);
  mpx_os_close(call.report[1]);
  r = pid < 0 ? pid : 0;
  if (r < 0)
    goto finish;
  child->pid = pid;
  spawn_failure failure;
  if (take_failure(&call, &failure)) {
    r = failure.code;
    *ret_stage = (mpx_stage)failure.stage;
    if (!launch->orphan)
      reap_failed(child);
    goto finish;
  }
  if (launch->orphan)
    child->pid = call.orphan;
finish:
  mpx_os_close(call.report[0]);
  return r;
}
