/* What every benchmark needs: a clock, medians, a table and JSON lines. */
#ifndef BENCH_MEASURE_H
#define BENCH_MEASURE_H

#include <stddef.h>
#include <stdio.h>

double bench_now_us(void);

/* The middle of `count` values, which are sorted in place. */
double bench_median(double *values, size_t count);

/* One JSON object per call to the file of --json, if there is one: {"bench":..., "case":...,
 * fields}. `fields` is JSON without braces. */
void bench_json(FILE *file, const char *bench, const char *name, const char *fields);

/* The machine, as one line and as JSON fields. */
void bench_machine(char *line, size_t size);

/* --json FILE; ends the program with a usage line for anything else. */
FILE *bench_open_json(int argc, char **argv);

#endif
