/* Resource limits that a case lowers and raises. */
#ifndef MPROC_TEST_SOFT_LIMIT_H
#define MPROC_TEST_SOFT_LIMIT_H

#include "harness.h"

#include <sys/resource.h>

#ifdef __GLIBC__
typedef enum __rlimit_resource limit_name;
#else
typedef int limit_name;
#endif

/* Returns the soft limit from before. */
static inline rlim_t set_soft_limit(limit_name resource, rlim_t soft) {
  struct rlimit limit;
  CHECK_EQ(getrlimit(resource, &limit), 0);
  rlim_t before = limit.rlim_cur;
  limit.rlim_cur = soft < limit.rlim_max ? soft : limit.rlim_max;
  CHECK_EQ(setrlimit(resource, &limit), 0);
  return before;
}

#endif
