/* mproc-digest: SHA-256 of every regular file below a directory, under every start method.
 *
 * The file list and the results are blocks of the shared heap, so the workers read paths and write
 * digests in place, whichever way they were started; they get one pointer as their argument. */
#ifndef DIGEST_H
#define DIGEST_H

#include <mproc/mproc.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/stat.h>

enum { DIGEST_BYTES = 32, CACHE_LINE = 64 };
enum { WORKER_NO_DIGEST = 1, WORKER_NO_MEMORY = 2 }; /* exit codes of a worker */

/* What stays the same as long as nobody writes to a file or puts another in its place. */
typedef struct file_stamp {
  uint64_t device;
  uint64_t inode;
  int64_t size_bytes;
  int64_t modified_ns;
  int64_t changed_ns;
} file_stamp;

typedef struct digest_file {
  const char *path;
  file_stamp stamp; /* when it was listed */
} digest_file;

typedef enum digest_outcome {
  OUTCOME_PENDING = 0, /* nobody took it, or the worker that did has died */
  OUTCOME_DONE,
  OUTCOME_UNREADABLE, /* .error says why */
  OUTCOME_CHANGED     /* another file than the one listed */
} digest_outcome;

typedef struct digest_result {
  digest_outcome outcome;
  int error;
  unsigned char digest[DIGEST_BYTES];
} digest_result;

/* Written by one worker alone, read by the parent at any time. */
typedef struct worker_line {
  _Alignas(CACHE_LINE) _Atomic int64_t started_ns; /* 0: has not reached its entry */
  _Atomic size_t current;                          /* index of the file in hand, plus one */
  _Atomic uint64_t file_count;
  _Atomic uint64_t byte_count;
} worker_line;

/* One pass over the files. next: each worker takes the index that it finds there. */
typedef struct digest_job {
  const digest_file *files;
  size_t file_count;
  digest_result *results; /* one for each file, written by the worker that took the file */
  worker_line *workers;
  _Alignas(CACHE_LINE) _Atomic size_t next;
} digest_job;

typedef struct worker_argument {
  digest_job *job;
  size_t number;
} worker_argument;

typedef struct file_list {
  digest_file *files;
  size_t count;
  uint64_t byte_count;
  size_t unreadable_count; /* directories that could not be read */
} file_list;

typedef struct digest_pass {
  const char *method;
  size_t worker_count;
  double first_worker_s;
  double total_s;
  uint64_t file_count; /* hashed */
  uint64_t byte_count;
  digest_result *results;
} digest_pass;

/* All functions that return int: 0, or -1 after the cause was printed on standard error. */

/* walk.c: lists the regular files below `directory`, largest first, so that no worker begins a long
 * one at the end. Symbolic links are not followed. Unreadable directories are reported. */
int walk_tree(const char *directory, file_list *ret_list);

/* stamp.c */
file_stamp stamp_of(const struct stat *status);
int stamp_equal(const file_stamp *a, const file_stamp *b);

/* worker.c: the entry; its argument block is a worker_argument. */
int worker_main(void *arg, size_t size);

/* pass.c: hashes all files under one start method. */
int run_pass(const file_list *list, const char *method, size_t worker_count, digest_pass *ret_pass);
void release_pass(digest_pass *pass);

/* reference.c: what sha256sum says, as a pass with one worker, of the files that are DONE in
 * `wanted`. A file that sha256sum could not read stays PENDING. */
int run_reference(const file_list *list, const digest_result *wanted, digest_pass *ret_pass);

/* compare.c: prints what was left out and the verdict. `passes` ends with the reference. */
int compare_passes(const file_list *list, const digest_pass *passes, size_t pass_count);

/* report.c */
double now_s(void);
void print_error(const char *text, ...) MPROC_PRINTF(1, 2);
void print_mproc_error(const char *what); /* what, and the library's detail text */
void print_methods(void);
void print_table_head(void);
void print_table_row(const digest_pass *pass);
/* `path` with control and other unprintable bytes as octal escapes, so that a name cannot fake or
 * break a line. Returns `buffer`. */
const char *printable(const char *path, char *buffer, size_t size);

/* progress.c: a line on standard error, on a terminal only. */
void progress_show(const char *method, const digest_job *job, size_t worker_count);
void progress_clear(void);

#endif
