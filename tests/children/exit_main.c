/* exit_main METHOD return|exit: a main program that ends while its children run. Prints in which
 * order things happen. */
#define _GNU_SOURCE
#include <mproc/mproc.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *text) {
  if (write(STDOUT_FILENO, text, strlen(text)) < 0)
    _exit(90);
}

static int run_daemon(void *arg, size_t size) {
  char byte = 0;
  int number;
  sigset_t polite;
  mproc_handle ready;
  (void)arg, (void)size;
  (void)sigemptyset(&polite);
  (void)sigaddset(&polite, SIGTERM);
  /* Not by a handler: ThreadSanitizer keeps a signal that comes just before pause() for later. */
  if (sigprocmask(SIG_BLOCK, &polite, NULL) < 0 || mproc_inherited("ready", &ready) < 0 ||
      write((int)ready, &byte, 1) != 1 || sigwait(&polite, &number) != 0)
    return 1;
  say("daemon terminated\n");
  return 0;
}

static int run_child(void *arg, size_t size) {
  char byte;
  mproc_handle go;
  (void)arg, (void)size;
  if (mproc_inherited("go", &go) < 0 || read((int)go, &byte, 1) != 1)
    return 1;
  (void)usleep(100000);
  say("child done\n");
  return 0;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0 || argc != 3)
    return 91;
  int ready[2], go[2];
  char byte = 0;
  if (pipe2(ready, O_CLOEXEC) < 0 || pipe2(go, O_CLOEXEC) < 0)
    return 92;
  mproc_process *child, *daemon;
  mproc_inherit inherit = {ready[1], "ready"};
  mproc_inherit inherit_go = {go[0], "go"};
  mproc_process_options options = {.method = argv[1], .inherit = &inherit_go, .inherit_count = 1};
  mproc_process_options daemon_options = {
      .method = argv[1], .daemon = 1, .inherit = &inherit, .inherit_count = 1};
  if (mproc_process_create(&child, run_child, NULL, 0, &options) < 0 ||
      mproc_process_create(&daemon, run_daemon, NULL, 0, &daemon_options) < 0 ||
      mproc_process_start(child) < 0 || mproc_process_start(daemon) < 0 ||
      read(ready[0], &byte, 1) != 1)
    return 93;
  say("main ends\n");
  if (write(go[1], &byte, 1) != 1)
    return 94;
  if (strcmp(argv[2], "exit") == 0)
    exit(5);
  return 5;
}
