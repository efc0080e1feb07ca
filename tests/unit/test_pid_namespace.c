/* A program that has put its children into a pid namespace of their own, as runtimes of containers
 * do: numbers of processes mean something else there, and the first process keeps it alive. */
#include "harness.h"
#include "processes.h"

#include <sched.h>

/* In the shared heap. */
typedef struct board {
  _Atomic int alive, sentinel, pid, go;
} board;

static int look_at_parent(void *arg, size_t size) {
  board *b = *(board **)arg;
  mproc_handle handle;
  (void)size;
  b->pid = getpid();
  b->alive = mproc_parent_is_alive();
  b->sentinel = mproc_parent_sentinel(&handle);
  AWAIT(b->go);
  return 0;
}

static board *new_board(void) {
  board *b = mproc_heap_calloc(1, sizeof *b);
  CHECK(b != NULL);
  b->sentinel = 1;
  return b;
}

static int see_from_inside(const char *method) {
  if (unshare(CLONE_NEWPID) < 0)
    return 77;
  board *b = new_board();
  mproc_process *child = start_by(method, look_at_parent, &b, sizeof b);
  AWAIT(b->sentinel != 1);
  CHECK_EQ(b->pid, 1);
  CHECK_EQ(b->alive, 1);
  CHECK_EQ(b->sentinel, -ENOSYS); /* never one that says it is dead */
  /* while the first lives, others come and go */
  check_exited(start_by("fork", return_code, &(int){3}, sizeof(int)), 3);
  check_exited(start_by("spawn", return_code, &(int){4}, sizeof(int)), 4);
  b->go = 1;
  check_exited(child, 0);
  CHECK_EQ(mproc_heap_free(b), 0);
  return 0;
}

static int by_fork(void *arg, size_t size) {
  (void)arg, (void)size;
  return see_from_inside("fork");
}

static int by_spawn(void *arg, size_t size) {
  (void)arg, (void)size;
  return see_from_inside("spawn");
}

/* What would have to be nobody's child would be the last of the namespace too. A thread that could
 * want a guardian cannot be made there. */
static int refuse(void *arg, size_t size) {
  const mproc_process_options options = {.method = "forkserver"};
  (void)arg, (void)size;
  if (unshare(CLONE_NEWPID) < 0)
    return 77;
  mproc_process *process = create_with(&options, return_code, &(int){5}, sizeof(int));
  CHECK_EQ(mproc_process_start(process), -EOPNOTSUPP);
  CHECK_CONTAINS(mproc_error_detail(), "pid namespace of their own");
  CHECK_EQ(mproc_process_close(process), 0);
  const mproc_process_options daemon = {.method = "spawn", .daemon = 1};
  check_exited(start_with(&daemon, return_code, &(int){5}, sizeof(int)), 5); /* nothing is spoilt */
  return 0;
}

static void in_asker(mproc_entry *entry) {
  if (geteuid() != 0)
    SKIP("only root can make a pid namespace");
  mproc_status status = end_of(start_by("fork", entry, NULL, 0));
  if (status.code == 77)
    SKIP("not allowed here");
  CHECK_EQ(status.state, MPROC_STATE_EXITED);
  CHECK_EQ(status.code, 0);
}

TEST(forked_child_in_a_new_pid_namespace) {
  in_asker(by_fork);
}

TEST(spawned_child_in_a_new_pid_namespace) {
  in_asker(by_spawn);
}

TEST(forkserver_is_refused_in_a_new_pid_namespace) {
  in_asker(refuse);
}
