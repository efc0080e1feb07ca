/* spawn: a child that shares our memory until it executes, so that its cost does not depend on ours.
 *
 *   parent                               child (on a stack of its own, all signals blocked)
 *   mpx_os_spawn
 *     block signals
 *     clone VM|VFORK|PIDFD ------------> run_child: dispositions, descriptors, limits, ... exec
 *     (suspended until exec or exit)     on failure: stage and errno into the pipe, exit
 *     read the pipe
 *
 * The report goes through a pipe although the memory is shared, because under valgrind and qemu-user it
 * is not: there clone makes a plain copy. `shared` tells which; only without sharing must we wait. */
#define _GNU_SOURCE
#include "os/linux/pidfd.h"
#include "os/os.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x00001000
#endif

/* Not instrumented: the sanitizers know neither this stack nor that memory is shared. */
#define CHILD_CODE __attribute__((no_sanitize_address, no_sanitize_thread))

enum { CHILD_STACK_SIZE = 64 * 1024 };

typedef struct spawn_failure {
  int32_t code;
  int32_t stage;
} spawn_failure;

typedef struct spawn_call {
  const mpx_launch *launch;
  char *stack;
  pid_t parent;
  int report[2];
  volatile bool shared; /* written by the child: it runs in our memory */
} spawn_call;

/* Ignored signals stay ignored across an exec, and a pending handler of ours must not run in the child:
 * everything goes back to the default before the mask is lifted. */
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

CHILD_CODE _Noreturn static void run_child(spawn_call *call) {
  const mpx_launch *launch = call->launch;
  mpx_stage stage = MPX_STAGE_NONE;
  call->shared = true;
  reset_signals();
  int r = mpx_os_apply(launch, call->parent, &stage);
  if (r == 0 && (r = mpx_os_keep_only(launch->keep, launch->keep_count)) < 0)
    stage = MPX_STAGE_DESCRIPTORS;
  if (r == 0) {
    if (launch->marker)
      write_pid(launch->marker);
    (void)execve(launch->path, launch->argv, launch->environment ? launch->environment : environ);
    r = -errno;
    stage = MPX_STAGE_EXEC;
  }
  spawn_failure failure = {.code = r, .stage = (int32_t)stage};
  (void)mpx_os_write(call->report[1], &failure, sizeof failure);
  mpx_os_exit_now(127);
}

CHILD_CODE static int clone_entry(void *call) {
  run_child(call);
}

/* The orphan's maker: it ends at once, so that the child belongs to init. It never executes anything and
 * sends no signal, so that no wait of the host's sees it. */
CHILD_CODE static int make_orphan(void *argument) {
  spawn_call *call = argument;
  (void)clone(clone_entry, call->stack + CHILD_STACK_SIZE, CLONE_VM | CLONE_VFORK | SIGCHLD, call);
  mpx_os_exit_now(0);
}

static pid_t clone_orphan(spawn_call *call) {
  char *top = call->stack + 2 * CHILD_STACK_SIZE;
  pid_t maker = clone(make_orphan, top, CLONE_VM | CLONE_VFORK, call);
  if (maker < 0)
    return -errno;
  while (waitpid(maker, NULL, __WALL) < 0 && errno == EINTR)
    ;
  return maker;
}

/* Returns the pid and stores a pidfd where the kernel gives one. */
static pid_t clone_child(spawn_call *call, bool want_pidfd, mpx_child *child) {
  int pidfd = -1;
  int flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
  char *top = call->stack + CHILD_STACK_SIZE; /* stacks grow downward wherever mproc runs */
  pid_t pid = -1;
  errno = ENOSYS;
  if (want_pidfd)
    pid = clone(clone_entry, top, flags | CLONE_PIDFD, call, &pidfd);
  if (pid < 0 && (errno == ENOSYS || errno == EINVAL || errno == EPERM))
    pid = clone(clone_entry, top, flags, call);
  if (pid < 0)
    return -errno;
  if (pidfd >= 0) {
    child->sentinel = pidfd;
    child->pidfd = true;
  }
  return pid;
}

/* Signals stay blocked while the child shares our memory: a handler of ours would run in it. */
static pid_t clone_blocked(spawn_call *call, bool want_pidfd, mpx_child *child) {
  sigset_t all, before;
  int cancel_state;
  size_t stack_size = (call->launch->orphan ? 2 : 1) * (size_t)CHILD_STACK_SIZE;
  void *stack = mmap(NULL, stack_size, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK | MAP_NORESERVE, -1, 0);
  if (stack == MAP_FAILED)
    return -errno;
  call->stack = stack;
  (void)sigfillset(&all);
  (void)pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel_state);
  (void)pthread_sigmask(SIG_BLOCK, &all, &before);
  pid_t pid = call->launch->orphan ? clone_orphan(call) : clone_child(call, want_pidfd, child);
  (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
  (void)pthread_setcancelstate(cancel_state, NULL);
  (void)munmap(stack, stack_size);
  return pid;
}

/* 0 when the exec succeeded. */
static int read_failure(const spawn_call *call, spawn_failure *ret_failure) {
  if (call->shared) /* it has executed or died: what there is to read is there */
    (void)fcntl(call->report[0], F_SETFL, O_NONBLOCK);
  ssize_t size;
  do
    size = read(call->report[0], ret_failure, sizeof *ret_failure);
  while (size < 0 && errno == EINTR);
  return size == (ssize_t)sizeof *ret_failure;
}

static void discard_child(mpx_child *child) {
  pid_t r;
  do
    r = waitpid((pid_t)child->pid, NULL, 0);
  while (r < 0 && errno == EINTR);
  if (child->pidfd) {
    mpx_os_close(child->sentinel);
    child->sentinel = MPX_NO_HANDLE;
    child->pidfd = false;
  }
}

/* Where clone knows no pidfds but pidfd_open does. Nobody can have reaped it yet unless the host waits
 * for any child; then it is signalled and waited for by pid, which fails cleanly. */
static int open_pidfd(mpx_child *child) {
  int fd = mpx_pidfd_open((pid_t)child->pid);
  if (fd == -ESRCH)
    return mpx_os_ended_sentinel(&child->sentinel);
  if (fd < 0)
    return fd;
  child->sentinel = fd;
  child->pidfd = true;
  return 0;
}

int mpx_os_spawn(const mpx_launch *launch, mpx_child *child, mpx_stage *ret_stage) {
  spawn_call call = {.launch = launch, .parent = getpid()};
  mproc_handle ends[2];
  *ret_stage = MPX_STAGE_CREATE;
  int r = mpx_os_pipe(ends);
  if (r < 0)
    return r;
  call.report[0] = (int)ends[0];
  call.report[1] = (int)ends[1];
  bool want_pidfd = mpx_pidfd_available() && child->sentinel == MPX_NO_HANDLE;
  pid_t pid = clone_blocked(&call, want_pidfd, child);
  mpx_os_close(ends[1]);
  r = pid < 0 ? pid : 0;
  if (r < 0)
    goto finish;
  child->pid = pid;
  spawn_failure failure;
  if (read_failure(&call, &failure)) {
    r = failure.code;
    *ret_stage = (mpx_stage)failure.stage;
    if (!launch->orphan)
      discard_child(child);
    goto finish;
  }
  if (launch->orphan)
    goto finish;
  if (want_pidfd && !child->pidfd)
    r = open_pidfd(child);
finish:
  mpx_os_close(ends[0]);
  return r;
}
