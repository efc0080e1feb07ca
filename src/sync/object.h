/* What every object in the shared heap begins with, and how one is born, recognized and destroyed.
 *
 * A pointer from a caller is worth nothing until it was recognized: it may lie outside the heap, in
 * another family's, or name what was destroyed long ago. The whole heap is mapped, so that reading
 * the kind behind any pointer into it does no harm. */
#ifndef MPX_SYNC_OBJECT_H
#define MPX_SYNC_OBJECT_H

#include "heap/family.h"
#include "heap/pages.h"

/* Numbers that other data hardly has. 0 is what was destroyed. */
typedef enum mpx_kind {
  MPX_KIND_LOCK = 0x6c6f636b,
  MPX_KIND_RLOCK = 0x726c6f63,
  MPX_KIND_RWLOCK = 0x72776c6f,
  MPX_KIND_SEMAPHORE = 0x73656d61,
  MPX_KIND_CONDITION = 0x636f6e64,
  MPX_KIND_EVENT = 0x6576656e,
  MPX_KIND_BARRIER = 0x62617272,
  MPX_KIND_VALUE = 0x76616c75,
  MPX_KIND_ARRAY = 0x61727261,
  MPX_KIND_QUEUE = 0x71756575,
  MPX_KIND_CONNECTION = 0x636f6e6e
} mpx_kind;

typedef struct mpx_object {
  /* creator, before anybody else has the pointer; 0 by whoever destroys it */
  _Atomic uint32_t kind;
} mpx_object;

/* A block of zeros, aligned to a cache line, that is the caller's alone until mpx_object_publish
 * makes it an object. Says why not. */
int mpx_object_alloc(size_t size, void **ret_object);
int mpx_object_publish(void *object, mpx_kind kind);
/* Nobody comes in any more, from before anything of the object goes on: who dies destroying it
 * leaves memory behind, and nothing that could be used. 0 for exactly one, who goes on;
 * MPROC_ECLOSED: another thread does so, and what is there by now is left alone. */
int mpx_object_end(void *object, mpx_kind kind);
/* A block goes back to the heap, after a while: a thread that was still inside finds nothing but an
 * object that was destroyed. */
void mpx_object_keep(void *block);
/* Both. */
int mpx_object_destroy(void *object, mpx_kind kind);

/* Why `object` is not one of that kind: MPROC_EPOINTER, MPROC_ECLOSED, MPROC_EFOREIGN, -EINVAL. */
int mpx_object_refuse(const void *object, mpx_kind kind);

/* 0 when it is one, else as above. */
static inline int mpx_object_check(const void *object, mpx_kind kind) {
  const mpx_header *header = mpx_family_header();
  const mpx_object *head = object;
  if (header && (uintptr_t)object - (uintptr_t)header < header->size &&
      ((uintptr_t)object & 63) == 0 &&
      atomic_load_explicit(&head->kind, memory_order_relaxed) == kind)
    return 0;
  return mpx_object_refuse(object, kind);
}

int mpx_object_say_gone(const void *object);
/* After a sleep: MPROC_ECLOSED if it is none any more, whatever its memory is by now. */
static inline int mpx_object_check_again(const void *object, mpx_kind kind) {
  const mpx_object *head = object;
  return atomic_load_explicit(&head->kind, memory_order_relaxed) == (uint32_t)kind
             ? 0
             : mpx_object_say_gone(object);
}

/* mpx_object_check, and what the calling thread is called. */
static inline int mpx_object_enter(const void *object, mpx_kind kind, mpx_thread *ret_self) {
  int r = mpx_object_check(object, kind);
  return r < 0 ? r : mpx_family_thread(ret_self);
}

/* Bytes of the lines that an object of `size` bytes fills: it is alone in them, behind it are
 * zeros. */
static inline size_t mpx_object_lines(size_t size) {
  return (size_t)mpx_round_up(size, 64);
}

/* -EINVAL for a timeout that is none. */
int mpx_timeout_check(int timeout_ms);

/* mpx_object_enter for a function that waits. */
static inline int mpx_object_enter_for(const void *object, mpx_kind kind, int timeout_ms,
                                       mpx_thread *ret_self) {
  int r = mpx_object_enter(object, kind, ret_self);
  return r < 0 ? r : mpx_timeout_check(timeout_ms);
}

/* Why a wait ended without result: -EAGAIN for a try, else -ETIMEDOUT. */
int mpx_timeout_fail(int timeout_ms, const char *what);

#endif
