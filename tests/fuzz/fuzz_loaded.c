/* The identity of what the loader has loaded: the input is a file, and where it lies. The loader
 * maps what the headers say of PT_LOAD; all else in them is taken as it is. */
#define _GNU_SOURCE
#include "fuzz.h"

#define MPX_STATIC 0
#include "os/linux/module_list.c"

#include <elf.h>
#include <sanitizer/asan_interface.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Segments are where their file's bytes are, moved by `shift`; what lies beyond the file's end no
 * program could read. */
static void put_in_place(ElfW(Phdr) * headers, size_t count, size_t shift, size_t size) {
  for (size_t i = 0; i < count; i++) {
    ElfW(Phdr) *one = &headers[i];
    if (one->p_type == PT_LOAD) {
      one->p_offset = one->p_offset < size ? one->p_offset : size;
      if (one->p_filesz > size - one->p_offset)
        one->p_filesz = size - one->p_offset;
      one->p_memsz = one->p_filesz;
      one->p_vaddr = one->p_offset;
    }
    one->p_vaddr += shift;
  }
}

/* Only segments that can be read are there for the sanitizer. */
static void load(const ElfW(Phdr) * headers, size_t count, const unsigned char *image,
                 size_t size) {
  ASAN_POISON_MEMORY_REGION(image, size);
  for (size_t i = 0; i < count; i++)
    if (headers[i].p_type == PT_LOAD && (headers[i].p_flags & PF_R))
      ASAN_UNPOISON_MEMORY_REGION(image + headers[i].p_offset, headers[i].p_filesz);
}

static void check_segments(const struct dl_phdr_info *info, const mpx_loaded *loaded) {
  FUZZ_CHECK(loaded->segment_count <= MPX_MAX_SEGMENTS);
  for (size_t i = 0, found = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *one = &info->dlpi_phdr[i];
    if (one->p_type != PT_LOAD)
      continue;
    uintptr_t start = info->dlpi_addr + one->p_vaddr;
    if (found < MPX_MAX_SEGMENTS)
      FUZZ_CHECK(loaded->segments[found++] == start);
    if (one->p_memsz > 0)
      FUZZ_CHECK(holds(info, (const void *)(start + one->p_memsz - 1)));
  }
}

static void write_file(int fd, const void *data, size_t size, const ElfW(Phdr) * headers,
                       size_t count, size_t at) {
  FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
  size_t bytes = count * sizeof *headers;
  FUZZ_CHECK(pwrite(fd, headers, bytes, (off_t)at) == (ssize_t)bytes);
}

/* Memory and file say the same. */
static void compare(int fd, const struct dl_phdr_info *info, const unsigned char *image,
                    size_t size) {
  mpx_loaded *loaded = malloc(sizeof *loaded);
  mpx_elf_identity of_file;
  FUZZ_CHECK(loaded && mpx_elf_of_file(fd, &of_file) == 0);
  load(info->dlpi_phdr, info->dlpi_phnum, image, size);
  describe(info, true, loaded);
  check_segments(info, loaded);
  ASAN_UNPOISON_MEMORY_REGION(image, size);
  FUZZ_CHECK(loaded->identity.build_id.size <= sizeof loaded->identity.build_id.bytes);
  FUZZ_CHECK(mpx_elf_equal(&loaded->identity, &of_file));
  free(loaded);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
  static int fd = -1;
  ElfW(Ehdr) head;
  size_t shift;
  mpx_elf_identity identity;
  if (size < sizeof shift + sizeof head)
    return 0;
  if (fd < 0)
    fd = memfd_create("fuzz", MFD_CLOEXEC);
  memcpy(&shift, data, sizeof shift);
  data += sizeof shift;
  size -= sizeof shift;
  memcpy(&head, data, sizeof head);
  FUZZ_CHECK(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
  if (mpx_elf_of_file(fd, &identity) < 0)
    return 0;
  ElfW(Phdr) *headers = calloc(head.e_phnum, sizeof *headers);
  unsigned char *image = malloc(size);
  FUZZ_CHECK(headers && image);
  memcpy(headers, data + head.e_phoff, head.e_phnum * sizeof *headers);
  put_in_place(headers, head.e_phnum, shift, size);
  write_file(fd, data, size, headers, head.e_phnum, head.e_phoff);
  FUZZ_CHECK(pread(fd, image, size, 0) == (ssize_t)size);
  const struct dl_phdr_info info = {
      .dlpi_addr = (uintptr_t)image - shift, .dlpi_phdr = headers, .dlpi_phnum = head.e_phnum};
  if (memcmp(image, &head, sizeof head) == 0) /* the headers may lie there themselves */
    compare(fd, &info, image, size);
  free(image);
  free(headers);
  return 0;
}

typedef struct small_file {
  size_t shift;
  ElfW(Ehdr) head;
  ElfW(Phdr) headers[3 + MPX_MAX_SEGMENTS];
  ElfW(Nhdr) note;
  char name[4];
  unsigned char id[20];
} small_file;

static void fuzz_make_seeds(void) {
  small_file file = {.note = {.n_namesz = 4, .n_descsz = 20, .n_type = NT_GNU_BUILD_ID},
                     .name = "GNU"};
  const size_t begin = offsetof(small_file, head), notes = offsetof(small_file, note) - begin;
  memcpy(file.head.e_ident, ELFMAG, SELFMAG);
  file.head.e_ident[EI_CLASS] = sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32;
  file.head.e_phentsize = sizeof(ElfW(Phdr));
  file.head.e_phnum = 3;
  file.head.e_phoff = offsetof(small_file, headers) - begin;
  file.headers[0] = (ElfW(Phdr)){.p_type = PT_LOAD, .p_flags = PF_R, .p_filesz = sizeof file};
  file.headers[1] = (ElfW(Phdr)){.p_type = PT_NOTE,
                                 .p_align = 4,
                                 .p_offset = notes,
                                 .p_vaddr = notes,
                                 .p_filesz = sizeof file - begin - notes};
  file.headers[2] = (ElfW(Phdr)){
      .p_type = PT_LOAD, .p_flags = PF_R | PF_X, .p_offset = notes, .p_filesz = sizeof file};
  fuzz_add_seed(&file, sizeof file);
  file.shift = 0x400000;
  file.headers[0].p_filesz = notes;
  fuzz_add_seed(&file, sizeof file);
  file.headers[1].p_filesz++; /* a byte more than is loaded */
  fuzz_add_seed(&file, sizeof file);
  file.head.e_phnum = sizeof file.headers / sizeof file.headers[0];
  for (int i = 3; i < file.head.e_phnum; i++)
    file.headers[i] = file.headers[0];
  fuzz_add_seed(&file, sizeof file);
}
