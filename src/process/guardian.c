#include "process/guardian.h"

#include "base/error.h"
#include "base/log.h"
#include "os/crash_point.h"
#include "process/boot.h"
#include "process/executable.h"
#include "process/process.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A process to watch or to kill. The first one sent is the parent. */
typedef struct ward {
  int64_t pid;
  int64_t start_time; /* 0 when a pidfd goes with it */
} ward;

/* How long a guardian that is stopped or has yet to begin, and cannot be told of more children, may
 * keep its parent waiting; then another one takes its place. */
#define PATIENCE_NS (5 * MPX_NS_PER_S)

/* ---- the parent's side ----------------------------------------------------------------------- */

static struct {
  mpx_os_mutex lock;
  mproc_handle channel;
  int64_t pid; /* whose it is: not that of a copy made by a stranger's fork */
} guardian = {.channel = MPX_NO_HANDLE};

/* Sends a ward, with a pidfd where there are pidfds. */
static int send_ward(mproc_handle channel, int64_t pid, mproc_handle pidfd) {
  ward message = {.pid = pid};
  if (pidfd == MPX_NO_HANDLE) {
    message.start_time = mpx_os_start_time(pid);
    if (message.start_time < 0) /* gone already: nothing to guard */
      return message.start_time == -ESRCH ? 0 : (int)message.start_time;
  }
  const mpx_os_bytes part = {&message, sizeof message};
  return mpx_os_channel_post(channel, &part, 1, &pidfd, pidfd != MPX_NO_HANDLE,
                             mpx_os_now() + PATIENCE_NS);
}

static int fail_making(int r) {
  return mpx_fail(r, "cannot make the guardian of daemon children: %s%s", mproc_strerror(r),
                  mpx_os_limit_text(r));
}

static int send_self(mproc_handle channel) {
  mproc_handle self = MPX_NO_HANDLE;
  (void)mpx_os_process_open(mpx_os_pid(), &self);
  int r = send_ward(channel, mpx_os_pid(), self);
  mpx_os_close(self);
  return r < 0 ? mpx_fail(r,
                          "the guardian of daemon children did not come up: %s (the limit on "
                          "processes, RLIMIT_NPROC, or too little memory?)",
                          mproc_strerror(r))
               : 0;
}

static int seal(mproc_handle channel, mpx_credentials *ret_credentials, mproc_handle *ret_handle) {
  mpx_boot_record *record = calloc(1, sizeof *record);
  if (!record)
    return mpx_fail_code(-ENOMEM, "making the guardian");
  int r = mpx_boot_prepare(record, MPX_BOOT_GUARDIAN, MPX_NO_HANDLE);
  record->channel = channel;
  record->head.size = sizeof *record;
  *ret_credentials = record->credentials;
  mpx_os_bytes part = {record, sizeof *record};
  if (r == 0 && (r = mpx_os_seal_create("mproc-boot", &part, 1, ret_handle)) < 0)
    (void)fail_making(r);
  free(record);
  return r;
}

static int execute(const char *path, mproc_handle channel) {
  static const mproc_stream null_streams[3] = {
      {.kind = MPROC_STREAM_NULL}, {.kind = MPROC_STREAM_NULL}, {.kind = MPROC_STREAM_NULL}};
  mproc_handle record;
  mpx_credentials own; /* it stays what the exec makes of them: it is to kill whom we may */
  int r = seal(channel, &own, &record);
  if (r < 0)
    return r;
  const mproc_handle keep[] = {record, channel};
  mpx_boot_launch boot = {.launch = {.path = path,
                                     .streams = null_streams,
                                     .keep = keep,
                                     .keep_count = 2,
                                     .orphan = true,
                                     .credentials = &own},
                          .title = "mproc:guardian",
                          .record = record};
  mpx_child child = MPX_NO_CHILD;
  mpx_stage stage;
  r = mpx_boot_spawn(&boot, &child, &stage);
  mpx_os_close(record);
  return r < 0 ? mpx_fail(r, "cannot make the guardian of daemon children: %s failed: %s%s",
                          mpx_os_stage_text(stage), mproc_strerror(r), mpx_os_limit_text(r))
               : 0;
}

static int make_from(char path[MPX_OS_PATH_SIZE]) {
  mproc_handle ends[2];
  int r = mpx_executable_for_guardian(path);
  if (r < 0)
    return r;
  r = mpx_os_channel(ends);
  if (r < 0)
    return fail_making(r);
  r = execute(path, ends[1]);
  mpx_os_close(ends[1]);
  MPROC_CRASH_POINT("guardian.executed");
  if (r == 0)
    r = send_self(ends[0]);
  if (r < 0) {
    mpx_os_close(ends[0]);
    return r;
  }
  guardian.channel = ends[0];
  guardian.pid = mpx_os_pid();
  mpx_log(MPROC_LOG_DEBUG, "a guardian watches over the daemon children of threads");
  return 0;
}

static int make(void) {
  char *path = malloc(MPX_OS_PATH_SIZE); /* too large for a small thread's stack */
  if (!path)
    return fail_making(-ENOMEM);
  int r = make_from(path);
  free(path);
  return r;
}

static mproc_handle pidfd_of(const mpx_child *child) {
  return child->pidfd ? child->sentinel : MPX_NO_HANDLE;
}

static void send_again(mproc_process *process, void *user) {
  int *result = user;
  mpx_os_mutex_lock(&process->lock);
  bool runs = process->phase == MPX_PHASE_STARTING || process->phase == MPX_PHASE_RUNNING;
  if (process->watched && runs && *result == 0)
    *result = send_ward(guardian.channel, process->child.pid, pidfd_of(&process->child));
  mpx_os_mutex_unlock(&process->lock);
}

static void forget(void) {
  mpx_os_close(guardian.channel);
  guardian.channel = MPX_NO_HANDLE;
  guardian.pid = 0;
}

/* A new guardian gets all wards that there are: the last one may have been killed, even long
 * ago. */
static int make_with_wards(void) {
  int r = make();
  if (r < 0)
    return r;
  int visited = mpx_registry_visit(send_again, &r);
  if (r == 0)
    r = visited;
  if (r < 0)
    forget();
  return r < 0 ? fail_making(r) : 0;
}

static void lock(void) {
  mpx_os_mutex_lock(&guardian.lock);
}

static void unlock(void) {
  mpx_os_mutex_unlock(&guardian.lock);
}

/* The lock is held around every fork, so that a copy of us, a stranger's too, finds it open. */
void mpx_guardian_prepare(void) {
  static atomic_flag watched = ATOMIC_FLAG_INIT;
  if (!atomic_flag_test_and_set(&watched)) /* with no lock held: a fork elsewhere may want it */
    mpx_os_at_fork(lock, unlock, unlock);
}

static int ensure(void) {
  mpx_guardian_prepare();
  mpx_os_mutex_lock(&guardian.lock);
  int r = guardian.pid == mpx_os_pid() ? 0 : make_with_wards();
  mpx_os_mutex_unlock(&guardian.lock);
  return r;
}

/* The kernel's signal forgets a child that changes its user or group. The guardian costs a process,
 * so only those have one whose children can do that. Where it cannot be made, a child of the main
 * thread has what the kernel gives. */
int mpx_guardian_tie(mproc_process *process) {
  bool daemon = process->options.daemon != 0;
  process->tied = daemon && mpx_os_is_main_thread();
  process->guarded = daemon && (!process->tied || mpx_os_is_privileged());
  int r = process->guarded ? ensure() : 0;
  if (r < 0 && process->tied) {
    mpx_log(MPROC_LOG_INFO,
            "'%s': no guardian (%s): if it gives up its user or group, it outlives a killed "
            "parent",
            process->name, mproc_strerror(r));
    process->guarded = false;
    r = 0;
  }
  return r;
}

static int replace(void) {
  mpx_log(MPROC_LOG_ERROR,
          "the guardian of daemon children was killed or is stopped; making another");
  forget();
  return make_with_wards();
}

int mpx_guardian_watch(mproc_process *process) {
  const mpx_child *child = &process->child;
  mpx_os_mutex_lock(&guardian.lock);
  int r = guardian.channel == MPX_NO_HANDLE
              ? -EPIPE /* another thread failed to replace it */
              : send_ward(guardian.channel, child->pid, pidfd_of(child));
  bool is_said = false;
  if (r == -EPIPE || r == -ETIMEDOUT) {
    r = replace();
    is_said = r < 0;
    if (r == 0)
      r = send_ward(guardian.channel, child->pid, pidfd_of(child));
  }
  process->watched = r == 0;
  mpx_os_mutex_unlock(&guardian.lock);
  return r < 0 && !is_said ? mpx_fail(r, "cannot put the child under the guardian: %s%s",
                                      mproc_strerror(r), mpx_os_limit_text(r))
                           : r;
}

void mpx_guardian_reset_in_child(void) {
  if (guardian.pid != 0) /* the lock is open: it was held around the fork */
    forget();
}

/* ---- the guardian's side --------------------------------------------------------------------- */

typedef struct wards {
  ward *items;          /* [0]: the parent */
  mpx_poll_item *polls; /* [i]: the pidfd of items[i], or none; [count]: the channel */
  size_t count, capacity;
} wards;

static void add_ward(wards *all, const ward *item, mproc_handle pidfd) {
  if (all->count + 2 > all->capacity) {
    size_t capacity = all->capacity * 2 + 16;
    ward *items = realloc(all->items, capacity * sizeof *items);
    mpx_poll_item *polls = items ? realloc(all->polls, capacity * sizeof *polls) : NULL;
    if (items)
      all->items = items;
    if (!polls) {
      if (all->count == 0) /* it is the parent, which finds nobody at the channel: makes another */
        mpx_os_exit_now(1);
      /* better no daemon than one that outlives its parent */
      mpx_os_process_kill(item->pid, item->start_time, pidfd);
      mpx_os_close(pidfd);
      return;
    }
    all->polls = polls;
    all->capacity = capacity;
  }
  all->polls[all->count] = (mpx_poll_item){.handle = pidfd};
  all->items[all->count++] = *item;
}

/* Returns whether more may come. */
static bool receive_wards(wards *all, mproc_handle channel) {
  ward item;
  mpx_received received;
  for (;;) {
    int r = mpx_os_channel_take(channel, &item, sizeof item, false, &received);
    if (r != 1)
      return r == -EAGAIN;
    size_t kept = received.size == sizeof item && received.handle_count > 0;
    for (size_t i = kept; i < received.handle_count; i++)
      mpx_os_close(received.handles[i]);
    if (received.size != sizeof item)
      return false;
    mproc_handle pidfd = kept ? received.handles[0] : MPX_NO_HANDLE;
    if (pidfd == MPX_NO_HANDLE && item.start_time == 0) /* no room for its pidfd */
      item.start_time = mpx_os_start_time(item.pid);
    add_ward(all, &item, pidfd);
  }
}

static bool is_gone(const wards *all, size_t i) {
  mproc_handle pidfd = all->polls[i].handle;
  return pidfd != MPX_NO_HANDLE
             ? all->polls[i].ready
             : !mpx_os_process_is_alive(all->items[i].pid, all->items[i].start_time);
}

static void forget_gone(wards *all) {
  for (size_t i = all->count; i-- > 1;)
    if (is_gone(all, i)) {
      mpx_os_close(all->polls[i].handle);
      all->count--;
      all->items[i] = all->items[all->count];
      all->polls[i] = all->polls[all->count];
    }
}

static void wait_for_news(wards *all, mproc_handle channel) {
  bool blind = false; /* somebody can be watched by looking only */
  for (size_t i = 0; i < all->count; i++)
    blind |= all->polls[i].handle == MPX_NO_HANDLE;
  mpx_poll_item listen = {.handle = channel};
  if (all->count == 0) { /* the parent's message comes first */
    (void)mpx_os_poll(&listen, 1, MPX_NEVER);
    return;
  }
  all->polls[all->count] = listen;
  int64_t until = blind ? mpx_os_now() + 100 * MPX_NS_PER_MS : MPX_NEVER;
  if (mpx_os_poll(all->polls, all->count + 1, until) >= 0)
    return;
  for (size_t i = 0; i <= all->count; i++) /* what it found last time is over */
    all->polls[i].ready = false;
  mpx_os_sleep(10 * MPX_NS_PER_MS); /* no memory for so many: it may come back */
}

void mpx_guardian_run(mproc_handle channel) {
  wards all = {0};
  mpx_os_detach();
  mpx_os_set_process_name("mproc:guardian");
  (void)mpx_os_set_inheritable(channel, false);
  for (bool parent_gone = false; !parent_gone;) {
    wait_for_news(&all, channel);
    parent_gone = all.count > 0 && is_gone(&all, 0);
    forget_gone(&all);
    /* After the parent's death too: its last messages are still in the channel. The channel's end
     * alone means little: a parent that executed another program lives on. */
    if (channel != MPX_NO_HANDLE && !receive_wards(&all, channel)) {
      mpx_os_close(channel);
      channel = MPX_NO_HANDLE;
    }
    parent_gone |= all.count == 0 && channel == MPX_NO_HANDLE; /* gone before it said a word */
  }
  for (size_t i = 1; i < all.count; i++)
    mpx_os_process_kill(all.items[i].pid, all.items[i].start_time, all.polls[i].handle);
  mpx_os_exit_now(0);
}
