/* The boot record, as the child reads it. The input says how it differs from what spawn writes. */
#include "process/boot.c"

#include "fuzz.h"
#include "mproc/start_method.h"

typedef struct recipe {
  uint64_t inherited_at, inherited_count, argument_at, argument_size;
  uint32_t version, chosen_method;
  uint16_t missing;                     /* bytes at the end */
  uint16_t path_length, id_size;        /* of the entry's module */
  uint16_t head_path_length, head_size; /* size: too large by that much */
} recipe;

static void fill(mpx_function *function, uint16_t path_length, uint16_t id_size) {
  size_t length = path_length < sizeof function->path ? path_length : sizeof function->path;
  memset(function->path, 'x', length);
  function->id.kind = 1;
  function->id.size = id_size;
}

/* Exactly as long as it says, so that a byte beyond it is seen. */
static mpx_boot_record *build(const recipe *from, const uint8_t *tail, size_t tail_size,
                              size_t *ret_size) {
  size_t whole = sizeof(mpx_boot_record) + tail_size, size = whole - from->missing % whole;
  mpx_boot_record *fixed = calloc(1, sizeof *fixed);
  char *bytes = malloc(whole), *exact = malloc(size ? size : 1);
  FUZZ_CHECK(fixed && bytes && exact);
  memcpy(fixed->head.magic, MPX_BOOT_MAGIC, sizeof fixed->head.magic);
  fixed->head.size = size + from->head_size;
  fixed->head.report = MPX_NO_HANDLE;
  fill(&fixed->head.boot, from->head_path_length, 20);
  fill(&fixed->entry, from->path_length, from->id_size);
  fixed->version = from->version;
  fixed->kind = MPX_BOOT_ENTRY;
  fixed->chosen_method = from->chosen_method;
  fixed->inherited_at = from->inherited_at;
  fixed->inherited_count = from->inherited_count;
  fixed->argument_at = from->argument_at;
  fixed->argument_size = from->argument_size;
  memcpy(bytes, fixed, sizeof *fixed);
  if (tail_size > 0)
    memcpy(bytes + sizeof *fixed, tail, tail_size);
  memcpy(exact, bytes, size);
  free(bytes);
  free(fixed);
  *ret_size = size;
  return (mpx_boot_record *)(void *)exact;
}

/* What lies behind it belongs to the same object: no sanitizer would see a path without an end. */
static void check_path(const mpx_function *function) {
  FUZZ_CHECK(memchr(function->path, '\0', sizeof function->path));
}

static void read_head(const mpx_boot_record *record, size_t size) {
  uintptr_t boot;
  if (!has_head(record, size))
    return;
  check_path(&record->head.boot);
  (void)mpx_function_resolve(&record->head.boot, &boot);
}

static void read_record(const mpx_boot_record *record, size_t size) {
  uintptr_t entry;
  if (!is_sound(record, size))
    return;
  mproc_inherit *inherited = copy_inherited(record);
  void *argument = copy_argument(record);
  FUZZ_CHECK(inherited && (argument || record->argument_size == 0));
  for (uint64_t i = 0; i < record->inherited_count; i++)
    FUZZ_CHECK(strlen(inherited[i].name) < MPX_NAME_SIZE);
  check_path(&record->entry);
  (void)mpx_function_resolve(&record->entry, &entry);
  mpx_method_inherit((mpx_method)record->chosen_method);
  const char *method;
  (void)mproc_get_start_method(&method);
  free(argument);
  free(inherited);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  recipe from;
  if (size < sizeof from)
    return 0;
  memcpy(&from, data, sizeof from);
  size_t record_size;
  mpx_boot_record *record = build(&from, data + sizeof from, size - sizeof from, &record_size);
  read_head(record, record_size);
  read_record(record, record_size);
  free(record);
  return 0;
}

static void fuzz_make_seeds(void) {
  enum { INHERITED = 2, ARGUMENT_SIZE = 24 };
  struct {
    recipe from;
    mpx_inherited inherited[INHERITED];
    char argument[ARGUMENT_SIZE];
  } seed = {.from = {.inherited_at = sizeof(mpx_boot_record),
                     .inherited_count = INHERITED,
                     .argument_at = sizeof(mpx_boot_record) + sizeof seed.inherited,
                     .argument_size = ARGUMENT_SIZE,
                     .version = MPX_BOOT_VERSION,
                     .chosen_method = 1,
                     .path_length = 20,
                     .id_size = 20,
                     .head_path_length = 20}};
  fuzz_add_seed(&seed, sizeof seed);
  seed.from.inherited_count = 0;
  seed.from.argument_at = sizeof(mpx_boot_record);
  seed.from.argument_size = 0;
  fuzz_add_seed(&seed, sizeof seed.from);
}
