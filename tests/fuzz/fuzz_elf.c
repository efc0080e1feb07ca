/* The identity of a file with code: it is read before anything is known of the file. */
#define _GNU_SOURCE
#include "os/linux/elf_identity.h"

#include "fuzz.h"

#include <elf.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int fd = -1;
  mpx_elf_identity identity = {0}, again = {0};
  if (fd < 0)
    fd = memfd_create("fuzz", MFD_CLOEXEC);
  FUZZ_CHECK(fd >= 0 && ftruncate(fd, 0) == 0);
  FUZZ_CHECK(pwrite(fd, data, size, 0) == (ssize_t)size);
  int r = mpx_elf_of_file(fd, &identity);
  FUZZ_CHECK(r <= 0);
  if (r < 0)
    return 0;
  FUZZ_CHECK(identity.build_id.size <= sizeof identity.build_id.bytes);
  FUZZ_CHECK(mpx_elf_of_file(fd, &again) == 0 && mpx_elf_equal(&identity, &again));
  return 0;
}

typedef struct small_file {
  ElfW(Ehdr) head;
  ElfW(Phdr) headers[2];
  ElfW(Nhdr) note;
  char name[4];
  unsigned char id[20];
} small_file;

static void fuzz_make_seeds(void) {
  small_file file = {.note = {.n_namesz = 4, .n_descsz = 20, .n_type = NT_GNU_BUILD_ID},
                     .name = "GNU"};
  const size_t notes = offsetof(small_file, note);
  memcpy(file.head.e_ident, ELFMAG, SELFMAG);
  file.head.e_ident[EI_CLASS] = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
  file.head.e_phentsize = sizeof(ElfW(Phdr));
  file.head.e_phnum = 2;
  file.head.e_phoff = offsetof(small_file, headers);
  file.headers[0] = (ElfW(Phdr)){.p_type = PT_LOAD, .p_flags = PF_R, .p_filesz = sizeof file};
  file.headers[1] = (ElfW(Phdr)){.p_type = PT_NOTE,
                                 .p_align = 4,
                                 .p_offset = notes,
                                 .p_vaddr = notes,
                                 .p_filesz = sizeof file - notes};
  fuzz_add_seed(&file, sizeof file);
  file.head.e_phnum = 1;
  fuzz_add_seed(&file, sizeof file);
}
