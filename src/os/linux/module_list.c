#define _GNU_SOURCE
#include "os/linux/module_list.h"

#include "os/linux/kernel.h"
#include "os/os.h"
#include "os/posix/pin.h"

#include <dlfcn.h>
#include <stddef.h>
#include <sys/auxv.h>

typedef struct search {
  const void *address; /* NULL: by index */
  size_t index;
  size_t seen;
  mpx_loaded *found;
} search;

static bool holds(const struct dl_phdr_info *info, const void *address) {
  for (size_t i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *header = &info->dlpi_phdr[i];
    uintptr_t start = info->dlpi_addr + header->p_vaddr;
    if (header->p_type == PT_LOAD && (uintptr_t)address >= start &&
        (uintptr_t)address - start < header->p_memsz)
      return true;
  }
  return false;
}

static void describe(const struct dl_phdr_info *info, bool is_main, mpx_loaded *ret_loaded) {
  *ret_loaded = (mpx_loaded){.is_main = is_main, .base = info->dlpi_addr};
  for (size_t i = 0; i < info->dlpi_phnum; i++)
    if (info->dlpi_phdr[i].p_type == PT_LOAD && ret_loaded->segment_count < MPX_MAX_SEGMENTS)
      ret_loaded->segments[ret_loaded->segment_count++] =
          info->dlpi_addr + info->dlpi_phdr[i].p_vaddr;
  mpx_elf_of_memory(info->dlpi_addr, info->dlpi_phdr, info->dlpi_phnum, &ret_loaded->identity);
}

/* Everything is read here, under the loader's lock: after it, a dlclose may unmap the headers. */
static int visit(struct dl_phdr_info *info, size_t size, void *data) {
  (void)size;
  search *wanted = data;
  size_t index = wanted->seen++;
  if (wanted->address ? !holds(info, wanted->address) : index != wanted->index)
    return 0;
  describe(info, index == 0, wanted->found);
  return 1;
}

bool mpx_loaded_at(size_t index, mpx_loaded *ret_loaded) {
  search wanted = {.index = index, .found = ret_loaded};
  return dl_iterate_phdr(visit, &wanted) == 1;
}

bool mpx_loaded_holding(const void *address, mpx_loaded *ret_loaded) {
  search wanted = {.address = address, .found = ret_loaded};
  return address && dl_iterate_phdr(visit, &wanted) == 1;
}

static int visit_first(struct dl_phdr_info *info, size_t size, void *data) {
  uint64_t *unloads = data;
  if (size >= offsetof(struct dl_phdr_info, dlpi_subs) + sizeof info->dlpi_subs)
    *unloads = info->dlpi_subs;
  return 1;
}

/* musl unloads nothing and says 0. */
uint64_t mpx_os_module_unloads(void) {
  uint64_t unloads = 0;
  (void)dl_iterate_phdr(visit_first, &unloads);
  return unloads;
}

void mpx_pin_module(const void *address) {
#if MPX_STATIC
  (void)address;
#else
  Dl_info info, program;
  /* Not by dl_iterate_phdr, whose lock glibc leaves closed in the child of a host that forked while
   * another of its threads was in there. */
  if (dladdr(address, &info) != 0 &&
      dladdr((const void *)(uintptr_t)getauxval(AT_PHDR), &program) != 0 &&
      info.dli_fbase != program.dli_fbase)
    (void)dlopen(info.dli_fname, RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
#endif
}
