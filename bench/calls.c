#define _GNU_SOURCE
#include "calls.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ARGUMENTS = 32 };

/* ---- running a program ----------------------------------------------------------------------- */

typedef struct helper {
  pid_t pid;
  int to;     /* its standard input: it ends when this is closed */
  FILE *from; /* its standard output */
  long client, server;
} helper;

#define NO_HELPER ((helper){.pid = -1, .to = -1})

static pid_t spawn(char *const *argv, int in, int out, int error) {
  posix_spawn_file_actions_t actions;
  pid_t pid;
  (void)posix_spawn_file_actions_init(&actions);
  (void)posix_spawn_file_actions_adddup2(&actions, in, STDIN_FILENO);
  (void)posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  (void)posix_spawn_file_actions_adddup2(&actions, error, STDERR_FILENO);
  int failed = posix_spawnp(&pid, argv[0], &actions, NULL, argv, environ);
  (void)posix_spawn_file_actions_destroy(&actions);
  return failed ? -1 : pid;
}

bool bench_has_program(const char *name) {
  char *argv[] = {(char *)(uintptr_t)name, (char[]){"--version"}, NULL};
  int null = open("/dev/null", O_RDWR | O_CLOEXEC), status = -1;
  pid_t pid = spawn(argv, null, null, null);
  (void)close(null);
  return pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
}

/* False when it could not be run, or did not say who it is. */
static bool begin(helper *h, char *const *argv) {
  int to[2], from[2];
  char line[64];
  if (pipe2(to, O_CLOEXEC) < 0)
    return false;
  if (pipe2(from, O_CLOEXEC) < 0) {
    (void)close(to[0]);
    (void)close(to[1]);
    return false;
  }
  h->pid = spawn(argv, to[0], from[1], STDERR_FILENO);
  (void)close(to[0]);
  (void)close(from[1]);
  h->to = to[1];
  h->from = fdopen(from[0], "r");
  return h->pid > 0 && h->from && fgets(line, sizeof line, h->from) &&
         sscanf(line, "%ld %ld", &h->client, &h->server) == 2;
}

static void end(helper *h) {
  if (h->to >= 0)
    (void)close(h->to);
  if (h->from)
    (void)fclose(h->from);
  if (h->pid > 0)
    (void)waitpid(h->pid, NULL, 0);
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* One line each; those of signals and ends begin with other characters. */
static double count_lines(const char *path) {
  char *line = NULL;
  size_t size = 0;
  double count = 0;
  FILE *file = fopen(path, "re");
  while (file && getline(&line, &size, file) > 0)
    count += (islower((unsigned char)line[0]) || line[0] == '_') && strchr(line, '(') != NULL;
  free(line);
  if (file)
    (void)fclose(file);
  return count;
}

/* One file for each process, calls.PID; they are removed. */
static bench_calls read_traces(const char *folder, const helper *h) {
  bench_calls calls = {0};
  DIR *stream = opendir(folder);
  for (struct dirent *entry; stream && (entry = readdir(stream));) {
    char path[PATH_MAX];
    long pid;
    if (sscanf(entry->d_name, "calls.%ld", &pid) != 1)
      continue;
    (void)snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
    double count = count_lines(path);
    *(pid == h->client ? &calls.client : pid == h->server ? &calls.server : &calls.others) += count;
    (void)unlink(path);
  }
  if (stream)
    (void)closedir(stream);
  return calls;
}

const char *bench_count_calls(char *const *argv, bench_calls *ret_calls) {
  char folder[] = "/tmp/bench_calls_XXXXXX", path[64];
  char *traced[ARGUMENTS] = {(char[]){"strace"},      (char[]){"-ff"},          (char[]){"-qq"},
                             (char[]){"-e"},          (char[]){"verbose=none"}, (char[]){"-e"},
                             (char[]){"signal=none"}, (char[]){"-o"},           path};
  size_t count = 9;
  helper h = NO_HELPER;
  if (!mkdtemp(folder))
    return "no folder in /tmp";
  (void)snprintf(path, sizeof path, "%s/calls", folder);
  for (size_t i = 0; argv[i] && count + 1 < ARGUMENTS; i++)
    traced[count++] = argv[i];
  bool good = begin(&h, traced);
  end(&h);
  bench_calls calls = read_traces(folder, &h);
  (void)rmdir(folder);
  if (!good || calls.client == 0)
    return bench_has_program("strace") ? "did not run under strace" : "no strace";
  *ret_calls = calls;
  return NULL;
}

/* ---- memory ---------------------------------------------------------------------------------- */

const char *bench_server_memory(char *const *argv, long *ret_kilobytes) {
  char path[64], line[256];
  long kilobytes = -1;
  helper h = NO_HELPER;
  bool good = begin(&h, argv) && h.server > 0;
  (void)snprintf(path, sizeof path, "/proc/%ld/smaps_rollup", good ? h.server : 0);
  FILE *file = fopen(path, "re");
  while (file && fgets(line, sizeof line, file))
    (void)sscanf(line, "Pss: %ld", &kilobytes);
  if (file)
    (void)fclose(file);
  end(&h);
  if (kilobytes < 0)
    return good ? "no /proc/PID/smaps_rollup" : "cannot be run";
  *ret_kilobytes = kilobytes;
  return NULL;
}
