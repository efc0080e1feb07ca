/* Whom the forkserver serves: it ends with the last of them. */
#include "process/serve.h"

mpx_client *mpx_client_find(mpx_member member) {
  for (size_t i = 0; i < mpx_serve.client_count; i++)
    if (mpx_serve.clients[i].member == member)
      return &mpx_serve.clients[i];
  return NULL;
}

/* The pid may be a stranger's by now, but only if the member is dead: then it is none of our
 * clients. */
mpx_client *mpx_client_know(mpx_member member) {
  mpx_client *known = mpx_client_find(member);
  mpx_slot *slot = mpx_table_slot(mpx_serve.header, member);
  if (known || !slot)
    return known;
  void *items = mpx_serve.clients;
  if (!mpx_serve_make_room(&items, &mpx_serve.client_capacity, mpx_serve.client_count,
                           sizeof *known))
    return NULL;
  mpx_serve.clients = items;
  known = &mpx_serve.clients[mpx_serve.client_count++];
  int64_t pid = mpx_slot_pid(slot);
  *known = (mpx_client){.member = member,
                        .sentinel = MPX_NO_HANDLE,
                        .pid = pid,
                        .start_time = mpx_os_start_time(pid)};
  (void)mpx_os_process_open(pid, &known->sentinel);
  if (!mpx_member_is_dead(mpx_serve.header, member))
    return known;
  mpx_os_close(known->sentinel);
  mpx_serve.client_count--;
  return NULL;
}

void mpx_clients_look(const mpx_poll_item *polls) {
  for (size_t i = mpx_serve.client_count; i-- > 0;) {
    mpx_client *one = &mpx_serve.clients[i];
    /* the process, not the member: that is dead when it executes another program */
    bool gone = one->sentinel != MPX_NO_HANDLE
                    ? polls[i].ready
                    : !mpx_os_process_is_alive(one->pid, one->start_time);
    if (!gone)
      continue;
    mpx_workers_kill_daemons_of(one->member);
    mpx_os_close(one->sentinel);
    *one = mpx_serve.clients[--mpx_serve.client_count];
  }
}
