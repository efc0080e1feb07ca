#define _POSIX_C_SOURCE 200809L

#include "digest.h"

#include <errno.h>
#include <getopt.h>
#include <string.h>

enum { EXIT_FAILED = 1, EXIT_USAGE = 2, METHODS_MAX = 8 };

static const char usage[] =
    "Usage: mproc-digest [DIR]\n"
    "\n"
    "Computes SHA-256 of every regular file below DIR (default: /usr/share/doc) with\n"
    "one worker process per CPU, once under each start method, and checks that all\n"
    "give the digests of sha256sum. Symbolic links are not followed.\n"
    "\n"
    "Exit status: 0 all agree, 1 a digest or a worker failed, 2 used wrongly.\n";

/* Returns 0 and the directory, 1 when there is nothing more to do, or -1. */
static int read_arguments(int argc, char **argv, const char **ret_directory) {
  static const struct option options[] = {
      {"help", no_argument, NULL, 'h'},
      {NULL, 0, NULL, 0},
  };
  int c = getopt_long(argc, argv, "h", options, NULL);
  if (c == 'h') {
    fputs(usage, stdout);
    return 1;
  }
  if (c != -1 || argc - optind > 1) {
    fputs("see 'mproc-digest --help'\n", stderr);
    return -1;
  }
  const char *directory = optind < argc ? argv[optind] : "/usr/share/doc";
  struct stat status;
  int error = stat(directory, &status) < 0 ? errno : S_ISDIR(status.st_mode) ? 0 : ENOTDIR;
  if (error) {
    char name[512];
    print_error("%s: %s", printable(directory, name, sizeof name), strerror(error));
    return -1;
  }
  *ret_directory = directory;
  return 0;
}

/* One pass is thrown away: it reads the files into the page cache and starts what starts once in a
 * program, which the first method would pay for all others. */
static int run_all(const file_list *list, size_t worker_count) {
  const char *const *names;
  const char *in_use;
  if (mproc_get_all_start_methods(&names) < 0 || mproc_get_start_method(&in_use) < 0) {
    print_mproc_error("start methods");
    return -1;
  }
  digest_pass passes[METHODS_MAX + 1] = {{0}};
  if (run_pass(list, in_use, worker_count, &passes[0]) < 0)
    return -1;
  release_pass(&passes[0]);
  printf("warm-up: one pass that does not count; every method finds the files in memory\n\n");

  print_table_head();
  size_t count = 0;
  for (; names[count] && count < METHODS_MAX; count++) {
    if (run_pass(list, names[count], worker_count, &passes[count]) < 0)
      return -1;
    print_table_row(&passes[count]);
  }
  if (run_reference(list, passes[0].results, &passes[count]) < 0)
    return -1;
  print_table_row(&passes[count]);
  int r = compare_passes(list, passes, count + 1);
  for (size_t i = 0; i <= count; i++)
    release_pass(&passes[i]);
  return r;
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0) {
    print_mproc_error("cannot begin");
    return EXIT_USAGE;
  }
  const char *directory;
  int r = read_arguments(argc, argv, &directory);
  if (r != 0)
    return r < 0 ? EXIT_USAGE : 0;

  print_methods();
  file_list list;
  if (walk_tree(directory, &list) < 0)
    return EXIT_FAILED;
  size_t worker_count = (size_t)mproc_cpu_count();
  char name[512];
  printf("%s: %zu files, %.1f MB; %zu worker%s, one per CPU\n",
         printable(directory, name, sizeof name), list.count, (double)list.byte_count / 1e6,
         worker_count, worker_count == 1 ? "" : "s");
  if (list.count == 0) {
    puts("nothing to compare");
    return 0;
  }
  r = run_all(&list, worker_count);
  if (fflush(stdout) != 0 || ferror(stdout)) {
    print_error("cannot write to standard output");
    r = -1;
  }
  return r < 0 ? EXIT_FAILED : 0;
}
