/* A request written by hand, as a hostile client would: for tests that see src/. */
#ifndef MPROC_TEST_FORKSERVER_RAW_H
#define MPROC_TEST_FORKSERVER_RAW_H

#include "forkserver.h"

#include "heap/family.h"
#include "process/request.h"

typedef struct raw_request {
  mpx_request head;
  unsigned char body[sizeof(mpx_request_body) + sizeof(mpx_function) + 256];
  size_t body_size;
} raw_request;

/* The server's own place in the table. */
static inline mpx_member member_of_server(int64_t server) {
  mpx_header *header = mpx_family_header();
  for (uint32_t i = 0; i < header->slots_used; i++) {
    const mpx_slot *slot = &header->slots[i];
    if (slot->pid == server && (slot->tag & 0xff) == MPX_SLOT_RUNNING)
      return mpx_member_make(i, (uint32_t)(slot->tag >> 8));
  }
  test_fail(__FILE__, __LINE__, "the server is in the table", NULL);
}

/* A claimed slot with its gate open: nothing on the asker's side holds the worker back. */
static inline mpx_member claim_for(int64_t server) {
  mpx_header *header = mpx_family_header();
  mpx_member member;
  CHECK_EQ(mpx_table_claim(header, mpx_family_self(), &member), 0);
  mpx_slot *slot = mpx_table_slot(header, member);
  slot->method = MPX_METHOD_FORKSERVER;
  slot->daemon = 0;
  slot->server = member_of_server(server);
  snprintf(slot->name, sizeof slot->name, "by hand");
  atomic_store(&slot->gate, MPX_GATE_OPEN);
  return member;
}

/* As src/process/request.c writes it: `entry` is to be run with a pointer to `b`. */
static inline raw_request *raw_request_for(mpx_member member, mproc_entry *entry, board *b) {
  raw_request *raw = calloc(1, sizeof *raw);
  mpx_function function;
  CHECK(raw != NULL);
  CHECK_EQ(mpx_function_of((uintptr_t)entry, &function), 0);
  size_t entry_at = (sizeof(mpx_request_body) + 63) / 64 * 64;
  size_t entry_size = offsetof(mpx_function, path) + strlen(function.path) + 1;
  size_t argument_at = entry_at + (entry_size + 63) / 64 * 64;
  const mpx_request_body body = {.entry = {entry_at, entry_size},
                                 .argument = {argument_at, sizeof b}};
  memcpy(raw->body, &body, sizeof body);
  memcpy(raw->body + entry_at, &function, entry_size);
  memcpy(raw->body + argument_at, &b, sizeof b);
  raw->body_size = argument_at + sizeof b;
  raw->head = (mpx_request){.magic = MPX_REQUEST_MAGIC,
                            .kind = MPX_REQUEST_START,
                            .member = member,
                            .body_size = raw->body_size};
  CHECK_EQ(mpx_os_surroundings_get(&raw->head.surroundings), 0);
  return raw;
}

static inline int post_raw(int door, const raw_request *raw, const int *fds, size_t fd_count) {
  const mpx_os_bytes parts[] = {{&raw->head, sizeof raw->head}, {raw->body, raw->body_size}};
  mproc_handle handles[MPX_MESSAGE_HANDLES];
  for (size_t i = 0; i < fd_count; i++)
    handles[i] = fds[i];
  return mpx_os_channel_post(door, parts, 2, handles, fd_count, mpx_os_now() + MPX_NS_PER_S);
}

/* Asks by hand; whether a worker came within the time. */
static inline bool worker_comes(int door, int64_t server, int ms) {
  board *b = new_board();
  mpx_member member = claim_for(server);
  raw_request *raw = raw_request_for(member, say_server, b);
  (void)post_raw(door, raw, NULL, 0);
  free(raw);
  for (int64_t end = now_ms() + ms; b->pid == 0 && now_ms() < end;)
    sleep_ms(2);
  bool came = b->pid != 0;
  if (came)
    CHECK(gone_within(b->pid, JOIN_MS));
  else
    (void)mpx_table_retract(mpx_family_header(), member);
  CHECK_EQ(mproc_heap_free(b), 0);
  return came;
}

#endif
