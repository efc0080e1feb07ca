/* The run: inputs in, groups to the pool, results out, in one loop that waits for nothing else. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum {
  GROUP_INPUTS_MAX = 8192,
  GROUP_BYTES_MAX = 1 << 20,
  GROUP_NS = 10000000, /* how long a group of many inputs is to take */
  OPEN_GROUPS = 4,     /* of many inputs; of one input twice as many as there are workers */
  GROUPS_MAX = 4096,   /* those that are over but not printed too */
  HELD_BYTES_MAX = 256 << 20,
  HOLD_MS = 200,  /* so long a signal to all may take to come to all */
  GRACE_MS = 300, /* between SIGTERM and SIGKILL */
  LOOK_MS = 1000,
  HOLD_LOOK_MS = 20,
  SHOW_MS = 100,
  BLIND_MS = 2 /* where the pool has no handle to wait for */
};

typedef struct run {
  const map_options *options;
  map_source *source;
  const map_function *function; /* NULL: a command */
  map_control *control;
  mproc_pool *pool;
  mproc_handle handle; /* -1: there is none */
  int workers;
  map_batch batch;
  size_t batch_size;
  double input_ns; /* what a task takes, by the latest; 0: unknown */
  map_group *first, **last;
  size_t group_count, open_count, held_bytes;
  uint64_t seq;
  bool at_end, stopping, halted, reported;
  bool holds; /* a group that is over is not settled yet */
  int halt_status;
  int status; /* MAP_ERROR: something else than an input has failed */
  map_output output;
  map_joblog joblog;
  map_tally tally;
} run;

/* ---- beginning ------------------------------------------------------------------------------- */

static map_setup *make_setup(const run *r, size_t *ret_size) {
  const char *path = r->function ? r->function->path : "";
  const char *name = r->function ? r->function->name : "";
  size_t size = sizeof(map_setup) + strlen(path) + strlen(name) + 2;
  map_setup *setup = map_alloc(1, size);
  *setup = (map_setup){.control = r->control,
                       .is_command = !r->function,
                       .timeout_ms = r->options->timeout_ms,
                       .retries = r->options->retries,
                       .memory_bytes = r->options->memory_bytes,
                       .ignored = map_ignored_signals(),
                       .name_offset = strlen(path) + 1};
  memcpy(setup->text, path, strlen(path) + 1);
  memcpy(setup->text + setup->name_offset, name, strlen(name) + 1);
  *ret_size = size;
  return setup;
}

/* Commands are timed, and their memory is looked at, by their worker, which outlives them. */
static int make_pool(run *r) {
  const map_options *asked = r->options;
  size_t setup_size;
  map_setup *setup = make_setup(r, &setup_size);
  mproc_pool_options options = {
      .name = "map",
      .workers = r->workers,
      .method = asked->method,
      .initializer = map_worker_begin,
      .initializer_arg = setup,
      .initializer_size = setup_size,
      .worker_exit = map_worker_end,
      .poison_limit = asked->retries + 2, /* what kills a worker fails by what it died of */
      .task = {.retries = asked->retries ? asked->retries : -1},
  };
  if (r->function) {
    options.memory_limit = asked->memory_bytes;
    options.task.timeout_ms = asked->timeout_ms;
  }
  int code = mproc_pool_create(&r->pool, &options);
  free(setup);
  if (code < 0)
    return map_error("cannot make a pool: %s", mproc_error_detail());
  if (mproc_pool_handle(r->pool, &r->handle) < 0)
    r->handle = -1;
  return 0;
}

static int begin(run *r) {
  r->last = &r->first;
  r->batch_size = 1;
  r->handle = -1;
  r->joblog.fd = -1;
  r->workers = r->options->jobs ? r->options->jobs : mproc_cpu_count();
  if (r->options->inputs && r->options->input_count < (size_t)r->workers)
    r->workers = r->options->input_count ? (int)r->options->input_count : 1;
  r->tally.started_ns = map_now_ns();
  if (map_joblog_open(&r->joblog, r->options) != 0 ||
      map_joblog_compare(&r->joblog, &r->output, r->source) != 0)
    return MAP_ERROR;
  r->control = mproc_heap_calloc(1, sizeof *r->control);
  if (!r->control)
    return map_error("no shared memory: %s", mproc_error_detail());
  if (map_interrupt_begin() != 0 || make_pool(r) != 0)
    return MAP_ERROR;
  if (r->options->progress)
    map_progress_begin();
  return 0;
}

/* ---- inputs ---------------------------------------------------------------------------------- */

static map_refusal refuse(const run *r, const mproc_bytes *input) {
  if (!r->function)
    return input->size && memchr(input->data, '\0', input->size) ? MAP_HAS_NUL : MAP_FITS;
  size_t wanted = r->function->input_size;
  return wanted && wanted != input->size ? MAP_WRONG_SIZE : MAP_FITS;
}

static int take_input(run *r, const mproc_bytes *input) {
  uint64_t seq = ++r->seq;
  if (r->options->resume) {
    int done = map_joblog_has(&r->joblog, &r->output, seq, input->data, input->size);
    if (done) {
      r->tally.skipped++;
      return done == MAP_ERROR ? MAP_ERROR : 0;
    }
  }
  map_batch_add(&r->batch, input, seq, refuse(r, input), r->output.command);
  return 0;
}

/* Fills the batch; false: there is nothing more to be had now. */
static bool collect(run *r) {
  while (r->batch.count < r->batch_size && r->batch.bytes.size < GROUP_BYTES_MAX) {
    mproc_bytes input;
    map_read read = map_source_next(r->source, &input);
    if (read == MAP_READ_WAIT)
      return false;
    if (read != MAP_READ_INPUT || take_input(r, &input) != 0) {
      r->at_end = true;
      if (read != MAP_READ_END)
        r->status = MAP_ERROR;
      return false;
    }
  }
  return true;
}

static bool has_room(const run *r) {
  size_t open = r->batch_size > 1 ? OPEN_GROUPS : (size_t)r->workers * 2 + 2;
  if (r->options->halt.when != MAP_HALT_NEVER) /* none begins before it is known how others ended */
    open = (size_t)r->workers;
  return !r->stopping && !r->at_end && r->open_count < open && r->group_count < GROUPS_MAX &&
         r->held_bytes < HELD_BYTES_MAX;
}

static void give_up(run *r) {
  r->status = MAP_ERROR;
  r->stopping = true;
}

static void submit(run *r) {
  map_group *group;
  size_t output_size = r->function ? r->function->output_size : 0;
  if (map_group_make(&group, &r->batch, output_size) != 0) {
    give_up(r);
    return;
  }
  if (map_group_submit(group, r->pool, !r->function) != 0) {
    map_group_destroy(group);
    give_up(r);
    return;
  }
  *r->last = group;
  r->last = &group->next;
  r->group_count++;
  r->open_count++;
  r->tally.submitted += group->count;
}

static void fill(run *r) {
  while (has_room(r)) {
    bool more = collect(r);
    if (r->batch.count > 0)
      submit(r);
    if (!more)
      break;
  }
}

/* ---- results --------------------------------------------------------------------------------- */

/* What one needs at once about each input by itself is not told by groups of many. */
static bool may_group(const run *r) {
  const map_options *options = r->options;
  return r->function && !options->timeout_ms && !options->retries && !options->memory_bytes &&
         options->halt.when == MAP_HALT_NEVER;
}

/* So many as are not large together, by the results of the latest. */
static size_t inputs_that_fit(const run *r, const map_group *group) {
  size_t held = group->held_bytes / group->count;
  size_t bytes = held > r->function->output_size ? held : r->function->output_size;
  if (bytes == 0)
    return GROUP_INPUTS_MAX;
  return bytes < GROUP_BYTES_MAX ? GROUP_BYTES_MAX / bytes : 1;
}

/* Groups that take some milliseconds cost little each, and keep nobody waiting. */
static void adapt(run *r, const map_group *group, int64_t run_ns) {
  double input_ns = (double)run_ns / (double)group->count;
  r->input_ns = r->input_ns > 0 ? (3 * r->input_ns + input_ns) / 4 : input_ns;
  double wanted = (double)GROUP_NS * r->workers / (r->input_ns > 50 ? r->input_ns : 50);
  size_t most = r->batch_size * 8;
  size_t fit = inputs_that_fit(r, group);
  most = most < GROUP_INPUTS_MAX ? most : GROUP_INPUTS_MAX;
  most = most < fit ? most : fit;
  r->batch_size = wanted > (double)most ? most : wanted < 2 * r->workers ? 1 : (size_t)wanted;
}

static int status_of(const map_result *result) {
  if (result->exit_value >= 0)
    return result->exit_value;
  return result->signal ? 128 + result->signal : MAP_ERROR;
}

static void count_result(run *r, const map_result *result) {
  if (result->no_worker && r->status == 0) {
    map_error("%s", result->error);
    give_up(r);
  }
  if (!result->ran)
    return;
  r->tally.done++;
  r->tally.failed += result->failed;
  if (!r->halted && map_halt_hit(&r->options->halt, r->tally.done, r->tally.failed)) {
    r->halted = true;
    r->stopping = true;
    r->halt_status = status_of(result);
  }
}

static void settle(run *r, map_group *group) {
  map_result result;
  for (size_t i = 0; i < group->count; i++) {
    map_group_result(group, i, &result);
    count_result(r, &result);
  }
  if (may_group(r))
    adapt(r, group, group->run_ns);
  group->settled = true;
  r->open_count--;
  r->held_bytes += group->held_bytes;
}

static void print_group(run *r, map_group *group) {
  map_result result;
  for (size_t i = 0; i < group->count && !r->output.broken; i++) {
    map_group_result(group, i, &result);
    if (!result.ran)
      continue;
    map_output_result(&r->output, &result);
    map_joblog_add(&r->joblog, &r->output, &result);
  }
  r->held_bytes -= group->held_bytes;
  r->group_count--;
}

/* Prints what is over: up to the first that is not, unless the order does not matter. */
static void print_results(run *r, bool in_order) {
  map_group **link = &r->first;
  while (*link && (!in_order || (*link)->settled)) {
    map_group *group = *link;
    if (!group->settled) {
      link = &group->next;
      continue;
    }
    print_group(r, group);
    *link = group->next;
    map_group_destroy(group);
  }
  for (r->last = link; *r->last; r->last = &(*r->last)->next)
    continue;
  map_output_flush(&r->output);
  /* what is in the log is skipped by --resume: it has been printed */
  if (!r->output.broken && map_joblog_flush(&r->joblog) != 0)
    give_up(r);
  if (r->output.broken)
    give_up(r);
}

/* A service manager sends its signal to this program, its workers and the commands, in any order.
 * What dies of that is given up, not over: --resume is to run it again. So who died as by such a
 * signal waits for that of this program; and what fails after that one may have failed of it. */
static bool is_given_up(map_group *group) {
  if (map_interrupted())
    return map_group_was_hit(group, true);
  int64_t now_ns = map_now_ns();
  if (group->held_until_ns == 0 && map_group_was_hit(group, false))
    group->held_until_ns = now_ns + (int64_t)HOLD_MS * 1000000;
  return now_ns < group->held_until_ns;
}

static void harvest(run *r) {
  r->holds = false;
  for (map_group *group = r->first; group; group = group->next) {
    if (!group->over || group->settled)
      continue;
    if (!group->kept)
      map_group_measure(group);
    if (is_given_up(group))
      r->holds = true;
    else
      settle(r, group);
  }
  print_results(r, !r->options->unordered);
}

/* ---- the loop -------------------------------------------------------------------------------- */

static void wait_for_something(run *r) {
  struct pollfd items[] = {
      {.fd = map_interrupt_fd(), .events = POLLIN},
      {.fd = (int)r->handle, .events = POLLIN},
      {.fd = r->source->waits && has_room(r) ? r->source->fd : -1, .events = POLLIN},
  };
  int timeout_ms = r->handle < 0 ? BLIND_MS : r->options->progress ? SHOW_MS : LOOK_MS;
  if (r->holds && timeout_ms > HOLD_LOOK_MS)
    timeout_ms = HOLD_LOOK_MS;
  (void)poll(items, sizeof items / sizeof items[0], timeout_ms);
}

/* Tells workers to begin nothing, ends what runs, and waits for the end of commands a moment. */
static void stop_now(run *r) {
  /* before the first signal: a worker whose command ends by it is to know why */
  atomic_store(&r->control->stop, MAP_END_ALL);
  int64_t deadline_ns = map_now_ns() + (int64_t)GRACE_MS * 1000000;
  bool runs = !r->function;
  for (map_group *group = r->first; group && runs; group = group->next)
    map_group_kill(group, SIGTERM);
  while (runs && map_now_ns() < deadline_ns) {
    runs = false;
    for (map_group *group = r->first; group; group = group->next)
      runs = runs || map_group_runs(group);
    if (runs)
      (void)poll(NULL, 0, BLIND_MS);
  }
  for (map_group *group = r->first; group && !r->function; group = group->next)
    map_group_kill(group, SIGKILL);
  (void)mproc_pool_terminate(r->pool);
}

static void loop(run *r) {
  while (!map_interrupted()) {
    fill(r);
    if (!r->first && (r->at_end || r->stopping))
      return;
    if (r->stopping)
      atomic_store_explicit(&r->control->stop, MAP_BEGIN_NOTHING, memory_order_relaxed);
    map_progress_show(&r->tally, r->source);
    wait_for_something(r);
    if (mproc_pool_dispatch(r->pool) < 0) {
      map_error("%s", mproc_error_detail());
      r->status = MAP_ERROR;
      break;
    }
    harvest(r);
    if (r->output.broken || (r->halted && r->options->halt.when == MAP_HALT_NOW))
      break;
  }
  if (r->halted && !map_interrupted())
    print_results(r, false);
}

static void report_interrupt(run *r) {
  int number = map_interrupted();
  if (number == 0 || r->reported)
    return;
  r->reported = true;
  map_error("%s: stopped; %llu inputs were done, %llu given up", strsignal(number),
            (unsigned long long)r->tally.done,
            (unsigned long long)(r->tally.submitted - r->tally.done));
}

/* Workers leave by themselves, so that those of a function run its end. */
static void finish(run *r) {
  map_progress_clear();
  report_interrupt(r);
  if (r->pool && (r->first || map_interrupted())) {
    stop_now(r);
  } else if (r->pool) {
    (void)mproc_pool_close(r->pool);
    /* a join that waits looks but 20 times a second, and most runs are shorter than that */
    struct pollfd item = {.fd = map_interrupt_fd(), .events = POLLIN};
    while (mproc_pool_join(r->pool, 0) == -EAGAIN && !map_interrupted())
      (void)poll(&item, 1, BLIND_MS);
  }
  report_interrupt(r);
  if (r->pool && r->options->stats)
    map_print_stats(&r->tally, r->pool);
  (void)mproc_pool_destroy(r->pool);
  while (r->first) {
    map_group *group = r->first;
    r->first = group->next;
    map_group_kill(group, SIGKILL); /* no worker is left that could start more */
    map_group_destroy(group);
  }
  map_joblog_close(&r->joblog);
  map_release(&r->output.out);
  map_release(&r->batch.bytes);
  free(r->batch.records);
  mproc_heap_free(r->control);
}

static int exit_status(const run *r) {
  if (map_interrupted())
    return 128 + map_interrupted();
  if (r->status)
    return r->status;
  if (r->halted)
    return r->halt_status;
  return r->tally.failed < MAP_MANY_FAILED ? (int)r->tally.failed : MAP_MANY_FAILED;
}

int map_run(const map_options *options, map_source *source, const map_function *function,
            const map_template *command) {
  run r = {.options = options, .source = source, .function = function};
  r.output = (map_output){.options = options, .command = command};
  r.status = begin(&r);
  if (r.status == 0)
    loop(&r);
  finish(&r);
  return exit_status(&r);
}
