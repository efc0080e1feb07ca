/* Value and Array: shared numbers, and shared memory with a lock.
 *
 * What it is  Python's Value and Array. A Value is one number or pointer that every process of the
 *             family reads and changes atomically, without a lock. An Array is plain memory in the
 *             heap with a Lock of its own: for structures, and for more than one number at a time.
 * Death       no operation on a Value is ever half done. An Array's lock tells of a dead owner, see
 *             sync.h.
 * Ownership   both belong to the family until they are destroyed.
 * Threads     any thread of any member. The functions of a Value are signal-safe, but for create,
 *             wait and destroy. Each is sequentially consistent.
 * Errors      of every function: MPROC_EPOINTER, MPROC_ECLOSED, MPROC_EFOREIGN, -EINVAL (another
 *             kind of object; a Value of another type); see sync.h. In a thread's first call also
 *             -EAGAIN (24,576 others of the family use mproc). */
#ifndef MPROC_VALUE_H
#define MPROC_VALUE_H

#include "sync.h"
#include "version.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_value mproc_value;
typedef struct mproc_array mproc_array;

#ifdef __cplusplus
extern "C" {
#endif

/* ---- Value ----------------------------------------------------------------------------------- */

/* Makes a Value of this type. */
MPROC_API MPROC_NODISCARD int mproc_value_create_int64(int64_t first, mproc_value **ret_value);
MPROC_API MPROC_NODISCARD int mproc_value_create_double(double first, mproc_value **ret_value);
/* A pointer into the heap, or NULL: others are -EINVAL, here and in set. */
MPROC_API MPROC_NODISCARD int mproc_value_create_pointer(void *first, mproc_value **ret_value);

/* Reads it. */
MPROC_API int mproc_value_get_int64(const mproc_value *value, int64_t *ret_number);
MPROC_API int mproc_value_get_double(const mproc_value *value, double *ret_number);
MPROC_API int mproc_value_get_pointer(const mproc_value *value, void **ret_pointer);

/* Writes it. */
MPROC_API int mproc_value_set_int64(mproc_value *value, int64_t number);
MPROC_API int mproc_value_set_double(mproc_value *value, double number);
MPROC_API int mproc_value_set_pointer(mproc_value *value, void *pointer);

/* Adds to it; *ret_before, unless NULL, is what it was. Integers wrap. */
MPROC_API int mproc_value_add_int64(mproc_value *value, int64_t number, int64_t *ret_before);
MPROC_API int mproc_value_add_double(mproc_value *value, double number, double *ret_before);

/* Writes `wanted` if it is *expected, and returns 1; else stores what it is in *expected and
 * returns 0. */
MPROC_API int mproc_value_compare_exchange_int64(mproc_value *value, int64_t *expected,
                                                 int64_t wanted);
MPROC_API int mproc_value_compare_exchange_pointer(mproc_value *value, void **expected,
                                                   void *wanted);

/* Waits until an integer is not `seen`, and stores what it is then. Every change wakes whoever
 * waits. -ETIMEDOUT, -EAGAIN. */
MPROC_API MPROC_NODISCARD int mproc_value_wait_int64(mproc_value *value, int64_t seen,
                                                     int64_t *ret_number, int timeout_ms);

/* Gives it back to the heap. NULL does nothing and returns 0. -EBUSY: somebody waits. */
MPROC_API int mproc_value_destroy(mproc_value *value);

/* ---- Array ----------------------------------------------------------------------------------- */

/* Makes `count` items of `size` bytes, all zero, 64-byte aligned. -EINVAL: either is 0. */
MPROC_API MPROC_NODISCARD int mproc_array_create(size_t count, size_t size,
                                                 mproc_array **ret_array);

/* Its items: borrowed, at one address in every process, valid until it is destroyed. NULL for what
 * is no Array. They may be used without the lock where nothing else changes them. */
MPROC_API void *mproc_array_items(const mproc_array *array);

/* How many items; how many bytes each has. 0 for what is no Array. */
MPROC_API size_t mproc_array_count(const mproc_array *array);
MPROC_API size_t mproc_array_item_size(const mproc_array *array);

/* Its lock: borrowed, for mproc_lock_acquire and its kin, and for a Condition. NULL for what is no
 * Array. */
MPROC_API mproc_lock *mproc_array_lock(const mproc_array *array);

/* Gives it back to the heap, with its lock. NULL does nothing and returns 0. -EBUSY: the lock is
 * held. */
MPROC_API int mproc_array_destroy(mproc_array *array);

#ifdef __cplusplus
}
#endif
#endif
