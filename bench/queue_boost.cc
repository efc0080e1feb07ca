// Boost.Interprocess's message_queue, for bench_queue.
#include "queue_peers.h"

#include <boost/interprocess/ipc/message_queue.hpp>

#include <cstdio>
#include <memory>
#include <unistd.h>

namespace ipc = boost::interprocess;

// Mapped once; the name goes at once, the workers inherit the mapping.
static void *open_queue(const queue_setup *setup) {
  char name[64];
  std::snprintf(name, sizeof name, "bench_queue.%ld", static_cast<long>(getpid()));
  try {
    ipc::message_queue::remove(name);
    auto queue =
        std::make_unique<ipc::message_queue>(ipc::create_only, name, setup->capacity, setup->size);
    ipc::message_queue::remove(name);
    return queue.release();
  } catch (const std::exception &e) {
    queue_die(e.what());
    return nullptr;
  }
}

static void produce(void *shared, const queue_work *work) {
  auto *queue = static_cast<ipc::message_queue *>(shared);
  for (uint64_t i = 0; i < work->count; i++) {
    queue_write(work->memory, work->size, work->first + i);
    queue->send(work->memory, work->size, 0);
  }
}

static void consume(void *shared, const queue_work *work, queue_sum *sum) {
  auto *queue = static_cast<ipc::message_queue *>(shared);
  ipc::message_queue::size_type size;
  unsigned int priority;
  for (uint64_t i = 0; i < work->count; i++) {
    queue->receive(work->memory, work->size, size, priority);
    queue_read(work->memory, static_cast<size_t>(size), sum);
  }
}

static void close_queue(void *shared) {
  delete static_cast<ipc::message_queue *>(shared);
}

extern "C" const queue_peer queue_peer_boost = {"Boost message_queue",
                                                nullptr,
                                                false,
                                                nullptr,
                                                open_queue,
                                                nullptr,
                                                produce,
                                                consume,
                                                nullptr,
                                                close_queue,
                                                nullptr};
