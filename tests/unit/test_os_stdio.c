/* Streams around a fork: flushed where nobody waits, dropped in the child, whole in both. */
#include "in_child.h"

#include "os/os.h"

#include <mproc/mproc.h>

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio_ext.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

/* Each case moves its own standard streams; output of the harness goes through the old ones. */
static int saved_stdout, saved_stdin;

static void redirect_stdout(int fd) {
  fflush(stdout);
  saved_stdout = fcntl(1, F_DUPFD_CLOEXEC, 3);
  CHECK_EQ(dup2(fd, 1), 1);
}

static void restore_stdout(void) {
  CHECK_EQ(dup2(saved_stdout, 1), 1);
  close(saved_stdout);
}

static int64_t size_of(const char *path) {
  struct stat st;
  return stat(path, &st) == 0 ? (int64_t)st.st_size : -1;
}

static int open_file(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_APPEND, 0600);
  CHECK(fd >= 0);
  return fd;
}

static void buffer_fully(FILE *stream) {
  CHECK_EQ(setvbuf(stream, NULL, _IOFBF, 65536), 0);
}

TEST(flush_writes_what_is_pending) {
  const char *path = test_tmp_path("out");
  int fd = open_file(path);
  buffer_fully(stdout);
  redirect_stdout(fd);
  printf("hello");
  mpx_os_stdio_flush();
  restore_stdout();
  CHECK_EQ(size_of(path), 5);
  close(fd);
  unlink(path);
}

static void *sit_in_getchar(void *unused) {
  (void)getchar();
  return unused;
}

TEST(flush_does_not_wait_for_a_thread_in_getchar) {
  int ends[2];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  saved_stdin = fcntl(0, F_DUPFD_CLOEXEC, 3);
  CHECK_EQ(dup2(ends[0], 0), 0);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, sit_in_getchar, NULL), 0);
  while (ftrylockfile(stdin) == 0) { /* until it sits there */
    funlockfile(stdin);
    mpx_os_sleep(MPX_NS_PER_MS);
  }
  int64_t start = mpx_os_now();
  mpx_os_stdio_flush();
  mpx_os_stdio_finish();
  CHECK(mpx_os_now() - start < 1000 * MPX_NS_PER_MS);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(dup2(saved_stdin, 0), 0);
  close(saved_stdin);
  close(ends[0]);
  close(ends[1]);
}

static void *hold_stdout(void *fd) {
  flockfile(stdout);
  char byte;
  if (read(*(int *)fd, &byte, 1) != 1)
    abort();
  funlockfile(stdout);
  return NULL;
}

TEST(flush_does_not_wait_for_a_lock) {
  int ends[2];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, hold_stdout, &ends[0]), 0);
  while (ftrylockfile(stdout) == 0) {
    funlockfile(stdout);
    mpx_os_sleep(MPX_NS_PER_MS);
  }
  mpx_os_stdio_flush();
  mpx_os_stdio_finish();
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  close(ends[0]);
  close(ends[1]);
}

TEST(flush_does_not_wait_for_a_reader) {
  int ends[2];
  char block[4096] = {0};
  CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  while (write(ends[1], block, sizeof block) > 0)
    continue;
  CHECK_EQ(fcntl(ends[1], F_SETFL, 0), 0);
  buffer_fully(stdout);
  redirect_stdout(ends[1]);
  printf("kept");
  mpx_os_stdio_flush();
  CHECK_EQ(__fpending(stdout), 4);
  while (read(ends[0], block, sizeof block) > 0)
    continue;
  mpx_os_stdio_flush();
  CHECK_EQ(__fpending(stdout), 0);
  CHECK_EQ(read(ends[0], block, sizeof block), 4);
  restore_stdout();
  close(ends[0]);
  close(ends[1]);
}

/* ---- pipes with little room ------------------------------------------------------------------ */

/* A buffer of ours: libc's own may be small, and is written when it is full. */
static void buffer_much(void) {
  static char buffer[65536];
  CHECK_EQ(setvbuf(stdout, buffer, _IOFBF, sizeof buffer), 0);
}

static void print_bytes(int count) {
  for (int i = 0; i < count; i++)
    putchar('k');
}

static int held_by(int end) {
  int held;
  CHECK_EQ(ioctl(end, FIONREAD, &held), 0);
  return held;
}

static bool is_writable(int end) {
  struct pollfd item = {.fd = end, .events = POLLOUT};
  return poll(&item, 1, 0) == 1;
}

/* A pipe that is full, or has just so much room that it counts as writable; returns how many bytes
 * are in it. */
static int make_full_pipe(int ends[2], bool has_room) {
  static char block[PIPE_BUF];
  CHECK_EQ(pipe2(ends, O_CLOEXEC | O_NONBLOCK), 0);
  while (write(ends[1], block, sizeof block) > 0)
    continue;
  while (has_room && !is_writable(ends[1]))
    CHECK_EQ(read(ends[0], block, sizeof block), sizeof block);
  CHECK_EQ(fcntl(ends[1], F_SETFL, 0), 0); /* a write without room waits for ever */
  return held_by(ends[0]);
}

static void close_pipe(const int ends[2]) {
  __fpurge(stdout);
  restore_stdout();
  close(ends[0]);
  close(ends[1]);
}

/* It is writable, says poll, when as little as one page is free. */
TEST(flush_writes_no_more_than_is_sure_to_fit) {
  int ends[2];
  int held = make_full_pipe(ends, true);
  buffer_much();
  redirect_stdout(ends[1]);
  print_bytes(PIPE_BUF + 1);
  mpx_os_stdio_flush();
  CHECK_EQ(__fpending(stdout), PIPE_BUF + 1);
  CHECK_EQ(held_by(ends[0]), held);
  __fpurge(stdout);
  print_bytes(PIPE_BUF);
  mpx_os_stdio_flush();
  CHECK_EQ(__fpending(stdout), 0);
  CHECK_EQ(held_by(ends[0]), held + PIPE_BUF);
  close_pipe(ends);
}

TEST(flush_writes_much_where_nobody_waits) {
  int fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  buffer_much();
  redirect_stdout(fd);
  print_bytes(PIPE_BUF + 1);
  mpx_os_stdio_flush();
  CHECK_EQ(__fpending(stdout), 0);
  restore_stdout();
  close(fd);
}

static int say_nothing(void *arg, size_t size) {
  (void)arg, (void)size;
  return (int)__fpending(stdout);
}

/* What could not be written is the parent's to write, and the child has none of it. */
static void check_start_beside_a_full_pipe(bool has_room, int pending) {
  int ends[2];
  const mproc_process_options options = {.method = "fork"};
  mproc_process *process;
  mproc_status status;
  int held = make_full_pipe(ends, has_room);
  buffer_much();
  redirect_stdout(ends[1]);
  print_bytes(pending);
  CHECK_OK(mproc_process_create(&process, say_nothing, NULL, 0, &options));
  CHECK_OK(mproc_process_start(process));
  CHECK_OK(mproc_process_join(process, MPROC_FOREVER));
  CHECK_OK(mproc_process_status(process, &status));
  CHECK_OK(mproc_process_close(process));
  CHECK(status.state == MPROC_STATE_EXITED && status.code == 0);
  CHECK_EQ(__fpending(stdout), pending);
  CHECK_EQ(held_by(ends[0]), held);
  close_pipe(ends);
}

TEST(start_by_fork_does_not_write_to_a_full_pipe) {
  check_start_beside_a_full_pipe(false, 4);
  check_start_beside_a_full_pipe(true, PIPE_BUF + 1);
}

TEST(flush_survives_a_reader_that_is_gone) {
  int ends[2];
  CHECK_EQ(pipe2(ends, O_CLOEXEC), 0);
  close(ends[0]);
  buffer_fully(stdout);
  redirect_stdout(ends[1]);
  printf("nobody reads this");
  mpx_os_stdio_flush(); /* no SIGPIPE */
  __fpurge(stdout);
  restore_stdout();
  close(ends[1]);
}

/* ---- in a forked child ----------------------------------------------------------------------- */

static FILE *text, *notes, *memory;
static char *memory_bytes;
static size_t memory_size;

static void child_drops_and_writes(void) {
  mpx_os_stdio_drop();
  printf("child\n");
  fprintf(notes, "child note\n");
  char line[64];
  CHECK(fgets(line, sizeof line, text)); /* what the parent had read ahead is still there */
  CHECK_STR(line, "two\n");
  fputs("+child", memory);
  mpx_os_stdio_finish();
  fflush(memory); /* finish sees it with glibc only */
  CHECK_STR(memory_bytes, "parent+child");
}

TEST(a_child_drops_what_the_parent_has_not_written) {
  const char *out_path = test_tmp_path("out"), *notes_path = test_tmp_path("notes");
  const char *text_path = test_tmp_path("text");
  int fd = open_file(out_path);
  FILE *stream = fopen(text_path, "we");
  fputs("one\ntwo\nthree\n", stream);
  fclose(stream);
  text = fopen(text_path, "re");
  char line[64];
  CHECK(fgets(line, sizeof line, text));
  notes = fopen(notes_path, "ae");
  buffer_fully(notes);
  memory = open_memstream(&memory_bytes, &memory_size);
  fputs("parent", memory);

  buffer_fully(stdout);
  redirect_stdout(fd);
  printf("parent\n");
  fprintf(notes, "parent note\n");
  pid_t pid = fork();
  if (pid == 0) {
    child_drops_and_writes();
    _exit(0);
  }
  int status;
  pid_t reaped = waitpid(pid, &status, 0);
  fflush(stdout);
  restore_stdout();
  CHECK(reaped == pid && status == 0);
  CHECK_EQ(size_of(out_path), 13);
  fclose(notes);
#ifdef __GLIBC__
  CHECK_EQ(size_of(notes_path), 23);
#endif
  fclose(text);
  fclose(memory);
  free(memory_bytes);
  close(fd);
  unlink(out_path);
  unlink(notes_path);
  unlink(text_path);
}

/* ---- the end --------------------------------------------------------------------------------- */

static void last(int code) {
  _exit(code == 7 ? 42 : 1);
}

static void must_not_run(void) {
  _exit(2);
}

static int ran;

static void must_run(void) {
  ran = 1;
}

static void last_after_those(int code) {
  _exit(code == 9 && ran ? 43 : 1);
}

static void exit_through_barrier(void) {
  atexit(must_not_run);
  if (mpx_os_at_exit_barrier(last) == -ENOSYS)
    _exit(77);
  exit(7);
}

static void exit_with_later_handler(void) {
  atexit(must_not_run);
  if (mpx_os_at_exit_barrier(last_after_those) == -ENOSYS)
    _exit(77);
  atexit(must_run);
  exit(9);
}

TEST(the_barrier_stops_older_exit_handlers) {
  int status = status_of_child(exit_through_barrier);
  if (WEXITSTATUS(status) == 77)
    SKIP("the C library does not tell the exit code");
  CHECK_EQ(WEXITSTATUS(status), 42);
  CHECK_EQ(WEXITSTATUS(status_of_child(exit_with_later_handler)), 43);
}

static void close_standard_streams(void) {
  close(0);
  close(1);
  mpx_os_stdio_ensure();
  CHECK(mpx_os_handle_is_open(0) && mpx_os_handle_is_open(1));
  CHECK_EQ(fcntl(0, F_GETFD), 0);
  char byte;
  CHECK_EQ(read(0, &byte, 1), 0);
  CHECK_EQ(write(1, "x", 1), 1);
  mproc_handle ends[2];
  CHECK_OK(mpx_os_pipe(ends));
  CHECK(ends[0] > 2 && ends[1] > 2);
}

TEST(closed_standard_streams_are_filled) {
  in_child(close_standard_streams);
}
