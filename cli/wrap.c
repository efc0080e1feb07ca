#include "cli.h"

#include <string.h>

enum { COLUMNS = 80 };

void cli_print_wrapped(FILE *stream, const char *text, size_t indent) {
  size_t column = indent;
  for (;;) {
    text += strspn(text, " ");
    size_t length = strcspn(text, " ");
    if (length == 0)
      break;
    if (column > indent) {
      if (column + 1 + length > COLUMNS) {
        fprintf(stream, "\n%*s", (int)indent, "");
        column = indent;
      } else {
        fputc(' ', stream);
        column++;
      }
    }
    fwrite(text, 1, length, stream);
    column += length;
    text += length;
  }
  fputc('\n', stream);
}
