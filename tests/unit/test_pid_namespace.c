/* A program that has put its children into a pid namespace of their own, as runtimes of containers
 * do: numbers of processes mean something else there, and the first process keeps it alive. */
#include "harness.h"
#include "members.h"
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
  const mproc_process_options options = {.method = "forkserver",
                                         .context = *(const mproc_context *const *)arg};
  (void)size;
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

/* The context is for it to ask, if it likes. */
static void in_asker_of(const mproc_context *context, mproc_entry *entry) {
  if (geteuid() != 0)
    SKIP("only root can make a pid namespace");
  mproc_status status = end_of(start_by("fork", entry, &context, sizeof context));
  if (status.code == 77)
    SKIP("not allowed here");
  CHECK_EQ(status.state, MPROC_STATE_EXITED);
  CHECK_EQ(status.code, 0);
}

static void in_asker(mproc_entry *entry) {
  in_asker_of(NULL, entry);
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

/* Nor does what the server may have begun for them. */
TEST(refused_starts_leave_no_slot) {
  mproc_context *context;
  const mproc_context_options options = {.method = "forkserver", .spares = 2};
  CHECK_EQ(mproc_context_create(&context, &options), 0);
  const mproc_process_options by_server = {.context = context};
  check_exited(start_with(&by_server, return_code, &(int){0}, sizeof(int)), 0);
  mpx_family_sweep(true);
  const int before = used_slots();
  for (int i = 0; i < 10; i++)
    in_asker_of(context, refuse);
  int64_t end = now_ms() + JOIN_MS;
  for (mpx_family_sweep(true); used_slots() != before && now_ms() < end; sleep_ms(2))
    mpx_family_sweep(true);
  CHECK_EQ(used_slots(), before);
  mproc_context_destroy(context);
}

/* ---- owners that are called the same --------------------------------------------------------- */

enum { SIDES = 2, SOON_MS = 5000, NOT_ALLOWED = 77 };

static int try_namespace(void *arg, size_t size) {
  (void)arg, (void)size;
  return unshare(CLONE_NEWPID) < 0 ? NOT_ALLOWED : 0;
}

static void need_namespaces(void) {
  in_asker(try_namespace);
}

/* In the shared heap. */
typedef struct sides {
  mproc_lock *lock[SIDES];
  mproc_rlock *rlock[SIDES];
  mproc_semaphore *permits;
  mproc_queue *queue;
  mproc_message message[SIDES];
  int number[SIDES];
  _Atomic int64_t outer_pid[SIDES];
  _Atomic int holding, checked, go;
} sides;

typedef struct side {
  sides *all;
  int index;
} side;

static sides *new_sides(void) {
  const mproc_semaphore_options tracked = {.tracked = 1};
  sides *all = mproc_heap_calloc(1, sizeof *all);
  CHECK(all != NULL);
  CHECK_EQ(mproc_semaphore_create(SIDES, &tracked, &all->permits), 0);
  CHECK_EQ(mproc_queue_create(NULL, &all->queue), 0);
  for (int i = 0; i < SIDES; i++) {
    CHECK_EQ(mproc_lock_create(&all->lock[i]), 0);
    CHECK_EQ(mproc_rlock_create(&all->rlock[i]), 0);
    CHECK_EQ(mproc_queue_put(all->queue, &i, sizeof i, 0), 0);
  }
  return all;
}

static void free_sides(sides *all) {
  for (int i = 0; i < SIDES; i++) {
    CHECK_EQ(mproc_lock_destroy(all->lock[i]), 0);
    CHECK_EQ(mproc_rlock_destroy(all->rlock[i]), 0);
  }
  CHECK_EQ(mproc_semaphore_destroy(all->permits), 0);
  CHECK_EQ(mproc_queue_destroy(all->queue), 0);
  CHECK_EQ(mproc_heap_free(all), 0);
}

static void hold_all(sides *all, int i) {
  CHECK_EQ(mproc_lock_acquire(all->lock[i], 0), 0);
  CHECK_EQ(mproc_rlock_acquire(all->rlock[i], 0), 0);
  CHECK_EQ(mproc_semaphore_acquire(all->permits, 0), 0);
  CHECK_EQ(mproc_queue_get_begin(all->queue, &all->message[i], 0), 0);
  all->number[i] = *(const int *)all->message[i].data;
}

/* Nothing of the other's, who has the same number, is taken for one's own. */
static void check_from_inside(sides *all, int other) {
  mproc_owner owner;
  mproc_message message;
  CHECK_EQ(mproc_rlock_acquire(all->rlock[other], 0), -EAGAIN);
  CHECK_EQ(mproc_rlock_release(all->rlock[other]), -EPERM);
  CHECK_EQ(mproc_lock_acquire(all->lock[other], 0), -EAGAIN);
  CHECK_EQ(mproc_semaphore_acquire(all->permits, 0), -EAGAIN);
  CHECK_EQ(mproc_semaphore_release(all->permits, 2), -EPERM);
  CHECK_EQ(mproc_queue_get_commit(all->queue, &all->message[other]), -EINVAL);
  CHECK_EQ(mproc_queue_get_begin(all->queue, &message, 0), -EAGAIN);
  CHECK_EQ(mproc_lock_owner(all->lock[other], &owner), 0);
  CHECK_EQ(owner.state, MPROC_OWNER_RUNNING);
  CHECK_EQ(owner.pid, 1);
}

static int be_first(void *arg, size_t size) {
  const side *s = arg;
  (void)size;
  CHECK_EQ(getpid(), 1);
  hold_all(s->all, s->index);
  s->all->holding++;
  AWAIT(s->all->holding == SIDES);
  check_from_inside(s->all, 1 - s->index);
  s->all->checked++;
  AWAIT(s->all->go);
  CHECK_EQ(mproc_lock_release(s->all->lock[s->index]), 0);
  CHECK_EQ(mproc_rlock_release(s->all->rlock[s->index]), 0);
  CHECK_EQ(mproc_semaphore_release(s->all->permits, 1), 0);
  CHECK_EQ(mproc_queue_get_commit(s->all->queue, &s->all->message[s->index]), 0);
  return 0;
}

static int start_side(void *arg, size_t size) {
  const side *s = arg;
  CHECK_EQ(unshare(CLONE_NEWPID), 0);
  mproc_process *child = start_by("fork", be_first, s, size);
  s->all->outer_pid[s->index] = mproc_process_pid(child);
  mproc_status status = end_of(child);
  return status.state == MPROC_STATE_SIGNALED ? 100 + status.signal : status.code;
}

static void check_owners(const sides *all, mproc_owner_state first, mproc_owner_state second) {
  const mproc_owner_state states[SIDES] = {first, second};
  mproc_owner owner[SIDES], again;
  for (int i = 0; i < SIDES; i++) {
    CHECK_EQ(mproc_lock_owner(all->lock[i], &owner[i]), 0);
    CHECK_EQ(owner[i].state, states[i]);
    CHECK_EQ(owner[i].pid, 1);
    CHECK_EQ(mproc_rlock_owner(all->rlock[i], &again), 0);
    CHECK_EQ(again.state, states[i]);
    CHECK_STR(again.process_name, owner[i].process_name);
  }
  CHECK(strcmp(owner[0].process_name, owner[1].process_name) != 0);
}

static void check_taken_from_the_dead(sides *all) {
  int number;
  CHECK_EQ(mproc_lock_acquire(all->lock[0], SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_rlock_acquire(all->rlock[0], SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_semaphore_acquire(all->permits, SOON_MS), MPROC_OWNER_DIED);
  CHECK_EQ(mproc_queue_get(all->queue, &number, sizeof number, NULL, SOON_MS), 0);
  CHECK_EQ(number, all->number[0]);
  CHECK_EQ(mproc_lock_acquire(all->lock[1], 200), -ETIMEDOUT);
  CHECK_EQ(mproc_rlock_acquire(all->rlock[1], 0), -EAGAIN);
  CHECK_EQ(mproc_semaphore_acquire(all->permits, 120), -ETIMEDOUT);
  CHECK_EQ(mproc_queue_get(all->queue, &number, sizeof number, NULL, 120), -ETIMEDOUT);
  CHECK_EQ(mproc_lock_release(all->lock[0]), 0);
  CHECK_EQ(mproc_rlock_release(all->rlock[0]), 0);
  CHECK_EQ(mproc_semaphore_release(all->permits, 1), 0);
}

TEST(owners_of_one_number_in_two_namespaces) {
  need_namespaces();
  sides *all = new_sides();
  mproc_process *askers[SIDES];
  for (int i = 0; i < SIDES; i++)
    askers[i] = start_by("fork", start_side, &(side){all, i}, sizeof(side));
  AWAIT(all->checked == SIDES);
  for (int i = 0; i < SIDES; i++)
    AWAIT(all->outer_pid[i] != 0);
  CHECK_EQ(all->number[0] + all->number[1], 1);
  check_owners(all, MPROC_OWNER_RUNNING, MPROC_OWNER_RUNNING);
  CHECK_EQ(kill((pid_t)all->outer_pid[1], SIGSTOP), 0);
  CHECK(stopped_within(all->outer_pid[1], SOON_MS));
  check_owners(all, MPROC_OWNER_RUNNING, MPROC_OWNER_STOPPED);
  CHECK_EQ(kill((pid_t)all->outer_pid[1], SIGCONT), 0);
  CHECK_EQ(kill((pid_t)all->outer_pid[0], SIGKILL), 0);
  check_taken_from_the_dead(all);
  all->go = 1;
  check_exited(askers[0], 100 + SIGKILL);
  check_exited(askers[1], 0);
  free_sides(all);
}

/* ---- a descriptor ---------------------------------------------------------------------------- */

/* In the shared heap. */
typedef struct handover {
  mproc_connection *first, *second;
} handover;

static int send_descriptor(void *arg, size_t size) {
  const handover *h = arg;
  int ends[2];
  (void)size;
  CHECK_EQ(pipe(ends), 0);
  CHECK_EQ(write(ends[1], "hello", 5), 5);
  return mproc_connection_send_handle(h->second, ends[0], SOON_MS) == 0 ? 0 : 1;
}

/* Started from outside, where it has another number than for who is in here with it. */
static int receive_descriptor(void *arg, size_t size) {
  handover h;
  mproc_handle handle;
  char text[8] = "";
  (void)arg, (void)size;
  CHECK_EQ(getpid(), 1);
  CHECK_EQ(mproc_pipe_create(NULL, &h.first, &h.second), 0);
  if (mproc_connection_recv_handle(h.first, &handle, 0) == -ENOSYS)
    return NOT_ALLOWED; /* the system hands none over */
  mproc_process *sender = start_by("fork", send_descriptor, &h, sizeof h);
  CHECK_EQ(mproc_connection_give(h.second, mproc_process_pid(sender)), 0);
  CHECK_EQ(mproc_connection_recv_handle(h.first, &handle, SOON_MS), 0);
  CHECK_EQ(read((int)handle, text, sizeof text), 5);
  CHECK_STR(text, "hello");
  check_exited(sender, 0);
  CHECK_EQ(mproc_connection_close(h.first), 0);
  return 0;
}

static int start_receiver(void *arg, size_t size) {
  if (unshare(CLONE_NEWPID) < 0)
    return NOT_ALLOWED;
  mproc_status status = end_of(start_by("fork", receive_descriptor, arg, size));
  CHECK_EQ(status.state, MPROC_STATE_EXITED);
  return status.code;
}

TEST(descriptor_goes_between_two_of_one_namespace) {
  in_asker(start_receiver);
}

/* ---- numbers that are chosen ----------------------------------------------------------------- */

typedef struct namesake {
  mproc_lock *lock;
  mproc_connection *first, *second;
  int number;
  _Atomic int pid, go;
} namesake;

static int in_namespace(void *arg, size_t size, mproc_entry *entry) {
  CHECK_EQ(unshare(CLONE_NEWPID), 0);
  mproc_status status = end_of(start_by("fork", entry, arg, size));
  CHECK_EQ(status.state, MPROC_STATE_EXITED);
  return status.code;
}

/* What this namespace calls its next process. */
static bool choose_number(int64_t pid) {
  FILE *file = fopen("/proc/sys/kernel/ns_last_pid", "we");
  bool written = file && fprintf(file, "%lld", (long long)pid - 1) > 0;
  return file && fclose(file) == 0 && written;
}

static int hold_lock(void *arg, size_t size) {
  namesake *n = *(namesake **)arg;
  (void)size;
  CHECK_EQ(mproc_lock_acquire(n->lock, 0), 0);
  n->pid = getpid();
  AWAIT(n->go);
  return mproc_lock_release(n->lock);
}

static int start_namesake(void *arg, size_t size) {
  namesake *n = *(namesake **)arg;
  if (!choose_number(n->number)) {
    n->pid = -1;
    return NOT_ALLOWED;
  }
  check_exited(start_by("fork", hold_lock, arg, size), 0);
  return 0;
}

static int start_namesake_in_namespace(void *arg, size_t size) {
  return in_namespace(arg, size, start_namesake);
}

/* A stranger has here the number that an owner has in its own namespace. */
TEST(owner_with_the_number_of_a_stranger) {
  need_namespaces();
  namesake *n = mproc_heap_calloc(1, sizeof *n);
  mproc_owner owner;
  int status;
  CHECK_EQ(mproc_lock_create(&n->lock), 0);
  CHECK_EQ(mproc_pipe_create(NULL, &n->first, &n->second), 0);
  pid_t stranger = fork();
  if (stranger == 0) {
    raise(SIGSTOP);
    _exit(0);
  }
  CHECK(stopped_within(stranger, SOON_MS));
  n->number = stranger;
  mproc_process *asker = start_by("fork", start_namesake_in_namespace, &n, sizeof n);
  AWAIT(n->pid != 0);
  bool is_namesake = n->pid == stranger;
  if (is_namesake) {
    CHECK_EQ(mproc_lock_owner(n->lock, &owner), 0);
    CHECK_EQ(owner.state, MPROC_OWNER_RUNNING); /* the stranger is stopped */
    CHECK_EQ(owner.pid, stranger);
    CHECK_EQ(mproc_connection_give(n->second, stranger), -ESRCH);
    CHECK_EQ(mproc_connection_give(n->second, mproc_process_pid(asker)), 0);
  }
  n->go = 1;
  check_exited(asker, n->pid < 0 ? NOT_ALLOWED : 0);
  CHECK_EQ(kill(stranger, SIGKILL), 0);
  CHECK_EQ(waitpid(stranger, &status, 0), stranger);
  CHECK_EQ(mproc_connection_close(n->second), 0);
  CHECK_EQ(mproc_connection_close(n->first), 0);
  CHECK_EQ(mproc_lock_destroy(n->lock), 0);
  CHECK_EQ(mproc_heap_free(n), 0);
  if (!is_namesake)
    SKIP("a process's number cannot be chosen here");
}

static int be_there(void *arg, size_t size) {
  namesake *n = *(namesake **)arg;
  n->pid = getpid();
  return sleep_for_long(arg, size);
}

/* A dead member, whom nobody has buried yet, has left its number to another one. */
static int give_to_successor(void *arg, size_t size) {
  namesake *n = *(namesake **)arg;
  mproc_process *dead = start_by("fork", be_there, arg, size);
  int64_t pid = mproc_process_pid(dead);
  int status;
  AWAIT(n->pid == pid);
  n->pid = 0;
  CHECK_EQ(kill((pid_t)pid, SIGKILL), 0);
  CHECK_EQ(waitpid((pid_t)pid, &status, 0), pid);
  if (!choose_number(pid))
    return NOT_ALLOWED;
  mproc_process *successor = start_by("fork", be_there, arg, size);
  if (mproc_process_pid(successor) != pid)
    return NOT_ALLOWED;
  CHECK_EQ(mproc_connection_give(n->second, pid), 0);
  CHECK_EQ(mproc_connection_send(n->first, "hello", 5, 0), 0);
  AWAIT(n->pid != 0);
  kill_child(successor);
  AWAIT(mproc_connection_send(n->first, "hello", 5, 0) == MPROC_ECLOSED); /* a look is due */
  (void)end_of(dead);
  return 0;
}

static int give_to_successor_in_namespace(void *arg, size_t size) {
  return in_namespace(arg, size, give_to_successor);
}

TEST(connection_given_to_the_successor_of_a_dead_process) {
  need_namespaces();
  namesake *n = mproc_heap_calloc(1, sizeof *n);
  CHECK_EQ(mproc_pipe_create(NULL, &n->first, &n->second), 0);
  mproc_status status = end_of(start_by("fork", give_to_successor_in_namespace, &n, sizeof n));
  CHECK_EQ(status.state, MPROC_STATE_EXITED);
  if (status.code == NOT_ALLOWED)
    SKIP("a process's number cannot be chosen here");
  CHECK_EQ(status.code, 0);
}
