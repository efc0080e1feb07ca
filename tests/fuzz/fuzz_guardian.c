/* The guardian's life: what it is told, and who ends, come from the input, one event after the
 * other. It must kill every daemon that its parent leaves, nobody else, and keep no handle of those
 * it need not watch. */
#include "fuzz.h"
#include "os/os.h"

#include <errno.h>
#include <setjmp.h>
#include <string.h>

/* Every message takes a byte or more. */
enum { MOST_BYTES = 2048, CHANNEL = 5, FIRST_HANDLE = 10, HANDLES = 512, WARDS = MOST_BYTES };

/* A byte each, then what it takes. At the end of the input everybody ends. */
enum {
  SAY,         /* how many bytes, a handle or not; the bytes */
  SAY_BADLY,   /* how many bytes, how many handles, whether some were cut off; the bytes */
  END_HANDLE,  /* which of those that were given */
  END_PID,     /* its lowest byte */
  END_CHANNEL, /* nobody can say anything any more */
  BREAK_CHANNEL,
  LOSE_MEMORY,
  LOOK, /* the guardian gets to see what there is */
  EVENTS
};

typedef struct told {
  int64_t pid, start_time;
  mproc_handle handle;
  bool is_nobody; /* gone before it was told of */
  bool killed, forgotten;
} told;

static struct {
  const uint8_t *next, *end;
  jmp_buf exit;
  bool open[HANDLES];                       /* by handle - FIRST_HANDLE */
  bool ended[HANDLES], seen_ended[HANDLES]; /* the process that it names */
  bool pid_ended[256];
  int handles;
  bool has_message, channel_open, channel_ended, channel_broken, loses_memory, lost_memory;
  unsigned char message[64];
  mpx_received received;
  told told[WARDS]; /* in the order in which it was; [0]: the parent */
  size_t count;
  void *arrays[2];
} world;

static unsigned take_byte(void) {
  return world.next < world.end ? *world.next++ : 0;
}

/* ---- what happens ---------------------------------------------------------------------------- */

static void say(size_t size, size_t handles, bool cut) {
  mpx_received *received = &world.received;
  memset(received, 0, sizeof *received);
  received->size = size;
  received->cut = cut;
  for (size_t i = 0; i < size; i++)
    world.message[i] = (unsigned char)take_byte();
  for (; handles > 0 && world.handles < HANDLES; handles--)
    received->handles[received->handle_count++] = FIRST_HANDLE + world.handles++;
  world.has_message = world.channel_open;
}

static void say_badly(void) {
  size_t size = take_byte() % sizeof world.message;
  unsigned how = take_byte();
  say(size, how % 4, how & 4);
}

static void end_everybody(void) {
  memset(world.ended, true, sizeof world.ended);
  memset(world.pid_ended, true, sizeof world.pid_ended);
  world.channel_ended = true;
}

/* False: the guardian gets to see it before there is more. */
static bool next_event(void) {
  if (world.next == world.end) {
    end_everybody();
    return false;
  }
  switch (take_byte() % EVENTS) {
  case SAY:
    say(2 * sizeof(int64_t), take_byte() % 2, false);
    return false;
  case SAY_BADLY:
    say_badly();
    return false;
  case END_HANDLE:
    world.ended[take_byte()] = true;
    return true;
  case END_PID:
    world.pid_ended[take_byte()] = true;
    return true;
  case END_CHANNEL:
    world.channel_ended = true;
    return true;
  case BREAK_CHANNEL:
    world.channel_broken = true;
    return true;
  case LOSE_MEMORY:
    world.loses_memory = true;
    return true;
  default:
    return false;
  }
}

static bool pid_is_alive(int64_t pid, int64_t start_time) {
  return pid > 0 && pid <= INT32_MAX && start_time != -ESRCH && !world.pid_ended[(uint8_t)pid];
}

static int64_t start_time_of(int64_t pid) {
  return pid_is_alive(pid, 0) ? pid : -ESRCH;
}

static bool is_ended(const told *one) {
  if (one->handle != MPX_NO_HANDLE)
    return world.ended[one->handle - FIRST_HANDLE];
  return one->is_nobody || !pid_is_alive(one->pid, 0);
}

/* ---- what the guardian sees ------------------------------------------------------------------ */

static bool is_ready(mproc_handle handle) {
  if (handle == MPX_NO_HANDLE)
    return false;
  if (handle == CHANNEL)
    return world.has_message || world.channel_ended || world.channel_broken;
  size_t i = (size_t)handle - FIRST_HANDLE;
  FUZZ_CHECK(world.open[i] && !world.seen_ended[i]);
  world.seen_ended[i] = world.ended[i];
  return world.ended[i];
}

static void check_all_are_polled(const mpx_poll_item *items, size_t count) {
  int handles = 0;
  for (size_t i = 0; i < count; i++)
    handles += items[i].handle >= FIRST_HANDLE;
  for (int i = 0; i < world.handles; i++)
    handles -= world.open[i];
  FUZZ_CHECK(handles == 0);
}

/* The channel comes last. Whom only looking tells of must not be waited for without an end. */
static int poll_world(mpx_poll_item *items, size_t count, int64_t deadline) {
  int ready = 0;
  check_all_are_polled(items, count);
  for (size_t i = 0; i + 1 < count; i++)
    FUZZ_CHECK(items[i].handle != MPX_NO_HANDLE || deadline != MPX_NEVER);
  do {
    while (!world.has_message && next_event())
      continue;
    for (size_t i = 0; i < count; i++) {
      items[i].ready = is_ready(items[i].handle);
      ready += items[i].ready;
    }
  } while (ready == 0 && deadline == MPX_NEVER);
  return ready;
}

static void note_told(const mpx_received *received) {
  int64_t words[2];
  FUZZ_CHECK(world.count < WARDS);
  told *one = &world.told[world.count++];
  memcpy(words, world.message, sizeof words);
  *one = (told){.pid = words[0], .start_time = words[1], .handle = MPX_NO_HANDLE};
  if (received->handle_count > 0) {
    one->handle = received->handles[0];
    return;
  }
  one->is_nobody = words[1] == -ESRCH || start_time_of(one->pid) == -ESRCH;
  if (one->start_time == 0)
    one->start_time = start_time_of(one->pid);
}

static int take_message(mproc_handle end, void *data, size_t capacity, bool wait,
                        mpx_received *ret_received) {
  FUZZ_CHECK(end == CHANNEL && world.channel_open && !wait);
  if (!world.has_message && world.next < world.end && *world.next % EVENTS <= SAY_BADLY)
    (void)next_event(); /* more than one may be there */
  if (!world.has_message)
    return world.channel_broken ? -ECONNRESET : world.channel_ended ? 0 : -EAGAIN;
  world.has_message = false;
  *ret_received = world.received;
  if (ret_received->size > capacity)
    ret_received->size = capacity;
  memcpy(data, world.message, ret_received->size);
  for (size_t i = 0; i < ret_received->handle_count; i++)
    world.open[ret_received->handles[i] - FIRST_HANDLE] = true;
  if (ret_received->size == capacity)
    note_told(ret_received);
  return 1;
}

/* ---- what the guardian does ------------------------------------------------------------------ */

static void *reallocate(void *array, size_t size) {
  if (world.loses_memory) {
    world.loses_memory = false;
    world.lost_memory = true;
    return NULL;
  }
  void *more = realloc(array, size);
  FUZZ_CHECK(more);
  world.arrays[array ? array == world.arrays[1] : world.arrays[0] != NULL] = more;
  return more;
}

static void close_handle(mproc_handle handle) {
  if (handle == MPX_NO_HANDLE)
    return;
  bool *open = handle == CHANNEL ? &world.channel_open : &world.open[handle - FIRST_HANDLE];
  FUZZ_CHECK(*open);
  *open = false;
  world.has_message &= world.channel_open;
}

/* Nobody is killed while the parent lives, but who cannot be remembered. */
static void kill_ward(int64_t pid, int64_t start_time, mproc_handle handle) {
  FUZZ_CHECK(handle == MPX_NO_HANDLE || world.open[handle - FIRST_HANDLE]);
  FUZZ_CHECK(world.lost_memory || is_ended(&world.told[0]));
  size_t i = world.count;
  while (--i > 0) {
    told *one = &world.told[i];
    if (one->pid == pid && one->start_time == start_time && one->handle == handle && !one->killed) {
      one->killed = true;
      one->forgotten = world.lost_memory;
      break;
    }
  }
  FUZZ_CHECK(i > 0); /* the parent is not among them */
  world.lost_memory = false;
}

static _Noreturn void leave(int code) {
  (void)code;
  longjmp(world.exit, 1);
}

static void do_nothing(void) {}

static void ignore_name(const char *name) {
  (void)name;
}

static int set_nothing(mproc_handle handle, bool inheritable) {
  FUZZ_CHECK(handle == CHANNEL && !inheritable);
  return 0;
}

#define mpx_os_poll poll_world
#define mpx_os_channel_take take_message
#define mpx_os_process_kill kill_ward
#define mpx_os_process_is_alive pid_is_alive
#define mpx_os_start_time start_time_of
#define mpx_os_close close_handle
#define mpx_os_exit_now leave
#define mpx_os_detach do_nothing
#define mpx_os_set_process_name ignore_name
#define mpx_os_set_inheritable set_nothing
#define realloc reallocate
#include "process/guardian.c"
#undef realloc

static void check_end(void) {
  FUZZ_CHECK(world.count == 0 || world.lost_memory || is_ended(&world.told[0]));
  for (size_t i = 1; i < world.count && !world.lost_memory; i++)
    FUZZ_CHECK(world.told[i].killed || is_ended(&world.told[i]));
  for (size_t i = 0; i < world.count; i++)
    if (world.told[i].handle != MPX_NO_HANDLE && !world.told[i].forgotten)
      world.open[world.told[i].handle - FIRST_HANDLE] = false; /* was to be watched */
  for (int i = 0; i < HANDLES; i++)
    FUZZ_CHECK(!world.open[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  if (size > MOST_BYTES)
    return 0;
  memset(&world, 0, sizeof world);
  world.next = data;
  world.end = data + size;
  world.channel_open = true;
  if (setjmp(world.exit) == 0)
    mpx_guardian_run(CHANNEL);
  check_end();
  free(world.arrays[0]);
  free(world.arrays[1]);
  return 0;
}

/* ---- seeds ----------------------------------------------------------------------------------- */

static unsigned char seed[MOST_BYTES];
static size_t seed_size;

static void add_bytes(const void *bytes, size_t size) {
  memcpy(seed + seed_size, bytes, size);
  seed_size += size;
}

static void add_event(unsigned char event, unsigned char argument) {
  add_bytes((unsigned char[]){event, argument}, 2);
}

static void add_message(int64_t pid, int64_t start_time, bool has_handle) {
  add_event(SAY, has_handle);
  add_bytes((int64_t[]){pid, start_time}, 2 * sizeof pid);
}

static void end_seed(void) {
  fuzz_add_seed(seed, seed_size);
  seed_size = 0;
}

static void fuzz_make_seeds(void) {
  add_message(100, 0, true);
  add_message(101, 0, true);
  add_message(102, 0, true);
  add_event(END_HANDLE, 1);
  add_event(LOOK, LOOK);
  add_event(END_HANDLE, 0);
  end_seed();
  add_message(100, 7, false);
  for (int i = 1; i < 40; i++)
    add_message(100 + i, i % 3, i % 2);
  add_event(END_PID, 107);
  add_event(LOOK, END_CHANNEL);
  add_event(END_PID, 100);
  end_seed();
  add_message(100, 0, true);
  add_message(101, 0, true);
  add_event(SAY_BADLY, 2 * sizeof(int64_t));
  add_bytes((unsigned char[1 + 2 *sizeof(int64_t)]){4 + 3}, 1 + 2 * sizeof(int64_t));
  add_event(SAY_BADLY, 3);
  add_bytes("\2abc", 4);
  end_seed();
  add_event(LOSE_MEMORY, LOOK);
  add_message(100, 0, true);
  end_seed();
  add_message(100, 0, true);
  for (int i = 1; i < 20; i++) {
    add_event(LOSE_MEMORY, LOOK);
    add_message(100 + i, 0, true);
  }
  end_seed();
}
