/* Functions across processes: a file and an offset in it, never an address. */
#ifndef MPX_PROCESS_ENTRY_H
#define MPX_PROCESS_ENTRY_H

#include "os/os.h"

/* Travels in the boot record; `path` is where the module was in the parent. */
typedef struct mpx_function {
  uint32_t is_main; /* in the main program */
  uint32_t unused;
  uint64_t offset;
  mpx_module_id id;
  char path[MPX_OS_PATH_SIZE];
} mpx_function;

/* Says why not: an address in no module is made code, which cannot travel. */
int mpx_function_of(uintptr_t address, mpx_function *ret_function);
/* The address in this process, its module loaded if need be. MPROC_EMISMATCH, MPROC_ENOMODULE; says
 * why. */
int mpx_function_resolve(const mpx_function *function, uintptr_t *ret_address);

#endif
