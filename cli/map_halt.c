/* --halt: when a failure, a success or an end is the last one. */
#include "map.h"

#include <stdlib.h>
#include <string.h>

/* A share is taken of few inputs by chance. */
enum { SHARE_MIN = 3 };

static bool after(const char **text, const char *word) {
  size_t length = strlen(word);
  if (strncmp(*text, word, length) != 0)
    return false;
  *text += length;
  return true;
}

/* GNU parallel's older words: 0, 1 and 2, and N% for soon,fail=N%. */
static const char *modern(const char *text) {
  static const char *const words[] = {"never", "soon,fail=1", "now,fail=1"};
  if (text[0] >= '0' && text[0] <= '2' && text[1] == '\0')
    return words[text[0] - '0'];
  return text;
}

int map_halt_parse(const char *text, map_halt *rule) {
  map_halt parsed = {0};
  text = modern(text);
  if (strcmp(text, "never") == 0) {
    *rule = parsed;
    return 0;
  }
  parsed.when = MAP_HALT_SOON;
  if (after(&text, "now,"))
    parsed.when = MAP_HALT_NOW;
  else
    (void)after(&text, "soon,");

  if (after(&text, "success="))
    parsed.what = MAP_HALT_SUCCESS;
  else if (after(&text, "done="))
    parsed.what = MAP_HALT_DONE;
  else if (!after(&text, "fail=") && !strchr(text, '%'))
    return -1;

  char *end;
  if (*text < '0' || *text > '9')
    return -1;
  parsed.count = strtoull(text, &end, 10);
  parsed.percent = *end == '%';
  end += parsed.percent;
  if (*end || parsed.count == 0 || (parsed.percent && parsed.count > 100))
    return -1;
  *rule = parsed;
  return 0;
}

bool map_halt_hit(const map_halt *rule, uint64_t done, uint64_t failed) {
  if (rule->when == MAP_HALT_NEVER)
    return false;
  uint64_t count = rule->what == MAP_HALT_FAIL      ? failed
                   : rule->what == MAP_HALT_SUCCESS ? done - failed
                                                    : done;
  if (!rule->percent)
    return count >= rule->count;
  return count >= SHARE_MIN && count * 100 >= rule->count * done;
}
