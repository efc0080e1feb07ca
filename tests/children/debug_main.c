/* debug_main MODE: starts a child whose argument block has words of all kinds, under whatever
 * MPROC_DEBUG and MPROC_START_METHOD say, and prints "private|harmless KIND OFFSET VALUE" for each.
 * Ends with the entry's code, or with 3 and the reason on standard output.
 *
 *   plain      nothing else
 *   no-init    mproc_init is not called
 *   hook       the log goes to standard output
 *   off        the program has switched its log off
 *   many       a block of private pointers only
 *   long       a private pointer into a file with a long path, FILE
 *   no-maps    /proc is not mounted; 4: that cannot be done here
 *   grandchild the child starts one that has a private pointer */
#define _GNU_SOURCE
#include <mproc/mproc.h>

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <unistd.h>

enum { ENTRY_CODE = 7, PAGE = 65536, MANY = 40 };

static char initialised[64] = "data", zeroed[PAGE];

typedef struct block {
  uintptr_t words[32];
  const char *kinds[32];
  size_t count;
} block;

static void add(block *to, const char *kind, const void *pointer) {
  to->kinds[to->count] = kind;
  to->words[to->count++] = (uintptr_t)pointer;
}

static void *map(int protection, int flags, int fd) {
  void *memory = mmap(NULL, PAGE, protection, flags, fd, 0);
  if (memory == MAP_FAILED)
    abort();
  return memory;
}

/* To read it is SIGBUS: the file is empty. */
static void *map_empty_file(const char *path) {
  int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0)
    abort();
  void *memory = map(PROT_READ, MAP_PRIVATE, fd);
  (void)close(fd);
  return memory;
}

static int entry(void *arg, size_t size) {
  (void)arg, (void)size;
  return ENTRY_CODE;
}

static void fill(block *to, char **argv) {
  add(to, "harmless heap", mproc_heap_alloc(100));
  add(to, "private stack", argv);
  add(to, "private data", initialised);
  add(to, "harmless null", NULL);
  add(to, "private bss", zeroed + PAGE / 2);
  static void *volatile kept; /* no leak */
  kept = malloc(10);
  add(to, "private malloc", kept);
  add(to, "private code", (void *)(uintptr_t)entry);
  add(to, "private library", (void *)(uintptr_t)abort);
  add(to, "private anonymous", map(PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1));
  add(to, "private shared", map(PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1));
  add(to, "private file", map_empty_file(argv[2]));
  add(to, "harmless guard", map(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1));
  add(to, "harmless number", (void *)(uintptr_t)12345);
  add(to, "harmless ones", (void *)UINTPTR_MAX);
}

static int start(mproc_entry *run, const void *arg, size_t size) {
  const mproc_process_options options = {.name = "the child"};
  mproc_process *process;
  mproc_status status;
  int r = mproc_process_create(&process, run, arg, size, &options);
  if (r == 0)
    r = mproc_process_start(process);
  if (r == 0)
    r = mproc_process_join(process, MPROC_FOREVER);
  if (r == 0)
    r = mproc_process_status(process, &status);
  if (r == 0)
    r = mproc_process_close(process);
  if (r < 0)
    printf("%s\n", mproc_error_detail());
  return r < 0 ? 3 : status.code;
}

static int start_plain(char **argv) {
  block b = {.count = 0};
  fill(&b, argv);
  for (size_t i = 0; i < b.count; i++)
    printf("%s %zu %#llx\n", b.kinds[i], i * sizeof b.words[0], (unsigned long long)b.words[i]);
  fflush(stdout);
  /* and one that is not at the place of a word, at the very end */
  char bytes[sizeof b.words];
  size_t size = b.count * sizeof b.words[0];
  memcpy(bytes, b.words, size);
  memcpy(bytes + size, &argv, sizeof argv - 1);
  return start(entry, bytes, size + sizeof argv - 1);
}

static int start_many(void) {
  const void *words[MANY];
  for (int i = 0; i < MANY; i++)
    words[i] = initialised;
  return start(entry, words, sizeof words);
}

static int start_long(const char *path) {
  const void *word = map_empty_file(path);
  return start(entry, &word, sizeof word);
}

static int parent(void *arg, size_t size) {
  (void)arg, (void)size;
  const void *word = initialised;
  return start(entry, &word, sizeof word);
}

static void print(void *user, mproc_log_level level, const char *message) {
  (void)user;
  printf("hook %d: %s\n", (int)level, message);
  fflush(stdout); /* below valgrind a spawned child is a copy first, and has what is buffered */
}

static int hide_proc(void) {
  int r = unshare(CLONE_NEWNS);
  if (r < 0 && errno == EPERM)
    r = unshare(CLONE_NEWUSER | CLONE_NEWNS);
  return r < 0 || mount("none", "/", "none", MS_REC | MS_PRIVATE, NULL) < 0 ||
                 mount("none", "/proc", "tmpfs", 0, NULL) < 0
             ? -1
             : 0;
}

int main(int argc, char **argv) {
  char *no_arguments[] = {NULL, "", ""};
  int r = 0;
  char **arguments = argc == 3 ? argv : no_arguments;
  const char *mode = arguments[1];
  if (argc != 3 || strcmp(mode, "no-init") != 0)
    r = mproc_init(&argc, &argv, NULL);
  if (r < 0) {
    printf("%s\n", mproc_error_detail());
    return 3;
  }
  if (strcmp(mode, "hook") == 0)
    mproc_set_log(print, NULL, MPROC_LOG_ERROR);
  if (strcmp(mode, "off") == 0)
    mproc_set_log(print, NULL, MPROC_LOG_OFF);
  if (strcmp(mode, "no-maps") == 0 && hide_proc() < 0)
    return 4;
  if (strcmp(mode, "many") == 0)
    return start_many();
  if (strcmp(mode, "long") == 0)
    return start_long(arguments[2]);
  return strcmp(mode, "grandchild") == 0 ? start(parent, NULL, 0) : start_plain(arguments);
}
