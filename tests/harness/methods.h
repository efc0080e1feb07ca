/* Cases that run once under every start method, or under MPROC_TEST_METHOD alone. */
#ifndef MPROC_TEST_METHODS_H
#define MPROC_TEST_METHODS_H

#include "harness.h"

/* EACH_METHOD(joins) { ... method ... } makes joins_fork, joins_spawn and joins_forkserver. */
#define EACH_METHOD(name) EACH_METHOD_LIMIT(name, 20)

#define EACH_METHOD_LIMIT(name, seconds)                                                           \
  static void each_##name(const char *method);                                                     \
  TEST_LIMIT(name##_fork, seconds) {                                                               \
    each_##name("fork");                                                                           \
  }                                                                                                \
  TEST_LIMIT(name##_spawn, seconds) {                                                              \
    each_##name("spawn");                                                                          \
  }                                                                                                \
  TEST_LIMIT(name##_forkserver, seconds) {                                                         \
    each_##name("forkserver");                                                                     \
  }                                                                                                \
  static void each_##name(const char *method)

#endif
