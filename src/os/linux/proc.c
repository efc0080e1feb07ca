#define _GNU_SOURCE
#include "os/linux/proc.h"

#include "os/linux/kernel.h"
#include "os/os.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Field 52, the last one that is counted here. */
static int parse_exit_status(const char *rest) {
  for (int field = 2; rest && field < 52; field++) {
    rest = strchr(rest, ' ');
    rest = rest ? rest + 1 : NULL;
  }
  return rest ? atoi(rest) : 0;
}

/* The name, field 2, may hold spaces and parentheses; nothing after it does. */
int mpx_proc_parse_stat(const char *text, mpx_proc_stat *ret_stat) {
  const char *rest = strrchr(text, ')');
  mpx_proc_stat stat;
  /* Fields 3; 4 to 8; 9; 10 to 19; 20; 21; 22. */
  if (!rest ||
      sscanf(rest + 1,
             " %c %*s %*s %*s %*s %*s %u %*s %*s %*s %*s %*s %*s %*s %*s %*s %*s %d %*s %" SCNd64,
             &stat.state, &stat.flags, &stat.threads, &stat.start_time) != 4)
    return -EBADMSG;
  stat.exit_status = parse_exit_status(rest);
  *ret_stat = stat;
  return 0;
}

int mpx_proc_parse_kib(const char *text, const char *name, uint64_t *ret_bytes) {
  size_t length = strlen(name);
  for (const char *line = text; line; line = strchr(line, '\n')) {
    uint64_t kib;
    if (*line == '\n')
      line++;
    if (strncmp(line, name, length) != 0 || line[length] != ':' ||
        sscanf(line + length + 1, "%" SCNu64, &kib) != 1 || kib > UINT64_MAX / 1024)
      continue;
    *ret_bytes = kib * 1024;
    return 0;
  }
  return -ENOENT;
}

/* What was swapped out was written to as well. */
int mpx_proc_parse_memory_use(const char *text, uint64_t *ret_bytes) {
  uint64_t resident, swapped = 0;
  int r = mpx_proc_parse_kib(text, "RssAnon", &resident);
  if (r < 0)
    return r;
  (void)mpx_proc_parse_kib(text, "VmSwap", &swapped);
  *ret_bytes = resident + swapped;
  return 0;
}

uint32_t mpx_os_pid_namespace(void) {
  struct stat file;
  return stat("/proc/self/ns/pid", &file) == 0 ? (uint32_t)file.st_ino : 0;
}

/* A process that was put into a pid namespace of its own often has the /proc of the one before, in
 * which its numbers are those of others. */
static bool has_our_numbers(void) {
  char own[32], text[32];
  int size = snprintf(own, sizeof own, "%d", (int)getpid());
  return readlink("/proc/self", text, sizeof text) == size && memcmp(own, text, (size_t)size) == 0;
}

int64_t mpx_proc_read(int64_t pid, const char *file, char *text, size_t size) {
  char path[64];
  bool is_self = pid == getpid();
  if (is_self)
    (void)snprintf(path, sizeof path, "/proc/self/%s", file);
  else
    (void)snprintf(path, sizeof path, "/proc/%" PRId64 "/%s", pid, file);
  int64_t r = is_self || has_our_numbers() ? mpx_os_read_file(path, text, size) : -ENOENT;
  if (r == -ESRCH || (r == -ENOENT && access("/proc/self/stat", R_OK) == 0)) {
    /* /proc may be mounted to hide the processes of other users. */
    return kill((pid_t)pid, 0) < 0 && errno == ESRCH ? -ESRCH : -ENOSYS;
  }
  return r == -ENOENT ? -ENOSYS : r;
}

static int read_stat(int64_t pid, mpx_proc_stat *ret_stat) {
  char text[1024];
  int64_t r = mpx_proc_read(pid, "stat", text, sizeof text);
  return r < 0 ? (int)r : mpx_proc_parse_stat(text, ret_stat);
}

int64_t mpx_os_start_time(int64_t pid) {
  mpx_proc_stat stat;
  if (pid <= 0 || pid > INT32_MAX)
    return -ESRCH;
  int r = read_stat(pid, &stat);
  return r < 0 ? r : stat.start_time;
}

bool mpx_os_process_is_alive(int64_t pid, int64_t start_time) {
  mpx_proc_stat stat;
  if (pid <= 0 || pid > INT32_MAX || start_time == -ESRCH)
    return false;
  int r = read_stat(pid, &stat);
  if (r == -ESRCH)
    return false;
  if (r < 0) {
    MPX_SAY_ONCE("/proc does not show process %" PRId64 ": processes are told apart by pid only",
                 pid);
    return kill((pid_t)pid, 0) == 0 || errno == EPERM;
  }
  /* A first thread that ended before the others is a zombie in a process that lives. */
  bool ended = stat.state == 'X' || stat.state == 'x' || (stat.state == 'Z' && stat.threads <= 1);
  return !ended && (start_time < 0 || stat.start_time == start_time);
}

/* To those who may not know, the kernel says 0: that counts only for a process of our own user. */
bool mpx_os_process_is_stopped(int64_t pid) {
  mpx_proc_stat stopped;
  return read_stat(pid, &stopped) == 0 && (stopped.state == 'T' || stopped.state == 't');
}

/* PF_EXITING, PF_DUMPCORE, PF_SIGNALED of the kernel. */
bool mpx_os_process_is_ending(int64_t pid) {
  enum { ENDING = 0x4 | 0x200 | 0x400 };
  mpx_proc_stat stat;
  return read_stat(pid, &stat) < 0 || stat.state == 'Z' || stat.state == 'X' ||
         (stat.flags & ENDING) != 0;
}

int mpx_proc_zombie_status(int64_t pid, int *ret_status) {
  mpx_proc_stat zombie;
  struct stat owner;
  char path[64];
  (void)snprintf(path, sizeof path, "/proc/%" PRId64, pid);
  if (read_stat(pid, &zombie) < 0 || zombie.state != 'Z' || stat(path, &owner) < 0 ||
      (zombie.exit_status == 0 && owner.st_uid != geteuid()))
    return 0;
  *ret_status = zombie.exit_status;
  return 1;
}

int mpx_os_thread_count(void) {
  mpx_proc_stat stat;
  int r = read_stat(getpid(), &stat);
  return r < 0 ? -ENOSYS : stat.threads;
}

/* /proc shows a thread under its own number, though it does not list it. */
static bool thread_sleeps(int64_t tid) {
  mpx_proc_stat stat;
  return read_stat(tid, &stat) < 0 || stat.state != 'R';
}

bool mpx_os_other_threads_sleep(void) {
  DIR *folder = opendir("/proc/self/task");
  bool sleep = true;
  if (!folder)
    return true;
  for (struct dirent *entry; sleep && (entry = readdir(folder));) {
    int64_t tid = atoll(entry->d_name); /* 0: no thread */
    sleep = tid == 0 || tid == syscall(SYS_gettid) || thread_sleeps(tid);
  }
  (void)closedir(folder);
  return sleep;
}

bool mpx_os_is_main_thread(void) {
  return syscall(SYS_gettid) == getpid();
}
