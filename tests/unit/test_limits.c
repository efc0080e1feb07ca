/* A start that fails says which limit it hit, leaves nothing behind, and works again once the
 * limit is gone. */
#include "harness.h"
#include "in_child.h"
#include "processes.h"
#include "setuid.h"
#include "soft_limit.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdint.h>
#include <sys/mman.h>

#define MIB ((size_t)1 << 20)

static int start_and_close(const mproc_process_options *options, mproc_entry *entry) {
  const int code = 0;
  mproc_process *process = create_with(options, entry, &code, sizeof code);
  int r = mproc_process_start(process);
  if (r == 0)
    CHECK_EQ(end_of(process).state, MPROC_STATE_EXITED);
  else
    CHECK_EQ(mproc_process_close(process), 0);
  return r;
}

static void make_family(void) {
  CHECK_EQ(mproc_heap_free(mproc_heap_alloc(1)), 0);
}

/* ---- address space --------------------------------------------------------------------------- */

static size_t address_space_in_use(void) {
  unsigned long pages = 0;
  FILE *file = fopen("/proc/self/statm", "re");
  CHECK(file != NULL);
  CHECK_EQ(fscanf(file, "%lu", &pages), 1);
  fclose(file);
  return pages * (size_t)sysconf(_SC_PAGESIZE);
}

static void make_family_in_little_space(void) {
  (void)set_soft_limit(RLIMIT_AS, address_space_in_use() + 600 * MIB);
  mproc_heap_statistics statistics;
  CHECK_EQ(mproc_heap_stats(&statistics), 0);
  CHECK(statistics.limit_bytes >= 16 * MIB);
  CHECK(statistics.limit_bytes < 600 * MIB);
  check_family_works();
}

TEST(default_heap_shrinks_to_the_address_space) {
  if (UNDER_SANITIZER)
    SKIP("the sanitizer takes all of the address space");
  in_child(make_family_in_little_space);
}

static void make_family_in_no_space(void) {
  (void)set_soft_limit(RLIMIT_AS, address_space_in_use() + 4 * MIB);
  CHECK(mproc_heap_alloc(1) == NULL);
  CHECK_EQ(mproc_last_error(), MPROC_EADDRESS);
  CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_AS");
  CHECK_CONTAINS(mproc_error_detail(), "heap_size");
  CHECK_EQ(start_and_close(&(mproc_process_options){.method = "fork"}, return_code),
           MPROC_EADDRESS);
  (void)set_soft_limit(RLIMIT_AS, RLIM_INFINITY);
  check_family_works();
}

TEST(no_address_space_for_the_heap) {
  if (UNDER_SANITIZER)
    SKIP("the sanitizer takes all of the address space");
  in_child(make_family_in_no_space);
}

/* The child is told to live in less space than the heap takes. */
TEST(child_without_room_for_the_heap) {
  SKIP_UNDER_VALGRIND("valgrind itself needs more address space than that");
  if (UNDER_SANITIZER)
    SKIP("the sanitizer takes all of the address space");
  const mproc_limit limit = {.resource = MPROC_RESOURCE_AS, .soft = 64 * MIB, .hard = 64 * MIB};
  const mproc_process_options options = {.method = "spawn", .limits = &limit, .limit_count = 1};
  make_family();
  int before = descriptor_count();
  uint64_t used = heap_used();
  CHECK_EQ(start_and_close(&options, return_code), MPROC_EADDRESS);
  CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_AS must leave room");
  CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_DATA");
  CHECK_EQ(descriptor_count(), before);
  CHECK_EQ(heap_used(), used);
  check_family_works();
}

/* Every place in the child is taken by its program: here all places are taken in the one that
 * makes it. */
static void take_all_addresses(void) {
  static const uint64_t windows[][2] = {
      {0x551000000000, 256}, {0x511000000000, 256}, {0x521000000000, 256}, {0x006000000000, 256},
      {0x00a000000000, 256}, {0x002000000000, 128}, {0x001000000000, 64}};
  for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++)
    (void)mmap((void *)(uintptr_t)windows[i][0], windows[i][1] << 30, PROT_NONE,
               MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
  CHECK(mproc_heap_alloc(1) == NULL);
  CHECK_EQ(mproc_last_error(), MPROC_EADDRESS);
  CHECK_CONTAINS(mproc_error_detail(), "no address range");
}

TEST(no_address_left) {
  SKIP_UNDER_VALGRIND("valgrind lives in one of these places, so not all can be taken");
  if (UNDER_SANITIZER)
    SKIP("the sanitizer has some of these places");
  in_child(take_all_addresses);
}

/* ---- file size ------------------------------------------------------------------------------- */

/* SIGXFSZ has its default action: a call that raises it ends the case. */
static void make_family_with_small_files(void) {
  (void)set_soft_limit(RLIMIT_FSIZE, MIB);
  void *block = mproc_heap_alloc(MIB / 2);
  if (!block) { /* a clear error is as good, for the memory file obeys the limit */
    CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_FSIZE");
    return;
  }
  memset(block, 1, MIB / 2);
  CHECK_EQ(mproc_heap_free(block), 0);
}

TEST(small_file_limit_at_birth) {
  in_child(make_family_with_small_files);
}

static int count_bytes(void *arg, size_t size) {
  const unsigned char *bytes = arg;
  for (size_t i = 0; i < size; i++)
    if (bytes[i] != 5)
      return 1;
  return 0;
}

static void start_with_small_files(void) {
  size_t large = 8 * MIB;
  void *argument = malloc(large);
  CHECK(argument != NULL);
  memset(argument, 5, large);
  make_family();
  (void)set_soft_limit(RLIMIT_FSIZE, MIB);
  char *block = mproc_heap_alloc(32 * MIB); /* the heap was born before */
  CHECK(block != NULL);
  memset(block, 1, 32 * MIB);
  CHECK_EQ(mproc_heap_free(block), 0);
  FOR_ALL_METHODS(method) {
    const mproc_process_options options = {.method = method};
    check_exited(start_with(&options, count_bytes, argument, 1000), 0);
    mproc_process *process = create_with(&options, count_bytes, argument, large);
    int r = mproc_process_start(process);
    if (r == 0) {
      check_exited(process, 0);
      continue;
    }
    CHECK_EQ(r, -EFBIG);
    CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_FSIZE");
    (void)set_soft_limit(RLIMIT_FSIZE, RLIM_INFINITY);
    CHECK_EQ(mproc_process_start(process), 0);
    check_exited(process, 0);
    (void)set_soft_limit(RLIMIT_FSIZE, MIB);
  }
  free(argument);
}

TEST(small_file_limit_in_a_family) {
  in_child(start_with_small_files);
}

/* ---- descriptors ----------------------------------------------------------------------------- */

/* Somebody closes a descriptor as soon as the heap is tried at a smaller size. */
static void let_descriptors_be(void *user, mproc_log_level level, const char *message) {
  (void)level;
  if (strstr(message, "trying"))
    (void)set_soft_limit(RLIMIT_NOFILE, *(rlim_t *)user);
}

static void make_family_without_descriptors(void) {
  rlim_t before = set_soft_limit(RLIMIT_NOFILE, 0);
  mproc_set_log(let_descriptors_be, &before, MPROC_LOG_INFO);
  CHECK(mproc_heap_alloc(1) == NULL);
  CHECK_EQ(mproc_last_error(), -EMFILE);
  CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_NOFILE");
  (void)set_soft_limit(RLIMIT_NOFILE, before);
  check_family_works();
}

TEST(missing_descriptors_make_no_small_heap) {
  in_child(make_family_without_descriptors);
}

/* With 0, 1, 2, ... descriptors left, until a start succeeds: each failure is clean. */
static void start_with_few_descriptors(const char *method, int daemon) {
  const mproc_process_options options = {.method = method, .daemon = daemon};
  make_family();
  start_and_close(&options, return_code);
  int before = descriptor_count(), r = -1;
  uint64_t used = heap_used();
  for (int left = 0; r != 0; left++) {
    CHECK(left < 32);
    rlim_t soft = set_soft_limit(RLIMIT_NOFILE, (rlim_t)(before + left));
    r = start_and_close(&options, return_code);
    if (r != 0) {
      CHECK_EQ(r, -EMFILE);
      CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_NOFILE");
    }
    (void)set_soft_limit(RLIMIT_NOFILE, soft);
    CHECK_EQ(descriptor_count(), before);
    CHECK_EQ(heap_used(), used);
  }
  check_family_works();
}

TEST(out_of_descriptors_fork) {
  start_with_few_descriptors("fork", 0);
}

TEST(out_of_descriptors_spawn) {
  start_with_few_descriptors("spawn", 0);
}

static void *start_daemons_with_few_descriptors(void *method) {
  start_with_few_descriptors(method, 1);
  return NULL;
}

static int start_daemons_in_a_thread(void *arg, size_t size) {
  pthread_t thread;
  (void)size;
  CHECK_EQ(pthread_create(&thread, NULL, start_daemons_with_few_descriptors, arg), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  return 0;
}

TEST(out_of_descriptors_for_a_daemon_of_a_thread) {
  FOR_ALL_METHODS(method)
  check_exited(start_by("fork", start_daemons_in_a_thread, method, strlen(method) + 1), 0);
}

TEST(out_of_descriptors_for_a_command) {
  int before = descriptor_count(), r = -1;
  for (int left = 0; r != 0; left++) {
    CHECK(left < 32);
    rlim_t soft = set_soft_limit(RLIMIT_NOFILE, (rlim_t)(before + left));
    mproc_process *process = create_command(COMMAND("/bin/true"), NULL);
    r = mproc_process_start(process);
    if (r == 0) {
      check_exited(process, 0);
    } else {
      CHECK_EQ(r, -EMFILE);
      CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_NOFILE");
      CHECK_EQ(mproc_process_close(process), 0);
    }
    (void)set_soft_limit(RLIMIT_NOFILE, soft);
    CHECK_EQ(descriptor_count(), before);
  }
}

/* ---- processes ------------------------------------------------------------------------------- */

static void check_out_of_processes(const mproc_process_options *options) {
  int before = descriptor_count();
  CHECK_EQ(start_and_close(options, return_code), -EAGAIN);
  CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_NPROC");
  CHECK_CONTAINS(mproc_error_detail(), "limit on processes");
  CHECK_EQ(descriptor_count(), before);
}

static void start_without_processes(void) {
  make_family();
  become_ordinary();
  rlim_t soft = set_soft_limit(RLIMIT_NPROC, 0);
  uint64_t used = heap_used();
  FOR_ALL_METHODS(method) {
    const mproc_process_options options = {.method = method};
    check_out_of_processes(&options);
  }
  mproc_process *process = create_command(COMMAND("/bin/true"), NULL);
  CHECK_EQ(mproc_process_start(process), -EAGAIN);
  CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_NPROC");
  CHECK_EQ(heap_used(), used);
  (void)set_soft_limit(RLIMIT_NPROC, soft);
  CHECK_EQ(mproc_process_start(process), 0);
  check_exited(process, 0);
  check_exited(start_by("fork", return_code, &(int){3}, sizeof(int)), 3);
}

TEST(out_of_processes) {
  if (geteuid() != 0)
    SKIP("root is needed to become a user that runs nothing else");
  in_child(start_without_processes);
}

/* A guarded daemon needs the guardian and the maker between too. */
static void *start_daemon_without_processes(void *nothing) {
  const mproc_process_options options = {.method = "fork", .daemon = 1};
  become_ordinary(); /* all threads change */
  rlim_t soft = set_soft_limit(RLIMIT_NPROC, 0);
  int before = descriptor_count();
  CHECK_EQ(start_and_close(&options, return_code), -EAGAIN);
  CHECK_CONTAINS(mproc_error_detail(), "RLIMIT_NPROC");
  (void)set_soft_limit(RLIMIT_NPROC,
                       2 + 1); /* this one, its maker of guardians: none for the guardian */
  (void)start_and_close(&options, return_code);
  (void)set_soft_limit(RLIMIT_NPROC, soft);
  CHECK_EQ(descriptor_count() <= before + 1, 1);
  return nothing;
}

static void start_daemon_in_a_poor_thread(void) {
  pthread_t thread;
  make_family();
  CHECK_EQ(pthread_create(&thread, NULL, start_daemon_without_processes, NULL), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
}

TEST(out_of_processes_for_a_guardian) {
  if (geteuid() != 0)
    SKIP("root is needed to become a user that runs nothing else");
  in_child(start_daemon_in_a_poor_thread);
}

/* ---- memory ---------------------------------------------------------------------------------- */

/* A child that has no memory for its copy of the argument block. */
TEST(out_of_memory_in_the_child) {
  SKIP_UNDER_VALGRIND("RLIMIT_DATA does not bind valgrind's malloc");
  if (UNDER_SANITIZER)
    SKIP("the sanitizer's allocator ends the process instead");
  size_t size = 64 * MIB;
  const mproc_limit limit = {.resource = MPROC_RESOURCE_DATA, .soft = 32 * MIB, .hard = 32 * MIB};
  const mproc_process_options options = {.method = "spawn", .limits = &limit, .limit_count = 1};
  void *argument = calloc(1, size);
  CHECK(argument != NULL);
  make_family();
  int before = descriptor_count();
  mproc_process *process = create_with(&options, count_bytes, argument, size);
  CHECK_EQ(mproc_process_start(process), -ENOMEM);
  CHECK_CONTAINS(mproc_error_detail(), "no memory in the child");
  CHECK_CONTAINS(mproc_error_detail(), "argument block");
  CHECK_EQ(mproc_process_close(process), 0);
  CHECK_EQ(descriptor_count(), before);
  free(argument);
  check_family_works();
}

/* And a parent that has none for the copy that create makes. */
static void create_without_memory(void) {
  mproc_process *process;
  size_t size = 256 * MIB;
  void *argument = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(argument != MAP_FAILED);
  (void)set_soft_limit(RLIMIT_DATA, 64 * MIB);
  CHECK_EQ(mproc_process_create(&process, count_bytes, argument, size, NULL), -ENOMEM);
  CHECK_CONTAINS(mproc_error_detail(), "argument block");
  check_family_works();
}

TEST(out_of_memory_in_the_parent) {
  SKIP_UNDER_VALGRIND("RLIMIT_DATA does not bind valgrind's malloc");
  if (UNDER_SANITIZER)
    SKIP("the sanitizer's allocator ends the process instead");
  in_child(create_without_memory);
}

/* ---- files ----------------------------------------------------------------------------------- */

static void check_executable(const char *path, int code, const char *cause) {
  const mproc_context_options settings = {.executable = path};
  mproc_context *context;
  CHECK_EQ(mproc_context_create(&context, &settings), 0);
  const mproc_process_options options = {.method = "spawn", .context = context};
  int before = descriptor_count();
  CHECK_EQ(start_and_close(&options, return_code), code);
  CHECK_CONTAINS(mproc_error_detail(), path);
  CHECK_CONTAINS(mproc_error_detail(), cause);
  CHECK_EQ(descriptor_count(), before);
  mproc_context_destroy(context);
}

TEST(missing_executable) {
  make_family();
  check_executable("/nonexistent/program", -ENOENT, "No such file");
  check_executable("/etc/passwd", -EACCES, "Permission denied");
  check_executable("/", -EACCES, "Permission denied");
  const char *path = test_tmp_path("no_program");
  write_file(path, "\177no program at all", 0755);
  check_executable(path, -ENOEXEC, "Exec format");
  CHECK_EQ(unlink(path), 0);
  check_family_works();
}

TEST(missing_command) {
  static const char *const names[] = {"/nonexistent/command", "no-such-command-anywhere"};
  for (size_t i = 0; i < 2; i++) {
    mproc_process *process = create_command(COMMAND(names[i]), NULL);
    CHECK_EQ(mproc_process_start(process), -ENOENT);
    CHECK_CONTAINS(mproc_error_detail(), names[i]);
    CHECK_EQ(mproc_process_close(process), 0);
  }
}

#if !MPX_STATIC_TESTS
static const char *module_path;

static void spawn_from_unreadable_module(void) {
  mproc_entry *entry;
  void *library = dlopen(module_path, RTLD_NOW | RTLD_LOCAL);
  CHECK(library != NULL);
  *(void **)&entry = dlsym(library, "plugin_entry");
  CHECK(entry != NULL);
  make_family();
  CHECK_EQ(chmod(module_path, 0), 0);
  become_ordinary();
  const mproc_process_options options = {.method = "spawn"};
  CHECK_EQ(start_and_close(&options, entry), MPROC_ENOMODULE);
  CHECK_CONTAINS(mproc_error_detail(), "unreadable.so");
  CHECK_CONTAINS(mproc_error_detail(), "Permission denied");
  check_exited(start_by("fork", entry, NULL, 0), 1);
}

TEST(unreadable_module) {
  if (geteuid() != 0)
    SKIP("root is needed to lose rights");
  module_path = test_tmp_path("unreadable.so");
  copy_file(test_child_path("hostile_plugin.so"), module_path, 0755);
  in_child(spawn_from_unreadable_module);
  CHECK_EQ(unlink(module_path), 0);
}
#endif

/* ---- core dumps ------------------------------------------------------------------------------ */

static int abort_now(void *arg, size_t size) {
  char *block = mproc_heap_alloc(size * MIB);
  (void)arg;
  CHECK(block != NULL);
  memset(block, 1, size * MIB);
  abort();
}

/* A dump of the reserved range would take seconds; the heap is left out of it. */
TEST(abort_with_unlimited_core_is_joined_fast) {
  SKIP_UNDER_VALGRIND("valgrind writes core dumps of its own, with the heap");
  if (UNDER_SANITIZER)
    SKIP("the sanitizer's own memory would be dumped");
  const mproc_limit limit = {
      .resource = MPROC_RESOURCE_CORE, .soft = MPROC_UNLIMITED, .hard = MPROC_UNLIMITED};
  const char word[16] = "";
  struct rlimit core;
  CHECK_EQ(getrlimit(RLIMIT_CORE, &core), 0);
  core.rlim_max = RLIM_INFINITY;
  if (setrlimit(RLIMIT_CORE, &core) < 0)
    SKIP("the hard limit on core dumps cannot be made unlimited");
  uint64_t used = heap_used();
  FOR_ALL_METHODS(method) {
    const mproc_process_options options = {
        .method = method, .limits = &limit, .limit_count = 1, .cwd = test_tmp_path(".")};
    mproc_process *process = start_with(&options, abort_now, word, sizeof word);
    int64_t start = now_ms();
    check_killed(process, SIGABRT);
    CHECK(now_ms() - start < 1000);
    (void)unlink(test_tmp_path("core"));
  }
  mproc_heap_statistics statistics;
  CHECK_EQ(mproc_heap_stats(&statistics), 0);
  CHECK(statistics.used_bytes >= used + 2 * sizeof word * MIB); /* the blocks are the family's */
}
