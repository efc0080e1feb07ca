/* The pool's life, as its creator sees it. */
#include "mproc/pool.h"

#include "base/error.h"
#include "base/log.h"
#include "os/crash_point.h"
#include "pool/host.h"
#include "process/context.h"
#include "process/exit_hook.h"
#include "process/settings.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { GRACE_MS = 900, QUEUE_LIMIT = 65536, POISON_LIMIT = 3, REVIVALS_MOST = 8 };

/* ---- all of them ----------------------------------------------------------------------------- */

static struct {
  mpx_os_mutex lock;
  mpx_list list;
  bool is_ready;
} pools;

static void end_now(mproc_pool *pool);

static mproc_pool *first_of_ours(void) {
  mproc_pool *found = NULL;
  mpx_os_mutex_lock(&pools.lock);
  for (mpx_list *node = pools.list.next; node != &pools.list && !found; node = node->next) {
    mproc_pool *pool = mpx_list_entry(node, mproc_pool, link);
    if (pool->creator == mpx_family_self())
      found = pool;
  }
  if (found)
    mpx_list_remove(&found->link);
  mpx_os_mutex_unlock(&pools.lock);
  return found;
}

/* A pool that nobody destroyed ends with the process, which would wait for its supervisor else. */
static void end_all(void) {
  if (!pools.is_ready)
    return;
  for (mproc_pool *pool; (pool = first_of_ours()) != NULL;) {
    (void)mproc_pool_terminate(pool);
    end_now(pool);
  }
}

static void lock_all(void) {
  mpx_os_mutex_lock(&pools.lock);
}

static void unlock_all(void) {
  mpx_os_mutex_unlock(&pools.lock);
}

/* In a fork of a thread that is in no pool, those of the parent are listed and not looked at. */
static void enlist(mproc_pool *pool) {
  mpx_os_mutex_lock(&pools.lock);
  if (!pools.is_ready) {
    mpx_list_init(&pools.list);
    mpx_os_at_fork(lock_all, unlock_all, unlock_all);
    mpx_exit_set_pools_hook(end_all);
    pools.is_ready = true;
  }
  mpx_list_append(&pools.list, &pool->link);
  mpx_os_mutex_unlock(&pools.lock);
}

/* ---- checks ---------------------------------------------------------------------------------- */

int mpx_pool_enter(mproc_pool *pool) {
  int r = mpx_check_not_null(pool, "pool");
  if (r < 0)
    return r;
  if (pool->creator != mpx_family_self())
    return mpx_fail(MPROC_ENOTCREATOR,
                    "pool '%s' was created by process %lld, and only that one may use it; create "
                    "another one here",
                    pool->name, (long long)pool->pid);
  mpx_os_cancel_hold();
  mpx_os_mutex_lock(&pool->lock);
  return 0;
}

void mpx_pool_leave(mproc_pool *pool) {
  mpx_os_mutex_unlock(&pool->lock);
  mpx_os_cancel_release();
}

int mpx_pool_say_broken(const mpx_board *board) {
  return mpx_fail(MPROC_EPOOL, "%s", board->broken_text);
}

static int check_range(int64_t value, int64_t least, int64_t most, const char *field) {
  return value >= least && value <= most
             ? 0
             : mpx_fail(-EINVAL, "mproc_pool_options.%s is %lld; %lld to %lld are possible", field,
                        (long long)value, (long long)least, (long long)most);
}

static int check_cpus(const mproc_pool_options *options) {
  if ((options->cpus == NULL) != (options->cpu_count == 0))
    return mpx_fail(-EINVAL, "mproc_pool_options.cpus and cpu_count do not agree");
  for (size_t i = 0; i < options->cpu_count; i++)
    if (options->cpus[i] < 0)
      return mpx_fail(-EINVAL, "mproc_pool_options.cpus[%zu] is %d", i, options->cpus[i]);
  return 0;
}

static int check_options(const mproc_pool_options *options) {
  int r = mpx_check_reserved(options->reserved, "mproc_pool_options");
  if (r == 0)
    r = check_range(options->workers, 0, MPROC_POOL_WORKERS_MAX, "workers");
  int workers = options->workers ? options->workers : mproc_cpu_count();
  if (r == 0)
    r = check_range(options->spares, 0, MPROC_POOL_WORKERS_MAX - (int64_t)workers, "spares");
  if (r == 0)
    r = check_range(options->tasks_per_worker, 0, INT32_MAX, "tasks_per_worker");
  if (r == 0)
    r = check_range(options->idle_timeout_ms, 0, INT32_MAX, "idle_timeout_ms");
  if (r == 0)
    r = check_range(options->poison_limit, 0, INT32_MAX, "poison_limit");
  if (r == 0)
    r = check_range((int64_t)options->queue_limit, 0, 1 << 26, "queue_limit");
  if (r == 0)
    r = check_range((int64_t)options->overflow, 0, MPROC_OVERFLOW_DROP, "overflow");
  if (r == 0 && options->name && strlen(options->name) >= MPX_POOL_NAME_SIZE)
    r = mpx_fail(-EINVAL, "mproc_pool_options.name has more than %d characters",
                 MPX_POOL_NAME_SIZE - 1);
  if (r == 0 && options->initializer_size && !options->initializer_arg)
    r = mpx_fail(-EINVAL, "mproc_pool_options.initializer_arg is NULL, but its size is %zu",
                 options->initializer_size);
  return r == 0 ? check_cpus(options) : r;
}

/* ---- functions ------------------------------------------------------------------------------- */

static int add_function(mproc_pool *pool, uintptr_t address, uint32_t number) {
  void *block;
  if (number >= MPX_POOL_FUNCTIONS)
    return mpx_fail(-ENOSPC, "pool '%s' has run %d different functions; create another pool",
                    pool->name, MPX_POOL_FUNCTIONS);
  int r = mpx_board_alloc(pool->board, sizeof(mpx_function), &block);
  if (r == 0 && (r = mpx_function_of(address, block)) < 0)
    (void)mproc_heap_free(block);
  if (r < 0)
    return r;
  pool->addresses[number] = address;
  pool->stays[number] = ((const mpx_function *)block)->is_main != 0;
  /* release: pairs with acquire of a worker that was told the number */
  atomic_store_explicit(&pool->board->functions[number], block, memory_order_release);
  atomic_store(&pool->board->function_count, number + 1);
  return 0;
}

static bool find_function(const mproc_pool *pool, uint32_t count, uintptr_t address,
                          uint32_t *ret_number) {
  for (uint32_t i = count; i-- > 0;)
    if (pool->addresses[i] == address) {
      *ret_number = i;
      return true;
    }
  return false;
}

/* An address names the same function as long as no library was unloaded. */
int mpx_pool_function(mproc_pool *pool, uintptr_t address, uint32_t *ret_number) {
  uint32_t count = atomic_load(&pool->board->function_count);
  if (find_function(pool, count, address, ret_number) && pool->stays[*ret_number])
    return 0;
  uint64_t unloads = mpx_os_module_unloads();
  for (uint32_t i = 0; i < count && unloads != pool->unloads; i++)
    if (!pool->stays[i])
      pool->addresses[i] = 0;
  pool->unloads = unloads;
  if (find_function(pool, count, address, ret_number))
    return 0;
  int r = add_function(pool, address, count);
  if (r == 0)
    *ret_number = count;
  return r;
}

/* ---- making ---------------------------------------------------------------------------------- */

static int copy_block(const mpx_board *board, const void *data, size_t size, void *ret_copy) {
  void *block;
  if (!data || !size)
    return 0;
  int r = mpx_board_alloc(board, size, &block);
  if (r == 0)
    *(void **)ret_copy = memcpy(block, data, size);
  return r;
}

static int copy_settings(mproc_pool *pool, const mproc_pool_options *options) {
  mpx_pool_settings *settings = &pool->board->settings;
  const mproc_context *context = options->context;
  uint32_t number;
  int r = copy_block(pool->board, options->initializer_arg, options->initializer_size,
                     &settings->initializer_arg);
  if (r == 0)
    r = copy_block(pool->board, options->cpus, options->cpu_count * sizeof(int), &settings->cpus);
  if (r == 0 && context && context->executable)
    r = copy_block(pool->board, context->executable, strlen(context->executable) + 1,
                   &settings->executable);
  if (r == 0 && context && context->helper)
    r = copy_block(pool->board, context->helper, strlen(context->helper) + 1, &settings->helper);
  if (r == 0 && options->initializer &&
      (r = mpx_pool_function(pool, (uintptr_t)options->initializer, &number)) == 0)
    settings->initializer = number + 1;
  if (r == 0 && options->worker_exit &&
      (r = mpx_pool_function(pool, (uintptr_t)options->worker_exit, &number)) == 0)
    settings->worker_exit = number + 1;
  return r;
}

static int choose_method(const mproc_pool_options *options, mpx_method *ret_method) {
  if (options->method)
    return mpx_method_parse(options->method, "mproc_pool_create", ret_method);
  *ret_method = options->context ? options->context->method : MPX_METHOD_UNSET;
  return *ret_method == MPX_METHOD_UNSET ? mpx_method_in_use(ret_method) : 0;
}

/* A host that dies before the supervisor is there leaves the board behind: nobody would know of
 * it. A supervisor that dies is replaced later. */
static void await_supervisor(mproc_pool *pool) {
  mpx_turn *turn = &pool->board->results.turn;
  const mpx_line *line = &pool->board->lines[MPX_SUPERVISOR];
  while (mproc_process_is_alive(pool->supervisor) == 1) {
    uint32_t seen = mpx_turn_prepare(turn);
    if (atomic_load(&line->started) > 0)
      return;
    (void)mpx_turn_sleep(turn, seen, MPX_NEVER);
  }
}

static int start_supervisor(mproc_pool *pool) {
  char name[40];
  (void)snprintf(name, sizeof name, "%.20s:supervisor", pool->name);
  const mproc_process_options options = {
      .name = name, .context = pool->context, .method = mproc_context_method(pool->context)};
  mpx_board *board = pool->board;
  int r =
      mproc_process_create(&pool->supervisor, mpx_supervisor_main, &board, sizeof board, &options);
  if (r < 0)
    return r;
  r = mproc_process_start(pool->supervisor);
  if (r < 0) {
    (void)mproc_process_close(pool->supervisor);
    pool->supervisor = NULL;
  }
  return r;
}

/* The context is the caller's to destroy; forkservers are shared by settings. */
static int copy_context(mproc_pool *pool, const mproc_pool_options *options, mpx_method method) {
  const mproc_context *given = options->context;
  const mproc_context_options wanted = {.method = mpx_method_name(method),
                                        .executable = given ? given->executable : NULL,
                                        .helper = given ? given->helper : NULL};
  int r = mproc_context_create(&pool->context, &wanted);
  if (r == 0 && given && given->server)
    mpx_context_share_server(pool->context, given);
  return r;
}

static mproc_pool *make_private(const mproc_pool_options *options) {
  static _Atomic unsigned number;
  mproc_pool *pool = calloc(1, sizeof *pool);
  if (!pool)
    return NULL;
  pool->pid = mpx_os_pid();
  mpx_os_mutex_init(&pool->lock);
  mpx_list_init(&pool->futures);
  mpx_list_init(&pool->ready);
  mpx_list_init(&pool->calling);
  mpx_list_init(&pool->imaps);
  mpx_list_init(&pool->retired);
  mpx_list_init(&pool->link);
  pool->overflow = options->overflow;
  pool->queue_limit = options->queue_limit ? options->queue_limit : QUEUE_LIMIT;
  if (options->name)
    (void)snprintf(pool->name, sizeof pool->name, "%s", options->name);
  else
    (void)snprintf(pool->name, sizeof pool->name, "Pool-%u", atomic_fetch_add(&number, 1) + 1);
  return pool;
}

static void free_private(mproc_pool *pool) {
  mproc_context_destroy(pool->context);
  free(pool->by_number);
  free(pool);
}

static int make_board(mproc_pool *pool, const mproc_pool_options *options, mpx_method method) {
  uint32_t cell;
  mpx_pool_settings settings = {
      .method = method == MPX_METHOD_SPAWN ? MPX_METHOD_SPAWN : MPX_METHOD_FORK,
      .initializer_size = options->initializer_size,
      .tasks_per_worker = options->tasks_per_worker,
      .spares = options->spares,
      .idle_timeout_ms = options->idle_timeout_ms,
      .poison_limit = options->poison_limit ? options->poison_limit : POISON_LIMIT,
      .keep_errors = options->keep_errors,
      .memory_limit = options->memory_limit,
      .cpu_count = options->cpu_count};
  memcpy(settings.name, pool->name, sizeof settings.name);
  int r = mpx_family_enter(&cell);
  pool->creator = mpx_family_self();
  if (r == 0)
    r = mpx_board_create(&settings, pool->queue_limit, &pool->board);
  if (r == 0)
    atomic_store(&pool->board->wanted, options->workers ? options->workers : mproc_cpu_count());
  return r;
}

static int create(mproc_pool **ret_pool, const mproc_pool_options *options) {
  mpx_method method = MPX_METHOD_UNSET;
  mproc_pool *pool = make_private(options);
  if (!pool)
    return mpx_fail_code(-ENOMEM, "mproc_pool_create");
  int r = mpx_submit_take_options(NULL, &options->task, &pool->defaults);
  if (r == 0)
    r = choose_method(options, &method);
  if (r == 0)
    r = copy_context(pool, options, method);
  if (r == 0)
    r = make_board(pool, options, method);
  if (r == 0)
    r = copy_settings(pool, options);
  if (r == 0)
    r = start_supervisor(pool);
  if (r == 0)
    await_supervisor(pool);
  if (r < 0) {
    if (pool->board)
      mpx_board_destroy(pool->board);
    free_private(pool);
    return r;
  }
  enlist(pool);
  *ret_pool = pool;
  return 0;
}

int mproc_pool_create(mproc_pool **ret_pool, const mproc_pool_options *options) {
  static const mproc_pool_options defaults;
  if (!options)
    options = &defaults;
  int r = mpx_check_not_null(ret_pool, "ret_pool");
  if (r == 0)
    r = check_options(options);
  if (r < 0)
    return r;
  mpx_os_cancel_hold();
  r = create(ret_pool, options);
  mpx_os_cancel_release();
  return r;
}

/* ---- a supervisor that was killed ------------------------------------------------------------ */

static uint64_t count_done(const mpx_board *board) {
  uint64_t done = 0;
  int used = atomic_load(&board->lines_used);
  for (int i = 0; i < used; i++)
    done += atomic_load(&board->lines[i].done);
  return done;
}

static bool is_gone(const mproc_pool *pool) {
  return !pool->supervisor || mproc_process_is_alive(pool->supervisor) != 1;
}

/* What is left when nobody can do anything any more. */
static void end_jobs(mproc_pool *pool) {
  mpx_supervisor_of_last_resort(pool->board);
  mpx_notice_next(&pool->board->results, MPX_TURN_ALL);
}

void mpx_pool_revive(mproc_pool *pool) {
  mpx_board *board = pool->board;
  if (atomic_load(&board->lines[MPX_SUPERVISOR].stage) == MPX_WORKER_LEFT) {
    if (pool->under_way > 0) /* submitted while the supervisor broke the pool, and went */
      mpx_jobs_fail_all(board);
    return;
  }
  if (!is_gone(pool))
    return;
  uint64_t done = count_done(board);
  if (done != pool->done_at_revival)
    pool->revivals = 0;
  pool->done_at_revival = done;
  atomic_fetch_add(&board->supervisors_died, 1);
  (void)mproc_process_close(pool->supervisor);
  pool->supervisor = NULL;
  bool is_ending = atomic_load(&board->state) >= MPX_POOL_ENDING;
  int r = is_ending ? 0 : start_supervisor(pool);
  if (!is_ending && r == 0 && ++pool->revivals <= REVIVALS_MOST) {
    mpx_log(MPROC_LOG_INFO, "pool '%s': the supervisor was killed; here is another", pool->name);
    return;
  }
  if (!is_ending) {
    board->broken_code = MPROC_EPOOL;
    (void)snprintf(board->broken_text, sizeof board->broken_text,
                   "the supervisor was killed, and there is no other: %s",
                   r < 0 ? mproc_error_detail() : "that happened again and again");
    atomic_store(&board->state, MPX_POOL_BROKEN);
  }
  if (pool->supervisor) {
    (void)mproc_process_kill(pool->supervisor);
    (void)mproc_process_join(pool->supervisor, MPROC_FOREVER);
  }
  atomic_store(&board->lines[MPX_SUPERVISOR].stage, MPX_WORKER_LEFT);
  end_jobs(pool);
}

/* ---- the end --------------------------------------------------------------------------------- */

int mproc_pool_close(mproc_pool *pool) {
  int r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  uint32_t open = MPX_POOL_OPEN;
  pool->is_closed = true;
  (void)atomic_compare_exchange_strong(&pool->board->state, &open, MPX_POOL_CLOSING);
  mpx_board_call_supervisor(pool->board);
  mpx_pool_leave(pool);
  return 0;
}

int mproc_pool_terminate(mproc_pool *pool) {
  int r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  pool->is_closed = true;
  uint32_t state = atomic_load(&pool->board->state);
  while (state < MPX_POOL_ENDING &&
         !atomic_compare_exchange_weak(&pool->board->state, &state, MPX_POOL_ENDING))
    ;
  mpx_board_call_supervisor(pool->board);
  mpx_pool_leave(pool);
  return 0;
}

/* It tells of that, but not of its last steps, which are few. */
static bool has_ended(mproc_pool *pool, void *user) {
  (void)user;
  return atomic_load(&pool->board->lines[MPX_SUPERVISOR].stage) == MPX_WORKER_LEFT;
}

int mproc_pool_join(mproc_pool *pool, int timeout_ms) {
  int r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  bool is_closed = pool->is_closed;
  mpx_pool_leave(pool);
  if (!is_closed)
    return mpx_fail(-EINVAL,
                    "pool '%s' is open; call mproc_pool_close() or "
                    "mproc_pool_terminate() first",
                    pool->name);
  r = mpx_pool_await(pool, has_ended, NULL, timeout_ms, "the pool to end");
  if (r < 0)
    return r;
  (void)mproc_pool_dispatch(pool); /* what its end has brought */
  r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  if (pool->supervisor)
    (void)mproc_process_join(pool->supervisor, MPROC_FOREVER);
  mpx_pool_leave(pool);
  return 0;
}

/* Within a second, whatever it takes. Locked all the time: at the exit of the process other threads
 * may wait on the pool. */
static void end_now(mproc_pool *pool) {
  if (mpx_pool_enter(pool) < 0)
    return;
  if (pool->supervisor && mproc_process_join(pool->supervisor, GRACE_MS) < 0) {
    (void)mproc_process_kill(pool->supervisor); /* its workers die with it */
    (void)mproc_process_join(pool->supervisor, MPROC_FOREVER);
  }
  if (atomic_load(&pool->board->lines[MPX_SUPERVISOR].stage) != MPX_WORKER_LEFT)
    end_jobs(pool);
  if (pool->supervisor)
    (void)mproc_process_close(pool->supervisor);
  pool->supervisor = NULL;
  atomic_store(&pool->board->lines[MPX_SUPERVISOR].stage, MPX_WORKER_LEFT);
  mpx_pool_leave(pool);
}

static void forget_futures(mproc_pool *pool) {
  while (pool->futures.next != &pool->futures) {
    mproc_future *future = mpx_list_entry(pool->futures.next, mproc_future, link);
    mpx_list_remove(&future->link);
    mpx_list_remove(&future->ready);
    mpx_list_remove(&future->arrival);
    future->pool = NULL;
    if (future->is_abandoned)
      free(future);
  }
  while (pool->retired.next != &pool->retired) {
    mproc_future *future = mpx_list_entry(pool->retired.next, mproc_future, link);
    mpx_list_remove(&future->link);
    free(future);
  }
}

int mproc_pool_destroy(mproc_pool *pool) {
  if (!pool)
    return 0;
  int r = mproc_pool_terminate(pool);
  if (r < 0)
    return r;
  mpx_os_cancel_hold();
  end_now(pool);
  (void)mproc_pool_dispatch(pool);
  mpx_os_mutex_lock(&pools.lock);
  mpx_list_remove(&pool->link);
  mpx_os_mutex_unlock(&pools.lock);
  if (pool->bell_entry)
    mpx_bell_close(&pool->bell);
  forget_futures(pool);
  mpx_imaps_forget(pool);
  mpx_board_destroy(pool->board);
  free_private(pool);
  mpx_os_cancel_release();
  return 0;
}

int mproc_pool_resize(mproc_pool *pool, int workers) {
  int r = mpx_pool_enter(pool);
  if (r < 0)
    return r;
  int most = MPROC_POOL_WORKERS_MAX - pool->board->settings.spares;
  if (workers < 1 || workers > most)
    r = mpx_fail(-EINVAL, "%d workers; 1 to %d are possible", workers, most);
  else if (pool->is_closed)
    r = mpx_fail(MPROC_ECLOSED, "pool '%s' was closed", pool->name);
  else
    atomic_store(&pool->board->wanted, workers);
  mpx_board_call_supervisor(pool->board);
  mpx_pool_leave(pool);
  return r;
}
