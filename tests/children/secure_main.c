/* A program that somebody may have made set-user-ID, and the one who attacks it.
 *
 *   secure_main report            says what mproc does here
 *   secure_main forge PROGRAM     executes PROGRAM, a copy of this program, with a boot record that
 *                                 is sealed and valid and sends it into a function that the
 *                                 attacker chose */
#define _GNU_SOURCE
#include <mproc/mproc.h>

#include "process/boot.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <unistd.h>

enum { EVIL_CODE = 66 };

#ifdef __SANITIZE_ADDRESS__
/* It cannot look for leaks in a set-user-ID process. */
const char *__asan_default_options(void);
__attribute__((visibility("default"), used)) const char *__asan_default_options(void) {
  return "detect_leaks=0";
}
#endif

static void evil(const void *record, size_t size, mproc_handle handle) {
  (void)record, (void)size, (void)handle;
  printf("evil %d\n", (int)geteuid());
  fflush(stdout);
  _exit(EVIL_CODE);
}

static int seven(void *arg, size_t size) {
  (void)arg, (void)size;
  return 7;
}

static void try_method(const char *method) {
  const mproc_process_options options = {.method = method};
  mproc_process *process;
  mproc_status status = {.code = -1};
  int r = mproc_process_create(&process, seven, NULL, 0, &options);
  if (r == 0)
    r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  if (r == 0)
    (void)mproc_process_status(process, &status);
  printf("%s %d %d %s\n", method, r, status.code, r < 0 ? mproc_error_detail() : "");
}

static int report(int r) {
  const char *method = NULL;
  printf("secure %d\n", getauxval(AT_SECURE) != 0);
  printf("init %d %s\n", r, r < 0 ? mproc_error_detail() : "");
  r = mproc_get_start_method(&method);
  printf("method %d %s\n", r, method ? method : "none");
  try_method("spawn");
  try_method("forkserver");
  try_method("fork");
  printf("end\n");
  return 0;
}

static int forge(const char *program) {
  mpx_boot_record record = {.version = MPX_BOOT_VERSION, .kind = MPX_BOOT_ENTRY};
  char marker[64];
  mproc_handle handle;
  if (mpx_boot_prepare(&record, MPX_BOOT_ENTRY, MPX_NO_HANDLE) < 0 ||
      mpx_function_of((uintptr_t)evil, &record.head.boot) < 0)
    return 1;
  record.head.size = sizeof record;
  const mpx_os_bytes part = {&record, sizeof record};
  if (mpx_os_seal_create("mproc-boot", &part, 1, &handle) < 0)
    return 1;
  (void)mpx_os_set_inheritable(handle, true);
  (void)snprintf(marker, sizeof marker, "%d:%d", (int)handle, (int)getpid());
  setenv("MPROC_BOOT", marker, 1);
  setenv("MPROC_START_METHOD", "garbage", 1);
  setenv("MPROC_LOG", "garbage", 1);
  setenv("MPROC_DEBUG", "garbage", 1);
  setenv("MPROC_EXECUTABLE", "/bin/false", 1);
  execl(program, program, "report", (char *)NULL);
  return 127;
}

int main(int argc, char **argv) {
  int r = mproc_init(&argc, &argv, NULL);
  if (argc == 3 && strcmp(argv[1], "forge") == 0)
    return forge(argv[2]);
  return report(r);
}
