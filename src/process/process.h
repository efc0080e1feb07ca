/* The process object, and the registry of those that this process made. */
#ifndef MPX_PROCESS_PROCESS_H
#define MPX_PROCESS_PROCESS_H

#include "base/list.h"
#include "heap/table.h"
#include "mproc/process.h"
#include "os/os.h"
#include "process/method.h"
#include "sync/waitable.h"

enum { MPX_NAME_SIZE = 32 };

typedef enum mpx_phase {
  MPX_PHASE_CREATED,
  MPX_PHASE_STARTING, /* one thread is inside start */
  MPX_PHASE_RUNNING,
  MPX_PHASE_ENDED,
  MPX_PHASE_CLOSED /* in the pool of objects to be made again */
} mpx_phase;

/* Handles that exist only while a start is under way. A fork by another thread copies them, and the
 * copy must not keep them: the registry knows them all. */
typedef struct mpx_transient {
  mproc_handle report[2]; /* the child's first words */
  mproc_handle record;    /* spawn: the boot record */
  mproc_handle held;      /* see mpx_os_child_prepare */
  mproc_handle cwd;       /* forkserver: the working directory */
} mpx_transient;
#define MPX_TRANSIENT_NONE                                                                         \
  { {MPX_NO_HANDLE, MPX_NO_HANDLE}, MPX_NO_HANDLE, MPX_NO_HANDLE, MPX_NO_HANDLE }

/* Everything before `phase` is fixed from create to close. The rest is guarded by `lock`, except
 * that only the thread inside start touches `transient` and writes `child`, under the registry's
 * lock; the kernel writes child.newborn (see mpx_os_spawn). */
struct mproc_process {
  mpx_waitable waitable;
  mpx_os_mutex lock; /* made once: a late caller may hold it while the memory is used again */
  /* pid: a copy of this object in a forked child is nobody's. Read without the lock, which may be
   * closed for ever in such a copy. */
  _Atomic int64_t creator;
  mproc_entry *entry; /* NULL: a command */
  void *arg;
  size_t arg_size;
  char *const *argv;
  mproc_process_options options; /* strings and arrays: in `copy` */
  mpx_method method;             /* UNSET: the process-wide choice, at start */
  const char *executable;
  const char *helper;
  struct mpx_server *settings; /* forkserver: that of the context; NULL: the default one */
  char name[MPX_NAME_SIZE];
  void *copy;
  mpx_list link; /* registry: live objects, or the pool of closed ones */

  mpx_phase phase;
  unsigned joiners; /* threads inside join: they keep it from being closed */
  bool tied;        /* a daemon that the kernel kills with us: the main thread starts it */
  /* a daemon that the guardian kills, because the starting thread may end first, or the child may
   * drop the privileges with which the kernel tied it */
  bool guarded;
  bool watched;              /* the guardian knows of it; guarded by the guardian's lock */
  mpx_member member;         /* 0: a command */
  mpx_member server;         /* forkserver: who waits for the child in our place, else 0 */
  int64_t server_start_time; /* forkserver without pidfds: the child's */
  mpx_child child;
  mpx_transient transient;
  int64_t started_at, ended_at;
  int64_t parent_peak; /* at the child's exec, in bytes; 0: there was none */
  mpx_exit exit;
};

/* ---- options.c */

/* Checks the options and copies them, with argument block and argv, into process->copy. Says
 * why. */
int mpx_options_take(mproc_process *process, const mproc_process_options *options, const void *arg,
                     size_t size, const char *const *argv);
/* Whether the handles are still open that were borrowed at create: the number of one that is not
 * would become that of a handle of ours. -EBADF, says which. */
int mpx_options_recheck(const mproc_process *process);
/* Whether a child has anything to do to itself that may fail. */
bool mpx_options_need_report(const mproc_process_options *options);
/* The part of a launch that comes from the options, once `tied` is known. */
void mpx_options_launch(const mproc_process *process, mpx_launch *ret_launch);
/* What a child failed at: the stage with the path or the CPUs that `launch` gave for it; NULL:
 * the stage alone. Returns `text`. */
enum { MPX_STAGE_TEXT_SIZE = 256 };
const char *mpx_launch_say(const mpx_launch *launch, mpx_stage stage,
                           char text[MPX_STAGE_TEXT_SIZE]);

/* ---- registry.c */

/* Handlers around every fork, once; else made at the first use. */
void mpx_registry_prepare(void);
mproc_process *mpx_registry_new(void);
/* To the pool; its memory stays an mproc_process for ever, so that a late use is noticed. */
void mpx_registry_retire(mproc_process *process);
void mpx_registry_lock(void);
void mpx_registry_unlock(void);
/* Closes the handles of process->child, so that no fork by another thread takes the numbers for
 * those of a child. */
void mpx_registry_forget_child(mproc_process *process);
/* In a fresh forked child: closes what belongs to the parent's objects, and forgets them. */
void mpx_registry_reset_in_child(void);
/* Calls `visit` for every object of this process, without the lock held. -ENOMEM. */
int mpx_registry_visit(void (*visit)(mproc_process *process, void *user), void *user);

/* ---- start.c, fork.c, spawn.c, command.c: 0, or said why. process->phase is STARTING. */

int mpx_start_fork(mproc_process *process);
int mpx_start_spawn(mproc_process *process);
int mpx_start_forkserver(mproc_process *process);
int mpx_start_command(mproc_process *process);
void mpx_transient_close(mpx_transient *transient);

/* ---- relay.c */

/* As mpx_os_child_poll, into process->exit, for a worker of a forkserver. */
int mpx_relay_poll(mproc_process *process);
/* Gives its slot back, now or once the server is done with it. */
void mpx_relay_forget(mproc_process *process);

/* ---- process.c */

/* Takes the status if it ended. 1: ended, 0: runs. */
int mpx_process_reap(mproc_process *process);

/* ---- status.c */

/* How it ended, in words without a time; returns their length, as snprintf. */
int mpx_exit_say(const mpx_exit *exit, char *text, size_t size);

/* ---- exit.c */

/* Python's rule at the end of a process: daemon children are terminated, all are joined. */
void mpx_exit_children(void);

#endif
