#include "digest.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

enum { PROGRESS_MS = 100 };

static digest_job *create_job(const file_list *list, size_t worker_count) {
  digest_job *job = mproc_heap_aligned_alloc(CACHE_LINE, sizeof *job);
  worker_line *workers = mproc_heap_aligned_alloc(CACHE_LINE, worker_count * sizeof *workers);
  digest_result *results = mproc_heap_calloc(list->count, sizeof *results);
  if (!job || !workers || !results) {
    print_mproc_error("cannot make room for the results");
    mproc_heap_free(job);
    mproc_heap_free(workers);
    mproc_heap_free(results);
    return NULL;
  }
  memset(workers, 0, worker_count * sizeof *workers);
  *job = (digest_job){
      .files = list->files, .file_count = list->count, .results = results, .workers = workers};
  return job;
}

static int start_worker(mproc_process **ret_process, digest_job *job, const char *method,
                        size_t number) {
  char name[32];
  snprintf(name, sizeof name, "digest-%s-%zu", method, number);
  worker_argument argument = {job, number};
  /* daemon: Ctrl-C, or any other end of this program, ends the workers too. */
  mproc_process_options options = {.name = name, .daemon = 1, .method = method};
  mproc_process *process;
  if (mproc_process_create(&process, worker_main, &argument, sizeof argument, &options) < 0) {
    print_mproc_error(name);
    return -1;
  }
  if (mproc_process_start(process) < 0) {
    print_mproc_error(name);
    mproc_process_close(process);
    return -1;
  }
  *ret_process = process;
  return 0;
}

static int wait_for_all(mproc_process **processes, size_t count, const char *method,
                        const digest_job *job) {
  mproc_wait_item *items = calloc(count, sizeof *items);
  if (!items) {
    print_error("out of memory");
    return -1;
  }
  for (size_t i = 0; i < count; i++)
    items[i] = (mproc_wait_item){.kind = MPROC_WAIT_PROCESS, .object = processes[i]};
  int r;
  do {
    progress_show(method, job, count);
    r = mproc_wait(items, count, 1, PROGRESS_MS);
  } while (r == -ETIMEDOUT);
  progress_clear();
  free(items);
  if (r < 0)
    print_mproc_error("cannot wait for the workers");
  return r < 0 ? -1 : 0;
}

static const char *cause(const mproc_status *status, char *buffer, size_t size) {
  if (status->state == MPROC_STATE_EXITED && status->code == WORKER_NO_MEMORY)
    return "ran out of memory";
  if (status->state == MPROC_STATE_EXITED && status->code == WORKER_NO_DIGEST)
    return "libcrypto refused SHA-256";
  return mproc_strstatus(status, buffer, size);
}

static int finish_worker(mproc_process *process, const digest_job *job, size_t number) {
  mproc_status status;
  if (mproc_process_join(process, MPROC_FOREVER) < 0 ||
      mproc_process_status(process, &status) < 0) {
    print_mproc_error(mproc_process_name(process));
    return -1;
  }
  int failed = status.state != MPROC_STATE_EXITED || status.code != 0;
  if (failed) {
    char text[128];
    char name[512];
    size_t current = atomic_load(&job->workers[number].current);
    print_error("worker %s (pid %lld): %s%s%s", mproc_process_name(process),
                (long long)mproc_process_pid(process), cause(&status, text, sizeof text),
                current ? ", with the file " : "",
                current ? printable(job->files[current - 1].path, name, sizeof name) : "");
  }
  mproc_process_close(process);
  return failed ? -1 : 0;
}

static void summarize(const digest_job *job, double started_s, digest_pass *pass) {
  int64_t first_ns = INT64_MAX;
  for (size_t i = 0; i < pass->worker_count; i++) {
    const worker_line *line = &job->workers[i];
    int64_t ns = atomic_load(&line->started_ns);
    first_ns = ns && ns < first_ns ? ns : first_ns;
    pass->byte_count += atomic_load(&line->byte_count);
  }
  pass->first_worker_s = (double)first_ns / 1e9 - started_s;
  for (size_t i = 0; i < job->file_count; i++)
    pass->file_count += job->results[i].outcome == OUTCOME_DONE;
}

static int start_workers(mproc_process **processes, digest_job *job, const digest_pass *pass,
                         size_t *started) {
  for (*started = 0; *started < pass->worker_count; (*started)++) {
    if (start_worker(&processes[*started], job, pass->method, *started) < 0)
      return -1;
  }
  return 0;
}

static void discard_workers(mproc_process **processes, size_t count) {
  for (size_t i = 0; i < count; i++)
    mproc_process_kill(processes[i]);
  for (size_t i = 0; i < count; i++) {
    if (mproc_process_join(processes[i], MPROC_FOREVER) == 0)
      mproc_process_close(processes[i]);
  }
}

static int run_workers(mproc_process **processes, digest_job *job, digest_pass *pass) {
  size_t started;
  double started_s = now_s();
  if (start_workers(processes, job, pass, &started) < 0 ||
      wait_for_all(processes, started, pass->method, job) < 0) {
    discard_workers(processes, started);
    return -1;
  }
  int r = 0;
  for (size_t i = 0; i < started; i++) {
    if (finish_worker(processes[i], job, i) < 0)
      r = -1;
  }
  pass->total_s = now_s() - started_s;
  if (r == 0)
    summarize(job, started_s, pass);
  return r;
}

int run_pass(const file_list *list, const char *method, size_t worker_count,
             digest_pass *ret_pass) {
  mproc_process **processes = calloc(worker_count, sizeof(mproc_process *));
  if (!processes) {
    print_error("out of memory");
    return -1;
  }
  digest_job *job = create_job(list, worker_count);
  if (!job) {
    free(processes);
    return -1;
  }
  digest_pass pass = {.method = method, .worker_count = worker_count, .results = job->results};
  int r = run_workers(processes, job, &pass);
  free(processes);
  mproc_heap_free(job->workers);
  mproc_heap_free(job);
  if (r < 0)
    release_pass(&pass);
  else
    *ret_pass = pass;
  return r;
}

void release_pass(digest_pass *pass) {
  mproc_heap_free(pass->results);
  pass->results = NULL;
}
