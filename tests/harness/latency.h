/* How long survivors of a death take to go on. The contract says 100 ms: it is held to that where
 * the machine is idle enough to tell. */
#ifndef MPROC_TEST_LATENCY_H
#define MPROC_TEST_LATENCY_H

#include "processes.h"

enum { GO_ON_US = 100 * 1000, IDLE_US = 10 * 1000, CALIBRATION_MS = 50 };

static inline int64_t now_us(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* By how much a sleep was too long. */
static inline int64_t overslept_us(int ms) {
  int64_t begin = now_us();
  sleep_ms(ms);
  return now_us() - begin - ms * 1000LL;
}

/* For how long somebody has waited for a CPU, since the system was started; 0: it does not say. */
static inline int64_t cpu_pressure_us(void) {
  long long total = 0;
  FILE *file = fopen("/proc/pressure/cpu", "re");
  if (file && fscanf(file, "some avg10=%*s avg60=%*s avg300=%*s total=%lld", &total) != 1)
    total = 0;
  if (file)
    (void)fclose(file);
  return total;
}

/* From a death that we know of to what the survivors do. */
typedef struct latency {
  int64_t begin, took;
  int64_t late;     /* the worst of our own sleeps meanwhile: what the machine adds */
  int64_t pressure; /* cpu_pressure_us at the beginning */
} latency;

/* The worst of a case, for its last line. */
static latency worst_latency;

static inline latency latency_begin(void) {
  return (latency){.begin = now_us(), .pressure = cpu_pressure_us()};
}

static inline void latency_sleep(latency *self) {
  int64_t late = overslept_us(1);
  self->late = late > self->late ? late : self->late;
}

/* `own_ms`: what the survivors wait by themselves. A slow one is no failure where our own sleeps
 * are slow too, or anybody had to wait for a CPU. */
static inline void latency_end(latency *self, int own_ms, const char *what) {
  const int64_t most = GO_ON_US + own_ms * 1000LL;
  self->took = now_us() - self->begin;
  if (self->took > worst_latency.took)
    worst_latency = *self;
  if (self->took <= most || UNDER_SANITIZER || test_under_valgrind())
    return;
  int64_t pressure = cpu_pressure_us() - self->pressure;
  int64_t later = overslept_us(CALIBRATION_MS);
  later = pressure > later ? pressure : later;
  self->late = later > self->late ? later : self->late;
  printf("# %s: %lld us, others waited up to %lld us for a CPU\n", what, (long long)self->took,
         (long long)self->late);
  fflush(stdout);
  if (self->late < IDLE_US && self->took > most + self->late)
    test_fail(__FILE__, __LINE__, "survivors go on within 100 ms", "%s: %lld us", what,
              (long long)self->took);
}

static inline void latency_report(const char *what) {
  printf("# %s: at the worst %lld us\n", what, (long long)worst_latency.took);
}

/* As AWAIT, of what survivors do from now on. */
#define AWAIT_GOING_ON(condition, own_ms, what)                                                    \
  do {                                                                                             \
    latency await_latency = latency_begin();                                                       \
    for (; !(condition); latency_sleep(&await_latency))                                            \
      CHECK(now_us() - await_latency.begin < JOIN_MS * 1000LL && #condition);                      \
    latency_end(&await_latency, own_ms, what);                                                     \
  } while (0)

#endif
