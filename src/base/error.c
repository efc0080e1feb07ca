#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local int last_code;
static _Thread_local char last_detail[MPX_DETAIL_SIZE];

#define NAME_AND_TEXT(name, value, text) {MPROC_##name, "MPROC_" #name, text},
static const struct {
  int code;
  const char *name;
  const char *text;
} own_codes[] = {MPROC_ERROR_MAP(NAME_AND_TEXT)};

static const size_t own_count = sizeof own_codes / sizeof own_codes[0];

int mpx_fail(int code, const char *format, ...) {
  int saved_errno = errno;
  va_list args;
  va_start(args, format);
  /* The arguments may point into the text that is being replaced. */
  char text[MPX_DETAIL_SIZE];
  (void)vsnprintf(text, sizeof text, format, args);
  va_end(args);
  memcpy(last_detail, text, strlen(text) + 1);
  last_code = code;
  errno = saved_errno;
  return code;
}

int mpx_fail_code(int code, const char *what) {
  return mpx_fail(code, "%s: %s", what, mproc_strerror(code));
}

int mpx_check_not_null(const void *pointer, const char *name) {
  return pointer ? 0 : mpx_fail(-EINVAL, "%s is NULL", name);
}

int mpx_check_reserved(const uint64_t reserved[8], const char *type) {
  for (int i = 0; i < 8; i++)
    if (reserved[i] != 0)
      return mpx_fail(-EINVAL, "%s.reserved[%d] is not zero; initialise the struct with {0}", type,
                      i);
  return 0;
}

const char *mproc_strerror(int code) {
  for (size_t i = 0; i < own_count; i++)
    if (own_codes[i].code == code)
      return own_codes[i].text;
  return code < 0 && code > -4000 ? strerror(-code) : code >= 0 ? "success" : "unknown error";
}

const char *mproc_error_name(int code) {
  for (size_t i = 0; i < own_count; i++)
    if (own_codes[i].code == code)
      return own_codes[i].name;
  return NULL;
}

int mproc_last_error(void) {
  return last_code;
}

const char *mproc_error_detail(void) {
  return last_detail;
}
