/* Value: one atomic word that knows its type. */
#include "base/error.h"
#include "os/crash_point.h"
#include "sync/layout.h"

#include <errno.h>
#include <string.h>

static int create(uint32_t type, uint64_t bits, mproc_value **ret_value) {
  void *memory;
  int r = mpx_check_not_null(ret_value, "ret_value");
  if (r == 0)
    r = mpx_object_alloc(sizeof(mproc_value), &memory);
  if (r != 0)
    return r;
  mproc_value *value = memory;
  value->type = type;
  atomic_store_explicit(&value->bits, bits, memory_order_relaxed);
  *ret_value = value;
  return mpx_object_publish(value, MPX_KIND_VALUE);
}

static int check(const mproc_value *value, uint32_t type) {
  int r = mpx_object_check(value, MPX_KIND_VALUE);
  if (r == 0 && value->type != type)
    r = mpx_fail(-EINVAL, "the value %p is of another type", (const void *)value);
  return r;
}

static int get(const mproc_value *value, uint32_t type, uint64_t *ret_bits) {
  int r = check(value, type);
  if (r == 0)
    *ret_bits = atomic_load(&value->bits);
  return r;
}

static int set(mproc_value *value, uint32_t type, uint64_t bits) {
  int r = check(value, type);
  if (r < 0)
    return r;
  atomic_store(&value->bits, bits);
  mpx_turn_next(&value->turn, MPX_TURN_ALL);
  return 0;
}

static int compare_exchange(mproc_value *value, uint32_t type, uint64_t *expected,
                            uint64_t wanted) {
  int r = check(value, type);
  if (r < 0)
    return r;
  r = atomic_compare_exchange_strong(&value->bits, expected, wanted);
  if (r)
    mpx_turn_next(&value->turn, MPX_TURN_ALL);
  return r;
}

/* ---- int64 ----------------------------------------------------------------------------------- */

int mproc_value_create_int64(int64_t first, mproc_value **ret_value) {
  return create(MPX_VALUE_INT64, (uint64_t)first, ret_value);
}

int mproc_value_get_int64(const mproc_value *value, int64_t *ret_number) {
  uint64_t bits;
  int r = mpx_check_not_null(ret_number, "ret_number");
  if (r == 0)
    r = get(value, MPX_VALUE_INT64, &bits);
  if (r == 0)
    *ret_number = (int64_t)bits;
  return r;
}

int mproc_value_set_int64(mproc_value *value, int64_t number) {
  return set(value, MPX_VALUE_INT64, (uint64_t)number);
}

int mproc_value_add_int64(mproc_value *value, int64_t number, int64_t *ret_before) {
  int r = check(value, MPX_VALUE_INT64);
  if (r < 0)
    return r;
  uint64_t before = atomic_fetch_add(&value->bits, (uint64_t)number);
  mpx_turn_next(&value->turn, MPX_TURN_ALL);
  if (ret_before)
    *ret_before = (int64_t)before;
  return 0;
}

int mproc_value_compare_exchange_int64(mproc_value *value, int64_t *expected, int64_t wanted) {
  int r = mpx_check_not_null(expected, "expected");
  if (r < 0)
    return r;
  uint64_t bits = (uint64_t)*expected;
  r = compare_exchange(value, MPX_VALUE_INT64, &bits, (uint64_t)wanted);
  if (r >= 0)
    *expected = (int64_t)bits;
  return r;
}

/* -EAGAIN: it is as it was. What it became counts also if it was destroyed at once: `first` is the
 * turn before the wait, as the one that is told by may be before a later mark. */
static int look(const mproc_value *value, uint32_t first, uint64_t seen, uint64_t *ret_bits) {
  *ret_bits = atomic_load(&value->bits);
  if (*ret_bits != seen && mpx_turn_may_look(value, MPX_KIND_VALUE, &value->turn, first))
    return 0;
  int r = mpx_object_check_again(value, MPX_KIND_VALUE);
  return r < 0 ? r : -EAGAIN;
}

static int wait_for_change(mproc_value *value, uint64_t seen, uint64_t *ret_bits, int timeout_ms) {
  int64_t deadline = mpx_deadline_or_try(timeout_ms);
  uint32_t first = atomic_load(&value->turn.word);
  int r = check(value, MPX_VALUE_INT64);
  if (r < 0)
    return r;
  for (;;) {
    MPROC_CRASH_POINT("value.waits");
    uint32_t turn = mpx_turn_prepare(&value->turn);
    r = look(value, first, seen, ret_bits);
    if (r != -EAGAIN)
      return r;
    if (!mpx_turn_sleep(&value->turn, turn, deadline))
      return mpx_timeout_fail(timeout_ms, "the value did not change");
    r = look(value, first, seen, ret_bits); /* before the next mark: its memory may be anything's */
    if (r != -EAGAIN)
      return r;
  }
}

int mproc_value_wait_int64(mproc_value *value, int64_t seen, int64_t *ret_number, int timeout_ms) {
  mpx_thread self;
  uint64_t bits = 0; /* gcc cannot tell */
  int r = mpx_check_not_null(ret_number, "ret_number");
  if (r == 0)
    r = mpx_object_enter_for(value, MPX_KIND_VALUE, timeout_ms, &self);
  if (r == 0)
    r = wait_for_change(value, (uint64_t)seen, &bits, timeout_ms);
  if (r == 0)
    *ret_number = (int64_t)bits;
  return r;
}

/* ---- double ---------------------------------------------------------------------------------- */

static uint64_t bits_of(double number) {
  uint64_t bits;
  memcpy(&bits, &number, sizeof bits);
  return bits;
}

static double double_of(uint64_t bits) {
  double number;
  memcpy(&number, &bits, sizeof number);
  return number;
}

int mproc_value_create_double(double first, mproc_value **ret_value) {
  return create(MPX_VALUE_DOUBLE, bits_of(first), ret_value);
}

int mproc_value_get_double(const mproc_value *value, double *ret_number) {
  uint64_t bits;
  int r = mpx_check_not_null(ret_number, "ret_number");
  if (r == 0)
    r = get(value, MPX_VALUE_DOUBLE, &bits);
  if (r == 0)
    *ret_number = double_of(bits);
  return r;
}

int mproc_value_set_double(mproc_value *value, double number) {
  return set(value, MPX_VALUE_DOUBLE, bits_of(number));
}

int mproc_value_add_double(mproc_value *value, double number, double *ret_before) {
  int r = check(value, MPX_VALUE_DOUBLE);
  if (r < 0)
    return r;
  uint64_t before = atomic_load(&value->bits);
  while (!atomic_compare_exchange_weak(&value->bits, &before, bits_of(double_of(before) + number)))
    ;
  if (ret_before)
    *ret_before = double_of(before);
  return 0;
}

/* ---- pointer --------------------------------------------------------------------------------- */

static int check_pointer(const void *pointer) {
  mpx_thread self;
  int r = mpx_family_thread(&self);
  if (r < 0 || !pointer)
    return r;
  const mpx_header *header = mpx_family_header();
  return (uintptr_t)pointer - (uintptr_t)header < header->size
             ? 0
             : mpx_fail(-EINVAL,
                        "%p is no pointer into the shared heap: it means nothing elsewhere",
                        pointer);
}

int mproc_value_create_pointer(void *first, mproc_value **ret_value) {
  int r = check_pointer(first);
  return r < 0 ? r : create(MPX_VALUE_POINTER, (uintptr_t)first, ret_value);
}

int mproc_value_get_pointer(const mproc_value *value, void **ret_pointer) {
  uint64_t bits;
  int r = mpx_check_not_null(ret_pointer, "ret_pointer");
  if (r == 0)
    r = get(value, MPX_VALUE_POINTER, &bits);
  if (r == 0)
    *ret_pointer = (void *)(uintptr_t)bits;
  return r;
}

int mproc_value_set_pointer(mproc_value *value, void *pointer) {
  int r = check_pointer(pointer);
  return r < 0 ? r : set(value, MPX_VALUE_POINTER, (uintptr_t)pointer);
}

int mproc_value_compare_exchange_pointer(mproc_value *value, void **expected, void *wanted) {
  int r = mpx_check_not_null(expected, "expected");
  if (r == 0)
    r = check_pointer(wanted);
  if (r < 0)
    return r;
  uint64_t bits = (uintptr_t)*expected;
  r = compare_exchange(value, MPX_VALUE_POINTER, &bits, (uintptr_t)wanted);
  if (r >= 0)
    *expected = (void *)(uintptr_t)bits;
  return r;
}

int mproc_value_destroy(mproc_value *value) {
  if (!value)
    return 0;
  mpx_thread self;
  int r = mpx_object_enter(value, MPX_KIND_VALUE, &self);
  if (r < 0)
    return r;
  if (mpx_turn_is_used(&value->turn))
    return mpx_fail(-EBUSY, "somebody waits for the value");
  return mpx_turn_destroy(value, MPX_KIND_VALUE, &value->turn);
}
