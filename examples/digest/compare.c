#define _POSIX_C_SOURCE 200809L

#include "digest.h"

#include <string.h>

enum { NAMES_SHOWN = 10, NAME_BYTES = 512 };

typedef struct counts {
  size_t agreed;
  size_t unreadable;
  size_t changed;
  size_t disagreed;
} counts;

static const char *said(const digest_result *result, char *buffer, size_t size) {
  switch (result->outcome) {
  case OUTCOME_DONE:
    for (size_t i = 0; i < DIGEST_BYTES && 2 * i + 2 < size; i++)
      snprintf(buffer + 2 * i, size - 2 * i, "%02x", result->digest[i]);
    return buffer;
  case OUTCOME_UNREADABLE:
    return strerror(result->error);
  case OUTCOME_CHANGED:
    return "changed";
  default:
    return "no digest";
  }
}

static void print_disagreement(const char *path, const digest_pass *passes, size_t pass_count,
                               size_t index) {
  char name[NAME_BYTES];
  char text[2 * DIGEST_BYTES + 1];
  print_error("disagreement about %s:", printable(path, name, sizeof name));
  for (size_t p = 0; p < pass_count; p++)
    fprintf(stderr, "  %-10s %s\n", passes[p].method,
            said(&passes[p].results[index], text, sizeof text));
}

static int still_as_listed(const digest_file *file) {
  struct stat status;
  if (lstat(file->path, &status) < 0)
    return 0;
  file_stamp stamp = stamp_of(&status);
  return stamp_equal(&stamp, &file->stamp);
}

static int same(const digest_result *a, const digest_result *b) {
  return a->outcome == b->outcome && memcmp(a->digest, b->digest, DIGEST_BYTES) == 0;
}

/* A difference counts only for a file that is still the one that was listed: whoever wrote to it
 * between two passes explains the difference. */
static void compare_file(const digest_file *file, const digest_pass *passes, size_t pass_count,
                         size_t index, counts *tally) {
  const digest_result *first = &passes[0].results[index];
  size_t methods = pass_count - 1;
  int equal = 1;
  int changed = 0;
  for (size_t p = 0; p < methods; p++) {
    equal &= same(first, &passes[p].results[index]);
    changed |= passes[p].results[index].outcome == OUTCOME_CHANGED;
  }
  char name[NAME_BYTES];
  if (changed || !still_as_listed(file)) {
    if (tally->changed++ < NAMES_SHOWN)
      print_error("changed meanwhile: %s", printable(file->path, name, sizeof name));
  } else if (equal && first->outcome == OUTCOME_UNREADABLE) {
    if (tally->unreadable++ < NAMES_SHOWN)
      print_error("cannot read %s: %s", printable(file->path, name, sizeof name),
                  strerror(first->error));
  } else if (equal && first->outcome == OUTCOME_DONE &&
             same(first, &passes[methods].results[index])) {
    tally->agreed++;
  } else if (tally->disagreed++ < NAMES_SHOWN) {
    print_disagreement(file->path, passes, pass_count, index);
  }
}

static void print_left_out(size_t count, const char *what) {
  if (count)
    printf("%zu file%s %s and left out\n", count, count == 1 ? "" : "s", what);
}

int compare_passes(const file_list *list, const digest_pass *passes, size_t pass_count) {
  counts tally = {0};
  putchar('\n');
  for (size_t i = 0; i < list->count; i++)
    compare_file(&list->files[i], passes, pass_count, i, &tally);
  print_left_out(tally.unreadable, "could not be read");
  print_left_out(tally.changed, "changed meanwhile");
  if (list->unreadable_count)
    printf("%zu director%s could not be read and left out\n", list->unreadable_count,
           list->unreadable_count == 1 ? "y" : "ies");
  if (tally.disagreed) {
    print_error("%zu of %zu files: the digests do not agree", tally.disagreed, list->count);
    return -1;
  }
  printf("all %zu digests agree with sha256sum\n", tally.agreed);
  return 0;
}
