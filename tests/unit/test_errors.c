/* Every code of mproc's own, provoked by the public functions: the text names the cause and,
 * where somebody can do something about it, what. A code that is added without a function here
 * does not link. */
#include "harness.h"
#include "in_child.h"
#include "processes.h"
#include "setuid.h"

#include "base/error.h"
#include "heap/family.h"

#include <dlfcn.h>
#include <pthread.h>
#include <sys/mman.h>

#define DECLARE(name, value, text) static void provoke_##name(void);
MPROC_ERROR_MAP(DECLARE)

#define CASE(name, value, text)                                                                    \
  TEST(name) {                                                                                     \
    CHECK_STR(mproc_strerror(value), text);                                                        \
    CHECK_STR(mproc_error_name(value), "MPROC_" #name);                                            \
    provoke_##name();                                                                              \
  }
MPROC_ERROR_MAP(CASE)

/* The call that came before failed with this code, and said both. */
static void check_said(int r, int code, const char *cause, const char *remedy) {
  CHECK_EQ(r, code);
  CHECK_EQ(mproc_last_error(), code);
  CHECK_CONTAINS(mproc_error_detail(), cause);
  CHECK_CONTAINS(mproc_error_detail(), remedy);
}

static int start_failing(const mproc_process_options *options, mproc_entry *entry) {
  const int code = 0;
  mproc_process *process = create_with(options, entry, &code, sizeof code);
  int r = mproc_process_start(process);
  CHECK(r < 0);
  CHECK_EQ(mproc_process_close(process), 0);
  return r;
}

static const mproc_process_options by_spawn = {.method = "spawn"};

/* A start fails in a context with these settings. */
static void check_context_said(const mproc_context_options *settings, int code, const char *cause,
                               const char *remedy) {
  mproc_context *context;
  CHECK_EQ(mproc_context_create(&context, settings), 0);
  const mproc_process_options options = {.context = context};
  check_said(start_failing(&options, return_code), code, cause, remedy);
  mproc_context_destroy(context);
}

/* Runs hostile_main and checks what it printed. */
static void check_child_said(const char *mode, const char *argument, int code, const char *cause,
                             const char *remedy) {
  const char *const argv[] = {test_child_path("hostile_main"), mode, argument, NULL};
  char output[2048];
  CHECK_EQ(run_program(argv, output, sizeof output), 0);
  CHECK_EQ(atoi(output), code);
  CHECK_CONTAINS(output, cause);
  CHECK_CONTAINS(output, remedy);
}

/* ---- the forkserver -------------------------------------------------------------------------- */

static int fail_preload(void) {
  return 7;
}

static void provoke_EPRELOAD(void) {
  mproc_preload *const preload[] = {fail_preload};
  const mproc_context_options settings = {
      .method = "forkserver", .preload = preload, .preload_count = 1};
  check_context_said(&settings, MPROC_EPRELOAD, "returned 7", "must return 0");
}

static void end_server(void) {
  _exit(0);
}

static int end_before_fork(void) {
  return pthread_atfork(end_server, NULL, NULL);
}

static void provoke_ESERVER(void) {
  mproc_preload *const preload[] = {end_before_fork};
  const mproc_context_options settings = {
      .method = "forkserver", .preload = preload, .preload_count = 1};
  check_context_said(&settings, MPROC_ESERVER, "died 5 times in a row", "MPROC_LOG=info");
}

/* ---- members --------------------------------------------------------------------------------- */

static void use_heap_as_stranger(void) {
  CHECK(mproc_heap_alloc(1) == NULL);
  check_said(mproc_last_error(), MPROC_EFOREIGN, "fork() that mproc does not know",
             "mproc_process_start()");
}

static void provoke_EFOREIGN(void) {
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
  in_child(use_heap_as_stranger);
}

static void provoke_ETABLEFULL(void) {
  static mpx_member taken[MPX_SLOT_COUNT];
  uint32_t cell;
  size_t count = 0;
  CHECK_EQ(mpx_family_enter(&cell), 0);
  mpx_header *header = mpx_family_header();
  while (count < MPX_SLOT_COUNT && mpx_table_claim(header, mpx_family_self(), &taken[count]) == 0)
    count++;
  CHECK_EQ(count, MPX_SLOT_COUNT - 1);
  FOR_ALL_METHODS(method) {
    const mproc_process_options options = {.method = method};
    check_said(start_failing(&options, return_code), MPROC_ETABLEFULL, "8192 processes", "join");
  }
  while (count > 0)
    mpx_family_bury(taken[--count]);
  check_family_works();
}

/* ---- process objects ------------------------------------------------------------------------- */

static void provoke_ECLOSED(void) {
  mproc_process *process = create_with(NULL, return_code, NULL, 0);
  CHECK_EQ(mproc_process_close(process), 0);
  check_said(mproc_process_start(process), MPROC_ECLOSED, "closed", "create another");
}

static void provoke_EBROKEN(void) {
  mproc_barrier *barrier;
  CHECK_EQ(mproc_barrier_create(2, &barrier), 0);
  CHECK_EQ(mproc_barrier_abort(barrier), 0);
  check_said(mproc_barrier_wait(barrier, 0), MPROC_EBROKEN, "broke", "mproc_barrier_reset");
  CHECK_EQ(mproc_barrier_destroy(barrier), 0);
}

static int fail_task(mproc_task *task, const void *input, size_t size) {
  (void)input;
  (void)size;
  return mproc_task_fail(task, -EIO, "no luck");
}

static int fail_to_begin(void *arg, size_t size, void **ret_state) {
  (void)arg;
  (void)size;
  (void)ret_state;
  return -EIO;
}

static void provoke_ETASK(void) {
  mproc_pool *pool;
  CHECK_EQ(mproc_pool_create(&pool, NULL), 0);
  int r = mproc_pool_apply(pool, fail_task, NULL, 0, NULL, 0, NULL, NULL);
  check_said(r, MPROC_ETASK, "no luck", "returned");
  CHECK_EQ(mproc_pool_destroy(pool), 0);
}

static void provoke_EPOOL(void) {
  const mproc_pool_options options = {.workers = 1, .initializer = fail_to_begin};
  mproc_pool *pool;
  CHECK_EQ(mproc_pool_create(&pool, &options), 0);
  AWAIT(mproc_pool_apply_async(pool, fail_task, NULL, 0, NULL, NULL) == MPROC_EPOOL);
  int r = mproc_pool_apply_async(pool, fail_task, NULL, 0, NULL, NULL);
  check_said(r, MPROC_EPOOL, "initializer", strerror(EIO));
  CHECK_EQ(mproc_pool_destroy(pool), 0);
}

static void provoke_ESTARTED(void) {
  const int code = 3;
  mproc_process *process = start_by("fork", return_code, &code, sizeof code);
  check_said(mproc_process_start(process), MPROC_ESTARTED, "started before", "create another one");
  check_exited(process, code);
}

static void provoke_ENOTSTARTED(void) {
  mproc_process *process = create_with(NULL, return_code, NULL, 0);
  check_said(mproc_process_join(process, 0), MPROC_ENOTSTARTED, "has not been started",
             "mproc_process_start");
  CHECK_EQ(mproc_process_close(process), 0);
}

static mproc_process *of_the_parent;

static int join_own_parents(void *arg, size_t size) {
  (void)arg, (void)size;
  check_said(mproc_process_join(of_the_parent, 0), MPROC_ENOTCREATOR, "only that one may",
             "create another one here");
  return 0;
}

static void provoke_ENOTCREATOR(void) {
  of_the_parent = create_with(NULL, return_code, NULL, 0);
  check_exited(start_by("fork", join_own_parents, NULL, 0), 0);
  CHECK_EQ(mproc_process_close(of_the_parent), 0);
}

static int crash(void *arg, size_t size) {
  (void)arg, (void)size;
  raise(SIGKILL);
  return 0;
}

static void provoke_ECRASHED(void) {
  check_said(mproc_run(crash, NULL, 0), MPROC_ECRASHED, "killed by SIGKILL", "mproc_process_start");
}

static void provoke_ESTATUS_UNKNOWN(void) {
  mproc_rusage usage;
  const int code = 0;
  mproc_process *process = start_by("fork", return_code, &code, sizeof code);
  CHECK_EQ(waitpid((pid_t)mproc_process_pid(process), NULL, 0), mproc_process_pid(process));
  check_said(mproc_process_rusage(process, &usage), MPROC_ESTATUS_UNKNOWN,
             "another part of the program reaped", "its waits");
  end_of(process);
}

/* ---- start methods --------------------------------------------------------------------------- */

static void provoke_EMETHOD(void) {
  check_said(mproc_set_start_method("thread", 0), MPROC_EMETHOD, "'thread' is no start method",
             "choose one of: fork, spawn");
  const mproc_process_options options = {.method = "Fork"};
  mproc_process *process;
  check_said(mproc_process_create(&process, return_code, NULL, 0, &options), MPROC_EMETHOD,
             "'Fork'", "choose one of: fork, spawn");
}

static void provoke_EMETHODSET(void) {
  CHECK_EQ(mproc_set_start_method("spawn", 0), 0);
  check_said(mproc_set_start_method("fork", 0), MPROC_EMETHODSET, "already set to 'spawn'",
             "use force to change it, or a context");
}

/* ---- the program and the helper -------------------------------------------------------------- */

static void provoke_ENOINIT(void) {
  check_child_said("no_init", NULL, MPROC_ENOINIT, "has not called mproc_init()",
                   "first statement");
}

static void provoke_ENOHELPER(void) {
#if MPX_STATIC_TESTS
  SKIP("a static program has no library to take a function from");
#endif
  setenv("MPROC_HELPER", "/nonexistent/helper", 1);
  check_child_said("no_helper", NULL, MPROC_ENOHELPER, "'/nonexistent/helper'",
                   "name the installed mproc-helper");
}

static void provoke_EBOOT(void) {
  const char *script = test_tmp_path("ends_at_once");
  const mproc_context_options settings = {.method = "spawn", .executable = script};
  write_file(script, "#!/bin/sh\nexit 7\n", 0755);
  check_context_said(&settings, MPROC_EBOOT, "(exited with code 7)", "mproc_init()");
  CHECK_EQ(unlink(script), 0);
}

/* A file that anybody could have written in the place of the boot record. */
static void boot_from_a_file(void) {
  char marker[64];
  int fd = open(test_tmp_path("record"), O_RDWR | O_CREAT, 0600);
  CHECK_EQ(write(fd, "mprocbt1 and more", 17), 17);
  snprintf(marker, sizeof marker, "%d:%d", fd, (int)getpid());
  setenv("MPROC_BOOT", marker, 1);
  const char *const argv[] = {test_child_path("hostile_main"), "init", NULL};
  execv(argv[0], (char *const *)(uintptr_t)argv);
}

static void provoke_ERECORD(void) {
  char output[1024];
  int saved = dup(STDOUT_FILENO);
  int file = open(test_tmp_path("output"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  dup2(file, STDOUT_FILENO);
  in_child(boot_from_a_file);
  dup2(saved, STDOUT_FILENO);
  close(saved);
  ssize_t size = pread(file, output, sizeof output - 1, 0);
  CHECK(size > 0);
  output[size] = '\0';
  close(file);
  CHECK_EQ(atoi(output), MPROC_ERECORD);
  CHECK_CONTAINS(output, "MPROC_BOOT names descriptor");
  CHECK_CONTAINS(output, "remove the variable");
  CHECK_EQ(unlink(test_tmp_path("output")), 0);
  CHECK_EQ(unlink(test_tmp_path("record")), 0);
}

static void provoke_ESECURE(void) {
  char output[2048];
  run_setuid(test_child_path("secure_main"), "report", output, sizeof output);
  char code[32];
  snprintf(code, sizeof code, "spawn %d ", MPROC_ESECURE);
  CHECK_CONTAINS(output, code);
  CHECK_CONTAINS(output, "raised privileges");
  CHECK_CONTAINS(output, "use fork");
}

/* ---- modules --------------------------------------------------------------------------------- */

#if !MPX_STATIC_TESTS
/* The entry of a copy of a library, which the test may take away again. */
static mproc_entry *load_copy(const char *path) {
  copy_file(test_child_path("hostile_plugin.so"), path, 0755);
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  CHECK(library != NULL);
  mproc_entry *entry;
  *(void **)&entry = dlsym(library, "plugin_entry");
  CHECK(entry != NULL);
  return entry;
}

static void provoke_ENOMODULE(void) {
  const char *path = test_tmp_path("gone.so");
  mproc_entry *entry = load_copy(path);
  check_exited(start_with(&by_spawn, entry, NULL, 0), 1);
  CHECK_EQ(unlink(path), 0);
  check_said(start_failing(&by_spawn, entry), MPROC_ENOMODULE, "gone.so", "restart the program");
  copy_file(test_child_path("hostile_plugin_2.so"), path, 0755);
  check_said(start_failing(&by_spawn, entry), MPROC_ENOMODULE, "gone.so", "replaced");
  CHECK_EQ(unlink(path), 0);
}

#else
static void provoke_ENOMODULE(void) {
  SKIP("a static program loads no library");
}
#endif

/* The child runs another program, which knows the entry's file as little as its place in it. */
static void provoke_EMISMATCH(void) {
  const mproc_context_options settings = {.method = "spawn",
                                          .executable = test_child_path("secure_main")};
  check_context_said(&settings, MPROC_EMISMATCH, "secure_main", "shared library");
}

/* ---- the heap -------------------------------------------------------------------------------- */

static void provoke_EADDRESS(void) {
  check_child_said("heap", "0x8000000000", MPROC_EADDRESS, "no address range", "smaller heap_size");
}

static void provoke_EHEAPFULL(void) {
  CHECK(mproc_heap_alloc((size_t)1 << 46) == NULL);
  check_said(mproc_last_error(), MPROC_EHEAPFULL, "shared heap", "heap_size");
  CHECK(mproc_heap_calloc(SIZE_MAX / 2, 4) == NULL);
  check_said(mproc_last_error(), MPROC_EHEAPFULL, "more than any heap holds", "is the count right");
}

static void provoke_EHEAPLOST(void) {
  int fd = heap_descriptor();
  int other = fcntl(fd, F_DUPFD_CLOEXEC, 200);
  char name[32];
  CHECK_EQ(close(fd), 0);
  snprintf(name, sizeof name, "descriptor %d", fd);
  check_said(start_failing(&by_spawn, return_code), MPROC_EHEAPLOST, name, "use fork");
  CHECK_EQ(dup2(STDERR_FILENO, fd), fd); /* another file under its number is no heap either */
  check_said(start_failing(&by_spawn, return_code), MPROC_EHEAPLOST, name, "use fork");
  CHECK_EQ(dup3(other, fd, O_CLOEXEC), fd);
  CHECK_EQ(close(other), 0);
  check_family_works();
}

static void provoke_EPOINTER(void) {
  int on_the_stack = 0;
  char *block = mproc_heap_alloc(100);
  CHECK(block != NULL);
  check_said(mproc_heap_free(&on_the_stack), MPROC_EPOINTER, "is not in the shared heap",
             "to free()");
  check_said(mproc_heap_free(block + 1), MPROC_EPOINTER, "not the start", "mproc_heap_alloc");
  CHECK_EQ(mproc_heap_free(block), 0);
  check_said(mproc_heap_free(block), MPROC_EPOINTER, "freed before", "once");
}

/* ---- no code of mproc's own ------------------------------------------------------------------ */

TEST(no_place_for_the_result) {
  const char *const argv[] = {"true", NULL};
  mproc_process *process = create_with(NULL, return_code, NULL, 0);
  char text[16] = "untouched";
  const int results[] = {mproc_process_create(NULL, return_code, NULL, 0, NULL),
                         mproc_process_create_command(NULL, argv, NULL),
                         mproc_context_create(NULL, NULL),
                         mproc_get_context(NULL, "fork"),
                         mproc_process_status(process, NULL),
                         mproc_process_rusage(process, NULL),
                         mproc_process_sentinel(process, NULL),
                         mproc_get_start_method(NULL),
                         mproc_get_start_method_if_set(NULL),
                         mproc_get_all_start_methods(NULL),
                         mproc_current_process(NULL),
                         mproc_parent_process(NULL),
                         mproc_parent_sentinel(NULL),
                         mproc_inherited("name", NULL),
                         mproc_heap_stats(NULL)};
  for (size_t i = 0; i < sizeof results / sizeof results[0]; i++)
    CHECK_EQ(results[i], -EINVAL);
  check_said(mproc_process_status(process, NULL), -EINVAL, "ret_status", "is NULL");
  CHECK(mproc_context_method(NULL) == NULL);
  CHECK_STR(mproc_strstatus(NULL, text, sizeof text), "");
  CHECK_STR(mproc_strstatus(&(mproc_status){0}, NULL, 0), "");
  CHECK_EQ(mproc_process_close(process), 0);
}
