/* Processes as /proc shows them: of a case, of its children, of strangers. */
#ifndef MPROC_TEST_PROC_H
#define MPROC_TEST_PROC_H

#include "files.h"
#include "harness.h"

#include <dirent.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHILDREN_MAX = 4096 };

typedef struct process_view {
  char state; /* a letter; 0: there is no such process */
  int64_t parent;
  char name[64];
} process_view;

static inline process_view look_at(int64_t pid) {
  process_view view = {0};
  char path[64], text[512];
  snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  const char *begin = read_file(path, text, sizeof text) ? strchr(text, '(') : NULL;
  const char *end = begin ? strrchr(begin, ')') : NULL; /* a name may have any characters */
  if (end && sscanf(end + 1, " %c %" SCNd64, &view.state, &view.parent) == 2)
    snprintf(view.name, sizeof view.name, "%.*s", (int)(end - begin - 1), begin + 1);
  return view;
}

static inline char state_of(int64_t pid) {
  return look_at(pid).state;
}

/* 0 when there is no such process. */
static inline int64_t parent_of(int64_t pid) {
  return look_at(pid).parent;
}

/* A zombie is gone: it runs no more, and when it disappears is its parent's business. */
static inline bool is_end(char state) {
  return state == 0 || state == 'Z' || state == 'X';
}

static inline bool is_gone(int64_t pid) {
  return is_end(state_of(pid));
}

/* The children that live; zombies are not counted. */
static inline int children_of(int64_t parent, int64_t *pids, int limit) {
  DIR *folder = opendir("/proc");
  int count = 0;
  CHECK(folder != NULL);
  for (struct dirent *entry; (entry = readdir(folder));) {
    int64_t pid = atoll(entry->d_name);
    if (pid <= 0 || count == limit)
      continue;
    process_view view = look_at(pid);
    if (view.parent == parent && !is_end(view.state))
      pids[count++] = pid;
  }
  closedir(folder);
  return count;
}

static inline int count_children(int64_t parent) {
  int64_t pids[CHILDREN_MAX];
  return children_of(parent, pids, CHILDREN_MAX);
}

/* The guardian of a process of this case: an orphan, so a child of the case's runner, which is a
 * subreaper. 0 when there is none; there may be one only. */
static inline int64_t guardian_below(int64_t runner) {
  int64_t pids[CHILDREN_MAX], found = 0;
  int count = children_of(runner, pids, CHILDREN_MAX);
  for (int i = 0; i < count; i++)
    if (strncmp(look_at(pids[i]).name, "mproc:guardian", 14) == 0) {
      CHECK_EQ(found, 0);
      found = pids[i];
    }
  return found;
}

/* -1 when there is no such process. */
static inline int descriptors_of(int64_t pid) {
  char path[64];
  int count = 0;
  snprintf(path, sizeof path, "/proc/%lld/fd", (long long)pid);
  DIR *folder = opendir(path);
  if (!folder)
    return -1;
  for (struct dirent *entry; (entry = readdir(folder));)
    count += entry->d_name[0] != '.';
  closedir(folder);
  return count;
}

/* The open descriptors of this process; the one that lists them is not counted. */
static inline int descriptor_count(void) {
  int count = descriptors_of(getpid());
  CHECK(count > 0);
  return count - 1;
}

/* Anonymous resident memory in KiB: what a leak would make grow. Here each page is looked at; the
 * counts in /proc/PID/status may be wrong by many. */
static inline long resident_of(int64_t pid) {
  char path[64], line[256];
  long sum = -1, kib;
  snprintf(path, sizeof path, "/proc/%lld/smaps", (long long)pid);
  FILE *file = fopen(path, "re");
  while (file && fgets(line, sizeof line, file))
    if (sscanf(line, "Anonymous: %ld", &kib) == 1)
      sum = (sum < 0 ? 0 : sum) + kib;
  if (file)
    fclose(file);
  return sum;
}

#endif
