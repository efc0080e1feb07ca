/* How a child ends: exit handlers, buffered output, its own children. How the main program does. */
#include "each_method.h"
#include "in_child.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/stat.h>
#include <sys/wait.h>

/* ---- exit handlers --------------------------------------------------------------------------- */

typedef struct notes {
  atomic_int entry_handlers; /* digits in the order of the calls */
  atomic_int earlier_handlers;
  atomic_int grandchild_done;
  atomic_int grandchild_pid;
  atomic_int terminated;
  _Atomic int64_t ends_at; /* now_ms() at the end of the entry */
} notes;

static notes *shared;

static notes *new_notes(void) {
  notes *made = mproc_heap_calloc(1, sizeof *made);
  CHECK(made);
  return made;
}

static void handler_one(void) {
  shared->entry_handlers = shared->entry_handlers * 10 + 1;
}

static void handler_two(void) {
  shared->entry_handlers = shared->entry_handlers * 10 + 2;
}

static void earlier_handler(void) {
  if (shared)
    shared->earlier_handlers++;
}

/* In spawned children too: they ran before mproc_init. */
__attribute__((constructor)) static void register_earlier_handler(void) {
  (void)atexit(earlier_handler);
}

static int register_and_return(void *arg, size_t size) {
  CHECK_EQ(size, sizeof shared);
  shared = *(notes **)arg;
  CHECK_EQ(atexit(handler_one), 0);
  CHECK_EQ(atexit(handler_two), 0);
  return 51;
}

static int register_and_exit(void *arg, size_t size) {
  exit(register_and_return(arg, size) + 1);
}

static void check_handlers(const char *method, mproc_entry *entry, int code) {
  notes *seen = new_notes();
  CHECK_EQ(run_child(method, entry, &seen, sizeof seen), code);
  CHECK_EQ(seen->entry_handlers, 21);
  CHECK_EQ(seen->earlier_handlers, 0);
  CHECK_OK(mproc_heap_free(seen));
}

/* What a libc without on_exit cannot give: see docs/design/open-points.md. */
#ifdef __GLIBC__
enum { HAS_ON_EXIT = 1 };
#else
enum { HAS_ON_EXIT = 0 };
#endif

EACH_METHOD(handlers_of_the_entry_run_those_of_the_parent_do_not) {
  CHECK_EQ(atexit(earlier_handler), 0);
  check_handlers(method, register_and_return, 51);
}

EACH_METHOD(so_they_do_after_exit_in_the_entry) {
  if (!HAS_ON_EXIT)
    SKIP("no on_exit: after exit() in an entry all handlers run");
  CHECK_EQ(atexit(earlier_handler), 0);
  check_handlers(method, register_and_exit, 52);
}

static void *exit_from_thread(void *arg) {
  (void)arg;
  exit(53);
}

static int exit_in_a_thread(void *arg, size_t size) {
  pthread_t thread;
  (void)register_and_return(arg, size);
  CHECK_EQ(pthread_create(&thread, NULL, exit_from_thread, NULL), 0);
  return sleep_for_ever(NULL, 0);
}

EACH_METHOD(exit_from_another_thread_of_the_child) {
  if (!HAS_ON_EXIT)
    SKIP("no on_exit: after exit() in an entry all handlers run");
  check_handlers(method, exit_in_a_thread, 53);
}

static void *sit_in_getchar(void *arg) {
  (void)arg;
  return (void *)(intptr_t)getchar();
}

static int return_beside_a_reader(void *arg, size_t size) {
  pthread_t thread;
  (void)arg, (void)size;
  CHECK_EQ(pthread_create(&thread, NULL, sit_in_getchar, NULL), 0);
  sleep_ms(20);
  return 54;
}

EACH_METHOD(child_ends_while_a_thread_of_it_reads) {
  int input[2];
  make_pipe(input);
  mproc_process_options options = {.streams = {{MPROC_STREAM_HANDLE, input[0]}}};
  CHECK_EQ(code_of_child(start_child(method, return_beside_a_reader, NULL, 0, &options)), 54);
  CHECK_EQ(close(input[0]), 0);
  CHECK_EQ(close(input[1]), 0);
}

/* ---- buffered output ------------------------------------------------------------------------- */

static int exit_at_once(void *arg, size_t size) {
  (void)arg, (void)size;
  exit(0);
}

EACH_METHOD(own_stream_of_the_parent_is_written_once) {
  if (!HAS_ON_EXIT && strcmp(method, "fork") == 0)
    SKIP("this libc does not tell which streams there are");
  char text[64];
  const char *path = test_tmp_path("file");
  FILE *file = fopen(path, "we");
  CHECK(file);
  fputs("once\n", file);
  CHECK_EQ(run_child(method, return_zero, NULL, 0), 0);
  CHECK_EQ(run_child(method, exit_at_once, NULL, 0), 0);
  fputs("twice\n", file);
  CHECK_EQ(fclose(file), 0);
  CHECK_STR(read_file(path, text, sizeof text), "once\ntwice\n");
  CHECK_EQ(unlink(path), 0);
}

static const char *method_in_child;

static void print_before_and_after(void) {
  int fd = open(test_tmp_path("output"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(dup2(fd, STDOUT_FILENO), STDOUT_FILENO);
  printf("before ");
  CHECK_EQ(run_child(method_in_child, return_zero, NULL, 0), 0);
  printf("after");
  CHECK_EQ(fflush(stdout), 0);
}

EACH_METHOD(standard_output_of_the_parent_is_written_once) {
  char text[64];
  method_in_child = method;
  in_child(print_before_and_after);
  CHECK_STR(read_file(test_tmp_path("output"), text, sizeof text), "before after");
  CHECK_EQ(unlink(test_tmp_path("output")), 0);
}

static int full_pipe[2];

static void print_into_a_full_pipe(void) {
  char block[4096];
  memset(block, '.', sizeof block);
  CHECK_EQ(fcntl(full_pipe[1], F_SETFL, O_NONBLOCK), 0);
  while (write(full_pipe[1], block, sizeof block) > 0)
    ;
  CHECK_EQ(fcntl(full_pipe[1], F_SETFL, 0), 0);
  CHECK_EQ(dup2(full_pipe[1], STDOUT_FILENO), STDOUT_FILENO);
  printf("waiting");
  CHECK_EQ(run_child(method_in_child, return_zero, NULL, 0), 0); /* does not wait for a reader */
  while (read(full_pipe[0], block, sizeof block) == sizeof block && block[0] == '.' &&
         !is_readable(full_pipe[0]))
    ;
  CHECK_EQ(close(full_pipe[1]), 0);
  CHECK_EQ(fcntl(full_pipe[0], F_SETFL, O_NONBLOCK), 0);
  while (read(full_pipe[0], block, sizeof block) > 0)
    CHECK(memchr(block, 'w', sizeof block) == NULL); /* what the child wrote, had it */
  CHECK_EQ(fflush(stdout), 0);
  CHECK_EQ(read(full_pipe[0], block, sizeof block), 7);
}

EACH_METHOD(start_does_not_wait_for_a_full_pipe) {
  method_in_child = method;
  make_pipe(full_pipe);
  in_child(print_into_a_full_pipe);
  CHECK_EQ(close(full_pipe[0]), 0);
  CHECK_EQ(close(full_pipe[1]), 0);
}

static int write_without_closing(void *arg, size_t size) {
  FILE *file = fopen(arg, "we");
  CHECK(file && size > 0);
  fputs("from the child", file);
  return 0;
}

static int write_and_exit(void *arg, size_t size) {
  exit(write_without_closing(arg, size));
}

EACH_METHOD(own_stream_of_the_child_is_flushed) {
  char text[64];
  mproc_entry *const entries[] = {write_without_closing, write_and_exit};
  const char *path = test_tmp_path("file");
  for (int i = 0; i < 2; i++) {
    CHECK_EQ(run_child(method, entries[i], path, strlen(path) + 1), 0);
    CHECK_STR(read_file(path, text, sizeof text), "from the child");
    CHECK_EQ(unlink(path), 0);
  }
}

/* ---- children of a child that ends ----------------------------------------------------------- */

static int end_late(void *arg, size_t size) {
  notes *seen = *(notes **)arg;
  CHECK_EQ(size, sizeof seen);
  sleep_ms(150);
  seen->grandchild_done = 1;
  return 0;
}

static int leave_a_child(void *arg, size_t size) {
  CHECK(start_child("fork", end_late, arg, size, NULL));
  return 55;
}

static int leave_a_spawned_child(void *arg, size_t size) {
  CHECK(start_child("spawn", end_late, arg, size, NULL));
  exit(55);
}

EACH_METHOD(children_of_a_child_are_joined_at_its_end) {
  mproc_entry *const entries[] = {leave_a_child, leave_a_spawned_child};
  for (int i = 0; i < 2; i++) {
    notes *seen = new_notes();
    CHECK_EQ(run_child(method, entries[i], &seen, sizeof seen), 55);
    CHECK_EQ(seen->grandchild_done, 1);
    CHECK_OK(mproc_heap_free(seen));
  }
}

static notes *terminated_notes;

static void on_terminate(int number) {
  (void)number;
  terminated_notes->terminated = 1;
  _exit(0);
}

static int wait_for_terminate(void *arg, size_t size) {
  CHECK_EQ(size, sizeof terminated_notes);
  terminated_notes = *(notes **)arg;
  CHECK(signal(SIGTERM, on_terminate) != SIG_ERR);
  terminated_notes->grandchild_pid = getpid();
  return sleep_for_ever(NULL, 0);
}

static int ignore_terminate(void *arg, size_t size) {
  notes *seen = *(notes **)arg;
  CHECK_EQ(size, sizeof seen);
  CHECK(signal(SIGTERM, SIG_IGN) != SIG_ERR);
  seen->grandchild_pid = getpid();
  return sleep_for_ever(NULL, 0);
}

static int leave_daemon(mproc_entry *entry, void *arg, size_t size) {
  notes *seen = *(notes **)arg;
  mproc_process_options options = {.daemon = 1};
  CHECK(start_child("fork", entry, arg, size, &options));
  AWAIT(seen->grandchild_pid != 0);
  return 56;
}

static int leave_a_daemon(void *arg, size_t size) {
  return leave_daemon(wait_for_terminate, arg, size);
}

static int leave_a_deaf_daemon(void *arg, size_t size) {
  return leave_daemon(ignore_terminate, arg, size);
}

static notes *end_with_daemon(const char *method, mproc_entry *entry) {
  notes *seen = new_notes();
  CHECK_EQ(run_child(method, entry, &seen, sizeof seen), 56);
  CHECK_EQ(kill(seen->grandchild_pid, 0), -1);
  CHECK_EQ(errno, ESRCH);
  return seen;
}

EACH_METHOD(daemon_children_are_terminated_at_its_end) {
  notes *seen = end_with_daemon(method, leave_a_daemon);
  CHECK_EQ(seen->terminated, 1);
  CHECK_OK(mproc_heap_free(seen));
}

EACH_METHOD(daemon_that_ignores_it_is_killed) {
  CHECK_OK(mproc_heap_free(end_with_daemon(method, leave_a_deaf_daemon)));
}

enum { DEAF_DAEMONS = 5, GRACE_MS = 1000 };

static int leave_deaf_daemons(void *arg, size_t size) {
  notes *seen = *(notes **)arg;
  mproc_process_options options = {.daemon = 1};
  for (int i = 0; i < DEAF_DAEMONS; i++) {
    seen->grandchild_pid = 0;
    CHECK(start_child("fork", ignore_terminate, arg, size, &options));
    AWAIT(seen->grandchild_pid != 0);
  }
  seen->ends_at = now_ms();
  return 56;
}

/* Each with a grace of its own, the end would take five times as long. */
EACH_METHOD(daemons_that_ignore_it_share_one_grace) {
  notes *seen = end_with_daemon(method, leave_deaf_daemons);
  int64_t took = now_ms() - seen->ends_at;
  CHECK(took >= GRACE_MS);
  CHECK(took < (DEAF_DAEMONS - 1) * GRACE_MS);
  CHECK_OK(mproc_heap_free(seen));
}

/* ---- the main program ------------------------------------------------------------------------ */

static const char *output_of_main(const char *method, const char *how) {
  static char text[1024];
  int code = -1;
  CHECK_OK(try_command(COMMAND(test_child_path("exit_main"), method, how), NULL, &code, text,
                       sizeof text));
  CHECK_EQ(code, 5);
  return text;
}

static void check_end_of_main(const char *text) {
  CHECK_EQ(strncmp(text, "main ends\n", 10), 0);
  CHECK_CONTAINS(text, "daemon terminated\n"); /* in any order */
  CHECK_CONTAINS(text, "child done\n");
}

EACH_METHOD(children_of_the_main_program_are_joined_at_exit) {
  check_end_of_main(output_of_main(method, "return"));
  check_end_of_main(output_of_main(method, "exit"));
}

/* ---- strangers ------------------------------------------------------------------------------- */

static int status_of_foreign_exit(int code) {
  pid_t pid = fork();
  CHECK(pid >= 0);
  if (pid == 0)
    exit(code);
  return status_of(pid);
}

static void leave_all_to_their_parent(void) {
  mproc_process_options daemon = {.daemon = 1};
  mproc_process *child = start_child(method_in_child, sleep_for_ever, NULL, 0, NULL);
  mproc_process *other = start_child(method_in_child, sleep_for_ever, NULL, 0, &daemon);
  int64_t start = now_ms();
  int status = status_of_foreign_exit(57);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 57);
  CHECK(now_ms() - start < 3000);
  CHECK_EQ(mproc_process_is_alive(child), 1);
  CHECK_EQ(mproc_process_is_alive(other), 1);
  kill_child(child);
  kill_child(other);
}

/* In a process of its own: root's has a guardian, and a channel to it. */
EACH_METHOD(foreign_child_joins_and_ends_nothing) {
  method_in_child = method;
  in_child(leave_all_to_their_parent);
}

static int fork_by_itself(void *arg, size_t size) {
  (void)arg, (void)size;
  mproc_process *child = start_child("fork", sleep_for_ever, NULL, 0, NULL);
  int status = status_of_foreign_exit(58);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 58);
  CHECK_EQ(mproc_process_is_alive(child), 1);
  kill_child(child);
  return 59;
}

EACH_METHOD(foreign_child_of_a_child) {
  CHECK_EQ(run_child(method, fork_by_itself, NULL, 0), 59);
}

static void be_foreign(void) {
  mproc_process_info info;
  mproc_handle handle;
  CHECK(mproc_heap_alloc(1) == NULL);
  CHECK_EQ(mproc_last_error(), MPROC_EFOREIGN);
  CHECK_EQ(mproc_run(return_zero, NULL, 0), MPROC_EFOREIGN);
  CHECK_CONTAINS(mproc_error_detail(), "fork()");
  CHECK_EQ(mproc_parent_process(&info), MPROC_EFOREIGN);
  CHECK_EQ(mproc_parent_is_alive(), MPROC_EFOREIGN);
  CHECK_EQ(mproc_parent_sentinel(&handle), MPROC_EFOREIGN);
}

EACH_METHOD(foreign_child_is_told_so) {
  CHECK_OK(mproc_set_start_method(method, 0));
  CHECK_EQ(mproc_run(return_zero, NULL, 0), 0);
  in_child(be_foreign);
}
