/* Whatever comes through the forkserver's door: what is no request is thrown away with all that it
 * brought, and nobody is disturbed; the server needs no more memory and descriptors after many
 * requests than after a few. */
#include "forkserver_raw.h"
#include "harness.h"
#include "members.h"

#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sys/resource.h>
#include <sys/syscall.h>

enum { FLOOD_MS = 1000 };

/* The server of a context, and the ends by which it can be asked. */
typedef struct target {
  mproc_context *context;
  int64_t server;
  int doors[2];
  int descriptors, slots;
} target;

static target open_target(int spares) {
  target t = {.context = new_context(NULL, 0, spares)};
  t.server = server_of(t.context);
  CHECK_EQ(find_doors(t.doors, 2), 2);
  AWAIT(count_children(t.server) == spares);
  t.slots = used_slots();
  t.descriptors = descriptors_of(t.server);
  return t;
}

/* The same server serves, and has nothing more than before. */
static void close_target(target *t) {
  CHECK_EQ(server_of(t->context), t->server);
  AWAIT(descriptors_of(t->server) <= t->descriptors);
  AWAIT((server_of(t->context), used_slots() <= t->slots));
  mproc_context_destroy(t->context);
  mproc_context_stop(NULL);
}

/* The kernel's limit; musl's sendmsg takes 1,024 bytes of control data. */
#ifdef __GLIBC__
enum { MOST_HANDLES = 253 };
#else
enum { MOST_HANDLES = 250 };
#endif

static int send_bytes(int door, const void *bytes, size_t size, const int *fds, size_t count) {
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(253 * sizeof(int))];
  } control;
  struct iovec part = {(void *)(uintptr_t)bytes, size};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (count > 0) {
    memset(&control, 0, sizeof control);
    message.msg_control = &control;
    message.msg_controllen = (socklen_t)CMSG_SPACE(count * sizeof(int));
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = (socklen_t)CMSG_LEN(count * sizeof(int));
    memcpy(CMSG_DATA(header), fds, count * sizeof(int));
  }
  return sendmsg(door, &message, MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static void make_handles(int *fds, int count) {
  for (int i = 0; i < count; i++)
    CHECK((fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC)) >= 0);
}

static void close_handles(const int *fds, int count) {
  for (int i = 0; i < count; i++)
    close(fds[i]);
}

/* ---- garbage --------------------------------------------------------------------------------- */

static void send_garbage(target *t, int door) {
  static unsigned char noise[70000];
  static const size_t sizes[] = {0,
                                 1,
                                 8,
                                 63,
                                 64,
                                 sizeof(mpx_request) - 1,
                                 sizeof(mpx_request),
                                 sizeof(mpx_request) + 1,
                                 4096,
                                 65535,
                                 65536,
                                 65537,
                                 70000};
  int fds[253];
  unsigned int seed = 1;
  (void)t;
  make_handles(fds, 253);
  for (size_t i = 0; i < sizeof noise; i++)
    noise[i] = (unsigned char)((seed = seed * 1103515245 + 12345) >> 16);
  for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
    for (size_t count = 0; count <= MOST_HANDLES; count += count < 3 ? 1 : 125)
      if (sizes[i] > 0 || count > 0) /* an empty one alone looks like an end */
        CHECK_EQ(send_bytes(door, noise, sizes[i], fds, count), 0);
  close_handles(fds, 253);
}

TEST(garbage_at_the_door) {
  target t = open_target(0);
  send_garbage(&t, t.doors[0]);
  close_target(&t);
}

static void check_spares_are_clean(const target *t, int spares, int descriptors) {
  int64_t pids[8];
  AWAIT(children_of(t->server, pids, 8) == spares);
  for (int i = 0; i < spares; i++)
    AWAIT(descriptors_of(pids[i]) <= descriptors); /* a new one has yet to close some */
}

TEST(garbage_for_the_spares) {
  int64_t pids[8];
  target t = open_target(2);
  CHECK_EQ(children_of(t.server, pids, 8), 2);
  int descriptors = descriptors_of(pids[0]);
  send_garbage(&t, t.doors[1]);
  close_target(&(target){.context = new_context(NULL, 0, 2),
                         .server = t.server,
                         .descriptors = t.descriptors,
                         .slots = t.slots});
  check_spares_are_clean(&t, 2, descriptors);
  mproc_context_destroy(t.context);
}

/* Nothing at all: on a socket that keeps the bounds of messages it reads like an end. */
TEST(empty_message) {
  for (int spares = 0; spares < 3; spares += 2) {
    target t = open_target(spares);
    for (int i = 0; i < 5; i++) {
      CHECK_EQ(send_bytes(t.doors[0], "", 0, NULL, 0), 0);
      CHECK_EQ(send_bytes(t.doors[1], "", 0, NULL, 0), 0);
    }
    CHECK_EQ(server_of(t.context), t.server);
    close_target(&t);
  }
}

/* A right message with one thing wrong: no worker comes of it, or one that says why and ends. */
static void spoil_body(raw_request *raw, int way) {
  mpx_request_body *body = (mpx_request_body *)(void *)raw->body;
  const uint64_t far = 1ULL << 63;
  if (way == 0)
    body->entry.at = UINT64_MAX - 8;
  else if (way == 1)
    body->entry.size = UINT64_MAX;
  else if (way == 2)
    body->entry.size = 1;
  else if (way == 3)
    body->environment.size = raw->body_size + 1;
  else if (way == 4)
    body->environment_count = UINT32_MAX, body->has_environment = 1;
  else if (way == 5)
    body->argument.at = raw->body_size + 1;
  else if (way == 6)
    body->names.size = 32;
  else if (way == 7)
    body->limits = (mpx_range){far, far};
  else
    raw->body[body->entry.at + body->entry.size - 1] = 'x';
}

static void spoil(raw_request *raw, int way) {
  mpx_request *head = &raw->head;
  if (way == 0)
    head->magic++;
  else if (way == 1)
    head->kind = 99;
  else if (way < 4)
    head->body_size = way == 2 ? head->body_size + 1 : UINT64_MAX;
  else if (way < 6)
    head->inherit_count = way == 4 ? UINT32_MAX : 3;
  else if (way == 6)
    head->sealed = 1;
  else if (way == 7)
    head->has_channel = 1;
  else if (way == 8)
    head->has_cwd = head->has_held = 1;
  else if (way == 9)
    head->streams[1] = MPX_STREAM_PASSED;
  else if (way == 10)
    head->member = 0;
  else if (way < 13)
    head->member = way == 11 ? head->member ^ 1ULL << 40 : UINT64_MAX;
  else
    spoil_body(raw, way - 13);
}

TEST(requests_with_one_thing_wrong) {
  for (int spares = 0; spares < 3; spares += 2) {
    target t = open_target(spares);
    for (int way = 0; way < 22; way++) {
      board *b = new_board();
      mpx_member member = claim_for(t.server);
      raw_request *raw = raw_request_for(member, say_server, b);
      spoil(raw, way);
      (void)post_raw(t.doors[spares ? way % 2 : 0], raw, NULL, 0);
      free(raw);
      CHECK_EQ(server_of(t.context), t.server);
      sleep_ms(20);
      CHECK_EQ(b->pid, 0);
      if (!mpx_table_retract(mpx_family_header(), member)) {
        AWAIT(mpx_member_is_dead(mpx_family_header(), member));
        mpx_family_bury(member);
      }
      CHECK_EQ(mproc_heap_free(b), 0);
    }
    close_target(&t);
  }
}

/* A right message with handles that it does not speak of, and too few of those it does. */
TEST(requests_with_wrong_handles) {
  int fds[250];
  target t = open_target(0);
  make_handles(fds, 250);
  for (uint32_t named = 0; named < 4; named += 3)
    for (size_t sent = 0; sent <= 250; sent += 50) {
      if (sent == named)
        continue;
      board *b = new_board();
      mpx_member member = claim_for(t.server);
      raw_request *raw = raw_request_for(member, say_server, b);
      raw->head.inherit_count = named;
      CHECK_EQ(post_raw(t.doors[0], raw, fds, sent), 0);
      free(raw);
      CHECK_EQ(server_of(t.context), t.server);
      CHECK_EQ(b->pid, 0);
      CHECK(mpx_table_retract(mpx_family_header(), member));
      CHECK_EQ(mproc_heap_free(b), 0);
    }
  close_handles(fds, 250);
  close_target(&t);
}

/* The same request twice: one worker, and its status is its own. */
static int say_and_wait(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  b->count++;
  b->pid = getpid();
  AWAIT(b->go);
  return 0;
}

TEST(request_sent_twice) {
  target t = open_target(0);
  board *b = new_board();
  mpx_member member = claim_for(t.server);
  raw_request *raw = raw_request_for(member, say_and_wait, b);
  for (int i = 0; i < 20; i++)
    CHECK_EQ(post_raw(t.doors[0], raw, NULL, 0), 0);
  AWAIT(b->pid);
  CHECK_EQ(server_of(t.context), t.server);
  AWAIT(count_children(t.server) == 1);
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), member);
  CHECK(slot != NULL);
  CHECK_EQ(slot->relay, MPX_RELAY_NONE);
  CHECK_EQ(b->count, 1);
  b->go = 1;
  AWAIT(slot->relay == MPX_RELAY_DONE);
  CHECK_EQ(slot->exit.state, MPROC_STATE_EXITED);
  mpx_family_bury(member);
  free(raw);
  CHECK_EQ(mproc_heap_free(b), 0);
  close_target(&t);
}

/* Somebody says goodbye for another. */
TEST(false_farewell) {
  target t = open_target(0);
  mpx_request farewell = {.magic = MPX_REQUEST_MAGIC, .kind = MPX_REQUEST_RETIRE};
  for (uint64_t i = 1; i < 8; i++) {
    farewell.member = mpx_member_make((uint32_t)i, 1);
    CHECK_EQ(send_bytes(t.doors[0], &farewell, sizeof farewell, NULL, 0), 0);
    farewell.member = i << 60;
    CHECK_EQ(send_bytes(t.doors[0], &farewell, sizeof farewell, NULL, 0), 0);
  }
  close_target(&t);
}

/* ---- no room --------------------------------------------------------------------------------- */

/* The server cannot take the handles: the start says so, and leaves nothing in the table. */
TEST(server_without_room_for_handles) {
  int fds[30];
  mproc_inherit list[30];
  static const char *const names[] = {"a", "b", "c", "d", "e", "f", "g", "h", "i", "j"};
  target t = open_target(0);
  struct rlimit few = {20, 20}, before;
  make_handles(fds, 10);
  for (int i = 0; i < 10; i++)
    list[i] = (mproc_inherit){fds[i], names[i]};
  const mproc_process_options options = {
      .method = "forkserver", .context = t.context, .inherit = list, .inherit_count = 10};
  board *b = new_board();
  mproc_process *process = create_with(&options, say_server, &b, sizeof b);
  CHECK_EQ(prlimit((pid_t)t.server, RLIMIT_NOFILE, NULL, &before), 0);
  few.rlim_max = before.rlim_max;
  CHECK_EQ(prlimit((pid_t)t.server, RLIMIT_NOFILE, &few, NULL), 0);
  for (int i = 0; i < 50; i++) {
    CHECK_EQ(mproc_process_start(process), -EMFILE);
    CHECK_CONTAINS(mproc_error_detail(), "forkserver");
  }
  CHECK_EQ(prlimit((pid_t)t.server, RLIMIT_NOFILE, &before, NULL), 0);
  CHECK_EQ(mproc_process_start(process), 0);
  check_exited(process, 0);
  close_handles(fds, 10);
  CHECK_EQ(mproc_heap_free(b), 0);
  close_target(&t);
}

/* ---- floods ---------------------------------------------------------------------------------- */

static _Atomic bool flood_must_end;

static void *flood(void *argument) {
  int fds[100];
  const target *t = argument;
  make_handles(fds, 100);
  while (!flood_must_end)
    (void)send_bytes(t->doors[0], "garbage", 7, fds, 100);
  close_handles(fds, 100);
  return NULL;
}

static int ask_in_a_flood(void *arg, size_t size) {
  target *t = arg;
  (void)size;
  for (int i = 0; i < 20; i++)
    CHECK_EQ(server_of(t->context), t->server);
  return 0;
}

/* Others are served meanwhile, statuses come, and nothing stays in the server. */
TEST(client_that_floods) {
  pthread_t thread;
  target t = open_target(0);
  CHECK_EQ(pthread_create(&thread, NULL, flood, &t), 0);
  for (int64_t end = now_ms() + FLOOD_MS; now_ms() < end;) {
    CHECK_EQ(server_of(t.context), t.server);
    check_exited(start_by("fork", ask_in_a_flood, &t, sizeof t), 0);
  }
  flood_must_end = true;
  CHECK_EQ(pthread_join(thread, NULL), 0);
  close_target(&t);
}

/* ---- many ------------------------------------------------------------------------------------ */

/* KiB; a leak of 32 bytes for each of 1,000 starts is more than the first. */
enum { SLACK_OF_ONE_THREAD = 16, SLACK_OF_MANY = 256 };

/* What the asker and its server have. */
typedef struct footprint {
  int descriptors_here, descriptors_there;
  long memory_here, memory_there;
  uint64_t heap;
} footprint;

static footprint footprint_of(const target *t) {
  return (footprint){descriptor_count(), descriptors_of(t->server), resident_of(getpid()),
                     resident_of(t->server), heap_used()};
}

static bool memory_is_told(void) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  return false; /* they keep freed blocks, and so does valgrind */
#else
  return !test_under_valgrind();
#endif
}

static void check_flat(const target *t, const footprint *before, long slack) {
  AWAIT(descriptors_of(t->server) <= before->descriptors_there);
  CHECK_EQ(descriptor_count(), before->descriptors_here);
  CHECK_EQ(heap_used(), before->heap);
  CHECK(before->memory_here > 0 && before->memory_there > 0);
  if (!memory_is_told())
    return;
  CHECK(resident_of(getpid()) <= before->memory_here + slack);
  CHECK(resident_of(t->server) <= before->memory_there + slack);
}

static void many_in_a_row(int spares) {
  target t = open_target(spares);
  const int code = 6;
  for (int i = 0; i < 200; i++)
    check_exited(ask_context(t.context, return_code, &code, sizeof code), code);
  const footprint before = footprint_of(&t);
  for (int i = 0; i < test_scale(10000); i++)
    check_exited(ask_context(t.context, return_code, &code, sizeof code), code);
  check_flat(&t, &before, SLACK_OF_ONE_THREAD);
  AWAIT(count_children(t.server) == spares);
  close_target(&t);
}

TEST_LIMIT(ten_thousand_in_a_row, 240) {
  many_in_a_row(0);
}

TEST_LIMIT(ten_thousand_by_spares, 240) {
  many_in_a_row(3);
}

enum { THREADS = 8, EACH = 25, AT_ONCE = THREADS * EACH };

typedef struct crowd {
  const target *t;
  board *b;
} crowd;

typedef struct ticket {
  board *b;
  int64_t code;
} ticket;

static int stand_in_the_crowd(void *arg, size_t size) {
  const ticket *mine = arg;
  (void)size;
  mine->b->count++;
  while (!mine->b->go)
    (void)syscall(SYS_futex, &mine->b->go, FUTEX_WAIT, 0, NULL, NULL, 0);
  return (int)mine->code;
}

static void *start_many(void *argument) {
  const crowd *c = argument;
  mproc_process *workers[EACH];
  for (int i = 0; i < EACH; i++) {
    const ticket one = {.b = c->b, .code = i};
    workers[i] = ask_context(c->t->context, stand_in_the_crowd, &one, sizeof one);
  }
  for (int i = 0; i < EACH; i++)
    check_exited(workers[i], i);
  return NULL;
}

/* All of them live before the first one ends. So many take their time on a busy machine. */
static void two_hundred(const target *t, board *b, int spares) {
  pthread_t threads[THREADS];
  crowd c = {t, b};
  b->count = b->go = 0;
  for (int i = 0; i < THREADS; i++)
    CHECK_EQ(pthread_create(&threads[i], NULL, start_many, &c), 0);
  for (int64_t end = now_ms() + 6 * JOIN_MS; b->count < AT_ONCE && now_ms() < end;)
    sleep_ms(1);
  CHECK_EQ(b->count, AT_ONCE);
  AWAIT(count_children(t->server) == AT_ONCE + spares);
  b->go = 1;
  CHECK_OK(syscall(SYS_futex, &b->go, FUTEX_WAKE, INT_MAX, NULL, NULL, 0));
  for (int i = 0; i < THREADS; i++)
    CHECK_EQ(pthread_join(threads[i], NULL), 0);
  AWAIT(count_children(t->server) == spares);
}

static void two_hundred_again_and_again(int spares) {
  target t = open_target(spares);
  board *b = new_board();
  for (int i = 0; i < 3; i++) /* each thread's part of malloc takes its size */
    two_hundred(&t, b, spares);
  const footprint before = footprint_of(&t);
  for (int i = 0; i < test_scale(20); i++)
    two_hundred(&t, b, spares);
  check_flat(&t, &before, SLACK_OF_MANY);
  CHECK_EQ(mproc_heap_free(b), 0);
  close_target(&t);
}

TEST_LIMIT(two_hundred_at_once, 240) {
  two_hundred_again_and_again(0);
}

TEST_LIMIT(two_hundred_at_once_by_spares, 240) {
  two_hundred_again_and_again(3);
}
