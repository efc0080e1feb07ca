#include "sync/owner.h"

#include "base/error.h"
#include "heap/family.h"

#include <string.h>

int mpx_owner_say(mpx_thread thread, mproc_owner *ret_owner) {
  mpx_header *header = mpx_family_header();
  mproc_owner owner = {.state = MPROC_OWNER_NONE};
  int r = mpx_check_not_null(ret_owner, "ret_owner");
  if (r < 0)
    return r;
  if (thread) {
    mpx_slot *slot = mpx_table_slot(header, mpx_thread_member(header, thread));
    owner.state = mpx_thread_is_dead(header, thread) ? MPROC_OWNER_DEAD : MPROC_OWNER_RUNNING;
    int64_t pid = 0; /* what it is called here */
    if (slot) {
      pid = mpx_slot_pid(slot);
      owner.pid = atomic_load_explicit(&slot->own_pid, memory_order_relaxed);
      owner.is_main_thread =
          mpx_cell_thread(header, mpx_member_slot(mpx_thread_member(header, thread))) == thread;
      memcpy(owner.process_name, slot->name, sizeof owner.process_name);
      owner.process_name[sizeof owner.process_name - 1] = '\0';
    }
    if (owner.state == MPROC_OWNER_RUNNING && pid && mpx_os_process_is_stopped(pid))
      owner.state = MPROC_OWNER_STOPPED;
  }
  *ret_owner = owner;
  return 0;
}
