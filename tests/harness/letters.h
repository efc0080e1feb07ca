/* Messages that prove to be whole: who wrote them, which of his it is, and a sum over all bytes, so
 * that stale and torn ones are noticed. */
#ifndef MPROC_TEST_LETTERS_H
#define MPROC_TEST_LETTERS_H

#include "harness.h"

#include <mproc/mproc.h>

#include <stdint.h>
#include <string.h>

typedef struct letter {
  uint32_t writer, number, size, sum;
} letter;

static inline uint32_t letter_sum(const letter *head, const unsigned char *rest) {
  uint32_t sum = 2166136261U ^ head->writer * 31 ^ head->number * 7919 ^ head->size;
  for (size_t i = 0; i < head->size - sizeof *head; i++)
    sum = (sum ^ rest[i]) * 16777619U;
  return sum;
}

/* `size` bytes, at least those of the head. */
static inline void write_letter(void *bytes, uint32_t writer, uint32_t number, size_t size) {
  letter head = {writer, number, (uint32_t)size, 0};
  unsigned char *rest = (unsigned char *)bytes + sizeof head;
  for (size_t i = 0; i < size - sizeof head; i++)
    rest[i] = (unsigned char)(number * 13 + writer + i * 7);
  head.sum = letter_sum(&head, rest);
  memcpy(bytes, &head, sizeof head);
}

static inline letter read_letter(const void *bytes, size_t size) {
  letter head;
  CHECK(size >= sizeof head);
  memcpy(&head, bytes, sizeof head);
  CHECK_EQ(head.size, size);
  CHECK_EQ(letter_sum(&head, (const unsigned char *)bytes + sizeof head), head.sum);
  return head;
}

#endif
