#define _GNU_SOURCE
#include "os/linux/elf_identity.h"

#include "base/hash.h"

#include <elf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_HEADERS 1024
#define MAX_NOTES ((size_t)64 * 1024)

/* Only what is loaded counts, so that the file gives no other answer than the memory. */
static bool is_loaded(const ElfW(Phdr) * headers, size_t count, const ElfW(Phdr) * note) {
  for (size_t i = 0; i < count; i++) {
    const ElfW(Phdr) *load = &headers[i];
    if (load->p_type == PT_LOAD && (load->p_flags & PF_R) && note->p_offset >= load->p_offset &&
        note->p_filesz <= load->p_filesz &&
        note->p_offset - load->p_offset <= load->p_filesz - note->p_filesz &&
        note->p_vaddr - load->p_vaddr == note->p_offset - load->p_offset)
      return true;
  }
  return false;
}

static size_t align_up(size_t value, size_t alignment) {
  return (value + alignment - 1) & ~(alignment - 1);
}

static bool find_build_id(const unsigned char *notes, size_t size, size_t alignment,
                          mpx_module_id *ret_id) {
  ElfW(Nhdr) head;
  for (size_t at = 0; at <= size && size - at >= sizeof head;) {
    memcpy(&head, notes + at, sizeof head);
    size_t name = at + sizeof head;
    size_t content = align_up(name + head.n_namesz, alignment);
    if (head.n_namesz > size || head.n_descsz > size || content > size ||
        head.n_descsz > size - content)
      return false;
    if (head.n_type == NT_GNU_BUILD_ID && head.n_namesz == 4 && head.n_descsz > 0 &&
        memcmp(notes + name, "GNU", 4) == 0) {
      *ret_id = (mpx_module_id){.kind = MPX_ID_BUILD};
      ret_id->size = head.n_descsz < sizeof ret_id->bytes ? head.n_descsz : sizeof ret_id->bytes;
      memcpy(ret_id->bytes, notes + content, ret_id->size);
      return true;
    }
    at = align_up(content + head.n_descsz, alignment);
  }
  return false;
}

static bool is_usable_note(const ElfW(Phdr) * headers, size_t count, const ElfW(Phdr) * header) {
  return header->p_type == PT_NOTE && header->p_filesz <= MAX_NOTES &&
         is_loaded(headers, count, header);
}

void mpx_elf_of_memory(uintptr_t base, const ElfW(Phdr) * headers, size_t count,
                       mpx_elf_identity *ret_identity) {
  *ret_identity =
      (mpx_elf_identity){.header_hash = mpx_hash(MPX_HASH_SEED, headers, count * sizeof *headers)};
  for (size_t i = 0; i < count; i++) {
    const unsigned char *notes = (const unsigned char *)(base + headers[i].p_vaddr);
    if (is_usable_note(headers, count, &headers[i]) &&
        find_build_id(notes, headers[i].p_filesz, headers[i].p_align == 8 ? 8 : 4,
                      &ret_identity->build_id))
      return;
  }
}

static bool read_at(int fd, void *buffer, size_t size, uint64_t offset) {
  size_t done = 0;
  while (done < size) {
    ssize_t n = pread(fd, (char *)buffer + done, size - done, (off_t)(offset + done));
    if (n < 0 && errno == EINTR)
      continue;
    if (n <= 0)
      return false;
    done += (size_t)n;
  }
  return true;
}

static bool is_elf_of_ours(const ElfW(Ehdr) * head) {
  return memcmp(head->e_ident, ELFMAG, SELFMAG) == 0 &&
         head->e_ident[EI_CLASS] == (sizeof(void *) == 8 ? ELFCLASS64 : ELFCLASS32) &&
         head->e_phentsize == sizeof(ElfW(Phdr)) && head->e_phnum > 0 &&
         head->e_phnum <= MAX_HEADERS;
}

static int find_build_id_in_file(int fd, const ElfW(Phdr) * headers, size_t count,
                                 mpx_module_id *ret_id) {
  for (size_t i = 0; i < count; i++) {
    if (!is_usable_note(headers, count, &headers[i]))
      continue;
    unsigned char *notes = malloc(headers[i].p_filesz + 1);
    if (!notes)
      return -ENOMEM;
    bool found = read_at(fd, notes, headers[i].p_filesz, headers[i].p_offset) &&
                 find_build_id(notes, headers[i].p_filesz, headers[i].p_align == 8 ? 8 : 4, ret_id);
    free(notes);
    if (found)
      return 0;
  }
  return 0;
}

int mpx_elf_of_file(int fd, mpx_elf_identity *ret_identity) {
  ElfW(Ehdr) head;
  if (!read_at(fd, &head, sizeof head, 0) || !is_elf_of_ours(&head))
    return -ENOEXEC;
  size_t count = head.e_phnum;
  ElfW(Phdr) *headers = calloc(count, sizeof *headers);
  if (!headers)
    return -ENOMEM;
  int r = -ENOEXEC;
  if (read_at(fd, headers, count * sizeof *headers, head.e_phoff)) {
    mpx_elf_identity identity = {.header_hash =
                                     mpx_hash(MPX_HASH_SEED, headers, count * sizeof *headers)};
    r = find_build_id_in_file(fd, headers, count, &identity.build_id);
    if (r == 0)
      *ret_identity = identity;
  }
  free(headers);
  return r;
}

bool mpx_module_id_equal(const mpx_module_id *a, const mpx_module_id *b) {
  return a->kind == b->kind && a->size == b->size && a->size <= sizeof a->bytes &&
         memcmp(a->bytes, b->bytes, a->size) == 0;
}

bool mpx_elf_equal(const mpx_elf_identity *a, const mpx_elf_identity *b) {
  return a->header_hash == b->header_hash && mpx_module_id_equal(&a->build_id, &b->build_id);
}
