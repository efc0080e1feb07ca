#define _GNU_SOURCE
#include "base/error.h"
#include "os/linux/kernel.h"
#include "os/linux/maps.h"
#include "os/linux/module_list.h"
#include "os/os.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHORT_ID_SIZE 24

/* Opens a file with code and reads its identity. */
static int open_module(const char *path, mpx_elf_identity *ret_identity) {
  int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not stop us */
  if (fd < 0)
    return -errno;
  struct stat st;
  int r = fstat(fd, &st) < 0 ? -errno : S_ISREG(st.st_mode) ? 0 : -ENOEXEC;
  if (r == 0)
    r = mpx_elf_of_file(fd, ret_identity);
  if (r < 0) {
    (void)close(fd);
    return r;
  }
  return fd;
}

/* The build-id, or what can be said of a file without one. */
static int id_of_file(int fd, const mpx_elf_identity *identity, mpx_module_id *ret_id) {
  if (identity->build_id.kind == MPX_ID_BUILD) {
    *ret_id = identity->build_id;
    return 0;
  }
  struct stat st;
  if (fstat(fd, &st) < 0)
    return -errno;
  const uint64_t fields[] = {st.st_dev, st.st_ino, (uint64_t)st.st_size,
                             (uint64_t)st.st_mtim.tv_sec * (uint64_t)MPX_NS_PER_S +
                                 (uint64_t)st.st_mtim.tv_nsec,
                             identity->header_hash};
  *ret_id = (mpx_module_id){.kind = MPX_ID_FILE, .size = sizeof fields};
  memcpy(ret_id->bytes, fields, sizeof fields);
  return 0;
}

/* The file at `path`, if it is the one that is loaded. */
static int open_same(const char *path, const mpx_elf_identity *loaded) {
  mpx_elf_identity found;
  int fd = open_module(path, &found);
  if (fd >= 0 && !mpx_elf_equal(&found, loaded)) {
    (void)close(fd);
    return MPROC_EMISMATCH;
  }
  return fd;
}

static int path_of(const mpx_loaded *loaded, char path[MPX_OS_PATH_SIZE], bool *ret_deleted) {
  int r = -ENOENT;
  for (size_t i = 0; i < loaded->segment_count && r < 0; i++)
    r = mpx_maps_path(loaded->segments[i], path, MPX_OS_PATH_SIZE, ret_deleted);
  return r;
}

/* Says nothing about the file that was asked for. */
static bool is_shortage(int r) {
  return r == -EMFILE || r == -ENFILE || r == -ENOMEM;
}

static int fail_shortage(int r) {
  return mpx_fail(r, "cannot look into the program's files: %s%s", mproc_strerror(r),
                  mpx_os_limit_text(r));
}

/* A name from the auxiliary vector may be relative to a directory that was left since; the caller
 * verifies what it finds there. */
static int path_of_start(char path[MPX_OS_PATH_SIZE]) {
  const char *name = (const char *)getauxval(AT_EXECFN);
  char *resolved = name ? realpath(name, NULL) : NULL;
  if (!resolved)
    return -ENOENT;
  size_t length = strlen(resolved);
  int r = length < MPX_OS_PATH_SIZE ? 0 : -ENAMETOOLONG;
  if (r == 0)
    memcpy(path, resolved, length + 1);
  free(resolved);
  return r;
}

static const char self_link[] = "/proc/self/exe";
static _Atomic bool link_is_program; /* verified; stays so until an exec */

int mpx_os_self_executable(char path[MPX_OS_PATH_SIZE]) {
  mpx_loaded main_program;
  if (atomic_load_explicit(&link_is_program, memory_order_relaxed)) {
    memcpy(path, self_link, sizeof self_link);
    return 0;
  }
  if (!mpx_loaded_at(0, &main_program))
    return mpx_fail(-ENOENT, "the loader does not say where the running program is");

  /* Under an emulator or an explicit ld.so the link names that. Emulators which hide it do so for
   * the short name only: the thread's own link is the kernel's word. */
  char link[64];
  (void)snprintf(link, sizeof link, "/proc/self/task/%lld/exe", (long long)mpx_os_pid());
  int fd = open_same(link, &main_program.identity);
  if (fd >= 0) {
    (void)close(fd);
    atomic_store_explicit(&link_is_program, true, memory_order_relaxed);
    memcpy(path, self_link, sizeof self_link);
    return 0;
  }

  if (is_shortage(fd))
    return fail_shortage(fd);
  bool deleted;
  *path = '\0';
  fd = path_of(&main_program, path, &deleted) == 0 ? open_same(path, &main_program.identity) : -1;
  if (fd < 0)
    fd = path_of_start(path) == 0 ? open_same(path, &main_program.identity) : -1;
  if (fd < 0)
    return mpx_fail(-ENOENT,
                    "the file of the running program was not found (last tried: \"%s\"); is /proc "
                    "mounted, and is the program still in its place?",
                    path);
  (void)close(fd);
  MPX_SAY_ONCE("/proc/self/exe is not the running program: it is executed as %s", path);
  return 0;
}

static int fail_replaced(const char *path) {
  return mpx_fail(MPROC_ENOMODULE,
                  "%s was deleted or replaced after this process loaded it, so a child cannot load "
                  "it: restart the program",
                  path);
}

static int identify_main(const mpx_loaded *loaded, char executable[MPX_OS_PATH_SIZE],
                         mpx_module_id *ret_id) {
  int r = mpx_os_self_executable(executable);
  if (r < 0)
    return r;
  int fd = open_same(executable, &loaded->identity);
  if (fd < 0)
    return mpx_fail(fd, "cannot read the running program, %s: %s", executable, mproc_strerror(fd));
  r = id_of_file(fd, &loaded->identity, ret_id);
  (void)close(fd);
  return r < 0 ? mpx_fail_code(r, executable) : 0;
}

/* The main program's file is reached even when its path is not. */
static int describe_main(const mpx_loaded *loaded, bool has_path, mpx_module *ret_module) {
  if (!has_path)
    return identify_main(loaded, ret_module->path, &ret_module->id);
  if (loaded->identity.build_id.kind == MPX_ID_BUILD) {
    ret_module->id = loaded->identity.build_id;
    return 0;
  }
  char *executable = malloc(MPX_OS_PATH_SIZE); /* too large for a small thread's stack */
  if (!executable)
    return mpx_fail_code(-ENOMEM, "identifying the program");
  int r = identify_main(loaded, executable, &ret_module->id);
  free(executable);
  return r;
}

static int describe_library(const mpx_loaded *loaded, bool deleted, mpx_module *ret_module) {
  const mpx_module_id *build_id = &loaded->identity.build_id;
  if (!deleted && build_id->kind == MPX_ID_BUILD) {
    ret_module->id = *build_id;
    return 0;
  }
  /* Put in its place again by an installer, it may be the same file all the same. */
  int fd = open_same(ret_module->path, &loaded->identity);
  if (fd < 0 || (deleted && build_id->kind != MPX_ID_BUILD)) {
    if (fd >= 0)
      (void)close(fd);
    if (is_shortage(fd))
      return fail_shortage(fd);
    if (deleted || fd == MPROC_EMISMATCH || fd == -ENOENT)
      return fail_replaced(ret_module->path);
    return mpx_fail(MPROC_ENOMODULE, "cannot read %s: %s", ret_module->path, mproc_strerror(fd));
  }
  int r = id_of_file(fd, &loaded->identity, &ret_module->id);
  (void)close(fd);
  return r < 0 ? mpx_fail_code(r, ret_module->path) : 0;
}

static int describe(const mpx_loaded *loaded, mpx_module *ret_module) {
  bool deleted = false;
  ret_module->is_main = loaded->is_main;
  ret_module->base = loaded->base;
  int r = path_of(loaded, ret_module->path, &deleted);
  if (is_shortage(r))
    return fail_shortage(r);
  if (loaded->is_main)
    return describe_main(loaded, r == 0, ret_module);
  if (r < 0)
    return mpx_fail(-ENOENT, "the code at %#zx comes from no file", (size_t)loaded->base);
  return describe_library(loaded, deleted, ret_module);
}

/* The main program stays what it is until an exec, so it is described once: every spawn asks. Its
 * file may be overwritten later; the id of the first answer then makes the child refuse, as it
 * should. */
static mpx_module main_module;
static _Atomic int main_state; /* 0: nothing; 1: one thread writes; 2: all may read */

static void remember_main(const mpx_module *module) {
  int nothing = 0;
  if (!atomic_compare_exchange_strong(&main_state, &nothing, 1))
    return;
  main_module = *module;
  atomic_store_explicit(&main_state, 2, memory_order_release); /* pairs with describe_kept */
}

static int describe_kept(const mpx_loaded *loaded, mpx_module *ret_module) {
  if (loaded->is_main && atomic_load_explicit(&main_state, memory_order_acquire) == 2) {
    *ret_module = main_module;
    return 0;
  }
  mpx_module *module = malloc(sizeof *module);
  if (!module)
    return mpx_fail_code(-ENOMEM, "identifying a module");
  int r = describe(loaded, module);
  if (r == 0 && loaded->is_main)
    remember_main(module);
  if (r == 0)
    *ret_module = *module;
  free(module);
  return r;
}

int mpx_os_module_of(const void *address, mpx_module *ret_module) {
  mpx_loaded loaded;
  if (!mpx_loaded_holding(address, &loaded))
    return mpx_fail(-ENOENT, "address %p is in no program and no library that is loaded", address);
  return describe_kept(&loaded, ret_module);
}

int mpx_os_module_main(mpx_module *ret_module) {
  mpx_loaded loaded;
  if (!mpx_loaded_at(0, &loaded))
    return mpx_fail(-ENOENT, "the loader does not say where the running program is");
  return describe_kept(&loaded, ret_module);
}

bool mpx_os_module_find(const mpx_module_id *id, bool is_main, uintptr_t *ret_base) {
  mpx_loaded loaded;
  for (size_t i = 0; id->kind == MPX_ID_BUILD && mpx_loaded_at(i, &loaded); i++)
    if (loaded.is_main == is_main && mpx_module_id_equal(&loaded.identity.build_id, id)) {
      *ret_base = loaded.base;
      return true;
    }
  return false;
}

static bool find_loaded(const mpx_module_id *id, mpx_module *ret_module) {
  mpx_loaded loaded;
  for (size_t i = 0; mpx_loaded_at(i, &loaded); i++) {
    const mpx_module_id *build_id = &loaded.identity.build_id;
    /* Files are looked at only where the answer is in them. */
    if (id->kind == MPX_ID_BUILD ? !mpx_module_id_equal(build_id, id)
                                 : build_id->kind != MPX_ID_NONE)
      continue;
    mpx_module module;
    bool deleted = false;
    if (id->kind != MPX_ID_BUILD) {
      if (describe_kept(&loaded, &module) < 0 || !mpx_module_id_equal(&module.id, id))
        continue;
    } else {
      module = (mpx_module){.is_main = loaded.is_main, .base = loaded.base, .id = *id};
      if (path_of(&loaded, module.path, &deleted) < 0)
        module.path[0] = '\0';
    }
    *ret_module = module;
    return true;
  }
  return false;
}

static const char *short_id(const mpx_module_id *id, char text[SHORT_ID_SIZE]) {
  if (id->kind != MPX_ID_BUILD)
    return "none";
  size_t count = id->size < 8 ? id->size : 8;
  for (size_t i = 0; i < count; i++)
    (void)snprintf(text + 2 * i, 3, "%02x", id->bytes[i]);
  return text;
}

static int fail_mismatch(const char *path, const mpx_module_id *found, const mpx_module_id *id) {
  char found_text[SHORT_ID_SIZE], wanted_text[SHORT_ID_SIZE];
  return mpx_fail(MPROC_EMISMATCH,
                  "%s is not the file that the parent has loaded (build-id %s, wanted %s): it was "
                  "replaced since, so restart the program",
                  path, short_id(found, found_text), short_id(id, wanted_text));
}

/* Before anything of the file runs. */
static int check_file(const char *path, const mpx_module_id *id) {
  mpx_elf_identity identity;
  mpx_module_id found;
  int fd = open_module(path, &identity);
  if (fd == -ENOEXEC)
    return mpx_fail(MPROC_ENOMODULE,
                    "%s is no library for this machine; build it for the program that loads it",
                    path);
  if (is_shortage(fd))
    return fail_shortage(fd);
  if (fd < 0)
    return mpx_fail(MPROC_ENOMODULE,
                    "cannot open %s, which holds the entry: %s; make it readable for the child",
                    path, mproc_strerror(fd));
  int r = id_of_file(fd, &identity, &found);
  (void)close(fd);
  if (r < 0)
    return mpx_fail_code(r, path);
  return mpx_module_id_equal(&found, id) ? 0 : fail_mismatch(path, &found, id);
}

static int load_file(const char *path) {
#if MPX_STATIC
  return mpx_fail(MPROC_ENOMODULE, "cannot load %s: a static program cannot load libraries", path);
#else
  if (dlopen(path, RTLD_NOW | RTLD_LOCAL))
    return 0;
  const char *why = dlerror();
  return mpx_fail(MPROC_ENOMODULE, "cannot load the library that holds the entry: %s",
                  why ? why : path);
#endif
}

int mpx_os_module_load(const char *path, const mpx_module_id *id, mpx_module *ret_module) {
  if (find_loaded(id, ret_module))
    return 0;
  int r = check_file(path, id);
  if (r == 0)
    r = load_file(path);
  if (r < 0)
    return r;
  /* Replaced between check and load, or another library of this name was there before. */
  if (!find_loaded(id, ret_module))
    return mpx_fail(MPROC_EMISMATCH,
                    "loading %s gave another library than the one the parent has loaded: is a "
                    "library of the same name loaded already?",
                    path);
  return 0;
}
