/* What tells one file with code from another, read from memory or from the file: both give the same
 * answer for the same file. */
#ifndef MPX_OS_LINUX_ELF_IDENTITY_H
#define MPX_OS_LINUX_ELF_IDENTITY_H

#include "os/os.h"

#include <link.h>

enum { MPX_ID_NONE = 0, MPX_ID_BUILD = 1, MPX_ID_FILE = 2 };

typedef struct mpx_elf_identity {
  uint64_t header_hash;   /* of the program headers */
  mpx_module_id build_id; /* kind MPX_ID_NONE without one */
} mpx_elf_identity;

/* `base` is the load bias. */
void mpx_elf_of_memory(uintptr_t base, const ElfW(Phdr) * headers, size_t count,
                       mpx_elf_identity *ret_identity);
/* -ENOEXEC: no ELF file of this machine's kind. */
int mpx_elf_of_file(int fd, mpx_elf_identity *ret_identity);

bool mpx_elf_equal(const mpx_elf_identity *a, const mpx_elf_identity *b);
bool mpx_module_id_equal(const mpx_module_id *a, const mpx_module_id *b);

#endif
