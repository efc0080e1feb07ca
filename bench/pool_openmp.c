/* OpenMP's parallel loop, for bench_pool. Compiled apart, so that it knows no more of the function
 * than a pool does. */
#include "measure.h"
#include "pool_parts.h"

#ifdef _OPENMP
const char *pool_openmp_missing(void) {
  return NULL;
}

double pool_openmp(pool_call *call, const char *inputs, size_t input_size, char *outputs,
                   size_t output_size, int64_t count, int chunk) {
  int workers = pool_workers();
  double us = 0;
  for (int pass = 0; pass < 2; pass++) { /* the first makes the threads and touches the memory */
    double before = bench_now_us();
#pragma omp parallel for schedule(dynamic, chunk) num_threads(workers)
    for (int64_t i = 0; i < count; i++)
      (void)call(outputs + (size_t)i * output_size, inputs + (size_t)i * input_size, input_size);
    us = bench_now_us() - before;
  }
  return us;
}
#else
const char *pool_openmp_missing(void) {
  return "the compiler has no OpenMP";
}

double pool_openmp(pool_call *call, const char *inputs, size_t input_size, char *outputs,
                   size_t output_size, int64_t count, int chunk) {
  (void)call, (void)inputs, (void)input_size, (void)outputs, (void)output_size;
  return (double)count * chunk;
}
#endif
