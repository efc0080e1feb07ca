/* OpenMP in a preload function and again in workers. The team of the preload function's region is
 * no team in a worker, where libgomp would wait for it for ever; so it is let go first, as
 * docs/start-methods.md says. */
#include "preload.h"

#include <omp.h>

enum { TEAM = 4 };

static int sum_by_team(int number) {
  int sum = 0;
#pragma omp parallel for num_threads(TEAM) reduction(+ : sum)
  for (int part = 0; part < PARTS; part++)
    sum += part_of(number, part);
  return sum;
}

static int preload_region(void) {
  return answer_from(sum_by_team(7)) != answer_of(7);
}

static int let_team_go(void) {
  return omp_pause_resource_all(omp_pause_soft);
}

static int work(void *arg, size_t size) {
  (void)size;
  return answer_from(sum_by_team(*(int *)arg));
}

/* Twice: a team can be made again after the pause. */
TEST_LIMIT(team_that_was_let_go, 120) {
  mproc_preload *const preload[] = {preload_region, let_team_go, preload_region, let_team_go};
  skip_under_tsan();
  check_preload(preload, 4, "", work);
}

TEST_LIMIT(team_that_was_let_go_in_a_forking_parent, 120) {
  skip_under_tsan();
  for (int number = 0; number < WORKERS; number++) {
    CHECK_EQ(preload_region(), 0);
    CHECK_EQ(let_team_go(), 0);
    check_exited(start_by("fork", work, &number, sizeof number), answer_of(number));
  }
}

/* A server has no part of its asker's team: nothing is to be let go. */
TEST_LIMIT(team_of_the_asker, 120) {
  skip_under_tsan();
  CHECK_EQ(preload_region(), 0);
  check_workers(NULL, work);
}

/* What does not use OpenMP works in such workers. */
TEST_LIMIT(team_that_stays_is_reported, 60) {
  mproc_preload *const preload[] = {preload_region};
  const int code = 9;
  skip_under_tsan();
  mproc_context *context = new_context(preload, 1, 0);
  CHECK_CONTAINS(report_of(context), "left 3 threads behind");
  CHECK_CONTAINS(reported, "omp_pause_resource_all");
  for (int i = 0; i < 10; i++)
    check_exited(ask_context(context, return_code, &code, sizeof code), code);
  mproc_context_destroy(context);
}
