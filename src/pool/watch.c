/* Who takes too long, too much memory, or is not wanted any more. */
#include "pool/supervisor.h"

#include "os/crash_point.h"

enum {
  TIMED_NS = 5 * MPX_NS_PER_MS,
  MEMORY_NS = 20 * MPX_NS_PER_MS,
  GRACE_NS = 20 * MPX_NS_PER_MS /* for a task that looks whether it is cancelled */
};

mpx_work mpx_work_of(const mpx_line *line) {
  return (mpx_work){.job = atomic_load_explicit(&line->job, memory_order_acquire),
                    .runs = atomic_load_explicit(&line->runs, memory_order_acquire),
                    .at = atomic_load_explicit(&line->at, memory_order_acquire)};
}

/* The same job or map, whichever input of it. */
static bool is_same_run(const mpx_work *a, const mpx_work *b) {
  return a->job == b->job && a->runs == b->runs;
}

bool mpx_work_is_same(const mpx_work *a, const mpx_work *b) {
  return is_same_run(a, b) && a->at == b->at;
}

/* Who is in something else once it can see that it is condemned has come out in time. It begins
 * nothing before we have looked; so nobody dies for what another task did. What is wrong with a run
 * as a whole is so in the next input too: it is killed there, and that input not blamed. */
static void condemn(mpx_supervisor *supervisor, unsigned number, mproc_cause cause,
                    const mpx_work *work) {
  mpx_line *line = &supervisor->board->lines[number];
  line->doomed = *work;
  atomic_store(&line->condemned, cause);
  atomic_thread_fence(memory_order_seq_cst); /* pairs with goes_on and claim of the worker */
  mpx_work now = mpx_work_of(line);
  if (cause == MPROC_CAUSE_TIMED_OUT ? mpx_work_is_same(&now, work) : is_same_run(&now, work)) {
    MPROC_CRASH_POINT("pool.watch.condemned");
    (void)mproc_process_kill(supervisor->wards[number].process);
    if (cause == MPROC_CAUSE_TIMED_OUT)
      atomic_fetch_add(&supervisor->board->timed_out, 1);
    if (cause == MPROC_CAUSE_OUT_OF_MEMORY)
      atomic_fetch_add(&supervisor->board->out_of_memory, 1);
    return;
  }
  atomic_store(&line->condemned, 0);
  mpx_os_word_wake_all(&line->condemned);
}

static void watch_memory(mpx_supervisor *supervisor, unsigned number, mpx_work work) {
  mpx_line *line = &supervisor->board->lines[number];
  uint64_t used, at_birth = atomic_load(&line->memory_at_birth);
  int64_t pid = atomic_load(&line->pid);
  if (pid == 0 || at_birth == 0 || mpx_os_memory_use(pid, &used) < 0 ||
      used <= at_birth + supervisor->board->settings.memory_limit)
    return;
  condemn(supervisor, number, MPROC_CAUSE_OUT_OF_MEMORY, &work);
}

/* The supervisor looks at the job too, so that it is not freed meanwhile. False: the worker is out
 * of it. */
static bool hold(mpx_supervisor *supervisor, const mpx_line *line, const mpx_job *job) {
  atomic_store(&supervisor->line->looks, (mpx_job *)(uintptr_t)job);
  return atomic_load(&line->job) == job;
}

static void watch_work(mpx_supervisor *supervisor, unsigned number, mpx_work work, int64_t now) {
  mpx_ward *ward = &supervisor->wards[number];
  const mpx_job *job = work.job;
  /* who has not come to an input yet is in none that could take too long */
  bool has_begun = job->kind != MPX_JOB_MAP || work.at != UINT64_MAX;
  if (!mpx_work_is_same(&ward->seen, &work)) {
    ward->seen = work;
    ward->since = now;
  }
  if (mpx_job_is_cancelled(job)) {
    if (!is_same_run(&ward->unwanted, &work)) {
      ward->unwanted = work;
      ward->unwanted_since = now;
    }
    supervisor->somebody_lingers = true;
    if (now - ward->unwanted_since >= GRACE_NS)
      condemn(supervisor, number, MPROC_CAUSE_CANCELLED, &work);
  } else if (job->timeout_ms > 0 && has_begun &&
             now - ward->since >= job->timeout_ms * MPX_NS_PER_MS) {
    condemn(supervisor, number, MPROC_CAUSE_TIMED_OUT, &work);
  }
}

/* One who did not see that it was reprieved, since we died. */
static void watch_one(mpx_supervisor *supervisor, unsigned number, int64_t now, bool memory) {
  mpx_line *line = &supervisor->board->lines[number];
  if (!supervisor->wards[number].process || atomic_load(&line->condemned))
    return;
  mpx_work work = mpx_work_of(line);
  if (work.job && hold(supervisor, line, work.job))
    watch_work(supervisor, number, work, now);
  atomic_store(&supervisor->line->looks, NULL);
  if (memory && !atomic_load(&line->condemned))
    watch_memory(supervisor, number, work);
}

int64_t mpx_watch(mpx_supervisor *supervisor, int64_t now) {
  mpx_board *board = supervisor->board;
  bool has_limit = board->settings.memory_limit > 0;
  bool memory = has_limit && now - supervisor->memory_looked_at >= MEMORY_NS;
  if (memory)
    supervisor->memory_looked_at = now;
  int used = atomic_load(&board->lines_used);
  supervisor->somebody_lingers = false;
  for (int i = 0; i < used; i++)
    watch_one(supervisor, (unsigned)i, now, memory);
  if (atomic_load(&board->timed) > 0 || supervisor->maps_wait || supervisor->somebody_lingers)
    return now + TIMED_NS;
  return has_limit ? now + MEMORY_NS : MPX_NEVER;
}
