/* Pipe: messages and descriptors from end to end, and the end of an end. */
#include "harness.h"
#include "in_child.h"
#include "methods.h"
#include "processes.h"
#include "soft_limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/un.h>

enum { SOON_MS = 5000 };

typedef struct board {
  mproc_connection *first, *second;
  _Atomic int ready, go;
} board;

static board *new_board(const mproc_pipe_options *options) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_pipe_create(options, &b->first, &b->second), 0);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_connection_close(b->second), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void check_recv(mproc_connection *connection, const char *wanted) {
  char text[64];
  size_t size = 99;
  CHECK_EQ(mproc_connection_recv_into(connection, text, sizeof text - 1, &size, SOON_MS), 0);
  text[size] = '\0';
  CHECK_STR(text, wanted);
}

/* ---- messages -------------------------------------------------------------------------------- */

TEST(both_ways) {
  board *b = new_board(NULL);
  CHECK_EQ(mproc_connection_poll(b->first, 0), 0);
  CHECK_EQ(mproc_connection_poll(b->first, 10), 0);
  CHECK_EQ(mproc_connection_send(b->first, "one", 3, 0), 0);
  CHECK_EQ(mproc_connection_send(b->first, "two", 3, 0), 0);
  CHECK_EQ(mproc_connection_send(b->second, "back", 4, 0), 0);
  CHECK_EQ(mproc_connection_poll(b->second, 0), 1);
  check_recv(b->second, "one");
  check_recv(b->second, "two");
  check_recv(b->first, "back");
  CHECK_EQ(mproc_connection_poll(b->second, 0), 0);
  free_board(b);
}

TEST(sizes) {
  static const size_t sizes[] = {0, 1, 112, 113, 5000, 300000};
  board *b = new_board(NULL);
  char *data = malloc(300000), *small = malloc(10);
  memset(data, 'x', 300000);
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
    void *block = data;
    size_t size = 1;
    data[sizes[i] ? sizes[i] - 1 : 0] = 'y';
    CHECK_EQ(mproc_connection_send(b->first, data, sizes[i], 0), 0);
    if (sizes[i] > 10) {
      CHECK_EQ(mproc_connection_recv_into(b->second, small, 10, &size, 0), -EMSGSIZE);
      CHECK_EQ(size, sizes[i]);
    }
    CHECK_EQ(mproc_connection_recv(b->second, &block, &size, 0), 0);
    CHECK_EQ(size, sizes[i]);
    CHECK_EQ(block == NULL, size == 0);
    if (size) {
      CHECK_EQ(memcmp(block, data, size), 0);
      CHECK_EQ(mproc_heap_free(block), 0);
      data[size - 1] = 'x';
    }
  }
  free(data);
  free(small);
  free_board(b);
}

TEST(simplex) {
  const mproc_pipe_options options = {.simplex = 1};
  board *b = new_board(&options);
  char text[4];
  void *block;
  size_t size;
  mproc_handle handle;
  CHECK_EQ(mproc_connection_send(b->second, "a", 1, 0), 0);
  check_recv(b->first, "a");
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), -EBADF);
  CHECK_CONTAINS(mproc_error_detail(), "only receives");
  CHECK_EQ(mproc_connection_recv_into(b->second, text, 4, NULL, 0), -EBADF);
  CHECK_CONTAINS(mproc_error_detail(), "only sends");
  CHECK_EQ(mproc_connection_recv(b->second, &block, &size, 0), -EBADF);
  CHECK_EQ(mproc_connection_poll(b->second, 0), -EBADF);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, 0), -EBADF);
  CHECK_EQ(mproc_connection_recv_handle(b->second, &handle, 0), -EBADF);
  mproc_wait_item item = {.kind = MPROC_WAIT_CONNECTION, .object = b->second};
  CHECK_EQ(mproc_wait(&item, 1, 1, 0), -EBADF);
  free_board(b);
}

TEST(full) {
  const mproc_pipe_options options = {.capacity = 4};
  board *b = new_board(&options);
  int64_t begin = now_ms();
  for (int i = 0; i < 4; i++)
    CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), 0);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), -EAGAIN);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 130), -ETIMEDOUT);
  CHECK_CONTAINS(mproc_error_detail(), "within 130 ms");
  CHECK(now_ms() - begin >= 130);
  check_recv(b->second, "a");
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), 0);
  free_board(b);
}

static int echo(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (;;) {
    void *block;
    size_t length;
    int r = mproc_connection_recv(b->second, &block, &length, MPROC_FOREVER);
    if (r == MPROC_ECLOSED)
      return 0;
    CHECK_EQ(r, 0);
    CHECK_EQ(mproc_connection_send(b->second, block, length, SOON_MS), 0);
    CHECK_EQ(mproc_heap_free(block), 0);
  }
}

EACH_METHOD(echo_from_another_process) {
  board *b = new_board(NULL);
  mproc_process *process = start_by(method, echo, &b, sizeof b);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
  for (int i = 0; i < 200; i++) {
    char text[32];
    snprintf(text, sizeof text, "message %d", i);
    CHECK_EQ(mproc_connection_send(b->first, text, strlen(text), SOON_MS), 0);
    check_recv(b->first, text);
  }
  CHECK_EQ(mproc_connection_close(b->first), 0);
  check_exited(process, 0);
  CHECK_EQ(mproc_connection_close(b->second), 0); /* it has not done so itself */
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- the end --------------------------------------------------------------------------------- */

TEST(closed_end) {
  board *b = new_board(NULL);
  char text[4];
  CHECK_EQ(mproc_connection_send(b->first, "last", 4, 0), 0);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_connection_close(b->first), MPROC_ECLOSED);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_connection_send(b->second, "a", 1, 0), MPROC_ECLOSED);
  CHECK_CONTAINS(mproc_error_detail(), "other end");
  CHECK_EQ(mproc_connection_poll(b->second, 0), 1);
  check_recv(b->second, "last");
  CHECK_EQ(mproc_connection_poll(b->second, 0), 1);
  CHECK_EQ(mproc_connection_recv_into(b->second, text, 4, NULL, MPROC_FOREVER), MPROC_ECLOSED);
  CHECK_CONTAINS(mproc_error_detail(), "other end");
  CHECK_EQ(mproc_connection_close(b->second), 0);
  CHECK_EQ(mproc_connection_close(NULL), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int send_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(mproc_connection_send(b->second, "will", 4, 0), 0);
  AWAIT(b->go);
  raise(SIGKILL);
  return 0;
}

EACH_METHOD(killed_process_at_the_other_end) {
  board *b = new_board(NULL);
  char text[4];
  mproc_process *process = start_by(method, send_and_die, &b, sizeof b);
  AWAIT(mproc_connection_poll(b->first, 0) == 1);
  b->go = 1;
  check_recv(b->first, "will");
  CHECK_EQ(mproc_connection_recv_into(b->first, text, 4, NULL, SOON_MS), MPROC_ECLOSED);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, SOON_MS), MPROC_ECLOSED);
  check_killed(process, SIGKILL);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_connection_close(b->second), MPROC_ECLOSED);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* Who only sends is told as well, though there is room. */
EACH_METHOD(killed_process_at_the_end_of_a_sender) {
  board *b = new_board(NULL);
  mproc_process *process = start_by(method, sleep_for_long, NULL, 0);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), 0);
  kill_child(process);
  sleep_ms(100);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* It never touched its end: it was given to it. */
EACH_METHOD(process_that_ends_before_it_uses_its_end) {
  board *b = new_board(NULL);
  char text[4];
  mproc_process *process = start_by(method, sleep_for_long, NULL, 0);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
  CHECK_EQ(mproc_process_kill(process), 0);
  CHECK_EQ(mproc_connection_recv_into(b->first, text, 4, NULL, SOON_MS), MPROC_ECLOSED);
  check_killed(process, SIGKILL);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST(giving_to_nobody) {
  board *b = new_board(NULL);
  CHECK_EQ(mproc_connection_give(b->second, 1), -ESRCH);
  CHECK_EQ(mproc_connection_give(b->second, 0), -ESRCH);
  CHECK_EQ(mproc_connection_give(b->second, -1), -ESRCH);
  CHECK_EQ(mproc_connection_give(b->second, getpid()), 0);
  free_board(b);
}

/* Full as well: the sender is not left waiting. */
static int close_late(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  AWAIT(b->ready);
  sleep_ms(100);
  CHECK_EQ(mproc_connection_close(b->second), 0);
  return 0;
}

EACH_METHOD(sender_waits_when_the_other_end_is_closed) {
  const mproc_pipe_options options = {.capacity = 2};
  board *b = new_board(&options);
  mproc_process *process = start_by(method, close_late, &b, sizeof b);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), 0);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), 0);
  b->ready = 1;
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, MPROC_FOREVER), MPROC_ECLOSED);
  check_exited(process, 0);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void *recv_in_thread(void *arg) {
  char text[8];
  CHECK_EQ(mproc_connection_recv_into(arg, text, sizeof text, NULL, MPROC_FOREVER), 0);
  return NULL;
}

TEST(closing_while_a_thread_waits_in_it) {
  board *b = new_board(NULL);
  pthread_t thread;
  CHECK_EQ(pthread_create(&thread, NULL, recv_in_thread, b->second), 0);
  sleep_ms(100);
  CHECK_EQ(mproc_connection_close(b->second), -EBUSY);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  free_board(b);
}

/* Both ends at once, from two processes: the memory comes back exactly once. */
static int close_when_told(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->ready = 1;
  AWAIT(b->go);
  CHECK_EQ(mproc_connection_close(b->second), 0);
  return 0;
}

TEST(both_close_at_once) {
  for (int i = 0; i < test_scale(100); i++) {
    board *b = new_board(NULL);
    mproc_process *process = start_by("fork", close_when_told, &b, sizeof b);
    CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
    AWAIT(b->ready);
    b->go = 1;
    CHECK_EQ(mproc_connection_close(b->first), 0);
    check_exited(process, 0);
    CHECK_EQ(mproc_heap_free(b), 0);
  }
}

/* ---- descriptors ----------------------------------------------------------------------------- */

static void skip_without_handover(board *b) {
  mproc_handle handle;
  int r = mproc_connection_recv_handle(b->first, &handle, 0);
  if (r == -ENOSYS)
    SKIP("descriptors cannot be handed over on this system");
  CHECK_EQ(r, -EAGAIN);
}

static int send_pipe_end(void *arg, size_t size) {
  board *b = *(board **)arg;
  int ends[2];
  (void)size;
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(mproc_connection_send_handle(b->second, ends[0], SOON_MS), 0);
  CHECK_EQ(write(ends[1], "hello", 5), 5);
  return 0;
}

EACH_METHOD(descriptor_from_another_process) {
  board *b = new_board(NULL);
  mproc_handle handle = -1;
  char text[8] = "";
  skip_without_handover(b);
  mproc_process *process = start_by(method, send_pipe_end, &b, sizeof b);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
  CHECK_EQ(mproc_connection_recv_handle(b->first, &handle, SOON_MS), 0);
  CHECK(fcntl((int)handle, F_GETFD) & FD_CLOEXEC);
  CHECK_EQ(read((int)handle, text, sizeof text), 5);
  CHECK_STR(text, "hello");
  CHECK_EQ(read((int)handle, text, sizeof text), 0); /* nobody else has the other end */
  CHECK_EQ(close((int)handle), 0);
  check_exited(process, 0);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int recv_and_check(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (int i = 0; i < 50; i++) {
    mproc_handle handle;
    char text[8] = "";
    CHECK_EQ(mproc_connection_recv_handle(b->second, &handle, SOON_MS), 0);
    CHECK_EQ(pread((int)handle, text, 4, 0), 4);
    CHECK_EQ(atoi(text), i + 1000);
    CHECK_EQ(close((int)handle), 0);
    b->ready = i + 1;
  }
  return 0;
}

EACH_METHOD(many_descriptors) {
  board *b = new_board(NULL);
  char path[] = "/tmp/test_pipe.XXXXXX";
  int fd = mkstemp(path);
  CHECK(fd >= 0);
  CHECK_EQ(unlink(path), 0);
  skip_without_handover(b);
  mproc_process *process = start_by(method, recv_and_check, &b, sizeof b);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
  for (int i = 0; i < 50; i++) {
    char text[16];
    snprintf(text, sizeof text, "%d", i + 1000);
    CHECK_EQ(pwrite(fd, text, 4, 0), 4);
    CHECK_EQ(mproc_connection_send_handle(b->first, fd, SOON_MS), 0);
    AWAIT(b->ready == i + 1); /* it reads the file before we write the next number */
  }
  check_exited(process, 0);
  CHECK_EQ(close(fd), 0);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

TEST(descriptor_that_nobody_wants) {
  board *b = new_board(NULL);
  mproc_handle handle;
  skip_without_handover(b);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, 0), -EAGAIN);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, 120), -ETIMEDOUT);
  CHECK_EQ(mproc_connection_recv_handle(b->first, &handle, 120), -ETIMEDOUT);
  CHECK_EQ(mproc_connection_send_handle(b->first, 999, 0), -EBADF);
  CHECK_CONTAINS(mproc_error_detail(), "999");
  CHECK_EQ(mproc_connection_recv_handle(b->first, NULL, 0), -EINVAL);
  free_board(b);
}

static int recv_until_killed(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_handle handle;
  (void)size;
  b->ready++;
  CHECK_EQ(mproc_connection_recv_handle(b->second, &handle, MPROC_FOREVER), 0);
  return 0;
}

/* Its mailbox is still written down; the next one gets it. */
EACH_METHOD(receiver_that_was_killed) {
  board *b = new_board(NULL);
  skip_without_handover(b);
  mproc_process *dead = start_by(method, recv_until_killed, &b, sizeof b);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(dead)), 0);
  AWAIT(b->ready);
  sleep_ms(50);
  CHECK_EQ(mproc_process_kill(dead), 0);
  check_killed(dead, SIGKILL);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, SOON_MS), MPROC_ECLOSED);
  mproc_process *next = start_by(method, recv_until_killed, &b, sizeof b);
  AWAIT(b->ready == 2);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(next)), 0);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, SOON_MS), 0);
  check_exited(next, 0);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static int have_no_room(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_handle handle;
  int fds[64], count = 0;
  (void)size;
  (void)set_soft_limit(RLIMIT_NOFILE, 64);
  while (count < 64 && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
    count++;
  for (int i = 0; i < 2; i++) /* the mailbox and the channel */
    close(fds[--count]);
  CHECK_EQ(mproc_connection_recv_handle(b->second, &handle, SOON_MS), -EMFILE);
  while (count > 0)
    close(fds[--count]);
  b->ready = 1;
  CHECK_EQ(mproc_connection_recv_handle(b->second, &handle, SOON_MS), 0);
  return 0;
}

/* What the receiver had no room for is not lost, but handed over when it asks again. */
TEST(receiver_without_room) {
  SKIP_UNDER_VALGRIND("its limit of descriptors does not count those that come in a message");
  board *b = new_board(NULL);
  skip_without_handover(b);
  mproc_process *process = start_by("fork", have_no_room, &b, sizeof b);
  CHECK_EQ(mproc_connection_give(b->second, mproc_process_pid(process)), 0);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, SOON_MS), 0);
  CHECK_EQ(b->ready, 1);
  check_exited(process, 0);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- handing over in bad company ------------------------------------------------------------- */

static int fill_descriptors(int *fds, int most) {
  int count = 0;
  (void)set_soft_limit(RLIMIT_NOFILE, (rlim_t)most);
  while (count < most && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
    count++;
  return count;
}

/* Which is no reason to say that this system cannot do it. */
TEST(no_descriptor_for_a_mailbox) {
  board *b = new_board(NULL);
  mproc_handle handle;
  int fds[64];
  skip_without_handover(b);
  int count = fill_descriptors(fds, 64);
  CHECK_EQ(mproc_connection_recv_handle(b->first, &handle, 0), -EMFILE);
  while (count > 0)
    close(fds[--count]);
  free_board(b);
}

static int lend_null(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  CHECK(fd >= 0);
  CHECK_EQ(mproc_connection_send_handle(b->second, fd, SOON_MS), 0);
  return 0;
}

/* Or what the host prints would go into what it got. */
TEST(received_above_the_streams) {
  board *b = new_board(NULL);
  mproc_handle handle;
  skip_without_handover(b);
  mproc_process *process = start_by("fork", lend_null, &b, sizeof b);
  int saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 10);
  CHECK_EQ(close(STDIN_FILENO), 0);
  CHECK_EQ(mproc_connection_recv_handle(b->first, &handle, SOON_MS), 0);
  CHECK(handle > STDERR_FILENO);
  CHECK_EQ(close((int)handle), 0);
  CHECK_EQ(dup2(saved, STDIN_FILENO), STDIN_FILENO);
  CHECK_EQ(close(saved), 0);
  check_exited(process, 0);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_connection_close(b->second), MPROC_ECLOSED);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* Connects to each mailbox of the system that it sees, all the time. */
static void molest_mailboxes(void) {
  for (;;) {
    char line[512];
    FILE *sockets = fopen("/proc/net/unix", "re");
    while (sockets && fgets(line, sizeof line, sockets)) {
      char *name = strstr(line, "@mproc-mail-");
      if (!name)
        continue;
      struct sockaddr_un address = {.sun_family = AF_UNIX};
      size_t length = strcspn(name + 1, "\n");
      memcpy(address.sun_path + 1, name + 1, length);
      socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + length);
      for (int i = 0; i < 2000; i++) {
        int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        (void)!connect(fd, (struct sockaddr *)&address, size);
        close(fd);
      }
    }
    if (sockets)
      fclose(sockets);
  }
}

TEST(strangers_do_not_stretch_the_time) {
  enum { MOLESTERS = 3 };
  board *b = new_board(NULL);
  mproc_handle handle;
  pid_t strangers[MOLESTERS];
  skip_without_handover(b);
  for (int i = 0; i < MOLESTERS; i++)
    strangers[i] = fork_child(molest_mailboxes);
  int64_t begin = now_ms();
  CHECK_EQ(mproc_connection_recv_handle(b->first, &handle, 500), -ETIMEDOUT);
  CHECK(now_ms() - begin < 2000 || test_under_valgrind() || UNDER_SANITIZER);
  mproc_process *process = start_by("fork", lend_null, &b, sizeof b);
  CHECK_EQ(mproc_connection_recv_handle(b->first, &handle, SOON_MS), 0);
  CHECK_EQ(close((int)handle), 0);
  check_exited(process, 0);
  for (int i = 0; i < MOLESTERS; i++) {
    CHECK_EQ(kill(strangers[i], SIGKILL), 0);
    (void)status_of(strangers[i]);
  }
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static void *recv_handle_in_thread(void *arg) {
  mproc_handle handle;
  board *b = arg;
  b->ready = 1;
  CHECK_EQ(mproc_connection_recv_handle(b->second, &handle, SOON_MS), 0);
  CHECK_EQ(close((int)handle), 0);
  return NULL;
}

TEST(closing_while_a_thread_waits_for_a_descriptor) {
  board *b = new_board(NULL);
  pthread_t thread;
  skip_without_handover(b);
  CHECK_EQ(pthread_create(&thread, NULL, recv_handle_in_thread, b), 0);
  AWAIT(b->ready);
  sleep_ms(100);
  CHECK_EQ(mproc_connection_close(b->second), -EBUSY);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, SOON_MS), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  free_board(b);
}

static int receive_handle(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_handle handle;
  (void)size;
  b->ready = 1;
  return mproc_connection_recv_handle(b->second, &handle, MPROC_FOREVER) == 0 ? 0 : 1;
}

static void *send_handle_in_thread(void *arg) {
  CHECK_EQ(mproc_connection_send_handle(arg, 0, MPROC_FOREVER), 0);
  return NULL;
}

/* Until the other end is there, and until it has received. */
TEST(closing_while_a_thread_sends_a_descriptor) {
  board *b = new_board(NULL);
  pthread_t thread;
  skip_without_handover(b);
  for (int is_there = 0; is_there < 2; is_there++) {
    mproc_process *process = NULL;
    b->ready = 0;
    if (is_there) {
      process = start_by("fork", receive_handle, &b, sizeof b);
      AWAIT(b->ready && state_of(mproc_process_pid(process)) == 'S');
      sleep_ms(50);
      CHECK_EQ(kill((pid_t)mproc_process_pid(process), SIGSTOP), 0);
      CHECK(stopped_within(mproc_process_pid(process), JOIN_MS));
    }
    CHECK_EQ(pthread_create(&thread, NULL, send_handle_in_thread, b->first), 0);
    sleep_ms(100);
    CHECK_EQ(mproc_connection_close(b->first), -EBUSY);
    if (is_there)
      CHECK_EQ(kill((pid_t)mproc_process_pid(process), SIGCONT), 0);
    else
      process = start_by("fork", receive_handle, &b, sizeof b);
    CHECK_EQ(pthread_join(thread, NULL), 0);
    check_exited(process, 0);
    CHECK_EQ(mproc_connection_give(b->second, getpid()), 0);
  }
  free_board(b);
}

static void *send_handle_in_vain(void *arg) {
  CHECK_EQ(mproc_connection_send_handle(arg, 0, 500), -ETIMEDOUT);
  return NULL;
}

/* One who gives up does not hide the one who came after it. */
TEST(closing_while_one_of_two_sends_a_descriptor) {
  board *b = new_board(NULL);
  pthread_t first, second;
  skip_without_handover(b);
  CHECK_EQ(pthread_create(&first, NULL, send_handle_in_vain, b->first), 0);
  sleep_ms(100);
  CHECK_EQ(pthread_create(&second, NULL, send_handle_in_thread, b->first), 0);
  CHECK_EQ(pthread_join(first, NULL), 0);
  CHECK_EQ(mproc_connection_close(b->first), -EBUSY);
  mproc_process *process = start_by("fork", receive_handle, &b, sizeof b);
  CHECK_EQ(pthread_join(second, NULL), 0);
  check_exited(process, 0);
  CHECK_EQ(mproc_connection_give(b->second, getpid()), 0);
  free_board(b);
}

/* Whoever only waits for a connection uses it as well. */
static int wait_until_killed(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_wait_item item = {.kind = MPROC_WAIT_CONNECTION, .object = b->second};
  (void)size;
  CHECK_EQ(mproc_wait(&item, 1, 1, 0), -EAGAIN);
  b->ready = 1;
  CHECK_EQ(mproc_wait(&item, 1, 1, MPROC_FOREVER), 1);
  return 0;
}

EACH_METHOD(killed_while_it_waits_for_its_end) {
  board *b = new_board(NULL);
  char text[4];
  mproc_process *process = start_by(method, wait_until_killed, &b, sizeof b);
  AWAIT(b->ready);
  CHECK_EQ(mproc_process_kill(process), 0);
  CHECK_EQ(mproc_connection_recv_into(b->first, text, 4, NULL, SOON_MS), MPROC_ECLOSED);
  check_killed(process, SIGKILL);
  CHECK_EQ(mproc_connection_close(b->first), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* On a stack that is as small as the system allows. */
static void *use_on_small_stack(void *arg) {
  board *b = arg;
  mproc_handle handle;
  char text[4];
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, 0), 0);
  CHECK_EQ(mproc_connection_recv_into(b->second, text, 4, NULL, 0), 0);
  CHECK_EQ(mproc_connection_poll(b->second, 20), 0);
  CHECK_EQ(mproc_connection_recv_handle(b->second, &handle, SOON_MS), 0);
  CHECK_EQ(close((int)handle), 0);
  return NULL;
}

TEST(small_stack) {
  board *b = new_board(NULL);
  pthread_t thread;
  pthread_attr_t attributes;
  skip_without_handover(b);
  if (UNDER_SANITIZER)
    SKIP("sanitizers need larger stacks");
  CHECK_EQ(pthread_attr_init(&attributes), 0);
  CHECK_EQ(pthread_attr_setstacksize(&attributes, 16384), 0);
  CHECK_EQ(pthread_create(&thread, &attributes, use_on_small_stack, b), 0);
  CHECK_EQ(mproc_connection_send_handle(b->first, 0, SOON_MS), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  CHECK_EQ(pthread_attr_destroy(&attributes), 0);
  free_board(b);
}

/* ---- notifiers ------------------------------------------------------------------------------- */

static int poll_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  CHECK_EQ(mproc_connection_poll(b->first, 0), 0);
  raise(SIGKILL);
  return 0;
}

/* The end became another's, who is dead: the pipe goes with its other end. */
TEST(notifier_of_a_pipe_that_is_gone) {
  board *b = new_board(NULL);
  const mproc_wait_item item = {.kind = MPROC_WAIT_CONNECTION, .object = b->first};
  mproc_notifier *notifier;
  int r = mproc_notifier_create(&item, 1, &notifier);
  if (r == -ENOSYS)
    SKIP("no notifiers on this system");
  CHECK_EQ(r, 0);
  check_killed(start_by("fork", poll_and_die, &b, sizeof b), SIGKILL);
  CHECK_EQ(mproc_connection_close(b->second), 0);
  CHECK_EQ(mproc_notifier_reset(notifier), MPROC_ECLOSED);
  mproc_notifier_destroy(notifier);
  CHECK_EQ(mproc_heap_free(b), 0);
}

/* ---- bad input ------------------------------------------------------------------------------- */

TEST(bad_options) {
  const mproc_pipe_options reserved = {.reserved = {0, 1}}, large = {.message_size = 1000000};
  mproc_connection *first, *second;
  CHECK_EQ(mproc_pipe_create(&reserved, &first, &second), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "reserved");
  CHECK_EQ(mproc_pipe_create(&large, &first, &second), -EINVAL);
  CHECK_EQ(mproc_pipe_create(NULL, NULL, &second), -EINVAL);
  CHECK_EQ(mproc_pipe_create(NULL, &first, NULL), -EINVAL);
  CHECK_EQ(mproc_connection_send(NULL, "a", 1, 0), -EINVAL);
  CHECK_EQ(mproc_connection_send((mproc_connection *)&first, "a", 1, 0), MPROC_EPOINTER);
  board *b = new_board(NULL);
  CHECK_EQ(mproc_connection_send(b->first, NULL, 1, 0), -EINVAL);
  CHECK_EQ(mproc_connection_send(b->first, "a", 1, -2), -EINVAL);
  CHECK_EQ(mproc_connection_recv_into(b->first, NULL, 1, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_connection_recv(b->first, NULL, NULL, 0), -EINVAL);
  free_board(b);
}
