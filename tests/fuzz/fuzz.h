/* What the fuzz targets share. A target is one function of bytes from outside; it fails by a
 * sanitizer's report or by FUZZ_CHECK. It also makes the seeds that a run begins with. */
#ifndef MPROC_FUZZ_H
#define MPROC_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerInitialize(int *argc, char ***argv);

#define FUZZ_CHECK(condition)                                                                      \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      fprintf(stderr, "FUZZ_CHECK(" #condition ") failed\n");                                      \
      abort();                                                                                     \
    }                                                                                              \
  } while (0)

/* Calls fuzz_add_seed for each seed. */
static void fuzz_make_seeds(void);

static inline void fuzz_add_seed(const void *data, size_t size) {
  static int number;
  char path[4096];
  snprintf(path, sizeof path, "%s/seed-%d", getenv("MPROC_FUZZ_SEEDS"), number++);
  FILE *file = fopen(path, "we");
  FUZZ_CHECK(file && fwrite(data, 1, size, file) == size && fclose(file) == 0);
}

/* With MPROC_FUZZ_SEEDS=FOLDER a target writes its seeds there and ends. */
int LLVMFuzzerInitialize(int *argc, char ***argv) {
  (void)argc, (void)argv;
  if (getenv("MPROC_FUZZ_SEEDS")) {
    fuzz_make_seeds();
    exit(0);
  }
  return 0;
}

#endif
