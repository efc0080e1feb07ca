/* The work of bench_map: what `mproc map`, xargs and a single process do with each file. */
#ifndef BENCH_MAP_WORK_H
#define BENCH_MAP_WORK_H

#include <stddef.h>

enum { MAP_PATH = 4096, MAP_LINE = MAP_PATH + 128 };

/* Reads the file, and writes a line about it without its end, at most `size` bytes, NUL included.
 * Returns its length; -1: the file cannot be read, or the work failed. */
typedef int map_work(const char *path, char *line, size_t size);

map_work map_pack;   /* compresses it by zlib: bytes before and after */
map_work map_digest; /* SHA-256 */

#endif
