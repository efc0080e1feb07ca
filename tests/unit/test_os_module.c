/* Where a function lives: modules by identity, loaded, replaced, deleted; the program itself. */
#include "in_child.h"

#include "base/error.h"
#include "os/linux/elf_identity.h"
#include "os/linux/maps.h"
#include "os/os.h"
#include "os/posix/pin.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#ifndef MPX_STATIC
#define MPX_STATIC 0
#endif

static int an_entry(void) {
  return 1;
}

static const void *address_of(int (*function)(void)) {
  return (const void *)(uintptr_t)function;
}

static void shell(const char *format, const char *first, const char *second) {
  char command[9000];
  snprintf(command, sizeof command, format, first, second);
  CHECK_EQ(system(command), 0);
}

/* ---- the main program ------------------------------------------------------------------------ */

TEST(a_static_function_is_in_the_program) {
  mpx_module module, program;
  CHECK_OK(mpx_os_module_of(address_of(an_entry), &module));
  CHECK_OK(mpx_os_module_main(&program));
  CHECK(module.is_main && program.is_main);
  CHECK_EQ(module.base, program.base);
  CHECK(mpx_module_id_equal(&module.id, &program.id));
  CHECK_STR(module.path, program.path);
  CHECK_STR(strrchr(module.path, '/'), "/test_os_module");
  mpx_module found;
  CHECK_OK(mpx_os_module_load("/no/such/file", &module.id, &found)); /* it is loaded already */
  CHECK(found.is_main);
  CHECK_EQ(found.base, module.base);
}

TEST(data_and_stack_are_in_no_module) {
  mpx_module module;
  int local = 0;
  void *heap = malloc(1);
  CHECK_EQ(mpx_os_module_of(&local, &module), -ENOENT);
  CHECK_EQ(mpx_os_module_of(heap, &module), -ENOENT);
  CHECK_EQ(mpx_os_module_of(NULL, &module), -ENOENT);
  CHECK_CONTAINS(mproc_error_detail(), "no library");
  free(heap);
}

static void run_self(const char *command, const char *first, const char *second, char *line,
                     size_t size) {
  char text[9000];
  snprintf(text, sizeof text, command, first, second);
  FILE *stream = popen(text, "re");
  CHECK(stream);
  CHECK(fgets(line, (int)size, stream));
  CHECK_EQ(pclose(stream), 0);
  line[strcspn(line, "\n")] = '\0';
}

TEST(the_program_is_found_again) {
  char line[4096], path[4096];
  CHECK(realpath(test_child_path("os_self_path"), path));
  run_self("'%s' %s", path, "", line, sizeof line);
  CHECK_STR(line, "/proc/self/exe");

  const char *copy = test_tmp_path("copy"); /* the link outlives the file */
  shell("cp '%s' '%s'", path, copy);
  run_self("'%s' '%s'", copy, copy, line, sizeof line);
  CHECK_STR(line, "/proc/self/exe");
  CHECK_EQ(access(copy, F_OK), -1);
}

TEST(the_program_is_found_below_an_explicit_loader) {
  char line[4096], path[4096];
#ifdef __GLIBC__
  bool has_loader = !MPX_STATIC && access("/lib64/ld-linux-x86-64.so.2", X_OK) == 0;
#else
  bool has_loader = false;
#endif
  if (!has_loader || UNDER_SANITIZER)
    SKIP("no loader to call, or the sanitizer dislikes it");
  CHECK(realpath(test_child_path("os_self_path"), path));
  run_self("/lib64/ld-linux-x86-64.so.2 '%s' %s", path, "", line, sizeof line);
  CHECK_STR(line, path);
  /* Deleted: neither link nor path leads to it, and that is said. */
  const char *copy = test_tmp_path("copy");
  shell("cp '%s' '%s'", path, copy);
  char command[9000];
  snprintf(command, sizeof command, "/lib64/ld-linux-x86-64.so.2 '%s' '%s'", copy, copy);
  FILE *stream = popen(command, "re");
  CHECK(fgets(line, sizeof line, stream));
  CHECK(pclose(stream) != 0);
  CHECK_CONTAINS(line, "was not found");
}

TEST(the_program_is_found_under_valgrind) {
  char line[4096], path[4096];
  if (UNDER_SANITIZER || getenv("MPROC_TEST_WRAPPER") || access("/usr/bin/valgrind", X_OK) < 0)
    SKIP("no valgrind, or one too many");
  const char *copy = test_tmp_path("copy"); /* old valgrinds end at new debug information */
  shell("strip -g -o '%2$s' '%1$s' 2>/dev/null || cp '%1$s' '%2$s'",
        test_child_path("os_self_path"), copy);
  CHECK(realpath(copy, path));
  run_self("valgrind -q '%s' %s 2>/dev/null", path, "", line, sizeof line);
  CHECK_STR(line, path);
  CHECK_EQ(unlink(copy), 0);
}

/* ---- maps ------------------------------------------------------------------------------------ */

static void check_mapped_path(const char *name, const char *remove, bool deleted) {
  char path[MPX_OS_PATH_SIZE], expected[4096];
  bool is_deleted = !deleted;
  CHECK(realpath(test_tmp_path(""), expected));
  strcat(expected, "/");
  strcat(expected, name);
  int fd = open(expected, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(ftruncate(fd, 4096), 0);
  void *memory = mmap(NULL, 4096, PROT_READ, MAP_PRIVATE, fd, 0);
  CHECK(memory != MAP_FAILED);
  if (remove)
    CHECK_EQ(unlink(expected), 0);
  CHECK_OK(mpx_maps_path((uintptr_t)memory + 5, path, sizeof path, &is_deleted));
  CHECK_STR(path, expected);
  CHECK_EQ(is_deleted, deleted);
  CHECK_EQ(mpx_maps_path((uintptr_t)memory + 5, path, 4, &is_deleted), -ENAMETOOLONG);
  munmap(memory, 4096);
  close(fd);
  (void)unlink(expected);
}

TEST(mapped_files_have_any_name) {
  check_mapped_path("plain", NULL, false);
  check_mapped_path("with space", NULL, false);
  check_mapped_path("with\nnewline", NULL, false);
  check_mapped_path("not really (deleted)", NULL, false);
  check_mapped_path("really", "gone", true);
  check_mapped_path("twice (deleted)", "gone", true);
  char path[MPX_OS_PATH_SIZE];
  bool deleted;
  CHECK_EQ(mpx_maps_path(1, path, sizeof path, &deleted), -ENOENT);
  CHECK_EQ(mpx_maps_path((uintptr_t)&deleted, path, sizeof path, &deleted), -ENOENT); /* [stack] */
}

static const mpx_mapping *mapping_at(const mpx_mapping *mappings, size_t count, const void *place) {
  for (size_t i = 0; i < count; i++)
    if ((uintptr_t)place >= mappings[i].start && (uintptr_t)place < mappings[i].end)
      return &mappings[i];
  return NULL;
}

TEST(mappings_are_those_that_can_be_used) {
  static char zeroed[1 << 20];
  const size_t size = 65536;
  char name[4096];
  mpx_mapping *mappings;
  size_t count;
  CHECK(realpath(test_tmp_path(""), name));
  strcat(name, "/with\nnewline");
  int fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  char *file = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
  char *guard = mmap(NULL, size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(file != MAP_FAILED && guard != MAP_FAILED);
  CHECK_OK(mpx_os_mappings(&mappings, &count));
  for (size_t i = 0; i < count; i++)
    CHECK(mappings[i].start < mappings[i].end && mappings[i].name[0] != '\0' &&
          (i == 0 || mappings[i].start >= mappings[i - 1].end));
  CHECK(mapping_at(mappings, count, guard) == NULL);
  CHECK(mapping_at(mappings, count, (void *)UINTPTR_MAX) == NULL);
  CHECK_STR(mapping_at(mappings, count, file + size - 1)->name, name);
  CHECK(!mapping_at(mappings, count, &count)->is_code);
  CHECK(mapping_at(mappings, count, (void *)(uintptr_t)mapping_at)->is_code);
  CHECK_CONTAINS(mapping_at(mappings, count, (void *)(uintptr_t)mapping_at)->name,
                 "/test_os_module");
  CHECK_CONTAINS(mapping_at(mappings, count, zeroed + sizeof zeroed / 2)->name,
                 "anonymous memory behind ");
  mpx_os_mappings_free(mappings, count);
  munmap(file, size);
  munmap(guard, size);
  close(fd);
  CHECK_EQ(unlink(name), 0);
}

/* ---- libraries ------------------------------------------------------------------------------- */

#if !MPX_STATIC
static const char *library(const char *name) {
  static char path[4096];
  snprintf(path, sizeof path, "%s.so", test_child_path(name));
  return path;
}

static int (*load_entry(const char *path))(void) {
  void *handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  CHECK(handle);
  void *symbol = dlsym(handle, "module_entry");
  CHECK(symbol);
  return (int (*)(void))(uintptr_t)symbol;
}

/* Installs as an installer does: a new file in the place of the old one. */
static void install(const char *name, const char *path) {
  char from[4096];
  snprintf(from, sizeof from, "%s", library(name));
  shell("rm -f '%2$s' && cp '%1$s' '%2$s'", from, path);
}

/* The id that a process gets which has `path` loaded. */
static mpx_module *shared_module;

static const char *module_path;

static void describe_in_child(void) {
  CHECK_OK(mpx_os_module_of(address_of(load_entry(module_path)), shared_module));
}

static void describe(const char *path, mpx_module *ret_module) {
  shared_module =
      mmap(NULL, sizeof *shared_module, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared_module != MAP_FAILED);
  module_path = path;
  in_child(describe_in_child);
  *ret_module = *shared_module;
  munmap(shared_module, sizeof *shared_module);
}

static void call_through_reference(const char *name, uint32_t kind, int number) {
  const char *path = test_tmp_path("library.so");
  install(name, path);
  mpx_module there, here;
  describe(path, &there);
  CHECK_EQ(there.id.kind, kind);
  CHECK(!there.is_main);
  CHECK_STR(there.path, path);
  CHECK_OK(mpx_os_module_load(there.path, &there.id, &here));
  CHECK(mpx_module_id_equal(&there.id, &here.id));
  int (*entry)(void) = load_entry(path);
  mpx_module again;
  CHECK_OK(mpx_os_module_of(address_of(entry), &again));
  CHECK_EQ(again.base, here.base);
  CHECK_EQ(entry(), number);
  CHECK_OK(mpx_os_module_load("/no/such/file", &there.id, &here)); /* found by identity */
  CHECK_EQ(unlink(path), 0);
}

TEST(a_library_is_loaded_by_build_id) {
  call_through_reference("os_module_a", MPX_ID_BUILD, 1);
}

TEST(a_library_without_build_id_is_loaded_by_its_file) {
  call_through_reference("os_module_plain", MPX_ID_FILE, 3);
}

static void expect_failure(const char *path, const mpx_module_id *id, int code, const char *text) {
  mpx_module module;
  CHECK_EQ(mpx_os_module_load(path, id, &module), code);
  CHECK_CONTAINS(mproc_error_detail(), path);
  CHECK_CONTAINS(mproc_error_detail(), text);
}

TEST(another_file_is_refused_before_it_is_loaded) {
  const char *path = test_tmp_path("library.so");
  static const char *const names[] = {"os_module_a", "os_module_plain"};
  for (int i = 0; i < 2; i++) {
    mpx_module there;
    install(names[i], path);
    describe(path, &there);
    install("os_module_b", path);
    expect_failure(path, &there.id, MPROC_EMISMATCH, "restart the program");
    CHECK(!dlopen(path, RTLD_NOLOAD | RTLD_NOW));
    CHECK_EQ(unlink(path), 0);
    expect_failure(path, &there.id, MPROC_ENOMODULE, "No such file");
    shell("echo text > '%s'%s", path, "");
    expect_failure(path, &there.id, MPROC_ENOMODULE, "no library");
    shell("rm '%s'; mkfifo '%s'", path, path);
    expect_failure(path, &there.id, MPROC_ENOMODULE, "no library");
    CHECK_EQ(unlink(path), 0);
  }
}

static mpx_module wanted;

static void load_as_nobody(void) {
  CHECK_EQ(seteuid(65534), 0);
  expect_failure(module_path, &wanted.id, MPROC_ENOMODULE, "Permission denied");
}

TEST(an_unreadable_library_is_told) {
  if (geteuid() != 0)
    SKIP("needs root");
  const char *path = test_tmp_path("library.so");
  install("os_module_a", path);
  describe(path, &wanted);
  CHECK_EQ(chmod(path, 0700), 0);
  in_child(load_as_nobody);
  CHECK_EQ(unlink(path), 0);
}

static void check_replaced(const char *name, bool same_is_fine) {
  const char *path = test_tmp_path("library.so");
  mpx_module module;
  install(name, path);
  const void *entry = address_of(load_entry(path));
  CHECK_OK(mpx_os_module_of(entry, &module));
  CHECK_EQ(unlink(path), 0);
  CHECK_EQ(mpx_os_module_of(entry, &module), MPROC_ENOMODULE);
  CHECK_CONTAINS(mproc_error_detail(), path);
  CHECK_CONTAINS(mproc_error_detail(), "deleted or replaced");
  install("os_module_b", path);
  CHECK_EQ(mpx_os_module_of(entry, &module), MPROC_ENOMODULE);
  install(name, path);
  CHECK_EQ(mpx_os_module_of(entry, &module), same_is_fine ? 0 : MPROC_ENOMODULE);
  CHECK_EQ(unlink(path), 0);
}

static void replace_with_build_id(void) {
  check_replaced("os_module_a", true);
}

static void replace_plain(void) {
  check_replaced("os_module_plain", false);
}

TEST(a_library_replaced_below_us_is_told) {
  in_child(replace_with_build_id);
  in_child(replace_plain);
}

/* The name of the library is taken by another one that is loaded. */
TEST(a_library_of_the_same_name_does_not_stand_in) {
  const char *path = test_tmp_path("library.so");
  mpx_module there, module;
  install("os_module_b", path);
  describe(path, &there);
  install("os_module_a", path);
  CHECK_EQ(load_entry(path)(), 1);
  install("os_module_b", path);
  int r = mpx_os_module_load(path, &there.id, &module);
  if (r == 0) {
    CHECK_OK(mpx_os_module_of((const void *)module.base, &module));
    CHECK(mpx_module_id_equal(&module.id, &there.id));
  } else {
    CHECK_EQ(r, MPROC_EMISMATCH);
    CHECK_CONTAINS(mproc_error_detail(), "same name");
  }
  CHECK_EQ(unlink(path), 0);
}

TEST(a_pinned_library_outlives_its_closing) {
  mpx_module module;
  void *handle = dlopen(library("os_module_a"), RTLD_NOW | RTLD_LOCAL);
  CHECK(handle);
  int (*entry)(void) = load_entry(library("os_module_a"));
  CHECK_EQ(dlclose(handle), 0);
  mpx_pin_module(address_of(entry));
  CHECK_EQ(dlclose(handle), 0); /* the second and last time */
  CHECK_OK(mpx_os_module_of(address_of(entry), &module));
  CHECK_EQ(entry(), 1);
}

TEST(libc_is_a_module_with_a_path) {
  mpx_module module;
  CHECK_OK(mpx_os_module_of((const void *)(uintptr_t)getpid, &module));
  CHECK(!module.is_main);
  CHECK_EQ(module.path[0], '/');
}
#endif

/* ---- files that are no ELF files ------------------------------------------------------------- */

/* Returns the descriptor of an unnamed file. */
static int file_of(const void *bytes, size_t size) {
  const char *path = test_tmp_path("damaged");
  int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
  CHECK(fd >= 0);
  CHECK_EQ(unlink(path), 0);
  CHECK_EQ(write(fd, bytes, size), size);
  return fd;
}

TEST(damaged_files_are_no_modules) {
  char program[4096];
  mpx_elf_identity identity, damaged;
  CHECK(realpath(test_child_path("os_self_path"), program));
  int fd = open(program, O_RDONLY | O_CLOEXEC);
  CHECK_OK(mpx_elf_of_file(fd, &identity));
  unsigned char bytes[4096];
  CHECK_EQ(pread(fd, bytes, sizeof bytes, 0), sizeof bytes);
  close(fd);
  for (size_t length = 0; length < sizeof bytes; length += length < 128 ? 1 : 64) {
    int file = file_of(bytes, length);
    if (mpx_elf_of_file(file, &damaged) == 0)
      CHECK_EQ(damaged.header_hash, identity.header_hash);
    close(file);
  }
  for (unsigned seed = 1; seed < 3000; seed++) { /* no crash, no endless loop */
    unsigned char copy[4096];
    memcpy(copy, bytes, sizeof copy);
    for (unsigned i = 0, random = seed * 2654435761u; i < 8; i++) {
      random = random * 1664525u + 1013904223u;
      copy[4 + (random >> 8) % 1000] = (unsigned char)(random >> 24);
    }
    int file = file_of(copy, sizeof copy);
    (void)mpx_elf_of_file(file, &damaged);
    close(file);
  }
}
