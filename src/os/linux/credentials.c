/* A child that executes the program again is to have the credentials of its parent, no more and no
 * less. An exec gives root all capabilities back and takes them from others, forgets saved ids,
 * and counts as set-user-ID where real and effective ids differ. So the child goes through it with
 * ids that are all the same, and with what it may have as ambient capabilities, and sets the rest
 * once it runs. */
#define _GNU_SOURCE
#include "os/linux/credentials.h"

#include <errno.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef PR_CAP_AMBIENT
#define PR_CAP_AMBIENT 47
#define PR_CAP_AMBIENT_IS_SET 1
#define PR_CAP_AMBIENT_RAISE 2
#define PR_CAP_AMBIENT_CLEAR_ALL 4
#endif

enum { CAPABILITIES = 64 };

typedef struct state {
  mpx_ids ids;
  mpx_capability_sets sets;
  uint64_t ambient;
} state;

_Static_assert(sizeof(state) <= sizeof(mpx_credentials), "the credentials fit");

bool mpx_capabilities_get(mpx_capability_sets *ret_sets) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  memset(ret_sets, 0, sizeof *ret_sets);
  return syscall(SYS_capget, &header, ret_sets->halves) == 0;
}

static void set_capabilities(const mpx_capability_sets *sets) {
  struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
  (void)syscall(SYS_capset, &header, sets->halves);
}

static bool is_in(uint64_t set, int capability) {
  return (set >> capability & 1) != 0;
}

static void raise_ambient(uint64_t set) {
  for (int i = 0; i < CAPABILITIES; i++)
    if (is_in(set, i))
      (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, i, 0, 0);
}

void mpx_ids_get(mpx_ids *ret_ids) {
  memset(ret_ids, 0, sizeof *ret_ids);
  (void)getresuid(&ret_ids->users[0], &ret_ids->users[1], &ret_ids->users[2]);
  (void)getresgid(&ret_ids->groups[0], &ret_ids->groups[1], &ret_ids->groups[2]);
}

static bool are_same(const uid_t ids[3]) {
  return ids[0] == ids[1] && ids[1] == ids[2];
}

static bool are_mixed(const mpx_ids *ids) {
  return !are_same(ids->users) || !are_same(ids->groups);
}

bool mpx_os_has_mixed_ids(void) {
  mpx_ids ids;
  mpx_ids_get(&ids);
  return are_mixed(&ids);
}

static void get(state *now) {
  memset(now, 0, sizeof *now);
  mpx_ids_get(&now->ids);
  (void)mpx_capabilities_get(&now->sets);
  /* The ambient ones are among the inheritable. */
  if (now->sets.halves[0].inheritable || now->sets.halves[1].inheritable)
    for (int i = 0; i < CAPABILITIES; i++)
      if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, i, 0, 0) == 1)
        now->ambient |= (uint64_t)1 << i;
}

static bool has_root(const uid_t users[3]) {
  return users[0] == 0 || users[1] == 0 || users[2] == 0;
}

int mpx_os_credentials_get(mpx_credentials *ret_credentials) {
  state now;
  get(&now);
  if (!are_same(now.ids.users) && !has_root(now.ids.users))
    return -EPERM;
  memset(ret_credentials, 0, sizeof *ret_credentials);
  memcpy(ret_credentials, &now, sizeof now);
  return 0;
}

int mpx_os_credentials_set(const mpx_credentials *credentials) {
  state wanted, now;
  memcpy(&wanted, credentials, sizeof wanted);
  get(&now);
  if (memcmp(&now, &wanted, sizeof now) == 0)
    return 0;
  for (int i = 0; i < 2; i++)
    now.sets.halves[i].effective = now.sets.halves[i].permitted;
  set_capabilities(&now.sets); /* the next two may need them */
  (void)(setresgid(wanted.ids.groups[0], wanted.ids.groups[1], wanted.ids.groups[2]) < 0);
  (void)(setresuid(wanted.ids.users[0], wanted.ids.users[1], wanted.ids.users[2]) < 0);
  (void)prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
  set_capabilities(&wanted.sets);
  raise_ambient(wanted.ambient);
  get(&now);
  return memcmp(&now, &wanted, sizeof now) == 0 ? 0 : -EPERM;
}

/* ---- the child of a spawn -------------------------------------------------------------------- */

/* By system calls: those of libc would change all threads that this memory knows, which are the
 * parent's. Root among the three is the one that can get the others back. */
static void unite_ids(const state *wanted, mproc_handle record) {
  gid_t group = wanted->ids.groups[0];
  if (!are_same(wanted->ids.groups))
    (void)syscall(SYS_setresgid, group, group, group);
  if (are_same(wanted->ids.users) || syscall(SYS_setresuid, 0, 0, 0) < 0)
    return;
  (void)(fchown((int)record, 0, (gid_t)-1) < 0); /* a program trusts none but its own user's */
}

/* An exec by root gives them by itself. */
static void keep_capabilities(const state *wanted) {
  mpx_capability_sets sets = wanted->sets;
  uint64_t permitted = (uint64_t)sets.halves[1].permitted << 32 | sets.halves[0].permitted;
  if (permitted == 0 || has_root(wanted->ids.users))
    return;
  for (int i = 0; i < 2; i++)
    sets.halves[i].inheritable |= sets.halves[i].permitted;
  set_capabilities(&sets);
  raise_ambient(permitted);
}

bool mpx_credentials_change_ids(const mpx_credentials *credentials) {
  state wanted;
  memcpy(&wanted, credentials, sizeof wanted);
  return are_mixed(&wanted.ids);
}

void mpx_credentials_before_exec(const mpx_credentials *credentials, mproc_handle record) {
  state wanted;
  memcpy(&wanted, credentials, sizeof wanted);
  unite_ids(&wanted, record);
  keep_capabilities(&wanted);
}
