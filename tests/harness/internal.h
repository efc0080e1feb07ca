/* What the files of the harness share. */
#ifndef MPROC_TEST_INTERNAL_H
#define MPROC_TEST_INTERNAL_H

#include "harness.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TEST_SKIPPED 77
/* How long leftovers may take to disappear: under a checker a process is slow to end. */
#define TEST_GRACE_NS ((test_under_valgrind() || TEST_HAS_TSAN ? 10 : 1) * 1000000000LL)

/* ---- audit.c --------------------------------------------------------------------------------- */

typedef struct name_set {
  char **names;
  size_t count;
} name_set;

/* Adds "FOLDER/NAME" for every entry. */
void names_of_folder(name_set *set, const char *folder);
/* Drops from `set` what `other` has too. */
void names_remove(name_set *set, const name_set *other);
/* Prints "# left behind: WHAT NAME" for each name; returns how many. */
int names_report(const name_set *set, const char *what);
void names_free(name_set *set);

/* In the case's process, around the test function. */
void audit_begin(void);
/* True when nothing was left behind; says what was. */
bool audit_end(void);

/* Prints "# PREFIX process PID (comm) state, command line". */
void audit_print_process(const char *prefix, pid_t pid);
/* The processes below this one, at most `limit` of them; returns how many. */
size_t audit_descendants(pid_t *pids, size_t limit);

/* ---- runner.c -------------------------------------------------------------------------------- */

/* Runs the cases whose name contains `part`; returns the exit code of the program. */
int runner_run(const test_case *cases, const char *part);

/* ---- harness.c ------------------------------------------------------------------------------- */

int64_t test_now_ns(void);
void test_sleep_ms(int ms);
const char *test_program_path(void);
int test_environment_number(const char *name, int otherwise);

#endif
