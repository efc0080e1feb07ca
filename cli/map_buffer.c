/* Growing text, and bytes as JSON. */
#include "map.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static _Noreturn void out_of_memory(void) {
  map_error("out of memory");
  exit(MAP_ERROR);
}

void *map_alloc(size_t count, size_t size) {
  void *block = calloc(count ? count : 1, size);
  if (!block)
    out_of_memory();
  return block;
}

static char *make_room(map_buffer *buffer, size_t size) {
  if (size > SIZE_MAX / 2 - buffer->size)
    out_of_memory();
  size_t wanted = buffer->size + size;
  if (wanted > buffer->capacity) {
    size_t capacity = buffer->capacity < 256 ? 256 : buffer->capacity;
    while (capacity < wanted)
      capacity *= 2;
    char *data = realloc(buffer->data, capacity);
    if (!data)
      out_of_memory();
    buffer->data = data;
    buffer->capacity = capacity;
  }
  return buffer->data + buffer->size;
}

char *map_append(map_buffer *buffer, const void *data, size_t size) {
  char *place = make_room(buffer, size);
  if (size && data)
    memcpy(place, data, size);
  buffer->size += size;
  return place;
}

void map_append_text(map_buffer *buffer, const char *text) {
  map_append(buffer, text, strlen(text));
}

void map_append_format(map_buffer *buffer, const char *format, ...) {
  char text[512];
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(text, sizeof text, format, arguments);
  va_end(arguments);
  if (length > 0)
    map_append(buffer, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
}

void map_release(map_buffer *buffer) {
  free(buffer->data);
  *buffer = (map_buffer){0};
}

/* The length of the character at `at`, or 0 where there is none: no overlong forms, no surrogates,
 * nothing above U+10FFFF. */
static size_t character_size(const unsigned char *at, size_t left) {
  if (at[0] < 0x80)
    return 1;
  size_t size = at[0] >= 0xf0 ? 4 : at[0] >= 0xe0 ? 3 : 2;
  if (at[0] < 0xc2 || at[0] > 0xf4 || left < size)
    return 0;
  for (size_t i = 1; i < size; i++) {
    if ((at[i] & 0xc0) != 0x80)
      return 0;
  }
  if ((at[0] == 0xe0 && at[1] < 0xa0) || (at[0] == 0xed && at[1] > 0x9f) ||
      (at[0] == 0xf0 && at[1] < 0x90) || (at[0] == 0xf4 && at[1] > 0x8f))
    return 0;
  return size;
}

bool map_is_utf8(const char *data, size_t size) {
  for (size_t i = 0; i < size;) {
    size_t step = character_size((const unsigned char *)data + i, size - i);
    if (step == 0)
      return false;
    i += step;
  }
  return true;
}

void map_append_json(map_buffer *buffer, const char *data, size_t size) {
  static const char letters[] = "btn\0fr"; /* for 8 to 13 */
  size_t plain = 0;
  data = data ? data : "";
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)data[i];
    if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
      continue;
    map_append(buffer, data + plain, i - plain);
    plain = i + 1;
    if (c == '"' || c == '\\')
      map_append_format(buffer, "\\%c", c);
    else if (c >= 8 && c <= 13 && letters[c - 8])
      map_append_format(buffer, "\\%c", letters[c - 8]);
    else
      map_append_format(buffer, "\\u%04x", c);
  }
  map_append(buffer, data + plain, size - plain);
}

void map_append_base64(map_buffer *buffer, const char *data, size_t size) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const unsigned char *bytes = (const unsigned char *)data;
  char *place = map_append(buffer, NULL, (size + 2) / 3 * 4);
  for (size_t i = 0; i < size; i += 3, place += 4) {
    uint32_t word = (uint32_t)bytes[i] << 16;
    word |= i + 1 < size ? (uint32_t)bytes[i + 1] << 8 : 0;
    word |= i + 2 < size ? bytes[i + 2] : 0;
    char text[4] = {digits[word >> 18], digits[word >> 12 & 63], '=', '='};
    if (i + 1 < size)
      text[2] = digits[word >> 6 & 63];
    if (i + 2 < size)
      text[3] = digits[word & 63];
    memcpy(place, text, sizeof text);
  }
}
