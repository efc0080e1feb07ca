/* `mproc map`: a function or a command over many inputs, by a pool. What its parts share.
 *
 * The program puts inputs in groups: one input, or many of a function that is fast. A group is one
 * piece of work for the pool; its records and the bytes of its inputs lie in a block of the shared
 * heap, and a task gets nothing but the address of its record. */
#ifndef MPROC_CLI_MAP_H
#define MPROC_CLI_MAP_H

#include "cli.h"

#include <mproc/mproc.h>
#include <mproc/pool.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

/* Exit statuses: the number of inputs that failed, up to 100. */
enum { MAP_MANY_FAILED = 101, MAP_ERROR = 255 };

/* ---- memory: what cannot be had ends the command --------------------------------------------- */

typedef struct map_buffer {
  char *data;
  size_t size;
  size_t capacity;
} map_buffer;

void *map_alloc(size_t count, size_t size); /* zeros; for free() */
char *map_append(map_buffer *buffer, const void *data, size_t size);
void map_append_text(map_buffer *buffer, const char *text);
void map_append_format(map_buffer *buffer, const char *format, ...) MPROC_PRINTF(2, 3);
/* What stands between the quotes; of base64 in pieces of a multiple of 3 bytes. */
void map_append_json(map_buffer *buffer, const char *data, size_t size);
void map_append_base64(map_buffer *buffer, const char *data, size_t size);
bool map_is_utf8(const char *data, size_t size);
void map_release(map_buffer *buffer);

/* ---- what was asked for: map_options.c ------------------------------------------------------- */

typedef enum map_halt_when { MAP_HALT_NEVER = 0, MAP_HALT_SOON, MAP_HALT_NOW } map_halt_when;
typedef enum map_halt_what { MAP_HALT_FAIL = 0, MAP_HALT_SUCCESS, MAP_HALT_DONE } map_halt_what;

typedef struct map_halt {
  map_halt_when when;
  map_halt_what what;
  uint64_t count;
  bool percent; /* `count` is one */
} map_halt;

typedef struct map_options {
  int jobs;           /* 0: one per CPU */
  const char *method; /* NULL: the default */
  int timeout_ms;     /* 0: none */
  int retries;
  uint64_t memory_bytes; /* 0: no limit */
  bool unordered, json, raw, dry_run, progress, stats, check, shell, null_separated, resume;
  map_halt halt;
  const char *joblog;
  const char *file;     /* inputs; NULL: standard input, unless there are arguments */
  const char *target;   /* LIBRARY:FUNCTION; NULL: a command */
  char *const *command; /* its words */
  size_t command_count;
  char *const *inputs; /* NULL: not from arguments */
  size_t input_count;
} map_options;

/* -1: go on; else the exit status. */
int map_read_options(int argc, char **argv, map_options *options);

/* map_halt.c. The first returns 0, or -1 for a text that is no rule. */
int map_halt_parse(const char *text, map_halt *rule);
bool map_halt_hit(const map_halt *rule, uint64_t done, uint64_t failed);

/* ---- inputs: map_inputs.c -------------------------------------------------------------------- */

typedef struct map_source {
  char *const *arguments; /* NULL: from `fd` */
  size_t argument_count;
  size_t next;
  int fd;
  bool waits; /* it may have nothing to read for a while: a pipe or a terminal */
  bool at_end;
  char delimiter;
  map_buffer buffer;
  size_t start;      /* of what was not handed out yet */
  size_t searched;   /* where no delimiter is, from `start` on */
  off_t begin;       /* of a file: where it was when it was given to this command */
  uint64_t consumed; /* bytes */
  uint64_t total;    /* inputs, or bytes of a file; 0: unknown */
  const char *name;
} map_source;

typedef enum map_read { MAP_READ_INPUT, MAP_READ_WAIT, MAP_READ_END, MAP_READ_ERROR } map_read;

/* 0, or MAP_ERROR after a message. */
int map_source_open(map_source *source, const map_options *options);
/* `ret_input` is borrowed until the next call. WAIT: nothing to be had now, poll `fd`. */
map_read map_source_next(map_source *source, mproc_bytes *ret_input);
/* 0 to 1, or less than 0 when the end is not known. */
double map_source_fraction(const map_source *source, uint64_t over);
/* To the first input again; false: it cannot be read twice. */
bool map_source_rewind(map_source *source);
void map_source_close(map_source *source);

/* ---- commands: map_replace.c ----------------------------------------------------------------- */

typedef struct map_template {
  char *const *words;
  size_t count;
  bool append; /* no word has a replacement string */
  bool shell;
  char *program; /* the path of the first word; NULL: it depends on the input */
} map_template;

/* 0, or MAP_ERROR after a message: the first word is no command. */
int map_template_init(map_template *t, const map_options *options);
/* The words of the command for one input, each ended by a NUL; the first is the program to execute,
 * the rest its arguments from 0 on. */
void map_template_expand(const map_template *t, const char *input, size_t size, uint64_t seq,
                         map_buffer *words);
/* The same as one could type it into a shell. */
void map_template_print(const map_template *t, const char *input, size_t size, uint64_t seq,
                        map_buffer *line);
void map_template_release(map_template *t);
/* Quotes what a shell would not leave as it is; never has a line break or a tab in it. */
void map_quote(map_buffer *line, const char *data, size_t size);

/* ---- functions: map_library.c, or map_library_absent.c --------------------------------------- */

typedef struct map_function {
  char *path; /* of the library, absolute */
  char *name;
  size_t input_size;
  size_t output_size;
} map_function;

/* Loads the library here and looks whether the function fits: 0, or `status` after a message. */
int map_function_find(map_function *function, const char *target, int status);
void map_function_release(map_function *function);
/* The same in a worker: NULL after a message. */
const mproc_task_descriptor *map_function_load(const char *path, const char *name);
/* `mproc map --check`: an exit status. */
int map_function_check(const char *target);

/* ---- what main program and workers share: map_worker.c, map_command.c ------------------------ */

typedef enum map_stop {
  MAP_GO_ON = 0,
  MAP_BEGIN_NOTHING, /* what runs goes on */
  MAP_END_ALL        /* what runs is killed with all that it has started */
} map_stop;

typedef struct map_control {
  _Atomic int stop; /* the main program: a map_stop */
} map_control;

typedef enum map_end {
  MAP_END_NONE = 0, /* it did not begin, or the worker died in it */
  MAP_END_DONE,     /* the function returned; the command ended, .status says how */
  MAP_END_TIMED_OUT,
  MAP_END_OUT_OF_MEMORY,
  MAP_END_WORKER_DIED, /* in the last attempt */
  MAP_END_NO_ROOM,     /* for its output: killed; .status is an errno value */
  MAP_END_NOT_STARTED  /* .status is an errno value */
} map_end;

typedef enum map_refusal { MAP_FITS = 0, MAP_HAS_NUL, MAP_WRONG_SIZE } map_refusal;

enum { MAP_OUT, MAP_ERRORS, MAP_STREAMS };

/* A stream of a command in a file that its worker has open: a block of the shared heap, which the
 * worker makes, and frees when the main program has set `taken`. */
typedef struct map_spool {
  pid_t pid;
  int fd;
  dev_t device;
  ino_t inode;
  size_t size; /* not 0 */
  _Atomic int taken;
} map_spool;

/* One input, in the shared heap. The main program writes it before it submits it, then the worker
 * alone until the task is over; the main program reads `group` at any time. */
typedef struct map_record {
  const char *input;
  size_t size;
  const char *command; /* its words; NULL: a function */
  size_t command_size;
  uint64_t seq;        /* from 1 */
  map_refusal refusal; /* not FITS: the worker leaves it alone */
  map_end end;
  int status;                     /* of a command, as waitpid tells it; or an errno value */
  int attempts;                   /* of a command */
  int64_t started_ns;             /* monotonic; 0: it did not begin */
  int64_t run_ns;                 /* of the last attempt */
  _Atomic int64_t group;          /* processes to kill when it is not to go on; 0: none */
  _Atomic int exec_error;         /* of a command that could not be executed: an errno value */
  size_t out_size;                /* of a command: what of the result is standard output */
  map_spool *spools[MAP_STREAMS]; /* of a command: that stream is here; NULL: in the result */
  char *printed;                  /* of a function: a block, what it wrote to standard output */
  size_t printed_size;
} map_record;

/* The argument block of a worker's initializer. */
typedef struct map_setup {
  map_control *control;
  bool is_command;
  int timeout_ms;
  int retries;
  uint64_t memory_bytes;
  uint64_t ignored;   /* signals, by bit, that commands ignore as this command does */
  size_t name_offset; /* in `text`: the library's path, then the function's name */
  char text[];
} map_setup;

/* What a worker that died in this input has left behind is killed. */
void map_record_take_over(map_record *record);

mproc_worker_initializer map_worker_begin;
mproc_worker_exit map_worker_end;
mproc_task_function map_call_function;
mproc_task_function map_run_command;
const map_setup *map_worker_setup(void);
/* Of /proc, in bytes: private memory of the process and of all that descend from it. */
uint64_t map_tree_memory(pid_t pid);
/* Whether the process group has one that is no zombie. */
bool map_group_lives(pid_t group);
/* false: `task` is not the one that runs here. */
bool map_worker_index(const mproc_task *task, uint64_t *ret_index);
int64_t map_now_ns(void); /* monotonic */

/* ---- large output of commands: map_spool.c --------------------------------------------------- */

const char *map_spool_folder(void);
/* In a worker: a file without a name, or a negative errno value. */
int map_spool_open(void);
/* 0, or an errno value. */
int map_spool_write(int fd, const char *data, size_t size);
/* The file is the main program's now, but stays open until it has it. NULL: the heap is full. */
map_spool *map_spool_offer(int fd, size_t size);
void map_spool_close_taken(void);
/* In the main program, once: 0, or an errno value. */
int map_spool_take(map_spool *spool, mproc_bytes *ret_bytes);
void map_spool_give_back(const mproc_bytes *bytes);

/* ---- results: map_output.c ------------------------------------------------------------------- */

typedef struct map_result {
  const map_record *record;
  bool ran; /* false: it did not begin, and does not count */
  bool failed;
  bool no_worker; /* it did not begin, and never will: none comes up */
  int exit_value; /* -1: it has none */
  int signal;
  int attempts;
  int64_t started_ns, run_ns;
  const char *error; /* NULL: there is nothing to say but the exit value */
  const char *out, *errors;
  size_t out_size, errors_size;
} map_result;

typedef struct map_output {
  const map_options *options;
  const map_template *command; /* NULL: a function */
  map_buffer out;
  bool broken; /* standard output takes nothing any more; a message said so */
} map_output;

void map_output_result(map_output *output, const map_result *result);
void map_output_flush(map_output *output);
/* The command as the joblog and --dry-run show it. */
void map_output_command(const map_output *output, const char *input, size_t size, uint64_t seq,
                        map_buffer *line);

/* ---- joblog: map_joblog.c -------------------------------------------------------------------- */

typedef struct map_joblog {
  const char *name;
  int fd;                 /* -1: there is none */
  int64_t real_offset_ns; /* from monotonic to real time */
  map_buffer rows;
  uint64_t *done; /* --resume: by seq - 1 a hash of the command, 0: not in the log */
  size_t done_count;
  uint64_t last; /* of them */
} map_joblog;

/* 0, or MAP_ERROR after a message. */
int map_joblog_open(map_joblog *log, const map_options *options);
int map_joblog_load(map_joblog *log, const map_options *options); /* --dry-run: changes nothing */
/* 1: the log has it. 0: not. MAP_ERROR after a message: it has another command there. */
int map_joblog_has(const map_joblog *log, const map_output *output, uint64_t seq, const char *input,
                   size_t size);
/* --resume: looks at all inputs before one is run, where they can be read twice: 0, or MAP_ERROR
 * after a message. */
int map_joblog_compare(const map_joblog *log, const map_output *output, map_source *source);
void map_joblog_add(map_joblog *log, const map_output *output, const map_result *result);
int map_joblog_flush(map_joblog *log);
void map_joblog_close(map_joblog *log);

/* ---- progress, figures, messages: map_progress.c --------------------------------------------- */

typedef struct map_tally {
  int64_t started_ns;
  uint64_t submitted, done, failed; /* done: the failed too */
  uint64_t skipped;                 /* --resume: by the log */
} map_tally;

void map_progress_begin(void);
void map_progress_show(const map_tally *tally, const map_source *source);
void map_progress_clear(void); /* before anything else goes to the terminal */
void map_print_stats(const map_tally *tally, mproc_pool *pool);
/* One line on standard error; returns MAP_ERROR. */
int map_error(const char *format, ...) MPROC_PRINTF(1, 2);

/* ---- signals: map_interrupt.c ---------------------------------------------------------------- */

/* SIGINT, SIGTERM and SIGHUP are remembered from here on. */
int map_interrupt_begin(void);
int map_interrupted(void);  /* the signal, or 0 */
int map_interrupt_fd(void); /* readable when there was one */
uint64_t map_ignored_signals(void);
void map_forget_signals(uint64_t ignored); /* in a worker */

/* ---- the run: map_run.c, map_group.c --------------------------------------------------------- */

/* What the pool has of an input that is over: asked for once. */
typedef struct map_kept {
  mproc_bytes bytes;
  bool has_failed;
  int lost;                        /* an errno value: a file of it could not be had */
  mproc_bytes mapped[MAP_STREAMS]; /* what came in files */
} map_kept;

typedef struct map_group {
  struct map_group *next; /* in the order of the inputs */
  size_t count;
  map_record *records;   /* a block, with the bytes of the inputs behind them */
  map_record **pointers; /* to each of them: what the tasks get */
  mproc_bytes *views;    /* of these; NULL for one input */
  char *outputs;         /* a block: results of a fixed size; else NULL */
  size_t output_size;
  mproc_future *future;
  uint64_t *failures; /* of each input the number of its failure plus one; NULL: there is none */
  map_kept *kept;     /* NULL until it is over */
  size_t held_bytes;
  int64_t run_ns;
  int64_t held_until_ns; /* 0: not held */
  bool over;             /* the pool says so */
  bool settled;          /* it was counted */
} map_group;

/* Inputs on their way into a group. */
typedef struct map_batch {
  map_record *records; /* their pointers are offsets in `bytes` until the group is made */
  size_t count, capacity;
  map_buffer bytes;
} map_batch;

void map_batch_add(map_batch *batch, const mproc_bytes *input, uint64_t seq, map_refusal refusal,
                   const map_template *command);
/* Makes a group of what is in the batch, which is empty then. 0, or MAP_ERROR after a message. */
int map_group_make(map_group **ret_group, map_batch *batch, size_t output_size);
int map_group_submit(map_group *group, mproc_pool *pool, bool is_command);
/* The result of one input of a group that is over. What it points to is good until the next call,
 * or the end of the group. */
void map_group_result(map_group *group, size_t index, map_result *ret_result);
/* Once, when the group is over: counts its bytes, and the time that was spent in tasks. */
void map_group_measure(map_group *group);
/* Whether one of it ended as by a signal to this command, or, with `any`, failed at all. */
bool map_group_was_hit(map_group *group, bool any);
void map_group_kill(map_group *group, int signal);
bool map_group_runs(const map_group *group); /* whether there is somebody to kill */
void map_group_destroy(map_group *group);

/* An exit status. */
int map_run(const map_options *options, map_source *source, const map_function *function,
            const map_template *command);

#endif
