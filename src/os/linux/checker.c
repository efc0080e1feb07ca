#include "os/os.h"

/* In what valgrind preloads into every program. A search through the loader's list would find it
 * too, but would wait for ever in the child of a host that forked while another of its threads was
 * in that list: glibc leaves its lock closed there. */
extern void _vgnU_freeres(void) __attribute__((weak));

bool mpx_os_memory_is_scanned(void) {
  return _vgnU_freeres;
}
