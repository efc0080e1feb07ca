/* The entry is a function of a library that the program loads while it runs; the child finds it
 * under every start method. Prints:
 *   plugin: 12 squared is 144
 */
#include <dlfcn.h>
#include <mproc/mproc.h>
#include <stdio.h>
#include <string.h>

int main(int argc, char **argv) {
  if (mproc_init(&argc, &argv, NULL) < 0)
    return 1;
  if (argc != 2) {
    fputs("usage: example_11_plugin PLUGIN\n", stderr);
    return 2;
  }

  void *plugin = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  void *symbol = plugin ? dlsym(plugin, "plugin_square") : NULL;
  if (!symbol) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
  mproc_entry *square;
  memcpy(&square, &symbol, sizeof square); /* ISO C has no cast from void * to a function */

  int number = 12;
  int code = mproc_run(square, &number, sizeof number);
  if (code < 0)
    fprintf(stderr, "%s\n", mproc_error_detail());
  dlclose(plugin);
  return code != 0;
}
