/* For builds without libcjson: static ones, because distributions ship it as a shared library. */
#include "cli.h"
#include "methods.h"

int cli_methods_json(const method_list *list) {
  (void)list;
  return cli_fail("this build has no --json: it was made without libcjson");
}
