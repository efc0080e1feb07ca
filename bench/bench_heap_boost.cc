// What does a block of the shared heap cost beside Boost.Interprocess's managed segment?
//
// In one run, interleaved, one thread, the traces of bench_heap. Boost's segment has its
// process-shared mutex, as any shared one needs; it does not survive a process that dies in it.
#include "heap_trace.h"

#include <mproc/mproc.h>

#include <boost/interprocess/indexes/iset_index.hpp>
#include <boost/interprocess/managed_external_buffer.hpp>
#include <boost/interprocess/mem_algo/rbtree_best_fit.hpp>
#include <boost/interprocess/sync/mutex_family.hpp>

#include <cstdio>
#include <sys/mman.h>

namespace ipc = boost::interprocess;
using segment = ipc::basic_managed_external_buffer<
    char, ipc::rbtree_best_fit<ipc::mutex_family, ipc::offset_ptr<void>>, ipc::iset_index>;

enum { ROUNDS = 15, LIVE = 5000, OPERATIONS = 100000 };
static const size_t segment_size = static_cast<size_t>(1) << 30;

static segment *boost_segment;
static void *blocks[LIVE];

static void *alloc_boost(size_t size) {
  return boost_segment->allocate(size);
}
static void free_boost(void *block) {
  boost_segment->deallocate(block);
}

static void *alloc_mproc(size_t size) {
  void *block = mproc_heap_alloc(size);
  if (!block) {
    std::fprintf(stderr, "mproc_heap_alloc: %s\n", mproc_error_detail());
    std::exit(1);
  }
  return block;
}
static void free_mproc(void *block) {
  (void)mproc_heap_free(block);
}

static void report(FILE *json, const char *name, double *theirs, double *ours) {
  double boost = bench_median(theirs, ROUNDS), mproc = bench_median(ours, ROUNDS);
  std::printf("%-28s %12.1f %12.1f %8.3f\n", name, boost, mproc, mproc / boost);
  char fields[160];
  std::snprintf(fields, sizeof fields, "\"boost_ns\":%.1f,\"mproc_ns\":%.1f,\"ratio\":%.3f", boost,
                mproc, mproc / boost);
  bench_json(json, "heap_boost", name, fields);
}

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, nullptr) < 0)
    return 1;
  FILE *json = bench_open_json(argc, argv);
  void *memory =
      mmap(nullptr, segment_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED)
    return 1;
  segment shared(ipc::create_only, memory, segment_size);
  boost_segment = &shared;

  double mixed[2][ROUNDS], pair[2][ROUNDS];
  for (int round = 0; round < ROUNDS; round++) {
    mixed[0][round] = trace_time_mixed(blocks, LIVE, OPERATIONS, alloc_boost, free_boost);
    mixed[1][round] = trace_time_mixed(blocks, LIVE, OPERATIONS, alloc_mproc, free_mproc);
    pair[0][round] = trace_time_batches(blocks, 1, 64, OPERATIONS, 0, alloc_boost, free_boost);
    pair[1][round] = trace_time_batches(blocks, 1, 64, OPERATIONS, 0, alloc_mproc, free_mproc);
  }
  char machine[160];
  bench_machine(machine, sizeof machine);
  std::printf("heap: %s; medians of %d interleaved rounds\n", machine, ROUNDS);
  std::printf("%-28s %12s %12s %8s\n", "ns for alloc + free", "Boost", "mproc", "ratio");
  report(json, "mixed, 5,000 live", mixed[0], mixed[1]);
  report(json, "64 B, one at a time", pair[0], pair[1]);
  return json && std::fclose(json) != 0;
}
