/* The runner: one fresh process per case, a limit on its time, and an audit of what the case's own
 * process cannot see. As a subreaper it becomes the parent of every orphan that a case makes.
 *
 * A checker in the wrapper writes to a named pipe: standard error belongs to the cases, which read
 * what their children write there. A file of each process would be truncated at its exec, and be
 * closed to it when it has become another user's. So the runner also hears of errors in processes
 * whose exit code nobody looks at: killed ones, orphans, the guardian, what is about to execute. */
#include "internal.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define SANITIZER_FACTOR (UNDER_SANITIZER ? 10 : 1)
#define CLOSE_ON_EXEC (1U << 2) /* CLOSE_RANGE_CLOEXEC of linux/close_range.h */
#define SHARED_MEMORY_FOLDER "/dev/shm"
#define MAX_ARGUMENTS 64
#define MAX_LEFT 64
#define LOG "@log@" /* in the wrapper: the path of the checker's pipe */
#define LOG_PIPE_SIZE (1 << 20)
#define MAX_LOG_LINES 200 /* that are shown */
#define LOG_INTERVAL_NS 100000000
#define MAX_LEAKED 1024

typedef enum outcome { PASSED, FAILED, SKIPPED } outcome;

static struct {
  char folder[PATH_MAX];
  char path[PATH_MAX];
  int fd;
  FILE *stream; /* what was read from it */
  char *text;
  size_t size;
} checker_log;

/* ---- the case's process ---------------------------------------------------------------------- */

static char *expand_log(char *word) {
  char *place = strstr(word, LOG), *expanded;
  if (!place)
    return word;
  if (asprintf(&expanded, "%.*s%s%s", (int)(place - word), word, checker_log.path,
               place + strlen(LOG)) < 0)
    abort();
  return expanded;
}

_Noreturn static void exec_case(const char *name, const char *folder, pid_t runner,
                                const sigset_t *mask) {
  char *arguments[MAX_ARGUMENTS + 4];
  size_t count = 0;
  const char *variable = getenv("MPROC_TEST_WRAPPER");
  char *wrapper = variable ? strdup(variable) : NULL; /* a case may itself run a runner */
  for (char *word = wrapper ? strtok(wrapper, " ") : NULL; word && count < MAX_ARGUMENTS;
       word = strtok(NULL, " "))
    arguments[count++] = expand_log(word);
  arguments[count++] = (char *)test_program_path();
  arguments[count++] = (char *)"--case";
  arguments[count++] = (char *)name;
  arguments[count] = NULL;

  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != runner)
    _exit(EXIT_FAILURE);
  setenv("TMPDIR", folder, 1);
  int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  dup2(null, STDIN_FILENO);
  /* What the caller leaked into the runner is none of the case's. */
  if (syscall(SYS_close_range, 3, ~0U, CLOSE_ON_EXEC) < 0)
    for (int fd = 3; fd < MAX_LEAKED; fd++)
      (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
  sigprocmask(SIG_SETMASK, mask, NULL);
  execvp(arguments[0], arguments);
  fprintf(stderr, "# %s: %s\n", arguments[0], strerror(errno));
  _exit(EXIT_FAILURE);
}

/* ---- children of the runner: the case and the orphans it made -------------------------------- */

/* Collects every child that has ended, as an init does. True while one is left. The status of
 * `watched` goes to *ret_status, and *ret_ended becomes true. */
static bool reap(pid_t watched, int *ret_status, bool *ret_ended) {
  for (;;) {
    int status;
    pid_t pid = waitpid(-1, &status, WNOHANG | __WALL);
    if (pid < 0)
      return false;
    if (pid == 0)
      return true;
    if (pid == watched) {
      *ret_status = status;
      *ret_ended = true;
    }
  }
}

static void read_log(void) {
  char part[65536];
  for (ssize_t size; (size = read(checker_log.fd, part, sizeof part)) > 0;)
    fwrite(part, 1, (size_t)size, checker_log.stream);
}

/* SIGCHLD is blocked, so that none is missed between the look and the wait. The callers look again,
 * and nobody writes a pipe full before that. */
static void wait_for_sigchld(int64_t deadline) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  int64_t left = deadline - test_now_ns();
  read_log();
  if (left > LOG_INTERVAL_NS)
    left = LOG_INTERVAL_NS;
  if (left <= 0)
    return;
  struct timespec timeout = {left / 1000000000, left % 1000000000};
  sigtimedwait(&set, NULL, &timeout);
}

static bool wait_for_case(pid_t pid, int64_t deadline, int *ret_status) {
  bool ended = false;
  for (;;) {
    reap(pid, ret_status, &ended);
    if (ended || test_now_ns() >= deadline)
      return ended;
    wait_for_sigchld(deadline);
  }
}

static void print_descendants(const char *prefix) {
  pid_t pids[MAX_LEFT];
  size_t count = audit_descendants(pids, MAX_LEFT);
  for (size_t i = 0; i < count; i++)
    audit_print_process(prefix, pids[i]);
}

/* Killing one makes orphans of its children, which come to the runner in the next round. */
static void kill_descendants(void) {
  for (;;) {
    pid_t pids[MAX_LEFT];
    size_t count = audit_descendants(pids, MAX_LEFT);
    for (size_t i = 0; i < count; i++)
      kill(pids[i], SIGKILL);
    int status;
    bool ended;
    if (!reap(0, &status, &ended))
      return;
    wait_for_sigchld(test_now_ns() + 10000000);
  }
}

/* True when every orphan ended by itself within the grace. */
static bool orphans_ended(void) {
  int64_t deadline = test_now_ns() + TEST_GRACE_NS;
  int status;
  bool ended;
  while (reap(0, &status, &ended)) {
    if (test_now_ns() >= deadline)
      return false;
    wait_for_sigchld(deadline);
  }
  return true;
}

/* ---- files ----------------------------------------------------------------------------------- */

static int remove_entry(const char *path, const struct stat *info, int kind, struct FTW *position) {
  (void)info, (void)kind, (void)position;
  return remove(path);
}

/* Open to all: some children are another user's, and a checker keeps files of its own there. */
static void make_folder(char path[PATH_MAX], const char *what) {
  const char *parent = getenv("TMPDIR");
  snprintf(path, PATH_MAX, "%s/mproc-%s-XXXXXX", parent && *parent ? parent : "/tmp", what);
  if (!mkdtemp(path) || chmod(path, 01777) < 0) {
    fprintf(stderr, "# cannot make %s: %s\n", path, strerror(errno));
    exit(EXIT_FAILURE);
  }
}

static void remove_folder(const char *path) {
  nftw(path, remove_entry, 16, FTW_DEPTH | FTW_PHYS);
}

static void open_log(void) {
  make_folder(checker_log.folder, "log");
  snprintf(checker_log.path, PATH_MAX, "%.*s/pipe", PATH_MAX - 8, checker_log.folder);
  checker_log.stream = open_memstream(&checker_log.text, &checker_log.size);
  /* Not open to all: then the system would let only its owner open the pipe. */
  if (chmod(checker_log.folder, 0755) < 0 || mkfifo(checker_log.path, 0600) < 0 ||
      chmod(checker_log.path, 0666) < 0 || !checker_log.stream ||
      (checker_log.fd = open(checker_log.path, O_RDWR | O_NONBLOCK | O_CLOEXEC)) < 0) {
    fprintf(stderr, "# cannot make %s: %s\n", checker_log.path, strerror(errno));
    exit(EXIT_FAILURE);
  }
  (void)fcntl(checker_log.fd, F_SETPIPE_SZ, LOG_PIPE_SIZE);
}

/* Lines of valgrind that begin with "--" are remarks, such as "unhandled syscall"; all the others
 * are errors. Returns how many. */
static int report_log(void) {
  int count = 0;
  char *rest = NULL;
  read_log();
  fclose(checker_log.stream);
  for (char *line = strtok_r(checker_log.text, "\n", &rest); line;
       line = strtok_r(NULL, "\n", &rest))
    if (strncmp(line, "--", 2) != 0 && ++count <= MAX_LOG_LINES)
      printf("# %s\n", line);
  free(checker_log.text);
  close(checker_log.fd);
  remove_folder(checker_log.folder);
  return count;
}

static int report_files(const char *folder) {
  name_set files = {0};
  names_of_folder(&files, folder);
  int count = names_report(&files, "file");
  names_free(&files);
  return count;
}

/* Other programs use /dev/shm too: what disappears within the grace was in use, not left. */
static int report_shared_memory(const name_set *before) {
  int64_t deadline = test_now_ns() + TEST_GRACE_NS;
  name_set left = {0};
  for (;;) {
    names_of_folder(&left, SHARED_MEMORY_FOLDER);
    names_remove(&left, before);
    if (left.count == 0 || test_now_ns() >= deadline)
      break;
    names_free(&left);
    test_sleep_ms(20);
  }
  int count = names_report(&left, "file");
  for (size_t i = 0; i < left.count; i++)
    unlink(left.names[i]);
  names_free(&left);
  return count;
}

/* Where crash points write what they hit, see tests/crash/check_points.py. Emptied at first;
 * it has a line for each case that hit none because it was skipped. */
static void write_crash_log(int flags, const char *text) {
  const char *path = getenv("MPROC_CRASH_LOG");
  int fd = path ? open(path, O_WRONLY | O_CREAT | O_CLOEXEC | flags, 0666) : -1;
  if (path && (fd < 0 || dprintf(fd, "%s", text) < 0)) {
    fprintf(stderr, "# cannot write %s: %s\n", path, strerror(errno));
    exit(EXIT_FAILURE);
  }
  if (fd >= 0)
    close(fd);
}

/* ---- one case -------------------------------------------------------------------------------- */

static int64_t limit_ns(const test_case *self) {
  int multiplier = test_environment_number("MPROC_TEST_TIMEOUT_MULTIPLIER", 1);
  if (multiplier <= 0)
    return INT64_MAX / 2;
  return self->limit_seconds * 1000000000LL * multiplier * SANITIZER_FACTOR;
}

/* Says what came of the case's own process, before anything is known of its leftovers. */
static outcome judge(int status, bool hung) {
  if (hung)
    printf("# over its limit; killed while these were running\n");
  else if (WIFSIGNALED(status))
    printf("# killed by signal %d (%s)\n", WTERMSIG(status), strsignal(WTERMSIG(status)));
  else if (WEXITSTATUS(status) == TEST_SKIPPED)
    return SKIPPED;
  else if (WEXITSTATUS(status) == EXIT_SUCCESS)
    return PASSED;
  else
    printf("# exit code %d\n", WEXITSTATUS(status));
  return FAILED;
}

/* What a failed case left is no news: it had no chance to clean up. */
static bool report_leftovers(const char *folder, const name_set *shared_memory) {
  bool left = !orphans_ended();
  if (left)
    print_descendants("left behind:");
  kill_descendants();
  return report_files(folder) + report_shared_memory(shared_memory) > 0 || left;
}

static outcome run_case(const test_case *self, const sigset_t *mask) {
  char folder[PATH_MAX];
  name_set shared_memory = {0};
  make_folder(folder, "test");
  open_log();
  names_of_folder(&shared_memory, SHARED_MEMORY_FOLDER);

  fflush(stdout);
  pid_t runner = getpid(), pid = fork();
  if (pid < 0) {
    perror("# fork");
    exit(EXIT_FAILURE);
  }
  if (pid == 0)
    exec_case(self->name, folder, runner, mask);

  int status = 0;
  bool hung = !wait_for_case(pid, test_now_ns() + limit_ns(self), &status);
  outcome result = judge(status, hung);
  if (hung)
    print_descendants("hung:");
  if (result != FAILED && report_leftovers(folder, &shared_memory))
    result = FAILED;
  kill_descendants();
  if (report_log() > 0)
    result = FAILED;
  remove_folder(folder);
  names_free(&shared_memory);
  return result;
}

/* ---- all of them ----------------------------------------------------------------------------- */

/* Whether MPROC_TEST_METHOD names another start method than the case does, see methods.h. */
static bool is_of_other_method(const char *name) {
  static const char *const methods[] = {"fork", "spawn", "forkserver"};
  const char *wanted = getenv("MPROC_TEST_METHOD"), *own = strrchr(name, '_');
  if (!wanted || !own || strcmp(own + 1, wanted) == 0)
    return false;
  for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
    if (strcmp(own + 1, methods[i]) == 0)
      return true;
  return false;
}

int runner_run(const test_case *cases, const char *part) {
  static const char *const words[] = {[PASSED] = "ok", [FAILED] = "not ok", [SKIPPED] = "ok"};
  int counts[] = {[PASSED] = 0, [FAILED] = 0, [SKIPPED] = 0};
  int number = 0;
  write_crash_log(O_TRUNC, "");
  sigset_t sigchld, mask;
  sigemptyset(&sigchld);
  sigaddset(&sigchld, SIGCHLD);
  sigprocmask(SIG_BLOCK, &sigchld, &mask);
  prctl(PR_SET_CHILD_SUBREAPER, 1);
  /* The soft limit only: a case about core dumps raises it again. */
  struct rlimit core;
  if (getrlimit(RLIMIT_CORE, &core) == 0) {
    core.rlim_cur = 0;
    setrlimit(RLIMIT_CORE, &core);
  }

  for (const test_case *self = cases; self; self = self->next) {
    if (!strstr(self->name, part) || is_of_other_method(self->name))
      continue;
    int64_t start = test_now_ns();
    outcome result = run_case(self, &mask);
    counts[result]++;
    if (result == SKIPPED)
      write_crash_log(O_APPEND, "# skipped\n");
    printf("%s %d - %s (%lld ms)%s\n", words[result], ++number, self->name,
           (long long)(test_now_ns() - start) / 1000000, result == SKIPPED ? " # SKIP" : "");
  }
  if (number == 0)
    fprintf(stderr, "no case has \"%s\" in its name\n", part);
  printf("%d passed, %d failed, %d skipped\n", counts[PASSED], counts[FAILED], counts[SKIPPED]);
  if (number == 0 || counts[FAILED] > 0)
    return EXIT_FAILURE;
  return counts[PASSED] > 0 ? EXIT_SUCCESS : TEST_SKIPPED;
}
