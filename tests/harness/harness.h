/* A test program: cases written with TEST(), each run in a process of its own and audited after it.
 *
 *   #include "harness.h"
 *
 *   TEST(put_times_out_when_full) {
 *     CHECK_EQ(mproc_queue_put(queue, &item, 0), -EAGAIN);
 *   }
 *
 *   test_queue                every case, one line each, and a summary
 *   test_queue put            the cases with "put" in their name
 *   test_queue --list         their names
 *   test_queue --case NAME    one case in this very process, for a debugger
 *
 * A case fails when a CHECK fails in it, when it ends by a signal or with another code than 0, when
 * it takes longer than its limit, or when it leaves anything behind: a child, an orphan, a
 * descriptor, a named mapping, a file in /dev/shm or in its TMPDIR. There is no opt-out.
 *
 * Environment
 *   MPROC_TEST_SCALE=N               test_scale(n) returns n / N
 *   MPROC_TEST_TIMEOUT_MULTIPLIER=N  stretches the limits; 0 switches them off
 *   MPROC_TEST_SEED=N                the random numbers of a storm, which prints its own
 *   MPROC_TEST_WRAPPER="valgrind -q" is put before the command of every case; @log@ in it stands
 *                                    for a file: a line that is written there and does not begin
 *                                    with "--" is shown and fails the case
 *   MPROC_CRASH_LOG=FILE             crash points write what they hit; emptied by the runner
 *
 * Include this header first: it asks the system for everything that it declares. */
#ifndef MPROC_TEST_HARNESS_H
#define MPROC_TEST_HARNESS_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <mproc/init.h>

#include <stdbool.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define UNDER_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) ||                         \
    __has_feature(memory_sanitizer)
#define UNDER_SANITIZER 1
#endif
#endif
#ifndef UNDER_SANITIZER
#define UNDER_SANITIZER 0
#endif

/* ThreadSanitizer gives each process a thread of its own, which never ends. */
#if defined(__SANITIZE_THREAD__)
#define TEST_HAS_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TEST_HAS_TSAN 1
#endif
#endif
#ifndef TEST_HAS_TSAN
#define TEST_HAS_TSAN 0
#endif

#define TEST(name) TEST_LIMIT(name, 20)

#define TEST_LIMIT(name, seconds)                                                                  \
  static void test_##name(void);                                                                   \
  __attribute__((constructor)) static void register_##name(void) {                                 \
    static test_case self = {#name, test_##name, seconds, NULL};                                   \
    test_register(&self);                                                                          \
  }                                                                                                \
  static void test_##name(void)

/* A failed check prints its place and values and ends the process that it is in, with code 1. */
#define CHECK(condition)                                                                           \
  ((condition) ? (void)0 : test_fail(__FILE__, __LINE__, "CHECK(" #condition ")", NULL))

#define CHECK_EQ(actual, expected)                                                                 \
  test_check_equal(__FILE__, __LINE__, "CHECK_EQ(" #actual ", " #expected ")",                     \
                   (long long)(actual), (long long)(expected))

#define CHECK_STR(actual, expected)                                                                \
  test_check_string(__FILE__, __LINE__, "CHECK_STR(" #actual ", " #expected ")", actual, expected)

#define CHECK_CONTAINS(text, part)                                                                 \
  test_check_contains(__FILE__, __LINE__, "CHECK_CONTAINS(" #text ", " #part ")", text, part)

/* The value is no error code. */
#define CHECK_OK(value)                                                                            \
  test_check_ok(__FILE__, __LINE__, "CHECK_OK(" #value ")", (long long)(value))

/* Ends the case as neither passed nor failed. Not for use in a child. */
#define SKIP(reason) test_skip(reason)

/* For what valgrind makes impossible, and for nothing else. */
#define SKIP_UNDER_VALGRIND(reason) (test_under_valgrind() ? SKIP(reason) : (void)0)

#define SKIP_WITHOUT_CRASH_POINTS()                                                                \
  (MPX_CRASH_POINTS ? (void)0 : SKIP("built without crash points"))

/* A count of a stress test, at least 1. */
int test_scale(int count);

/* Paths that stay valid to the end of the process: a file in the case's own folder, which must be
 * gone when the case ends, and a program that mproc_add_child built. */
const char *test_tmp_path(const char *name);
const char *test_child_path(const char *name);

/* What main gives to mproc_init; a test program that defines it replaces the default: NULL, or a
 * small heap under valgrind. */
const mproc_init_options *test_init_options(void);

/* ---- what the macros stand on ---------------------------------------------------------------- */

typedef struct test_case {
  const char *name;
  void (*run)(void);
  int limit_seconds;
  struct test_case *next;
} test_case;

void test_register(test_case *self);
bool test_under_valgrind(void);
_Noreturn void test_skip(const char *reason);
_Noreturn void test_fail(const char *file, int line, const char *check, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
void test_check_equal(const char *file, int line, const char *check, long long actual,
                      long long expected);
void test_check_string(const char *file, int line, const char *check, const char *actual,
                       const char *expected);
void test_check_contains(const char *file, int line, const char *check, const char *text,
                         const char *part);
void test_check_ok(const char *file, int line, const char *check, long long value);

#endif
