#include "cli.h"

#include <string.h>

enum { WORD_MAX = 31 };

static size_t smaller(size_t a, size_t b) {
  return a < b ? a : b;
}

/* Edit distance in which exchanging two neighbours costs one: the commonest slip of the hand. */
static size_t distance(const char *a, const char *b) {
  size_t a_length = strlen(a);
  size_t b_length = strlen(b);
  if (a_length > WORD_MAX || b_length > WORD_MAX)
    return WORD_MAX;

  size_t cost[WORD_MAX + 1][WORD_MAX + 1];
  for (size_t i = 0; i <= a_length; i++)
    cost[i][0] = i;
  for (size_t j = 0; j <= b_length; j++)
    cost[0][j] = j;
  for (size_t i = 1; i <= a_length; i++) {
    for (size_t j = 1; j <= b_length; j++) {
      size_t best = cost[i - 1][j - 1] + (a[i - 1] != b[j - 1]);
      best = smaller(best, cost[i - 1][j] + 1);
      best = smaller(best, cost[i][j - 1] + 1);
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        best = smaller(best, cost[i - 2][j - 2] + 1);
      cost[i][j] = best;
    }
  }
  return cost[a_length][b_length];
}

const char *cli_nearest(const char *word, const char *const *names) {
  size_t length = strlen(word);
  size_t allowed = length <= 2 ? 1 : length <= 5 ? 2 : 3;
  const char *nearest = NULL;
  for (; *names; names++) {
    /* The beginning of a name is meant whatever is missing from its end. */
    if (length >= 2 && strncmp(word, *names, length) == 0)
      return *names;
    size_t d = distance(word, *names);
    if (d <= allowed && d < strlen(*names)) {
      nearest = *names;
      allowed = d - 1;
      if (d == 0)
        break;
    }
  }
  return nearest;
}
