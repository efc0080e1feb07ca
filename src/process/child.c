#include "process/child.h"

#include "base/error.h"
#include "heap/family.h"
#include "os/crash_point.h"
#include "process/guardian.h"
#include "process/process.h"
#include "process/server.h"
#include "sync/bell.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the report ------------------------------------------------------------------------------ */

void mpx_report_send(mproc_handle to, int code, const char *text) {
  mpx_report report = {.code = code};
  (void)snprintf(report.text, sizeof report.text, "%s", text);
  (void)mpx_os_write(to, &report, sizeof report);
}

int mpx_report_receive(mproc_handle from, const mpx_child *child, int64_t deadline,
                       const char *name) {
  mpx_report report;
  mpx_poll_item items[] = {{.handle = from}, {.handle = child->sentinel}};
  if (mpx_os_poll(items, 2, deadline) == 0)
    return mpx_fail(-ETIMEDOUT,
                    "'%s' (process %lld) did not reach its entry in time; does its program "
                    "call mproc_init() first in main()?",
                    name, (long long)child->pid);
  /* The child may have written and died since: what it wrote comes first. A copy of the pipe in
   * some stranger's fork must not make us wait for its end. */
  items[0].ready = false;
  if (mpx_os_poll(items, 1, 0) == 0 ||
      mpx_os_read(from, &report, sizeof report) != (int64_t)sizeof report)
    return 1;
  report.text[sizeof report.text - 1] = '\0';
  return report.code == 0 ? 0 : mpx_fail(report.code, "%s", report.text);
}

/* ---- the end --------------------------------------------------------------------------------- */

/* The parent must be able to name us before we are gone: until then a pid is all it has, and its
 * own SIGCHLD loop may give that pid back to the system. A dead parent needs no name. */
static void wait_for_gate(mpx_slot *slot, mpx_header *header, mpx_member self) {
  /* the parent is at it right now */
  mpx_os_word_spin(&slot->gate, MPX_GATE_CLOSED, MPX_OS_SPIN_NS);
  while (atomic_load_explicit(&slot->gate, memory_order_acquire) != MPX_GATE_OPEN) {
    uint32_t closed = MPX_GATE_CLOSED;
    (void)atomic_compare_exchange_strong(&slot->gate, &closed, MPX_GATE_WAITED_FOR);
    mpx_os_word_wait(&slot->gate, MPX_GATE_WAITED_FOR, mpx_os_now() + 100 * MPX_NS_PER_MS);
    mpx_member parent = atomic_load_explicit(&slot->parent, memory_order_relaxed);
    if (parent == 0 || mpx_member_is_dead(header, parent) || !mpx_table_slot(header, self))
      break;
  }
}

void mpx_child_leave_parent(void) {
  mpx_registry_reset_in_child();
  mpx_server_reset_in_child();
  mpx_guardian_reset_in_child();
  mpx_bell_reset_in_child();
}

void mpx_gate_open(mpx_slot *slot) {
  /* release: the child may end now, and be seen as ended under the name we have for it */
  if (atomic_exchange_explicit(&slot->gate, MPX_GATE_OPEN, memory_order_acq_rel) ==
      MPX_GATE_WAITED_FOR)
    mpx_os_word_wake_all(&slot->gate);
}

bool mpx_gate_pass(mpx_header *header, mpx_member member) {
  mpx_slot *slot = mpx_table_slot(header, member);
  if (slot)
    wait_for_gate(slot, header, member);
  return slot && mpx_table_slot(header, member) == slot &&
         atomic_load_explicit(&slot->gate, memory_order_acquire) == MPX_GATE_OPEN;
}

static mpx_slot *own_slot(void) {
  mpx_header *header = mpx_family_header();
  return header ? mpx_table_slot(header, mpx_family_self()) : NULL;
}

/* Runs after the exit handlers that the entry registered and instead of all earlier ones. */
static void finish(int code) {
  mpx_slot *slot = own_slot();
  if (!slot) /* a stranger's fork of this child: nothing here is its business */
    return;
  mpx_exit_children();
  mpx_os_stdio_finish();
  wait_for_gate(slot, mpx_family_header(), mpx_family_self());
  MPROC_CRASH_POINT("child.finish.unrecorded");
  /* The last act: a kill after it would be taken for this end where the kernel's word is lost.
   * release: pairs with the acquire of whoever finds us gone and looks here for the code */
  atomic_store_explicit(&slot->record, 0x100u | (uint32_t)(code & 0xff), memory_order_release);
  MPROC_CRASH_POINT("child.finish.recorded");
  mpx_os_exit_now(code & 0xff);
}

/* Where the system cannot tell exit()'s code to a handler, only a normal return is ended by us:
 * after an exit() the earlier handlers run too, and the kernel's word is the only one on the
 * code. */
static int returned_code = -1;

static void finish_returned(void) {
  mpx_slot *slot = own_slot();
  if (returned_code >= 0) {
    finish(returned_code);
  } else if (slot) {
    mpx_exit_children();
    wait_for_gate(slot, mpx_family_header(), mpx_family_self());
  }
}

void mpx_child_set_barrier(void) {
  if (mpx_os_at_exit_barrier(finish) < 0)
    (void)atexit(finish_returned);
}

void mpx_child_run(mproc_entry *entry, void *arg, size_t size, bool guarded) {
  mpx_slot *slot = own_slot();
  if (guarded && slot) {
    wait_for_gate(slot, mpx_family_header(), mpx_family_self());
    /* The parent died before the guardian knew of us. */
    if (slot->daemon && atomic_load_explicit(&slot->gate, memory_order_acquire) != MPX_GATE_OPEN)
      mpx_os_exit_now(1);
  }
  returned_code = entry(arg, size) & 0xff;
  exit(returned_code);
}
