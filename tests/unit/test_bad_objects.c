/* Every function of every object in the heap, given what is no such object: it says so by the
 * documented error, stores nothing, and changes nothing. */
#include "harness.h"
#include "in_child.h"
#include "processes.h"

#include "../children/one_of_each.h"
#include "../children/own_copy_plugin.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdalign.h>

/* Where results go: full of a pattern, which stays. */
static struct outs {
  mproc_owner owner;
  int64_t number;
  double real;
  void *pointer;
  size_t size;
  mproc_handle handle;
  mproc_message message;
  mproc_queue_statistics statistics;
  char bytes[64];
  mproc_condition *condition;
  mproc_notifier *notifier;
} out;

static void *block; /* of the heap, the caller's: to be put */

static int always(void *arg) {
  (void)arg;
  return 1;
}

static int wait_for_one(mproc_wait_kind kind, void *object, int timeout_ms) {
  mproc_wait_item item = {.kind = kind, .object = object};
  return mproc_wait(&item, 1, 1, timeout_ms);
}

static int notifier_for_one(mproc_wait_kind kind, void *object) {
  const mproc_wait_item item = {.kind = kind, .object = object};
  return mproc_notifier_create(&item, 1, &out.notifier);
}

static int condition_with_lock(void *object) {
  const mproc_condition_options options = {.lock = object};
  return mproc_condition_create(&options, &out.condition);
}

static int condition_with_rlock(void *object) {
  const mproc_condition_options options = {.rlock = object};
  return mproc_condition_create(&options, &out.condition);
}

/* ---- the functions --------------------------------------------------------------------------- */

/* What NULL means to a function, and whether it has a timeout. */
typedef enum trait { PLAIN, WAITS, ENDS, MAY_BE_NULL } trait;

/* X(kind, name, trait, call): `o` is the object, `t` the timeout. */
#define CALLS_OF_LOCKS(X)                                                                          \
  X(LOCK, lock_acquire, WAITS, mproc_lock_acquire(o, t))                                           \
  X(LOCK, lock_release, PLAIN, mproc_lock_release(o))                                              \
  X(LOCK, lock_consistent, PLAIN, mproc_lock_consistent(o))                                        \
  X(LOCK, lock_locked, PLAIN, mproc_lock_locked(o))                                                \
  X(LOCK, lock_owner, PLAIN, mproc_lock_owner(o, &out.owner))                                      \
  X(LOCK, lock_destroy, ENDS, mproc_lock_destroy(o))                                               \
  X(LOCK, condition_create_lock, MAY_BE_NULL, condition_with_lock(o))                              \
  X(RLOCK, rlock_acquire, WAITS, mproc_rlock_acquire(o, t))                                        \
  X(RLOCK, rlock_release, PLAIN, mproc_rlock_release(o))                                           \
  X(RLOCK, rlock_consistent, PLAIN, mproc_rlock_consistent(o))                                     \
  X(RLOCK, rlock_locked, PLAIN, mproc_rlock_locked(o))                                             \
  X(RLOCK, rlock_owner, PLAIN, mproc_rlock_owner(o, &out.owner))                                   \
  X(RLOCK, rlock_destroy, ENDS, mproc_rlock_destroy(o))                                            \
  X(RLOCK, condition_create_rlock, MAY_BE_NULL, condition_with_rlock(o))                           \
  X(RWLOCK, rwlock_acquire_read, WAITS, mproc_rwlock_acquire_read(o, t))                           \
  X(RWLOCK, rwlock_acquire_write, WAITS, mproc_rwlock_acquire_write(o, t))                         \
  X(RWLOCK, rwlock_release, PLAIN, mproc_rwlock_release(o))                                        \
  X(RWLOCK, rwlock_consistent, PLAIN, mproc_rwlock_consistent(o))                                  \
  X(RWLOCK, rwlock_readers, PLAIN, mproc_rwlock_readers(o))                                        \
  X(RWLOCK, rwlock_owner, PLAIN, mproc_rwlock_owner(o, &out.owner))                                \
  X(RWLOCK, rwlock_destroy, ENDS, mproc_rwlock_destroy(o))

#define CALLS_OF_SIGNALS(X)                                                                        \
  X(SEMAPHORE, semaphore_acquire, WAITS, mproc_semaphore_acquire(o, t))                            \
  X(SEMAPHORE, semaphore_release, PLAIN, mproc_semaphore_release(o, 1))                            \
  X(SEMAPHORE, semaphore_value, PLAIN, mproc_semaphore_value(o))                                   \
  X(SEMAPHORE, semaphore_destroy, ENDS, mproc_semaphore_destroy(o))                                \
  X(CONDITION, condition_acquire, WAITS, mproc_condition_acquire(o, t))                            \
  X(CONDITION, condition_release, PLAIN, mproc_condition_release(o))                               \
  X(CONDITION, condition_consistent, PLAIN, mproc_condition_consistent(o))                         \
  X(CONDITION, condition_wait, WAITS, mproc_condition_wait(o, t))                                  \
  X(CONDITION, condition_wait_for, WAITS, mproc_condition_wait_for(o, always, NULL, t))            \
  X(CONDITION, condition_notify, PLAIN, mproc_condition_notify(o, 1))                              \
  X(CONDITION, condition_notify_all, PLAIN, mproc_condition_notify_all(o))                         \
  X(CONDITION, condition_destroy, ENDS, mproc_condition_destroy(o))                                \
  X(EVENT, event_set, PLAIN, mproc_event_set(o))                                                   \
  X(EVENT, event_clear, PLAIN, mproc_event_clear(o))                                               \
  X(EVENT, event_is_set, PLAIN, mproc_event_is_set(o))                                             \
  X(EVENT, event_wait, WAITS, mproc_event_wait(o, t))                                              \
  X(EVENT, event_destroy, ENDS, mproc_event_destroy(o))                                            \
  X(EVENT, wait_event, WAITS, wait_for_one(MPROC_WAIT_EVENT, o, t))                                \
  X(EVENT, notifier_event, PLAIN, notifier_for_one(MPROC_WAIT_EVENT, o))                           \
  X(BARRIER, barrier_wait, WAITS, mproc_barrier_wait(o, t))                                        \
  X(BARRIER, barrier_wait_action, WAITS, mproc_barrier_wait_action(o, always, NULL, t))            \
  X(BARRIER, barrier_abort, PLAIN, mproc_barrier_abort(o))                                         \
  X(BARRIER, barrier_reset, PLAIN, mproc_barrier_reset(o))                                         \
  X(BARRIER, barrier_parties, PLAIN, mproc_barrier_parties(o))                                     \
  X(BARRIER, barrier_n_waiting, PLAIN, mproc_barrier_n_waiting(o))                                 \
  X(BARRIER, barrier_broken, PLAIN, mproc_barrier_broken(o))                                       \
  X(BARRIER, barrier_destroy, ENDS, mproc_barrier_destroy(o))

/* Those of an Array that return no code leave theirs behind. */
#define CALLS_OF_MEMORY(X)                                                                         \
  X(VALUE, value_get_int64, PLAIN, mproc_value_get_int64(o, &out.number))                          \
  X(VALUE, value_get_double, PLAIN, mproc_value_get_double(o, &out.real))                          \
  X(VALUE, value_get_pointer, PLAIN, mproc_value_get_pointer(o, &out.pointer))                     \
  X(VALUE, value_set_int64, PLAIN, mproc_value_set_int64(o, 5))                                    \
  X(VALUE, value_set_double, PLAIN, mproc_value_set_double(o, 5))                                  \
  X(VALUE, value_set_pointer, PLAIN, mproc_value_set_pointer(o, NULL))                             \
  X(VALUE, value_add_int64, PLAIN, mproc_value_add_int64(o, 5, &out.number))                       \
  X(VALUE, value_add_double, PLAIN, mproc_value_add_double(o, 5, &out.real))                       \
  X(VALUE, value_exchange_int64, PLAIN, mproc_value_compare_exchange_int64(o, &out.number, 5))     \
  X(VALUE, value_exchange_pointer, PLAIN,                                                          \
    mproc_value_compare_exchange_pointer(o, &out.pointer, NULL))                                   \
  X(VALUE, value_wait, WAITS, mproc_value_wait_int64(o, 1, &out.number, t))                        \
  X(VALUE, value_destroy, ENDS, mproc_value_destroy(o))                                            \
  X(ARRAY, array_items, PLAIN, mproc_array_items(o) ? 1 : mproc_last_error())                      \
  X(ARRAY, array_count, PLAIN, mproc_array_count(o) ? 1 : mproc_last_error())                      \
  X(ARRAY, array_item_size, PLAIN, mproc_array_item_size(o) ? 1 : mproc_last_error())              \
  X(ARRAY, array_lock, PLAIN, mproc_array_lock(o) ? 1 : mproc_last_error())                        \
  X(ARRAY, array_destroy, ENDS, mproc_array_destroy(o))

#define CALLS_OF_MESSAGES(X)                                                                       \
  X(QUEUE, queue_put, WAITS, mproc_queue_put(o, "a", 1, t))                                        \
  X(QUEUE, queue_put_many, WAITS, mproc_queue_put_many(o, "ab", 1, 2, t))                          \
  X(QUEUE, queue_put_block, WAITS, mproc_queue_put_block(o, block, 1, t))                          \
  X(QUEUE, queue_get, WAITS, mproc_queue_get(o, out.bytes, 8, &out.size, t))                       \
  X(QUEUE, queue_get_many, WAITS, mproc_queue_get_many(o, out.bytes, 8, 2, t))                     \
  X(QUEUE, queue_get_block, WAITS, mproc_queue_get_block(o, &out.pointer, &out.size, t))           \
  X(QUEUE, queue_get_begin, WAITS, mproc_queue_get_begin(o, &out.message, t))                      \
  X(QUEUE, queue_get_commit, PLAIN, mproc_queue_get_commit(o, &out.message))                       \
  X(QUEUE, queue_get_abort, PLAIN, mproc_queue_get_abort(o, &out.message))                         \
  X(QUEUE, queue_task_done, PLAIN, mproc_queue_task_done(o))                                       \
  X(QUEUE, queue_join, WAITS, mproc_queue_join(o, t))                                              \
  X(QUEUE, queue_close, PLAIN, mproc_queue_close(o))                                               \
  X(QUEUE, queue_size, PLAIN, mproc_queue_size(o))                                                 \
  X(QUEUE, queue_stats, PLAIN, mproc_queue_stats(o, &out.statistics))                              \
  X(QUEUE, queue_destroy, ENDS, mproc_queue_destroy(o))                                            \
  X(QUEUE, wait_queue, WAITS, wait_for_one(MPROC_WAIT_QUEUE, o, t))                                \
  X(QUEUE, wait_room, WAITS, wait_for_one(MPROC_WAIT_QUEUE_ROOM, o, t))                            \
  X(QUEUE, notifier_queue, PLAIN, notifier_for_one(MPROC_WAIT_QUEUE, o))                           \
  X(QUEUE, notifier_room, PLAIN, notifier_for_one(MPROC_WAIT_QUEUE_ROOM, o))                       \
  X(CONNECTION, connection_give, PLAIN, mproc_connection_give(o, getpid()))                        \
  X(CONNECTION, connection_send, WAITS, mproc_connection_send(o, "a", 1, t))                       \
  X(CONNECTION, connection_recv, WAITS, mproc_connection_recv(o, &out.pointer, &out.size, t))      \
  X(CONNECTION, connection_recv_into, WAITS,                                                       \
    mproc_connection_recv_into(o, out.bytes, 8, &out.size, t))                                     \
  X(CONNECTION, connection_poll, WAITS, mproc_connection_poll(o, t))                               \
  X(CONNECTION, connection_send_handle, WAITS, mproc_connection_send_handle(o, 0, t))              \
  X(CONNECTION, connection_recv_handle, WAITS, mproc_connection_recv_handle(o, &out.handle, t))    \
  X(CONNECTION, connection_close, ENDS, mproc_connection_close(o))                                 \
  X(CONNECTION, wait_connection, WAITS, wait_for_one(MPROC_WAIT_CONNECTION, o, t))                 \
  X(CONNECTION, notifier_connection, PLAIN, notifier_for_one(MPROC_WAIT_CONNECTION, o))

#define CALLS(X) CALLS_OF_LOCKS(X) CALLS_OF_SIGNALS(X) CALLS_OF_MEMORY(X) CALLS_OF_MESSAGES(X)

#define FUNCTION(kind, name, trait, call)                                                          \
  static int try_##name(void *o, int t) {                                                          \
    (void)t;                                                                                       \
    return (int)(call);                                                                            \
  }
CALLS(FUNCTION)

typedef struct function {
  const char *name;
  int kind;
  trait trait;
  int (*call)(void *object, int timeout_ms);
} function;

#define ROW(kind, name, trait, call) {#name, kind, trait, try_##name},
static const function functions[] = {CALLS(ROW)};
#define FOR_ALL_FUNCTIONS(f)                                                                       \
  for (const function *f = functions; f < functions + sizeof functions / sizeof functions[0]; f++)

/* ---- what must hold -------------------------------------------------------------------------- */

enum { HEAD = 64, PATTERN = 0xa5 };

/* The beginning of each object: its state, of most kinds all of it. */
typedef struct picture {
  unsigned char heads[OBJECTS][HEAD];
  uint64_t used;
} picture;

static picture take_picture(void *const *objects) {
  picture now = {.used = heap_used()};
  for (int i = 0; i < OBJECTS; i++)
    memcpy(now.heads[i], objects[i], HEAD);
  return now;
}

static void check_unchanged(void *const *objects, const picture *before, const char *what) {
  for (int i = 0; i < OBJECTS; i++)
    if (memcmp(before->heads[i], objects[i], HEAD) != 0)
      test_fail(__FILE__, __LINE__, "nothing changes", "object %d by %s", i, what);
  if (heap_used() != before->used)
    test_fail(__FILE__, __LINE__, "nothing changes", "the heap by %s", what);
}

static void refuses(const function *f, void *object, int timeout_ms, int expected,
                    const char *what) {
  struct outs untouched;
  memset(&untouched, PATTERN, sizeof untouched);
  memset(&out, PATTERN, sizeof out);
  int r = f->call(object, timeout_ms);
  if (r != expected)
    test_fail(__FILE__, __LINE__, f->name, "%s: returned %d, not %d", what, r, expected);
  if (memcmp(&out, &untouched, sizeof out) != 0)
    test_fail(__FILE__, __LINE__, f->name, "%s: a result was stored", what);
}

/* One of each, and what it takes to see that they work. */
static void make_all(void **objects) {
  CHECK_EQ(make_one_of_each(objects), 0);
  CHECK((block = mproc_heap_calloc(1, 128)) != NULL);
}

static void check_all_work(void **o) {
  int64_t number;
  char text[4];
  CHECK_EQ(mproc_lock_acquire(o[LOCK], 0), 0);
  CHECK_EQ(mproc_lock_release(o[LOCK]), 0);
  CHECK_EQ(mproc_rlock_acquire(o[RLOCK], 0), 0);
  CHECK_EQ(mproc_rlock_release(o[RLOCK]), 0);
  CHECK_EQ(mproc_rwlock_acquire_write(o[RWLOCK], 0), 0);
  CHECK_EQ(mproc_rwlock_release(o[RWLOCK]), 0);
  CHECK_EQ(mproc_semaphore_acquire(o[SEMAPHORE], 0), 0);
  CHECK_EQ(mproc_semaphore_release(o[SEMAPHORE], 1), 0);
  CHECK_EQ(mproc_condition_acquire(o[CONDITION], 0), 0);
  CHECK_EQ(mproc_condition_wait(o[CONDITION], 0), -EAGAIN);
  CHECK_EQ(mproc_condition_release(o[CONDITION]), 0);
  CHECK_EQ(mproc_event_is_set(o[EVENT]), 0);
  CHECK_EQ(mproc_barrier_wait(o[BARRIER], 0), 0);
  CHECK_EQ(mproc_value_get_int64(o[VALUE], &number), 0);
  CHECK_EQ(number, 1);
  CHECK_EQ(mproc_array_count(o[ARRAY]), 2);
  CHECK_EQ(mproc_queue_size(o[QUEUE]), 0);
  CHECK_EQ(mproc_queue_put(o[QUEUE], "a", 1, 0), 0);
  CHECK_EQ(mproc_queue_get(o[QUEUE], text, sizeof text, NULL, 0), 0);
  CHECK_EQ(mproc_connection_send(o[CONNECTION], "a", 1, 0), 0);
  CHECK_EQ(mproc_connection_recv_into(o[SECOND], text, sizeof text, NULL, 0), 0);
  CHECK_EQ(mproc_heap_usable_size(block) >= 128, 1);
}

static void destroy_all(void **o) {
  CHECK_EQ(mproc_lock_destroy(o[LOCK]), 0);
  CHECK_EQ(mproc_rlock_destroy(o[RLOCK]), 0);
  CHECK_EQ(mproc_rwlock_destroy(o[RWLOCK]), 0);
  CHECK_EQ(mproc_semaphore_destroy(o[SEMAPHORE]), 0);
  CHECK_EQ(mproc_condition_destroy(o[CONDITION]), 0);
  CHECK_EQ(mproc_event_destroy(o[EVENT]), 0);
  CHECK_EQ(mproc_barrier_destroy(o[BARRIER]), 0);
  CHECK_EQ(mproc_value_destroy(o[VALUE]), 0);
  CHECK_EQ(mproc_array_destroy(o[ARRAY]), 0);
  CHECK_EQ(mproc_queue_destroy(o[QUEUE]), 0);
  CHECK_EQ(mproc_connection_close(o[CONNECTION]), 0);
  CHECK_EQ(mproc_connection_close(o[SECOND]), 0);
}

/* All functions, each with the same pointer, for a while that only errors cut short. */
static void all_refuse(void *object, int expected, const char *what) {
  FOR_ALL_FUNCTIONS(f) {
    refuses(f, object, 0, expected, what);
    refuses(f, object, MPROC_FOREVER, expected, what);
  }
}

/* ---- pointers -------------------------------------------------------------------------------- */

TEST(null) {
  void *objects[OBJECTS];
  make_all(objects);
  const picture before = take_picture(objects);
  FOR_ALL_FUNCTIONS(f)
  if (f->trait != MAY_BE_NULL) {
    refuses(f, NULL, 0, f->trait == ENDS ? 0 : -EINVAL, "NULL");
    refuses(f, NULL, MPROC_FOREVER, f->trait == ENDS ? 0 : -EINVAL, "NULL");
  }
  check_unchanged(objects, &before, "NULL");
  check_all_work(objects);
  destroy_all(objects);
  CHECK_EQ(mproc_heap_free(block), 0);
}

TEST(outside_of_the_heap) {
  static alignas(64) char of_the_program[128];
  alignas(64) char of_the_stack[128] = {0};
  void *objects[OBJECTS];
  char *private_memory = aligned_alloc(64, 128);
  CHECK(private_memory != NULL);
  memset(private_memory, 0, 128);
  make_all(objects);
  const picture before = take_picture(objects);
  memcpy(of_the_program, objects[LOCK], 64); /* as if it were one */
  all_refuse(of_the_program, MPROC_EPOINTER, "of the program");
  all_refuse(of_the_stack, MPROC_EPOINTER, "on the stack");
  all_refuse(private_memory, MPROC_EPOINTER, "of malloc");
  all_refuse((void *)(uintptr_t)64, MPROC_EPOINTER, "the lowest address");
  all_refuse((void *)(uintptr_t)-64, MPROC_EPOINTER, "the highest address");
  all_refuse((void *)((uintptr_t)1 << 63), MPROC_EPOINTER, "no address");
  check_unchanged(objects, &before, "pointers out of the heap");
  check_all_work(objects);
  destroy_all(objects);
  CHECK_EQ(mproc_heap_free(block), 0);
  free(private_memory);
}

TEST(inside_of_the_heap) {
  static const size_t apart[] = {1, 4, 8, 16, 32};
  void *objects[OBJECTS];
  make_all(objects);
  unsigned char *plain = mproc_heap_aligned_alloc(64, 128);
  CHECK(plain != NULL);
  const picture before = take_picture(objects);
  for (int byte = 0; byte < 256; byte += 0x5a) {
    memset(plain, byte, 128);
    all_refuse(plain, MPROC_ECLOSED, "a block");
    for (int i = 0; i < 128; i++)
      CHECK_EQ(plain[i], byte);
  }
  for (size_t i = 0; i < sizeof apart / sizeof apart[0]; i++) {
    memcpy(plain + apart[i], objects[LOCK], 64);
    all_refuse(plain + apart[i], MPROC_EPOINTER, "a block, not aligned");
    FOR_ALL_FUNCTIONS(f)
    refuses(f, (char *)objects[f->kind] + apart[i], 0, MPROC_EPOINTER, "in an object");
  }
  check_unchanged(objects, &before, "pointers into the heap");
  CHECK_EQ(mproc_heap_free(plain), 0);
  check_all_work(objects);
  destroy_all(objects);
  CHECK_EQ(mproc_heap_free(block), 0);
}

TEST(of_another_kind) {
  void *objects[OBJECTS];
  char what[64];
  make_all(objects);
  const picture before = take_picture(objects);
  FOR_ALL_FUNCTIONS(f) for (int kind = 0; kind < KINDS; kind++) if (kind != f->kind) {
    snprintf(what, sizeof what, "%s of kind %d", f->name, kind);
    refuses(f, objects[kind], 0, -EINVAL, what);
    refuses(f, objects[kind], MPROC_FOREVER, -EINVAL, what);
    check_unchanged(objects, &before, what);
  }
  check_all_work(objects);
  destroy_all(objects);
  CHECK_EQ(mproc_heap_free(block), 0);
}

TEST(destroyed) {
  void *objects[OBJECTS];
  make_all(objects);
  destroy_all(objects);
  for (int i = 0; i < OBJECTS; i++)
    all_refuse(objects[i], MPROC_ECLOSED, "destroyed");
  CHECK_EQ(mproc_heap_free(block), 0);
}

/* ---- arguments ------------------------------------------------------------------------------- */

TEST(negative_timeouts) {
  static const int timeouts[] = {-2, -1000, INT_MIN};
  void *objects[OBJECTS];
  make_all(objects);
  CHECK_EQ(mproc_condition_acquire(objects[CONDITION], 0), 0);
  const picture before = take_picture(objects);
  FOR_ALL_FUNCTIONS(f)
  for (int i = 0; f->trait == WAITS && i < 3; i++) {
    refuses(f, objects[f->kind], timeouts[i], -EINVAL, "a negative timeout");
    check_unchanged(objects, &before, f->name);
  }
  CHECK_EQ(mproc_condition_release(objects[CONDITION]), 0);
  check_all_work(objects);
  destroy_all(objects);
  CHECK_EQ(mproc_heap_free(block), 0);
}

TEST(no_place_for_a_result) {
  void *objects[OBJECTS], *pointer = objects;
  size_t size = 77;
  make_all(objects);
  CHECK_EQ(mproc_queue_put(objects[QUEUE], "text", 4, 0), 0);
  CHECK_EQ(mproc_connection_send(objects[SECOND], "text", 4, 0), 0);
  const picture before = take_picture(objects);
  CHECK_EQ(mproc_lock_owner(objects[LOCK], NULL), -EINVAL);
  CHECK_EQ(mproc_rlock_owner(objects[RLOCK], NULL), -EINVAL);
  CHECK_EQ(mproc_rwlock_owner(objects[RWLOCK], NULL), -EINVAL);
  CHECK_EQ(mproc_value_get_int64(objects[VALUE], NULL), -EINVAL);
  CHECK_EQ(mproc_value_compare_exchange_int64(objects[VALUE], NULL, 2), -EINVAL);
  CHECK_EQ(mproc_value_wait_int64(objects[VALUE], 0, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get(objects[QUEUE], NULL, 4, &size, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get_many(objects[QUEUE], NULL, 4, 1, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get_block(objects[QUEUE], NULL, &size, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get_block(objects[QUEUE], &pointer, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_queue_get_begin(objects[QUEUE], NULL, 0), -EINVAL);
  CHECK_EQ(mproc_queue_stats(objects[QUEUE], NULL), -EINVAL);
  CHECK_EQ(mproc_connection_recv(objects[CONNECTION], NULL, &size, 0), -EINVAL);
  CHECK_EQ(mproc_connection_recv(objects[CONNECTION], &pointer, NULL, 0), -EINVAL);
  CHECK_EQ(mproc_connection_recv_into(objects[CONNECTION], NULL, 4, &size, 0), -EINVAL);
  CHECK_EQ(mproc_connection_recv_handle(objects[CONNECTION], NULL, 0), -EINVAL);
  CHECK(pointer == objects && size == 77);
  check_unchanged(objects, &before, "a call without a place for its result");
  char text[8];
  CHECK_EQ(mproc_queue_get(objects[QUEUE], text, sizeof text, &size, 0), 0); /* still there */
  CHECK_EQ(mproc_connection_recv_into(objects[CONNECTION], text, sizeof text, &size, 0), 0);
  check_all_work(objects);
  destroy_all(objects);
  CHECK_EQ(mproc_heap_free(block), 0);
}

TEST(no_place_for_a_new_object) {
  const uint64_t used = heap_used();
  mproc_connection *end = NULL;
  const mproc_wait_item none = {.kind = MPROC_WAIT_EVENT};
  mproc_notifier *notifier = NULL;
  CHECK_EQ(mproc_lock_create(NULL), -EINVAL);
  CHECK_EQ(mproc_rlock_create(NULL), -EINVAL);
  CHECK_EQ(mproc_rwlock_create(NULL), -EINVAL);
  CHECK_EQ(mproc_semaphore_create(1, NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_condition_create(NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_event_create(NULL), -EINVAL);
  CHECK_EQ(mproc_barrier_create(1, NULL), -EINVAL);
  CHECK_EQ(mproc_value_create_int64(1, NULL), -EINVAL);
  CHECK_EQ(mproc_value_create_double(1, NULL), -EINVAL);
  CHECK_EQ(mproc_value_create_pointer(NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_array_create(1, 1, NULL), -EINVAL);
  CHECK_EQ(mproc_queue_create(NULL, NULL), -EINVAL);
  CHECK_EQ(mproc_pipe_create(NULL, NULL, &end), -EINVAL);
  CHECK_EQ(mproc_pipe_create(NULL, &end, NULL), -EINVAL);
  CHECK(end == NULL);
  CHECK_EQ(mproc_notifier_create(&none, 1, NULL), -EINVAL);
  CHECK_EQ(mproc_notifier_create(NULL, 1, &notifier), -EINVAL);
  CHECK_EQ(mproc_notifier_create(&none, 0, &notifier), -EINVAL);
  CHECK(notifier == NULL);
  CHECK_EQ(mproc_notifier_reset(NULL), -EINVAL);
  CHECK_EQ(mproc_notifier_handle(NULL), -1);
  mproc_notifier_destroy(NULL);
  CHECK_EQ(mproc_wait(NULL, 1, 1, 0), -EINVAL);
  CHECK_EQ(heap_used(), used);
}

/* ---- other families -------------------------------------------------------------------------- */

static void *of_the_parent[OBJECTS], *destroyed_before;
static mproc_notifier *notifier_of_the_parent;

static void use_as_a_stranger(void) {
  void *made[OBJECTS] = {NULL};
  FOR_ALL_FUNCTIONS(f) {
    refuses(f, of_the_parent[f->kind], 0, MPROC_EFOREIGN, "a stranger");
    refuses(f, of_the_parent[f->kind], MPROC_FOREVER, MPROC_EFOREIGN, "a stranger");
    refuses(f, of_the_parent[(f->kind + 1) % KINDS], 0, MPROC_EFOREIGN, "a stranger, another kind");
    refuses(f, destroyed_before, 0, MPROC_EFOREIGN, "a stranger, destroyed");
    refuses(f, (void *)(uintptr_t)64, 0, MPROC_EFOREIGN, "a stranger, no object");
  }
  CHECK_EQ(make_one_of_each(made), MPROC_EFOREIGN);
  if (notifier_of_the_parent) /* not where there are none */
    CHECK_EQ(mproc_notifier_reset(notifier_of_the_parent), MPROC_EFOREIGN);
  mproc_notifier_destroy(notifier_of_the_parent); /* the copy */
}

TEST(in_a_child_that_mproc_does_not_know) {
  make_all(of_the_parent);
  mproc_lock *gone;
  CHECK_EQ(mproc_lock_create(&gone), 0);
  CHECK_EQ(mproc_lock_destroy(gone), 0);
  destroyed_before = gone;
  const mproc_wait_item item = {.kind = MPROC_WAIT_EVENT, .object = of_the_parent[EVENT]};
  int r = mproc_notifier_create(&item, 1, &notifier_of_the_parent);
  CHECK(r == 0 || r == -ENOSYS);
  const picture before = take_picture(of_the_parent);
  in_child(use_as_a_stranger);
  check_unchanged(of_the_parent, &before, "a stranger");
  if (r == 0) {
    CHECK_EQ(mproc_notifier_reset(notifier_of_the_parent), 0);
    CHECK_EQ(mproc_event_set(of_the_parent[EVENT]), 0);
    CHECK_EQ(mproc_notifier_reset(notifier_of_the_parent), 1);
    CHECK_EQ(mproc_event_clear(of_the_parent[EVENT]), 0);
    mproc_notifier_destroy(notifier_of_the_parent);
  }
  check_all_work(of_the_parent);
  destroy_all(of_the_parent);
  CHECK_EQ(mproc_heap_free(block), 0);
}

static void *function_of(void *library, const char *name) {
  void *found = dlsym(library, name);
  if (!found)
    test_fail(__FILE__, __LINE__, "dlsym", "%s", dlerror());
  return found;
}

/* The audit knows of one heap in a process: the other family lives and dies with a child. */
static int use_those_of_another_family(void *arg, size_t size) {
  void *ours[OBJECTS], *theirs[OBJECTS];
  int (*make)(void **objects), (*try_all)(void *const *objects, int *ret_results);
  int results[KINDS];
  (void)arg, (void)size;
  void *library = dlopen(test_child_path("own_copy_plugin.so"), RTLD_NOW | RTLD_LOCAL);
  if (!library)
    test_fail(__FILE__, __LINE__, "dlopen", "%s", dlerror());
  *(void **)&make = function_of(library, "plugin_make");
  *(void **)&try_all = function_of(library, "plugin_try");
  make_all(ours);
  CHECK_EQ(make(theirs), 0);
  const picture before = take_picture(theirs), own = take_picture(ours);
  FOR_ALL_FUNCTIONS(f) {
    refuses(f, theirs[f->kind], 0, MPROC_EPOINTER, "of another family");
    refuses(f, theirs[f->kind], MPROC_FOREVER, MPROC_EPOINTER, "of another family");
  }
  CHECK_EQ(try_all(ours, results), 0);
  for (int i = 0; i < KINDS; i++)
    CHECK_EQ(results[i], MPROC_EPOINTER);
  check_unchanged(theirs, &before, "another family");
  check_unchanged(ours, &own, "another family");
  CHECK_EQ(try_all(theirs, results), 0);
  for (int i = 0; i < KINDS; i++)
    CHECK(results[i] >= 0 || results[i] == -EAGAIN);
  check_all_work(ours);
  destroy_all(ours);
  CHECK_EQ(mproc_heap_free(block), 0);
  return 0;
}

TEST(of_another_family) {
  if (MPX_STATIC_TESTS)
    SKIP("a static program cannot load libraries");
  check_exited(start_by("fork", use_those_of_another_family, NULL, 0), 0);
  check_exited(start_by("spawn", use_those_of_another_family, NULL, 0), 0);
}
