/* The descriptors of a process as text, to be compared and shown. */
#ifndef MPROC_TEST_DESCRIPTORS_H
#define MPROC_TEST_DESCRIPTORS_H

#include "harness.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 64, DESCRIPTOR_TEXT = 120 };

typedef struct descriptor_list {
  int count;
  struct {
    int number;
    bool passes_on; /* not close-on-exec */
    bool is_heap;
    char target[DESCRIPTOR_TEXT];
  } items[DESCRIPTORS_MAX];
} descriptor_list;

static inline int compare_numbers(const void *a, const void *b) {
  return *(const int *)a - *(const int *)b;
}

/* Valgrind keeps its own descriptors above the hard limit that it shows, but also, until 3.19 at
 * least, a low one of its log. */
static inline bool is_valgrinds(int number, const char *target) {
  struct rlimit limit;
  return test_under_valgrind() && getrlimit(RLIMIT_NOFILE, &limit) == 0 &&
         ((rlim_t)number >= limit.rlim_max || strstr(target, "/mproc-log-"));
}

static inline void list_descriptors(descriptor_list *list) {
  DIR *folder = opendir("/proc/self/fd");
  CHECK(folder);
  list->count = 0;
  for (struct dirent *entry; (entry = readdir(folder));) {
    int number = atoi(entry->d_name);
    char link[64], target[PATH_MAX];
    if (entry->d_name[0] == '.' || number == dirfd(folder))
      continue;
    CHECK(list->count < DESCRIPTORS_MAX);
    snprintf(link, sizeof link, "/proc/self/fd/%d", number);
    ssize_t length = readlink(link, target, sizeof target - 1);
    target[length < 0 ? 0 : length] = '\0';
    if (is_valgrinds(number, target))
      continue;
    list->items[list->count].number = number;
    list->items[list->count].passes_on = (fcntl(number, F_GETFD) & FD_CLOEXEC) == 0;
    /* A memfd, or an unlinked file where there are none. */
    list->items[list->count].is_heap =
        strncmp(target, "/memfd:mproc (", 14) == 0 ||
        (strncmp(target, "/dev/shm/", 9) == 0 && strstr(target, "(deleted)"));
    snprintf(list->items[list->count++].target, DESCRIPTOR_TEXT, "%.100s", target);
  }
  CHECK_EQ(closedir(folder), 0);
  qsort(list->items, (size_t)list->count, sizeof list->items[0], compare_numbers);
}

/* Shows the list when it is not as long as it should be. */
static inline void check_descriptor_count(const descriptor_list *list, int expected) {
  for (int i = 0; i < list->count && list->count != expected; i++)
    fprintf(stderr, "# %d -> %s%s\n", list->items[i].number, list->items[i].target,
            list->items[i].passes_on ? "" : " (close-on-exec)");
  CHECK_EQ(list->count, expected);
}

#endif
