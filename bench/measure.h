/* What every benchmark needs: a clock, medians, a table and JSON lines. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stddef.h>
#include <stdio.h>

double bench_now_us(void);

/* The middle of `count` values, which are sorted in place. */
double bench_median(double *values, size_t count);

/* A new order of these numbers for each round, so that nobody always comes after the same one. */
void bench_shuffle(int *order, int count);

/* Does something for a while, and returns what one of it took. */
typedef double bench_time(void);
typedef struct bench_pair {
  double first, second, ratio; /* medians: of each, and of the ratio first / second of each round */
} bench_pair;
/* In turns, so that neither always comes after the other; one round before warms up. */
bench_pair bench_compare(bench_time *first, bench_time *second, int rounds);

/* One JSON object per call to the file of --json, if there is one: {"bench":..., "case":...,
 * fields}. `fields` is JSON without braces. */
void bench_json(FILE *file, const char *bench, const char *name, const char *fields);

/* The machine, as one line and as JSON fields. */
void bench_machine(char *line, size_t size);

/* --json FILE; ends the program with a usage line for anything else. */
FILE *bench_open_json(int argc, char **argv);

#endif
