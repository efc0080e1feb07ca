/* The end of a worker: its server waits for it, and writes down how it ended. */
#include "heap/family.h"
#include "process/process.h"

/* How long a server that lives and runs may take: longer than any machine is busy. */
#define PATIENCE_NS (5 * MPX_NS_PER_S)
#define LOOK_NS (20 * MPX_NS_PER_MS)

static bool is_ready(mproc_handle sentinel) {
  mpx_poll_item item = {.handle = sentinel};
  return mpx_os_poll(&item, 1, 0) == 1;
}

static bool is_done(mpx_slot *slot) {
  return atomic_load_explicit(&slot->relay, memory_order_acquire) == MPX_RELAY_DONE;
}

/* Without pidfds the sentinel is a pipe, whose other end a server that is stopped may still
 * have. */
static bool has_ended(const mproc_process *process) {
  const mpx_child *child = &process->child;
  return is_ready(child->sentinel) ||
         (!child->pidfd && !mpx_os_process_is_alive(child->pid, process->server_start_time));
}

/* The server that was found stopped when last looked at: nobody waits for it again in vain. */
static _Atomic mpx_member stopped_server;

static bool is_stopped(mpx_member server, const mpx_slot *slot) {
  bool stopped = mpx_os_process_is_stopped(mpx_slot_pid(slot));
  atomic_store_explicit(&stopped_server, stopped ? server : 0, memory_order_relaxed);
  return stopped;
}

/* The server was woken by the same end as we. */
static bool await_relay(mpx_header *header, mpx_slot *slot, mpx_member server) {
  int64_t deadline = mpx_os_now() + PATIENCE_NS;
  mpx_os_word_spin(&slot->relay, MPX_RELAY_NONE, MPX_OS_SPIN_NS);
  mpx_os_word_spin(&slot->relay, MPX_RELAY_REAPING, MPX_OS_SPIN_NS);
  mpx_slot *server_slot = mpx_table_slot(header, server);
  bool suspect = atomic_load_explicit(&stopped_server, memory_order_relaxed) == server;
  for (; !is_done(slot) && mpx_os_now() < deadline; suspect = true) {
    if (!server_slot || mpx_member_is_dead(header, server) ||
        (suspect && is_stopped(server, server_slot)))
      break;
    uint32_t seen = atomic_load_explicit(&slot->relay, memory_order_acquire);
    if (seen != MPX_RELAY_DONE)
      mpx_os_word_wait(&slot->relay, seen, mpx_os_now() + LOOK_NS);
  }
  return is_done(slot);
}

void mpx_relay_forget(mproc_process *process) {
  mpx_slot *slot = mpx_table_slot(mpx_family_header(), process->member);
  if (!slot)
    return;
  if (is_done(slot) || mpx_member_is_dead(mpx_family_header(), process->server))
    mpx_family_bury(process->member);
  else /* the server has yet to write in it; a sweep buries it then */
    slot->parent = 0;
  process->member = 0;
}

/* The server is dead, or stopped. */
static int ask_the_kernel(mproc_process *process) {
  const mpx_child *child = &process->child;
  process->exit = (mpx_exit){.state = MPROC_STATE_UNKNOWN, .code = -1};
  if (mpx_os_exit_of_stranger(child->pid, child->pidfd ? child->sentinel : MPX_NO_HANDLE,
                              &process->exit))
    return 1;
  /* A pipe may end before its process does. */
  return child->pidfd || !mpx_os_process_is_alive(child->pid, process->server_start_time);
}

int mpx_relay_poll(mproc_process *process) {
  mpx_header *header = mpx_family_header();
  mpx_slot *slot = mpx_table_slot(header, process->member);
  if (!slot) {
    process->exit = (mpx_exit){.state = MPROC_STATE_UNKNOWN, .code = -1};
    return 1;
  }
  if (!is_done(slot) && !has_ended(process))
    return 0;
  if (!is_done(slot) && !await_relay(header, slot, process->server))
    return ask_the_kernel(process);
  process->exit = slot->exit;
  return 1;
}
