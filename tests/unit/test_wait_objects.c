/* mproc_wait over events, queues, processes and descriptors at once, and notifiers. */
#include "harness.h"
#include "in_child.h"
#include "methods.h"
#include "processes.h"
#include "soft_limit.h"

#include <pthread.h>
#include <stdatomic.h>
#include <sys/time.h>

enum { LATE_MS = 100, SOON_MS = 5000 };

typedef struct board {
  mproc_event *event, *other;
  mproc_queue *queue;
  _Atomic int go, ready;
} board;

static board *new_board(size_t capacity) {
  const mproc_queue_options options = {.capacity = capacity};
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  CHECK_EQ(mproc_event_create(&b->event), 0);
  CHECK_EQ(mproc_event_create(&b->other), 0);
  CHECK_EQ(mproc_queue_create(&options, &b->queue), 0);
  return b;
}

static void free_board(board *b) {
  CHECK_EQ(mproc_event_destroy(b->event), 0);
  CHECK_EQ(mproc_event_destroy(b->other), 0);
  CHECK_EQ(mproc_queue_destroy(b->queue), 0);
  CHECK_EQ(mproc_heap_free(b), 0);
}

static mproc_wait_item item_of(mproc_wait_kind kind, void *object) {
  return (mproc_wait_item){.kind = kind, .object = object};
}

/* ---- what is ready --------------------------------------------------------------------------- */

static bool is_ready(mproc_wait_kind kind, void *object) {
  mproc_wait_item item = item_of(kind, object);
  int r = mproc_wait(&item, 1, 1, 0);
  CHECK(r == 1 || r == -EAGAIN);
  CHECK_EQ(item.ready, r == 1);
  return r == 1;
}

TEST(event_is_ready_while_it_is_set) {
  board *b = new_board(2);
  CHECK(!is_ready(MPROC_WAIT_EVENT, b->event));
  CHECK_EQ(mproc_event_set(b->event), 0);
  CHECK(is_ready(MPROC_WAIT_EVENT, b->event));
  CHECK_EQ(mproc_event_clear(b->event), 0);
  CHECK(!is_ready(MPROC_WAIT_EVENT, b->event));
  free_board(b);
}

TEST(queue_is_ready_with_a_message_and_with_room) {
  board *b = new_board(2);
  mproc_message message;
  char text[4];
  CHECK(!is_ready(MPROC_WAIT_QUEUE, b->queue));
  CHECK(is_ready(MPROC_WAIT_QUEUE_ROOM, b->queue));
  CHECK_EQ(mproc_queue_put(b->queue, "a", 1, 0), 0);
  CHECK(is_ready(MPROC_WAIT_QUEUE_ROOM, b->queue));
  CHECK_EQ(mproc_queue_put(b->queue, "b", 1, 0), 0);
  CHECK(is_ready(MPROC_WAIT_QUEUE, b->queue));
  CHECK(!is_ready(MPROC_WAIT_QUEUE_ROOM, b->queue));
  CHECK_EQ(mproc_queue_get(b->queue, text, sizeof text, NULL, 0), 0);
  CHECK_EQ(mproc_queue_get_begin(b->queue, &message, 0), 0);
  CHECK(!is_ready(MPROC_WAIT_QUEUE, b->queue)); /* somebody has it in hand */
  CHECK_EQ(mproc_queue_get_abort(b->queue, &message), 0);
  CHECK(is_ready(MPROC_WAIT_QUEUE, b->queue));
  CHECK_EQ(mproc_queue_get(b->queue, text, sizeof text, NULL, 0), 0);
  CHECK_EQ(mproc_queue_close(b->queue), 0);
  CHECK(is_ready(MPROC_WAIT_QUEUE, b->queue)); /* get says so at once */
  CHECK(is_ready(MPROC_WAIT_QUEUE_ROOM, b->queue));
  free_board(b);
}

TEST(growing_queue_has_room_always) {
  const mproc_queue_options options = {.capacity = 2, .growing = 1};
  mproc_queue *queue;
  CHECK_EQ(mproc_queue_create(&options, &queue), 0);
  for (int i = 0; i < 20; i++) {
    CHECK(is_ready(MPROC_WAIT_QUEUE_ROOM, queue));
    CHECK_EQ(mproc_queue_put(queue, &i, sizeof i, 0), 0);
    CHECK(is_ready(MPROC_WAIT_QUEUE, queue));
  }
  CHECK_EQ(mproc_queue_destroy(queue), 0);
}

TEST(wrong_objects) {
  board *b = new_board(2);
  mproc_wait_item item = item_of(MPROC_WAIT_QUEUE, b->event);
  CHECK_EQ(mproc_wait(&item, 1, 1, 0), -EINVAL);
  item = item_of(MPROC_WAIT_EVENT, NULL);
  CHECK_EQ(mproc_wait(&item, 1, 1, 0), -EINVAL);
  item = item_of(MPROC_WAIT_EVENT, &item);
  CHECK_EQ(mproc_wait(&item, 1, 1, 0), MPROC_EPOINTER);
  mproc_event *gone = b->other;
  CHECK_EQ(mproc_event_destroy(gone), 0);
  item = item_of(MPROC_WAIT_EVENT, gone);
  CHECK_EQ(mproc_wait(&item, 1, 1, 0), MPROC_ECLOSED);
  CHECK_EQ(mproc_event_create(&b->other), 0);
  free_board(b);
}

/* ---- waiting --------------------------------------------------------------------------------- */

static int set_late(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  AWAIT(b->ready);
  sleep_ms(LATE_MS);
  CHECK_EQ(mproc_event_set(b->event), 0);
  return 0;
}

static int put_late(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  AWAIT(b->ready);
  sleep_ms(LATE_MS);
  CHECK_EQ(mproc_queue_put(b->queue, "late", 4, 0), 0);
  return 0;
}

static int get_late(void *arg, size_t size) {
  board *b = *(board **)arg;
  char text[8];
  (void)size;
  AWAIT(b->ready);
  sleep_ms(LATE_MS);
  CHECK_EQ(mproc_queue_get(b->queue, text, sizeof text, NULL, 0), 0);
  return 0;
}

/* Any of many; the other process makes exactly one ready. */
static void check_wakes(board *b, const char *method, mproc_entry *entry, int index) {
  int ends[2];
  mproc_queue *full;
  const mproc_queue_options two = {.capacity = 2};
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(mproc_queue_create(&two, &full), 0);
  CHECK_EQ(mproc_queue_put_many(full, "ab", 1, 2, 0), 2);
  mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                             item_of(MPROC_WAIT_EVENT, b->other),
                             item_of(MPROC_WAIT_QUEUE, b->queue),
                             item_of(MPROC_WAIT_QUEUE_ROOM, full),
                             {.kind = MPROC_WAIT_READABLE, .handle = ends[0]}};
  b->ready = 0;
  mproc_process *late = start_by(method, entry, &b, sizeof b);
  b->ready = 1;
  CHECK_EQ(mproc_wait(items, 5, 0, SOON_MS), 1);
  for (int i = 0; i < 5; i++)
    CHECK_EQ(items[i].ready, i == index);
  check_exited(late, 0);
  CHECK_EQ(mproc_queue_destroy(full), 0);
  CHECK_EQ(close(ends[0]) | close(ends[1]), 0);
}

EACH_METHOD(woken_by_an_event_or_a_message) {
  board *b = new_board(2);
  check_wakes(b, method, set_late, 0);
  CHECK_EQ(mproc_event_clear(b->event), 0);
  check_wakes(b, method, put_late, 2);
  free_board(b);
}

EACH_METHOD(woken_by_room) {
  board *b = new_board(2);
  CHECK_EQ(mproc_queue_put_many(b->queue, "ab", 1, 2, 0), 2);
  mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                             item_of(MPROC_WAIT_QUEUE_ROOM, b->queue)};
  mproc_process *late = start_by(method, get_late, &b, sizeof b);
  b->ready = 1;
  CHECK_EQ(mproc_wait(items, 2, 0, SOON_MS), 1);
  CHECK(items[1].ready && !items[0].ready);
  check_exited(late, 0);
  free_board(b);
}

TEST(all_of_objects_process_and_descriptor) {
  int ends[2];
  board *b = new_board(2);
  CHECK_EQ(pipe(ends), 0);
  mproc_process *sets = start_by("fork", set_late, &b, sizeof b);
  mproc_process *puts = start_by("fork", put_late, &b, sizeof b);
  mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                             item_of(MPROC_WAIT_QUEUE, b->queue),
                             item_of(MPROC_WAIT_PROCESS, sets),
                             {.kind = MPROC_WAIT_READABLE, .handle = ends[0]}};
  b->ready = 1;
  CHECK_EQ(mproc_wait(items, 4, 1, 2 * LATE_MS), -ETIMEDOUT);
  CHECK(!items[3].ready);
  CHECK_EQ(write(ends[1], "x", 1), 1);
  CHECK_EQ(mproc_wait(items, 4, 1, SOON_MS), 4);
  check_exited(sets, 0);
  check_exited(puts, 0);
  CHECK_EQ(close(ends[0]) | close(ends[1]), 0);
  free_board(b);
}

enum { MANY = 100 };

static void make_many(mproc_event **events, mproc_wait_item *items) {
  for (int i = 0; i < MANY; i++) {
    CHECK_EQ(mproc_event_create(&events[i]), 0);
    items[i] = item_of(MPROC_WAIT_EVENT, events[i]);
  }
}

static void destroy_many(mproc_event **events) {
  for (int i = 0; i < MANY; i++)
    CHECK_EQ(mproc_event_destroy(events[i]), 0);
}

TEST(many_objects) {
  mproc_event *events[MANY];
  mproc_wait_item items[MANY];
  make_many(events, items);
  CHECK_EQ(mproc_wait(items, MANY, 0, 20), -ETIMEDOUT);
  CHECK_EQ(mproc_event_set(events[70]), 0);
  CHECK_EQ(mproc_wait(items, MANY, 0, SOON_MS), 1);
  CHECK(items[70].ready);
  destroy_many(events);
}

/* Far more at one event than an object has room for at first. */
static int wait_for_go(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                             item_of(MPROC_WAIT_QUEUE, b->queue)};
  b->ready++;
  CHECK_EQ(mproc_wait(items, 2, 0, MPROC_FOREVER), 1);
  return 0;
}

TEST_LIMIT(many_wait_for_one_event, 60) {
  enum { WAITERS = 40 };
  board *b = new_board(2);
  mproc_process *waiters[WAITERS];
  for (int i = 0; i < WAITERS; i++)
    waiters[i] = start_by("fork", wait_for_go, &b, sizeof b);
  AWAIT(b->ready == WAITERS);
  sleep_ms(LATE_MS);
  CHECK_EQ(mproc_event_set(b->event), 0);
  for (int i = 0; i < WAITERS; i++)
    check_exited(waiters[i], 0);
  free_board(b);
}

/* Objects cannot be destroyed under somebody who waits; the dead do not count. */
TEST(destroy_while_somebody_waits) {
  board *b = new_board(2);
  mproc_process *waiter = start_by("fork", wait_for_go, &b, sizeof b);
  AWAIT(b->ready && state_of(mproc_process_pid(waiter)) == 'S');
  sleep_ms(20);
  CHECK_EQ(mproc_event_destroy(b->event), -EBUSY);
  CHECK_EQ(mproc_queue_destroy(b->queue), -EBUSY);
  CHECK_EQ(mproc_process_kill(waiter), 0);
  check_killed(waiter, SIGKILL);
  free_board(b);
}

/* A message that a dead consumer had in hand is found. */
static int begin_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_message message;
  (void)size;
  CHECK_EQ(mproc_queue_get_begin(b->queue, &message, 0), 0);
  AWAIT(b->go);
  raise(SIGKILL);
  return 0;
}

EACH_METHOD(message_of_a_dead_consumer) {
  board *b = new_board(2);
  CHECK_EQ(mproc_queue_put(b->queue, "a", 1, 0), 0);
  mproc_process *consumer = start_by(method, begin_and_die, &b, sizeof b);
  AWAIT(!is_ready(MPROC_WAIT_QUEUE, b->queue));
  b->go = 1;
  mproc_wait_item items[] = {item_of(MPROC_WAIT_QUEUE, b->queue),
                             item_of(MPROC_WAIT_EVENT, b->event)};
  CHECK_EQ(mproc_wait(items, 2, 0, SOON_MS), 1);
  CHECK(items[0].ready);
  check_killed(consumer, SIGKILL);
  free_board(b);
}

/* Without a descriptor for a bell one looks again and again. */
static int set_again_and_again(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  for (; !b->go; sleep_ms(5))
    CHECK_EQ(mproc_event_set(b->event), 0);
  return 0;
}

/* Each call is over before it would look after the others. */
static void check_busy_beside(board *b, mproc_wait_item other) {
  mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event), other};
  b->go = 0;
  mproc_process *setter = start_by("fork", set_again_and_again, &b, sizeof b);
  for (int64_t since = now_ms(); !items[1].ready; CHECK(now_ms() - since < SOON_MS)) {
    CHECK(mproc_wait(items, 2, 0, SOON_MS) > 0);
    CHECK_EQ(mproc_event_clear(b->event), 0);
  }
  b->go = 1;
  check_exited(setter, 0);
}

static int end_with_connection(void *arg, size_t size) {
  (void)size;
  CHECK_EQ(mproc_connection_send(*(mproc_connection **)arg, "text", 4, 0), 0);
  raise(SIGKILL);
  return 0;
}

EACH_METHOD(dead_beside_one_that_is_busy) {
  board *b = new_board(2);
  mproc_connection *own, *other;
  char text[4];
  int number = 3;
  CHECK_EQ(mproc_queue_put(b->queue, &number, sizeof number, 0), 0);
  b->go = 1;
  check_killed(start_by(method, begin_and_die, &b, sizeof b), SIGKILL);
  check_busy_beside(b, item_of(MPROC_WAIT_QUEUE, b->queue));
  CHECK_EQ(mproc_queue_get(b->queue, &number, sizeof number, NULL, 0), 0);
  CHECK_EQ(mproc_pipe_create(NULL, &own, &other), 0);
  check_killed(start_by(method, end_with_connection, &other, sizeof other), SIGKILL);
  CHECK_EQ(mproc_connection_recv_into(own, text, sizeof text, NULL, 0), 0);
  check_busy_beside(b, item_of(MPROC_WAIT_CONNECTION, own));
  CHECK_EQ(mproc_connection_close(own), 0);
  free_board(b);
}

TEST(no_descriptor_is_left) {
  board *b = new_board(2);
  mproc_process *late = start_by("fork", set_late, &b, sizeof b);
  int fds[1024], count = 0;
  mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                             item_of(MPROC_WAIT_QUEUE, b->queue)};
  (void)set_soft_limit(RLIMIT_NOFILE, 64);
  while (count < 1024 && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
    count++;
  b->ready = 1;
  CHECK_EQ(mproc_wait(items, 2, 0, SOON_MS), 1);
  CHECK(items[0].ready);
  while (count > 0)
    close(fds[--count]);
  check_exited(late, 0);
  free_board(b);
}

/* Objects of the heap need none, however many they are. */
TEST(more_objects_than_descriptors) {
  mproc_event *events[MANY];
  mproc_wait_item items[MANY];
  make_many(events, items);
  (void)set_soft_limit(RLIMIT_NOFILE, 64);
  CHECK_EQ(mproc_wait(items, MANY, 0, 20), -ETIMEDOUT);
  CHECK_EQ(mproc_event_set(events[99]), 0);
  CHECK_EQ(mproc_wait(items, MANY, 0, SOON_MS), 1);
  destroy_many(events);
}

static mproc_notifier *new_notifier(board *b) {
  const mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                                   item_of(MPROC_WAIT_QUEUE, b->queue)};
  mproc_notifier *notifier;
  int r = mproc_notifier_create(items, 2, &notifier);
  if (r == -ENOSYS)
    SKIP("no notifiers on this system");
  CHECK_EQ(r, 0);
  return notifier;
}

/* A child that is forked while another thread waits has none of its descriptors. */
static void *wait_in_thread(void *arg) {
  CHECK_EQ(wait_for_go(&arg, sizeof arg), 0);
  return NULL;
}

static int count_sockets(void *arg, size_t size) {
  (void)arg, (void)size;
  int count = 0;
  for (int fd = 0; fd < 256; fd++) {
    char path[64], found[64]; /* by name: ThreadSanitizer would miss a lock around fstat */
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    count += readlink(path, found, sizeof found) > 7 && memcmp(found, "socket:", 7) == 0;
  }
  return count;
}

TEST(forked_child_has_no_bell_of_its_parent) {
  board *b = new_board(2);
  pthread_t thread;
  int before = count_sockets(NULL, 0);
  mproc_notifier_destroy(new_notifier(b)); /* or there are no bells here */
  CHECK_EQ(pthread_create(&thread, NULL, wait_in_thread, b), 0);
  AWAIT(count_sockets(NULL, 0) > before);
  mproc_process *child = start_by("fork", count_sockets, NULL, 0);
  check_exited(child, before);
  CHECK_EQ(mproc_event_set(b->event), 0);
  CHECK_EQ(pthread_join(thread, NULL), 0);
  free_board(b);
}

/* ---- notifiers ------------------------------------------------------------------------------- */

static bool readable_within(const mproc_notifier *notifier, int ms) {
  struct pollfd item = {.fd = (int)mproc_notifier_handle(notifier), .events = POLLIN};
  return poll(&item, 1, ms) == 1;
}

EACH_METHOD(notifier_becomes_readable) {
  board *b = new_board(2);
  mproc_notifier *notifier = new_notifier(b);
  char text[8];
  mproc_process *late = start_by(method, put_late, &b, sizeof b);
  b->ready = 1;
  do { /* it is readable now and then without a cause */
    CHECK(readable_within(notifier, SOON_MS));
  } while (mproc_notifier_reset(notifier) == 0);
  CHECK_EQ(mproc_queue_get(b->queue, text, sizeof text, NULL, 0), 0);
  CHECK_EQ(mproc_notifier_reset(notifier), 0);
  check_exited(late, 0);
  mproc_notifier_destroy(notifier);
  free_board(b);
}

/* By the ring, not by the look that comes each 100 ms. */
TEST(notifier_hears_at_once) {
  board *b = new_board(2);
  mproc_notifier *notifier = new_notifier(b);
  int prompt = 0;
  for (int i = 0; i < 20; i++) {
    CHECK(readable_within(notifier, SOON_MS)); /* just looked by itself */
    CHECK_EQ(mproc_notifier_reset(notifier), 0);
    CHECK_EQ(mproc_event_set(b->event), 0);
    prompt += readable_within(notifier, 0);
    CHECK_EQ(mproc_notifier_reset(notifier), 1);
    CHECK_EQ(mproc_event_clear(b->event), 0);
    CHECK_EQ(mproc_notifier_reset(notifier), 0);
  }
  CHECK(prompt >= 18);
  mproc_notifier_destroy(notifier);
  free_board(b);
}

TEST(notifier_of_what_is_ready_already) {
  board *b = new_board(2);
  CHECK_EQ(mproc_event_set(b->event), 0);
  mproc_notifier *notifier = new_notifier(b);
  CHECK(readable_within(notifier, 0));
  CHECK_EQ(mproc_notifier_reset(notifier), 1);
  CHECK_EQ(mproc_event_destroy(b->event), -EBUSY);
  mproc_notifier_destroy(notifier);
  free_board(b);
}

static int use_parents_notifier(void *arg, size_t size) {
  mproc_notifier *notifier = *(mproc_notifier **)arg;
  (void)size;
  CHECK_EQ(mproc_notifier_reset(notifier), MPROC_ENOTCREATOR);
  CHECK_EQ(mproc_notifier_handle(notifier), -1);
  mproc_notifier_destroy(notifier);
  return 0;
}

TEST(notifier_in_a_forked_child) {
  board *b = new_board(2);
  mproc_notifier *notifier = new_notifier(b);
  check_exited(start_by("fork", use_parents_notifier, &notifier, sizeof notifier), 0);
  CHECK_EQ(mproc_event_set(b->event), 0);
  CHECK(readable_within(notifier, 0));
  CHECK_EQ(mproc_notifier_reset(notifier), 1);
  mproc_notifier_destroy(notifier);
  free_board(b);
}

static mproc_notifier *of_parent;

static void destroy_as_stranger(void) {
  CHECK_EQ(mproc_notifier_reset(of_parent), MPROC_EFOREIGN);
  mproc_notifier_destroy(of_parent);
}

TEST(notifier_in_a_copy_that_a_stranger_made) {
  board *b = new_board(2);
  of_parent = new_notifier(b);
  in_child(destroy_as_stranger);
  CHECK_EQ(mproc_event_destroy(b->event), -EBUSY);
  CHECK_EQ(mproc_event_set(b->event), 0);
  CHECK(readable_within(of_parent, 0));
  CHECK_EQ(mproc_notifier_reset(of_parent), 1);
  mproc_notifier_destroy(of_parent);
  free_board(b);
}

static void *make_board_in_thread(void *arg) {
  board *_Atomic *ret_board = arg;
  board *b = new_board(2);
  *ret_board = b;
  AWAIT(b->go);
  return NULL;
}

/* The thread that was the first to use mproc ends: the process listens all the same. */
TEST(notifier_outlives_the_first_thread) {
  board *_Atomic b = NULL;
  pthread_t first;
  CHECK_EQ(pthread_create(&first, NULL, make_board_in_thread, &b), 0);
  AWAIT(atomic_load(&b));
  mproc_notifier *notifier = new_notifier(b);
  b->go = 1;
  CHECK_EQ(pthread_join(first, NULL), 0);
  CHECK_EQ(mproc_event_destroy(b->event), -EBUSY);
  CHECK_EQ(mproc_queue_destroy(b->queue), -EBUSY);
  CHECK_EQ(mproc_notifier_reset(notifier), 0);
  CHECK_EQ(mproc_event_set(b->event), 0);
  CHECK_EQ(mproc_notifier_reset(notifier), 1);
  mproc_notifier_destroy(notifier);
  free_board(b);
}

static int notify_and_die(void *arg, size_t size) {
  board *b = *(board **)arg;
  (void)size;
  (void)new_notifier(b);
  b->ready = 1;
  AWAIT(b->go);
  raise(SIGKILL);
  return 0;
}

EACH_METHOD(notifier_of_a_dead_process) {
  board *b = new_board(2);
  mproc_notifier_destroy(new_notifier(b)); /* or there are none here */
  mproc_process *process = start_by(method, notify_and_die, &b, sizeof b);
  AWAIT(b->ready);
  CHECK_EQ(mproc_event_destroy(b->event), -EBUSY);
  b->go = 1;
  check_killed(process, SIGKILL);
  free_board(b);
}

TEST(notifier_leaves_the_streams_alone) {
  board *b = new_board(2);
  int saved = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 10);
  CHECK_EQ(close(STDIN_FILENO), 0);
  mproc_notifier *notifier = new_notifier(b);
  CHECK_EQ(fcntl(STDIN_FILENO, F_GETFD), -1);
  CHECK(mproc_notifier_handle(notifier) > STDERR_FILENO);
  mproc_notifier_destroy(notifier);
  CHECK_EQ(dup2(saved, STDIN_FILENO), STDIN_FILENO);
  CHECK_EQ(close(saved), 0);
  free_board(b);
}

/* What it was about to do is done, and nothing is left open. */
static void *set_when_cancelled(void *arg) {
  board *b = arg;
  CHECK_EQ(pthread_cancel(pthread_self()), 0);
  CHECK_EQ(mproc_event_set(b->event), 0);
  CHECK_EQ(mproc_queue_put(b->queue, "a", 1, 0), 0);
  b->ready = 1;
  pthread_testcancel();
  return NULL;
}

TEST(cancelled_thread_tells_whoever_listens) {
  board *b = new_board(2);
  pthread_t thread;
  void *result;
  if (UNDER_SANITIZER)
    SKIP("AddressSanitizer takes the stack of a cancelled thread for that of a scope it left");
  mproc_notifier *notifier = new_notifier(b);
  int before = descriptor_count();
  CHECK_EQ(pthread_create(&thread, NULL, set_when_cancelled, b), 0);
  CHECK_EQ(pthread_join(thread, &result), 0);
  CHECK(result == PTHREAD_CANCELED);
  CHECK_EQ(b->ready, 1);
  CHECK_EQ(descriptor_count(), before);
  CHECK_EQ(mproc_notifier_reset(notifier), 2);
  mproc_notifier_destroy(notifier);
  free_board(b);
}

/* Three are needed; whatever is missing, nothing is left open. */
TEST(notifier_without_descriptors) {
  board *b = new_board(2);
  const mproc_wait_item item = item_of(MPROC_WAIT_EVENT, b->event);
  mproc_notifier *notifier = new_notifier(b);
  mproc_notifier_destroy(notifier);
  int fds[64], count = 0;
  (void)set_soft_limit(RLIMIT_NOFILE, 64);
  while (count < 64 && (fds[count] = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
    count++;
  for (int unused = 0; unused < 3; unused++) {
    CHECK_EQ(mproc_notifier_create(&item, 1, &notifier), -EMFILE);
    CHECK_EQ(close(fds[--count]), 0);
  }
  CHECK_EQ(mproc_notifier_create(&item, 1, &notifier), 0);
  CHECK_EQ(open("/dev/null", O_RDONLY | O_CLOEXEC), -1);
  CHECK_EQ(errno, EMFILE);
  CHECK_EQ(mproc_event_set(b->event), 0); /* it cannot ring: the timer must do */
  CHECK(readable_within(notifier, SOON_MS));
  CHECK_EQ(mproc_notifier_reset(notifier), 1);
  mproc_notifier_destroy(notifier);
  while (count > 0)
    close(fds[--count]);
  free_board(b);
}

/* ---- signal handlers ------------------------------------------------------------------------- */

static mproc_event *of_handler;
static _Atomic int handled;

static void set_in_handler(int number) {
  int saved_errno = errno;
  (void)number;
  errno = EDOM;
  if (mproc_event_set(of_handler) == 0 && mproc_event_clear(of_handler) == 0 && errno == EDOM)
    handled++;
  errno = saved_errno;
}

/* Wherever it interrupts: also whoever is entering the list that the handler walks. */
TEST(set_in_a_signal_handler) {
  enum { SIGNALS = 500 };
  board *b = new_board(2);
  const struct sigaction action = {.sa_handler = set_in_handler, .sa_flags = SA_RESTART};
  const struct itimerval often = {{0, 300}, {0, 300}}, never = {{0, 0}, {0, 0}};
  mproc_wait_item items[] = {item_of(MPROC_WAIT_EVENT, b->event),
                             item_of(MPROC_WAIT_EVENT, b->other)};
  mproc_notifier *lasting = new_notifier(b);
  int before = descriptor_count(), wanted = test_under_valgrind() ? 10 : SIGNALS;
  of_handler = b->event;
  CHECK_EQ(sigaction(SIGALRM, &action, NULL), 0);
  CHECK_EQ(setitimer(ITIMER_REAL, &often, NULL), 0);
  while (handled < wanted) {
    int r = mproc_wait(items, 2, 0, 1);
    CHECK(r == 1 || r == -ETIMEDOUT);
    mproc_notifier_destroy(new_notifier(b));
  }
  CHECK_EQ(setitimer(ITIMER_REAL, &never, NULL), 0);
  CHECK_EQ(descriptor_count(), before);
  mproc_notifier_destroy(lasting);
  free_board(b);
}

/* ---- nothing to do --------------------------------------------------------------------------- */

TEST(notifier_of_nothing) {
  mproc_notifier *notifier;
  const mproc_wait_item process = {.kind = MPROC_WAIT_PROCESS}, none = {.kind = MPROC_WAIT_EVENT};
  CHECK_EQ(mproc_notifier_create(NULL, 0, &notifier), -EINVAL);
  CHECK_EQ(mproc_notifier_create(&process, 1, &notifier), -EINVAL);
  CHECK_CONTAINS(mproc_error_detail(), "mproc_process_sentinel");
  CHECK_EQ(mproc_notifier_create(&none, 1, &notifier), -EINVAL);
  CHECK_EQ(mproc_notifier_create(&none, 1, NULL), -EINVAL);
  CHECK_EQ(mproc_notifier_reset(NULL), -EINVAL);
  CHECK_EQ(mproc_notifier_handle(NULL), -1);
  mproc_notifier_destroy(NULL);
}
