#include "sync_boost.h"

#include <mproc/mproc.h>

#include <boost/interprocess/sync/interprocess_condition.hpp>
#include <boost/interprocess/sync/interprocess_mutex.hpp>
#include <boost/interprocess/sync/interprocess_semaphore.hpp>
#include <boost/interprocess/sync/scoped_lock.hpp>

#include <new>

namespace ipc = boost::interprocess;

// Each of another cache line.
struct things {
  alignas(64) ipc::interprocess_mutex mutex;
  alignas(64) ipc::interprocess_condition condition;
  alignas(64) ipc::interprocess_semaphore first{0};
  alignas(64) ipc::interprocess_semaphore second{0};
};

static things *t;

int sync_boost_make(void) {
  void *memory = mproc_heap_aligned_alloc(alignof(things), sizeof(things));
  if (!memory)
    return 0;
  t = new (memory) things;
  return 1;
}

void sync_boost_lock(int count, int64_t *counter) {
  for (int i = 0; i < count; i++) {
    t->mutex.lock();
    if (counter)
      ++*counter;
    t->mutex.unlock();
  }
}

void sync_boost_semaphore(int count) {
  for (int i = 0; i < count; i++) {
    t->first.post();
    t->first.wait();
  }
}

void sync_boost_turn_condition(int number, int turns, int *turn) {
  for (int i = 0; i < turns; i++) {
    ipc::scoped_lock<ipc::interprocess_mutex> lock(t->mutex);
    while (*turn != number)
      t->condition.wait(lock);
    *turn = 1 - number;
    t->condition.notify_one();
  }
}

void sync_boost_turn_semaphore(int number, int turns) {
  for (int i = 0; i < turns; i++) {
    if (number == 0)
      t->second.post();
    (number == 0 ? t->first : t->second).wait();
    if (number == 1)
      t->first.post();
  }
}
