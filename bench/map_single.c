/* The peer of bench_map: `map_single pack|digest [FILE]...` does the same work in one process.
 * Without a FILE, names come from standard input. */
#include "map_work.h"

#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static char output[1 << 20];

static bool do_one(map_work *work, const char *path) {
  char line[MAP_LINE];
  if (work(path, line, sizeof line) < 0) {
    (void)fprintf(stderr, "map_single: %s: cannot be read\n", path);
    return false;
  }
  return puts(line) >= 0;
}

int main(int argc, char **argv) {
  char path[MAP_PATH];
  bool good = true;
  map_work *work = argc < 2                         ? NULL
                   : strcmp(argv[1], "pack") == 0   ? map_pack
                   : strcmp(argv[1], "digest") == 0 ? map_digest
                                                    : NULL;
  if (!work) {
    (void)fprintf(stderr, "usage: map_single pack|digest [FILE]...\n");
    return 2;
  }
  /* In one piece: several write to the same file, and xargs does not keep their lines apart. */
  (void)setvbuf(stdout, output, _IOFBF, sizeof output);
  for (int i = 2; i < argc; i++)
    good = do_one(work, argv[i]) && good;
  while (argc == 2 && fgets(path, sizeof path, stdin)) {
    path[strcspn(path, "\n")] = '\0';
    good = do_one(work, path) && good;
  }
  return !good;
}
