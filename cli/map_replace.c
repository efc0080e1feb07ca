/* A command with an input in it. */
#define _POSIX_C_SOURCE 200809L

#include "map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char shell_path[] = "/bin/sh";

typedef enum part {
  PART_ALL,
  PART_NO_EXTENSION,
  PART_BASE,
  PART_FOLDER,
  PART_BASE_BARE,
  PART_SEQ,
  PART_COUNT
} part;

static const char *const part_names[PART_COUNT] = {"{}", "{.}", "{/}", "{//}", "{/.}", "{#}"};

/* The part whose name is at `text`, or PART_COUNT. */
static part part_at(const char *text) {
  part p = PART_ALL;
  while (p < PART_COUNT && strncmp(text, part_names[p], strlen(part_names[p])) != 0)
    p++;
  return p;
}

static size_t base_of(const char *input, size_t size) {
  while (size > 0 && input[size - 1] != '/')
    size--;
  return size;
}

/* Without the last ".extension" of the last part of the path. */
static size_t bare_size(const char *input, size_t size) {
  size_t base = base_of(input, size);
  for (size_t i = size; i > base; i--) {
    if (input[i - 1] == '.')
      return i == size ? size : i - 1;
  }
  return size;
}

/* As dirname(1). */
static mproc_bytes folder_of(const char *input, size_t size) {
  while (size > 1 && input[size - 1] == '/')
    size--;
  size_t end = base_of(input, size);
  if (end == 0)
    return (mproc_bytes){".", 1};
  while (end > 1 && input[end - 1] == '/')
    end--;
  return (mproc_bytes){input, end};
}

static bool has_control(const char *data, size_t size) {
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)data[i];
    if (c < 0x20 || c == 0x7f)
      return true;
  }
  return false;
}

static bool is_plain(const char *data, size_t size) {
  static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"
                              "%+,-./:=@_";
  for (size_t i = 0; i < size; i++) {
    if (data[i] == '\0' || !strchr(plain, data[i]))
      return false;
  }
  return size > 0;
}

static void quote_for_shell(map_buffer *line, const char *data, size_t size) {
  if (is_plain(data, size)) {
    map_append(line, data, size);
    return;
  }
  map_append(line, "'", 1);
  for (size_t i = 0; i < size; i++) {
    if (data[i] == '\'')
      map_append_text(line, "'\\''");
    else
      map_append(line, &data[i], 1);
  }
  map_append(line, "'", 1);
}

/* $'...' where a byte would break the line or vanish: bash and zsh know it, POSIX's sh does not. */
void map_quote(map_buffer *line, const char *data, size_t size) {
  if (!has_control(data, size)) {
    quote_for_shell(line, data, size);
    return;
  }
  map_append_text(line, "$'");
  for (size_t i = 0; i < size; i++) {
    unsigned char c = (unsigned char)data[i];
    if (c == '\'' || c == '\\')
      map_append_format(line, "\\%c", c);
    else if (c < 0x20 || c == 0x7f)
      map_append_format(line, "\\%03o", c);
    else
      map_append(line, &data[i], 1);
  }
  map_append(line, "'", 1);
}

static void append_part(part p, const char *input, size_t size, uint64_t seq, bool quote,
                        map_buffer *out) {
  mproc_bytes bytes = {input, size};
  size_t base = base_of(input, size);
  char number[24];
  switch (p) {
  case PART_NO_EXTENSION:
    bytes.size = bare_size(input, size);
    break;
  case PART_BASE:
    bytes = (mproc_bytes){input + base, size - base};
    break;
  case PART_FOLDER:
    bytes = folder_of(input, size);
    break;
  case PART_BASE_BARE:
    bytes = (mproc_bytes){input + base, bare_size(input, size) - base};
    break;
  case PART_SEQ:
    bytes.size = (size_t)snprintf(number, sizeof number, "%llu", (unsigned long long)seq);
    bytes.data = number;
    break;
  default:
    break;
  }
  if (quote)
    quote_for_shell(out, bytes.data, bytes.size);
  else
    map_append(out, bytes.data, bytes.size);
}

static void expand_word(const char *word, const char *input, size_t size, uint64_t seq, bool quote,
                        map_buffer *out) {
  while (*word) {
    part p = *word == '{' ? part_at(word) : PART_COUNT;
    if (p < PART_COUNT) {
      append_part(p, input, size, seq, quote, out);
      word += strlen(part_names[p]);
    } else {
      map_append(out, word++, 1);
    }
  }
}

static bool has_part(const char *word) {
  for (; (word = strchr(word, '{')); word++) {
    if (part_at(word) < PART_COUNT)
      return true;
  }
  return false;
}

static bool executable(const char *path) {
  struct stat status;
  return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

/* The path of a command, as execvp() looks for it: once, not for each input. */
static char *find_program(const char *name) {
  if (strchr(name, '/'))
    return executable(name) ? strdup(name) : NULL;
  const char *folders = getenv("PATH");
  map_buffer path = {0};
  for (const char *at = folders ? folders : "/bin:/usr/bin"; *name; at++) {
    size_t length = strcspn(at, ":");
    path.size = 0;
    map_append(&path, at, length);
    map_append_text(&path, length ? "/" : "./");
    map_append(&path, name, strlen(name) + 1);
    if (executable(path.data))
      return path.data;
    at += length;
    if (!*at)
      break;
  }
  map_release(&path);
  return NULL;
}

/* ---- where in a line for a shell an input may stand ------------------------------------------ */

enum { NESTED_MAX = 64 };

typedef struct shell_scan {
  char open[NESTED_MAX]; /* what each level ends with: a quote, a bracket */
  int depth;
  int quotes;    /* levels that are quotes */
  bool document; /* behind <<: lines of it may follow */
} shell_scan;

/* false: too deep to tell. */
static bool enter(shell_scan *scan, char end) {
  if (scan->depth == NESTED_MAX)
    return false;
  scan->open[scan->depth++] = end;
  scan->quotes += end == '"' || end == '\'' || end == '`';
  return true;
}

static void leave(shell_scan *scan) {
  char end = scan->open[--scan->depth];
  scan->quotes -= end == '"' || end == '\'' || end == '`';
}

/* What stands between quotes, or follows a backslash or a dollar sign, would take the quotes of an
 * input for something else, and the shell would read the input as a program. Who cannot tell says
 * that it is quoted. */
static bool quotes_part(const char *line) {
  shell_scan scan = {.depth = 0};
  for (const char *at = line; *at; at++) {
    char end = scan.depth ? scan.open[scan.depth - 1] : '\0';
    bool known = true;
    if (*at == '{' && part_at(at) < PART_COUNT) {
      if (scan.quotes || scan.document || (at > line && (at[-1] == '$' || at[-1] == '\\')))
        return true;
      at += strlen(part_names[part_at(at)]) - 1;
    } else if (end && *at == end) {
      leave(&scan);
    } else if (end == '\'') {
      continue;
    } else if (*at == '\\' && at[1] && at[1] != '{') {
      at++;
    } else if (*at == '`' || (*at == '"' && end != '"') || (*at == '\'' && end != '"')) {
      known = enter(&scan, *at);
    } else if (*at == '$' && (at[1] == '(' || (at[1] == '{' && part_at(at + 1) == PART_COUNT))) {
      if (scan.quotes && strstr(at, "case")) /* has brackets that nothing opens */
        return true;
      known = enter(&scan, *++at == '(' ? ')' : '}');
    } else if (end == '"') {
      continue;
    } else if (*at == '(') {
      known = enter(&scan, ')');
    } else if (*at == '#' && (at == line || strchr(" \t\n;&|()", at[-1]))) {
      at += strcspn(at, "\n") - 1;
    } else if (*at == '<' && at[1] == '<') {
      scan.document = true;
    }
    if (!known)
      return true;
  }
  return false;
}

static int check_shell_line(const map_template *t) {
  map_buffer line = {0};
  for (size_t i = 0; i < t->count; i++) {
    map_append_text(&line, i ? " " : "");
    map_append_text(&line, t->words[i]);
  }
  map_append(&line, "", 1);
  bool quoted = quotes_part(line.data);
  map_release(&line);
  if (quoted)
    return map_error("--shell: write {} without quotes: it is quoted");
  return 0;
}

int map_template_init(map_template *t, const map_options *options) {
  *t = (map_template){.words = options->command,
                      .count = options->command_count,
                      .append = true,
                      .shell = options->shell};
  for (size_t i = 0; i < t->count; i++) {
    if (has_part(t->words[i]))
      t->append = false;
  }
  if (t->shell)
    return t->append ? 0 : check_shell_line(t);
  if (has_part(t->words[0]))
    return 0;
  t->program = find_program(t->words[0]);
  if (t->program)
    return 0;
  if (strchr(t->words[0], '/'))
    return map_error("%s: %s", t->words[0],
                     access(t->words[0], F_OK) < 0 ? strerror(errno) : "cannot be executed");
  return map_error("command '%s' is in no folder of PATH%s", t->words[0],
                   strchr(t->words[0], ' ') ? "; a line for a shell needs --shell" : "");
}

static void shell_line(const map_template *t, const char *input, size_t size, uint64_t seq,
                       map_buffer *line) {
  for (size_t i = 0; i < t->count; i++) {
    if (i > 0)
      map_append(line, " ", 1);
    expand_word(t->words[i], input, size, seq, true, line);
  }
  if (t->append) {
    map_append(line, " ", 1);
    quote_for_shell(line, input, size);
  }
}

void map_template_expand(const map_template *t, const char *input, size_t size, uint64_t seq,
                         map_buffer *words) {
  if (t->shell) {
    map_append(words, shell_path, sizeof shell_path);
    map_append(words, "sh\0-c", sizeof "sh\0-c");
    shell_line(t, input, size, seq, words);
    map_append(words, "", 1);
    return;
  }
  if (t->program)
    map_append(words, t->program, strlen(t->program));
  else
    expand_word(t->words[0], input, size, seq, false, words);
  map_append(words, "", 1);
  for (size_t i = 0; i < t->count; i++) {
    expand_word(t->words[i], input, size, seq, false, words);
    map_append(words, "", 1);
  }
  if (t->append) {
    map_append(words, input, size);
    map_append(words, "", 1);
  }
}

void map_template_print(const map_template *t, const char *input, size_t size, uint64_t seq,
                        map_buffer *line) {
  map_buffer word = {0};
  if (t->shell) {
    shell_line(t, input, size, seq, &word);
    bool one_line = !has_control(word.data, word.size);
    if (one_line) {
      map_append(line, word.data, word.size);
    } else {
      map_append_text(line, "sh -c ");
      map_quote(line, word.data, word.size);
    }
    map_release(&word);
    return;
  }
  for (size_t i = 0; i < t->count; i++) {
    word.size = 0;
    expand_word(t->words[i], input, size, seq, false, &word);
    if (i > 0)
      map_append(line, " ", 1);
    map_quote(line, word.data, word.size);
  }
  if (t->append) {
    map_append(line, " ", 1);
    map_quote(line, input, size);
  }
  map_release(&word);
}

void map_template_release(map_template *t) {
  free(t->program);
  t->program = NULL;
}
