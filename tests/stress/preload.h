/* What the tests of preload functions with real libraries share: many workers, whose answers the
 * library's threads work out, and the report of threads that stay in the server. */
#ifndef MPROC_TEST_PRELOAD_H
#define MPROC_TEST_PRELOAD_H

#include "forkserver.h"
#include "harness.h"

enum { WORKERS = 200, AT_ONCE = 8, PARTS = 16, REPORT_SIZE = 4096 };

/* What a worker that got `number` returns is made of parts, which threads work out. */
static inline int part_of(int number, int part) {
  return (number * 31 + part * part) % 97;
}

static inline int answer_from(int sum) {
  return sum % 251;
}

static inline int answer_of(int number) {
  int sum = 0;
  for (int part = 0; part < PARTS; part++)
    sum += part_of(number, part);
  return answer_from(sum);
}

/* Each of them ends with the right answer; a few run at a time. */
static inline void check_workers(const mproc_context *context, mproc_entry *work) {
  for (int begin = 0; begin < WORKERS; begin += AT_ONCE) {
    mproc_process *workers[AT_ONCE];
    for (int i = 0; i < AT_ONCE; i++) {
      const int number = begin + i;
      workers[i] = ask_context(context, work, &number, sizeof number);
    }
    for (int i = 0; i < AT_ONCE; i++)
      check_exited(workers[i], answer_of(begin + i));
  }
}

/* ---- the report ------------------------------------------------------------------------------ */

static char reported[REPORT_SIZE];

static inline void take_report(void *user, mproc_log_level level, const char *message) {
  size_t used = strlen(reported);
  (void)user, (void)level;
  snprintf(reported + used, sizeof reported - used, "%s\n", message);
}

/* Starts a server, and returns what was logged about it. */
static inline const char *report_of(const mproc_context *context) {
  reported[0] = '\0';
  mproc_set_log(take_report, NULL, MPROC_LOG_ERROR);
  CHECK_EQ(mproc_context_refresh(context), 0);
  mproc_set_log(NULL, NULL, MPROC_LOG_OFF);
  return reported;
}

/* Workers of a server with this preload come to their answers. What is logged about its start has
 * `report` in it; an empty report: it has to be silent. */
static inline void check_preload(mproc_preload *const *preload, size_t count, const char *report,
                                 mproc_entry *work) {
  mproc_context *context = new_context(preload, count, 0);
  const char *text = report_of(context);
  if (report[0])
    CHECK_CONTAINS(text, report);
  else
    CHECK_STR(text, "");
  check_workers(context, work);
  mproc_context_destroy(context);
}

/* ThreadSanitizer gives up in a child that makes threads and was forked beside others. */
static inline void skip_under_tsan(void) {
  if (TEST_HAS_TSAN)
    SKIP("the library is not instrumented, and ThreadSanitizer forbids threads after such a fork");
}

#endif
