/* Process: a function, or a command, in a process of its own. Python's Process.
 *
 * What it is  create -> start -> join -> close. The child gets its own writable copy of the
 *             argument block; pointers into the shared heap inside it are valid under every start
 *             method.
 * Ownership   mproc_process_create copies everything it is given except handles, which are borrowed
 *             until start returns. mproc_process_close releases.
 * Threads     any thread of the process that created the object. No call here is a cancellation
 *             point: a thread that is cancelled inside one is so after it, also inside join, whose
 *             timeout bounds that.
 * After fork  a child must not use its parent's objects: calls return MPROC_ENOTCREATOR. */
#ifndef MPROC_PROCESS_H
#define MPROC_PROCESS_H

#include "context.h"
#include "version.h"
#include "wait.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_process mproc_process;

/* What a child runs: `arg` is the child's own copy of the argument block, 64-byte aligned,
 * writable, valid to the child's end, NULL when `size` is 0. The result, 0 to 255, is the exit
 * code. Calling exit() instead is allowed: handlers that the entry registered run, the parent's do
 * not. */
typedef int mproc_entry(void *arg, size_t size);

/* A handle that the child gets besides the standard streams; it asks for it by name. */
typedef struct mproc_inherit {
  mproc_handle handle;
  const char *name; /* 1 to 31 characters */
} mproc_inherit;

typedef enum mproc_stream_kind {
  MPROC_STREAM_INHERIT = 0, /* the caller's */
  MPROC_STREAM_NULL = 1,    /* the null device */
  MPROC_STREAM_HANDLE = 2,  /* .handle */
  MPROC_STREAM_STDOUT = 3   /* standard error only: wherever standard output goes */
} mproc_stream_kind;

typedef struct mproc_stream {
  mproc_stream_kind kind;
  mproc_handle handle;
} mproc_stream;

typedef enum mproc_resource {
  MPROC_RESOURCE_CORE = 1, /* bytes of a core dump */
  MPROC_RESOURCE_CPU,      /* seconds */
  MPROC_RESOURCE_DATA,     /* bytes of private memory: the limit to use for workers */
  MPROC_RESOURCE_FSIZE,    /* bytes of a file */
  MPROC_RESOURCE_NOFILE,   /* descriptors */
  MPROC_RESOURCE_STACK,    /* bytes */
  MPROC_RESOURCE_AS        /* bytes of address space; must leave room for the shared heap */
} mproc_resource;

#define MPROC_UNLIMITED UINT64_MAX

typedef struct mproc_limit {
  mproc_resource resource;
  uint64_t soft;
  uint64_t hard;
} mproc_limit;

typedef struct mproc_process_options {
  const char *name; /* up to 31 characters, shown in ps. NULL: "Process-N" */
  /* non-zero: dies with its parent, is not joined at exit. Under fork and spawn a process of which
   * a user id is 0 has a guardian for it, which also kills one that gave up its privileges. */
  int daemon;
  const char *method;           /* start method; NULL: that of the context */
  const mproc_context *context; /* NULL: the process-wide choice */
  const mproc_inherit *inherit; /* handles that the child gets */
  size_t inherit_count;
  const char *const *environment; /* NULL-terminated "NAME=value" list that replaces the caller's;
                                     NULL: the caller's */
  const char *cwd;                /* NULL: the caller's */
  mproc_stream streams[3];        /* standard input, output, error */
  const mproc_limit *limits;
  size_t limit_count;
  const int *cpus; /* CPUs to run on; NULL: the caller's */
  size_t cpu_count;
  int nice;             /* added to the caller's nice value */
  const char *cgroup;   /* directory of a cgroup to put the child in, before it runs */
  int start_timeout_ms; /* how long a child may take to reach its entry. 0: 60,000; a
                           command is not timed */
  uint64_t reserved[8]; /* must be zero */
} mproc_process_options;

typedef enum mproc_state {
  MPROC_STATE_CREATED = 0,
  MPROC_STATE_RUNNING = 1,
  MPROC_STATE_EXITED = 2,   /* .code says what it returned */
  MPROC_STATE_SIGNALED = 3, /* .signal says which signal killed it */
  MPROC_STATE_UNKNOWN = 4   /* ended, but another part of the program took the status, or the
                               forkserver was killed */
} mproc_state;

/* How a process ended. A code and a signal are never mixed. */
typedef struct mproc_status {
  mproc_state state;
  int code;              /* 0 to 255 when EXITED, else -1 */
  int signal;            /* when SIGNALED, else 0 */
  int core_dumped;       /* 1 when the kernel wrote a core */
  int64_t run_time_ns;   /* from start to end (to now while running) */
  int64_t max_rss_bytes; /* peak resident memory; -1 unknown: also of a spawned child or a command
                            that is not above the peak of this process at the start, since the
                            kernel counts what was shared before the exec as the child's */
  uint64_t reserved[8];  /* zero: room for fields to come */
} mproc_status;

typedef struct mproc_rusage {
  int64_t user_time_ns;
  int64_t system_time_ns;
  int64_t max_rss_bytes; /* as in mproc_status */
  int64_t minor_faults;
  int64_t major_faults;
  int64_t voluntary_switches;
  int64_t involuntary_switches;
  uint64_t reserved[8]; /* zero: room for fields to come */
} mproc_rusage;

typedef struct mproc_process_info {
  int64_t pid; /* in its own pid namespace */
  int daemon;
  const char *method; /* how it was started: static storage, "main" for the family's first */
  char name[32];
  uint64_t reserved[8]; /* zero: room for fields to come */
} mproc_process_info;

#ifdef __cplusplus
extern "C" {
#endif

/* Makes a process object for `entry`, which may be static, in the program or in a loaded library.
 * `arg` (NULL when size is 0) is copied; any size. `options` may be NULL.
 * Errors: -EINVAL (names the field; or MPROC_LOG or MPROC_DEBUG), -ENOMEM, MPROC_EMETHOD, -ENOSYS
 * (the start method). */
MPROC_API MPROC_NODISCARD int mproc_process_create(mproc_process **ret_process, mproc_entry *entry,
                                                   const void *arg, size_t size,
                                                   const mproc_process_options *options);

/* Makes a process object for a command: argv[0] is searched in PATH unless it holds a slash. The
 * child is no member of the family. `method`, `context` and `start_timeout_ms` are not used: start
 * returns once the command was executed. Errors: as above. */
MPROC_API MPROC_NODISCARD int mproc_process_create_command(mproc_process **ret_process,
                                                           const char *const *argv,
                                                           const mproc_process_options *options);

/* Starts it. When it returns 0, the child is about to run the entry (spawn, forkserver), runs
 * (fork) or was executed (command); the child's first error comes back here, as text in
 * mproc_error_detail(). Errors to act on: -EAGAIN (process limit), -EMFILE, -ENFILE, -ENOMEM,
 * -ENOENT, -EACCES and -ENOEXEC (the executable), -EBADF (a handle of the options was closed since
 * create), -EFBIG (RLIMIT_FSIZE), -E2BIG (forkserver: more than 2,000 handles), MPROC_EFOREIGN,
 * MPROC_EMETHOD and -ENOSYS (MPROC_START_METHOD), MPROC_ERECORD, MPROC_ENOINIT, MPROC_ENOHELPER,
 * MPROC_ENOMODULE, MPROC_EMISMATCH, MPROC_ESECURE, MPROC_EADDRESS, MPROC_EHEAPLOST,
 * MPROC_ETABLEFULL (8,192 processes or 256 forkservers), MPROC_EBOOT, -ETIMEDOUT
 * (start_timeout_ms), MPROC_EPRELOAD, MPROC_ESERVER, MPROC_ESTARTED. After a failure the object may
 * be started again. */
MPROC_API MPROC_NODISCARD int mproc_process_start(mproc_process *process);

/* Waits for the end, at most `timeout_ms` (MPROC_FOREVER, 0 = try), and takes the status. Joining
 * again returns 0 at once. Errors: -ETIMEDOUT, -EAGAIN (try), MPROC_ENOTSTARTED,
 * MPROC_ENOTCREATOR, MPROC_ECLOSED. */
MPROC_API int mproc_process_join(mproc_process *process, int timeout_ms);

/* 1 while it runs, 0 before the start and after the end. */
MPROC_API int mproc_process_is_alive(mproc_process *process);

/* SIGTERM, SIGKILL, SIGINT, to exactly this process, never to one that got its pid later. 0 also
 * when it has ended. On Windows terminate is kill, and interrupt is -ENOSYS. */
MPROC_API int mproc_process_terminate(mproc_process *process);
MPROC_API int mproc_process_kill(mproc_process *process);
MPROC_API int mproc_process_interrupt(mproc_process *process);

/* Releases the object. NULL returns 0. A later use returns MPROC_ECLOSED as long as the object's
 * memory was not given to a new process. Errors: -EBUSY (it still runs: join or kill it first; or
 * another thread joins it right now). */
MPROC_API int mproc_process_close(mproc_process *process);

/* The process id (> 0), or MPROC_ENOTSTARTED. */
MPROC_API int64_t mproc_process_pid(mproc_process *process);

/* The name; borrowed until close. NULL for NULL. */
MPROC_API const char *mproc_process_name(mproc_process *process);

/* The state now. A process that ended has its status taken, as by a join that does not wait. */
MPROC_API int mproc_process_status(mproc_process *process, mproc_status *ret_status);

/* What it used. Errors: -EAGAIN (it runs), MPROC_ESTATUS_UNKNOWN (another part of the program took
 * the status, and the figures with it, or the forkserver was killed). */
MPROC_API int mproc_process_rusage(mproc_process *process, mproc_rusage *ret_rusage);

/* A handle that becomes readable when the process ends: for poll, epoll, libuv, mproc_wait.
 * Borrowed until close; do not read it. */
MPROC_API int mproc_process_sentinel(mproc_process *process, mproc_handle *ret_handle);

/* Says a status in words: "exited with code 3 after 0.2 s", "killed by SIGSEGV (core dumped) after
 * 1.2 s, peak 84 MB". Writes at most `size` bytes, NUL included; returns `buffer`, or "" when one
 * of them is NULL. */
MPROC_API const char *mproc_strstatus(const mproc_status *status, char *buffer, size_t size);

/* create + start + join + close with every default: runs `entry` in another process and returns its
 * exit code, 0 to 255. Errors: those of start; MPROC_ECRASHED when a signal killed it and
 * MPROC_ESTATUS_UNKNOWN: the detail says how it ended. */
MPROC_API MPROC_NODISCARD int mproc_run(mproc_entry *entry, const void *arg, size_t size);

/* The calling process. Works in the main process too, whose name is "MainProcess".
 * Errors: MPROC_EFOREIGN (a child of the host's own fork, once there is a family). */
MPROC_API int mproc_current_process(mproc_process_info *ret_info);

/* The process that asked for this one (under every method, whatever getppid says).
 * Errors: -ESRCH (this is the family's main process), MPROC_EFOREIGN. */
MPROC_API int mproc_parent_process(mproc_process_info *ret_info);

/* 1 while the parent lives, 0 after; -ESRCH in the main process, MPROC_EFOREIGN. */
MPROC_API int mproc_parent_is_alive(void);

/* A handle that becomes readable when the parent ends. Borrowed for the life of the process.
 * Errors: -ESRCH in the main process; MPROC_EFOREIGN; -ENOSYS while the parent lives, on a kernel
 * without pidfds or in another pid namespace: ask mproc_parent_is_alive() from time to time. */
MPROC_API int mproc_parent_sentinel(mproc_handle *ret_handle);

/* Joins those children that ended, stores up to `capacity` of those that run in `children`
 * (borrowed) and returns how many run. */
MPROC_API int mproc_active_children(mproc_process **children, size_t capacity);

/* The CPUs that this process may use: affinity and cgroup quota (rounded up) counted. At least
 * 1. */
MPROC_API int mproc_cpu_count(void);

/* Runs `hook(user)` in every child that the method fork makes, before its entry, in order of
 * registration. In workers of a forkserver those hooks run that were registered in the server, by
 * preload functions for instance, and the caller's do not. It may use malloc and locks of the
 * thread that forked, and end the child by exit(): no handler of the parent runs. `user` is
 * borrowed for good. Handlers of pthread_atfork() may call mproc if they are registered after
 * mproc_init() (without that: after the first process object); those that were there before run
 * while mproc's locks are held, and must not. Errors: -ENOMEM. */
MPROC_API int mproc_after_fork(void (*hook)(void *user), void *user);

/* Stores the handle that the parent passed under this name. The caller owns it from the first call
 * on: close it when done. Errors: -ENOENT (the detail lists the names that were passed). */
MPROC_API int mproc_inherited(const char *name, mproc_handle *ret_handle);

#ifdef __cplusplus
}
#endif
#endif
