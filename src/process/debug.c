#include "process/debug.h"

#include "base/error.h"
#include "heap/family.h"
#include "process/settings.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum {
  NAMED_WORDS = 16, /* of one block; more are counted */
  NAME_SIZE = 200   /* of a long name the end is shown, which has the file */
};

_Atomic bool mpx_debug_args;

int mpx_debug_from_environment(void) {
  static _Atomic bool done;
  bool args = false;
  if (done)
    return 0;
  for (const char *word = mpx_setting("MPROC_DEBUG"); word;) {
    size_t length = strcspn(word, ",");
    if (length != strlen("args") || strncmp(word, "args", length) != 0)
      return mpx_fail(-EINVAL, "MPROC_DEBUG: '%.*s' is no check; use args", (int)length, word);
    args = true;
    word = word[length] ? word + length + 1 : NULL;
  }
  mpx_debug_args = args;
  done = true;
  return 0;
}

static void say(const char *format, ...) MPROC_PRINTF(1, 2);

static void say(const char *format, ...) {
  char message[MPX_DETAIL_SIZE];
  va_list args;
  va_start(args, format);
  (void)vsnprintf(message, sizeof message, format, args);
  va_end(args);
  mpx_log_asked_for(message);
}

static const mpx_mapping *mapping_of(const mpx_mapping *mappings, size_t count, uintptr_t address) {
  size_t low = 0, high = count;
  while (low < high) {
    size_t middle = low + (high - low) / 2;
    if (address < mappings[middle].start)
      high = middle;
    else if (address >= mappings[middle].end)
      low = middle + 1;
    else
      return &mappings[middle];
  }
  return NULL;
}

static bool is_in_heap(uintptr_t address) {
  const mpx_header *header = mpx_family_header();
  return header && address - (uintptr_t)header < header->size;
}

static void name_word(const mproc_process *process, mpx_method method, size_t offset,
                      uintptr_t value, const mpx_mapping *mapping) {
  size_t length = strlen(mapping->name);
  bool cut = length > NAME_SIZE;
  say("'%s': offset %zu of the argument block holds %#llx, which looks like a private pointer into "
      "%s%s%s and means nothing to a child under %s: %s",
      process->name, offset, (unsigned long long)value, mapping->is_code ? "code of " : "",
      cut ? "..." : "", mapping->name + (cut ? length - NAME_SIZE : 0), mpx_method_name(method),
      mapping->is_code ? "pass a number or a name that both sides know"
                       : "put what it points to into the shared heap (mproc_heap_alloc)");
}

void mpx_debug_check_args(const mproc_process *process, mpx_method method) {
  mpx_mapping *mappings;
  size_t count, found = 0;
  int r = mpx_os_mappings(&mappings, &count);
  if (r < 0) {
    say("'%s': MPROC_DEBUG=args is off, the argument block is not checked: cannot list what this "
        "process has mapped: %s%s",
        process->name, mproc_strerror(r), mpx_os_limit_text(r));
    return;
  }
  for (size_t at = 0; at + sizeof(uintptr_t) <= process->arg_size; at += sizeof(uintptr_t)) {
    uintptr_t value;
    memcpy(&value, (const char *)process->arg + at, sizeof value);
    const mpx_mapping *mapping = mapping_of(mappings, count, value);
    if (mapping && !is_in_heap(value) && ++found <= NAMED_WORDS)
      name_word(process, method, at, value, mapping);
  }
  if (found > NAMED_WORDS)
    say("'%s': %zu more words of the argument block look like private pointers", process->name,
        found - NAMED_WORDS);
  mpx_os_mappings_free(mappings, count);
}
