/* Files of /proc that name other people's files and programs: maps and stat. The input is the
 * file. */
#define _GNU_SOURCE
#include "fuzz.h"
#include "os/linux/proc.h"

#include <errno.h>
#include <string.h>

static const uint8_t *input;
static size_t input_size;

static FILE *open_input(const char *path, const char *mode) {
  (void)path, (void)mode;
  errno = ENOENT;
  return input_size ? fmemopen((void *)(uintptr_t)input, input_size, "r") : NULL;
}

#define fopen open_input
#include "os/linux/maps.c"
#undef fopen

enum { ADDRESS = 0x5000, SMALL = 24 };

static void find_path(size_t size) {
  char *path = malloc(size); /* on the heap: a byte beyond it is seen */
  bool deleted;
  FUZZ_CHECK(path);
  if (mpx_maps_path(ADDRESS, path, size, &deleted) == 0)
    FUZZ_CHECK(path[0] == '/' && strnlen(path, size) < size && (deleted == true || !deleted));
  free(path);
}

static void list_mappings(void) {
  mpx_mapping *mappings;
  size_t count;
  if (mpx_os_mappings(&mappings, &count) < 0)
    return;
  FUZZ_CHECK(count > 0);
  for (size_t i = 0; i < count; i++)
    FUZZ_CHECK(mappings[i].name[0] != '\0');
  mpx_os_mappings_free(mappings, count);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  input = data;
  input_size = size;
  find_path(SMALL);
  find_path(4096);
  list_mappings();
  char *text = malloc(size + 1);
  mpx_proc_stat stat;
  FUZZ_CHECK(text);
  memcpy(text, data, size);
  text[size] = '\0';
  (void)mpx_proc_parse_stat(text, &stat);
  free(text);
  return 0;
}

static void add_text(const char *text) {
  fuzz_add_seed(text, strlen(text));
}

static void fuzz_make_seeds(void) {
  add_text("1000-2000 r-xp 0 08:01 7 /bin/a\n4000-6000 r-xp 00000000 08:01 12 /lib/x.so\n");
  add_text("4000-6000 r-xp 00000000 08:01 1234567 /tmp/a\\012b/lib x.so (deleted)\n");
  add_text("1000-2000 rw-p 0 08:01 7 /bin/a\n2000-4000 rw-p 0 00:00 0\n4000-5000 ---p 0 00:00 0\n");
  add_text("5000-6000 rw-p 00000000 00:00 0 [heap]\n");
  add_text("77 (a) b) S 1 77 77 0 -1 4194304 100 0 0 0 1 2 0 0 20 0 3 0 987654321 1000 5\n");
}
