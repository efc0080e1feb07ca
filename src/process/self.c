/* The calling process: who it is, who asked for it, what it was given. */
#include "base/error.h"
#include "heap/family.h"
#include "process/child.h"
#include "process/process.h"
#include "process/start.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Written while a child boots, before any other thread of it exists; read freely after. The
 * parent's slot may be another's once it is dead, so what is told of it is kept. */
static struct {
  mpx_member parent; /* 0 in the family's main process */
  mproc_process_info info;
  mproc_process_info parent_info;
  const mproc_inherit *inherited;
  size_t inherited_count;
} self = {.info = {.method = "main", .name = "MainProcess"}};

static mpx_os_mutex sentinel_lock;
static mproc_handle parent_sentinel = MPX_NO_HANDLE;

static void describe(const mpx_slot *slot, mproc_process_info *info) {
  info->pid = atomic_load_explicit(&slot->own_pid, memory_order_relaxed);
  info->daemon = (int)slot->daemon;
  info->method = slot->method ? mpx_method_name((mpx_method)slot->method) : "main";
  memcpy(info->name, slot->name, sizeof info->name);
  info->name[sizeof info->name - 1] = '\0';
}

void mpx_self_set(mpx_member member) {
  mpx_header *header = mpx_family_header();
  mpx_slot *slot = mpx_table_slot(header, member);
  mpx_os_close(parent_sentinel); /* of a forked child's parent: our grandparent */
  parent_sentinel = MPX_NO_HANDLE;
  mpx_os_mutex_init(&sentinel_lock);
  describe(slot, &self.info);
  self.parent = atomic_load_explicit(&slot->parent, memory_order_relaxed);
  mpx_slot *parent = mpx_table_slot(header, self.parent);
  if (parent)
    describe(parent, &self.parent_info);
}

static int fail_foreign(void) {
  return mpx_fail(MPROC_EFOREIGN,
                  "process %lld was made by a fork() that mproc does not know, and is nobody here: "
                  "make it with mproc_process_start()",
                  (long long)mpx_os_pid());
}

int mproc_current_process(mproc_process_info *ret_info) {
  int r = mpx_check_not_null(ret_info, "ret_info");
  if (r == 0 && mpx_family_is_foreign())
    r = fail_foreign();
  if (r < 0)
    return r;
  *ret_info = self.info;
  ret_info->pid = mpx_os_pid();
  return 0;
}

static int check_has_parent(void) {
  if (mpx_family_is_foreign())
    return fail_foreign();
  return self.parent
             ? 0
             : mpx_fail(-ESRCH, "this is the family's main process: it has no parent in it");
}

int mproc_parent_process(mproc_process_info *ret_info) {
  int r = mpx_check_not_null(ret_info, "ret_info");
  if (r == 0)
    r = check_has_parent();
  if (r == 0)
    *ret_info = self.parent_info;
  return r;
}

int mproc_parent_is_alive(void) {
  int r = check_has_parent();
  return r < 0 ? r : !mpx_member_is_dead(mpx_family_header(), self.parent);
}

/* The parent's number here. As long as it lives it is the system's parent too, which is called 0 in
 * another pid namespace; but for a forkserver's workers, who are in their parent's. */
static int64_t pid_of_parent(void) {
  bool by_server = strcmp(self.info.method, mpx_method_name(MPX_METHOD_FORKSERVER)) == 0;
  return by_server ? self.parent_info.pid : mpx_os_parent_pid();
}

/* The handle is opened by pid, and that is safe only if the parent still lives afterwards: then the
 * pid was its own all the time. A parent that is dead has a sentinel that says so. */
static int open_parent(void) {
  int64_t pid = pid_of_parent();
  int r = pid == 0 ? -ENOSYS : mpx_os_process_open(pid, &parent_sentinel);
  if (r == -ESRCH || mpx_member_is_dead(mpx_family_header(), self.parent)) {
    mpx_os_close(parent_sentinel);
    parent_sentinel = MPX_NO_HANDLE;
    r = mpx_os_ended_sentinel(&parent_sentinel);
  }
  return r;
}

int mproc_parent_sentinel(mproc_handle *ret_handle) {
  int r = mpx_check_not_null(ret_handle, "ret_handle");
  if (r == 0)
    r = check_has_parent();
  if (r < 0)
    return r;
  mpx_os_mutex_lock(&sentinel_lock);
  if (parent_sentinel == MPX_NO_HANDLE)
    r = open_parent();
  if (r == 0)
    *ret_handle = parent_sentinel;
  mpx_os_mutex_unlock(&sentinel_lock);
  return r < 0 ? mpx_fail(r, "no sentinel for the parent: %s%s", mproc_strerror(r),
                          r == -ENOSYS ? " (no pidfds, or it is in another pid namespace); ask "
                                         "mproc_parent_is_alive() from time to time"
                                       : "")
               : 0;
}

/* ---- inherited handles ----------------------------------------------------------------------- */

void mpx_inherited_set(const mproc_inherit *items, size_t count) {
  self.inherited = items;
  self.inherited_count = count;
}

int mproc_inherited(const char *name, mproc_handle *ret_handle) {
  char list[256] = "";
  int r = mpx_check_not_null(ret_handle, "ret_handle");
  if (r < 0)
    return r;
  for (size_t i = 0; name && i < self.inherited_count; i++) {
    if (strcmp(self.inherited[i].name, name) == 0) {
      *ret_handle = self.inherited[i].handle;
      return 0;
    }
    size_t used = strlen(list);
    (void)snprintf(list + used, sizeof list - used, "%s'%s'", used ? ", " : "",
                   self.inherited[i].name);
  }
  return mpx_fail(-ENOENT, "no handle was passed under the name '%s'; passed were: %s",
                  name ? name : "(null)", list[0] ? list : "none");
}

/* ---- hooks after fork ------------------------------------------------------------------------ */

typedef struct fork_hook {
  struct fork_hook *next;
  void (*run)(void *user);
  void *user;
} fork_hook;

static fork_hook *first_hook, **last_hook = &first_hook;

int mproc_after_fork(void (*hook)(void *user), void *user) {
  if (!hook)
    return mpx_fail(-EINVAL, "the hook is NULL");
  fork_hook *node = malloc(sizeof *node);
  if (!node)
    return mpx_fail_code(-ENOMEM, "mproc_after_fork");
  *node = (fork_hook){.run = hook, .user = user};
  mpx_registry_lock(); /* held around every fork: the child sees a whole list */
  *last_hook = node;
  last_hook = &node->next;
  mpx_registry_unlock();
  return 0;
}

void mpx_after_fork_run(void) {
  for (fork_hook *hook = first_hook; hook; hook = hook->next)
    hook->run(hook->user);
}

int mproc_cpu_count(void) {
  return mpx_os_cpu_count();
}
