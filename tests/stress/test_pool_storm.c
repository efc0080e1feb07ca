/* Pools under random fire: workers, and the supervisor, are killed at any instruction. Each result
 * comes once and is right, nothing hangs, and nothing is left in the end. */
#include "harness.h"
#include "members.h"
#include "storm.h"

#include "pool_tasks.h" /* whose names storm.h has too, for other things */

enum { TASKS_IN_ALL = 1000000, KILLS = 2000, DRAIN_MS = 20000, WORKERS = 4, SHARE = 20 };
enum { MAP_COUNT = 5000, IMAP_COUNT = 1500, ASYNC_COUNT = 500 };

/* Any number of attempts: it is not their fault. */
static const mproc_submit_options patient = {.retries = 1 << 20};

static const mproc_pool_options wanted = {
    .name = "t", .workers = WORKERS, .method = "fork", .poison_limit = 1 << 20};

/* ---- the task -------------------------------------------------------------------------------- */

/* Some take a while, so that many die in them. */
static int64_t work(int64_t number) {
  volatile int64_t sum = 0;
  for (int i = number % 64 == 0 ? 20000 : 100; i > 0; i--)
    sum = sum + i;
  return answer_of(number);
}

static int answer_number(mproc_task *task, const void *input, size_t size) {
  int64_t number, answer;
  CHECK_EQ(size, sizeof number);
  memcpy(&number, input, sizeof number);
  answer = work(number);
  return mproc_task_result(task, &answer, sizeof answer);
}

static int answer_index(mproc_task *task, const void *input, size_t size) {
  int64_t *output = mproc_task_output(task);
  CHECK(!input && size == 0 && mproc_task_output_size(task) == sizeof *output);
  *output = work((int64_t)mproc_task_index(task));
  return 0;
}

/* ---- who shoots ------------------------------------------------------------------------------ */

typedef struct shooter {
  pthread_t thread;
  mproc_pool *pool;
  int64_t runner;
  uint64_t random;
  int tasks, kills;
  int supervisors; /* one in so many is the supervisor; 0: none */
  _Atomic int killed, supervisors_killed;
  _Atomic bool must_end;
} shooter;

/* Its number may be another's by now, but hardly one of this case. */
static bool shoot(int64_t pid, const char *name, int64_t runner) {
  return pid > 0 && strncmp(look_at(pid).name, name, strlen(name)) == 0 && is_below(pid, runner) &&
         kill((pid_t)pid, SIGKILL) == 0;
}

static void *keep_shooting(void *argument) {
  shooter *s = argument;
  while (!s->must_end) {
    int64_t due = (int64_t)figures(s->pool).done * s->kills / s->tasks + 1;
    if (s->killed >= due) {
      usleep(100);
      continue;
    }
    if (s->supervisors && s->killed % s->supervisors == s->supervisors - 1) {
      if (shoot(supervisor_now(s->runner), "t:supervisor", s->runner)) {
        s->supervisors_killed++;
        s->killed++;
      }
      continue;
    }
    int number = (int)random_below(&s->random, WORKERS);
    if (shoot(worker_pid(s->pool, number), "t:", s->runner))
      s->killed++;
    usleep(random_below(&s->random, 2000));
  }
  return NULL;
}

/* ---- what is submitted ----------------------------------------------------------------------- */

typedef struct workload {
  mproc_pool *pool;
  uint64_t random;
  int64_t next; /* number */
  uint64_t done, cancelled;
  int64_t *shared; /* MAP_COUNT inputs in the shared heap, and as many outputs */
} workload;

static int64_t numbers[MAP_COUNT], answers[MAP_COUNT];

static void end_map(workload *w, mproc_future *future, const int64_t *outputs, int64_t first) {
  uint64_t finished, count;
  CHECK_EQ(mproc_future_wait(future, JOIN_MS), 0);
  CHECK_EQ(mproc_future_progress(future, &finished, &count), 0);
  CHECK_EQ(finished, MAP_COUNT);
  CHECK_EQ(mproc_future_failures(future), 0);
  mproc_future_destroy(future);
  for (int i = 0; i < MAP_COUNT; i++)
    CHECK_EQ(outputs[i], answer_of(first + i));
  w->done += MAP_COUNT;
}

static void map_numbers(workload *w, bool in_place) {
  int64_t *inputs = in_place ? w->shared : numbers;
  int64_t *outputs = in_place ? w->shared + MAP_COUNT : answers;
  mproc_submit_options options = patient;
  mproc_future *future;
  options.group = random_below(&w->random, 3) * 50; /* 0: as it likes */
  for (int i = 0; i < MAP_COUNT; i++) {
    inputs[i] = w->next + i;
    outputs[i] = -1;
  }
  CHECK_EQ(mproc_pool_map_async(w->pool, answer_number, inputs, sizeof inputs[0], outputs,
                                sizeof outputs[0], MAP_COUNT, &future, &options),
           0);
  end_map(w, future, outputs, w->next);
  w->next += MAP_COUNT;
}

static void map_indices(workload *w) {
  mproc_submit_options options = patient;
  mproc_future *future;
  options.guarded = (int)random_below(&w->random, 2);
  memset(answers, 0xee, sizeof answers);
  CHECK_EQ(mproc_pool_map_async(w->pool, answer_index, NULL, 0, answers, sizeof answers[0],
                                MAP_COUNT, &future, &options),
           0);
  end_map(w, future, answers, 0);
}

typedef struct feed_numbers {
  int64_t number, end;
} feed_numbers;

static int next_number(void *user, mproc_bytes *ret_input) {
  feed_numbers *source = user;
  if (source->number + 1 == source->end)
    return 0;
  source->number++;
  *ret_input = (mproc_bytes){&source->number, sizeof source->number};
  return 1;
}

static void imap(workload *w, bool unordered) {
  static bool came[IMAP_COUNT];
  feed_numbers source = {w->next - 1, w->next + IMAP_COUNT};
  mproc_submit_options options = patient;
  mproc_imap *results;
  mproc_bytes result;
  uint64_t index;
  options.unordered = unordered;
  memset(came, 0, sizeof came);
  CHECK_EQ(mproc_pool_imap(w->pool, answer_number, next_number, &source, &results, &options), 0);
  for (uint64_t i = 0; i < IMAP_COUNT; i++) {
    CHECK_EQ(mproc_imap_next(results, &result, &index, JOIN_MS), 1);
    CHECK(unordered ? index < IMAP_COUNT && !came[index] : index == i);
    CHECK(is_answer(result, w->next + (int64_t)index));
    came[index] = true;
  }
  CHECK_EQ(mproc_imap_next(results, &result, &index, JOIN_MS), 0);
  mproc_imap_destroy(results);
  w->next += IMAP_COUNT;
  w->done += IMAP_COUNT;
}

typedef struct call {
  int64_t number;
  int count;
} call;

static void take_answer(mproc_future *future, void *user) {
  call *own = user;
  mproc_bytes result;
  own->count++;
  CHECK_EQ(mproc_future_result(future, &result), 0);
  CHECK(is_answer(result, own->number));
}

/* Every other one has no future: its callback is all that tells. */
static void apply_async(workload *w) {
  static mproc_future *futures[ASYNC_COUNT / 2];
  static call calls[ASYNC_COUNT];
  mproc_submit_options options = patient;
  int told = 0;
  options.done = take_answer;
  for (int i = 0; i < ASYNC_COUNT; i++) {
    calls[i] = (call){w->next + i, 0};
    options.user = &calls[i];
    CHECK_EQ(mproc_pool_apply_async(w->pool, answer_number, &calls[i].number,
                                    sizeof calls[i].number, i % 2 ? NULL : &futures[i / 2],
                                    &options),
             0);
  }
  CHECK_EQ(mproc_future_wait_all(futures, ASYNC_COUNT / 2, JOIN_MS), 0);
  for (int64_t end = now_ms() + JOIN_MS; told < ASYNC_COUNT; sleep_ms(1)) {
    CHECK(now_ms() < end);
    CHECK_OK(mproc_pool_dispatch(w->pool));
    for (told = 0; told < ASYNC_COUNT && calls[told].count; told++)
      continue;
  }
  for (int i = 0; i < ASYNC_COUNT; i++)
    CHECK_EQ(calls[i].count, 1);
  for (int i = 0; i < ASYNC_COUNT / 2; i++)
    mproc_future_destroy(futures[i]);
  w->next += ASYNC_COUNT;
  w->done += ASYNC_COUNT;
}

/* Each is cancelled or right. */
static void cancel_some(workload *w) {
  static mproc_future *futures[ASYNC_COUNT];
  for (int i = 0; i < ASYNC_COUNT; i++) {
    const int64_t number = w->next + i;
    CHECK_EQ(mproc_pool_apply_async(w->pool, answer_number, &number, sizeof number, &futures[i],
                                    &patient),
             0);
    if (i % 3 == 2)
      CHECK_EQ(mproc_future_cancel(futures[i - (int)random_below(&w->random, 2)]), 0);
  }
  CHECK_EQ(mproc_future_wait_all(futures, ASYNC_COUNT, JOIN_MS), 0);
  for (int i = 0; i < ASYNC_COUNT; i++) {
    mproc_bytes result;
    int r = mproc_future_result(futures[i], &result);
    if (r == 0) {
      CHECK(is_answer(result, w->next + i));
      w->done++;
    } else {
      CHECK_EQ(r, MPROC_ETASK);
      CHECK(i % 3 != 0 && failure_of(futures[i], 0).cause == MPROC_CAUSE_CANCELLED);
      w->cancelled++;
    }
    mproc_future_destroy(futures[i]);
  }
  w->next += ASYNC_COUNT;
}

static void cancel_map(workload *w) {
  static bool is_cancelled[MAP_COUNT];
  uint64_t finished, count;
  mproc_future *future;
  memset(is_cancelled, 0, sizeof is_cancelled);
  memset(answers, 0xee, sizeof answers);
  CHECK_EQ(mproc_pool_map_async(w->pool, answer_index, NULL, 0, answers, sizeof answers[0],
                                MAP_COUNT, &future, &patient),
           0);
  usleep(random_below(&w->random, 3000));
  CHECK_EQ(mproc_future_cancel(future), 0);
  int r = mproc_future_wait(future, JOIN_MS);
  CHECK_EQ(mproc_future_progress(future, &finished, &count), 0);
  CHECK_EQ(finished, MAP_COUNT);
  const int64_t failures = mproc_future_failures(future);
  CHECK_EQ(r, failures ? MPROC_ETASK : 0);
  for (int64_t i = 0; i < failures; i++) {
    mproc_failure f = failure_of(future, (uint64_t)i);
    CHECK_EQ(f.cause, MPROC_CAUSE_CANCELLED);
    CHECK(f.index < MAP_COUNT && !is_cancelled[f.index]);
    is_cancelled[f.index] = true;
  }
  for (int i = 0; i < MAP_COUNT; i++)
    CHECK(is_cancelled[i] || answers[i] == answer_of(i));
  mproc_future_destroy(future);
  w->done += MAP_COUNT - (uint64_t)failures;
  w->cancelled += (uint64_t)failures;
}

static void submit_some(workload *w) {
  switch (random_below(&w->random, 9)) {
  case 0:
    map_numbers(w, false);
    break;
  case 1:
    map_numbers(w, true);
    break;
  case 2:
    map_indices(w);
    break;
  case 3:
    imap(w, false);
    break;
  case 4:
    imap(w, true);
    break;
  case 5:
    cancel_some(w);
    break;
  case 6:
    cancel_map(w);
    break;
  case 7:
    CHECK_EQ(mproc_pool_resize(w->pool, WORKERS - 1 + (int)random_below(&w->random, 4)), 0);
    break;
  default:
    apply_async(w);
  }
}

/* ---- storms ---------------------------------------------------------------------------------- */

static void check_all_well(const workload *w, const shooter *s) {
  mproc_pool_statistics f;
  AWAIT((f = figures(w->pool)).running == 0 && f.queued == 0); /* who did the last looks on */
  printf("# %llu done, %llu cancelled; %d killed, of these %d supervisors; %llu tried again, %llu "
         "workers\n",
         (unsigned long long)w->done, (unsigned long long)w->cancelled, s->killed,
         s->supervisors_killed, (unsigned long long)f.retried, (unsigned long long)f.started);
  CHECK_EQ(f.done, w->done);
  CHECK_EQ(f.failed, 0);
  CHECK_EQ(f.cancelled, w->cancelled);
  CHECK(f.supervisors_died <= (uint64_t)s->supervisors_killed);
  CHECK(f.supervisors_died + 1 >= (uint64_t)s->supervisors_killed); /* of the last none has heard */
}

static void blow(int supervisors) {
  check_family_works();
  drain_closed();
  check_alone(DRAIN_MS);
  holdings before = count_holdings();
  const int part = UNDER_SANITIZER ? SHARE : 1;
  uint64_t seed = storm_seed() | 1;
  workload w = {.pool = new_pool(&wanted), .random = seed, .next = 0};
  shooter s = {.pool = w.pool,
               .runner = getppid(),
               .random = seed * 3,
               .tasks = test_scale(TASKS_IN_ALL / part),
               .kills = test_scale(KILLS / part),
               .supervisors = supervisors};
  w.shared = mproc_heap_alloc(2 * MAP_COUNT * sizeof *w.shared);
  CHECK(w.shared != NULL);
  CHECK_EQ(pthread_create(&s.thread, NULL, keep_shooting, &s), 0);
  while (w.done < (uint64_t)s.tasks || s.killed < s.kills)
    submit_some(&w);
  s.must_end = true;
  CHECK_EQ(pthread_join(s.thread, NULL), 0);
  submit_some(&w);
  check_all_well(&w, &s);
  end_pool(w.pool);
  CHECK_EQ(mproc_heap_free(w.shared), 0);
  drain_closed();
  check_drained(&before, DRAIN_MS, "a storm");
}

TEST_LIMIT(workers_are_killed, 600) {
  blow(0);
}

TEST_LIMIT(supervisors_are_killed_too, 600) {
  blow(20);
}

/* ---- ten tasks, one of which ends its worker ------------------------------------------------- */

enum { TIMES = 1000, WARM_UP = 20, SHORT_MS = 50, RESIDENT_KIB = 1024 };

/* Only for the one: the others may have to wait. */
static void time_out(mproc_pool *pool, board *b) {
  const mproc_submit_options options = {.timeout_ms = SHORT_MS};
  mproc_future *futures[TASKS];
  for (int i = 0; i < TASKS; i++) {
    const order o = {b, i, i == VICTIM ? BY_LOOP : WELL, i == VICTIM ? NOTES_MAX : 0};
    futures[i] = submit(pool, &o, i == VICTIM ? &options : NULL);
  }
  for (int i = 0; i < TASKS; i++) {
    if (i == VICTIM) {
      CHECK_EQ(mproc_future_wait(futures[i], JOIN_MS), MPROC_ETASK);
      CHECK_EQ(failure_of(futures[i], 0).cause, MPROC_CAUSE_TIMED_OUT);
    } else {
      check_answer(futures[i], i);
    }
    mproc_future_destroy(futures[i]);
  }
}

static void each_dies_once(mproc_pool *pool, board *b, int round) {
  static const way ways[] = {BY_KILL, BY_FAULT, BY_ABORT, BY_EXIT, BY_QUICK_EXIT, BY_OVERFLOW};
  static const int codes[] = {SIGKILL, SIGSEGV, SIGABRT, EXIT_CODE, QUICK_EXIT_CODE, SIGSEGV};
  for (int i = 0; i < 6; i++) {
    bool exits = ways[i] == BY_EXIT || ways[i] == BY_QUICK_EXIT;
    outcome o = run_ten(pool, b, all_runs[(round + i) % RUNS], ways[i], NOTES_MAX, NULL);
    check_failure(b, &o, exits ? MPROC_CAUSE_EXITED : MPROC_CAUSE_SIGNALED, codes[i], 1);
  }
  time_out(pool, b);
}

static void die_often(const char *method, int times) {
  check_family_works();
  drain_closed();
  check_alone(DRAIN_MS);
  holdings before = count_holdings();
  const mproc_pool_options options = {.name = "t", .workers = WORKERS, .method = method};
  mproc_pool *pool = new_pool(&options);
  board *b = new_board();
  for (int round = 0; round < WARM_UP; round++)
    each_dies_once(pool, b, round);
  int64_t supervisor = await_supervisor(getppid(), 0);
  AWAIT(figures(pool).idle == WORKERS);
  const int descriptors = descriptors_of(supervisor);
  const long resident = resident_of(supervisor);
  const uint64_t heap = heap_used();
  for (int round = 0; round < times; round++)
    each_dies_once(pool, b, round);
  AWAIT(figures(pool).idle == WORKERS);
  AWAIT(descriptors_of(supervisor) <= descriptors);
  if (!UNDER_SANITIZER)
    CHECK(resident_of(supervisor) <= resident + RESIDENT_KIB);
  AWAIT((figures(pool).idle == WORKERS) && heap_used() <= heap);
  CHECK_EQ(figures(pool).died, 7 * (WARM_UP + times));
  CHECK_EQ(figures(pool).timed_out, WARM_UP + times);
  CHECK_EQ(figures(pool).supervisors_died, 0);
  end_all(pool, b);
  drain_closed();
  check_drained(&before, DRAIN_MS, "many deaths");
}

TEST_LIMIT(one_of_ten_dies_again_and_again_by_fork, 600) {
  die_often("fork", test_scale(TIMES / (UNDER_SANITIZER ? SHARE : 1)));
}

TEST_LIMIT(one_of_ten_dies_again_and_again_by_spawn, 600) {
  die_often("spawn", test_scale(TIMES / (UNDER_SANITIZER ? 2 * SHARE : 10)));
}

TEST_LIMIT(one_of_ten_dies_again_and_again_by_forkserver, 600) {
  die_often("forkserver", test_scale(TIMES / (UNDER_SANITIZER ? 2 * SHARE : 10)));
}
