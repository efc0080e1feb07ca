/* Signals that end the command: remembered here, acted upon in the loop. */
#define _GNU_SOURCE /* pipe2 */

#include "map.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

static const int signals[] = {SIGINT, SIGTERM, SIGHUP};
enum { SIGNAL_COUNT = sizeof signals / sizeof signals[0], SIGNAL_MAX = 64 };

static volatile sig_atomic_t caught;
static int wake[2] = {-1, -1};
static pid_t program;

/* Processes that were forked from this one have the handler too: theirs is the default. */
static void remember(int number) {
  int error = errno;
  if (getpid() != program) {
    signal(number, SIG_DFL);
    raise(number);
  } else {
    caught = number;
    (void)!write(wake[1], "", 1);
  }
  errno = error;
}

uint64_t map_ignored_signals(void) {
  uint64_t ignored = 0;
  for (int number = 1; number < SIGNAL_MAX; number++) {
    struct sigaction action;
    /* this command ignores SIGPIPE and SIGXFSZ for itself, and SIGCHLD is nobody's business */
    if (number != SIGPIPE && number != SIGXFSZ && number != SIGCHLD &&
        sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN)
      ignored |= (uint64_t)1 << number;
  }
  return ignored;
}

int map_interrupt_begin(void) {
  program = getpid();
  if (pipe2(wake, O_CLOEXEC | O_NONBLOCK) < 0)
    return map_error("cannot make a pipe: %s", strerror(errno));
  for (int i = 0; i < SIGNAL_COUNT; i++) {
    struct sigaction action = {.sa_handler = remember};
    struct sigaction old;
    sigemptyset(&action.sa_mask);
    if (sigaction(signals[i], NULL, &old) == 0 && old.sa_handler == SIG_IGN)
      continue; /* nohup, or in the background of a script */
    (void)sigaction(signals[i], &action, NULL);
  }
  return 0;
}

int map_interrupted(void) {
  return caught;
}

int map_interrupt_fd(void) {
  return wake[0];
}

/* Ctrl-C reaches workers too, and the program decides what happens to them. */
void map_forget_signals(uint64_t ignored) {
  for (int i = 0; i < SIGNAL_COUNT; i++) {
    bool ignore = signals[i] == SIGINT || (ignored >> signals[i] & 1);
    signal(signals[i], ignore ? SIG_IGN : SIG_DFL);
  }
  signal(SIGPIPE, SIG_DFL);
  signal(SIGCHLD, SIG_DFL); /* or no status would be kept */
}
