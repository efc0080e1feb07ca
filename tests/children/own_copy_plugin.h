#ifndef MPROC_TEST_OWN_COPY_PLUGIN_H
#define MPROC_TEST_OWN_COPY_PLUGIN_H

typedef struct plugin_block {
  int number;
} plugin_block;

typedef struct plugin_result {
  int code;
  int number;       /* after the child multiplied it in the plugin's heap */
  const void *heap; /* a block in it */
} plugin_result;

int plugin_run(const char *method, plugin_result *ret_result);
const char *plugin_error(void);

/* One object of each kind in the plugin's heap, see one_of_each.h; and what a function of each says
 * to an object, by the kind's number. */
int plugin_make(void **objects);
int plugin_try(void *const *objects, int *ret_results);

#endif
