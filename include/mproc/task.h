/* Task: the function that a pool runs, and `mproc map` too.
 *
 * What it is  A function of one input, in a worker process. It returns 0 when it has done its work,
 *             anything else is a failure with that code; mproc_task_fail() gives it a text. The
 *             result is what it passes to mproc_task_result(), or writes to mproc_task_output().
 * Plugins     A function that is to be found by name, by `mproc map ./lib.so:NAME`, is exported by
 *             MPROC_TASK(NAME, .help = "...") in the library that holds it.
 * Ownership   The input is the task's to read until it returns. That of apply, map_bytes and imap
 *             is aligned to 16, and a NUL byte follows it; that of map lies in its array.
 * Threads     what a mproc_task names is used by the thread that the task was called in. */
#ifndef MPROC_TASK_H
#define MPROC_TASK_H

#include "error.h"
#include "version.h"

#include <stddef.h>
#include <stdint.h>

typedef struct mproc_task mproc_task;

/* `size` is 0 and `input` NULL where there is none. */
typedef int mproc_task_function(mproc_task *task, const void *input, size_t size);

/* Runs once in each worker, before its first task. `arg` is the worker's own copy, 64-byte aligned.
 * What it stores in *ret_state is what mproc_task_state() returns there. Not 0: the worker cannot
 * work, and ends. */
typedef int mproc_worker_initializer(void *arg, size_t size, void **ret_state);
/* Runs once in a worker that leaves by itself: its pool was closed, it has done its tasks, or it is
 * one too many. A worker that is killed runs nothing. */
typedef void mproc_worker_exit(void *state);

/* What MPROC_TASK exports, as `mproc_task_NAME`. */
typedef struct mproc_task_descriptor {
  uint32_t magic;   /* MPROC_TASK_MAGIC */
  uint32_t version; /* MPROC_TASK_VERSION of the header it was compiled with */
  mproc_task_function *function;
  const char *help;                      /* a line for people */
  size_t input_size;                     /* bytes that each input has. 0: any number */
  size_t output_size;                    /* bytes of mproc_task_output(). 0: none, the result is
                                            what mproc_task_result() gets */
  mproc_worker_initializer *initializer; /* NULL: none. It gets no argument block. */
  mproc_worker_exit *worker_exit;        /* NULL: none */
  uint64_t reserved[8];                  /* must be zero */
} mproc_task_descriptor;

#define MPROC_TASK_MAGIC 0x6b736174u
#define MPROC_TASK_VERSION 1u

#ifdef __cplusplus
#define MPROC_TASK_LINKAGE extern "C"
#else
#define MPROC_TASK_LINKAGE extern
#endif

/* MPROC_TASK(count_words, .help = "the words of a text"): at file level, after the function. The
 * rest are fields of mproc_task_descriptor from `help` on; C++17, which has no names there, gives
 * them in order. */
#define MPROC_TASK(name, ...)                                                                      \
  MPROC_TASK_LINKAGE MPROC_EXPORT const mproc_task_descriptor mproc_task_##name;                   \
  const mproc_task_descriptor mproc_task_##name = {MPROC_TASK_MAGIC, MPROC_TASK_VERSION, (name),   \
                                                   __VA_ARGS__}

#ifdef __cplusplus
extern "C" {
#endif

/* The result of the task: `size` bytes, copied. A second call replaces the first. Where the caller
 * gave a place of a fixed size (mproc_pool_map), `size` must be that.
 * Errors: -EINVAL (another size than the place has), MPROC_EHEAPFULL, -ENOMEM. */
MPROC_API int mproc_task_result(mproc_task *task, const void *data, size_t size);

/* Where the result goes, for a task that writes it in place: mproc_task_output_size() bytes, in
 * their state before the call (of a map over memory of the shared heap, the caller's; else zeros).
 * NULL where there is no place of a fixed size. */
MPROC_API void *mproc_task_output(mproc_task *task);
MPROC_API size_t mproc_task_output_size(mproc_task *task);

/* Gives a failure its text, cut to 511 bytes, and returns `code` for `return mproc_task_fail(...)`:
 * what the task returns is what counts. */
MPROC_API int mproc_task_fail(mproc_task *task, int code, const char *format, ...)
    MPROC_PRINTF(3, 4);

/* Which input of a map or imap it is, from 0; 0 for apply. */
MPROC_API uint64_t mproc_task_index(const mproc_task *task);
/* Which attempt this is, from 1. */
MPROC_API int mproc_task_attempt(const mproc_task *task);
/* The number of the worker in its pool, from 0; one that replaces a dead one has that one's. */
MPROC_API int mproc_task_worker(const mproc_task *task);
/* What the initializer stored; NULL without one. */
MPROC_API void *mproc_task_state(const mproc_task *task);
/* 1 when the caller has cancelled it, or the pool is going: a worker that does not return soon is
 * killed, unless the task is over by then. */
MPROC_API int mproc_task_is_cancelled(const mproc_task *task);

#ifdef __cplusplus
}
#endif
#endif
