/* The libraries that tests spawn entries of; LIBRARY_NUMBER tells one build from another. */
#ifndef MPROC_TEST_ENTRY_LIBRARY_H
#define MPROC_TEST_ENTRY_LIBRARY_H

#include <stddef.h>

/* Both return *(unsigned char *)arg + LIBRARY_NUMBER. */
int library_entry(void *arg, size_t size);
typedef int library_function(void *arg, size_t size);
library_function *library_static_entry(void);

#endif
