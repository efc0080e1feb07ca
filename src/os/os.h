/* os.h: the port contract. A port of mproc is a set of files that satisfies this header.
 *
 * Rules for every function below
 *   - Returns >= 0 on success and a negated errno value on failure; out-parameters are written on
 *     success only. A facility that the system lacks is -ENOSYS. The detail text (base/error.h) is
 *     the caller's business unless the contract says "says why".
 *   - Sizes are in bytes, times in nanoseconds of one monotonic clock, addresses and sizes given
 *     for mappings are multiples of 64 KiB.
 *   - Every handle is born close-on-exec (not inheritable on Windows). -1 is no handle.
 *   - EINTR never shows.
 *   - No type, constant or descriptor number of POSIX appears here, and none above this layer.
 * Functions marked [child] are async-signal-safe: they run between fork or clone and the exec or
 * the entry. */
#ifndef MPX_OS_H
#define MPX_OS_H

#include "base/clock.h"
#include "mproc/process.h"
#include "mproc/wait.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MPX_NO_HANDLE ((mproc_handle)-1)
#define MPX_OS_PATH_SIZE 4096 /* bytes of a path, NUL included */

/* ---- time ------------------------------------------------------------------------------------ */

int64_t mpx_os_now(void);

/* The same, up to 10 ms late, at a fifth of the price where the system has such a clock. */
int64_t mpx_os_now_coarse(void);
void mpx_os_sleep(int64_t duration_ns);

/* ---- handles and files ----------------------------------------------------------------------- */

/* A one-way channel: bytes written to ends[1] are read from ends[0]. */
int mpx_os_pipe(mproc_handle ret_ends[2]);
/* MPX_NO_HANDLE does nothing. [child] */
void mpx_os_close(mproc_handle handle);
/* [child] Writes all of it, however often the system writes less. */
int mpx_os_write(mproc_handle handle, const void *data, size_t size);
/* Reads up to `size` bytes, fewer at the end of the data only; returns the count. */
int64_t mpx_os_read(mproc_handle handle, void *data, size_t size);
/* Reads the whole of a small text file (/proc, /sys), cut at size - 1, NUL-terminated. */
int64_t mpx_os_read_file(const char *path, char *buffer, size_t size);
/* Opens for appending, made when missing, private to the user. */
int mpx_os_open_append(const char *path, mproc_handle *ret_handle);
/* Which standard stream the handle is: 0, 1 or 2; -1 for any other. */
int mpx_os_stream_index(mproc_handle handle);
/* [child] Whether the handle passes on an exec of this process. Standard streams always do. */
int mpx_os_set_inheritable(mproc_handle handle, bool inheritable);
/* The handle of standard error. */
mproc_handle mpx_os_stderr(void);
/* The handle of a standard stream, 0 to 2; MPX_NO_HANDLE when it is closed. */
mproc_handle mpx_os_stream_handle(int index);
/* Whether the handle is open at all. */
bool mpx_os_handle_is_open(mproc_handle handle);

typedef struct mpx_poll_item {
  mproc_handle handle;
  bool writable; /* waited for: writable instead of readable */
  bool ready;    /* result; an end or an error counts as ready */
  bool invalid;  /* result: the handle is not open */
} mpx_poll_item;

/* Waits until at least one item is ready, invalid, or the deadline has passed; returns the number
 * of ready and invalid ones, 0 at the deadline. Any count, also 0 (then it sleeps). MPX_NO_HANDLE
 * is left out: neither ready nor invalid. */
int mpx_os_poll(mpx_poll_item *items, size_t count, int64_t deadline_ns);

/* A file without a name that everybody appends to, to be a standard stream; see spool_tail. */
int mpx_os_spool_create(mproc_handle *ret_spool);
int64_t mpx_os_spool_size(mproc_handle spool);
/* The last bytes written since it had `from` bytes, at most `capacity`; returns how many. */
int64_t mpx_os_spool_tail(mproc_handle spool, int64_t from, void *data, size_t capacity);
/* What is in it goes; who appends goes on at the start. */
int mpx_os_spool_clear(mproc_handle spool);

/* ---- a channel that carries handles ---------------------------------------------------------- */

/* Two connected ends; messages keep their bounds. */
int mpx_os_channel(mproc_handle ret_ends[2]);
/* Whether handles can be sent at all; without, there is no forkserver. */
bool mpx_os_can_send_handles(void);
/* Lets the reader of this end know who sent each message. */
int mpx_os_channel_prove_senders(mproc_handle end);

enum { MPX_MESSAGE_SIZE = 65536, MPX_MESSAGE_HANDLES = 250 };

typedef struct mpx_os_bytes {
  const void *data;
  size_t size;
} mpx_os_bytes;

/* Sends one message, at most MPX_MESSAGE_SIZE bytes with MPX_MESSAGE_HANDLES handles; any number of
 * threads and processes may send to one end. -EPIPE: nobody listens. -ETIMEDOUT: nobody made room
 * before the deadline. */
int mpx_os_channel_post(mproc_handle end, const mpx_os_bytes *parts, size_t part_count,
                        const mproc_handle *handles, size_t handle_count, int64_t deadline);

typedef struct mpx_received {
  size_t size;
  size_t handle_count; /* the caller's now */
  bool cut;            /* some handles were lost: this process has no room for them */
  bool is_ours;        /* the sender's real user and group are this process's */
  int64_t pid;         /* of the sender; 0: not in this pid namespace */
  mproc_handle handles[MPX_MESSAGE_HANDLES];
} mpx_received;

/* Takes a message: 1, or 0 when nobody can send any more. -EAGAIN: none is there, and `wait` is
 * false. Longer ones are cut. */
int mpx_os_channel_take(mproc_handle end, void *data, size_t capacity, bool wait,
                        mpx_received *ret_received);

/* A place where another process that knows the name can open a channel to us, if it is the process
 * that we expect, and if we are the one that it expects. -ENOSYS: not on this system. */
int mpx_os_mailbox_create(mproc_handle *ret_mailbox, uint32_t *ret_name);
/* When the mailbox is readable. -EAGAIN: it was somebody else, or nobody. */
int mpx_os_mailbox_accept(mproc_handle mailbox, int64_t pid, mproc_handle *ret_end);
/* -ECONNREFUSED: nobody has a mailbox of that name, or not that process. -EAGAIN: too many are
 * there already. */
int mpx_os_mailbox_connect(uint32_t name, int64_t pid, mproc_handle *ret_end);

/* ---- threads --------------------------------------------------------------------------------- */

/* A lock between threads of one process. All zeros is an open one. */
typedef struct mpx_os_mutex {
  _Alignas(8) unsigned char storage[64];
} mpx_os_mutex;
void mpx_os_mutex_init(mpx_os_mutex *mutex);
void mpx_os_mutex_lock(mpx_os_mutex *mutex);
void mpx_os_mutex_unlock(mpx_os_mutex *mutex);

/* Between the two the calling thread is not cancelled: it would leave what it does half done. They
 * nest; a lock above holds the cancellation of its owner until it is unlocked. */
void mpx_os_cancel_hold(void);
void mpx_os_cancel_release(void);
/* In a forked child: releases what its parent's thread held, however often. */
void mpx_os_cancel_reset(void);

/* Calls `hook` in each thread that called mpx_os_thread_watch() when it ends by itself: by return,
 * pthread_exit or cancellation, not by the end or exec of the process. Once per process. */
int mpx_os_thread_hook(void (*hook)(void));
int mpx_os_thread_watch(void);
/* Whether the caller is the process's first thread. */
bool mpx_os_is_main_thread(void);
/* Whether a child may change its user, which the kernel's signal for its parent's death forgets. */
bool mpx_os_is_privileged(void);
/* Whether real, effective and saved user, or group, differ. */
bool mpx_os_has_mixed_ids(void);
/* Threads of this process; -ENOSYS where nobody can tell. */
int mpx_os_thread_count(void);
/* Whether all of them but the caller sleep right now; true where nobody can tell. */
bool mpx_os_other_threads_sleep(void);

/* ---- a lock whose owner may die -------------------------------------------------------------- */

/* In shared memory, between processes. The kernel notices the owner's end: exit, kill, exec or the
 * end of the thread. */
typedef struct mpx_os_robust {
  _Alignas(8) unsigned char storage[48];
} mpx_os_robust;
int mpx_os_robust_init(mpx_os_robust *lock);
/* 0: taken; 1: taken, the former owner died holding it (the lock is consistent again: what it
 * guards is not). Negative: not taken; only memory corruption causes it. */
int mpx_os_robust_lock(mpx_os_robust *lock);
/* As above, and -EBUSY when somebody alive holds it. */
int mpx_os_robust_trylock(mpx_os_robust *lock);
/* [child] */
void mpx_os_robust_unlock(mpx_os_robust *lock);
/* For a forked child: what the thread held that it is a copy of is still that thread's. The kernel
 * knows; a checker that keeps books of its own must be told. [child] */
void mpx_os_robust_disown(mpx_os_robust *lock);

/* ---- waiting on a word ----------------------------------------------------------------------- */

/* Sleeps while *word == expected, until woken or the deadline; may return early for no reason.
 * Works between processes that share the word's memory. [child] */
void mpx_os_word_wait(_Atomic uint32_t *word, uint32_t expected, int64_t deadline_ns);
/* About as long as a sleep and a wake-up take. */
#define MPX_OS_SPIN_NS ((int64_t)50 * 1000)
/* Looks while *word == expected, for that long at most, unless there is one CPU only. For what
 * another process is at right now. [child] */
void mpx_os_word_spin(_Atomic uint32_t *word, uint32_t expected, int64_t duration_ns);
/* Whether looking again may be of use before sleeping: not with one CPU only. [child] */
bool mpx_os_may_spin(void);
/* One step of looking again and again. [child] */
void mpx_os_pause(void);
/* Wakes at most `count` of those who sleep; returns how many. [child] */
int mpx_os_word_wake(_Atomic uint32_t *word, int count);
void mpx_os_word_wake_all(_Atomic uint32_t *word);
/* How many sleep right now; may wake them where the system cannot tell otherwise. */
int mpx_os_word_sleepers(_Atomic uint32_t *word);

/* ---- a bell ---------------------------------------------------------------------------------- */

/* A handle that any process can make readable which knows the bell's name, for those who wait for
 * handles too. It carries nothing: strangers can ring it as well, and whoever hears it looks. */
#define MPX_OS_NO_BELL 0 /* no bell is called so; to ring it does nothing */
typedef struct mpx_os_bell {
  mproc_handle handle; /* readable once it rang, until it is hushed */
  uint32_t name;       /* free again when the bell is closed or its process ends */
  mproc_handle parts[2];
} mpx_os_bell;

/* With `look_ns` the handle becomes readable by itself so often, also when it did not ring; 0:
 * never. -ENOSYS: this system has no such thing. -EMFILE, -ENFILE, -ENOMEM. */
int mpx_os_bell_create(int64_t look_ns, mpx_os_bell *ret_bell);
void mpx_os_bell_hush(const mpx_os_bell *bell);
void mpx_os_bell_close(const mpx_os_bell *bell);
/* Whether somebody heard it is not said: a process without free descriptors, or in another network
 * namespace, cannot ring. [child], and usable in a signal handler. */
void mpx_os_bell_ring(uint32_t name);

/* ---- memory ---------------------------------------------------------------------------------- */

/* Anonymous shared memory of `size` bytes that no process can open by name; its size is final. */
int mpx_os_segment_create(size_t size, mproc_handle *ret_handle);
/* Whether `handle` is open and is the very segment whose identity was stored by _identify. */
typedef struct mpx_segment_id {
  uint64_t device;
  uint64_t inode;
  uint64_t size;
} mpx_segment_id;
int mpx_os_segment_identify(mproc_handle handle, mpx_segment_id *ret_id);
/* Maps the segment at exactly `address`, left out of core dumps; -EEXIST when something is
 * there. */
int mpx_os_segment_map(mproc_handle handle, void *address, size_t size);
void mpx_os_segment_unmap(void *address, size_t size);
/* Backs the pages with memory now, so that a later write cannot fail: -ENOMEM when there is none.
 * The range is of whole pages of mpx_os_page_size(). */
int mpx_os_commit(void *start, size_t size);
/* Gives the pages back to the system; they read as zero after. */
int mpx_os_decommit(void *start, size_t size);
/* Maps pages that are backed already into this process. */
int mpx_os_prefault(void *start, size_t size);
size_t mpx_os_page_size(void);

/* A part of this process's address space that it may read, write or execute. */
typedef struct mpx_mapping {
  uintptr_t start, end;
  bool is_code; /* executable, and not writable */
  char *name;   /* a file's path, the system's word ("[stack]"), or "anonymous memory" */
} mpx_mapping;
/* All of them, by address; to be given back by _mappings_free. -ENOENT, -EACCES and others where
 * the system does not tell. */
int mpx_os_mappings(mpx_mapping **ret_mappings, size_t *ret_count);
void mpx_os_mappings_free(mpx_mapping *mappings, size_t count);

/* Private memory of `size` bytes that is all zero in any child made by fork, by whomever. */
int mpx_os_wiped_alloc(size_t size, void **ret_memory);

/* Sealed bytes in a handle: cannot be changed by anybody once made; read with _seal_read, which
 * refuses (-EBADMSG) a handle that is not sealed or belongs to another user. */
int mpx_os_seal_create(const char *name, const mpx_os_bytes *parts, size_t count,
                       mproc_handle *ret_handle);
/* Maps the content read-only: *ret_data is valid until mpx_os_seal_release. */
int mpx_os_seal_read(mproc_handle handle, const void **ret_data, size_t *ret_size);
void mpx_os_seal_release(const void *data, size_t size);

/* Bytes of memory this process may use at most: the smaller of the machine's and its cgroup's. */
uint64_t mpx_os_memory_limit(void);
/* Whether a checker watches this process that reads all memory it has mapped, used or not. */
bool mpx_os_memory_is_scanned(void);
/* Bytes left below the cgroup's limit; UINT64_MAX without one. Reads files: not for hot paths. */
uint64_t mpx_os_memory_headroom(void);
/* CPUs by affinity and by cgroup quota, rounded up; at least 1. */
int mpx_os_cpu_count(void);

/* Bytes of private memory that a process has written to: what is shared, or a file's, is not
 * counted. -ESRCH, -ENOSYS. */
int mpx_os_memory_use(int64_t pid, uint64_t *ret_bytes);
/* From here on this process gets at most `bytes` of private memory more than it has; what asks for
 * more fails. */
int mpx_os_limit_memory(uint64_t bytes);
/* How many processes the system has killed for their memory in this process's cgroup. -ENOSYS:
 * nobody can tell. Reads a file. */
int64_t mpx_os_oom_kills(void);

/* ---- this process ---------------------------------------------------------------------------- */

int64_t mpx_os_pid(void);
/* The process that the system holds for the parent; 0: one in another pid namespace. */
int64_t mpx_os_parent_pid(void);
/* A number of the pid namespace that this process is in: another one in each that there is at a
 * time. 0: nobody can tell. [child] */
uint32_t mpx_os_pid_namespace(void);
/* When a process started, in units that never repeat for one pid while the machine is up.
 * -ESRCH. */
int64_t mpx_os_start_time(int64_t pid);
/* Raised privileges: set-user-ID, file capabilities. Then no MPROC_* variable may be read. */
bool mpx_os_is_secure(void);
/* Shows the name in ps and top, cut to what the system shows. [child] */
void mpx_os_set_process_name(const char *name);
/* Flushes stdout and stderr where their locks can be had at once: never waits. */
void mpx_os_stdio_flush(void);
/* Drops what the parent had not flushed, in a forked child: it is the parent's to write. */
void mpx_os_stdio_drop(void);
/* The process's environment, and its replacement in a fresh forked child (borrowed for good). */
char *const *mpx_os_environment(void); /* never NULL */
void mpx_os_set_environment(char **environment);
void mpx_os_unset_environment(const char *name);
/* Registers `last` to run at exit() with the exit code, before every handler registered earlier;
 * `last` does not return. -ENOSYS where the system cannot tell the code. */
int mpx_os_at_exit_barrier(void (*last)(int code));
/* Ends the process now, without handlers or flushing. [child] */
_Noreturn void mpx_os_exit_now(int code);
/* At the end of a child: flushes every output stream whose lock can be had. */
void mpx_os_stdio_finish(void);
/* Points stdin, stdout and stderr at the null device where they are closed, so that no descriptor
 * of mproc's becomes one of them. */
void mpx_os_stdio_ensure(void);

/* ---- modules: where a function lives --------------------------------------------------------- */

/* A file with code in it. Two are the same only when kind, size and bytes are equal. */
typedef struct mpx_module_id {
  uint32_t kind; /* 1: build-id; 2: device, inode, size, mtime and a hash of the program headers */
  uint32_t size;
  unsigned char bytes[56];
} mpx_module_id;

typedef struct mpx_module {
  bool is_main;   /* the main program */
  uintptr_t base; /* what an offset is relative to */
  mpx_module_id id;
  char path[MPX_OS_PATH_SIZE];
} mpx_module;

/* The module that holds `address`; says why not. -ENOENT when none does. */
int mpx_os_module_of(const void *address, mpx_module *ret_module);
/* The main program's module. */
int mpx_os_module_main(mpx_module *ret_module);
/* Whether a module with this build-id is loaded, or is the main program; reads no file. */
bool mpx_os_module_find(const mpx_module_id *id, bool is_main, uintptr_t *ret_base);
/* Finds a loaded module with this identity, else loads `path`; says why not.
 * MPROC_ENOMODULE: no such file or not loadable; MPROC_EMISMATCH: a file with another identity. */
int mpx_os_module_load(const char *path, const mpx_module_id *id, mpx_module *ret_module);
/* How often a module was unloaded from this process; while it is the same, an address of a function
 * is the same function. 0 where nobody can tell. */
uint64_t mpx_os_module_unloads(void);
/* What to execute to run this very program again: a path that stays the same file when the program
 * is replaced on disk, where there is one. */
int mpx_os_self_executable(char path[MPX_OS_PATH_SIZE]);

/* ---- processes ------------------------------------------------------------------------------- */

/* Where the set-up of a child failed. */
typedef enum mpx_stage {
  MPX_STAGE_NONE = 0,
  MPX_STAGE_CREATE,
  MPX_STAGE_STREAMS,
  MPX_STAGE_DESCRIPTORS,
  MPX_STAGE_LIMITS,
  MPX_STAGE_AFFINITY,
  MPX_STAGE_NICE,
  MPX_STAGE_CGROUP,
  MPX_STAGE_CWD,
  MPX_STAGE_GROUP,
  MPX_STAGE_PARENT,
  MPX_STAGE_EXEC
} mpx_stage;
const char *mpx_os_stage_text(mpx_stage stage);
/* Which limit a failed call hit, to be put behind the error's own text: " (the limit on ...)"; ""
 * for an error that no limit causes. Static storage. */
const char *mpx_os_limit_text(int code);

/* User and group ids and capabilities of a thread. */
typedef struct mpx_credentials {
  uint64_t words[8];
} mpx_credentials;
/* -EPERM: they are such that no program executed by this process could have them. */
int mpx_os_credentials_get(mpx_credentials *ret_credentials);
/* Gives a process of one thread these. -EPERM: it has others now, where it lacks the right. */
int mpx_os_credentials_set(const mpx_credentials *credentials);

/* What a child is to be, all of it prepared by the parent. Borrowed during the call. */
typedef struct mpx_launch {
  const char *path; /* spawn: the file to execute */
  char *const *argv;
  char *const *environment; /* NULL: the caller's */
  /* spawn: inside `environment`, room for 20 digits and a NUL, where the child writes its own pid
   * before the exec; NULL without one */
  char *marker;
  const char *cwd;             /* NULL: the caller's */
  const mproc_stream *streams; /* three */
  const mproc_handle *keep;    /* spawn: handles that survive the exec, under the same numbers */
  size_t keep_count;
  const mproc_limit *limits;
  size_t limit_count;
  const int *cpus;
  size_t cpu_count;
  int nice;
  const char *cgroup;
  /* Killed when the calling thread ends: for the main thread, with the process. */
  bool die_with_parent;
  /* spawn: no child of the caller, nor of its waits; *child is not filled in. */
  bool orphan;
  /* spawn: the caller's, which the program will set once it runs; the exec is to leave what that
   * needs, and not to count as set-user-ID. NULL: an exec like any other */
  const mpx_credentials *credentials;
  mproc_handle record; /* with credentials: becomes a file of the user that the program begins as */
} mpx_launch;

typedef struct mpx_child {
  int64_t pid;
  mproc_handle sentinel; /* readable when the child ended */
  bool pidfd;            /* the sentinel is a pidfd: names exactly this child for ever */
  int32_t newborn;       /* see mpx_os_spawn; -1: none */
} mpx_child;
#define MPX_NO_CHILD                                                                               \
  { 0, MPX_NO_HANDLE, false, -1 }

/* As mproc_rusage, without its room for later: it lies in the process table. */
typedef struct mpx_rusage {
  int64_t user_time_ns;
  int64_t system_time_ns;
  int64_t max_rss_bytes;
  int64_t minor_faults;
  int64_t major_faults;
  int64_t voluntary_switches;
  int64_t involuntary_switches;
} mpx_rusage;

/* How a child ended. */
typedef struct mpx_exit {
  mproc_state state; /* EXITED, SIGNALED or UNKNOWN (somebody else took the status) */
  int code;
  int signal;
  bool core_dumped;
  bool has_rusage;
  mpx_rusage rusage;
} mpx_exit;
/* The most memory that this process ever had resident, in bytes. */
int64_t mpx_os_peak_rss(void);

/* Without pidfds a sentinel is the read end of a pipe whose other end the child holds as long as it
 * lives. Call it before a start: *ret_held is that other end, to be closed by the parent after the
 * start and kept open by the child, or MPX_NO_HANDLE where the system needs none. */
int mpx_os_child_prepare(mpx_child *child, mproc_handle *ret_held);
/* Starts launch->path as a child prepared before. The caller's signal mask, handlers and
 * descriptors do not leak into it. Returns when the exec succeeded; a failure of any step before
 * comes back here, with *ret_stage, and leaves no process behind. A handle of the child may be in
 * child->newborn from then on, after a failure too: a fork by another thread has the handle only
 * if its copy of *child has the number. */
int mpx_os_spawn(const mpx_launch *launch, mpx_child *child, mpx_stage *ret_stage);
/* Whether a process can be copied here: false on Windows. */
bool mpx_os_has_fork(void);
/* Runs the three around every fork() of this process, as pthread_atfork does; nothing where there
 * is no fork. */
void mpx_os_at_fork(void (*before)(void), void (*in_parent)(void), void (*in_child)(void));
/* Copies the process, with its atfork handlers run. 0 in the child, else the pid. */
int64_t mpx_os_fork(void);
/* Gives a child that was forked or spawned just now its sentinel. Apart from the start, so that the
 * caller may do it under a lock that no fork gets past. Where another part of the program reaped
 * the child at once, the sentinel is a handle that is readable for ever, and no pidfd. */
int mpx_os_child_name(mpx_child *child);
/* Ends and reaps a child that could not be named. */
void mpx_os_child_discard(const mpx_child *child);
/* Closes the handles; *child is MPX_NO_CHILD. */
void mpx_os_child_close(mpx_child *child);
/* Applies a launch to the calling process, itself a fresh child made by `parent_pid`: everything
 * except path, argv, environment, marker and keep. [child] */
int mpx_os_apply(const mpx_launch *launch, int64_t parent_pid, mpx_stage *ret_stage);
/* ---- surroundings and privileges ------------------------------------------------------------- */

/* What a child has from its parent by nature, and a forkserver's worker by message: umask, nice
 * value, signal mask, resource limits, affinity, process group, and which working directory. */
typedef struct mpx_surroundings {
  uint64_t words[64];
} mpx_surroundings;
int mpx_os_surroundings_get(mpx_surroundings *ret_surroundings);
bool mpx_os_surroundings_same_cwd(const mpx_surroundings *a, const mpx_surroundings *b);
/* A handle for the working directory, which may have no path any more. */
int mpx_os_cwd_open(mproc_handle *ret_handle);
/* Makes the surroundings of this process, which are `now`, those of `wanted`; `cwd` is the
 * directory when it differs. The signal mask comes last. [child] */
int mpx_os_surroundings_apply(const mpx_surroundings *wanted, const mpx_surroundings *now,
                              mproc_handle cwd, mpx_stage *ret_stage);
/* The standard streams become the null device. */
int mpx_os_streams_to_null(void);
/* The standard streams become these handles, which are closed; MPX_NO_HANDLE: closed. [child] */
int mpx_os_streams_install(const mproc_handle handles[3]);

/* What a process may do, and what it can see: ids, groups, capabilities, filters, namespaces,
 * cgroup, session. No message can change these. */
typedef struct mpx_privilege {
  uint64_t words[16];
} mpx_privilege;
int mpx_os_privilege_get(mpx_privilege *ret_privilege);

/* ---- waiting for all children, in a process of mproc's own ----------------------------------- */

/* From here on all signals are blocked in the calling thread and have their defaults, and only
 * reaper_poll is interrupted. */
int mpx_os_reaper_begin(void);
/* As mpx_os_poll; returns 0 also when a child ended. */
int mpx_os_reaper_poll(mpx_poll_item *items, size_t count, int64_t deadline_ns);
/* The pid of some child that ended and was not taken; 0: none. */
int64_t mpx_os_reaper_peek(void);
/* Takes the status of a child that ended: 1, 0 while it runs, -ECHILD. */
int mpx_os_reaper_take(int64_t pid, mpx_exit *ret_exit);
/* Whether this child of ours has ended; its status stays. */
bool mpx_os_reaper_has_ended(int64_t pid);
/* Kills a child whose status was not taken. */
void mpx_os_reaper_kill(int64_t pid);
/* In a child of the reaper: no handler is left. The mask stays blocked. [child] */
void mpx_os_reaper_leave(void);
/* Forgets the signals that came while all were blocked: they were meant for somebody else. */
void mpx_os_reaper_forget_signals(void);
/* How a process ended that is nobody's child here and that its own parent has not reaped, or that
 * the kernel still knows by its pidfd. Returns 1 if that can be told. */
int mpx_os_exit_of_stranger(int64_t pid, mproc_handle pidfd, mpx_exit *ret_exit);
/* The parent's death ends this process, or no longer does. [child] */
int mpx_os_die_with_parent(int64_t parent_pid, bool yes);

/* Which signals a thread holds back. */
typedef struct mpx_signal_mask {
  uint64_t words[16];
} mpx_signal_mask;
/* The calling thread holds back all signals, so that no handler runs in it; stores what it held
 * before. */
void mpx_os_signals_hold(mpx_signal_mask *ret_mask);
/* [child] */
void mpx_os_signals_restore(const mpx_signal_mask *mask);

/* Marks every handle but the standard streams and those listed as not passing on an exec.
 * [child] */
int mpx_os_keep_only(const mproc_handle *keep, size_t count);
/* Takes the status of a child that ended: 1 and *ret_exit, or 0 while it runs. Never waits, never
 * touches another child. */
int mpx_os_child_poll(const mpx_child *child, mpx_exit *ret_exit);
/* Sends the system's terminate, kill or interrupt to exactly this child; 0 also when it has
 * ended. */
typedef enum mpx_signal { MPX_SIGNAL_TERMINATE, MPX_SIGNAL_KILL, MPX_SIGNAL_INTERRUPT } mpx_signal;
int mpx_os_child_signal(const mpx_child *child, mpx_signal signal);
/* A sentinel for a process that is no child of ours; -ESRCH when it is gone, -ENOSYS without
 * pidfds. */
int mpx_os_process_open(int64_t pid, mproc_handle *ret_sentinel);
/* Kills a process by its sentinel (a pidfd), or by pid and start time without one. */
void mpx_os_process_kill(int64_t pid, int64_t start_time, mproc_handle sentinel);
/* As mpx_os_child_signal, for a process that is no child of ours. */
int mpx_os_process_signal(int64_t pid, int64_t start_time, mproc_handle pidfd, mpx_signal signal);
/* Gives the process all the descriptors that the system allows. */
void mpx_os_raise_handle_limit(void);
/* Makes the process deaf to the terminal and to polite signals, and gives it all the descriptors
 * that the system allows: for one that must outlive its surroundings. */
void mpx_os_detach(void);
/* Whether some process with this pid and start time lives (a zombie does not). `start_time` is what
 * mpx_os_start_time said, errors too: with -ESRCH none does, with another the pid alone counts. */
bool mpx_os_process_is_alive(int64_t pid, int64_t start_time);
/* Whether a process is stopped, by a signal or a debugger. */
bool mpx_os_process_is_stopped(int64_t pid);
/* Whether a process has begun to end, so that it will run nothing more; true where nobody can
 * tell. */
bool mpx_os_process_is_ending(int64_t pid);
/* Whether there is a file that this process may execute. */
bool mpx_os_is_executable(const char *path);
/* A sentinel that is readable for ever: of a process that is gone. */
int mpx_os_ended_sentinel(mproc_handle *ret_sentinel);
/* Searches PATH for a command, as execvp would. -ENOENT, -EACCES. */
int mpx_os_find_command(const char *name, char path[MPX_OS_PATH_SIZE]);
/* The name of a signal, "SIGSEGV"; "signal 77" for one without a name. Writes to `buffer`. */
const char *mpx_os_signal_name(int number, char *buffer, size_t size);

#endif
