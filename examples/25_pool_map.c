/* Which of these numbers are prime? As many processes as there are CPUs find out. Prints:
 *   10000000000037 is prime
 *   10000000000039 is not prime
 *   10000000000051 is prime
 */
#include <mproc/mproc.h>
#include <stdbool.h>
#include <stdio.h>

static int is_prime(mproc_task *task, const void *input, size_t size) {
  long long n = *(const long long *)input, d = 2;
  (void)size;
  while (d * d <= n && n % d != 0)
    d++;
  *(bool *)mproc_task_output(task) = d * d > n;
  return 0;
}

int main(int argc, char **argv) {
  long long n[] = {10000000000037, 10000000000039, 10000000000051};
  bool prime[3];
  mproc_pool *pool;
  if (mproc_init(&argc, &argv, NULL) < 0 || mproc_pool_create(&pool, NULL) < 0 ||
      mproc_pool_map(pool, is_prime, n, sizeof *n, prime, sizeof *prime, 3, NULL) < 0)
    return fprintf(stderr, "%s\n", mproc_error_detail()), 1;
  for (int i = 0; i < 3; i++)
    printf("%lld is %sprime\n", n[i], prime[i] ? "" : "not ");
  return mproc_pool_destroy(pool) < 0;
}
