/* Invariants: checked in debug and sanitizer builds, assumed by nobody in release builds. */
#ifndef MPX_BASE_ASSERT_H
#define MPX_BASE_ASSERT_H

#include <assert.h>

#define mpx_assert(condition) assert(condition)

#define MPX_STATIC_ASSERT(condition, text) _Static_assert(condition, text)

#endif
