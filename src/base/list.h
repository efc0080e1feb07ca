/* An intrusive, circular, doubly linked list in private memory. */
#ifndef MPX_BASE_LIST_H
#define MPX_BASE_LIST_H

#include <stddef.h>

typedef struct mpx_list {
  struct mpx_list *next;
  struct mpx_list *prev;
} mpx_list;

static inline void mpx_list_init(mpx_list *node) {
  node->next = node->prev = node;
}

static inline void mpx_list_append(mpx_list *head, mpx_list *node) {
  node->next = head;
  node->prev = head->prev;
  head->prev->next = node;
  head->prev = node;
}

/* Leaves the node as a list of its own, so that removing it again does nothing. */
static inline void mpx_list_remove(mpx_list *node) {
  node->prev->next = node->next;
  node->next->prev = node->prev;
  mpx_list_init(node);
}

/* What `from` has goes to `to`, which was empty. */
static inline void mpx_list_move(mpx_list *to, mpx_list *from) {
  mpx_list_append(from, to);
  mpx_list_remove(from);
}

#define mpx_list_entry(node, type, member) ((type *)(void *)((char *)(node)-offsetof(type, member)))

#endif
