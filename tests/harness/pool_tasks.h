/* Tasks that end in every way that a process can end, and what tests of a pool's deaths ask it. */
#ifndef MPROC_TEST_POOL_TASKS_H
#define MPROC_TEST_POOL_TASKS_H

#include "processes.h"

#include <mproc/pool.h>

#include <stdatomic.h>
#include <sys/mman.h>

/* How a task ends. */
typedef enum way {
  WELL, /* with answer_of() its number */
  BY_ERROR,
  BY_KILL,
  BY_FAULT,
  BY_ABORT,
  BY_EXIT,
  BY_EXIT_ZERO, /* which looks like success */
  BY_QUICK_EXIT,
  BY_OVERFLOW,
  BY_LOOP, /* never */
  BY_HOG,
  BY_EXEC,
  BY_STOP,
  BY_LOOP_DEAF, /* never, with every signal held back */
  HELD,         /* well, when the board says go */
  POLITE        /* well, when it is cancelled */
} way;

enum { ERROR_CODE = -42, EXIT_CODE = 3, QUICK_EXIT_CODE = 4 };
enum { NOTES_MAX = 1024, ATTEMPTS_MAX = 16 };

/* Ten tasks, of which one may die. */
enum { TASKS = 10, VICTIM = 3 };

/* What a worker may have: more than it needs for itself, even under a checker. */
#define MEMORY_LIMIT ((uint64_t)(UNDER_SANITIZER || test_under_valgrind() ? 1024 : 64) << 20)

/* In the shared heap: what tasks say, by the number in their orders. */
typedef struct note {
  _Atomic int runs; /* attempts that have begun */
  _Atomic int attempt, worker;
  _Atomic int64_t pid;
  _Atomic int64_t begin_ns[ATTEMPTS_MAX + 1]; /* by attempt */
} note;

typedef struct board {
  _Atomic int go, calls;
  _Atomic int64_t stray;
  note notes[NOTES_MAX];
} board;

/* No padding: checkers look at what is sent. */
typedef struct order {
  board *b;
  int64_t number, how;
  int64_t deadly; /* in how many attempts, then it ends well */
} order;

static inline board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  return b;
}

static inline int64_t answer_of(int64_t number) {
  return number * 2654435761LL ^ 0x5bd1e995;
}

static inline int64_t now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000000LL + now.tv_nsec;
}

/* ---- the tasks ------------------------------------------------------------------------------- */

/* Checkers would handle it; valgrind says nothing of a signal that was sent. */
static inline void fault(void) {
  volatile char *page = mmap(NULL, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  signal(SIGSEGV, SIG_DFL);
  if (!test_under_valgrind())
    *page = 1;
  raise(SIGSEGV);
}

__attribute__((noinline, unused)) static int overflow(int depth) {
  static volatile int deepest = 1 << 30;
  volatile char frame[4096];
  frame[0] = (char)depth;
  return depth < deepest ? overflow(depth + 1) + frame[0] : 0;
}

/* When it gets no more it waits for its end. */
static inline void eat_memory(void) {
  const size_t size = (size_t)1 << 20;
  for (;;) {
    volatile char *block = NULL;
    if (UNDER_SANITIZER) { /* whose malloc does not return NULL */
      void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      block = p == MAP_FAILED ? NULL : p;
    } else {
      block = malloc(size);
    }
    for (size_t i = 0; block && i < size; i += 4096)
      block[i] = 1;
    if (!block)
      sleep_ms(1);
  }
}

static inline void loop_for_ever(void) {
  for (volatile unsigned i = 0;; i = i + 1)
    continue;
}

static inline void hold_back_signals(void) {
  sigset_t all;
  sigfillset(&all);
  signal(SIGTERM, SIG_IGN);
  sigprocmask(SIG_BLOCK, &all, NULL);
}

static inline int end_this_way(mproc_task *task, const order *o) {
  switch ((way)o->how) {
  case BY_ERROR:
    return mproc_task_fail(task, ERROR_CODE, "number %d", (int)o->number);
  case BY_KILL:
    raise(SIGKILL);
    break;
  case BY_FAULT:
    fault();
    break;
  case BY_ABORT:
    signal(SIGABRT, SIG_DFL);
    abort();
  case BY_EXIT:
    exit(EXIT_CODE);
  case BY_EXIT_ZERO:
    exit(0);
  case BY_QUICK_EXIT:
    _exit(QUICK_EXIT_CODE);
  case BY_OVERFLOW:
    signal(SIGSEGV, SIG_DFL);
    if (test_under_valgrind())
      raise(SIGSEGV);
    return overflow(0);
  case BY_LOOP_DEAF:
    hold_back_signals();
    loop_for_ever();
    break;
  case BY_LOOP:
    loop_for_ever();
    break;
  case BY_HOG:
    eat_memory();
    break;
  case BY_EXEC:
    execl("/bin/sleep", "sleep", "20", (char *)NULL);
    return errno;
  case BY_STOP:
    raise(SIGSTOP);
    return EINTR; /* somebody woke it */
  default:
    break;
  }
  return 0;
}

static inline void note_run(const mproc_task *task, const order *o) {
  note *n = &o->b->notes[o->number % NOTES_MAX];
  int attempt = mproc_task_attempt(task);
  n->worker = mproc_task_worker(task);
  n->pid = getpid();
  n->attempt = attempt;
  if (attempt <= ATTEMPTS_MAX)
    n->begin_ns[attempt] = now_ns();
  n->runs++;
}

static inline int do_as_told(mproc_task *task, const void *input, size_t size) {
  order o;
  CHECK_EQ(size, sizeof o);
  memcpy(&o, input, sizeof o);
  note_run(task, &o);
  while (o.how == HELD && !o.b->go)
    sleep_ms(1);
  while (o.how == POLITE && !mproc_task_is_cancelled(task))
    continue;
  if (mproc_task_attempt(task) <= o.deadly) {
    int r = end_this_way(task, &o);
    if (r != 0)
      return r;
  }
  int64_t answer = answer_of(o.number);
  return mproc_task_result(task, &answer, sizeof answer);
}

/* ---- processes of a pool --------------------------------------------------------------------- */

/* Of the case: orphans come to its runner too. Call it in the case's own process. */
static inline bool is_below(int64_t pid, int64_t ancestor) {
  while (pid > 1 && pid != ancestor)
    pid = parent_of(pid);
  return pid == ancestor;
}

/* Those that live and whose name begins so, as far as the system keeps it. */
static inline int find_below(int64_t ancestor, const char *prefix, int64_t *pids, int limit) {
  enum { NAME_LENGTH = 15 };
  size_t length = strnlen(prefix, NAME_LENGTH);
  DIR *folder = opendir("/proc");
  int count = 0;
  CHECK(folder != NULL);
  for (struct dirent *entry; count < limit && (entry = readdir(folder));) {
    int64_t pid = atoll(entry->d_name);
    process_view view = pid > 0 ? look_at(pid) : (process_view){0};
    if (!is_end(view.state) && strncmp(view.name, prefix, length) == 0 && is_below(pid, ancestor))
      pids[count++] = pid;
  }
  closedir(folder);
  return count;
}

static inline int count_below(int64_t ancestor, const char *prefix) {
  int64_t pids[CHILDREN_MAX];
  return find_below(ancestor, prefix, pids, CHILDREN_MAX);
}

/* The one of the pool "t": there is never more than one pool of that name at a time. */
static inline int64_t supervisor_now(int64_t runner) {
  int64_t pids[2] = {0};
  return find_below(runner, "t:supervisor", pids, 2) == 1 ? pids[0] : 0;
}

/* Another one than `old`. */
static inline int64_t await_supervisor(int64_t runner, int64_t old) {
  int64_t pid;
  AWAIT((pid = supervisor_now(runner)) != 0 && pid != old);
  return pid;
}

static inline int64_t worker_pid(mproc_pool *pool, int number) {
  mproc_worker_statistics statistics;
  int r = mproc_pool_worker_stats(pool, number, &statistics);
  return r == 0 ? statistics.pid : 0;
}

/* ---- the pool -------------------------------------------------------------------------------- */

static inline mproc_pool *new_pool(const mproc_pool_options *options) {
  mproc_pool *pool = NULL;
  CHECK_EQ(mproc_pool_create(&pool, options), 0);
  return pool;
}

static inline mproc_pool_statistics figures(mproc_pool *pool) {
  mproc_pool_statistics statistics;
  CHECK_EQ(mproc_pool_stats(pool, &statistics), 0);
  return statistics;
}

static inline mproc_future *submit(mproc_pool *pool, const order *o,
                                   const mproc_submit_options *options) {
  mproc_future *future = NULL;
  CHECK_EQ(mproc_pool_apply_async(pool, do_as_told, o, sizeof *o, &future, options), 0);
  return future;
}

static inline mproc_failure failure_of(mproc_future *future, uint64_t number) {
  mproc_failure failure;
  CHECK_EQ(mproc_future_failure(future, number, &failure), 0);
  return failure;
}

static inline void check_answer(mproc_future *future, int64_t number) {
  mproc_bytes result;
  int64_t answer;
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  CHECK_EQ(mproc_future_result(future, &result), 0);
  CHECK_EQ(result.size, sizeof answer);
  memcpy(&answer, result.data, sizeof answer);
  CHECK_EQ(answer, answer_of(number));
}

/* Of a future that failed, which it releases. The strings are gone then. */
static inline mproc_failure end_of_future(mproc_future *future) {
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), MPROC_ETASK);
  mproc_failure failure = failure_of(future, 0);
  mproc_future_destroy(future);
  failure.text = failure.errors = "";
  return failure;
}

/* The pool does what it is there for. */
static inline void check_works(mproc_pool *pool, board *b) {
  enum { COUNT = 20, FIRST = NOTES_MAX - COUNT };
  order orders[COUNT];
  int64_t answers[COUNT];
  for (int i = 0; i < COUNT; i++)
    orders[i] = (order){b, FIRST + i, WELL, 0};
  memset(answers, 0xee, sizeof answers);
  CHECK_EQ(mproc_pool_map(pool, do_as_told, orders, sizeof orders[0], answers, sizeof answers[0],
                          COUNT, NULL),
           0);
  for (int i = 0; i < COUNT; i++)
    CHECK_EQ(answers[i], answer_of(FIRST + i));
  mproc_future *future = submit(pool, &orders[0], NULL);
  check_answer(future, FIRST);
  mproc_future_destroy(future);
}

/* A bar of time counts where no checker slows all down. */
static inline void check_took(int64_t since_ms, int most_ms, const char *what) {
  int64_t took = now_ms() - since_ms;
  if (took > most_ms && !UNDER_SANITIZER && !test_under_valgrind())
    test_fail(__FILE__, __LINE__, what, "%lld ms, more than %d", (long long)took, most_ms);
}

/* "Within a second", and what a busy machine adds. */
enum { DESTROY_MS = 2000 };

static inline void end_pool(mproc_pool *pool) {
  int64_t since = now_ms();
  CHECK_EQ(mproc_pool_destroy(pool), 0);
  check_took(since, DESTROY_MS, "destroy");
}

static inline void end_all(mproc_pool *pool, board *b) {
  end_pool(pool);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- ten tasks, in every way to submit them -------------------------------------------------- */

typedef struct outcome {
  bool is_right[TASKS];
  int failures;
  mproc_failure failure; /* the last one noticed; its strings are gone */
} outcome;

typedef void run_function(mproc_pool *pool, const order *orders,
                          const mproc_submit_options *options, outcome *ret);

static inline bool is_answer(mproc_bytes result, int64_t number) {
  int64_t answer;
  if (result.size != sizeof answer)
    return false;
  memcpy(&answer, result.data, sizeof answer);
  return answer == answer_of(number);
}

static inline void keep_failure(outcome *ret, mproc_failure failure) {
  CHECK(failure.text != NULL && failure.errors != NULL);
  CHECK_STR(failure.text, failure.cause == MPROC_CAUSE_ERROR ? "number 3" : "");
  CHECK_STR(failure.errors, ""); /* it is not kept */
  failure.text = failure.errors = NULL;
  ret->failure = failure;
  ret->failures++;
}

static inline void by_apply(mproc_pool *pool, const order *orders,
                            const mproc_submit_options *options, outcome *ret) {
  mproc_future *futures[TASKS];
  for (int i = 0; i < TASKS; i++)
    futures[i] = submit(pool, &orders[i], options);
  for (int i = 0; i < TASKS; i++) {
    mproc_bytes result;
    int r = mproc_future_wait(futures[i], JOIN_MS);
    CHECK_EQ(mproc_future_is_done(futures[i]), 1);
    CHECK_EQ(mproc_future_result(futures[i], &result), r);
    CHECK_EQ(mproc_future_failures(futures[i]), r == 0 ? 0 : 1);
    if (r == 0) {
      ret->is_right[i] = is_answer(result, orders[i].number);
    } else {
      CHECK_EQ(r, MPROC_ETASK);
      CHECK_EQ(i, VICTIM);
      keep_failure(ret, failure_of(futures[i], 0));
    }
    mproc_future_destroy(futures[i]);
  }
  if (ret->failures) {
    CHECK_EQ(ret->failure.index, 0);
    ret->failure.index = VICTIM;
  }
}

static inline void keep_failures(mproc_future *future, outcome *ret) {
  uint64_t finished, count;
  mproc_failure none;
  int64_t failures = mproc_future_failures(future);
  CHECK_EQ(mproc_future_wait(future, 0), failures ? MPROC_ETASK : 0);
  CHECK_EQ(mproc_future_progress(future, &finished, &count), 0);
  CHECK_EQ(finished, TASKS);
  CHECK_EQ(count, TASKS);
  for (int64_t i = 0; i < failures; i++)
    keep_failure(ret, failure_of(future, (uint64_t)i));
  CHECK_EQ(mproc_future_failure(future, (uint64_t)failures, &none), -ENOENT);
  mproc_future_destroy(future);
}

static inline void by_map(mproc_pool *pool, const order *orders,
                          const mproc_submit_options *options, outcome *ret) {
  int64_t answers[TASKS];
  mproc_future *future;
  memset(answers, 0xee, sizeof answers);
  CHECK_EQ(mproc_pool_map_async(pool, do_as_told, orders, sizeof orders[0], answers,
                                sizeof answers[0], TASKS, &future, options),
           0);
  CHECK(mproc_future_wait(future, JOIN_MS) != -ETIMEDOUT);
  for (int i = 0; i < TASKS; i++)
    ret->is_right[i] = answers[i] == answer_of(orders[i].number);
  keep_failures(future, ret);
}

static inline void by_map_bytes(mproc_pool *pool, const order *orders,
                                const mproc_submit_options *options, outcome *ret) {
  mproc_bytes inputs[TASKS];
  mproc_future *future;
  for (int i = 0; i < TASKS; i++)
    inputs[i] = (mproc_bytes){&orders[i], sizeof orders[i]};
  CHECK_EQ(mproc_pool_map_bytes(pool, do_as_told, inputs, TASKS, &future, options), 0);
  CHECK(mproc_future_wait(future, JOIN_MS) != -ETIMEDOUT);
  for (int i = 0; i < TASKS; i++) {
    mproc_bytes result;
    int r = mproc_future_result_at(future, (uint64_t)i, &result);
    ret->is_right[i] = r == 0 && is_answer(result, orders[i].number);
    CHECK(r == 0 || (r == MPROC_ETASK && i == VICTIM));
  }
  keep_failures(future, ret);
}

typedef struct feed {
  const order *orders;
  int next;
} feed;

static inline int feed_next(void *user, mproc_bytes *ret_input) {
  feed *self = user;
  if (self->next == TASKS)
    return 0;
  *ret_input = (mproc_bytes){&self->orders[self->next++], sizeof(order)};
  return 1;
}

static inline void by_imap(mproc_pool *pool, const order *orders,
                           const mproc_submit_options *options, outcome *ret) {
  feed source = {orders, 0};
  mproc_imap *imap;
  mproc_bytes result;
  uint64_t index;
  CHECK_EQ(mproc_pool_imap(pool, do_as_told, feed_next, &source, &imap, options), 0);
  for (uint64_t i = 0; i < TASKS; i++) {
    int r = mproc_imap_next(imap, &result, &index, JOIN_MS);
    if (!options || !options->unordered)
      CHECK_EQ(index, i);
    CHECK(index < TASKS && !ret->is_right[index]);
    if (r == 1) {
      ret->is_right[index] = is_answer(result, orders[index].number);
      continue;
    }
    mproc_failure failure;
    CHECK_EQ(r, MPROC_ETASK);
    CHECK_EQ(mproc_imap_failure(imap, &failure), 0);
    CHECK_EQ(failure.index, index);
    keep_failure(ret, failure);
  }
  CHECK_EQ(mproc_imap_next(imap, &result, &index, JOIN_MS), 0);
  mproc_imap_destroy(imap);
}

static inline void by_unordered_imap(mproc_pool *pool, const order *orders,
                                     const mproc_submit_options *options, outcome *ret) {
  mproc_submit_options unordered = options ? *options : (mproc_submit_options){0};
  unordered.unordered = 1;
  by_imap(pool, orders, &unordered, ret);
}

/* All inputs are one worker's: those after the one that kills it are done all the same. */
static inline void by_one_group(mproc_pool *pool, const order *orders,
                                const mproc_submit_options *options, outcome *ret) {
  mproc_submit_options one = options ? *options : (mproc_submit_options){0};
  one.group = TASKS;
  by_map(pool, orders, &one, ret);
}

static run_function *const all_runs[] = {by_apply,          by_map,      by_map_bytes, by_imap,
                                         by_unordered_imap, by_one_group};
enum { RUNS = sizeof all_runs / sizeof all_runs[0] };

/* One of the ten ends as told in its first `deadly` attempts, the others are right. */
static inline outcome run_ten(mproc_pool *pool, board *b, run_function *run, way how, int deadly,
                              const mproc_submit_options *options) {
  order orders[TASKS];
  outcome result = {.failures = 0};
  memset(b->notes, 0, sizeof b->notes);
  for (int i = 0; i < TASKS; i++)
    orders[i] = (order){b, i, i == VICTIM ? how : WELL, i == VICTIM ? deadly : 0};
  run(pool, orders, options, &result);
  for (int i = 0; i < TASKS; i++)
    CHECK_EQ(result.is_right[i], i != VICTIM || result.failures == 0);
  CHECK(result.failures <= 1);
  return result;
}

/* ---- deaths ---------------------------------------------------------------------------------- */

/* Ten times what another task needs on a busy machine. */
#define LOOP_MS (test_under_valgrind() ? 3000 : UNDER_SANITIZER ? 1000 : 300)

typedef struct death {
  const char *name;
  way how;
  mproc_cause cause;
  int code; /* 0: not looked at */
  const char *words;
} death;

static const death deaths[] = {
    {"SIGKILL", BY_KILL, MPROC_CAUSE_SIGNALED, SIGKILL, "SIGKILL"},
    {"fault", BY_FAULT, MPROC_CAUSE_SIGNALED, SIGSEGV, "SIGSEGV"},
    {"abort", BY_ABORT, MPROC_CAUSE_SIGNALED, SIGABRT, "SIGABRT"},
    {"exit", BY_EXIT, MPROC_CAUSE_EXITED, EXIT_CODE, "3"},
    {"exit(0)", BY_EXIT_ZERO, MPROC_CAUSE_EXITED, 0, "0"},
    {"_exit", BY_QUICK_EXIT, MPROC_CAUSE_EXITED, QUICK_EXIT_CODE, "4"},
    {"stack overflow", BY_OVERFLOW, MPROC_CAUSE_SIGNALED, SIGSEGV, "SIGSEGV"},
    {"endless loop", BY_LOOP, MPROC_CAUSE_TIMED_OUT, 0, ""},
    {"hog", BY_HOG, MPROC_CAUSE_OUT_OF_MEMORY, 0, "memory"},
    {"exec", BY_EXEC, MPROC_CAUSE_REPLACED, 0, ""},
};

enum { DEATHS = sizeof deaths / sizeof deaths[0] };
#define FOR_ALL_DEATHS(d) for (const death *d = deaths; d < deaths + DEATHS; d++)

static inline mproc_submit_options limited(const death *d, int retries) {
  return (mproc_submit_options){.timeout_ms = d->how == BY_LOOP ? LOOP_MS : 0, .retries = retries};
}

static inline void check_failure(const board *b, const outcome *o, mproc_cause cause, int code,
                                 int attempts) {
  const mproc_failure *f = &o->failure;
  const note *n = &b->notes[VICTIM];
  char words[256], pid[32];
  CHECK_EQ(o->failures, 1);
  CHECK_EQ(f->cause, cause);
  if (code)
    CHECK_EQ(f->code, code);
  CHECK_EQ(f->index, VICTIM);
  CHECK_EQ(f->attempts, attempts);
  CHECK_EQ(n->runs, attempts);
  CHECK_EQ(n->attempt, attempts);
  CHECK_EQ(f->worker, n->worker);
  CHECK_EQ(f->pid, n->pid);
  CHECK(f->run_time_ns >= -1 && f->run_time_ns < JOIN_MS * 1000000LL);
  CHECK(f->max_rss_bytes == -1 || f->max_rss_bytes > 4096);
  snprintf(pid, sizeof pid, "process %lld", (long long)n->pid);
  CHECK_CONTAINS(mproc_strfailure(f, words, sizeof words), pid);
}

static inline void say(const death *d) {
  printf("# %s\n", d->name);
  fflush(stdout); /* else a child that exits says it again */
}

/* Each of the dead was replaced once, and all is over. */
static inline void check_figures(mproc_pool *pool, mproc_pool_statistics expected) {
  mproc_pool_statistics s;
  AWAIT((s = figures(pool)).alive == expected.workers &&
        s.started == (uint64_t)expected.workers + expected.died && s.idle == expected.workers);
  CHECK_EQ(s.workers, expected.workers);
  CHECK_EQ(s.died, expected.died);
  CHECK_EQ(s.done, expected.done);
  CHECK_EQ(s.failed, expected.failed);
  CHECK_EQ(s.cancelled, 0);
  CHECK_EQ(s.retried, expected.retried);
  CHECK_EQ(s.timed_out, expected.timed_out);
  CHECK_EQ(s.out_of_memory, expected.out_of_memory);
  CHECK_EQ(s.supervisors_died, 0);
  CHECK_EQ(s.queued, 0);
  CHECK_EQ(s.running, 0);
}

#endif
