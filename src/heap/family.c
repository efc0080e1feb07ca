#include "heap/family.h"

#include "base/error.h"
#include "base/log.h"
#include "heap/address.h"
#include "heap/allocator.h"
#include "heap/pages.h"
#include "os/crash_point.h"

#include <errno.h>
#include <string.h>

/* The slots follow the header closely: a new child faults in both at once. */
enum { UNIT = 64 * 1024, HEADER_SIZE = 4096, VERSION = 1 };
#define MAGIC "mprocfam"
#define SMALLEST_SIZE ((uint64_t)16 << 20)
#define SCANNED_SIZE ((uint64_t)256 << 20)
#define LARGEST_SIZE ((uint64_t)240 << 30) /* with its metadata it fits an address window */

/* What this process knows. Written under `maker`, or by the only thread of a fresh child; after
 * that read freely: mpx_the_header is stored last. */
static struct {
  _Atomic int64_t maker; /* pid of the process whose thread makes the family now */
  size_t wanted_size;
  mproc_handle handle;
  mpx_segment_id id;
} family;

/* Who this process is. In a page of its own that any fork wipes: a child of the host's own fork()
 * reads 0 and is no member, whatever the rest of its copied memory says. */
_Atomic(mpx_header *) mpx_the_header;
mpx_identity *mpx_the_identity;

/* The calling thread's cell, valid as long as `member` is the process's. */
_Thread_local mpx_self_thread mpx_this_thread MPX_TLS_MODEL;

void mpx_family_set_size(size_t size) {
  family.wanted_size = size;
}

bool mpx_family_is_foreign(void) {
  return atomic_load_explicit(&mpx_the_header, memory_order_acquire) && mpx_family_self() == 0;
}

/* ---- the segment ----------------------------------------------------------------------------- */

static uint64_t tables_size(void) {
  return mpx_round_up(HEADER_SIZE + MPX_SLOT_COUNT * (sizeof(mpx_slot) + sizeof(mpx_report)) +
                          MPX_POOL_COUNT * sizeof(mpx_cell) +
                          MPX_SERVER_COUNT * sizeof(mpx_server_page),
                      UNIT);
}

static uint64_t segment_size(uint64_t data_size) {
  return tables_size() + mpx_allocator_overhead(data_size) + data_size;
}

/* Maps at the first address that is free. */
static int map_somewhere(mproc_handle handle, uint64_t size, void **ret_base) {
  int r = -EEXIST;
  for (unsigned n = 0; r < 0; n++) {
    uint64_t address = mpx_address_candidate(n, size);
    if (address == 0)
      break;
    r = mpx_os_segment_map(handle, (void *)(uintptr_t)address, size);
    if (r == 0)
      *ret_base = (void *)(uintptr_t)address;
  }
  return r;
}

static int create_segment(uint64_t data_size, uint64_t *ret_size, void **ret_base) {
  uint64_t size = segment_size(data_size);
  mproc_handle handle;
  int r = mpx_os_segment_create(size, &handle);
  if (r < 0)
    return mpx_fail(r, "cannot create the shared heap of %llu bytes: %s%s",
                    (unsigned long long)size, mproc_strerror(r), mpx_os_limit_text(r));
  r = mpx_os_segment_identify(handle, &family.id);
  if (r < 0) {
    mpx_os_close(handle);
    return mpx_fail(r, "cannot identify the shared heap: %s", mproc_strerror(r));
  }
  r = map_somewhere(handle, size, ret_base);
  if (r < 0) {
    mpx_os_close(handle);
    return mpx_fail(MPROC_EADDRESS,
                    "no address range of %llu bytes is free for the shared heap (%s); raise "
                    "RLIMIT_AS (ulimit -v) or give mproc_init a smaller heap_size",
                    (unsigned long long)size, mproc_strerror(r));
  }
  family.handle = handle;
  *ret_size = size;
  return 0;
}

/* Valgrind's leak check reads what is mapped, and reading a hole of shared memory fills it: a heap
 * of half the memory would take it all, and minutes. */
static uint64_t default_size(void) {
  uint64_t half = mpx_os_memory_limit() / 2;
  uint64_t most = mpx_os_memory_is_scanned() ? SCANNED_SIZE : LARGEST_SIZE;
  return mpx_round_up(half < most ? half : most, UNIT);
}

/* A heap is made once: one that became small because of a passing shortage of something else, of
 * descriptors for instance, would stay small. */
static bool is_for_size(int code) {
  return code == MPROC_EADDRESS || code == -ENOMEM || code == -EFBIG || code == -EINVAL ||
         code == -ENOSPC;
}

/* A size that was asked for is a promise; the default is a wish, made smaller until it fits. */
static int create_fitting_segment(uint64_t *ret_size, uint64_t *ret_data_size, void **ret_base) {
  uint64_t data_size = mpx_round_up(family.wanted_size, UNIT);
  if (family.wanted_size > LARGEST_SIZE)
    return mpx_fail(MPROC_EADDRESS,
                    "no address range holds a heap of %zu bytes; give mproc_init a smaller "
                    "heap_size: %llu is the most",
                    family.wanted_size, (unsigned long long)LARGEST_SIZE);
  if (data_size != 0) {
    *ret_data_size = data_size;
    return create_segment(data_size, ret_size, ret_base);
  }
  data_size = default_size();
  int r;
  while (is_for_size(r = create_segment(data_size, ret_size, ret_base)) &&
         data_size > SMALLEST_SIZE) {
    data_size = mpx_round_up(data_size / 2, UNIT);
    mpx_log(MPROC_LOG_INFO, "shared heap: %s; trying %llu bytes", mproc_error_detail(),
            (unsigned long long)data_size);
  }
  *ret_data_size = data_size;
  return r;
}

static int fill_segment(unsigned char *base, uint64_t size, uint64_t data_size) {
  mpx_header *header = (mpx_header *)(void *)base;
  int r = mpx_os_commit(base, UNIT);
  if (r < 0)
    return mpx_fail(r, "no memory for the first page of the shared heap");
  memcpy(header->magic, MAGIC, sizeof header->magic);
  header->version = VERSION;
  header->slot_count = MPX_SLOT_COUNT;
  header->pool_count = MPX_POOL_COUNT;
  header->size = size;
  header->slots = (mpx_slot *)(void *)(base + HEADER_SIZE);
  header->pool = (mpx_cell *)(void *)(header->slots + MPX_SLOT_COUNT);
  header->reports = (mpx_report *)(void *)(header->pool + MPX_POOL_COUNT);
  header->servers = (mpx_server_page *)(void *)(header->reports + MPX_SLOT_COUNT);
  return mpx_allocator_init(base + tables_size(), base + size - data_size, data_size,
                            &header->allocator);
}

/* ---- becoming a member ----------------------------------------------------------------------- */

static int prepare_identity(void) {
  if (mpx_the_identity)
    return 0;
  void *page;
  int r = mpx_os_wiped_alloc(sizeof(mpx_identity), &page);
  if (r < 0)
    return mpx_fail_code(r, "cannot set up the process's identity");
  mpx_the_identity = page;
  return 0;
}

static void release_thread(void) {
  mpx_header *header = mpx_family_header();
  if (!header || mpx_this_thread.member != mpx_family_self())
    return;
  mpx_slot *slot = mpx_table_slot(header, mpx_this_thread.member);
  /* From now on this cell proves nothing: pid and start time must. */
  if (slot && atomic_load_explicit(&slot->start_time, memory_order_relaxed) <= 0) {
    int64_t start_time = mpx_os_start_time(mpx_os_pid());
    atomic_store_explicit(&slot->start_time, start_time > 0 ? start_time : MPX_START_UNKNOWN,
                          memory_order_release);
  }
  mpx_cell *cell = mpx_cell_at(header, mpx_this_thread.cell);
  mpx_this_thread.member = 0;
  mpx_cell_release(cell);
}

static int enter_thread(mpx_header *header, mpx_member member) {
  uint32_t cell;
  int r = mpx_os_thread_hook(release_thread);
  if (r == 0)
    r = mpx_os_thread_watch();
  if (r < 0) /* a thread that ends unnoticed would look like the death of the process */
    return mpx_fail(r, "cannot watch for the end of the thread: %s (pthread keys are used up?)",
                    mproc_strerror(r));
  r = mpx_cell_take(header, member, &cell);
  if (r < 0)
    return r;
  mpx_this_thread.cell = cell;
  mpx_this_thread.name = mpx_cell_thread(header, cell);
  mpx_this_thread.member = member;
  return 0;
}

/* The last steps of every way in: the process is `member` from here on. */
static int become(mpx_header *header, mpx_member member) {
  int r = mpx_table_take(header, member, mpx_os_pid());
  if (r < 0)
    return mpx_fail(MPROC_EBOOT, "the parent died during the start");
  MPROC_CRASH_POINT("family.taken");
  r = enter_thread(header, member);
  if (r < 0)
    return r;
  atomic_store_explicit(&mpx_the_identity->member, member, memory_order_relaxed);
  atomic_store_explicit(&mpx_the_header, header, memory_order_release);
  return 0;
}

static int create_family(void) {
  uint64_t size = 0, data_size = 0;
  void *base;
  mpx_os_stdio_ensure(); /* the segment's descriptor must not become a standard stream */
  int r = prepare_identity();
  if (r < 0)
    return r;
  r = create_fitting_segment(&size, &data_size, &base);
  if (r < 0)
    return r;
  r = fill_segment(base, size, data_size);
  if (r < 0)
    goto fail;
  mpx_header *header = base;
  mpx_member member;
  r = mpx_table_claim(header, 0, &member);
  if (r < 0)
    goto fail;
  mpx_slot *slot = mpx_table_slot(header, member);
  memcpy(slot->name, "MainProcess", sizeof "MainProcess");
  atomic_store_explicit(&slot->pid, mpx_os_pid(), memory_order_relaxed);
  atomic_store_explicit(&slot->gate, MPX_GATE_OPEN, memory_order_relaxed);
  r = become(header, member);
  if (r < 0)
    goto fail;
  mpx_log(MPROC_LOG_DEBUG, "shared heap: %llu bytes at %p", (unsigned long long)size, base);
  return 0;
fail:
  mpx_os_segment_unmap(base, size);
  mpx_os_close(family.handle);
  return r;
}

/* A lock that belongs to a process: a stranger's fork while another thread makes the family copies
 * it closed, and nobody there would ever open it. */
static void lock_making(void) {
  int64_t self = mpx_os_pid(), maker = 0;
  while (!atomic_compare_exchange_strong(&family.maker, &maker, self)) {
    if (maker != self) /* the copy of a lock: the next round takes it */
      continue;
    mpx_os_sleep(100 * 1000);
    maker = 0;
  }
}

static void unlock_making(void) {
  atomic_store_explicit(&family.maker, 0, memory_order_release);
}

static int enter_slowly(uint32_t *ret_cell) {
  int r = 0;
  if (!atomic_load_explicit(&mpx_the_header, memory_order_acquire)) {
    lock_making();
    if (!atomic_load_explicit(&mpx_the_header, memory_order_acquire))
      r = create_family();
    unlock_making();
  }
  if (r < 0)
    return r;
  mpx_member member = mpx_family_self();
  if (member == 0)
    return mpx_fail(MPROC_EFOREIGN,
                    "process %lld was made by a fork() that mproc does not know: make it with "
                    "mproc_process_start() to share the heap",
                    (long long)mpx_os_pid());
  if (mpx_this_thread.member != member)
    r = enter_thread(mpx_the_header, member);
  if (r == 0)
    *ret_cell = mpx_this_thread.cell;
  return r;
}

int mpx_family_enter(uint32_t *ret_cell) {
  mpx_member member = mpx_family_self();
  if (member != 0 && mpx_this_thread.member == member) {
    *ret_cell = mpx_this_thread.cell;
    return 0;
  }
  mpx_os_cancel_hold(); /* it reads files under a lock, and takes a cell */
  int r = enter_slowly(ret_cell);
  mpx_os_cancel_release();
  return r;
}

int mpx_family_thread_slowly(mpx_thread *ret_thread) {
  uint32_t cell;
  int r = mpx_family_enter(&cell);
  if (r == 0)
    *ret_thread = mpx_this_thread.name;
  return r;
}

int mpx_family_ticket_for(mpx_member member, mpx_family_ticket *ret_ticket) {
  mpx_segment_id now;
  int r = mpx_os_segment_identify(family.handle, &now);
  if (r < 0 || memcmp(&now, &family.id, sizeof now) != 0)
    return mpx_fail(
        MPROC_EHEAPLOST,
        "descriptor %lld, the shared heap's, was closed by another part of the program: "
        "spawn cannot pass the heap on; leave that descriptor open, or use fork",
        (long long)family.handle);
  *ret_ticket = (mpx_family_ticket){.address = (uint64_t)(uintptr_t)mpx_the_header,
                                    .size = mpx_the_header->size,
                                    .handle = family.handle,
                                    .id = family.id,
                                    .member = member};
  return 0;
}

void mpx_family_touch(void) {
  (void)atomic_fetch_add_explicit(&mpx_the_identity->member, 0, memory_order_relaxed);
}

int mpx_family_adopt(mpx_member member) {
  unlock_making();
  if (mpx_this_thread.member)
    mpx_os_robust_disown(&mpx_cell_at(mpx_the_header, mpx_this_thread.cell)->life);
  mpx_this_thread.member = 0;
  return become(mpx_the_header, member);
}

int mpx_family_attach(const mpx_family_ticket *ticket) {
  mpx_segment_id found;
  int r = mpx_os_segment_identify(ticket->handle, &found);
  if (r < 0 || memcmp(&found, &ticket->id, sizeof found) != 0)
    return mpx_fail(MPROC_EHEAPLOST,
                    "the shared heap's descriptor did not reach the child; does a constructor of "
                    "the program close what it does not know?");
  void *base = (void *)(uintptr_t)ticket->address;
  r = mpx_os_segment_map(ticket->handle, base, ticket->size);
  if (r == -EEXIST)
    return r;
  if (r < 0)
    return mpx_fail(
        MPROC_EADDRESS,
        "the child cannot map the shared heap of %llu bytes: %s; RLIMIT_AS must leave room "
        "for it (limit a worker by RLIMIT_DATA instead)",
        (unsigned long long)ticket->size, mproc_strerror(r));
  mpx_header *header = base;
  if (memcmp(header->magic, MAGIC, sizeof header->magic) != 0 || header->version != VERSION)
    return mpx_fail(MPROC_ERECORD, "the shared heap is from another version of mproc");
  r = prepare_identity();
  if (r < 0)
    return r;
  family.handle = ticket->handle;
  family.id = ticket->id;
  return become(header, ticket->member);
}

/* ---- the dead -------------------------------------------------------------------------------- */

static void reap_blocks(mpx_header *header, mpx_member dead) {
  uint32_t cell = 0;
  (void)mpx_family_enter(&cell);
  const mpx_caller caller = {.member = mpx_family_self(), .lane = cell};
  (void)mpx_allocator_reap(header->allocator, &caller, dead);
}

/* Blocks and cells first: if the process dies in between, the slot still names the dead one, and
 * whoever comes next does it again. Every step may be done twice, also at once by two processes. */
void mpx_family_bury(mpx_member member) {
  mpx_header *header = mpx_family_header();
  if (!header || !mpx_table_slot(header, member))
    return;
  reap_blocks(header, member);
  MPROC_CRASH_POINT("family.bury.reaped");
  mpx_cell_free_all(header, member);
  MPROC_CRASH_POINT("family.bury.cells_freed");
  (void)mpx_table_release(header, member);
}

/* A server that has not yet written down how the child ended will do so in the slot. */
static bool awaits_relay(mpx_header *header, const mpx_slot *slot) {
  return slot->server != 0 &&
         atomic_load_explicit(&slot->relay, memory_order_acquire) != MPX_RELAY_DONE &&
         !mpx_member_is_dead(header, slot->server);
}

/* A process whose parent lives is the parent's to bury: it may still want the exit record. Its
 * blocks are given back all the same. */
static void sweep_slot(mpx_header *header, uint32_t index) {
  mpx_slot *slot = &header->slots[index];
  if (mpx_table_sweep_claim(header, index))
    return;
  uint64_t tag = atomic_load_explicit(&slot->tag, memory_order_acquire);
  if ((tag & 0xff) != MPX_SLOT_RUNNING)
    return;
  mpx_member member = mpx_member_make(index, (uint32_t)(tag >> 8));
  mpx_member parent = atomic_load_explicit(&slot->parent, memory_order_relaxed);
  bool orphan = parent == 0 || mpx_member_is_dead(header, parent);
  if (member == mpx_family_self() || !mpx_member_is_dead(header, member))
    return;
  if (orphan && !awaits_relay(header, slot))
    mpx_family_bury(member);
  else
    reap_blocks(header, member);
}

void mpx_family_sweep(bool all) {
  mpx_header *header = mpx_family_header();
  if (!header)
    return;
  uint32_t used = atomic_load_explicit(&header->slots_used, memory_order_relaxed);
  uint32_t count = all ? used : used < 2 ? used : 2;
  for (uint32_t i = 0; i < count; i++)
    sweep_slot(header,
               atomic_fetch_add_explicit(&header->sweep_hand, 1, memory_order_relaxed) % used);
}
