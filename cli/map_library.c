/* LIBRARY:FUNCTION, and whether it is one. */
#define _GNU_SOURCE /* dlinfo */

#include "map.h"

#include <dlfcn.h>
#include <elf.h>
#include <errno.h>
#include <limits.h>
#include <link.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { NAMES_MAX = 256, SYMBOL_MAX = 256 };

static const char prefix[] = "mproc_task_";

/* What the dynamic section says about symbols. */
typedef struct symbols {
  const ElfW(Sym) * table;
  const char *strings;
  size_t count;
} symbols;

/* Most systems have put addresses there, some have left offsets. */
static const void *section_at(const struct link_map *map, ElfW(Addr) value) {
  return (const void *)(value < map->l_addr ? value + map->l_addr : value); /* NOLINT */
}

/* The GNU hash table does not say how many symbols there are: the end of the last chain does. */
static size_t count_by_gnu_hash(const uint32_t *hash) {
  uint32_t bucket_count = hash[0];
  uint32_t first = hash[1];
  const uint32_t *buckets = hash + 4 + hash[2] * (sizeof(ElfW(Addr)) / sizeof(uint32_t));
  const uint32_t *chains = buckets + bucket_count;
  uint32_t last = 0;
  for (uint32_t i = 0; i < bucket_count; i++)
    last = buckets[i] > last ? buckets[i] : last;
  if (last < first)
    return 0;
  while (!(chains[last - first] & 1))
    last++;
  return (size_t)last + 1;
}

static symbols symbols_of(void *library) {
  symbols found = {0};
  struct link_map *map;
  if (dlinfo(library, RTLD_DI_LINKMAP, &map) < 0)
    return found;
  for (const ElfW(Dyn) *entry = map->l_ld; entry->d_tag != DT_NULL; entry++) {
    if (entry->d_tag == DT_SYMTAB)
      found.table = section_at(map, entry->d_un.d_ptr);
    else if (entry->d_tag == DT_STRTAB)
      found.strings = section_at(map, entry->d_un.d_ptr);
    else if (entry->d_tag == DT_GNU_HASH)
      found.count = count_by_gnu_hash(section_at(map, entry->d_un.d_ptr));
    else if (entry->d_tag == DT_HASH && found.count == 0)
      found.count = ((const uint32_t *)section_at(map, entry->d_un.d_ptr))[1];
  }
  if (!found.table || !found.strings)
    found.count = 0;
  return found;
}

/* The names of the tasks that the library exports, up to NAMES_MAX - 1; NULL ends them. */
static void list_tasks(void *library, const char **names) {
  symbols all = symbols_of(library);
  size_t count = 0;
  for (size_t i = 0; i < all.count && count + 1 < NAMES_MAX; i++) {
    const ElfW(Sym) *symbol = &all.table[i];
    const char *name = all.strings + symbol->st_name;
    if (symbol->st_shndx != SHN_UNDEF && strncmp(name, prefix, sizeof prefix - 1) == 0)
      names[count++] = name + sizeof prefix - 1;
  }
  names[count] = NULL;
}

static void print_tasks(void *library, const char *path) {
  const char *names[NAMES_MAX];
  list_tasks(library, names);
  if (!names[0]) {
    fprintf(stderr, "; it exports no task: see MPROC_TASK in mproc/task.h\n");
    return;
  }
  fprintf(stderr, "; it exports:\n");
  for (size_t i = 0; names[i]; i++) {
    const mproc_task_descriptor *task = NULL;
    char symbol[SYMBOL_MAX];
    snprintf(symbol, sizeof symbol, "%s%s", prefix, names[i]);
    task = dlsym(library, symbol);
    bool fits = task && task->magic == MPROC_TASK_MAGIC && task->version == MPROC_TASK_VERSION;
    fprintf(stderr, "  %s:%s%s%s\n", path, names[i], fits && task->help ? "  " : "",
            fits && task->help ? task->help : "");
  }
}

static int no_name(void *library, const char *path) {
  fprintf(stderr, "mproc: %s: which function? Write LIBRARY:FUNCTION", path);
  print_tasks(library, path);
  return -1;
}

static int no_task(void *library, const char *path, const char *name) {
  const char *names[NAMES_MAX];
  list_tasks(library, names);
  const char *nearest = cli_nearest(name, names);
  fprintf(stderr, "mproc: %s: ", path);
  if (dlsym(library, name))
    fprintf(stderr,
            "'%s' has no task descriptor, so nobody knows how it is to be called: add "
            "MPROC_TASK(%s) behind it",
            name, name);
  else
    fprintf(stderr, "no task '%s'", name);
  if (nearest)
    fprintf(stderr, "; did you mean '%s'?\n", nearest);
  else
    print_tasks(library, path);
  return -1;
}

static int check_descriptor(const mproc_task_descriptor *task, const char *path, const char *name) {
  const char *wrong = NULL;
  if (task->magic != MPROC_TASK_MAGIC)
    wrong = "its descriptor has another magic number: export it by MPROC_TASK()";
  else if (task->version != MPROC_TASK_VERSION)
    wrong = "was compiled with the header of another version of mproc: compile it again";
  else if (!task->function)
    wrong = "its descriptor names no function";
  for (size_t i = 0; !wrong && i < sizeof task->reserved / sizeof task->reserved[0]; i++) {
    if (task->reserved[i])
      wrong = "its descriptor sets a reserved field, which must be zero";
  }
  if (wrong)
    map_error("%s:%s: %s", path, name, wrong);
  return wrong ? -1 : 0;
}

static void *load(const char *path) {
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library)
    map_error("%s", dlerror());
  return library;
}

static int find_descriptor(const mproc_task_descriptor **ret_task, const char *path,
                           const char *name) {
  void *library = load(path);
  if (!library)
    return -1;
  if (!*name)
    return no_name(library, path);
  char symbol[SYMBOL_MAX];
  int length = snprintf(symbol, sizeof symbol, "%s%s", prefix, name);
  const mproc_task_descriptor *task = NULL;
  if (length < SYMBOL_MAX)
    task = dlsym(library, symbol);
  if (!task)
    return no_task(library, path, name);
  *ret_task = task;
  return check_descriptor(task, path, name);
}

const mproc_task_descriptor *map_function_load(const char *path, const char *name) {
  const mproc_task_descriptor *task = NULL;
  return find_descriptor(&task, path, name) < 0 ? NULL : task;
}

/* The library's path ends at the last colon, unless the whole is the name of a file. */
static int split(const char *target, char **ret_path, char **ret_name) {
  const char *colon = strrchr(target, ':');
  if (!colon || access(target, F_OK) == 0)
    colon = target + strlen(target);
  char *given = strndup(target, (size_t)(colon - target));
  char *path = given ? realpath(given, NULL) : NULL;
  char *name = strdup(*colon ? colon + 1 : "");
  if (!path || !name) {
    if (!*colon)
      map_error("'%s' is no LIBRARY:FUNCTION; a command stands behind '--': mproc map -- %s",
                target, target);
    else
      map_error("%s: %s", given ? given : target, strerror(errno));
    free(path);
    free(name);
    free(given);
    return -1;
  }
  free(given);
  *ret_path = path;
  *ret_name = name;
  return 0;
}

int map_function_find(map_function *function, const char *target, int status) {
  *function = (map_function){0};
  if (split(target, &function->path, &function->name) < 0)
    return status;
  const mproc_task_descriptor *task = map_function_load(function->path, function->name);
  if (!task) {
    map_function_release(function);
    return status;
  }
  function->input_size = task->input_size;
  function->output_size = task->output_size;
  return 0;
}

void map_function_release(map_function *function) {
  free(function->path);
  free(function->name);
  *function = (map_function){0};
}

int map_function_check(const char *target) {
  map_function function;
  if (map_function_find(&function, target, CLI_FAILED) != 0)
    return CLI_FAILED;
  const mproc_task_descriptor *task = map_function_load(function.path, function.name);
  printf("%s fits: %s\n", target, task && task->help ? task->help : "no help text");
  if (function.input_size)
    printf("  input   %zu bytes each\n", function.input_size);
  else
    puts("  input   any number of bytes");
  if (function.output_size)
    printf("  result  %zu bytes each\n", function.output_size);
  else
    puts("  result  any number of bytes");
  map_function_release(&function);
  return CLI_OK;
}
