/* Children as a whole, and what became of one in words. */
#include "base/error.h"
#include "process/process.h"

#include <stdio.h>

typedef struct active {
  mproc_process **children;
  size_t capacity;
  size_t count;
} active;

static void collect(mproc_process *process, void *user) {
  active *into = user;
  if (process->creator != mpx_os_pid() || mproc_process_is_alive(process) != 1)
    return;
  if (into->count < into->capacity)
    into->children[into->count] = process;
  into->count++;
}

int mproc_active_children(mproc_process **children, size_t capacity) {
  active into = {.children = children, .capacity = children ? capacity : 0};
  mpx_os_cancel_hold();
  mpx_registry_visit(collect, &into);
  mpx_os_cancel_release();
  return (int)into.count;
}

static void append_peak(const mproc_status *status, char *text, size_t size, int used) {
  if (status->max_rss_bytes >= 0 && used >= 0 && (size_t)used < size)
    (void)snprintf(text + used, size - (size_t)used, ", peak %lld MB",
                   (long long)((status->max_rss_bytes + 500000) / 1000000));
}

int mpx_exit_say(const mpx_exit *exit, char *text, size_t size) {
  char name[32];
  if (exit->state == MPROC_STATE_EXITED)
    return snprintf(text, size, "exited with code %d", exit->code);
  if (exit->state == MPROC_STATE_SIGNALED)
    return snprintf(text, size, "killed by %s%s",
                    mpx_os_signal_name(exit->signal, name, sizeof name),
                    exit->core_dumped ? " (core dumped)" : "");
  return snprintf(text, size, "its status is unknown");
}

const char *mproc_strstatus(const mproc_status *status, char *buffer, size_t size) {
  char how[64];
  if (!status || !buffer)
    return "";
  const mpx_exit exit = {.state = status->state,
                         .code = status->code,
                         .signal = status->signal,
                         .core_dumped = status->core_dumped != 0};
  double seconds = (double)status->run_time_ns / 1e9;
  int used = 0;
  switch (status->state) {
  case MPROC_STATE_CREATED:
    (void)snprintf(buffer, size, "not started");
    return buffer;
  case MPROC_STATE_RUNNING:
    (void)snprintf(buffer, size, "running for %.1f s", seconds);
    return buffer;
  case MPROC_STATE_EXITED:
  case MPROC_STATE_SIGNALED:
    (void)mpx_exit_say(&exit, how, sizeof how);
    used = snprintf(buffer, size, "%s after %.1f s", how, seconds);
    break;
  case MPROC_STATE_UNKNOWN:
    used = snprintf(buffer, size, "ended after %.1f s, status unknown", seconds);
    break;
  }
  append_peak(status, buffer, size, used);
  return buffer;
}

/* The code of a process that ended, or its death as an error with the story as its text. */
static int result_of(mproc_process *process) {
  mproc_status status;
  char text[128];
  int r = mproc_process_status(process, &status);
  if (r < 0)
    return r;
  if (status.state == MPROC_STATE_EXITED)
    return status.code;
  return mpx_fail(status.state == MPROC_STATE_SIGNALED ? MPROC_ECRASHED : MPROC_ESTATUS_UNKNOWN,
                  "'%s' (process %lld) %s; to deal with such ends, start it by "
                  "mproc_process_start()",
                  process->name, (long long)process->child.pid,
                  mproc_strstatus(&status, text, sizeof text));
}

static int run(mproc_entry *entry, const void *arg, size_t size) {
  mproc_process *process;
  int r = mproc_process_create(&process, entry, arg, size, NULL);
  if (r < 0)
    return r;
  r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  if (r == 0)
    r = result_of(process);
  (void)mproc_process_close(process);
  return r;
}

int mproc_run(mproc_entry *entry, const void *arg, size_t size) {
  mpx_os_cancel_hold();
  int r = run(entry, arg, size);
  mpx_os_cancel_release();
  return r;
}
