#include "process/entry.h"

#include "base/error.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int mpx_function_of(uintptr_t address, mpx_function *ret_function) {
  mpx_module *module = malloc(sizeof *module); /* too large for a small thread's stack */
  if (!module)
    return mpx_fail_code(-ENOMEM, "naming the entry");
  int r = mpx_os_module_of((const void *)address, module);
  if (r == 0) {
    memset(ret_function, 0, sizeof *ret_function);
    ret_function->is_main = module->is_main;
    ret_function->offset = address - module->base;
    ret_function->id = module->id;
    memcpy(ret_function->path, module->path, strlen(module->path) + 1);
  }
  free(module);
  return r;
}

static bool same_id(const mpx_module_id *a, const mpx_module_id *b) {
  return a->kind == b->kind && a->size == b->size && a->size <= sizeof a->bytes &&
         memcmp(a->bytes, b->bytes, a->size) == 0;
}

static int find_module(const mpx_function *function, mpx_module *module) {
  if (!function->is_main)
    return mpx_os_module_load(function->path, &function->id, module);
  int r = mpx_os_module_main(module);
  if (r < 0 || same_id(&function->id, &module->id))
    return r;
  return mpx_fail(
      MPROC_EMISMATCH,
      "the entry is in %s, but the child runs another program or another build of it, %s; "
      "start it again after the upgrade, or put the entry into a shared library",
      function->path, module->path);
}

int mpx_function_resolve(const mpx_function *function, uintptr_t *ret_address) {
  uintptr_t base;
  if (mpx_os_module_find(&function->id, function->is_main, &base)) {
    *ret_address = base + (uintptr_t)function->offset;
    return 0;
  }
  mpx_module *module = malloc(sizeof *module);
  if (!module)
    return mpx_fail_code(-ENOMEM, "finding the entry");
  int r = find_module(function, module);
  if (r == 0)
    *ret_address = module->base + (uintptr_t)function->offset;
  free(module);
  return r;
}
