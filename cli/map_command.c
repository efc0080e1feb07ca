/* What a worker does for one input of a command: runs it in a process group of its own, takes what
 * it writes, and ends it when it is too long or too large. */
#define _GNU_SOURCE /* pipe2, vfork, syscall */

#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
  READ_BYTES = 1 << 16,
  MEMORY_BYTES = 4 << 20, /* of a stream; more goes to a file */
  FIRST_LOOK_MS = 5,      /* most commands are over by then, and cost no pidfd */
  LOOK_MS = 100,
  MEMORY_LOOK_MS = 20,
  GRACE_MS = 1000, /* between SIGTERM and SIGKILL */
  GROUP_LOOK_MS = 5,
  GROUP_LOOK_MAX_MS = 50,
  SIGNALS = 64
};

#define FIRST_LOOK_NS ((int64_t)FIRST_LOOK_MS * 1000000)

enum { OUT = MAP_OUT, ERRORS = MAP_ERRORS, ENDED = MAP_STREAMS, ITEM_COUNT };

typedef struct run {
  map_record *record;
  mproc_task *task;
  char **argv; /* argv[-1] is the program */
  map_buffer bytes[MAP_STREAMS];
  int spools[MAP_STREAMS]; /* -1: all is in `bytes` */
  size_t spooled[MAP_STREAMS];
  int no_room;                     /* an errno value: what comes is dropped */
  struct pollfd items[ITEM_COUNT]; /* -1: closed, or never opened */
  pid_t pid;
  int64_t deadline_ns; /* INT64_MAX: none */
  int64_t look_ns;     /* when memory is looked at next */
  int64_t kill_ns;     /* when SIGTERM was not enough */
  map_end end;
} run;

static void reset_signals(uint64_t ignored) {
  for (int number = 1; number < SIGNALS; number++) {
    struct sigaction action = {.sa_handler = ignored >> number & 1 ? SIG_IGN : SIG_DFL};
    if (number != SIGKILL && number != SIGSTOP)
      (void)sigaction(number, &action, NULL);
  }
}

/* Runs in the child, on memory of the worker: only system calls, no stores but to the record.
 * Signals are blocked until no handler of ours is left. */
static _Noreturn void become(const run *r, int out, int errors, uint64_t ignored) {
  sigset_t none;
  (void)setpgid(0, 0);
  /* before the command runs, so that there is none that nobody could kill; relaxed: who kills looks
   * at it again after the pool has ended */
  atomic_store_explicit(&r->record->group, (int64_t)getpid(), memory_order_relaxed);
  (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
  reset_signals(ignored);
  sigemptyset(&none);
  if (dup2(out, STDOUT_FILENO) >= 0 && dup2(errors, STDERR_FILENO) >= 0 &&
      sigprocmask(SIG_SETMASK, &none, NULL) == 0)
    execvp(r->argv[-1], r->argv);
  atomic_store_explicit(&r->record->exec_error, errno, memory_order_relaxed);
  _exit(127);
}

/* 0, or an errno value. */
static int start(run *r, int out, int errors) {
  _Atomic int *error = &r->record->exec_error;
  uint64_t ignored = map_worker_setup()->ignored;
  sigset_t all, mask;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, &mask);
  atomic_store_explicit(error, 0, memory_order_relaxed);
  /* not posix_spawn(): it cannot make the command die with its worker */
  pid_t pid = vfork(); /* NOLINT */
  if (pid == 0)
    become(r, out, errors, ignored); /* NOLINT: it is made for that */
  int failure = pid < 0 ? errno : atomic_load_explicit(error, memory_order_relaxed);
  pthread_sigmask(SIG_SETMASK, &mask, NULL);
  if (pid > 0 && failure) {
    (void)waitpid(pid, NULL, 0);
    atomic_store_explicit(&r->record->group, 0, memory_order_relaxed);
  }
  r->pid = pid;
  return failure;
}

static int begin(run *r) {
  int out[2], errors[2];
  if (pipe2(out, O_CLOEXEC) < 0)
    return errno;
  if (pipe2(errors, O_CLOEXEC) < 0) {
    int error = errno;
    close(out[0]);
    close(out[1]);
    return error;
  }
  int error = start(r, out[1], errors[1]);
  close(out[1]);
  close(errors[1]);
  if (error) {
    close(out[0]);
    close(errors[0]);
    return error;
  }
  r->items[OUT] = (struct pollfd){.fd = out[0], .events = POLLIN};
  r->items[ERRORS] = (struct pollfd){.fd = errors[0], .events = POLLIN};
  return 0;
}

static void close_item(run *r, int item) {
  if (r->items[item].fd >= 0)
    close(r->items[item].fd);
  r->items[item].fd = -1;
}

static void stop(run *r, map_end end, int signal) {
  r->end = end;
  r->kill_ns = map_now_ns() + (int64_t)GRACE_MS * 1000000;
  (void)kill(-r->pid, signal);
  (void)kill(-r->pid, SIGCONT);
}

/* 0, or an errno value. */
static int spill(run *r, int item) {
  map_buffer *bytes = &r->bytes[item];
  int error = 0;
  if (r->spools[item] < 0) {
    int fd = map_spool_open();
    r->spools[item] = fd < 0 ? -1 : fd;
    error = fd < 0 ? -fd : 0;
  }
  if (!error)
    error = map_spool_write(r->spools[item], bytes->data, bytes->size);
  r->spooled[item] += error ? 0 : bytes->size;
  bytes->size = 0;
  return error;
}

/* Only where poll() says that it does not wait. Returns how many bytes there were. */
static size_t read_item(run *r, int item, size_t most) {
  map_buffer *bytes = &r->bytes[item];
  map_append(bytes, NULL, most);
  bytes->size -= most;
  ssize_t n = read(r->items[item].fd, bytes->data + bytes->size, most);
  if (n > 0)
    bytes->size += (size_t)n;
  else if (n == 0 || errno != EINTR)
    close_item(r, item);
  if (r->no_room)
    bytes->size = 0;
  else if (bytes->size >= MEMORY_BYTES)
    r->no_room = spill(r, item);
  if (r->no_room && r->end == MAP_END_NONE)
    stop(r, MAP_END_NO_ROOM, SIGKILL);
  return n > 0 ? (size_t)n : 0;
}

/* What the command has written is in the pipes when it ends. What a child that it left behind
 * writes later is lost: it may never cease. */
static void drain(run *r) {
  for (int item = OUT; item <= ERRORS; item++) {
    int left = 0;
    if (r->items[item].fd < 0 || ioctl(r->items[item].fd, FIONREAD, &left) < 0)
      continue;
    while (left > 0 && r->items[item].fd >= 0 && poll(&r->items[item], 1, 0) != 0)
      left -= (int)read_item(r, item, left < READ_BYTES ? (size_t)left : READ_BYTES);
  }
}

static bool has_ended(const run *r) {
  siginfo_t info = {0};
  return waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOWAIT | WNOHANG) == 0 && info.si_pid != 0;
}

static bool has_limits(const run *r) {
  return r->deadline_ns != INT64_MAX || map_worker_setup()->memory_bytes;
}

static void look(run *r) {
  int64_t now_ns = map_now_ns();
  uint64_t limit = map_worker_setup()->memory_bytes;
  if (r->end != MAP_END_NONE) {
    if (now_ns >= r->kill_ns)
      (void)kill(-r->pid, SIGKILL);
  } else if (now_ns >= r->deadline_ns) {
    stop(r, MAP_END_TIMED_OUT, SIGTERM);
  } else if (now_ns >= r->look_ns) {
    r->look_ns = now_ns + (int64_t)MEMORY_LOOK_MS * 1000000;
    if (limit && map_tree_memory(r->pid) > limit)
      stop(r, MAP_END_OUT_OF_MEMORY, SIGKILL);
    else if (mproc_task_is_cancelled(r->task))
      stop(r, MAP_END_DONE, SIGKILL);
  }
}

static int pause_ms(const run *r, bool first) {
  int longest = first ? FIRST_LOOK_MS : LOOK_MS;
  if (!first && (map_worker_setup()->memory_bytes || r->items[ENDED].fd < 0))
    longest = MEMORY_LOOK_MS;
  int64_t next_ns = r->end == MAP_END_NONE ? r->deadline_ns : r->kill_ns;
  if (next_ns == INT64_MAX)
    return longest;
  int64_t left_ms = (next_ns - map_now_ns()) / 1000000 + 1;
  return left_ms < 0 ? 0 : left_ms < longest ? (int)left_ms : longest;
}

static void watch_end(run *r) {
#ifdef SYS_pidfd_open
  int fd = (int)syscall(SYS_pidfd_open, r->pid, 0);
  r->items[ENDED] = (struct pollfd){.fd = fd, .events = POLLIN};
#else
  (void)r;
#endif
}

/* Until the command has ended, or is about to: it has closed both pipes, and has no limits. A child
 * that it left behind may hold the pipes open, so their end is not waited for. */
static void follow(run *r) {
  bool watched = false;
  for (;;) {
    bool streams = r->items[OUT].fd >= 0 || r->items[ERRORS].fd >= 0;
    if (!streams && !has_limits(r) && r->end == MAP_END_NONE)
      return;
    if (!streams && !watched) {
      watch_end(r);
      watched = true;
    }
    int n = poll(r->items, ITEM_COUNT, pause_ms(r, !watched));
    /* a child that it left behind may write without a pause */
    if (!watched && (n == 0 || map_now_ns() - r->record->started_ns >= FIRST_LOOK_NS)) {
      watch_end(r);
      watched = true;
    }
    for (int item = OUT; item <= ERRORS && n > 0; item++) {
      if (r->items[item].fd >= 0 && r->items[item].revents)
        (void)read_item(r, item, READ_BYTES);
    }
    bool pidfd = r->items[ENDED].fd >= 0;
    if (pidfd ? n > 0 && r->items[ENDED].revents : watched && has_ended(r))
      return;
    look(r);
  }
}

static bool is_ending_all(void) {
  return atomic_load(&map_worker_setup()->control->stop) == MAP_END_ALL;
}

/* What the command has started got SIGTERM with it, and has the same time to clean up, also where
 * the command is gone at once. */
static void follow_group(run *r) {
  int64_t pause_ns = (int64_t)GROUP_LOOK_MS * 1000000;
  int64_t next_ns = 0;
  close_item(r, ENDED);
  if (r->end == MAP_END_NONE) /* the main program has sent it, and will wait no longer */
    r->kill_ns = map_now_ns() + (int64_t)GRACE_MS * 1000000;
  for (int64_t now_ns; (now_ns = map_now_ns()) < r->kill_ns;) {
    if (now_ns >= next_ns) {
      if (!map_group_lives(r->pid))
        return;
      next_ns = map_now_ns() + pause_ns;
      pause_ns = pause_ns < (int64_t)GROUP_LOOK_MAX_MS * 500000
                     ? 2 * pause_ns
                     : (int64_t)GROUP_LOOK_MAX_MS * 1000000;
    }
    int64_t left_ms = ((next_ns < r->kill_ns ? next_ns : r->kill_ns) - now_ns) / 1000000 + 1;
    int n = poll(r->items, MAP_STREAMS, (int)left_ms);
    for (int item = OUT; item <= ERRORS && n > 0; item++) {
      if (r->items[item].fd >= 0 && r->items[item].revents)
        (void)read_item(r, item, READ_BYTES);
    }
  }
}

static void wait_for_end(run *r) {
  siginfo_t info;
  while (waitid(P_PID, (id_t)r->pid, &info, WEXITED | WNOWAIT) < 0 && errno == EINTR)
    continue;
  if (r->end == MAP_END_TIMED_OUT || (r->end == MAP_END_NONE && is_ending_all()))
    follow_group(r);
}

/* The group has its number until the status is taken: it is killed and forgotten before that. */
static int reap(run *r) {
  int status = 0;
  /* the main program kills by the group's number, which is forgotten here */
  if (r->end != MAP_END_NONE || is_ending_all())
    (void)kill(-r->pid, SIGKILL);
  atomic_store_explicit(&r->record->group, 0, memory_order_relaxed);
  while (waitpid(r->pid, &status, 0) < 0 && errno == EINTR)
    continue;
  return status;
}

/* Of the attempt before. */
static void drop_output(run *r) {
  for (int item = 0; item < MAP_STREAMS; item++) {
    r->bytes[item].size = r->spooled[item] = 0;
    if (r->spools[item] >= 0)
      close(r->spools[item]);
    r->spools[item] = -1;
    r->record->spools[item] = NULL;
  }
  r->no_room = 0;
}

static void run_once(run *r) {
  map_record *record = r->record;
  int timeout_ms = map_worker_setup()->timeout_ms;
  r->end = record->end = MAP_END_NONE;
  drop_output(r);
  for (int item = 0; item < ITEM_COUNT; item++)
    r->items[item] = (struct pollfd){.fd = -1};
  record->attempts++;
  record->started_ns = map_now_ns();
  r->look_ns = record->started_ns;
  r->deadline_ns = timeout_ms ? record->started_ns + (int64_t)timeout_ms * 1000000 : INT64_MAX;
  int error = begin(r);
  if (error) {
    record->end = MAP_END_NOT_STARTED;
    record->status = error;
  } else {
    follow(r);
    wait_for_end(r);
    drain(r);
    for (int item = 0; item < ITEM_COUNT; item++)
      close_item(r, item);
    record->status = reap(r);
    record->end = r->end == MAP_END_NONE ? MAP_END_DONE : r->end;
    /* where vfork() is fork(), as under ThreadSanitizer and some emulators, it is told only now */
    error = atomic_load_explicit(&record->exec_error, memory_order_relaxed);
    if (error && record->end == MAP_END_DONE) {
      record->end = MAP_END_NOT_STARTED;
      record->status = error;
    }
    if (r->no_room && record->end == MAP_END_NO_ROOM)
      record->status = r->no_room;
  }
  record->run_ns = map_now_ns() - record->started_ns;
}

static bool succeeded(const map_record *record) {
  return record->end == MAP_END_DONE && record->status == 0;
}

/* argv[-1] is the program. For free() of the address before it. */
static char **split_words(const map_record *record) {
  size_t count = 0;
  for (size_t i = 0; i < record->command_size; i++)
    count += record->command[i] == '\0';
  char **words = map_alloc(count + 1, sizeof *words);
  const char *word = record->command;
  for (size_t i = 0; i < count; i++, word += strlen(word) + 1)
    words[i] = (char *)(uintptr_t)word;
  return words;
}

static void no_room(map_record *record, int error) {
  record->end = MAP_END_NO_ROOM;
  record->status = error;
}

/* What is in a file stays there. */
static void give_files(map_record *record, run *r) {
  for (int item = 0; item < MAP_STREAMS; item++) {
    if (r->spools[item] < 0)
      continue;
    int error = r->no_room ? 0 : spill(r, item);
    if (error)
      no_room(record, error);
    if (r->spooled[item])
      record->spools[item] = map_spool_offer(r->spools[item], r->spooled[item]);
    if (!record->spools[item])
      close(r->spools[item]);
    if (r->spooled[item] && !record->spools[item])
      no_room(record, ENOMEM);
  }
}

/* Its attempts are counted here: what has failed is no failure for the pool, which has a count of
 * its own. */
static void give_result(mproc_task *task, map_record *record, run *r) {
  map_buffer *out = &r->bytes[OUT];
  give_files(record, r);
  record->out_size = out->size;
  if (r->bytes[ERRORS].size)
    map_append(out, r->bytes[ERRORS].data, r->bytes[ERRORS].size);
  if (out->size && mproc_task_result(task, out->data, out->size) < 0)
    no_room(record, ENOMEM);
}

/* With `soon` of --halt what has begun goes on to its end, further attempts too. */
static bool may_begin(const map_record *record) {
  int stop = atomic_load_explicit(&map_worker_setup()->control->stop, memory_order_relaxed);
  return record->refusal == MAP_FITS && stop != MAP_END_ALL &&
         (stop == MAP_GO_ON || record->attempts > 0);
}

int map_run_command(mproc_task *task, const void *input, size_t size) {
  map_record *record;
  memcpy(&record, input, sizeof record);
  (void)size;
  const map_setup *setup = map_worker_setup();
  map_spool_close_taken();
  if (!may_begin(record)) {
    record->started_ns = 0; /* an attempt before may have begun; this is no result of it */
    return 0;
  }
  map_record_take_over(record);
  /* the pool counts workers that died, and knows nothing of other attempts */
  if (record->attempts > setup->retries && record->end == MAP_END_NONE) {
    record->end = MAP_END_WORKER_DIED;
    return 0;
  }
  char **words = split_words(record);
  run r = {.record = record, .task = task, .argv = words + 1, .spools = {-1, -1}};
  do
    run_once(&r);
  while (!succeeded(record) && record->attempts <= setup->retries &&
         !mproc_task_is_cancelled(task) && !is_ending_all());
  give_result(task, record, &r);
  map_release(&r.bytes[OUT]);
  map_release(&r.bytes[ERRORS]);
  free(words);
  return 0;
}
